"""The command that says whether texts are unlike what a dictionary was built from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath
from exemplars.cli.options import (
    AllowMismatch,
    Column,
    Device,
    Dtype,
    Folder,
    Json,
    OtherModel,
    Split,
    Text,
    example,
    model_of,
    open_dictionary,
    texts_of,
)
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.corpora import Texts
    from exemplars.dictionary import Dictionary


@app.command(
    epilog=example(
        "  exemplars novelty gpt2-l6-p2 --text incoming/\n"
        "  exemplars novelty gpt2-l6-p2 --text incoming/ --calibration known/ --figure novelty.svg"
    )
)
def novelty(
    folder: Folder,
    text: Text,
    calibration: Annotated[
        list[str] | None,
        typer.Option(
            help="Texts of the build's kind that it has not read. Default: the slice that it held "
            "out, else documents that it did not come to."
        ),
    ] = None,
    built_from: Annotated[
        list[str] | None,
        typer.Option(
            help="The build's own texts, where they lie now. Default: where the manifest says."
        ),
    ] = None,
    calibration_rows: Annotated[
        int, typer.Option(help="So many rows of them, about.", min=1)
    ] = 50_000,
    score: Annotated[
        str | None,
        typer.Option(
            help="Of a token: distance, standard, tail, rarity, joint, mean, or whitened."
        ),
    ] = None,
    passage_tokens: Annotated[
        int | None,
        typer.Option(
            help="Tokens that the model reads together. Default: 128, or the dictionary's context "
            "length if that is shorter."
        ),
    ] = None,
    tokens: Annotated[int, typer.Option(help="Tokens to show.", min=0)] = 10,
    level: Annotated[float, typer.Option(help="A p-value up to this counts as small.")] = 0.05,
    permutations: Annotated[
        int, typer.Option(help="Random exchanges that the set is compared with.", min=1)
    ] = 999,
    seed: Annotated[int, typer.Option(help="Of the calibration's order, and of the nulls.")] = 0,
    column: Column = "text",
    split: Split = "train",
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Say whether texts are unlike what a dictionary was built from, with p-values."""
    from exemplars import figures
    from exemplars.analyses.novelty import SCORE
    from exemplars.analyses.novelty import novelty as compare
    from exemplars.report.novelty import novelty_figure, novelty_summary, novelty_text

    dictionary = open_dictionary(folder)
    asked = texts_of(text, column, split)
    usual, source, notes = _usual(dictionary, calibration, built_from, column, split)
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    with interruptible(), step_bar() as on_step:
        report = compare(
            dictionary, loaded, asked, usual, source=source, score=score or SCORE,
            passage_tokens=passage_tokens, usual_rows=calibration_rows, n_tokens=tokens,
            level=level, permutations=permutations, seed=seed, notes=notes, on_step=on_step,
        )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(novelty_figure(report), figure)
        say(f"written to {svg} and {png}")
    print_result(
        novelty_summary(report) if json else None, None if json else novelty_text(report), json
    )


def _usual(
    dictionary: Dictionary,
    calibration: list[str] | None,
    built_from: list[str] | None,
    column: str,
    split: str,
) -> tuple[Texts | None, str, tuple[str, ...]]:
    """The texts to calibrate on, what they are, and what is doubtful about them."""
    from exemplars.analyses.passages import unread_texts

    if calibration is not None and built_from is not None:
        raise ValueError("--calibration and --built-from were both given; give one or the other")
    if calibration is not None:
        return texts_of(calibration, column, split), "documents given with --calibration", ()
    place = None if built_from is None else texts_of(built_from, column, split)
    return unread_texts(dictionary, place)
