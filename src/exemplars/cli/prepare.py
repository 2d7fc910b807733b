"""The command that prepares dictionaries for the explorer."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    Device,
    Json,
    OtherModel,
    dictionaries_in,
    example,
    model_of,
)
from exemplars.cli.terminal import print_result, step_bar

if TYPE_CHECKING:
    from exemplars.dictionary import Dictionary
    from exemplars.explorer.preparing import Prepared
    from exemplars.models import Model


@app.command(
    epilog=example(
        "  exemplars prepare demo/resid_post.15-p2\n"
        "  exemplars prepare demo --cache-dir /scratch/explorer"
    )
)
def prepare(
    folders: Annotated[
        list[Path],
        typer.Argument(
            help="Folders of dictionaries, or a folder that holds several.", metavar="DIR..."
        ),
    ],
    cache_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where prepared files go; give explore the same. Default: beside each dictionary."
        ),
    ] = None,
    lens: Annotated[
        bool,
        typer.Option(
            "--lens", help="Read every region's logit lens too, for its entropy. Needs the model."
        ),
    ] = False,
    model: OtherModel = None,
    device: Device = "cpu",
    json: Json = False,
) -> None:
    """Prepare what explore needs, so that its pages need not wait for it.

    What lies ready is kept; what is stale, cut short or altered is made again. Ctrl-C leaves whole
    files, and the next call goes on from there.
    """
    from exemplars.explorer.preparing import prepare_view
    from exemplars.report import provenance

    if not lens and model is not None:
        raise ValueError("--model is for --lens; give both, or neither")
    done: list[Prepared] = []
    loaded: dict[str | None, Model] = {}

    def load(dictionary: Dictionary) -> Model:
        name = model or provenance(dictionary, "model").get("name")
        if name not in loaded:
            loaded[name] = model_of(dictionary, name, device, None)
        return loaded[name]

    found = dictionaries_in(folders)
    with step_bar() as on_step:
        for folder in found:
            name = folder.resolve().name

            def told(part: str, n: int, of: int, name: str = name) -> None:
                on_step(f"{name}: {part}", n, of)

            try:
                done.append(prepare_view(folder, cache_dir, told, load if lens else None))
            except KeyboardInterrupt:
                raise KeyboardInterrupt(
                    f"interrupted; {len(done)} of {len(found)} dictionaries are prepared: run it "
                    "again to go on from there"
                ) from None
    print_result(done, prepared_text(done), json)


def prepared_text(done: Sequence[Prepared]) -> str:
    """How much was made and kept, a line for each dictionary; JSON names the files."""
    from exemplars.report import size, table

    rows = [
        (one.dictionary, len(one.made) or "nothing", len(one.kept) or "nothing", size(one.bytes))
        for one in done
    ]
    reasons = [
        f"{one.dictionary}: no {part}: {why}" for one in done for part, why in one.left_out.items()
    ]
    places = {str(one.place.parents[1]) for one in done}
    where = f"prepared files lie in {', '.join(sorted(places))}"
    header = ("dictionary", "files made", "files kept", "size")
    return "\n".join([table(header, rows), *reasons, "", where])
