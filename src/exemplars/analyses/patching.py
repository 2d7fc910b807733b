"""Does a region carry what a token means? Patch one prompt's token with another prompt's region.

Items are cloze prompts of a category ("The capital of France is"), each with a fill word and one
answer. In prompt A the vector at the last token of the fill word gets the direction of the region
that B's is in, at its own distance from the center; then the model goes on. Beside it stand A's own
region, a random one, and B's own vector, which bounds what patching this token can do.

The experiment is of Rumbelow 2026 (arXiv:2605.14347, activation patching); the items are ours.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.analyses.detection import Interval, interval
from exemplars.analyses.labelled import OnStep, quoted
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary
from exemplars.errors import SourceError
from exemplars.geometry import Float32, Float64, Int64
from exemplars.intervene import Edit, edited
from exemplars.labels.detection import wilson
from exemplars.models import Model, evaluating
from exemplars.tokenization import Tokenization, tokenize_prompts

UNPATCHED, OWN, RANDOM = "unpatched", "A's own region", "random region"
REGION, EXACT = "B's region", "B's own vector"
CONDITIONS = (UNPATCHED, OWN, RANDOM, REGION, EXACT)
NO_FILL, NO_ROW = "fill not in the prompt", "no row at the fill word"
NO_TARGET, SHARED_TARGET = "target not a token of its own", "target begins as another's"
RESAMPLES = 1000

_TEMPLATES = {
    "capitals": "The capital of {} is the city of",
    "languages": "The language that most people speak in {} is",
    "colours": "The usual color of {} is",
    "months": "The month that comes right after {} is",
    "days": "The day that comes right after {} is",
}
_FILLS = {
    "capitals": (
        "France Paris, Germany Berlin, Italy Rome, Spain Madrid, Japan Tokyo, China Beijing, "
        "Russia Moscow, Egypt Cairo, Greece Athens, England London, Austria Vienna, Cuba Havana, "
        "Ireland Dublin, Portugal Lisbon, Poland Warsaw, Norway Oslo, Peru Lima, Kenya Nairobi, "
        "Thailand Bangkok, Hungary Budapest"
    ),
    "languages": (
        "Japan Japanese, France French, Germany German, Italy Italian, China Chinese, "
        "Russia Russian, Brazil Portuguese, Mexico Spanish, Poland Polish, Turkey Turkish, "
        "Greece Greek, Sweden Swedish, Vietnam Vietnamese, Hungary Hungarian, Iceland Icelandic"
    ),
    "colours": (
        "snow white, grass green, bananas yellow, coal black, blood red, carrots orange, "
        "chocolate brown, flamingos pink, elephants gray, eggplants purple, sapphires blue, "
        "sand beige"
    ),
    "months": (
        "January February, February March, March April, April May, May June, June July, "
        "July August, August September, September October, October November, November December"
    ),
    "days": (
        "Monday Tuesday, Tuesday Wednesday, Wednesday Thursday, Thursday Friday, "
        "Friday Saturday, Saturday Sunday, Sunday Monday"
    ),
}


@dataclass(frozen=True)
class Cloze:
    """A prompt that has one answer, and the word in it that decides which."""

    category: str
    prompt: str
    fill: str
    """A word of the prompt; of several places the last one."""
    target: str
    """What comes next, after a space."""


ITEMS: tuple[Cloze, ...] = tuple(
    Cloze(category, _TEMPLATES[category].format(fill), fill, target)
    for category, listed in _FILLS.items()
    for fill, target in (pair.split() for pair in listed.split(", "))
)
"""The built-in items: capitals (20), languages (15), colours (12), months (11), days (7)."""
CATEGORIES = tuple(_TEMPLATES)


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a condition does at the final position of A, for each of P pairs."""

    flips: NDArray[np.bool_]
    """(P,) whether the likeliest token is the first of B's target."""
    shifts: Float64
    """(P,) logit of B's target less that of A's, less the same without a patch."""
    divergences: Float64
    """(P,) KL(patched A ‖ unpatched B) of the next token, in nats."""


@dataclass(frozen=True)
class Effect:
    """Of a condition, over some of the pairs, with 95% intervals."""

    n: int
    flip: Interval
    """Share of flips; Wilson's interval, which takes pairs as independent."""
    shift: Interval
    """Mean; intervals of means are of a bootstrap over the prompts A."""
    kl: Interval


@dataclass(frozen=True, eq=False)
class PatchingReport:
    """Every condition on every pair, and the items they are of."""

    items: tuple[Cloze, ...]
    """Those that could be used."""
    regions: Int64
    """(n,) of each item's fill token."""
    known: NDArray[np.bool_]
    """(n,) whether the unpatched model's likeliest token begins the target."""
    pairs: Int64
    """(P, 2) numbers of the items A and B."""
    possible: int
    """Pairs that there were to draw from."""
    same_region: int
    """Ordered pairs of one category left out, as both fill tokens are in one region."""
    outcomes: Mapping[str, Outcome]
    """By condition."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Items left out, by reason."""
    about: Mapping[str, Any] = field(default_factory=dict)

    @property
    def categories(self) -> list[str]:
        """In the order of the items."""
        return list(dict.fromkeys(item.category for item in self.items))

    def of(self, category: str | None) -> NDArray[np.bool_]:
        """(P,) the pairs of a category; all for None."""
        names = np.array([item.category for item in self.items])[self.pairs[:, 0]]
        return np.ones(len(names), bool) if category is None else names == category

    def effect(self, condition: str, category: str | None = None) -> Effect | None:
        """Of a condition, in a category or over all; None without a pair."""
        chosen = self.of(category)
        n = int(chosen.sum())
        if not n:
            return None
        found, a = self.outcomes[condition], self.pairs[chosen, 0]
        return Effect(
            n,
            Interval(*wilson(int(found.flips[chosen].sum()), n)),
            _clustered(found.shifts[chosen], a),
            _clustered(found.divergences[chosen], a),
        )

    def more_flips(self, condition: str, other: str, category: str | None = None) -> Interval:
        """Share of flips less that of another condition, pairs paired, bootstrap over prompts A."""
        chosen = self.of(category)
        one, two = (self.outcomes[name].flips[chosen].astype(float) for name in (condition, other))
        return _clustered(one - two, self.pairs[chosen, 0])


@dataclass(frozen=True, eq=False)
class _Read:
    """An item as the model reads it."""

    item: Cloze
    ids: Int64
    fill: int
    """Position of the fill word's last token."""
    target: int
    """The first token of the target."""
    vector: Float32
    region: int


def patch_pairs(
    model: Model,
    dictionary: Dictionary,
    items: Sequence[Cloze] = ITEMS,
    *,
    pairs: int = 400,
    basis: str = "mean",
    batch_size: int = 16,
    seed: int = 0,
    on_step: OnStep | None = None,
) -> PatchingReport:
    """Patch fill tokens with the regions of others of their category.

    Args:
        model: From `load_model`.
        dictionary: Of the model, of one vector a token; at least 3 regions.
        items: Those whose target's first token another item of the category has are left out, and
            counted, as are those whose fill word cannot be found.
        pairs: At most so many ordered pairs (A, B) of one category and different regions.
        basis: "mean" or "exemplar": the direction of a region.
        batch_size: Pairs in a pass.
        seed: Of the pairs and of the random regions.
        on_step: Told how many passes are done.

    Raises:
        ValueError: No pair is left, or an argument is out of range.
    """
    if pairs < 1 or batch_size < 1:
        raise ValueError(
            f"pairs and batch_size are {pairs} and {batch_size}, expected positive numbers"
        )
    usable = np.flatnonzero(np.isfinite(dictionary.basis(basis)).all(axis=1))
    if len(usable) < 3:
        raise ValueError(
            f"{len(usable)} regions have a {basis} direction, expected at least 3: two to tell "
            "apart and a random one"
        )
    read, dropped = _readings(model, dictionary, items)
    random = np.random.default_rng([seed, 0xBA7C])
    chosen, possible, same = _pairs(read, pairs, random)
    if not len(chosen):
        counted = "".join(f"; {n} items: {reason}" for reason, n in dropped.items())
        raise ValueError(
            f"no two items of a category are in different regions{counted}; give other items, or a "
            "dictionary of a smaller percentile"
        )
    drawn = [_other_region(usable, (read[a].region, read[b].region), random) for a, b in chosen]
    patching = _Patching(model, dictionary, read, basis, batch_size, on_step, len(chosen))
    outcomes = patching.outcomes(chosen, drawn)
    about = {
        "site": dictionary.site, "basis": basis, "pairs_asked": pairs, "seed": seed,
        "n_regions": len(dictionary), "percentile": dictionary.percentile, "model": model.name,
    }  # fmt: skip
    return PatchingReport(
        tuple(r.item for r in read), np.array([r.region for r in read], np.int64),
        patching.known, chosen, possible, same, outcomes, dropped, about,
    )  # fmt: skip


def read_items(path: str | Path) -> tuple[Cloze, ...]:
    """Items of a JSON Lines file: objects with category, prompt, fill and target.

    Raises:
        SourceError: There is no such file, or a line is something else.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise SourceError(f"the items in {path} cannot be read ({error}); give a file") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            said = json.loads(line)
            values = [said[name] for name in ("category", "prompt", "fill", "target")]
        except (ValueError, KeyError, TypeError):
            values = []
        if not values or not all(isinstance(v, str) and v.strip() for v in values):
            raise SourceError(
                f"line {number} of {path} is no item; write an object with category, prompt, fill "
                "and target, all texts"
            )
        found.append(Cloze(values[0], values[1].rstrip(), values[2], values[3].strip()))
    if not found:
        raise SourceError(f"{path} holds no items; give one on each line")
    return tuple(found)


def _readings(
    model: Model, dictionary: Dictionary, items: Sequence[Cloze]
) -> tuple[list[_Read], dict[str, int]]:
    """The items that can be used, and how many cannot, by reason."""
    if dictionary.site is None:
        raise ValueError("the dictionary does not say which site it is of; build it with a model")
    if not items:
        raise ValueError("no item was given; give some")
    dropped: Counter[str] = Counter()
    asked = tokenize_prompts([item.prompt for item in items], model.tokenizer, chat=False)
    whole = tokenize_prompts(
        [f"{item.prompt} {item.target}" for item in items], model.tokenizer, chat=False
    )
    places = _fill_rows(model, dictionary.site, items)
    found, taken = [], set()
    for i, item in enumerate(items):
        n, place = len(asked[i].ids), places[i]
        own = len(whole[i].ids) > n and np.array_equal(whole[i].ids[:n], asked[i].ids)
        reason = (
            NO_FILL if item.fill not in item.prompt
            else NO_ROW if place is None
            else NO_TARGET if not own
            else SHARED_TARGET if (item.category, int(whole[i].ids[n])) in taken
            else None
        )  # fmt: skip
        if reason is not None or place is None:
            dropped[reason or NO_ROW] += 1
            continue
        token = int(whole[i].ids[n])
        taken.add((item.category, token))
        region = int(dictionary.assign(place[1][None])[0][0])
        found.append(_Read(item, asked[i].ids, place[0], token, place[1], region))
    kept = [r for r in found if r.region >= 0]
    if len(kept) < len(found):
        dropped[NO_ROW] += len(found) - len(kept)
    return kept, dict(dropped)


def _fill_rows(model: Model, site: str, items: Sequence[Cloze]) -> list[tuple[int, Float32] | None]:
    """Of each item, the position and the vector of its fill word's last token; None without."""
    longest = min(model.max_positions or 1 << 20, 1 << 20)
    whole = Tokenization(context_length=longest, long_documents="truncate")
    texts = corpora.texts([item.prompt for item in items])
    found: list[tuple[int, Float32] | None] = [None] * len(items)
    for (batch,) in read_activations(model, [site], texts, whole):
        vectors = as_vectors(batch.vectors)
        for i in dict.fromkeys(batch.document.tolist()):
            item = items[i]
            begin = item.prompt.rfind(item.fill)
            end = begin + len(item.fill)
            mine = np.flatnonzero((batch.document == i) & (batch.start < end) & (batch.end > begin))
            if begin >= 0 and len(mine):
                last = mine[np.argmax(batch.position[mine])]
                found[i] = int(batch.position[last]), vectors[last]
    return found


def _pairs(read: Sequence[_Read], most: int, random: np.random.Generator) -> tuple[Int64, int, int]:
    """(P, 2) drawn pairs in order, how many there were, and how many were of one region."""
    ordered = [
        (a, b)
        for a, one in enumerate(read)
        for b, two in enumerate(read)
        if a != b and one.item.category == two.item.category
    ]
    able = [(a, b) for a, b in ordered if read[a].region != read[b].region]
    chosen = np.sort(random.permutation(len(able))[:most])
    rows = np.array([able[i] for i in chosen], np.int64).reshape(-1, 2)
    return rows, len(able), len(ordered) - len(able)


def _other_region(usable: Int64, not_these: Sequence[int], random: np.random.Generator) -> int:
    return int(random.choice(np.setdiff1d(usable, not_these)))


class _Patching:
    """Passes over prompts with one token of each patched."""

    def __init__(
        self,
        model: Model,
        dictionary: Dictionary,
        read: Sequence[_Read],
        basis: str,
        batch_size: int,
        on_step: OnStep | None,
        n_pairs: int,
    ) -> None:
        self.model, self.dictionary, self.read = model, dictionary, read
        self.batch_size, self.on_step = batch_size, on_step
        rows = dictionary.basis(basis)
        there: Any = np.isfinite(rows).all(axis=1, keepdims=True)
        # A region without members has no mean; its exemplar stands for it.
        self.directions = np.where(there, rows, dictionary.exemplars)
        self.done = 0
        self.total = -(-len(read) // batch_size) + 4 * -(-n_pairs // batch_size)
        every = [(r, None) for r in read]
        self.plain = np.concatenate(list(self._passes(every))).astype(np.float32)
        """(n, V) log-probabilities of the unpatched items' next tokens."""
        targets = np.array([r.target for r in read])
        self.known: NDArray[np.bool_] = self.plain.argmax(axis=1) == targets

    def outcomes(self, pairs: Int64, drawn: Sequence[int]) -> dict[str, Outcome]:
        """Of every condition; `drawn` are the pairs' random regions."""
        plain = [self._measures(self.plain[a], a, b) for a, b in pairs]
        found = {UNPATCHED: _outcome(plain)}
        regions = {
            OWN: [self.read[a].region for a, _ in pairs],
            RANDOM: drawn,
            REGION: [self.read[b].region for _, b in pairs],
        }
        for condition in CONDITIONS[1:]:
            work = [
                (self.read[a], self.read[b].vector - self.read[a].vector)
                if condition == EXACT
                else (self.read[a], regions[condition][i])
                for i, (a, b) in enumerate(pairs)
            ]
            rows = (row for part in self._passes(work) for row in part)
            measured = [self._measures(row, a, b) for row, (a, b) in zip(rows, pairs, strict=True)]
            found[condition] = _outcome(measured)
        return found

    def _passes(self, work: Sequence[tuple[_Read, Any]]) -> Iterator[Float64]:
        """(B, V) log-probabilities at the final positions, batch by batch."""
        for start in range(0, len(work), self.batch_size):
            yield self._pass(work[start : start + self.batch_size])
            self.done += 1
            if self.on_step is not None:
                self.on_step("passes", self.done, self.total)

    def _pass(self, work: Sequence[tuple[_Read, Any]]) -> Float64:
        import torch

        width = max(len(r.ids) for r, _ in work)
        ids, attended = np.zeros((2, len(work), width), np.int64)
        edits = []
        for row, (r, change) in enumerate(work):
            ids[row, : len(r.ids)], attended[row, : len(r.ids)] = r.ids, 1
            if change is not None:
                mask = np.zeros(ids.shape, bool)
                mask[row, r.fill] = True
                edits.append(self._edit(change, mask))
        device = self.model.device
        with evaluating(self.model.module), torch.no_grad(), edited(self.model, edits):
            out = self.model.module(
                input_ids=torch.from_numpy(ids).to(device),
                attention_mask=torch.from_numpy(attended).to(device),
            )
            last = torch.tensor([len(r.ids) - 1 for r, _ in work], device=device)
            logits = out.logits[torch.arange(len(work), device=device), last]
            return np.asarray(torch.log_softmax(logits.double(), dim=-1).cpu().numpy())

    def _edit(self, change: Any, mask: NDArray[np.bool_]) -> Edit:
        """To a region's direction, or by what leads from A's vector to B's."""
        site = self.dictionary.site
        if isinstance(change, np.ndarray):
            length = float(np.linalg.norm(change.astype(np.float64)))
            if length == 0:
                return Edit.add(np.ones_like(change), 0.0, site=site, unit=1.0, positions=mask)
            return Edit.add(change, 1.0, site=site, unit=length, positions=mask)
        return Edit.patch(
            self.directions[change], site=site, center=self.dictionary.center, positions=mask
        )

    def _measures(self, row: NDArray[Any], a: int, b: int) -> tuple[bool, float, float]:
        """Flip, shift and divergence of log-probabilities (V,) at A's final position."""
        one, two = self.read[a].target, self.read[b].target
        before = float(self.plain[a, two]) - float(self.plain[a, one])
        p = row.astype(np.float64)
        q = self.plain[b].astype(np.float64)
        there = p > -np.inf
        kl = float(np.sum(np.exp(p[there]) * (p[there] - q[there])))
        return int(row.argmax()) == two, float(p[two] - p[one]) - before, kl


def _outcome(measured: Sequence[tuple[bool, float, float]]) -> Outcome:
    flips, shifts, divergences = zip(*measured, strict=True)
    return Outcome(np.array(flips, bool), np.array(shifts), np.array(divergences))


def _clustered(values: Float64, clusters: Int64) -> Interval:
    """The mean of values (n,), and its interval over resamples of whole clusters."""
    _, group = np.unique(clusters, return_inverse=True)
    sums, sizes = np.bincount(group, values), np.bincount(group)
    drawn = np.random.default_rng(0).integers(0, len(sums), (RESAMPLES, len(sums)))
    return interval(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1), float(values.mean()))


def items_of(categories: Sequence[str], items: Sequence[Cloze] = ITEMS) -> tuple[Cloze, ...]:
    """The items of these categories; of all if none is named.

    Raises:
        ValueError: There is no such category.
    """
    there = list(dict.fromkeys(item.category for item in items))
    for name in categories:
        if name not in there:
            raise ValueError(
                f"there is no category {quoted(name)}; choose {', '.join(map(quoted, there[:12]))}"
            )
    return tuple(item for item in items if not categories or item.category in categories)
