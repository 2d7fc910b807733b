"""The command that writes dictionaries in other libraries' formats."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.options import Folder, Json, example, open_dictionary
from exemplars.cli.terminal import print_result, say

if TYPE_CHECKING:
    from exemplars.export import Export


@app.command(
    epilog=example(
        "  exemplars export saelens gpt2-l6-p2 gpt2-l6-p2-saelens\n"
        "  exemplars export sparsify gpt2-l6-p2 coders --min-members 10"
    )
)
def export(
    format_: Annotated[str, typer.Argument(help="saelens or sparsify.", metavar="FORMAT")],
    folder: Folder,
    out: Annotated[Path, typer.Argument(help="Folder to write.", metavar="OUT")],
    top: Annotated[
        int | None, typer.Option(help="Only so many regions with the most members.", min=1)
    ] = None,
    min_members: Annotated[
        int | None, typer.Option(help="Only regions with at least so many members.", min=1)
    ] = None,
    basis: Annotated[str, typer.Option(help="exemplar or mean: the directions.")] = "exemplar",
    dtype: Annotated[str, typer.Option(help="float32, bfloat16, float16.")] = "float32",
    hookpoint: Annotated[
        str | None, typer.Option(help="The hook's name. Default: from the dictionary's site.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an export that is there.")
    ] = False,
    json: Json = False,
) -> None:
    """Write a dictionary in the format of another library."""
    from exemplars.export import check_format, export_as, select_regions, weight_bytes
    from exemplars.report import size

    check_format(format_)
    dictionary = open_dictionary(folder)
    regions = select_regions(dictionary, top=top, min_members=min_members, basis=basis)
    needed = weight_bytes(len(regions), dictionary.width, dtype)
    say(f"writing {len(regions):,} latents, {size(needed)}, to {out}")
    done = export_as(
        dictionary, format_, out, top=top, min_members=min_members, basis=basis, dtype=dtype,
        hookpoint=hookpoint, overwrite=overwrite,
    )  # fmt: skip
    for warning in done.warnings:
        say(f"warning: {warning}")
    print_result(done, export_text(done), json)


def export_text(done: Export) -> str:
    """What was written."""
    from exemplars.report import size, table

    header = ("format", "latents", "dropped regions", "basis", "dtype", "size")
    row = (done.format, done.latents, done.dropped, done.basis, done.dtype, size(done.bytes))
    return f"{table(header, [row])}\n\nwritten to {done.folder}: {', '.join(done.files)}"
