"""Short descriptions of regions, written by a language model, each scored by detection.

A label is a guess by a reader of a few contexts. Its score says how well another reading finds
held-out members by it, against random contexts and against neighbouring regions, and its null is
the same question with the label of another region.

    prompts ─► labellers ─► detection ─► label_regions
"""

from __future__ import annotations

import datetime
import queue
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError, SourceError
from exemplars.labels.detection import (
    FEWEST,
    Accuracy,
    Detection,
    detect,
    non_members,
    split,
    together,
)
from exemplars.labels.labellers import KEY_VARIABLES, Endpoint, Labeller, LocalModel
from exemplars.labels.prompts import PROMPT_VERSION, label_in, label_prompt

__all__ = [
    "FEWEST",
    "KEY_VARIABLES",
    "PROMPT_VERSION",
    "Accuracy",
    "Detection",
    "Endpoint",
    "Label",
    "Labeller",
    "LocalModel",
    "Score",
    "label_regions",
    "labels_from",
    "labels_schema",
    "labels_table",
    "largest_regions",
    "latest",
    "merged",
    "together",
]

_LABEL_TOKENS = 64
_GIVE_UP_AFTER = 5
_NOT_SCORED = "not scored"


@dataclass(frozen=True)
class Score:
    """How a label did at detection."""

    judge: str
    """The model that answered."""
    judge_host: str
    own: Detection
    null: Detection | None
    """The same contexts, asked with the label of another region; None if there is no other."""
    null_region: int
    """Which; -1 if there is none."""


@dataclass(frozen=True)
class Label:
    """A region's label, who wrote it, and how it did."""

    region: int
    members: int
    text: str
    """One line; empty if the labeller failed."""
    labeller: str
    """The model's name."""
    host: str
    """Where it answered: the endpoint's host, or "local"."""
    date: str
    """ISO 8601, UTC."""
    prompt: int
    """Version of the prompts, and of the choice of contexts."""
    seed: int
    """Of the split of the contexts, the others, and the order of the questions."""
    shown: int
    """Contexts it was written from."""
    score: Score | None = None
    note: str = ""
    """Why there is no text, or no score."""

    @property
    def author(self) -> tuple[str, str, int, int]:
        """Labels of one author are made in the same way: labeller, host, prompt, and seed."""
        return self.labeller, self.host, self.prompt, self.seed


def largest_regions(dictionary: Dictionary, top: int = 50, min_members: int = 5) -> list[int]:
    """The regions of most members, the largest first, ties to the lower index."""
    order = np.argsort(-np.asarray(dictionary.counts), kind="stable")
    return [int(k) for k in order[:top] if dictionary.counts[k] >= min_members]


def label_regions(
    dictionary: Dictionary,
    labeller: Labeller,
    regions: Iterable[int] | None = None,
    *,
    judge: Labeller | None = None,
    score: bool = True,
    questions: int = 10,
    seed: int = 0,
    parallel: int = 4,
    known: Iterable[Label] = (),
    on_label: Callable[[Label], None] | None = None,
) -> list[Label]:
    """Labels of regions, each scored by detection.

    All labels are written first, then scored. One that fails has the reason in its `note`, and
    no text in its place; after five failures with no success the others are not asked.

    Args:
        dictionary: It needs contexts with text.
        labeller: Who writes.
        regions: Which; by default all of 5 members or more.
        judge: Who answers the questions of the score; the labeller by default.
        score: Whether to score at all.
        questions: Contexts in one request.
        seed: Of the split of the contexts, the others, and the order of the questions.
        parallel: Requests under way at once.
        known: Earlier labels: what the same author wrote, or the same judge scored, is not asked
            for again.
        on_label: Called with each label when it is written, and again when it is scored.

    Returns:
        One for each region, in the order of their index.

    Raises:
        ValueError: A region that is not there, a dictionary without contexts, or a number that
            makes no sense.
    """
    for name, value in (("questions", questions), ("parallel", parallel)):
        if value < 1:
            raise ValueError(f"{name} is {value}, expected at least 1")
    if dictionary.contexts is None:
        raise ValueError(
            "this dictionary has no contexts, so there is nothing to read of its regions; build it "
            "from text"
        )
    if regions is None:
        regions = largest_regions(dictionary, dictionary.n_regions)
    chosen = sorted({dictionary.region(k).index for k in regions})
    work = _Work(dictionary, labeller, judge or labeller, questions, seed, on_label or _ignore)
    earlier = {
        label.region: label
        for label in known
        if label.author == work.author and label.text and label.region < dictionary.n_regions
    }
    found = {k: earlier[k] for k in chosen if k in earlier}
    rest = [k for k in chosen if k not in found]
    for label in work.asked(work.written, rest, parallel, work.failed):
        found[label.region] = label
        work.on_label(label)
    if score:
        partners = _partners([k for k in chosen if found[k].text], seed, earlier)
        open_ones = [k for k in partners if not work.is_scored(found[k])]
        texts = {k: label.text for k, label in {**earlier, **found}.items()}

        def scored(k: int) -> Label:
            other = partners[k]
            return work.scored(found[k], other, texts.get(other, ""))

        for label in work.asked(
            scored, open_ones, parallel, lambda k, why: replace(found[k], score=None, note=why)
        ):
            found[label.region] = label
            work.on_label(label)
    return [found[k] for k in chosen]


def latest(labels: Iterable[Label]) -> dict[int, Label]:
    """Of each region the label with a text that was written last."""
    found: dict[int, Label] = {}
    for label in labels:
        if label.text and (label.region not in found or label.date >= found[label.region].date):
            found[label.region] = label
    return found


def merged(known: Iterable[Label], new: Iterable[Label]) -> list[Label]:
    """Both, by region; of one author the new one, but a failure does not replace a text."""
    found = {(label.region, label.author): label for label in known}
    for label in new:
        key = label.region, label.author
        if label.text or not (key in found and found[key].text):
            found[key] = label
    return [found[key] for key in sorted(found)]


def labels_schema() -> Any:
    """Columns and types of labels.parquet."""
    import pyarrow as pa

    kinds: dict[str, Any] = {
        "region": pa.int32(), "members": pa.int64(), "text": pa.string(),
        "labeller": pa.string(), "host": pa.string(), "date": pa.string(),
        "prompt": pa.int32(), "seed": pa.int64(), "shown": pa.int32(), "note": pa.string(),
        "judge": pa.string(), "judge_host": pa.string(), "null_region": pa.int32(),
    }  # fmt: skip
    counts = [f"{of}_{f.name}" for of in ("own", "null") for f in fields(Detection)]
    return pa.schema([*kinds.items(), *((name, pa.int32()) for name in counts)])


def labels_table(labels: Iterable[Label]) -> Any:
    """A pyarrow table of labels; what is not known is null."""
    import pyarrow as pa

    lines = []
    for label in labels:
        line = {f.name: getattr(label, f.name) for f in fields(Label) if f.name != "score"}
        if label.score is not None:
            score = label.score
            line |= {"judge": score.judge, "judge_host": score.judge_host}
            line |= {"null_region": score.null_region}
            for of, detection in (("own", score.own), ("null", score.null)):
                if detection is not None:
                    line |= {f"{of}_{name}": n for name, n in vars(detection).items()}
        lines.append(line)
    return pa.Table.from_pylist(lines, schema=labels_schema())


def labels_from(table: Any) -> list[Label]:
    """The labels in a table that `labels_table` made; columns of later versions are passed over.

    Args:
        table: None for no labels.

    Raises:
        FormatError: A column is missing, or of another type.
    """
    if table is None:
        return []
    for column in labels_schema():
        index = table.schema.get_field_index(column.name)
        if index < 0 or table.schema.field(index).type != column.type:
            raise FormatError(
                f'the labels have no column "{column.name}" of type {column.type}; '
                "label the dictionary again"
            )
    names = [f.name for f in fields(Label) if f.name != "score"]
    return [
        Label(**{name: line[name] for name in names}, score=_score_in(line))
        for line in table.to_pylist()
    ]


@dataclass(frozen=True)
class _Work:
    """What one run of `label_regions` asks, and of whom."""

    dictionary: Dictionary
    labeller: Labeller
    judge: Labeller
    questions: int
    seed: int
    on_label: Callable[[Label], None]

    @property
    def author(self) -> tuple[str, str, int, int]:
        return self.labeller.name, self.labeller.host, PROMPT_VERSION, self.seed

    def is_scored(self, label: Label) -> bool:
        score = label.score
        return score is not None and (score.judge, score.judge_host) == (
            self.judge.name,
            self.judge.host,
        )

    def written(self, region: int) -> Label:
        """A label, not scored; or a failure."""
        shown, _ = self._split(region)
        if not shown:
            return self.failed(region, "its contexts have no text")
        messages = [{"role": "user", "content": label_prompt(shown)}]
        text = label_in(self.labeller.complete(messages, _LABEL_TOKENS))
        if not text:
            return self.failed(region, "the answer has no words", len(shown))
        return replace(self.failed(region, _NOT_SCORED, len(shown)), text=text)

    def failed(self, region: int, why: str, shown: int = 0) -> Label:
        labeller, host, prompt, seed = self.author
        now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
        members = int(self.dictionary.counts[region])
        return Label(region, members, "", labeller, host, now, prompt, seed, shown, note=why)

    def scored(self, label: Label, other: int, other_text: str) -> Label:
        _, held = self._split(label.region)
        if len(held) < FEWEST:
            return replace(
                label,
                score=None,
                note=f"too few contexts to score: {len(held)} can be held out, {FEWEST} are needed",
            )
        stream = (self.seed, label.region, 1)
        random, near = non_members(
            self.dictionary, label.region, len(held), np.random.default_rng(stream)
        )

        def detection(text: str) -> Detection:
            order = np.random.default_rng((*stream, 1))
            return detect(self.judge, text, held, random, near, self.questions, order)

        own = detection(label.text)
        null = detection(other_text) if other_text else None
        score = Score(self.judge.name, self.judge.host, own, null, other if other_text else -1)
        return replace(label, score=score, note="")

    def asked(
        self,
        ask: Callable[[int], Label],
        regions: Sequence[int],
        parallel: int,
        failed: Callable[[int, str], Label],
    ) -> Iterator[Label]:
        """A label for each region, as they are ready."""
        failures: list[str] = []
        succeeded = threading.Event()

        def attempt(region: int) -> Label:
            if len(failures) >= _GIVE_UP_AFTER and not succeeded.is_set():
                why = f"not asked, as {len(failures)} others failed: {failures[-1]}"
                return failed(region, why)
            try:
                label = ask(region)
            except SourceError as error:
                failures.append(str(error))
                return failed(region, str(error))
            succeeded.set()
            return label

        return _in_parallel(attempt, regions, parallel)

    def _split(self, region: int) -> Any:
        contexts = self.dictionary.region(region).contexts
        return split(contexts, np.random.default_rng((self.seed, region, 0)))


def _ignore(label: Label) -> None:
    del label


def _partners(regions: Sequence[int], seed: int, earlier: Mapping[int, Label]) -> dict[int, int]:
    """For each region another one, whose label is its null: a permutation without fixed points.

    A single region takes an earlier label of the same author; -1 if there is none.
    """
    order = [regions[k] for k in np.random.default_rng((seed, 2)).permutation(len(regions))]
    if len(order) == 1:
        others = [k for k in earlier if k != order[0]]
        return {order[0]: others[seed % len(others)] if others else -1}
    partner = dict(zip(order, [*order[1:], *order[:1]], strict=True))
    return {k: partner[k] for k in regions}


def _score_in(line: Mapping[str, Any]) -> Score | None:
    if line["judge"] is None:
        return None
    own, null = (
        None
        if line[f"{of}_members"] is None
        else Detection(**{f.name: line[f"{of}_{f.name}"] for f in fields(Detection)})
        for of in ("own", "null")
    )
    if own is None:
        raise FormatError("a label names a judge but has no score; label the dictionary again")
    return Score(line["judge"], line["judge_host"], own, null, line["null_region"])


def _in_parallel(
    work: Callable[[int], Label], regions: Sequence[int], parallel: int
) -> Iterator[Label]:
    """Results as they are ready, of daemon threads: an interrupt does not wait for answers."""
    waiting: queue.SimpleQueue[int] = queue.SimpleQueue()
    ready: queue.SimpleQueue[Any] = queue.SimpleQueue()
    stop = threading.Event()
    for region in regions:
        waiting.put(region)

    def run() -> None:
        while not stop.is_set():
            try:
                region = waiting.get_nowait()
            except queue.Empty:
                return
            try:
                ready.put(work(region))
            except BaseException as error:
                ready.put(error)

    for _ in range(min(parallel, len(regions))):
        threading.Thread(target=run, daemon=True).start()
    try:
        for _ in regions:
            found = ready.get()
            if isinstance(found, BaseException):
                raise found
            yield found
    finally:
        stop.set()
