"""Do two models represent the same prompts together?

Each model reads the prompts; at each of its layers the activations at the prompts' final positions
are partitioned; the partitions of the two models are compared by round trips
(`exemplars.analyses.rounds`), layer pair by layer pair, without a common space.

What makes round trips return although the models share nothing, beside chance: clustering takes
the prompts in one order, so that early prompts found regions in both; and both models read the
same words. Each is measured beside the estimate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import permutations
from typing import TYPE_CHECKING

import numpy as np

from exemplars.analyses import rounds
from exemplars.analyses.prompts import PromptRows, partitions, read_prompts, stream_order
from exemplars.analyses.rounds import Bools, PromptRegions
from exemplars.analyses.wording import sized, wordings
from exemplars.geometry import Float32, Float64, Int64
from exemplars.tokenization import Tokenization, tokenize_prompts

if TYPE_CHECKING:
    from exemplars.analyses.labelled import OnStep
    from exemplars.models import Model

ALL = "all regions"
FEWEST = 8
"""Prompts of a class, at least."""
_WINDOW_TOKENS = 4096


@dataclass(frozen=True)
class LabelledPrompts:
    """Prompts with a class each; those of a class together."""

    prompts: tuple[str, ...]
    label: Int64
    """(P,) number of each prompt's class."""
    classes: tuple[str, ...]
    """Their names; one of them where there are no classes."""
    left_out: int = 0
    """Prompts left out so that the classes have equal size."""

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def subsets(self) -> tuple[str, ...]:
        """What of the regions is counted: those whose prompts are all of one class, and all."""
        if len(self.classes) == 1:
            return (ALL,)
        return (*(f"wholly {name}" for name in self.classes), ALL)


def balanced(
    texts: Mapping[str, Sequence[str]], most: int | None = None, seed: int = 0
) -> LabelledPrompts:
    """As many prompts of each class: of a larger one, some drawn at random.

    Args:
        texts: By the name of the class; each once.
        most: Of a class.
        seed: Of the draw.

    Raises:
        ValueError: A class has too few prompts, or a prompt is in two classes.
    """
    seen: dict[str, str] = {}
    for name, several in texts.items():
        for text in several:
            if seen.setdefault(text, name) != name:
                raise ValueError(
                    f"the prompt {text[:40]!r} is in both {seen[text]} and {name}; give it once"
                )
    unique = {name: list(dict.fromkeys(several)) for name, several in texts.items()}
    n = min(map(len, unique.values()), default=0)
    n = n if most is None else min(n, most)
    if n < FEWEST:
        raise ValueError(f"a class has {n} prompts, expected at least {FEWEST}; give more")
    rng = np.random.default_rng([seed, 0xBA])
    chosen = [
        [several[i] for i in np.sort(rng.permutation(len(several))[:n])]
        for several in unique.values()
    ]
    return LabelledPrompts(
        tuple(text for several in chosen for text in several),
        np.repeat(np.arange(len(chosen)), n),
        tuple(unique),
        sum(map(len, unique.values())) - n * len(chosen),
    )


@dataclass(frozen=True, eq=False)
class FinalVectors:
    """What one model does at the final position of each prompt."""

    model: str
    sites: tuple[str, ...]
    vectors: tuple[Float32, ...]
    """(P, D) raw, of each site."""
    embeddings: Float32
    """(P, E) mean of the token embeddings of each prompt, without template and special tokens."""
    chat: bool
    """Whether prompts were put through the chat template."""


def read_final(
    model: Model,
    prompts: Sequence[str],
    sites: Sequence[str] | None = None,
    chat: bool | None = None,
    on_step: OnStep | None = None,
) -> FinalVectors:
    """Read prompts at their final positions; only those rows are held.

    Args:
        model: From `load_model`.
        prompts: Texts.
        sites: Default: the residual stream after every layer.
        chat: Put prompts through the chat template; None: if the model has one.
        on_step: Told how many prompts were read.

    Raises:
        ValueError: A prompt has no row or is too long, or there is no such site.
        SourceError: A chat template is asked for where there is none.
    """
    if sites is None:
        sites = [f"resid_post.{layer}" for layer in range(model.n_layers)]
    if chat is None:
        chat = bool(getattr(model.tokenizer, "chat_template", None))
    tokenization = Tokenization(chat=chat, rows="final")
    names = tuple(model.site(site).name for site in sites)
    read = read_prompts(model, names, prompts, tokenization, on_step, _WINDOW_TOKENS)
    vectors = tuple(read[name].vectors for name in names)
    return FinalVectors(model.name, names, vectors, _mean_embeddings(model, prompts), chat)


def _mean_embeddings(model: Model, prompts: Sequence[str]) -> Float32:
    import torch

    table = model.module.get_input_embeddings().weight
    asked = tokenize_prompts(prompts, model.tokenizer, chat=False)
    special = set(getattr(model.tokenizer, "all_special_ids", ()))
    found = []
    with torch.no_grad():
        for prompt in asked:
            ids = [i for i in prompt.ids.tolist() if i not in special] or prompt.ids.tolist()
            rows = table[torch.tensor(ids, device=table.device)]
            found.append(rows.float().mean(dim=0).cpu().numpy())
    return np.stack(found).astype(np.float32)


def regions_of(
    found: FinalVectors, prompts: Sequence[str], percentile: float, seeds: Sequence[int]
) -> list[tuple[PromptRegions, ...]]:
    """For each order of the prompts, a partition at each site.

    Orders share the calibration, which is of all prompts. Once an order has been clustered every
    prompt is assigned to the nearest exemplar of the finished partition.
    """
    by_site = []
    for site, vectors in zip(found.sites, found.vectors, strict=True):
        rows = PromptRows(site, tuple(prompts), vectors, np.arange(len(prompts)))
        several = []
        for seed, made in zip(seeds, partitions(rows, percentile, seeds), strict=True):
            exemplar = stream_order(len(prompts), seed)[made.exemplar_rows]
            several.append(PromptRegions(site, made.assign(vectors)[0], exemplar))
        by_site.append(several)
    return [tuple(several[k] for several in by_site) for k in range(len(seeds))]


@dataclass(frozen=True, eq=False)
class TripGrid:
    """Round trips from one model through another: the share that returns, over layer pairs.

    Rows are layers of the model they start in, columns layers of the other. NaN where there are no
    regions to start from. A mean over the grid leaves NaN out.
    """

    start: str
    through: str
    subset: str
    """Regions that trips start from: "all regions", or those whose prompts are all of a class."""
    n_regions: Float64
    """(A,) that they are, a mean over orders."""
    estimate: Float64
    """(A, B) share that returns, both models' prompts in one order; a mean over orders."""
    by_order: Float64
    """(S,) the grid's mean in each order."""
    chance: Float64
    """(A, B) exact expectation if prompts were matched at random between the models."""
    chance_in_class: Float64
    """(A, B) likewise, prompts matched within their class."""
    p_values: Float64
    """(A, B) against random matching, corrected over the grid; in the first order."""
    p_grid: float
    """Of the grid's mean, likewise."""
    p_grid_in_class: float
    same_order: Float64
    """(A, B) null: prompts matched by their place in two unlike orders. All that is shared is that
    early prompts found regions."""
    other_order: Float64
    """(A, B) share that returns where each model has the prompts in an order of its own."""
    texts: Mapping[str, Float64]
    """By wording, (A, B): a partition of the texts in the other model's place, with as many
    regions as its layer has."""
    texts_by_order: Mapping[str, Float64]
    """By wording, (S,)."""
    itself_other_order: Float64
    """(A,) through the same layer of the same model, in another order: what order alone costs."""
    itself_other_layers: Float64
    """(A, A) through another layer of the same model, in one order; NaN on the diagonal."""

    @cached_property
    def mean(self) -> float:
        """Of the grid."""
        return grid_mean(self.estimate)

    @property
    def best_text(self) -> str:
        """The wording that returns most."""
        return max(self.texts, key=lambda name: grid_mean(self.texts[name]))

    @property
    def share_above_text(self) -> float:
        """Of layer pairs: in how many more returns than by any wording."""
        best = np.max(np.stack(list(self.texts.values())), axis=0)
        usable = np.isfinite(self.estimate) & np.isfinite(best)
        return float((self.estimate > best)[usable].mean()) if usable.any() else float("nan")


@dataclass(frozen=True, eq=False)
class FamilyComparison:
    """Two models on the same prompts."""

    models: tuple[str, str]
    sites: tuple[tuple[str, ...], tuple[str, ...]]
    chat: tuple[bool, bool]
    prompts: LabelledPrompts
    percentile: float
    seeds: tuple[int, ...]
    draws: int
    n_regions: tuple[Float64, Float64]
    """Of each model, (L,) regions at each site, a mean over orders."""
    grids: tuple[TripGrid, ...]
    """Both ways, for each subset of the regions; the first is the headline."""
    rand: Float64
    """(A, B) adjusted Rand index of the partitions: do the same prompts lie together? 0 by chance,
    1 where they are one partition. In one order; a mean over orders."""
    rand_other_order: Float64
    """(A, B) likewise, in two orders."""
    rand_texts: Mapping[str, Float64]
    """By wording in the second model's place, (A, B)."""
    rand_classes: tuple[Float64, Float64]
    """(L,) of each model, with the partition into classes; NaN without classes."""

    def grid(self, subset: str, start: str | int = 0) -> TripGrid:
        """One of `grids`, by its subset and the number of the model it starts in.

        Raises:
            ValueError: There is none.
        """
        n = len(self.prompts.subsets)
        if subset not in self.prompts.subsets or start not in (0, 1):
            raise ValueError(
                f"no round trips are of {subset!r} from model {start}; subsets are "
                f"{', '.join(self.prompts.subsets)}, models 0 and 1"
            )
        return self.grids[int(start) * n + self.prompts.subsets.index(subset)]


def grid_mean(values: Float64) -> float:
    """Of the cells that are not NaN; NaN where none is left."""
    kept = values[np.isfinite(values)]
    return float(kept.mean()) if len(kept) else float("nan")


def compare_families(
    one: FinalVectors,
    two: FinalVectors,
    prompts: LabelledPrompts,
    *,
    percentile: float = 12.0,
    seeds: int = 3,
    draws: int = 999,
    seed: int = 1,
    on_step: OnStep | None = None,
) -> FamilyComparison:
    """Compare two models by which prompts represent their regions, over all pairs of layers.

    Args:
        one: From `read_final`, of the prompts in their order.
        two: Likewise.
        prompts: With their classes.
        percentile: Of the partitions.
        seeds: Orders of the prompts, 2 or more.
        draws: Random matchings behind the p-values.
        seed: Of the first order, and of the matchings.
        on_step: Told how far it is.

    Raises:
        ValueError: Another number of prompts than vectors, too few orders, or prompts that have
            no wording in common.
    """
    if seeds < 2:
        raise ValueError(f"seeds is {seeds}, expected 2 or more; orders are compared")
    for found in (one, two):
        if any(len(vectors) != len(prompts) for vectors in found.vectors):
            raise ValueError(f"{found.model} read other prompts than these {len(prompts)}")
    numbers = tuple(range(seed, seed + seeds))
    told = on_step or (lambda what, done, total: None)
    told("partitions", 0, 2)
    made = []
    for k, found in enumerate((one, two)):
        made.append(regions_of(found, prompts.prompts, percentile, numbers))
        told("partitions", k + 1, 2)
    texts = [_text_regions(made[k], prompts, found, numbers) for k, found in enumerate((one, two))]
    names = (one.model, two.model)
    grids: list[TripGrid] = []
    told("round trips", 0, 2)
    for start in (0, 1):
        setting = _Setting(
            names[start], names[1 - start], made[start], made[1 - start], texts[1 - start],
            prompts, numbers, draws,
        )  # fmt: skip
        grids += setting.grids()
        told("round trips", start + 1, 2)
    classes = PromptRegions(
        "classes", prompts.label, np.unique(prompts.label, return_index=True)[1]
    )
    several = len(prompts.classes) > 1
    return FamilyComparison(
        models=names,
        sites=(one.sites, two.sites),
        chat=(one.chat, two.chat),
        prompts=prompts,
        percentile=percentile,
        seeds=numbers,
        draws=draws,
        n_regions=(_mean_sizes(made[0]), _mean_sizes(made[1])),
        grids=tuple(grids),
        rand=_over_pairs(_rand, made[0], made[1], same=True),
        rand_other_order=_over_pairs(_rand, made[0], made[1], same=False),
        rand_texts={
            name: _over_pairs(_rand, made[0], found, same=True) for name, found in texts[1].items()
        },
        rand_classes=tuple(
            _over_pairs(_rand, m, [(classes,)] * seeds, same=True)[:, 0]
            if several
            else np.full(len(m[0]), np.nan)
            for m in made
        ),  # type: ignore[arg-type]
    )


_Orders = Sequence[Sequence[PromptRegions]]
"""For each order, a partition at each site."""


def _text_regions(
    made: _Orders, prompts: LabelledPrompts, found: FinalVectors, seeds: Sequence[int]
) -> dict[str, list[tuple[PromptRegions, ...]]]:
    """By wording: what stands for a model's partitions, order by order."""
    ways = wordings(prompts.prompts, found.embeddings)
    return {
        name: [sized(way, layers, seed) for layers, seed in zip(made, seeds, strict=True)]
        for name, way in ways.items()
    }


def _mean_sizes(made: _Orders) -> Float64:
    return np.array([[len(found) for found in layers] for layers in made]).mean(axis=0)


def _over_pairs(
    measure: Callable[[PromptRegions, PromptRegions], float],
    ones: _Orders,
    twos: _Orders,
    same: bool,
) -> Float64:
    """(A, B) mean of a measure over pairs of orders: of one order twice, or of two."""
    n = len(ones)
    pairs = [(s, s) for s in range(n)] if same else list(permutations(range(n), 2))
    values = [[[measure(x, y) for y in twos[t]] for x in ones[s]] for s, t in pairs]
    return np.array(values).mean(axis=0)


def _rand(one: PromptRegions, other: PromptRegions) -> float:
    from sklearn.metrics import adjusted_rand_score

    return float(adjusted_rand_score(one.region, other.region))


@dataclass(frozen=True, eq=False)
class _Setting:
    """Trips from one model's partitions through another's, and through what stands for them."""

    start: str
    through: str
    ones: _Orders
    others: _Orders
    texts: Mapping[str, _Orders]
    prompts: LabelledPrompts
    seeds: tuple[int, ...]
    draws: int

    @cached_property
    def groups(self) -> list[list[Bools]]:
        """For each order and site, (G, K) which regions are in each subset."""
        return [[self._groups(found) for found in layers] for layers in self.ones]

    def _groups(self, found: PromptRegions) -> Bools:
        every = np.ones((1, len(found)), np.bool_)
        if len(self.prompts.classes) == 1:
            return every
        sizes = found.sizes(self.prompts.label)
        return np.concatenate([(sizes == sizes.sum(axis=1, keepdims=True)).T, every])

    def shares(
        self,
        value: Callable[[PromptRegions, PromptRegions], Float64 | Bools],
        others: _Orders,
        pairs: Sequence[tuple[int, int]],
    ) -> Float64:
        """(pairs, G, A, B) mean of a value over each subset's regions; NaN where it has none.

        Args:
            value: Of each region, (K,).
            others: Partitions that trips lead through.
            pairs: Of an order of `ones` with an order of `others`.
        """
        n_groups = len(self.prompts.subsets)
        found = np.full((len(pairs), n_groups, len(self.ones[0]), len(others[0])), np.nan)
        for p, (s, t) in enumerate(pairs):
            for a, one in enumerate(self.ones[s]):
                values = np.stack([np.asarray(value(one, o), np.float64) for o in others[t]])
                for g, group in enumerate(self.groups[s][a]):
                    if group.any():
                        found[p, g, a] = values[:, group].mean(axis=1)
        return found

    def grids(self) -> list[TripGrid]:
        """One for each subset."""
        n = len(self.seeds)
        same, unlike = [(s, s) for s in range(n)], list(permutations(range(n), 2))
        estimate = self.shares(rounds.returns, self.others, same)
        anyone, label = np.zeros_like(self.prompts.label), self.prompts.label
        chance, in_class = (
            self.shares(_chance(strata), self.others, same) for strata in (anyone, label)
        )
        p_any = self._p_values(anyone, estimate[0], chance[0])
        several = len(self.prompts.classes) > 1
        p_class = self._p_values(label, estimate[0], in_class[0]) if several else p_any
        other_order = self.shares(rounds.returns, self.others, unlike)
        same_order = np.stack([self._by_place(pair) for pair in unlike])
        texts = {
            name: self.shares(rounds.returns, found, same) for name, found in self.texts.items()
        }
        layers = self.shares(rounds.returns, self.ones, same)
        orders = np.diagonal(self.shares(rounds.returns, self.ones, unlike), axis1=2, axis2=3)
        layers[..., np.arange(layers.shape[2]), np.arange(layers.shape[2])] = np.nan
        sizes = np.array([[group.sum(axis=1) for group in groups] for groups in self.groups])
        return [
            TripGrid(
                start=self.start,
                through=self.through,
                subset=subset,
                n_regions=sizes[:, :, g].mean(axis=0),
                estimate=_mean(estimate[:, g]),
                by_order=np.array([grid_mean(found) for found in estimate[:, g]]),
                chance=_mean(chance[:, g]),
                chance_in_class=_mean(in_class[:, g]),
                p_values=p_any[g][0],
                p_grid=p_any[g][1],
                p_grid_in_class=p_class[g][1],
                same_order=_mean(same_order[:, g]),
                other_order=_mean(other_order[:, g]),
                texts={name: _mean(found[:, g]) for name, found in texts.items()},
                texts_by_order={
                    name: np.array([grid_mean(one) for one in found[:, g]])
                    for name, found in texts.items()
                },
                itself_other_order=_mean(orders[:, g]),
                itself_other_layers=_mean(layers[:, g]),
            )
            for g, subset in enumerate(self.prompts.subsets)
        ]

    def _p_values(
        self, strata: Int64, estimate: Float64, chance: Float64
    ) -> list[tuple[Float64, float]]:
        """Of each subset, in the first order."""
        counts = rounds.permuted_counts(
            self.ones[0], self.others[0], self.groups[0], strata, self.draws, self.seeds[0]
        )
        sizes = np.array([group.sum(axis=1) for group in self.groups[0]])  # (A, G)
        shares = counts / np.maximum(sizes.T[None, :, :, None], 1)
        return [
            rounds.corrected_p_values(
                np.nan_to_num(estimate[g]), shares[:, g], np.nan_to_num(chance[g])
            )
            for g in range(len(estimate))
        ]

    def _by_place(self, pair: tuple[int, int]) -> Float64:
        """(G, A, B) returns where prompts of two orders are matched by their place in them."""
        s, t = pair
        n = len(self.prompts)
        number = np.empty(n, np.int64)
        number[stream_order(n, self.seeds[t])] = stream_order(n, self.seeds[s])
        moved = [found.renumbered(number) for found in self.others[t]]
        found: Float64 = self.shares(rounds.returns, [moved], [(s, 0)])[0]
        return found


def _chance(strata: Int64) -> Callable[[PromptRegions, PromptRegions], Float64]:
    return lambda one, other: rounds.chance_of_return(one, other, strata)


def _mean(values: Float64) -> Float64:
    """Over the first axis, NaN left out; NaN where nothing is left."""
    kept = np.isfinite(values)
    total = np.where(kept, values, 0.0).sum(axis=0)
    n = kept.sum(axis=0)
    found: Float64 = np.where(n > 0, total / np.maximum(n, 1), np.nan)
    return found
