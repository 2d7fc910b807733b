"""What commands that score answers have in common: prompts, scorers, and who judges."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.options import import_torch
from exemplars.cli.terminal import say

if TYPE_CHECKING:
    from exemplars.analyses.scorers import Scorer
    from exemplars.labels import Labeller

ScoreSpec = Annotated[
    str,
    typer.Option(
        "--score",
        help="Which answers show the behaviour: refusal, phrases:FILE, regex:PATTERN, "
        "judge:QUESTION, python:MODULE:FUNCTION.",
    ),
]
JudgeEndpoint = Annotated[
    str | None,
    typer.Option(
        help="The judge's OpenAI-compatible endpoint: what stands before /chat/completions. "
        "Prompts and answers are sent there."
    ),
]
JudgeLlm = Annotated[str | None, typer.Option(help="The judge's model at the endpoint.")]
JudgeLocal = Annotated[
    str | None, typer.Option(help="A judge on this machine: hub id, folder, GGUF, package:NAME.")
]
Positions = Annotated[
    str,
    typer.Option(help="What is edited: edited (all after the fixed prefix), all, generated."),
]
NewTokens = Annotated[int, typer.Option(help="Tokens of an answer, at most.", min=1)]


def scorer_of(
    spec: str,
    endpoint: str | None,
    llm: str | None,
    local: str | None,
    device: str,
    also: Sequence[str] = (),
) -> Scorer:
    """The scorer that a command line names."""
    from exemplars.analyses.scorers import parse_scorer

    judge = None
    if endpoint is not None or llm is not None or local is not None:
        if local is None and (endpoint is None or llm is None):
            raise ValueError("half a judge was given; give --judge-endpoint URL --judge-llm NAME")
        judge = labeller_of(endpoint, llm, local, device, None)
    return parse_scorer(spec, judge, also)


def labeller_of(
    endpoint: str | None,
    llm: str | None,
    local: str | None,
    device: str,
    dtype: str | None,
    **options: Any,
) -> Labeller:
    """A language model to ask: behind an endpoint, or on this machine."""
    from exemplars import labels

    if local is not None:
        say(f"loading {local}")
        import_torch()
        return labels.LocalModel(local, device=device, dtype=dtype)
    return labels.Endpoint(endpoint or "", llm or "", **options)
