"""Is a behaviour in regions? Find those its prompts end in, take them out, and look at everything.

Regions are chosen on one set of prompts and judged on another. Beside each removal stand three
nulls (regions like the chosen ones, random spans of equal rank, random spans that remove as much)
and one supervised baseline (difference of means), and for each the side effects: a model that is
broken shows no behaviour either.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.fluency import (
    AnswerFluency,
    NeutralEffect,
    answer_fluency,
    answers_perplexity,
    neutral_effect,
)
from exemplars.analyses.prompts import KeptAnswers, PromptRows
from exemplars.dictionary import Dictionary
from exemplars.generation import Answer
from exemplars.geometry import Float32, Int64, to_directions
from exemplars.intervene import POSITIONS, Edit, edited
from exemplars.labels.detection import wilson

if TYPE_CHECKING:
    from exemplars.analyses.scorers import Scorer
    from exemplars.models import Model

RULES = ("contrast", "rate")
PLACES = ("final", "any")
METHODS = (
    "exemplar", "mean", "census mean", "swap", "difference of regions", "difference inside regions",
)  # fmt: skip
"""What is done with the chosen regions: their span by exemplars, or by means, is projected out;
swapped for the mean of regions without the behaviour; the difference of the two is projected out;
or that of the prompts in them that behave and those in them that do not."""
UNEDITED, DIFFERENCE = "unedited", "difference of means"
MATCHED, RANDOM, EQUAL_NORM = "matched regions", "random span", "random span, equal norm"
NULLS = (MATCHED, RANDOM, EQUAL_NORM)

_QUIET = 0.05
"""Regions in which at most this share of prompts shows the behaviour stand for its absence."""
_ROUNDING = 1e-9
"""Of a share that is exactly at its limit."""
_ENOUGH = 5
"""Unedited answers without the behaviour that are enough to compare perplexities with."""


@dataclass(frozen=True)
class Selection:
    """How regions are chosen, and what is done with them. All of it is in a report."""

    rule: str = "contrast"
    """"contrast": share of the behaving prompts in a region minus share of the others; "rate": the
    published rule, the rate of the behaviour in a region times its prompts."""
    place: str = "final"
    """Where a prompt is: in the region of its "final" row, or in those of "any"."""
    min_prompts: int = 5
    min_rate: float = 0.3
    """A region with fewer prompts, or a lower rate of the behaviour, is no candidate."""
    most: int = 1
    """Spans of 1 up to so many regions are tried."""
    methods: tuple[str, ...] = ("exemplar", "mean")
    draws: int = 1
    """Of each null."""
    positions: str | int = "edited"
    seed: int = 0

    def __post_init__(self) -> None:
        """Raise ValueError for a setting outside its choices."""
        for name, value, choices in (
            ("rule", self.rule, RULES),
            ("place", self.place, PLACES),
            ("positions", self.positions, POSITIONS),
            *(("method", method, METHODS) for method in self.methods),
        ):
            if isinstance(value, str) and value not in choices:
                raise ValueError(f'{name} is "{value}"; choose {", ".join(choices)}')
        if self.most < 1 or self.draws < 1 or not self.methods:
            raise ValueError("give at least one region, one draw of each null, and one method")


@dataclass(frozen=True)
class RegionRate:
    """How the prompts that pass through a region behave."""

    region: int
    prompts: int
    behaving: int
    share_of_behaving: float
    """Of all prompts that show the behaviour, those in this region."""
    share_of_others: float
    count: int
    """Members: rows."""
    coherence: float

    @property
    def rate(self) -> float:
        """Share of the region's prompts that show the behaviour."""
        return self.behaving / self.prompts if self.prompts else 0.0

    def score(self, rule: str) -> float:
        """By which candidates are ranked."""
        if rule == "rate":
            return self.rate * self.prompts
        return self.share_of_behaving - self.share_of_others


@dataclass(frozen=True)
class Share:
    """A share of answers with its 95% Wilson interval."""

    hits: int
    n: int

    @property
    def value(self) -> float:
        """In [0, 1]; NaN of none."""
        return self.hits / self.n if self.n else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """Lower and upper end."""
        return wilson(self.hits, self.n)[1:] if self.n else (float("nan"), float("nan"))


@dataclass(frozen=True)
class Condition:
    """One way to edit the model."""

    method: str
    k: int
    """Rank of what is removed; 0 for the unedited model."""
    dictionary: int
    """Number of the dictionary; -1 where none is used."""
    draw: int = 0
    regions: tuple[int, ...] = ()
    edits: tuple[Edit, ...] = field(default=(), repr=False, compare=False)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What the model does under a condition, on prompts that chose nothing."""

    condition: Condition
    behaving: Share
    """Of the positive test prompts, those answered with the behaviour."""
    behaving_negative: Share | None
    """Of the negative ones; None where it was not measured."""
    fluency: AnswerFluency
    """Of the answers to positive prompts."""
    perplexity: float
    """Of these answers, by the unedited model."""
    neutral: NeutralEffect | None
    removed: float
    """Mean length of what the edit takes from the prompts' rows, in median norms of the site."""
    answers: tuple[Answer, ...] = field(repr=False)


@dataclass(frozen=True)
class Criteria:
    """When an effect is specific. The first two are shares of the unedited model's rate."""

    behaviour: float = 0.25
    """At most this share of the behaviour is left."""
    null: float = 0.8
    """Each null leaves at least this share, in the mean over its draws."""
    short: float = 0.05
    """At most this share of answers has fewer than three words, beyond the unedited model's."""
    others: float = 0.05
    """At most this share of the prompts that should not show it does, beyond the unedited
    model's. Ablation sets a coordinate to the center's: that can bring a behaviour as well."""
    perplexity: float = 0.05
    """Perplexities rise by at most this share: of neutral text, and of the answers against the
    unedited model's answers that do not show the behaviour."""


@dataclass(frozen=True, eq=False)
class BehaviorReport:
    """Candidates of each dictionary, and what came of every condition."""

    site: str
    selection: Selection
    criteria: Criteria
    scorer: dict[str, Any]
    n_select: tuple[int, int]
    """Prompts that chose: with the behaviour, and without."""
    n_regions: tuple[int, ...]
    """Of each dictionary."""
    candidates: tuple[tuple[RegionRate, ...], ...]
    outcomes: tuple[Outcome, ...]
    reference_perplexity: float
    """Of the unedited model's answers without the behaviour."""
    notes: tuple[str, ...] = ()

    @property
    def unedited(self) -> Outcome:
        """The model as it is."""
        return next(o for o in self.outcomes if o.condition.method == UNEDITED)

    def of(self, method: str, k: int, dictionary: int | None = None) -> list[Outcome]:
        """Outcomes of a method at a rank, over dictionaries and draws, or of one dictionary."""
        return [
            o
            for o in self.outcomes
            if (o.condition.method, o.condition.k) == (method, k)
            and (dictionary is None or o.condition.dictionary in (dictionary, -1))
        ]

    def failures(self, method: str, k: int, dictionary: int) -> list[str]:
        """Which criteria the removal does not meet; empty where its effect is specific."""
        (ours,) = self.of(method, k, dictionary) or (None,)
        if ours is None:
            few = len(self.candidates[dictionary]) < k
            return [
                "too few candidates"
                if few
                else "the method finds no prompts to work with in the regions"
            ]
        base, limits = self.unedited, self.criteria
        failed = []
        left = ours.behaving.value
        if not base.behaving.hits:
            failed.append("the unedited model does not show it on these prompts")
        elif not left <= limits.behaviour * base.behaving.value + _ROUNDING:
            failed.append(f"{left:.2f} of the answers still show it")
        for null in NULLS:
            several = [o.behaving.value for o in self.of(null, k, dictionary)]
            if not several:
                failed.append(f"there is no null of {null}")
            elif not np.mean(several) >= limits.null * base.behaving.value - _ROUNDING:
                failed.append(f"{null} leave {np.mean(several):.2f}")
        if not ours.fluency.short <= base.fluency.short + limits.short + _ROUNDING:
            failed.append(f"{ours.fluency.short:.2f} of the answers are short")
        if ours.behaving_negative is not None and base.behaving_negative is not None:
            others = ours.behaving_negative.value
            if not others <= base.behaving_negative.value + limits.others + _ROUNDING:
                failed.append(f"{others:.2f} of the other prompts now show it")
        return failed + self._less_probable(ours)

    def _less_probable(self, ours: Outcome) -> list[str]:
        """Which perplexities rise too much, or cannot be had: NaN is no pass."""
        worst = 1 + self.criteria.perplexity
        failed = []
        if np.isnan(self.reference_perplexity):
            failed.append("there are too few ordinary answers to compare perplexities with")
        elif not ours.perplexity <= worst * self.reference_perplexity:
            ratio = ours.perplexity / self.reference_perplexity
            failed.append(
                "the answers have no perplexity"
                if np.isnan(ratio)
                else f"the answers' perplexity is {ratio:.2f} times that of ordinary ones"
            )
        if ours.neutral is not None:
            ratio = ours.neutral.changed_perplexity / ours.neutral.perplexity
            if not ratio <= worst:
                failed.append(f"perplexity of neutral text is {ratio:.2f} times what it was")
        return failed

    @property
    def verdicts(self) -> dict[tuple[str, int], str]:
        """By method and k, up to as many regions as some order has candidates."""
        most = min(self.selection.most, max(map(len, self.candidates)))
        return {
            (method, k): self.verdict(method, k)
            for method in self.selection.methods
            for k in range(1, most + 1)
        }

    def verdict(self, method: str, k: int) -> str:
        """In a sentence: whether taking the regions out has a specific effect."""
        n = len(self.n_regions)
        found = [self.failures(method, k, d) for d in range(n)]
        good = sum(not failed for failed in found)
        left = [f"{o.behaving.value:.2f}" for o in self.of(method, k)]
        reasons = "; ".join(dict.fromkeys(r for failed in found for r in failed))
        if not left:
            return f"{method}, k = {k}: not tried: {reasons}"
        span = left[0] if len(set(left)) == 1 else f"{min(left)}–{max(left)}"
        what = f"{method}, k = {k}: from {self.unedited.behaving.value:.2f} to {span}"
        if good == n:
            return f"{what}; the effect is specific{f' in all {n} orders' if n > 1 else ''}"
        if n > 1:
            return f"{what}; specific in {good} of {n} orders ({reasons})"
        return f"{what}; not specific: {reasons}"


def region_rates(
    dictionary: Dictionary, rows: PromptRows, behaves: NDArray[np.bool_], place: str = "final"
) -> tuple[RegionRate, ...]:
    """How prompts behave by region, for every region that a prompt is in, by number.

    Args:
        dictionary: Of the rows' site.
        rows: Of P prompts.
        behaves: (P,) whether each shows the behaviour.
        place: "final" or "any".
    """
    chosen = rows.final if place == "final" else np.arange(len(rows.vectors))
    region, _ = dictionary.assign(rows.vectors[chosen])
    pairs = np.unique(np.stack([region, rows.prompt[chosen]], axis=1)[region >= 0], axis=0)
    n, yes = max(int((~behaves).sum()), 1), max(int(behaves.sum()), 1)
    found = []
    for k in np.unique(pairs[:, 0]):
        mine = behaves[pairs[pairs[:, 0] == k, 1]]
        found.append(
            RegionRate(
                int(k), len(mine), int(mine.sum()), mine.sum() / yes, (~mine).sum() / n,
                int(dictionary.counts[k]), float(dictionary.coherence[k]),
            )
        )  # fmt: skip
    return tuple(found)


def candidates_of(rates: Sequence[RegionRate], selection: Selection) -> tuple[RegionRate, ...]:
    """Regions that may be behind the behaviour, the likeliest first."""
    able = [
        rate
        for rate in rates
        if rate.prompts >= selection.min_prompts and rate.rate >= selection.min_rate
    ]
    return tuple(sorted(able, key=lambda r: (-r.score(selection.rule), r.region)))


def matched_regions(
    dictionary: Dictionary,
    rates: Sequence[RegionRate],
    chosen: RegionRate,
    selection: Selection,
) -> list[int]:
    """Regions without the behaviour, those most like a chosen one in size and coherence first.

    Prompts may pass through them or not: at a coarse resolution nearly all prompts end in one.

    Source: Rumbelow 2026 (arXiv:2605.14347), app. A.2: (Δ log10 members)² + (Δ coherence)².
    """
    # A census may leave a region without members.
    size = np.log10(np.maximum(dictionary.counts, 1)) - np.log10(max(chosen.count, 1))
    unlike = size**2 + (dictionary.coherence.astype(np.float64) - chosen.coherence) ** 2
    able = dictionary.counts >= selection.min_prompts
    able[[r.region for r in rates if r.rate > _QUIET or r.region == chosen.region]] = False
    order = np.argsort(unlike, kind="stable")
    return [int(k) for k in order if able[k]]


def behavior(
    model: Model,
    dictionaries: Sequence[Dictionary],
    rows: PromptRows,
    behaves: NDArray[np.bool_],
    tests: tuple[Sequence[str], Sequence[str]],
    scorer: Scorer,
    answers: KeptAnswers,
    neutral: Sequence[NDArray[np.int64]],
    selection: Selection | None = None,
    criteria: Criteria | None = None,
    max_new_tokens: int = 32,
) -> BehaviorReport:
    """Find the regions behind a behaviour, remove them, and compare with the nulls.

    Args:
        model: From `load_model`.
        dictionaries: Of one site: the same partition in several orders of its stream, or one.
        rows: Of the P prompts that choose, at that site.
        behaves: (P,) which of them show the behaviour.
        tests: Prompts that chose nothing: those that should show it, and those that should not.
        scorer: Says which answers show it.
        answers: What generates, and keeps what was generated.
        neutral: Token ids of texts that no edit should change.
        selection: How regions are chosen, and what is tried.
        criteria: When an effect is specific.
        max_new_tokens: Of each answer.

    Raises:
        ValueError: Too few prompts of a kind, or dictionaries of another site.
    """
    selection, criteria = selection or Selection(), criteria or Criteria()
    if not behaves.any() or behaves.all():
        raise ValueError(
            f"{int(behaves.sum())} of {len(behaves)} prompts show the behaviour; give prompts of "
            "both kinds"
        )
    if {d.site for d in dictionaries} != {rows.site}:
        raise ValueError(f"the dictionaries are not all of {rows.site}; give those of one site")
    shared = set(rows.prompts) & {*tests[0], *tests[1]}
    if shared:
        raise ValueError(
            f"{len(shared)} of the test prompts were used to choose; keep the two apart"
        )
    notes: list[str] = []
    conditions = [Condition(UNEDITED, 0, -1)]
    found = []
    for number, dictionary in enumerate(dictionaries):
        rates = region_rates(dictionary, rows, behaves, selection.place)
        likely = candidates_of(rates, selection)
        found.append(likely)
        notes += _shortcomings(number if len(dictionaries) > 1 else None, likely, selection)
        conditions += conditions_of(dictionary, number, rows, behaves, rates, likely, selection)
    conditions = _distinct(conditions)  # random spans and the difference of means serve them all
    measure = Measure(model, rows, tests, scorer, answers, neutral, max_new_tokens)
    outcomes = tuple(map(measure.outcome, conditions))
    return BehaviorReport(
        rows.site, selection, criteria, scorer.describe(),
        (int(behaves.sum()), int((~behaves).sum())), tuple(len(d) for d in dictionaries),
        tuple(found), outcomes, measure.reference_perplexity(), tuple(notes),
    )  # fmt: skip


def conditions_of(
    dictionary: Dictionary,
    number: int,
    rows: PromptRows,
    behaves: NDArray[np.bool_],
    rates: Sequence[RegionRate],
    likely: Sequence[RegionRate],
    selection: Selection,
) -> list[Condition]:
    """The removals of one dictionary, their nulls, and the difference of means."""
    final = rows.vectors[rows.final]
    difference = final[behaves].mean(axis=0) - final[~behaves].mean(axis=0)
    span = partial(
        Edit.ablate, site=rows.site, center=dictionary.center, positions=selection.positions
    )
    found = [Condition(DIFFERENCE, k, -1, 0, (), (span(difference),)) for k in (1,)]
    width = dictionary.width
    for k in range(1, min(selection.most, len(likely)) + 1):
        top = tuple(rate.region for rate in likely[:k])
        ours = [
            (method, edits_of(dictionary, method, top, rows, behaves, rates, selection))
            for method in selection.methods
        ]
        found += [Condition(m, k, number, 0, top, edits) for m, edits in ours if edits]
        like = [r for r in matched_regions(dictionary, rates, likely[0], selection) if r not in top]
        first = next(
            (edits for _, edits in ours if edits), (span(dictionary.exemplars[list(top)]),)
        )
        taken = removed_norm(first, rows)
        for draw in range(selection.draws):
            null = tuple(like[draw * k : (draw + 1) * k])
            if len(null) == k:
                edit = span(dictionary.exemplars[list(null)])
                found.append(Condition(MATCHED, k, number, draw, null, (edit,)))
            random = np.random.default_rng([selection.seed, 0xAB1A7E, k, draw])
            drawn = random.standard_normal((k, width)).astype(np.float32)
            found.append(Condition(RANDOM, k, -1, draw, (), (span(drawn),)))
            alike = span(drawn, taken / removed_norm([span(drawn)], rows))
            found.append(Condition(EQUAL_NORM, k, number, draw, (), (alike,)))
    return found


def _distinct(conditions: Sequence[Condition]) -> list[Condition]:
    """The first of each name."""
    found: dict[tuple[Any, ...], Condition] = {}
    for c in conditions:
        found.setdefault((c.method, c.k, c.dictionary, c.draw), c)
    return list(found.values())


def _shortcomings(
    number: int | None, likely: Sequence[RegionRate], selection: Selection
) -> list[str]:
    """That regions are missing, in a sentence."""
    where = "" if number is None else f"order {number}: "
    if not likely:
        return [
            f"{where}no region is a candidate: none has {selection.min_prompts} prompts or more of "
            f"which {selection.min_rate:.0%} show the behaviour"
        ]
    if len(likely) < selection.most:
        return [
            f"{where}only {len(likely)} of {selection.most} regions can be removed, as there are "
            "no more candidates"
        ]
    return []


def edits_of(
    dictionary: Dictionary,
    method: str,
    regions: Sequence[int],
    rows: PromptRows,
    behaves: NDArray[np.bool_],
    rates: Sequence[RegionRate],
    selection: Selection,
) -> tuple[Edit, ...]:
    """The edits of a method on chosen regions; none where it has nothing to work with.

    "swap" moves a vector, inside the span of the chosen regions' raw means, to the mean of the
    raw means of regions without the behaviour (Rumbelow 2026, app. E, "swap-c", with the prompts
    that choose); where there is no such region, to the mean of prompts without it. Raw means are
    over the final rows of prompts. "difference inside regions" asks what tells the behaving prompts
    of a region from its others, so it has no part in what tells regions apart; several regions
    count by their behaving prompts.
    """
    ablate = partial(
        Edit.ablate, site=rows.site, center=dictionary.center, positions=selection.positions
    )
    chosen = list(regions)
    if method == "exemplar":
        return (ablate(dictionary.exemplars[chosen]),)
    if method == "mean":
        return (ablate(dictionary.means[chosen]),)
    place = np.arange(len(rows.vectors)) if method == "census mean" else rows.final
    assigned, _ = dictionary.assign(rows.vectors[place])
    if method == "census mean":
        directions, _ = to_directions(rows.vectors, dictionary.center)
        means = [directions[assigned == k].mean(axis=0) for k in chosen if (assigned == k).any()]
        return (ablate(np.stack(means)),) if means else ()
    if method == "difference inside regions":
        inside = _difference_inside(rows.vectors[place], assigned, behaves, chosen)
        return () if inside is None else (ablate(inside),)
    quiet = [r.region for r in rates if r.rate <= _QUIET and r.prompts >= selection.min_prompts]
    ours = _raw_means(rows.vectors[place], assigned, chosen)
    others = _raw_means(rows.vectors[place], assigned, quiet)
    if not len(others):
        others = rows.vectors[rows.final][~behaves].mean(axis=0, keepdims=True)
    if not len(ours):
        return ()
    if method == "difference of regions":
        return (ablate(ours.mean(axis=0) - others.mean(axis=0)),)
    target = others.mean(axis=0)
    span = ours - dictionary.center
    return (Edit.swap(span, target, site=rows.site, positions=selection.positions),)


def _raw_means(vectors: Float32, assigned: Int64, regions: Sequence[int]) -> Float32:
    """(r, D) of the regions that have rows."""
    kept = [k for k in regions if (assigned == k).any()]
    means = [vectors[assigned == k].mean(axis=0, dtype=np.float64) for k in kept]
    return np.array(means, np.float32).reshape(len(kept), vectors.shape[1])


def _difference_inside(
    final: Float32, assigned: Int64, behaves: NDArray[np.bool_], regions: Sequence[int]
) -> Float32 | None:
    """(D,) mean over the behaving prompts in the regions of their final vector less the mean of
    their region's other prompts; None where no region has both.
    """
    x = final.astype(np.float64)
    found = np.zeros(x.shape[1])
    n = 0
    for k in regions:
        ours, others = x[(assigned == k) & behaves], x[(assigned == k) & ~behaves]
        if len(ours) and len(others):
            found += (ours - others.mean(axis=0)).sum(axis=0)
            n += len(ours)
    return (found / n).astype(np.float32) if n else None


def removed_norm(edits: Sequence[Edit], rows: PromptRows) -> float:
    """Mean length of what edits take from the rows of prompts, raw."""
    import torch

    x = torch.from_numpy(rows.vectors)
    after = x
    for edit in edits:
        after = after + edit.change(after)
    return float((after - x).norm(dim=1).mean())


class Measure:
    """What conditions do, on test prompts and neutral texts."""

    def __init__(
        self,
        model: Model,
        rows: PromptRows,
        tests: tuple[Sequence[str], Sequence[str]],
        scorer: Scorer,
        answers: KeptAnswers,
        neutral: Sequence[NDArray[np.int64]],
        max_new_tokens: int,
    ) -> None:
        """As the arguments of `behavior`."""
        self.model, self.rows, self.scorer, self.answers = model, rows, scorer, answers
        self.positive, self.negative = (list(part) for part in tests)
        self.neutral, self.max_new_tokens = neutral, max_new_tokens
        norms = np.linalg.norm(rows.vectors.astype(np.float64), axis=1)
        self.unit = float(np.median(norms))

    def outcome(self, condition: Condition) -> Outcome:
        """Answers under the condition, scored, and its side effects."""
        edits = condition.edits
        written = self.answers(self.positive, edits, self.max_new_tokens)
        others = None
        if condition.method not in NULLS and self.negative:
            others = self.answers(self.negative, edits, self.max_new_tokens)
        scored = answers_perplexity(
            self.model, [a.prompt_ids for a in written], [a.ids for a in written]
        )
        effect = None
        if self.neutral and edits:
            effect = neutral_effect(self.model, self.neutral, partial(edited, self.model, edits))
        return Outcome(
            condition,
            self.share(self.positive, written),
            None if others is None else self.share(self.negative, others),
            answer_fluency([a.text for a in written]),
            scored.perplexity,
            effect,
            removed_norm(edits, self.rows) / self.unit,
            tuple(written),
        )

    def share(self, prompts: Sequence[str], written: Sequence[Answer]) -> Share:
        """Of answers, those with the behaviour."""
        hits = self.scorer(prompts, [a.text for a in written])
        return Share(int(hits.sum()), len(written))

    def reference_perplexity(self) -> float:
        """Of unedited answers without the behaviour: to positive prompts, if there are enough."""
        for prompts in (self.positive, self.negative):
            written = self.answers(prompts, (), self.max_new_tokens) if prompts else []
            hits = self.scorer(prompts, [a.text for a in written])
            plain = [a for a, hit in zip(written, hits, strict=True) if not hit and len(a.ids)]
            if len(plain) >= _ENOUGH:
                ids = [a.prompt_ids for a in plain], [a.ids for a in plain]
                return answers_perplexity(self.model, *ids).perplexity
        return float("nan")


def n_answers(selection: Selection, n_dictionaries: int, tests: tuple[int, int]) -> int:
    """How many answers `behavior` asks for, at most."""
    per_rank = n_dictionaries * (len(selection.methods) + 2 * selection.draws) + selection.draws
    nulls = (2 * n_dictionaries + 1) * selection.draws
    conditions = 2 + selection.most * per_rank
    return conditions * tests[0] + (conditions - selection.most * nulls) * tests[1]
