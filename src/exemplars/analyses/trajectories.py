"""The regions that tokens pass through, from site to site of one model.

Every token of a prompt has a region at each site: its *path*. Flows count tokens that go from one
region to another between neighbouring sites; paths and the regions of sets of prompts are of the
prompts' final positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from exemplars import corpora, store
from exemplars.activations import read_activations
from exemplars.analyses.prompts import prompt_limit
from exemplars.analyses.rounds import random_matching
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Float64, Int64, vector_norms

if TYPE_CHECKING:
    from exemplars.activations import ActivationBatch
    from exemplars.analyses.labelled import OnStep
    from exemplars.models import Model

_WINDOW_TOKENS = 4096
_DRAWS_AT_ONCE = 256


@dataclass(frozen=True)
class Chance:
    """What a statistic is under a null, from random draws."""

    mean: float
    low: float
    """2.5th percentile of the draws."""
    high: float
    """97.5th."""
    p_value: float
    """Share of draws at least as far out; what was observed counts as one draw more."""

    @classmethod
    def of(cls, observed: float, draws: Float64, side: str = "two") -> Chance:
        """Of draws (n,).

        Args:
            observed: The statistic.
            draws: Under the null.
            side: "two": as far from the draws' mean on either side; "upper": as large.
        """
        center = draws.mean()
        if side == "upper":
            beyond = draws >= observed - 1e-12
        else:
            beyond = np.abs(draws - center) >= abs(observed - center) - 1e-12
        low, high = np.percentile(draws, (2.5, 97.5))
        p_value = (1 + int(beyond.sum())) / (1 + len(draws))
        return cls(float(center), float(low), float(high), p_value)


@dataclass(frozen=True, eq=False)
class TokenPaths:
    """Where each token of some prompts is at each site; rows of a prompt lie together."""

    sites: tuple[str, ...]
    """From shallow to deep."""
    n_regions: tuple[int, ...]
    """K of each site's dictionary."""
    sets: tuple[str, ...]
    """Names of the sets of prompts."""
    prompts: tuple[str, ...]
    label: Int64
    """(P,) number of each prompt's set."""
    region: Int64
    """(N, S) of each row at each site; -1 for a row that a build would have dropped there."""
    distance: Float32
    """(N, S) to the exemplar, in thresholds: above 1 the row lies outside all regions' radii."""
    prompt: Int64
    """(N,) ascending."""
    token: Int64
    """(N,) ids."""
    final_vectors: tuple[Float32, ...]
    """(P, D) raw, of each site, at the last row of each prompt."""

    @cached_property
    def final(self) -> Int64:
        """(P,) the last row of each prompt."""
        return np.searchsorted(self.prompt, np.arange(len(self.prompts)), side="right") - 1

    @property
    def final_regions(self) -> Int64:
        """(P, S)."""
        found: Int64 = self.region[self.final]
        return found


def read_paths(
    model: Model,
    dictionaries: Sequence[Dictionary],
    prompts: Mapping[str, Sequence[str]],
    *,
    chat: bool | None = None,
    allow_mismatch: bool = False,
    on_step: OnStep | None = None,
) -> TokenPaths:
    """Send prompts through dictionaries of several sites, in one pass of the model.

    Args:
        model: That the dictionaries are of.
        dictionaries: Of different sites, in any order.
        prompts: By the name of the set; in one set only, each once.
        chat: Put prompts through the chat template; None: if the first dictionary's texts were.
        allow_mismatch: Go on although the model is another.
        on_step: Told how many prompts were read.

    Raises:
        ValueError: Fewer than two sites, a site twice, no prompts, a prompt in two sets, or one
            that has no row or is too long.
        MismatchError: Another model.
    """
    sites, ordered = _by_depth(model, dictionaries, allow_mismatch)
    names, texts, label = _sets(prompts)
    first = tokenization_of(ordered[0])
    chat = first.chat if chat is None else chat
    tokenization = replace(
        first, chat=chat, rows="all", packing="none", long_documents="truncate",
        context_length=prompt_limit(model, texts, chat),
    )  # fmt: skip
    told = on_step or (lambda what, done, total: None)
    told("prompts", 0, len(texts))
    parts: list[tuple[Int64, Int64, Int64, Float32]] = []
    finals: list[dict[int, Float32]] = [{} for _ in sites]
    listed = corpora.texts(list(texts))
    for batches in read_activations(
        model, sites, listed, tokenization, window_tokens=_WINDOW_TOKENS
    ):
        document = batches[0].document
        if not len(document):
            continue
        placed = [_placed(d, b) for d, b in zip(ordered, batches, strict=True)]
        region, distance = (np.stack(columns, axis=1) for columns in zip(*placed, strict=True))
        parts.append((document, batches[0].token, region, distance))
        _keep_last(batches, finals)
        told("prompts", int(document[-1]) + 1, len(texts))
    if len(finals[0]) < len(texts):
        missing = next(k for k in range(len(texts)) if k not in finals[0])
        raise ValueError(f"prompt {missing + 1} has no rows at {sites[0]}; give a longer text")
    prompt, token, region, distance = (
        np.concatenate(columns) for columns in zip(*parts, strict=True)
    )
    return TokenPaths(
        sites, tuple(map(len, ordered)), names, texts, label, region, distance, prompt, token,
        tuple(np.stack([kept[k] for k in range(len(texts))]) for kept in finals),
    )  # fmt: skip


def _by_depth(
    model: Model, dictionaries: Sequence[Dictionary], allow_mismatch: bool
) -> tuple[tuple[str, ...], list[Dictionary]]:
    """Sites from shallow to deep, and their dictionaries."""
    if len(dictionaries) < 2:
        raise ValueError(f"{len(dictionaries)} dictionary was given, expected two sites or more")
    named: dict[str, Dictionary] = {}
    for dictionary in dictionaries:
        store.check_model(dictionary, model, allow_mismatch=allow_mismatch)
        if dictionary.site is None:
            raise ValueError("a dictionary does not say which site it is of; build it with a model")
        site = model.site(dictionary.site)
        if site.name in named:
            raise ValueError(
                f"two dictionaries are of {site.name}; give one for each site (several percentiles "
                "of one site are for `exemplars resolution`)"
            )
        named[site.name] = dictionary
    depth = {name: (-1 if (at := model.site(name).layer) is None else at) for name in named}
    sites = tuple(sorted(named, key=lambda name: depth[name]))
    return sites, [named[site] for site in sites]


def _sets(
    prompts: Mapping[str, Sequence[str]],
) -> tuple[tuple[str, ...], tuple[str, ...], Int64]:
    """Names, all prompts, and the set of each."""
    label = np.repeat(np.arange(len(prompts)), [len(several) for several in prompts.values()])
    texts = tuple(text for several in prompts.values() for text in several)
    if not len(texts) or any(not several for several in prompts.values()):
        raise ValueError("a set has no prompts, expected some in each; give prompts")
    if len(set(texts)) < len(texts):
        twice = next(text for text in texts if texts.count(text) > 1)
        raise ValueError(f"the prompt {twice[:40]!r} was given twice; give each once")
    return tuple(prompts), texts, label


def _placed(dictionary: Dictionary, batch: ActivationBatch) -> tuple[Int64, Float32]:
    """Regions and distances in thresholds of a batch's rows; -1 and NaN for norm outliers."""
    vectors = as_vectors(batch.vectors)
    region, distance = dictionary.assign(vectors)
    limit = dictionary.calibration.norm_limit
    if limit is not None:
        lost = vector_norms(vectors) > limit
        region[lost], distance[lost] = -1, np.nan
    return region, distance / np.float32(dictionary.threshold)


def _keep_last(batches: Sequence[ActivationBatch], finals: list[dict[int, Float32]]) -> None:
    """Of each document of a window the last row, at each site."""
    document = batches[0].document
    last = np.flatnonzero(np.append(document[1:] != document[:-1], True))
    for kept, batch in zip(finals, batches, strict=True):
        vectors = as_vectors(batch.vectors[last])
        kept.update(zip(document[last].tolist(), vectors, strict=True))


@dataclass(frozen=True, eq=False)
class Flow:
    """Tokens between the regions of two sites."""

    sites: tuple[str, str]
    rows: int
    """Tokens with a region at both."""
    source: Int64
    """(F,) region at the first site of each flow, the largest flow first."""
    target: Int64
    """(F,) region at the second."""
    count: Int64
    """(F,) tokens."""
    source_entropy_bits: float
    target_entropy_bits: float
    mutual_information_bits: float
    """What a token's region at the one site says of its region at the other; biased upwards, so
    that it is to be read against `chance`."""
    chance: Chance
    """The same with the tokens' second regions permuted among all tokens; p one-sided."""
    chance_given_token: Chance
    """Permuted among tokens of the same id: what the token's identity alone would give."""

    @property
    def conditional_entropy_bits(self) -> float:
        """Of the region at the second site, that at the first being known."""
        return self.target_entropy_bits - self.mutual_information_bits


def flows(paths: TokenPaths, draws: int = 199, seed: int = 0) -> list[Flow]:
    """Flows between neighbouring sites, over all tokens.

    Args:
        paths: From `read_paths`.
        draws: Of each null.
        seed: Of the draws.

    Raises:
        ValueError: No token has a region at both of two sites.
    """
    found = []
    for k, pair in enumerate(zip(paths.sites[:-1], paths.sites[1:], strict=True)):
        one, two = paths.region[:, k], paths.region[:, k + 1]
        kept = (one >= 0) & (two >= 0)
        if not kept.any():
            raise ValueError(f"no token has a region at both {pair[0]} and {pair[1]}")
        found.append(_flow(pair, one[kept], two[kept], paths.token[kept], draws, [seed, k]))
    return found


def _flow(
    sites: tuple[str, str], one: Int64, two: Int64, token: Int64, draws: int, seed: list[int]
) -> Flow:
    width = int(two.max()) + 1
    cells, count = np.unique(one * width + two, return_counts=True)
    order = np.argsort(-count, kind="stable")
    source, target = np.divmod(cells[order], width)
    apart = entropy_bits(np.bincount(one)) + entropy_bits(np.bincount(two))
    information = apart - entropy_bits(count)
    same_token = np.unique(token, return_inverse=True)[1]
    nulls = []
    for number, strata in enumerate((np.zeros_like(one), same_token)):
        rng = np.random.default_rng([*seed, 0xF10, number])
        drawn = np.empty(draws)
        for draw in range(draws):
            moved = two[random_matching(strata, rng)]
            joint = np.unique(one * width + moved, return_counts=True)[1]
            drawn[draw] = apart - entropy_bits(joint)
        nulls.append(Chance.of(information, drawn, "upper"))
    return Flow(
        sites, len(one), source, target, count[order].astype(np.int64),
        entropy_bits(np.bincount(one)), entropy_bits(np.bincount(two)), information, *nulls,
    )  # fmt: skip


def entropy_bits(counts: Int64) -> float:
    """Entropy of shares that are proportional to counts, in bits; 0 of one kind."""
    shares = counts[counts > 0] / counts.sum()
    return abs(float((shares * np.log2(shares)).sum()))


@dataclass(frozen=True, eq=False)
class SetPaths:
    """The paths of the final positions of a set of prompts."""

    name: str
    prompts: int
    """That have a region at every site."""
    paths: Int64
    """(M, S) the different paths, the most frequent first."""
    counts: Int64
    """(M,)."""
    independent: Float64
    """(M,) share of each if the set's regions at the sites were independent: the product of their
    shares."""
    chance: Chance
    """Different paths of as many prompts drawn from all sets; p two-sided. NaN of one set."""

    @property
    def shares(self) -> Float64:
        """(M,)."""
        return self.counts / max(self.prompts, 1)


def set_paths(paths: TokenPaths, draws: int = 999, seed: int = 0) -> list[SetPaths]:
    """The paths of each set, and whether it has fewer different ones than random prompts.

    Args:
        paths: From `read_paths`.
        draws: Of the null.
        seed: Of the draws.
    """
    whole = (paths.final_regions >= 0).all(axis=1)
    regions, label = paths.final_regions[whole], paths.label[whole]
    kinds, kind = np.unique(regions, axis=0, return_inverse=True)
    incidence = _incidence(kind.reshape(-1), len(kinds))
    found = []
    for number, name in enumerate(paths.sets):
        mine = label == number
        counts = incidence[mine].sum(axis=0).astype(np.int64)
        order = np.argsort(-counts, kind="stable")[: int((counts > 0).sum())]
        shares = [_shares_of(regions[mine, s], kinds[order, s]) for s in range(regions.shape[1])]
        chance = Chance(np.nan, np.nan, np.nan, np.nan)
        if len(paths.sets) > 1 and mine.any():
            rng = np.random.default_rng([seed, 0x9A7, number])
            drawn = (_counts_of_draws(incidence, int(mine.sum()), draws, rng) > 0).sum(axis=1)
            chance = Chance.of(float(len(order)), drawn.astype(np.float64))
        found.append(
            SetPaths(
                name, int(mine.sum()), kinds[order], counts[order],
                np.prod(np.array(shares), axis=0), chance,
            )
        )  # fmt: skip
    return found


def _shares_of(values: Int64, wanted: Int64) -> Float64:
    """The share of each of some values."""
    if not len(values):
        return np.zeros(len(wanted))
    counts = np.bincount(values, minlength=int(max(values.max(), wanted.max(initial=0))) + 1)
    found: Float64 = counts[wanted] / len(values)
    return found


def _incidence(kind: Int64, n_kinds: int) -> Float32:
    """(P, kinds) 1 where a prompt is of a kind."""
    found = np.zeros((len(kind), n_kinds), np.float32)
    found[np.arange(len(kind)), kind] = 1
    return found


def _counts_of_draws(
    incidence: Float32, size: int, draws: int, rng: np.random.Generator
) -> Float32:
    """(draws, kinds) counts over `size` prompts drawn without replacement."""
    parts = []
    for start in range(0, draws, _DRAWS_AT_ONCE):
        n = min(_DRAWS_AT_ONCE, draws - start)
        chosen = rng.random((n, len(incidence))).argsort(axis=1) < size
        parts.append(chosen.astype(np.float32) @ incidence)
    return np.concatenate(parts)


@dataclass(frozen=True)
class SetOverlap:
    """How far two sets of prompts end in the same regions of a site."""

    site: str
    sets: tuple[str, str]
    regions: tuple[int, int]
    """Different ones."""
    jaccard: float
    """Regions that both have, of those that one has."""
    jaccard_chance: Chance
    """With the prompts' sets shuffled; p two-sided. Jaccard depends on the sizes of the sets, so
    it says nothing without this."""
    shared: float
    """Σ min of the two shares over regions: 1 where both have the same distribution."""
    shared_chance: Chance


def set_overlaps(paths: TokenPaths, draws: int = 999, seed: int = 0) -> list[SetOverlap]:
    """For each site and pair of sets, how far final positions share regions.

    Args:
        paths: From `read_paths`.
        draws: Shuffles of the two sets' prompts.
        seed: Of the draws.
    """
    found = []
    for s, site in enumerate(paths.sites):
        final = paths.final_regions[:, s]
        for i, j in combinations(range(len(paths.sets)), 2):
            mine = (final >= 0) & ((paths.label == i) | (paths.label == j))
            _, kind = np.unique(final[mine], return_inverse=True)
            incidence = _incidence(kind, int(kind.max(initial=-1)) + 1)
            first = paths.label[mine] == i
            n = int(first.sum())
            if not 0 < n < len(first):
                continue  # all of a set's final rows are without region
            total = incidence.sum(axis=0)
            observed = incidence[first].sum(axis=0, keepdims=True)
            jaccard, shared = _overlap(observed, total, n)
            rng = np.random.default_rng([seed, 0x0E7, s, i, j])
            drawn = _counts_of_draws(incidence, n, draws, rng)
            jaccards, shares = _overlap(drawn, total, n)
            found.append(
                SetOverlap(
                    site, (paths.sets[i], paths.sets[j]),
                    (int((observed > 0).sum()), int((total > observed).sum())),
                    float(jaccard[0]), Chance.of(float(jaccard[0]), jaccards),
                    float(shared[0]), Chance.of(float(shared[0]), shares),
                )
            )  # fmt: skip
    return found


def _overlap(counts: Float32, total: Float32, n: int) -> tuple[Float64, Float64]:
    """(draws,) Jaccard and shared shares of a set of n, (draws, K) counts, with the rest."""
    rest = total - counts
    one, two = counts > 0, rest > 0
    jaccard = (one & two).sum(axis=1) / (one | two).sum(axis=1)
    n_rest = float(total.sum()) - n
    shared = np.minimum(counts / n, rest / n_rest).sum(axis=1, dtype=np.float64)
    return jaccard.astype(np.float64), shared
