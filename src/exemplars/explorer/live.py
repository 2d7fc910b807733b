"""Text through a dictionary while one types, and answers while they are written.

Both are jobs of the one thread that runs models (`worker`): they say what they find as they find
it, and stop between tokens, or between parts of a text, when nobody listens any more.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars import corpora, store
from exemplars.activations import read_activations, window_activations
from exemplars.analyses.fluency import perplexity, token_log_probabilities
from exemplars.analyses.steering import answer_divergence
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.dictionary import Dictionary
from exemplars.explorer.offsets import utf16_offsets
from exemplars.explorer.prefixes import Prefixes, Reading, in_doubt
from exemplars.explorer.sphere import Sphere, on_sphere, projected, unit
from exemplars.explorer.views import finite
from exemplars.explorer.worker import Job
from exemplars.generation import stream
from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    canonical_similarity,
    cosine_distance,
    gemm_band,
    has_direction,
    to_directions,
    vector_norms,
)
from exemplars.intervene import Edit, edited
from exemplars.lens import token_texts
from exemplars.tokenization import (
    LocatedDocument,
    Tokenization,
    locate,
    token_windows,
    tokenize_prompts,
    window_of_ids,
)

if TYPE_CHECKING:
    from exemplars.models import Model

TEXT_TOKENS = 2048
NEW_TOKENS = 256
VARIANTS = 4
"""Beside the baseline."""
ITEMS = 8
"""Edits of a variant."""
MESSAGES = 40
LONGEST = 20_000
"""Characters of a text."""
OPERATIONS = {
    "add": "add", "ablate": "ablate", "project_out": "ablate", "cap": "cap", "patch": "patch",
}  # fmt: skip
_FIRST_TOKENS, _MORE_TOKENS = 16, 128
_CANDIDATES = 8
_BLOCK = 8192


@dataclass(frozen=True, eq=False)
class Run:
    """The tokens of a text that was traced, for slices through them."""

    slug: str
    directions: dict[int, Float32]
    """By the token's number in the text; tokens without a direction are left out."""
    texts: dict[int, str]


@dataclass(frozen=True)
class Steering:
    """What a reader asked the model to do."""

    content: Any
    """A text to go on from, or messages."""
    variants: tuple[tuple[str, tuple[Edit, ...], tuple[int, ...]], ...]
    """Name, edits, and the regions they are of."""
    max_new_tokens: int
    temperature: float
    seed: int


def sphere_points(sphere: Sphere, run: Run) -> list[dict[str, Any]]:
    """Where the tokens of a text lie on the projected sphere, as the exemplars do."""
    numbers = list(run.directions)
    if not numbers:
        return []
    directions = np.stack([run.directions[i] for i in numbers])
    points = on_sphere(projected(directions, sphere.axes[:3]), sphere.mean, sphere.axes)
    return [{"i": i, "y": y} for i, y in zip(numbers, points.tolist(), strict=True)]


def slice_points(basis: Float32, run: Run) -> list[dict[str, Any]]:
    """Where the tokens of a text point in a slice, and the length of that part of each direction.

    Args:
        basis: (3, D) orthonormal rows of the slice.
        run: The text.

    Returns:
        For each token its number, (3,) unit, and how much of the direction lies in the slice: 0 to
        1, its cosine with what is drawn.
    """
    numbers = list(run.directions)
    if not numbers:
        return []
    inside = projected(np.stack([run.directions[i] for i in numbers]), basis)
    lengths = np.linalg.norm(inside, axis=1)
    points = unit(inside)
    return [
        {"i": i, "text": run.texts.get(i, ""), "y": y, "within": within}
        for i, y, within in zip(numbers, points.tolist(), lengths.tolist(), strict=True)
    ]


def nearest_regions(dictionary: Dictionary, vectors: Float32, k: int) -> tuple[Int64, Float64]:
    """The k nearest regions of raw vectors, by canonical similarity.

    The nearest is exactly that of `Dictionary.assign`: candidates come from a matrix product, and
    where its rounding could hide a nearer one, `assign` decides. Those after it are the best of
    the candidates.

    Args:
        dictionary: Of at least one region.
        vectors: (N, D) raw.
        k: At most 8; as many as there are, if fewer.

    Returns:
        regions: (N, k) nearest first; -1 in a row without a direction.
        distances: (N, k) cosine distances; NaN likewise.
    """
    exemplars = dictionary.exemplars
    k = min(k, len(exemplars))
    m = min(_CANDIDATES, len(exemplars))
    regions = np.full((len(vectors), k), -1, np.int64)
    distances = np.full((len(vectors), k), np.nan)
    directions, norms = to_directions(vectors, dictionary.center)
    usable = np.flatnonzero(has_direction(norms, dictionary.center))
    if not len(usable):
        return regions, distances
    directions = directions[usable]
    candidates, screened = _candidates(directions, exemplars, m)
    pairs = np.repeat(np.arange(len(usable)), m)
    similarity = canonical_similarity(directions, exemplars, pairs, candidates.ravel())
    similarity = similarity.reshape(candidates.shape)
    order = np.lexsort((candidates, -similarity), axis=1)
    candidates = np.take_along_axis(candidates, order, axis=1)
    similarity = np.take_along_axis(similarity, order, axis=1)
    regions[usable] = candidates[:, :k]
    distances[usable] = cosine_distance(similarity[:, :k])
    if m < len(exemplars):
        open_ = screened.min(axis=1) + gemm_band(dictionary.width) >= similarity[:, 0]
        if open_.any():
            rows = usable[open_]
            first, distance = dictionary.assign(vectors[rows])
            regions[rows, 0], distances[rows, 0] = first, distance
    return regions, distances


def trace_text(
    dictionary: Dictionary,
    model: Model,
    content: Any,
    job: Job,
    slug: str,
    *,
    topk: int = 3,
    skip_special: bool = True,
    prefixes: Prefixes | None = None,
) -> Run:
    """Say the nearest regions of every token of a text, a part of the text at a time.

    What the text has in common with the one before is not computed again, where the model can go on
    from there: regions are those of a full run, and distances within `prefixes.TOLERANCE` of it.

    Args:
        dictionary: Built from text, with regions.
        model: The dictionary's.
        content: A text, or messages.
        job: Told "start", "tokens" and "end".
        slug: The dictionary's name in addresses.
        topk: Regions of each token, at most 7.
        skip_special: Say nothing of tokens that a build leaves out, but that they are there.
        prefixes: What is kept of the text before; None to read the text by itself.

    Returns:
        The tokens and their directions.

    Raises:
        MismatchError: Another model than the dictionary's.
        ValueError: The text is too long, or the dictionary names no site.
    """
    begun = time.perf_counter()
    tokenization, texts = _reading_of(dictionary, model, content)
    whole = replace(tokenization, keep_first=True, keep_prefix=True, rows="all")
    every = _located(texts, model, whole)
    ordinary = _located(texts, model, tokenization)
    n = 0 if every is None else len(every.token)
    if n > TEXT_TOKENS:
        raise ValueError(f"the text has {n:,} tokens, at most {TEXT_TOKENS:,} are read; shorten it")
    job.put(
        "start",
        run=job.id,
        n=n,
        exact=True,
        method="matrix product, decided canonically",
        text=every.text if every is not None else "",
    )
    directions: dict[int, Float32] = {}
    names: dict[int, str] = {}
    reused = 0
    ms = {"tokenise": 1000 * (time.perf_counter() - begun), "forward": 0.0, "assign": 0.0}
    if every is not None and n:
        kept = ordinary.position if ordinary is not None else np.empty(0, np.int64)
        rows = _Rows(dictionary, model, every, np.isin(every.position, kept), topk, skip_special)
        memory = prefixes if prefixes is not None else Prefixes()
        before = memory.begin(id(model), dictionary.site, slug, topk)
        for piece in _pieces(texts, model, whole):
            if job.cancel.is_set():
                break
            read = _read(dictionary, model, piece.ids, memory, before, max(topk, 2), ms)
            directions |= _say_rows(rows, piece, read, max(topk, 2), job, ms)
            memory.keep(read)
            reused += int(piece.rows[: read.same].sum())
        if job.cancel.is_set():  # the next text goes on from what this one did not come to
            for unread in before:
                memory.keep(unread)
        names = dict(enumerate(rows.names))
    if not job.cancel.is_set():
        job.put("end", ms=ms, reused=reused)
    return Run(slug, directions, names)


def trace_both(
    a: tuple[Dictionary, Model],
    b: tuple[Dictionary, Model],
    text: str,
    matched: Callable[[int, int], bool],
    job: Job,
) -> None:
    """Say the nearest regions of every token in two dictionaries, each with its own model.

    Args:
        a: One dictionary and its model; tokens are read as it reads them.
        b: The other.
        text: Of at most 2,048 tokens.
        matched: Whether a region of A and one of B are partners.
        job: Told "start", "tokens" and "end".

    Raises:
        MismatchError: Another model than a dictionary's.
        ValueError: The text is too long, or the two models cut it into other tokens.
    """
    begun = time.perf_counter()
    found = []
    located = None
    for dictionary, model in (a, b):
        tokenization, texts = _reading_of(dictionary, model, text)
        here = _located(texts, model, tokenization)
        if here is None or len(here.token) > TEXT_TOKENS:
            n = 0 if here is None else len(here.token)
            raise ValueError(f"the text has {n:,} tokens, expected 1 to {TEXT_TOKENS:,}")
        if located is not None and not np.array_equal(here.start, located.start):
            raise ValueError("the two models cut this text into different tokens")
        located = here
        if job.cancel.is_set():
            return
        read = read_activations(model, [str(dictionary.site)], texts, tokenization)
        vectors = np.concatenate([as_vectors(batch.vectors) for (batch,) in read])
        regions, distances = nearest_regions(dictionary, vectors, 1)
        found.append((regions[:, 0], distances[:, 0] / dictionary.threshold))
    assert located is not None
    job.put("start", run=job.id, n=len(located.token), text=located.text)
    starts, ends = (utf16_offsets(located.text, x) for x in (located.start, located.end))
    rows = [
        {
            "i": i,
            "start": int(starts[i]),
            "end": int(ends[i]),
            "text": located.text[located.start[i] : located.end[i]],
            **{
                side: {"region": int(regions[i]), "theta_ratio": finite(ratio[i])}
                for side, (regions, ratio) in zip("ab", found, strict=True)
            },
            "matched": matched(int(found[0][0][i]), int(found[1][0][i])),
        }
        for i in range(len(located.token))
    ]
    job.put("tokens", **{"from": 0}, rows=rows)
    job.put("end", ms={"all": 1000 * (time.perf_counter() - begun)})


def steer_text(dictionary: Dictionary, model: Model, asked: Steering, job: Job) -> None:
    """Say the baseline's answer and each variant's, token by token, and then how each did.

    Args:
        dictionary: The edits' own.
        model: The dictionary's.
        asked: What to do; `variants` without the baseline, which comes first.
        job: Told "start", "token", "scores", "end" and "done".

    Raises:
        MismatchError: Another model than the dictionary's.
        ValueError: The prompt does not fit the model.
    """
    begun = time.perf_counter()
    store.check_model(dictionary, model)
    chat = not isinstance(asked.content, str)
    (prompt,) = tokenize_prompts([asked.content], model.tokenizer, chat=chat)
    variants = (("baseline", (), ()), *asked.variants)
    job.put(
        "start",
        session=job.id,
        variants=[{"v": v, "name": name} for v, (name, _, _) in enumerate(variants)],
        seed=asked.seed,
        model=named(dictionary, model),
        norm=finite(dictionary.calibration.vector_norms[1]),
        prompt_tokens=len(prompt.ids),
    )
    for v, (_, edits, regions) in enumerate(variants):
        ids: list[int] = []
        texts: list[str] = []
        pieces = stream(
            model,
            asked.content,
            list(edits),
            chat=chat,
            max_new_tokens=asked.max_new_tokens,
            temperature=asked.temperature,
            seed=asked.seed,
            cancel=job.cancel,
        )
        for piece in pieces:
            job.put("token", v=v, i=len(ids), id=piece.token, text=piece.text)
            ids.append(piece.token)
            texts.append(piece.text)
        if job.cancel.is_set():
            job.put("end", v=v, reason="cancelled", text="".join(texts), stats=None)
            return
        answer = np.array(ids, np.int64)
        rows, stats = _scored(dictionary, model, prompt.ids, answer, edits, regions)
        job.put("scores", v=v, rows=rows)
        reason = "limit" if len(ids) >= asked.max_new_tokens else "finished"
        job.put("end", v=v, reason=reason, text="".join(texts), stats=stats)
    job.put("done", ms=1000 * (time.perf_counter() - begun))


def named(dictionary: Dictionary, model: Model) -> dict[str, Any]:
    """Which model something was read or written with, to be kept in files that others get.

    Its name is the one that the dictionary has for it, not where it lies on this machine.
    """
    about = dictionary.provenance.get("model")
    known = about if isinstance(about, Mapping) else {}
    return {
        "name": known.get("name") or type(model.module).__name__,
        "revision": known.get("revision") or model.revision,
        "site": dictionary.site,
        "dtype": str(model.dtype).removeprefix("torch."),
    }


def edits_of(
    dictionary: Dictionary, items: Sequence[Mapping[str, Any]]
) -> tuple[tuple[Edit, ...], tuple[int, ...]]:
    """Edits as the page asks for them, and their regions.

    Args:
        dictionary: Whose regions.
        items: With "region", "op" (of `OPERATIONS`), "strength" (in median norms; of "cap" the
            limit), and "positions".

    Raises:
        ValueError: An operation or positions that there are not, or a region without a direction.
    """
    if len(items) > ITEMS:
        raise ValueError(f"a variant has {len(items)} edits, at most {ITEMS} are made")
    edits, regions = [], []
    for item in items:
        name = OPERATIONS.get(str(item.get("op")))
        if name is None:
            raise ValueError(
                f"the operation {str(item.get('op'))[:40]!r} is not known; choose "
                f"{', '.join(OPERATIONS)}"
            )
        region = dictionary.region(int(item.get("region", -1)))
        if region.index != item.get("region"):
            raise ValueError(f"region {item.get('region')} does not exist")
        make: Callable[..., Edit] = getattr(Edit, name)
        strength = float(item.get("strength", 1.0))
        edits.append(make(region, strength, positions=str(item.get("positions", "edited"))))
        regions.append(region.index)
    return tuple(edits), tuple(regions)


def _candidates(directions: Float32, exemplars: Float32, m: int) -> tuple[Int64, Float32]:
    """(N, m) regions of the largest products, ascending, and the products."""
    best = np.empty((len(directions), 0), np.float32)
    regions = np.empty((len(directions), 0), np.int64)
    for start in range(0, len(exemplars), _BLOCK):
        product = directions @ exemplars[start : start + _BLOCK].T
        n = min(m, product.shape[1])
        some = np.argpartition(-product, n - 1, axis=1)[:, :n]
        best = np.concatenate([best, np.take_along_axis(product, some, axis=1)], axis=1)
        regions = np.concatenate([regions, some + start], axis=1)
        kept = np.argpartition(-best, min(m, best.shape[1]) - 1, axis=1)[:, :m]
        best = np.take_along_axis(best, kept, axis=1)
        regions = np.take_along_axis(regions, kept, axis=1)
    return regions, best


def _reading_of(
    dictionary: Dictionary, model: Model, content: Any
) -> tuple[Tokenization, corpora.Texts]:
    """How a text is read for a dictionary."""
    store.check_model(dictionary, model)
    if dictionary.site is None:
        raise ValueError("the dictionary does not say which site it is of, so no text can be read")
    if not len(dictionary):
        raise ValueError("the dictionary has no regions")
    tokenization = tokenization_of(dictionary)
    if not isinstance(content, str):
        tokenization = replace(tokenization, chat=True)
    return tokenization, corpora.texts([content])


def _located(
    texts: corpora.Texts, model: Model, tokenization: Tokenization
) -> LocatedDocument | None:
    return next(iter(locate(texts, model.tokenizer, tokenization, [0])), None)


class _Rows:
    """What is said of the tokens of a text."""

    def __init__(
        self,
        dictionary: Dictionary,
        model: Model,
        every: LocatedDocument,
        ordinary: NDArray[np.bool_],
        topk: int,
        skip_special: bool,
    ) -> None:
        self.dictionary, self.topk, self.skip_special = dictionary, topk, skip_special
        self.every, self.ordinary = every, ordinary
        self.start = utf16_offsets(every.text, every.start)
        self.end = utf16_offsets(every.text, every.end)
        self.names = token_texts(model.tokenizer, every.token.tolist())
        limit = dictionary.calibration.norm_limit
        self.norm_limit = np.inf if limit is None else limit

    def line(self, i: int, regions: Int64, distances: Float64, norm: float) -> dict[str, Any]:
        """One token; without its regions where it is special and those are not asked for."""
        start, end = int(self.every.start[i]), int(self.every.end[i])
        special = not bool(self.ordinary[i])
        found: dict[str, Any] = {
            "i": i,
            "id": int(self.every.token[i]),
            "start": int(self.start[i]),
            "end": int(self.end[i]),
            "text": self.every.text[start:end] if end > start else self.names[i],
            "special": special,
            "region": None,
            "distance": None,
            "theta_ratio": None,
            "margin": None,
            "norm": finite(norm),
            "outlier": bool(norm > self.norm_limit),
            "top": [],
        }
        if regions[0] < 0 or (special and self.skip_special):
            return found
        nearest = float(distances[0])
        return found | {
            "region": int(regions[0]),
            "distance": nearest,
            "theta_ratio": nearest / self.dictionary.threshold,
            "margin": float(distances[1]) - nearest if len(distances) > 1 else None,
            "top": [[int(k), float(d)] for k, d in zip(regions, distances, strict=True)][
                : self.topk
            ],
        }


@dataclass(frozen=True)
class _Piece:
    """What the model attends to at once."""

    ids: Int64
    rows: NDArray[np.bool_]
    """(n,) which of its tokens are of the text: all but a BOS that is repeated."""
    position: Int64
    """(n,) in the tokens of the text."""


def _pieces(texts: corpora.Texts, model: Model, tokenization: Tokenization) -> list[_Piece]:
    """The pieces of a text, in order, each by itself."""
    alone = replace(tokenization, packing="none")
    found = [
        _Piece(batch.ids[line][there], batch.rows[line][there], batch.position[line][there])
        for window in token_windows(texts, model.tokenizer, alone)
        for batch in window.batches
        for line, there in enumerate(batch.attention)
    ]
    return sorted(found, key=lambda piece: int(piece.position.max(initial=-1)))


def _read(
    dictionary: Dictionary, model: Model, ids: Int64, memory: Prefixes, before: list[Reading],
    k: int, ms: dict[str, float],
) -> Reading:  # fmt: skip
    """A piece and its nearest regions: from where it differs, unless rounding could show."""
    clock = time.perf_counter()
    site = str(dictionary.site)
    read = memory.read(model, site, ids, before)
    ms["forward"] += 1000 * (time.perf_counter() - clock)
    if not 0 < read.same < len(ids):
        return read
    if in_doubt(dictionary, _found(dictionary, read, len(ids), k, ms)[1]):
        clock = time.perf_counter()
        read = memory.read_in_full(model, site, ids)
        ms["forward"] += 1000 * (time.perf_counter() - clock)
    return read


def _found(
    dictionary: Dictionary, read: Reading, stop: int, k: int, ms: dict[str, float]
) -> tuple[Int64, Float64]:
    """The nearest regions of the tokens before `stop`, searched for where they are not known."""
    clock = time.perf_counter()
    start = len(read.regions)
    if start < stop:
        new = nearest_regions(dictionary, as_vectors(read.vectors[start:stop]), k)
        some = min(k, len(dictionary))
        known = read.regions.reshape(start, some), read.distances.reshape(start, some)
        read.regions, read.distances = (
            np.concatenate(pair) for pair in zip(known, new, strict=True)
        )
    ms["assign"] += 1000 * (time.perf_counter() - clock)
    return read.regions, read.distances


def _say_rows(
    rows: _Rows, piece: _Piece, read: Reading, k: int, job: Job, ms: dict[str, float]
) -> dict[int, Float32]:
    """Say what the tokens of a piece are near to, a part at a time; their directions."""
    found: dict[int, Float32] = {}
    place = np.searchsorted(rows.every.position, piece.position)
    there = np.flatnonzero(piece.rows)
    vectors = as_vectors(read.vectors)
    norms = vector_norms(vectors)
    directions, _ = to_directions(vectors, rows.dictionary.center)
    start = 0
    while start < len(there) and not job.cancel.is_set():
        stop = start + (_MORE_TOKENS if start else _FIRST_TOKENS)
        part = there[start:stop].tolist()
        regions, distances = _found(rows.dictionary, read, part[-1] + 1, k, ms)
        lines = []
        for j in part:
            i = int(place[j])
            lines.append(rows.line(i, regions[j], distances[j], float(norms[j])))
            if regions[j, 0] >= 0:
                found[i] = directions[j]
        job.put("tokens", **{"from": lines[0]["i"]}, rows=lines)
        start = stop
    return found


def _scored(
    dictionary: Dictionary,
    model: Model,
    prompt: Int64,
    answer: Int64,
    edits: Sequence[Edit],
    targets: Sequence[int],
) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Of each token of an answer: how probable, how far from the baseline, and its region."""
    # One pass reads prompt and answer: what generation told by its cache is told by position.
    here = [replace(e, positions=len(prompt)) if e.positions == "generated" else e for e in edits]
    if not len(answer):
        nothing = {"ppl_base": None, "mean_kl": None, "target_hit": None, "ood": None, "tokens": 0}
        return [], nothing
    whole = np.concatenate([prompt, answer])
    (plain,) = token_log_probabilities(model, [whole], [len(prompt)])
    with edited(model, here):
        (changed,) = token_log_probabilities(model, [whole], [len(prompt)])
        (batch,) = window_activations(
            model, [str(dictionary.site)], window_of_ids(whole, len(prompt))
        )
    kl = answer_divergence(model, prompt, answer, lambda n: here)
    regions, distances = nearest_regions(dictionary, as_vectors(batch.vectors), 1)
    ratio = distances[:, 0] / dictionary.threshold
    rows = [
        {
            "i": i,
            "logprob": finite(changed[i]),
            "kl": finite(kl[i]),
            "region": int(regions[i, 0]) if regions[i, 0] >= 0 else None,
            "theta_ratio": finite(ratio[i]),
        }
        for i in range(len(answer))
    ]
    hits = np.isin(regions[:, 0], targets)
    stats = {
        "ppl_base": finite(perplexity([plain])),
        "mean_kl": finite(kl.mean()),
        "target_hit": finite(hits.mean()) if targets else None,
        "ood": finite((ratio > 1).mean()),
        "tokens": len(answer),
    }
    return rows, stats
