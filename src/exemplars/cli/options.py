"""Arguments that several commands take, and what they name: models, texts, dictionaries."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.terminal import say

if TYPE_CHECKING:
    from exemplars.corpora import Texts
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

ModelName = Annotated[
    str, typer.Argument(help="Hub id, local folder, GGUF file, or package:NAME.", metavar="MODEL")
]
Folder = Annotated[Path, typer.Argument(help="A dictionary's folder.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="Where the model runs.")]
Screen = Annotated[
    str,
    typer.Option(
        help="How regions are searched for, never what is found: auto, dense, float32, int8, or a "
        "device such as cuda."
    ),
]
AuditFlag = Annotated[
    bool, typer.Option("--audit", help="Compare random pairs with what the search answers.")
]
Dtype = Annotated[
    str | None, typer.Option(help="bfloat16, float16, float32. Default: the checkpoint's own.")
]
Text = Annotated[
    list[str],
    typer.Option(
        "--text",
        help="Files, a folder, package:NAME, or a Hugging Face dataset. Repeat for several files.",
        show_default=False,
    ),
]
Column = Annotated[str, typer.Option(help="Column of JSONL, Parquet, and datasets.")]
Split = Annotated[str, typer.Option(help="Split of a Hugging Face dataset.")]
HoldOut = Annotated[
    float,
    typer.Option(help="Share of the documents that forms the held-out slice.", min=0.0, max=0.99),
]
OtherModel = Annotated[
    str | None, typer.Option("--model", help="Default: the model that the dictionary names.")
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Go on although it is another model.")
]


def example(command: str) -> str:
    """The end of a help text: commands to copy, so their lines stay as they are."""
    return f"\b\nExample:\n{command}"


def load_model(name: str, device: str = "cpu", dtype: str | None = None) -> Model:
    """A model by name; says so, as it may take a while."""
    import exemplars as ex

    say(f"loading {name}")
    import_torch()
    return ex.load_model(name, device=device, dtype=dtype)


def import_torch() -> None:
    """Import what runs models; Ctrl-C ends the process at once here.

    A KeyboardInterrupt inside the start of a compiled library would abort it, with words of C++.
    """

    def end(*_: object) -> None:
        say("interrupted")
        os._exit(130)

    handler = signal.getsignal(signal.SIGINT)
    guarded = (
        handler is signal.default_int_handler
        and threading.current_thread() is threading.main_thread()
    )
    if guarded:
        signal.signal(signal.SIGINT, end)
    try:
        import torch
        import transformers

        del torch, transformers
    finally:
        if guarded:
            signal.signal(signal.SIGINT, handler)


def open_dictionary(folder: Path) -> Dictionary:
    """The dictionary in a folder; of several, an error that names them."""
    import exemplars as ex
    from exemplars import store

    if folder.is_dir() and not (folder / store.MANIFEST).exists():
        several = sorted(path.parent.name for path in folder.glob(f"*/{store.MANIFEST}"))
        if several:
            listed = ", ".join(several[:12]) + (", …" if len(several) > 12 else "")
            raise ValueError(f"{folder} holds several dictionaries ({listed}); give one of them")
    return ex.load(folder)


def dictionaries_in(folders: list[Path]) -> list[Path]:
    """Folders of dictionaries; one that holds several stands for them all.

    Raises:
        ValueError: A folder is neither.
    """
    from exemplars import store

    found: list[Path] = []
    for folder in folders:
        inside = sorted(path.parent for path in folder.glob(f"*/{store.MANIFEST}"))
        if (folder / store.MANIFEST).is_file() or not inside:
            inside = [folder]
        found += inside
    for folder in found:
        store.manifest_of(folder)
    return found


def model_of(
    dictionary: Dictionary,
    name: str | None,
    device: str,
    dtype: str | None,
    allow_mismatch: bool = False,
) -> Model:
    """The model a dictionary names, or the one given, checked against it."""
    from exemplars import store
    from exemplars.report import provenance

    if provenance(dictionary, "site").get("name") is None:
        raise ValueError(
            "the dictionary does not say which site of its model it is of, so no text can be read "
            "for it; assign vectors in Python: dictionary.assign(vectors)"
        )
    name = name or provenance(dictionary, "model").get("name")
    if name is None:
        raise ValueError("the dictionary does not name its model; give one with --model")
    model = load_model(name, device, dtype or dictionary.provenance.get("dtype"))
    warning = store.check_model(dictionary, model, allow_mismatch=allow_mismatch)
    if warning:
        say(f"warning: {warning}")
    return model


def texts_of(sources: list[str], column: str = "text", split: str = "train") -> Texts:
    """Texts by name: files, a folder, a package's, a dataset."""
    import exemplars as ex

    named = [name for name in sources if name.startswith("package:") and not Path(name).exists()]
    if "" in sources:
        raise ValueError("an empty name was given for a text; give a file, a folder, or a dataset")
    if named and len(sources) > 1:
        raise ValueError(f"{named[0]} was given with other texts; give it alone, or several files")
    source: Any = sources[0] if len(sources) == 1 else list(map(Path, sources))
    return ex.texts(source, column=column, split=split)


def standard_input() -> str:
    """All of it; bytes that are not UTF-8 become U+FFFD."""
    return typer.get_binary_stream("stdin").read().decode("utf-8", "replace")
