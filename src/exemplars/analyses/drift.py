"""What did a fine-tune introduce? Regions of the tuned model that the base model does not reach.

Both models read the same tokens. The tuned model's rows are partitioned, and the rows of both are
assigned to its regions. A region's *support* in a model is the number of documents with a row in
it: rows of one document are no independent evidence, and before an answer all answers to a prompt
have the same activations. The *inventory* is the regions that documents of the tuned model are in
and next to none of the base model's: proposed on one half of the documents, confirmed on the other.

Beside it stand the regions that the same rule finds where nothing was introduced: with the two
models' labels exchanged at random within documents, and between two groups of the base model's own
documents.

Source: the inventory without base support is that of Rumbelow 2026 (arXiv:2605.14347), third
version, there on one set of prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.detection import Interval, auroc
from exemplars.analyses.detectors import halves, logistic_direction
from exemplars.analyses.labelled import OnStep
from exemplars.analyses.paired import PairedRows
from exemplars.calibration import calibrate
from exemplars.dictionary import Dictionary, partition, take_census
from exemplars.geometry import Float32, Float64, Int64, to_directions, vector_norms
from exemplars.lens import (
    contrast_lens,
    embedding_lens,
    logit_lens,
    rank_of,
    top_tokens,
    word_ranks,
)

if TYPE_CHECKING:
    from exemplars.models import Model

EXCHANGED, AGAINST_ITSELF = "labels exchanged", "base against itself"
NULLS = (EXCHANGED, AGAINST_ITSELF)
_NORM_MULTIPLE = 10.0
_PROBE_STRENGTH = 1e-2
_FEWEST = 8
"""Documents, at least: four to propose by and four to confirm by."""
_SHOWN = 4
_RESAMPLES = 1000
_MOST_READ = 1024
"""Rows that a contrast reads on each side, at most."""


@dataclass(frozen=True)
class Rule:
    """When a region counts as introduced."""

    least: int = 5
    """Documents of the tuned model that propose it, at least."""
    most_base: float = 0.1
    """Support in the base model, over that in the tuned one, at most; in either half."""
    level: float = 0.05
    """Of the one-sided sign test over documents that only one model has in the region: for each
    region where it is proposed, over all proposed together (Holm) where it is confirmed."""


@dataclass(frozen=True, eq=False)
class Support:
    """Documents that have a row in each region. Arrays (2, K): proposing, confirming half."""

    tuned: Int64
    base: Int64
    only_tuned: Int64
    """Documents of which the tuned model has a row there and the base model none."""
    only_base: Int64


@dataclass(frozen=True, eq=False)
class Introduced:
    """A region of the inventory."""

    region: int
    tuned: tuple[int, int]
    """Documents of the tuned model in it, of the proposing and of the confirming half."""
    base: tuple[int, int]
    members: Int64
    """The tuned model's rows in it, of the proposing half."""
    rows: tuple[int, int]
    """How many rows of the tuned model are in it, of either half."""
    p_value: float
    """Of the confirming half, after Holm."""
    direction: Float32
    """(D,) mean direction of the tuned model's rows, about the center; of the proposing half."""
    shift: Float32
    """(D,) mean of what these tokens have in the tuned model, less what they have in the base
    model; raw."""
    contexts: tuple[tuple[str, str, str], ...]
    """The nearest tokens, one of a document, with the text before and after."""


@dataclass(frozen=True)
class Precision:
    """Rows of the confirming half that are flagged, and how many are of the topic's documents."""

    flagged: int
    of_topic: int
    share: Interval
    """Interval: 95 %, documents resampled."""


@dataclass(frozen=True)
class TopicShares:
    """Are the introduced regions the topic's? Shares of the confirming half's rows."""

    inventory: Precision
    """Rows of the tuned model in the inventory."""
    difference: Precision
    """As many rows (of the proposing half) with the largest products with the difference of
    means."""
    probe: Precision
    """The same with the logistic probe's direction."""
    all_rows: float
    """Share of the topic's rows among all."""


@dataclass(frozen=True, eq=False)
class Drift:
    """A model and its fine-tune at one site, on the same tokens."""

    site: str
    percentile: float
    threshold: float
    positions: str
    rule: Rule
    seed: int
    documents: tuple[int, int]
    """Of the proposing and of the confirming half."""
    proposing: NDArray[np.bool_]
    """(documents,) False: confirming."""
    rows: int
    n_regions: int
    support: Support
    proposed: int
    inventory: tuple[Introduced, ...]
    """By support in the confirming half, largest first."""
    published: int
    """Regions that documents of the proposing half are in, and none of the base model: the
    published rule, which asks nothing of other documents."""
    orders: tuple[int, ...]
    """Size of the inventory for other orders of the documents and other halves."""
    nulls: Mapping[str, tuple[int, ...]]
    """By `NULLS`: sizes of the inventory, for each draw."""
    published_nulls: Mapping[str, tuple[int, ...]]
    difference: Float32
    """(D,) mean direction of the tuned model's rows less that of the base model's."""
    probe: Float32
    """(D,) weights of a logistic probe that tells the tuned model's rows from the base model's."""
    probe_auroc: float
    """Of the probe, on the confirming half's rows."""
    moved: float
    """Median distance of a row in the tuned model from the same row in the base model, over the
    median distance of the base model's rows from their mean."""
    topic: TopicShares | None = None


def drift(
    pairs: PairedRows,
    percentile: float = 12.0,
    *,
    rule: Rule | None = None,
    positions: str = "all",
    topic: NDArray[np.bool_] | None = None,
    orders: int = 4,
    draws: int = 5,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> Drift:
    """Find the regions that a fine-tune introduced.

    Args:
        pairs: From `read_pairs`.
        percentile: Resolution of the dictionary of the tuned model's rows.
        rule: When a region counts.
        positions: What `pairs` was read at, to be remembered.
        topic: (documents,) True for those of a topic, to ask whether the regions are the topic's.
        orders: Other orders and halves, to see how far the inventory depends on them.
        draws: Of each null.
        seed: Of halves, orders, nulls and resamples.
        on_step: Told how many inventories were made.

    Raises:
        ValueError: Too few documents, or an argument out of range.
        CalibrationError: The rows are too alike for a dictionary.
    """
    rule = rule or Rule()
    n = len(pairs.documents)
    _check(pairs, rule, topic, orders, draws)
    told = on_step or (lambda what, done, total: None)
    total, done = 1 + orders + draws * len(NULLS), 0

    def tell() -> None:
        nonlocal done
        done += 1
        told("inventories", done, total)

    sides = _Sides(pairs.tuned, pairs.document, pairs.base, pairs.document, n)
    found = _Inventory.of(sides, percentile, rule, seed)
    tell()
    sizes = []
    for k in range(orders):
        sizes.append(len(_Inventory.of(sides, percentile, rule, seed + 1 + k).confirmed))
        tell()
    nulls: dict[str, list[_Inventory]] = {name: [] for name in NULLS}
    for draw in range(draws):
        random = np.random.default_rng([seed, draw, 0xD1F7])
        for name, make in ((EXCHANGED, _exchanged), (AGAINST_ITSELF, _against_itself)):
            nulls[name].append(_Inventory.of(make(pairs, random), percentile, rule, seed))
            tell()
    proposing = found.proposing[pairs.document]
    difference, probe = _baselines(found.dictionary, pairs, proposing)
    return Drift(
        site=pairs.site,
        percentile=float(percentile),
        threshold=found.dictionary.threshold,
        positions=positions,
        rule=rule,
        seed=seed,
        documents=(int(found.proposing.sum()), int((~found.proposing).sum())),
        proposing=found.proposing,
        rows=len(pairs),
        n_regions=found.dictionary.n_regions,
        support=found.support,
        proposed=len(found.proposed),
        inventory=_described(found, pairs),
        published=found.published,
        orders=tuple(sizes),
        nulls={name: tuple(len(i.confirmed) for i in several) for name, several in nulls.items()},
        published_nulls={
            name: tuple(i.published for i in several) for name, several in nulls.items()
        },
        difference=difference,
        probe=probe,
        probe_auroc=_auroc(found.dictionary, pairs, ~proposing, probe),
        moved=_moved(pairs),
        topic=None if topic is None else _topic(found, pairs, topic, difference, probe, seed),
    )


def _check(
    pairs: PairedRows, rule: Rule, topic: NDArray[np.bool_] | None, orders: int, draws: int
) -> None:
    n = len(pairs.documents)
    if n < _FEWEST:
        raise ValueError(
            f"there are {n} documents, expected {_FEWEST} at least: half propose regions and half "
            "confirm them; give more documents"
        )
    if rule.least < 1 or not 0 <= rule.most_base < 1 or not 0 < rule.level < 1:
        raise ValueError(
            f"{rule} is out of range; least is 1 or more, most_base in [0, 1), level in (0, 1)"
        )
    if orders < 0 or draws < 0:
        raise ValueError(f"orders is {orders} and draws {draws}, expected 0 or more")
    if topic is not None and len(topic) != n:
        raise ValueError(f"topic has {len(topic)} labels for {n} documents; give one for each")


@dataclass(frozen=True, eq=False)
class _Sides:
    """Rows that stand for the tuned model and rows that stand for the base model, by unit."""

    tuned: Float32
    tuned_unit: Int64
    base: Float32
    base_unit: Int64
    n: int


def _exchanged(pairs: PairedRows, random: np.random.Generator) -> _Sides:
    """Of a random half of the documents, the models' rows change places."""
    swap = (random.random(len(pairs.documents)) < 0.5)[pairs.document][:, None]
    tuned, base = (
        np.where(swap, one, two)
        for one, two in ((pairs.base, pairs.tuned), (pairs.tuned, pairs.base))
    )
    return _Sides(tuned, pairs.document, base, pairs.document, len(pairs.documents))


def _against_itself(pairs: PairedRows, random: np.random.Generator) -> _Sides:
    """The base model's documents in random pairs: one stands for the tuned, one for the base."""
    n = len(pairs.documents) // 2
    unit = np.full(len(pairs.documents), -1, np.int64)
    order = random.permutation(len(pairs.documents))
    side = np.zeros(len(unit), np.int64)
    unit[order[:n]], unit[order[n : 2 * n]] = np.arange(n), np.arange(n)
    side[order[n : 2 * n]] = 1

    def rows_of(which: int) -> tuple[Float32, Int64]:
        rows = np.flatnonzero(((unit >= 0) & (side == which))[pairs.document])
        rows = rows[np.argsort(unit[pairs.document[rows]], kind="stable")]
        return pairs.base[rows], unit[pairs.document[rows]]

    return _Sides(*rows_of(0), *rows_of(1), n)


@dataclass(frozen=True, eq=False)
class _Inventory:
    """A dictionary of the tuned side's proposing half, and where all rows are in it."""

    dictionary: Dictionary
    proposing: NDArray[np.bool_]
    """(units,) False: confirming."""
    tuned_region: Int64
    """(N,) -1 for rows that a build would drop."""
    tuned_distance: Float32
    support: Support
    proposed: Int64
    confirmed: Int64
    p_value: Float64
    """Of each confirmed one, after Holm."""

    @classmethod
    def of(cls, sides: _Sides, percentile: float, rule: Rule, seed: int) -> _Inventory:
        first, _ = halves(sides.n, seed)
        proposing = np.zeros(sides.n, np.bool_)
        proposing[first] = True
        stream = _stream(sides.tuned, sides.tuned_unit, first, seed)
        calibration = calibrate(stream, percentile, norm_multiple=_NORM_MULTIPLE)
        dictionary = partition(stream, calibration, seed=seed)
        regions, distances = zip(
            *(_assigned(dictionary, rows) for rows in (sides.tuned, sides.base)), strict=True
        )
        tuned, base = (
            _reached(region, unit, sides.n, dictionary.n_regions)
            for region, unit in zip(regions, (sides.tuned_unit, sides.base_unit), strict=True)
        )
        support = _support(tuned, base, proposing)
        proposed = np.flatnonzero(
            _passes(support, 0, rule) & (_sign_test(support, 0) <= rule.level)
        )
        p_value = _holm(_sign_test(support, 1)[proposed])
        sure = _passes(support, 1, rule)[proposed] & (p_value <= rule.level)
        return cls(
            dictionary, proposing, regions[0], distances[0], support, proposed, proposed[sure],
            p_value[sure],
        )  # fmt: skip

    @property
    def published(self) -> int:
        return int(((self.support.tuned[0] > 0) & (self.support.base[0] == 0)).sum())


def _stream(rows: Float32, unit: Int64, chosen: Int64, seed: int) -> Float32:
    """Rows of the chosen units, in a random order of the units."""
    place = np.full(int(unit.max(initial=-1)) + 1, -1, np.int64)
    place[chosen] = np.random.default_rng([seed, 1]).permutation(len(chosen))
    mine = np.flatnonzero(place[unit] >= 0)
    return rows[mine[np.argsort(place[unit[mine]], kind="stable")]]


def _assigned(dictionary: Dictionary, rows: Float32) -> tuple[Int64, Float32]:
    """Nearest regions; -1 where a build would drop the row."""
    region, distance = dictionary.assign(rows)
    limit = dictionary.calibration.norm_limit
    return np.where(vector_norms(rows) > (np.inf if limit is None else limit), -1, region), distance


def _reached(region: Int64, unit: Int64, n: int, k: int) -> NDArray[np.bool_]:
    """(units, K) whether a unit has a row in a region."""
    found = np.zeros((n, k), np.bool_)
    there = region >= 0
    found[unit[there], region[there]] = True
    return found


def _support(
    tuned: NDArray[np.bool_], base: NDArray[np.bool_], proposing: NDArray[np.bool_]
) -> Support:
    def counts(reached: NDArray[np.bool_]) -> Int64:
        return np.stack([reached[proposing].sum(0), reached[~proposing].sum(0)]).astype(np.int64)

    return Support(counts(tuned), counts(base), counts(tuned & ~base), counts(base & ~tuned))


def _passes(support: Support, half: int, rule: Rule) -> NDArray[np.bool_]:
    """Whether a half has enough documents of the tuned model, and few enough of the base model."""
    tuned, base = support.tuned[half], support.base[half]
    enough = rule.least if half == 0 else 1
    return (tuned >= enough) & (base <= rule.most_base * tuned)


def _sign_test(support: Support, half: int) -> Float64:
    """(K,) one-sided p: that the tuned model alone has so many of the documents that one has."""
    from scipy.stats import binom

    only, other = support.only_tuned[half], support.only_base[half]
    return np.asarray(binom.sf(only - 1, only + other, 0.5), np.float64)


def _holm(p: Float64) -> Float64:
    """p-values adjusted for all of them being looked at (Holm 1979)."""
    order = np.argsort(p, kind="stable")
    raised = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    found = np.empty(len(p))
    found[order] = np.minimum(raised, 1.0)
    return found


def _described(found: _Inventory, pairs: PairedRows) -> tuple[Introduced, ...]:
    """The confirmed regions, with what to read them by."""
    proposing = found.proposing[pairs.document]
    chosen = np.flatnonzero(proposing)
    means = take_census(found.dictionary, [pairs.tuned[chosen]]).statistics().means
    described = []
    for region, p in zip(found.confirmed.tolist(), found.p_value.tolist(), strict=True):
        rows = np.flatnonzero(found.tuned_region == region)
        mine = rows[proposing[rows]]
        shift = (pairs.tuned[mine].astype(np.float64) - pairs.base[mine]).mean(0)
        described.append(
            Introduced(
                region=region,
                tuned=_pair(found.support.tuned[:, region]),
                base=_pair(found.support.base[:, region]),
                members=mine,
                rows=(len(mine), len(rows) - len(mine)),
                p_value=p,
                direction=np.asarray(means[region]),
                shift=shift.astype(np.float32),
                contexts=_contexts(pairs, rows[np.argsort(found.tuned_distance[rows])]),
            )
        )
    return tuple(sorted(described, key=lambda one: (-one.tuned[1], one.region)))


def _pair(values: Int64) -> tuple[int, int]:
    return int(values[0]), int(values[1])


def _contexts(pairs: PairedRows, rows: Int64) -> tuple[tuple[str, str, str], ...]:
    """The first rows of different documents."""
    _, first = np.unique(pairs.document[rows], return_index=True)
    return tuple(pairs.excerpt(int(row)) for row in rows[np.sort(first)][:_SHOWN])


def _baselines(
    dictionary: Dictionary, pairs: PairedRows, proposing: NDArray[np.bool_]
) -> tuple[Float32, Float32]:
    """Difference of mean directions, and a logistic probe's weights; of the proposing half."""
    tuned, base = (
        to_directions(rows[proposing], dictionary.center)[0] for rows in (pairs.tuned, pairs.base)
    )
    difference = tuned.mean(0, np.float64) - base.mean(0, np.float64)
    return difference.astype(np.float32), logistic_direction(tuned, base, _PROBE_STRENGTH)


def _auroc(
    dictionary: Dictionary, pairs: PairedRows, rows: NDArray[np.bool_], direction: Float32
) -> float:
    tuned, base = (
        to_directions(side[rows], dictionary.center)[0] @ direction
        for side in (pairs.tuned, pairs.base)
    )
    return auroc(tuned, base)


def _moved(pairs: PairedRows) -> float:
    away = vector_norms(pairs.tuned - pairs.base)
    around = vector_norms(pairs.base - pairs.base.mean(0, np.float64).astype(np.float32))
    return float(np.median(away) / np.median(around))


def _topic(
    found: _Inventory,
    pairs: PairedRows,
    topic: NDArray[np.bool_],
    difference: Float32,
    probe: Float32,
    seed: int,
) -> TopicShares:
    """How much of what is flagged in the confirming half is the topic's."""
    proposing = found.proposing[pairs.document]
    inside = np.isin(found.tuned_region, found.confirmed)
    directions, _ = to_directions(pairs.tuned, found.dictionary.center)
    n = int((inside & proposing).sum())

    def share(flagged: NDArray[np.bool_]) -> Precision:
        return _precision(flagged & ~proposing, pairs.document, topic, seed)

    def largest(direction: Float32) -> NDArray[np.bool_]:
        scores = directions @ direction
        if not n:
            return np.zeros(len(scores), np.bool_)
        return np.asarray(scores >= np.sort(scores[proposing])[-n])

    of_topic = topic[pairs.document][~proposing]
    return TopicShares(
        share(inside), share(largest(difference)), share(largest(probe)), float(of_topic.mean())
    )


def _precision(
    flagged: NDArray[np.bool_], document: Int64, topic: NDArray[np.bool_], seed: int
) -> Precision:
    """A share of rows, with documents resampled for its interval."""
    rows = np.bincount(document[flagged], minlength=len(topic))
    there = np.flatnonzero(rows)
    total, right = int(rows.sum()), int(rows[topic].sum())
    if not total:
        nan = float("nan")
        return Precision(0, 0, Interval(nan, nan, nan))
    random = np.random.default_rng([seed, 0x70F1C])
    drawn = random.multinomial(len(there), np.full(len(there), 1 / len(there)), size=_RESAMPLES)
    shares = (drawn @ (rows * topic)[there]) / (drawn @ rows[there])
    low, high = np.percentile(shares, [2.5, 97.5])
    return Precision(total, right, Interval(right / total, float(low), float(high)))


@dataclass(frozen=True)
class Reading:
    """What a direction reads as in the tuned model."""

    of: str
    """"region" (its mean direction), "shift" (what the region's tokens have more in the tuned
    model), "contrast" (tokens whose scores stand out in the region's rows over the base model's
    rows at the same tokens; of no region: in all rows), "difference" of means, or "probe"."""
    region: int
    """-1 where it is none's."""
    lens: tuple[str, ...]
    """Tokens of the largest logits through final norm and unembedding."""
    embedding: tuple[str, ...]
    """Tokens whose input vectors have the largest cosine."""
    ranks: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    """Of each word that was asked for, from 0, by "lens" and by "embedding"."""


def read_drift(
    model: Model, result: Drift, pairs: PairedRows, k: int = 10, words: Sequence[str] = ()
) -> tuple[Reading, ...]:
    """The inventory and the baselines as tokens.

    Args:
        model: The tuned one.
        result: At a site as wide as the residual stream.
        pairs: What it was made of.
        k: Tokens of each reading.
        words: Whose ranks to tell; they have no part in anything else.

    Raises:
        MismatchError: Another width than the model's.
    """
    regions = [one.region for one in result.inventory]
    names = [("region", r) for r in regions] + [("shift", r) for r in regions]
    names += [("difference", -1), ("probe", -1)]
    directions = np.stack(
        [one.direction for one in result.inventory]
        + [one.shift for one in result.inventory]
        + [result.difference, result.probe]
    )
    lens = logit_lens(model, directions, k).promoted_tokens
    embedding, _ = embedding_lens(model, directions, k)
    ranks = {word: word_ranks(model, directions, word) for word in words}
    found = [
        Reading(
            *name,
            tuple(lens[i]),
            tuple(embedding[i]),
            {w: {kind: int(r[i]) for kind, r in of.items()} for w, of in ranks.items()},
        )
        for i, name in enumerate(names)
    ]
    groups = [(one.region, one.members) for one in result.inventory]
    groups.append((-1, np.flatnonzero(result.proposing[pairs.document])))
    found += [_contrast(model, result, pairs, *group, k, words) for group in groups]
    return tuple(found)


def _contrast(
    model: Model,
    result: Drift,
    pairs: PairedRows,
    region: int,
    members: Int64,
    k: int,
    words: Sequence[str],
) -> Reading:
    """Tokens that stand out in rows of the tuned model, over the base model's at the same tokens
    of all documents that propose.
    """
    alike = np.isin(pairs.token, pairs.token[members]) & result.proposing[pairs.document]
    mine, usual = (
        side[which[:: -(-len(which) // _MOST_READ)]]
        for side, which in ((pairs.tuned, members), (pairs.base, np.flatnonzero(alike)))
    )
    scores = {kind: contrast_lens(model, mine, usual, kind) for kind in ("lens", "embedding")}
    lens, embedding = (tuple(top_tokens(model, score, k)) for score in scores.values())
    ranks = {w: {kind: rank_of(model, s, w) for kind, s in scores.items()} for w in words}
    return Reading("contrast", region, lens, embedding, ranks)
