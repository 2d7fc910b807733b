"""Activations and log-probabilities of the study's passages, kept in a folder; each read once.

python bench/novelty_reading.py --corpora FOLDER --cache FOLDER [--tuned NAME=MODEL ...]
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import exemplars as ex
import novelty_corpora as corpora
from exemplars.analyses.fluency import token_log_probabilities
from novelty_corpora import Passages

SITES = ("resid_post.15", "resid_post.24")
STEP = 10
"""Passages at once: as many as `token_log_probabilities` takes of 128 tokens."""
CODE = Path("/usr/lib/python3.11")
PERL = Path("/usr/share/perl")
N = 70
"""Passages of a set that is not held out of a build."""


def sets(model: ex.Model, folder: Path) -> dict[str, Callable[[], Passages]]:
    """Each set by name. Those of one source are of documents apart: see the slices."""
    modern = corpora.addresses(1901, 2100)
    pages = list(corpora.folder_texts(folder / "manpages-en"))
    third, some = len(modern) // 3, 200

    def read(texts: Any, per_document: int = 1, most: int = N) -> Callable[[], Passages]:
        return lambda: corpora.passages(model, texts, per_document, most)

    def thinned(name: str) -> Passages:
        whole = held[name]()
        chosen = np.linspace(0, len(whole.ids) - 1, N).astype(int)
        return Passages(whole.ids[chosen], whole.document[chosen])

    held = {
        "sotu held": read(modern[third:], 13, 1050),
        "manpages held": read(pages[some:], 3, 510),
    }
    return {
        "sotu build": read(modern[:third], 12, 500),
        "manpages build": read(pages[:some], 2, 300),
        **held,
        "sotu 19th century": read(corpora.addresses(1801, 1900)),
        "sotu 18th century": read(corpora.addresses(1700, 1800), 10),
        "Python": read(corpora.folder_texts(CODE, "*.py")),
        "Perl": read(corpora.folder_texts(PERL, "*.pm")),
        **{
            f"manpages {language}": read(corpora.folder_texts(folder / f"manpages-{language}"))
            for language in corpora.LANGUAGES
        },
        "chat": lambda: corpora.chat(model, N),
        "random tokens": lambda: corpora.random_tokens(model, N),
        **{
            f"{name}, shuffled words": lambda name=name: corpora.shuffled(model, thinned(name))
            for name in held
        },
    }


def read(model: ex.Model, found: Passages, path: Path) -> None:
    """Vectors at the sites and log-probabilities of all tokens but the first of each passage."""
    kept: dict[str, list[torch.Tensor]] = {site: [] for site in SITES}

    def hook(site: str) -> Callable[..., None]:
        def keep(module: Any, args: Any, output: Any) -> None:
            kept[site].append((output[0] if isinstance(output, tuple) else output)[:, 1:].clone())

        return keep

    handles = [
        model.module.get_submodule(model.site(site).module_path).register_forward_hook(hook(site))
        for site in SITES
    ]
    scores = []
    try:
        for start in range(0, len(found.ids), STEP):
            part = list(found.ids[start : start + STEP])
            scores += token_log_probabilities(model, part, [1] * len(part))
    finally:
        for handle in handles:
            handle.remove()
    content = {site: torch.cat(several) for site, several in kept.items()}
    shape = (len(found.ids), corpora.TOKENS - 1)
    assert all(vectors.shape[:2] == shape for vectors in content.values())
    content["log_probability"] = torch.from_numpy(np.stack(scores))
    content |= {"ids": torch.from_numpy(found.ids), "document": torch.from_numpy(found.document)}
    torch.save(content, path.with_suffix(".partial"))
    path.with_suffix(".partial").rename(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    models = home / "models/smollm2-135m-instruct"
    parser.add_argument("--model", default=str(next(models.glob("*.gguf"), models)))
    parser.add_argument("--corpora", type=Path, required=True)
    parser.add_argument("--cache", type=Path, default=home / "bench/novelty")
    parser.add_argument("--render", type=Path, help="unpacked Debian packages of manual pages")
    parser.add_argument("--tuned", action="append", default=[], metavar="NAME=MODEL")
    options = parser.parse_args()
    if options.render is not None:
        corpora.render(options.render, options.corpora, 700)
    options.cache.mkdir(parents=True, exist_ok=True)
    model = ex.load_model(options.model, dtype="bfloat16")
    for name, make in sets(model, options.corpora).items():
        path = options.cache / f"{name}.pt"
        if not path.exists():
            found = make()
            print(name, found.ids.shape, len(np.unique(found.document)), flush=True)
            read(model, found, path)
    for pair in options.tuned:
        name, _, tuned = pair.partition("=")
        path = options.cache / f"tuned {name}.pt"
        if not path.exists():
            held = torch.load(options.cache / "sotu held.pt")
            chosen = np.linspace(0, len(held["ids"]) - 1, N).astype(int)
            found = Passages(held["ids"].numpy()[chosen], held["document"].numpy()[chosen])
            print(f"tuned {name}", found.ids.shape, flush=True)
            read(ex.load_model(tuned, dtype="bfloat16"), found, path)


if __name__ == "__main__":
    main()
