"""The command that looks for the regions behind a behaviour, and takes them out."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import (
    FigurePath,
    LabelledColumn,
    Negative,
    Positive,
    TestNegative,
    TestPositive,
    TestShare,
)
from exemplars.cli.options import (
    AllowMismatch,
    Device,
    Dtype,
    Json,
    example,
    load_model,
    open_dictionary,
)
from exemplars.cli.scoring import (
    JudgeEndpoint,
    JudgeLlm,
    JudgeLocal,
    NewTokens,
    Positions,
    ScoreSpec,
    scorer_of,
)
from exemplars.cli.terminal import print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.labelled import Concept
    from exemplars.analyses.prompts import PromptRows
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

_NEUTRAL_TOKENS = 256
"""Of a neutral text, at most."""


@app.command(
    epilog=example(
        "  exemplars behavior --model Qwen/Qwen2.5-0.5B-Instruct --site resid_post.16 \\\n"
        "    --positive harmful.txt --negative harmless.txt\n"
        "  exemplars behavior qwen-l16-p12 --positive harmful.txt --negative harmless.txt"
    )
)
def behavior(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(
            help="Dictionaries of one site, as from several orders of the same texts. Default: "
            "they are built from the prompts that choose.",
            metavar="[DIR]...",
        ),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Default: the model that the dictionary names.")
    ] = None,
    site: Annotated[str | None, typer.Option(help="Without DIR: where.")] = None,
    percentile: Annotated[
        float, typer.Option("--percentile", "-p", help="Without DIR: the resolution.")
    ] = 12.0,
    seeds: Annotated[
        int, typer.Option(help="Without DIR: orders of the prompts, a dictionary each.", min=1)
    ] = 1,
    positive: Positive = None,
    negative: Negative = None,
    test_positive: TestPositive = None,
    test_negative: TestNegative = None,
    column: LabelledColumn = None,
    test_share: TestShare = 0.25,
    most_select: Annotated[
        int, typer.Option(help="Prompts of each kind that choose, at most.", min=2)
    ] = 160,
    most_test: Annotated[
        int, typer.Option(help="Prompts of each kind that are judged, at most.", min=1)
    ] = 48,
    score: ScoreSpec = "refusal",
    judge_endpoint: JudgeEndpoint = None,
    judge_llm: JudgeLlm = None,
    judge_local: JudgeLocal = None,
    rate_by: Annotated[
        str,
        typer.Option(
            help="Which prompts show the behaviour when regions are chosen: those whose answer "
            "does (answers), or all positive ones (labels)."
        ),
    ] = "answers",
    rule: Annotated[str, typer.Option(help="How regions are ranked: contrast or rate.")] = (
        "contrast"
    ),
    place: Annotated[
        str, typer.Option(help="Where a prompt is: in the region of its final row, or of any.")
    ] = "final",
    rows: Annotated[
        str, typer.Option(help="Without DIR: rows that are clustered: all, or final.")
    ] = "all",
    most: Annotated[int, typer.Option("-k", help="Remove up to so many regions.", min=1)] = 1,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            "--method",
            help="exemplar, mean, census mean, swap, difference of regions, difference inside "
            "regions. Repeat for several. Default: exemplar and mean.",
        ),
    ] = None,
    draws: Annotated[int, typer.Option(help="Of each null.", min=1)] = 1,
    positions: Positions = "edited",
    max_new_tokens: NewTokens = 32,
    full: Annotated[
        bool,
        typer.Option("--full", help="5 seeds, k up to 3, all methods, 3 draws of each null."),
    ] = False,
    strict: Annotated[
        bool,
        typer.Option("--strict", help="Refuse dictionaries that were built from test prompts."),
    ] = False,
    neutral: Annotated[
        Path | None,
        typer.Option(help="Plain texts that no edit should change. Default: a dozen of our own."),
    ] = None,
    answers: Annotated[
        Path | None,
        typer.Option(help="Folder that keeps answers, so that a run goes on. Default: the cache."),
    ] = None,
    batch_size: Annotated[int, typer.Option(help="Prompts answered at once.", min=1)] = 16,
    seed: Annotated[int, typer.Option(help="Of the split and of the nulls.", min=0)] = 0,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    shown: Annotated[int, typer.Option("--show", help="Answers to show.", min=0)] = 3,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Find the regions behind a behaviour, take them out, and compare with nulls.

    Prompts that choose regions are never judged on. An interrupted run goes on where it stopped.
    """
    from dataclasses import replace

    from exemplars.analyses.behavior import METHODS, Selection
    from exemplars.models import cache_folder
    from exemplars.report.behavior import behavior_figure, behavior_summary, behavior_text

    if full:
        seeds, most, draws = max(seeds, 5), max(most, 3), max(draws, 3)
        methods = methods or list(METHODS)
    if rate_by not in ("answers", "labels") or rows not in ("all", "final"):
        raise ValueError(
            f'--rate-by is "{rate_by}" and --rows is "{rows}"; choose answers or labels, and all '
            "or final"
        )
    selection = Selection(
        rule=rule, place=place, most=most, methods=tuple(methods or ("exemplar", "mean")),
        draws=draws, positions=positions, seed=seed,
    )  # fmt: skip
    prompts = _prompts(
        (positive, negative, test_positive, test_negative), column, test_share, seed,
        (most_select, most_test),
    )  # fmt: skip
    scorer = scorer_of(score, judge_endpoint, judge_llm, judge_local, device)
    dictionaries = [open_dictionary(folder) for folder in folders or ()]
    loaded = _model(dictionaries, model, site, device, dtype, allow_mismatch)
    note = _overlap(dictionaries, prompts, strict)
    if note:
        say(f"warning: {note}")
    plain = _neutral(loaded, neutral)
    read, dictionaries = _read(loaded, dictionaries, site, prompts, percentile, range(seeds), rows)
    run = _Run(loaded, answers or cache_folder() / "answers", batch_size, max_new_tokens)
    report = run(dictionaries, read, prompts, scorer, rate_by, selection, plain)
    report = replace(report, notes=(*report.notes, *([note] if note else [])))
    if figure is not None:
        from exemplars.figures import save_figure

        say(f"wrote {' and '.join(map(str, save_figure(behavior_figure(report), figure)))}")
    print_result(behavior_summary(report), behavior_text(report, shown), json)


def _prompts(
    files: tuple[Path | None, Path | None, Path | None, Path | None],
    column: str | None,
    test_share: float,
    seed: int,
    most: tuple[int, int],
) -> Concept:
    """Prompts that choose and prompts that are judged, of both kinds."""
    from dataclasses import replace

    from exemplars.cli.labelled import concepts_of

    (found,) = concepts_of(files, None, column, test_share, seed)
    return replace(
        found,
        positive=found.positive[: most[0]],
        negative=found.negative[: most[0]],
        test_positive=found.test_positive[: most[1]],
        test_negative=found.test_negative[: most[1]],
    )


def _model(
    dictionaries: Sequence[Dictionary],
    name: str | None,
    site: str | None,
    device: str,
    dtype: str | None,
    allow_mismatch: bool,
) -> Model:
    from exemplars import store
    from exemplars.cli.options import model_of

    if dictionaries:
        if site is not None:
            raise ValueError("both a dictionary and --site were given; a dictionary has its site")
        loaded = model_of(dictionaries[0], name, device, dtype, allow_mismatch)
        for other in dictionaries[1:]:
            store.check_model(other, loaded, allow_mismatch=allow_mismatch)
        return loaded
    if name is None or site is None:
        raise ValueError("no dictionary was given; give one, or both --model and --site")
    return load_model(name, device, dtype)


def _read(
    model: Model,
    dictionaries: list[Dictionary],
    site: str | None,
    prompts: Concept,
    percentile: float,
    seeds: Sequence[int],
    rows: str,
) -> tuple[PromptRows, list[Dictionary]]:
    """What the prompts that choose do at the site, and the dictionaries, built if none is given.

    Prompts are read as they are answered, with the chat template if there is one, whatever the
    dictionary was built from: those are the vectors that edits meet.
    """
    from dataclasses import replace

    from exemplars.analyses.prompts import partitions, read_prompts
    from exemplars.building import tokenization_of
    from exemplars.tokenization import Tokenization

    chat = bool(getattr(model.tokenizer, "chat_template", None))
    tokenization = tokenization_of(dictionaries[0]) if dictionaries else Tokenization()
    tokenization = replace(tokenization, chat=chat)
    place = model.site(dictionaries[0].site or "" if dictionaries else site or "").name
    chosen = [*prompts.positive, *prompts.negative]
    say(f"reading {len(chosen)} prompts at {place}")
    read = read_prompts(model, [place], chosen, tokenization)[place]
    if dictionaries:
        return read, dictionaries
    # Orders of the prompts: the kinds are mixed in every one of them.
    built = partitions(
        read.final_only() if rows == "final" else read, percentile, [1 + seed for seed in seeds]
    )
    say(f"{', '.join(f'{len(d):,}' for d in built)} regions at p = {percentile:g}")
    return read, built


def _overlap(dictionaries: Sequence[Dictionary], prompts: Concept, strict: bool) -> str | None:
    """Whether dictionaries were built from prompts that are judged; None if surely not.

    A prompt is looked for as a document, as a line of one, and as a message.
    """
    from exemplars import corpora
    from exemplars.errors import SourceError

    tests = {*prompts.test_positive, *prompts.test_negative}
    most, unknown = 0, False
    for dictionary in dictionaries:
        about = dictionary.provenance.get("texts")
        try:
            texts = corpora.reopened(about) if isinstance(about, dict) else None
        except SourceError:
            texts = None
        unknown = unknown or texts is None
        found = {part for document in texts or () for part in _parts(document.content)} & tests
        most = max(most, len(found))
    if not most and not unknown:
        return None
    note = (
        f"the dictionary was built from {most} of the test prompts"
        if most
        else "whether the dictionary was built from test prompts cannot be told"
    )
    if strict:
        raise ValueError(f"{note}; build one without them, or leave out --strict")
    return note


def _parts(content: Any) -> Iterator[str]:
    """What of a document could be a prompt, spelled as prompts are."""
    texts = [content] if isinstance(content, str) else [m.get("content") for m in content]
    for text in texts:
        if isinstance(text, str):
            yield text.strip()
            yield from (line.strip() for line in text.split("\n"))


class _Run:
    """The causal test with a bar of the answers that it needs, and what Ctrl-C says."""

    def __init__(self, model: Model, folder: Path, batch_size: int, max_new_tokens: int) -> None:
        self.model, self.folder = model, folder
        self.batch_size, self.max_new_tokens = batch_size, max_new_tokens

    def __call__(
        self,
        dictionaries: Sequence[Dictionary],
        read: PromptRows,
        prompts: Concept,
        scorer: Any,
        rate_by: str,
        selection: Any,
        neutral: Sequence[Any],
    ) -> Any:
        import numpy as np

        from exemplars.analyses import behavior as study
        from exemplars.analyses.prompts import KeptAnswers, behaves_by_answers

        chat = bool(getattr(self.model.tokenizer, "chat_template", None))
        tests = (prompts.test_positive, prompts.test_negative)
        n = study.n_answers(selection, len(dictionaries), (len(tests[0]), len(tests[1])))
        n += len(read.prompts) if rate_by == "answers" else 0
        done = 0

        def progress(more: int) -> None:
            nonlocal done
            done += more
            on_step("answers", done, n)

        with _kept(self.folder), step_bar() as on_step:
            answers = KeptAnswers(
                self.model, self.folder, chat=chat, batch_size=self.batch_size, progress=progress
            )
            if rate_by == "answers":
                behaves = behaves_by_answers(answers, scorer, read.prompts, self.max_new_tokens)
            else:
                behaves = np.arange(len(read.prompts)) < len(prompts.positive)
            return study.behavior(
                self.model, dictionaries, read, behaves, tests, scorer, answers,
                neutral, selection, max_new_tokens=self.max_new_tokens,
            )  # fmt: skip


def _neutral(model: Model, path: Path | None) -> list[Any]:
    """Token ids of texts that no edit should change."""
    import exemplars as ex
    from exemplars.analyses.neutral import NEUTRAL
    from exemplars.tokenization import tokenize_prompts

    texts = list(NEUTRAL)
    if path is not None:
        texts = [d.content for d in ex.texts(path) if isinstance(d.content, str)]
    most = min(_NEUTRAL_TOKENS, model.max_positions or _NEUTRAL_TOKENS)
    asked = tokenize_prompts([text for text in texts if text.strip()], model.tokenizer, chat=False)
    found = [prompt.ids[:most] for prompt in asked if len(prompt.ids) > 1]
    if not found:
        raise ValueError(f"{path} holds no text of two tokens; give plain prose")
    return found


@contextlib.contextmanager
def _kept(folder: Path) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {folder} holds the answers so far: run it again to go on from there"
        ) from None
