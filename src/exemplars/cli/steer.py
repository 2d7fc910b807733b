"""The command that steers a model with regions and shows what that does, by strength."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath, LabelledColumn, Negative, Positive
from exemplars.cli.options import (
    AllowMismatch,
    Device,
    Dtype,
    Folder,
    Json,
    OtherModel,
    example,
    model_of,
    open_dictionary,
)
from exemplars.cli.scoring import (
    JudgeEndpoint,
    JudgeLlm,
    JudgeLocal,
    NewTokens,
    Positions,
    scorer_of,
)
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.steering import Contrast, Scored
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

_RULE = "rule:"


@app.command(
    epilog=example(
        "  exemplars steer gpt2-l6-p2 --region 42 --prompts prompts.txt\n"
        "  exemplars steer gpt2-l6-p2 --positive with.txt --negative without.txt \\\n"
        "    --prompts prompts.txt --score rule:uppercase --figure steering.svg"
    )
)
def steer(
    folder: Folder,
    prompts: Annotated[
        Path, typer.Option(help="Prompts to answer: one on each line, or JSONL, Parquet.")
    ],
    region: Annotated[
        list[int] | None, typer.Option(help="A region. Repeat for the sum of several.")
    ] = None,
    positive: Positive = None,
    negative: Negative = None,
    column: LabelledColumn = None,
    score: Annotated[
        str | None,
        typer.Option(
            help="What answers are scored by: refusal, phrases:FILE, regex:PATTERN, "
            "judge:QUESTION, python:MODULE:FUNCTION, rule:NAME (spanish, french, code, uppercase, "
            "cyrillic, equations, biomedical). Default: nothing is scored."
        ),
    ] = None,
    aim: Annotated[
        str | None,
        typer.Option(
            help="Where the score should go: raise or lower. Default: lower for ablate and cap."
        ),
    ] = None,
    operation: Annotated[str, typer.Option(help="add, ablate, cap, or patch.")] = "add",
    strengths: Annotated[
        str | None,
        typer.Option(
            help="Strengths to try: of add in median norms of the site, of the others the share "
            "that is done. Default: 0,.06,.12,.25,.5,1; 0,.5,1 for ablate and cap."
        ),
    ] = None,
    limit: Annotated[
        float,
        typer.Option(help="Of cap: the coordinate along the direction that is left, in norms."),
    ] = 0.0,
    basis: Annotated[str, typer.Option(help="Direction of a region: exemplar or mean.")] = (
        "exemplar"
    ),
    positions: Positions = "edited",
    draws: Annotated[
        int, typer.Option(help="Of random directions and of random regions; 0 for none.", min=0)
    ] = 2,
    chat: Annotated[
        bool | None,
        typer.Option(
            "--chat/--no-chat",
            help="Prompts are a user's messages. Default: if there is a chat template.",
            show_default=False,
        ),
    ] = None,
    max_new_tokens: NewTokens = 64,
    batch_size: Annotated[int, typer.Option(help="Prompts answered at once.", min=1)] = 16,
    judge_endpoint: JudgeEndpoint = None,
    judge_llm: JudgeLlm = None,
    judge_local: JudgeLocal = None,
    seed: Annotated[int, typer.Option(help="Of the controls and the halves.", min=0)] = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    show: Annotated[int, typer.Option(help="Prompts whose answers are shown.", min=0)] = 3,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Steer a model with regions: the effect by strength, side effects, and random controls.

    Without --region the region is found by contrast of positive and negative texts, whose
    difference of means is steered with too. The strength is chosen on half of the prompts, among
    those at which answers stay fluent, and reported on the other half.
    """
    from exemplars import figures
    from exemplars.analyses.labelled import read_lines
    from exemplars.analyses.steering import recipe_of, with_controls
    from exemplars.analyses.steering import steer as sweep
    from exemplars.report.steering import steering_figure, steering_summary, steering_text

    asked = read_lines(prompts, column or "text")
    tried = _strengths(strengths, operation)
    classes = _classes(region, positive, negative, column)
    scorer = _scorer(score, judge_endpoint, judge_llm, judge_local, device)
    dictionary = open_dictionary(folder)
    if region:
        recipe_of(dictionary, region, operation, basis=basis, positions=positions, limit=limit)
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    with interruptible():
        contrast = _contrast(dictionary, loaded, classes, chat)
        numbers = region or ([contrast.region] if contrast else [])
        recipe = recipe_of(
            dictionary, numbers, operation, basis=basis, positions=positions, limit=limit
        )
        difference = contrast.difference if contrast else None
        methods = with_controls(
            dictionary, recipe, difference=difference, basis=basis, draws=draws, seed=seed
        )
        with step_bar() as on_step:
            report = sweep(
                loaded, methods, asked, scorer, tried,
                aim=aim or ("lower" if operation in ("ablate", "cap") else "raise"),
                chat=chat, max_new_tokens=max_new_tokens, batch_size=batch_size, seed=seed,
                about=_about(recipe, basis, contrast), on_step=on_step,
            )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(steering_figure(report), figure)
        say(f"written to {svg} and {png}")
    print_result(
        steering_summary(report) if json else None,
        None if json else steering_text(report, show),
        json,
    )


def _strengths(said: str | None, operation: str) -> tuple[float, ...]:
    """Numbers of a list, or the operation's own."""
    from exemplars.analyses.steering import OPERATIONS, STRENGTHS

    if operation not in OPERATIONS:
        raise ValueError(f'--operation is "{operation}"; choose {", ".join(OPERATIONS)}')
    if said is None:
        return STRENGTHS[operation]
    try:
        return tuple(float(part) for part in said.split(",") if part.strip())
    except ValueError:
        raise ValueError(
            f'--strengths is "{said}", expected numbers between commas, as 0,.5,1'
        ) from None


def _classes(
    region: list[int] | None, positive: Path | None, negative: Path | None, column: str | None
) -> tuple[list[str], list[str]] | None:
    """The labelled texts; None where none were given."""
    from exemplars.analyses.labelled import read_lines

    if positive is None and negative is None:
        if not region:
            raise ValueError("no region was given; give --region, or --positive and --negative")
        return None
    if positive is None or negative is None:
        raise ValueError("one class alone was given; give both --positive and --negative")
    return read_lines(positive, column or "text"), read_lines(negative, column or "text")


def _scorer(
    spec: str | None, endpoint: str | None, llm: str | None, local: str | None, device: str
) -> Scored | None:
    from exemplars.analyses.rules import Rule

    if spec is None:
        return None
    if spec.startswith(_RULE):
        return Rule(spec.removeprefix(_RULE))
    return scorer_of(spec, endpoint, llm, local, device, (f"{_RULE}NAME",))


def _contrast(
    dictionary: Dictionary,
    model: Model,
    classes: tuple[list[str], list[str]] | None,
    chat: bool | None,
) -> Contrast | None:
    from exemplars.analyses.steering import contrast_of

    if classes is None:
        return None
    say(f"reading {len(classes[0]) + len(classes[1]):,} labelled texts")
    found = contrast_of(dictionary, model, *classes, chat=chat)
    say(f"by contrast: region {found.region}, mean cosines {found.gap:.3f} apart")
    return found


def _about(recipe: Any, basis: str, contrast: Contrast | None) -> dict[str, Any]:
    """What the report says of the edit."""
    import numpy as np

    total = recipe.directions.astype(np.float64).sum(axis=0)
    cosine = (
        None if contrast is None else float(total @ contrast.difference / np.linalg.norm(total))
    )
    return {
        "site": recipe.site,
        "operation": recipe.operation,
        "regions": list(recipe.regions),
        "basis": basis,
        "positions": recipe.positions,
        "unit": recipe.unit,
        "limit": recipe.limit if recipe.operation == "cap" else None,
        "contrast_region": None if contrast is None else contrast.region,
        "cosine": cosine,
    }
