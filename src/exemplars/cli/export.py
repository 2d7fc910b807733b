"""The command that writes dictionaries and directions in other libraries' formats."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    Folder,
    Json,
    OtherModel,
    example,
    model_of,
    open_dictionary,
)
from exemplars.cli.terminal import print_result, say

if TYPE_CHECKING:
    from exemplars.dictionary import Dictionary
    from exemplars.explorer.single_file import SingleFile
    from exemplars.export import Export
    from exemplars.export.directions import DirectionExport

_TYPED = {"regions": "region", "traces": "trace", "sessions": "steer"}
"""Options by the argument that they become, where the two differ."""
_LAYERS = re.compile(r"\d{1,4}(-\d{1,4})?(,\d{1,4}(-\d{1,4})?)*", re.ASCII)


@app.command(
    epilog=example(
        "  exemplars export saelens gpt2-l6-p2 gpt2-l6-p2-saelens\n"
        "  exemplars export sparsify gpt2-l6-p2 coders --min-members 10\n"
        "  exemplars export gguf gpt2-l6-p2 region42.gguf --region 42 --strength 0.5\n"
        "  exemplars export lm-eval gpt2-l6-p2 ablate42.csv --region 42\n"
        "  exemplars export html gpt2-l6-p2 gpt2-l6-p2.html --top 300\n"
        "  exemplars export html gpt2-l6-p2 shown.html --trace texts.txt --drift gpt2-tuned-l6-p2"
    )
)
def export(
    format_: Annotated[
        str,
        typer.Argument(
            help="Of a dictionary: saelens, sparsify. Of a direction: gguf, steering-vectors, "
            "lm-eval. To look at: html.",
            metavar="FORMAT",
        ),
    ],
    folder: Folder,
    out: Annotated[
        Path, typer.Argument(help="Folder to write; a file for a direction.", metavar="OUT")
    ],
    top: Annotated[
        int | None, typer.Option(help="Only so many regions with the most members.", min=1)
    ] = None,
    min_members: Annotated[
        int | None, typer.Option(help="Only regions with at least so many members.", min=1)
    ] = None,
    basis: Annotated[str, typer.Option(help="exemplar or mean: the directions.")] = "exemplar",
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16, float16. Default: float32.")
    ] = None,
    hookpoint: Annotated[
        str | None, typer.Option(help="The hook's name. Default: from the dictionary's site.")
    ] = None,
    region: Annotated[
        list[int] | None,
        typer.Option(
            help="Of a direction: the region. Repeat for the direction of their sum. html: a "
            "region that gets a page."
        ),
    ] = None,
    strength: Annotated[
        float | None,
        typer.Option(
            help="Of a direction: length in units of the site's median activation norm. Default: 1."
        ),
    ] = None,
    unit: Annotated[
        float | None,
        typer.Option(help="Raw length of a strength of 1. Default: the median activation norm."),
    ] = None,
    layers: Annotated[
        str | None,
        typer.Option(
            help="gguf, steering-vectors: layers that share the strength, 14 or 14-16. Default: "
            "the dictionary's."
        ),
    ] = None,
    model_hint: Annotated[
        str | None, typer.Option(help="gguf: the architecture. Default: from the model's class.")
    ] = None,
    action: Annotated[str | None, typer.Option(help="lm-eval: ablate (default) or add.")] = None,
    sparsify: Annotated[
        Path | None,
        typer.Option(help="lm-eval: a sparsify export to refer to. Default: a new one beside OUT."),
    ] = None,
    corpus_text: Annotated[
        bool | None,
        typer.Option(
            "--corpus-text/--no-corpus-text",
            help="html: keep the text round each token. Default: it is kept.",
        ),
    ] = None,
    max_mb: Annotated[
        float | None,
        typer.Option(help="html: megabytes, at most. Default: 25.", min=0.1),
    ] = None,
    trace: Annotated[
        Path | None,
        typer.Option(
            help="html: texts to read through the model, one a line, or JSON Lines (.jsonl); the "
            "file shows their regions."
        ),
    ] = None,
    steer: Annotated[
        list[Path] | None,
        typer.Option(
            help="html: a steering session, as the explorer saves it (JSON). Repeat for several."
        ),
    ] = None,
    drift: Annotated[
        Path | None,
        typer.Option(help="html: a dictionary that this one became; the file says what changed."),
    ] = None,
    model: OtherModel = None,
    device: Annotated[
        str | None, typer.Option(help="html: where the model of --trace runs. Default: cpu.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a dictionary, or the direction of a region, in the format of another library."""
    from exemplars.export.directions import DIRECTION_FORMATS

    given = {
        "top": top, "min_members": min_members, "dtype": dtype, "hookpoint": hookpoint,
        "region": region or None, "strength": strength, "unit": unit, "layers": layers,
        "model_hint": model_hint, "action": action, "sparsify": sparsify,
        "corpus_text": corpus_text, "max_mb": max_mb, "trace": trace, "steer": steer or None,
        "drift": drift, "model": model, "device": device,
    }  # fmt: skip
    check_options(format_, given)
    options = {name: value for name, value in given.items() if value is not None}
    if format_ == "html":
        file, said = _write_html(folder, out, options | {"overwrite": overwrite})
        print_result(file, said, json)
        return
    options |= {"basis": basis, "overwrite": overwrite}
    write = _write_direction if format_ in DIRECTION_FORMATS else _write_dictionary
    done, text = write(open_dictionary(folder), format_, out, options)
    for warning in done.warnings:
        say(f"warning: {warning}")
    print_result(done, text, json)


def check_options(format_: str, given: Mapping[str, Any]) -> None:
    """Refuse a format that there is not, and an option that belongs to others.

    Raises:
        ValueError: With the option as it is typed.
    """
    from exemplars.export import FORMATS, check_format
    from exemplars.export.directions import DIRECTION_FORMATS

    known_formats: dict[str, Any] = {**FORMATS, **DIRECTION_FORMATS}
    if format_ == "html":
        from exemplars.explorer.single_file import export_html

        known_formats["html"] = export_html
    if format_ not in known_formats:
        check_format(format_, "html")
    write: Any = known_formats[format_]
    known = {_TYPED.get(name, name) for name in inspect.signature(write).parameters}
    if format_ == "html":
        known.add("device")
    wrong = [name for name, value in given.items() if value is not None and name not in known]
    if wrong:
        flag = "--" + wrong[0].replace("_", "-")
        raise ValueError(f"the format {format_} has no option {flag}; see exemplars export --help")


def layers_of(text: str) -> list[int]:
    """Layers as they are typed: "14", "14-16", "3,14-16".

    Raises:
        ValueError: Something else.
    """
    found: list[int] = []
    for part in text.split(",") if _LAYERS.fullmatch(text) else []:
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    if not found:
        raise ValueError(f'the layers are "{text}", expected numbers from 0 such as 14 or 14-16')
    return found


def export_text(done: Export) -> str:
    """What was written of a dictionary."""
    from exemplars.report import size, table

    header = ("format", "latents", "dropped regions", "basis", "dtype", "size")
    row = (done.format, done.latents, done.dropped, done.basis, done.dtype, size(done.bytes))
    return f"{table(header, [row])}\n\nwritten to {done.folder}: {', '.join(done.files)}"


def direction_text(done: DirectionExport) -> str:
    """What was written of a direction."""
    from exemplars.report import table

    header = ("format", "regions", "basis", "action", "strength", "length", "where")
    where = done.hookpoint or ", ".join(f"layer {layer}" for layer in done.layers)
    numbers = ["" if x is None else f"{x:.4g}" for x in (done.strength, done.length)]
    row = (
        done.format,
        " + ".join(map(str, done.regions)),
        done.basis,
        done.action,
        *numbers,
        where,
    )
    beside = f", which refers to {done.sparsify}" if done.sparsify else ""
    return f"{table(header, [row])}\n\nwritten to {done.file}{beside}"


def _write_dictionary(
    dictionary: Dictionary, format_: str, out: Path, options: dict[str, Any]
) -> tuple[Export, str]:
    from exemplars.export import export_as, select_regions, weight_bytes
    from exemplars.report import size

    filters = {name: options.get(name) for name in ("top", "min_members")}
    regions = select_regions(dictionary, **filters, basis=options["basis"])
    needed = weight_bytes(len(regions), dictionary.width, options.get("dtype", "float32"))
    say(f"writing {len(regions):,} latents, {size(needed)}, to {out}")
    done = export_as(dictionary, format_, out, **options)
    return done, export_text(done)


def _write_direction(
    dictionary: Dictionary, format_: str, out: Path, options: dict[str, Any]
) -> tuple[DirectionExport, str]:
    from exemplars.export.directions import export_direction

    regions = options.pop("region", [])
    if "layers" in options:
        options["layers"] = layers_of(options["layers"])
    done = export_direction(dictionary, format_, out, regions, **options)
    return done, direction_text(done)


def single_file_text(done: SingleFile) -> str:
    """What is in the file, and what is not."""
    from exemplars.report import size, table

    sizes = [(what, size(n)) for what, n in done.parts.items()]
    return "\n\n".join(
        [
            f"{done.regions:,} of {done.of:,} regions are in {done.file}, {size(done.bytes)}; open "
            "it in a browser",
            table(("part", "size"), sizes),
            f"It shows {done.characters:,} characters of {done.documents:,} documents: share it "
            "where the corpus may be shared.",
            "Left out: " + "; ".join(done.left_out) + ".",
            f"sha256 {done.sha256}",
        ]
    )


def _write_html(folder: Path, out: Path, options: dict[str, Any]) -> tuple[SingleFile, str]:
    from exemplars.cli.terminal import step_bar
    from exemplars.explorer.single_file import export_html

    for argument, typed in _TYPED.items():
        if typed in options:
            options[argument] = options.pop(typed)
    name, device = options.pop("model", None), options.pop("device", None)
    if "traces" in options:
        from exemplars.explorer.frozen import texts_to_trace

        options["traces"] = texts_to_trace(options["traces"])
        options["model"] = model_of(open_dictionary(folder), name, device or "cpu", None)
    elif name or device:
        raise ValueError("--model and --device are for --trace; give texts to read, or leave them")
    with step_bar() as on_step:
        done = export_html(folder, out, on_step=on_step, **options)
    return done, single_file_text(done)
