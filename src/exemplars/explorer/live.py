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
    TokenBatch,
    Tokenization,
    TokenWindow,
    locate,
    tokenize_prompts,
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
) -> Run:
    """Say the nearest regions of every token of a text, a part of the text at a time.

    Args:
        dictionary: Built from text, with regions.
        model: The dictionary's.
        content: A text, or messages.
        job: Told "start", "tokens" and "end".
        slug: The dictionary's name in addresses.
        topk: Regions of each token, at most 7.
        skip_special: Say nothing of tokens that a build leaves out, but that they are there.

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
    ms = {"tokenise": 1000 * (time.perf_counter() - begun), "forward": 0.0, "assign": 0.0}
    if every is not None and n:
        kept = ordinary.position if ordinary is not None else np.empty(0, np.int64)
        rows = _Rows(dictionary, model, every, np.isin(every.position, kept), topk, skip_special)
        clock = time.perf_counter()
        for (batch,) in read_activations(model, [str(dictionary.site)], texts, whole):
            if job.cancel.is_set():
                break
            ms["forward"] += 1000 * (time.perf_counter() - clock)
            clock = time.perf_counter()
            directions |= _say_rows(rows, batch.position, as_vectors(batch.vectors), job)
            ms["assign"] += 1000 * (time.perf_counter() - clock)
            clock = time.perf_counter()
        names = dict(enumerate(rows.names))
    if not job.cancel.is_set():
        job.put("end", ms=ms)
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


def _say_rows(rows: _Rows, positions: Int64, vectors: Float32, job: Job) -> dict[int, Float32]:
    """Say what the vectors of some tokens are near to; their directions."""
    found: dict[int, Float32] = {}
    place = np.searchsorted(rows.every.position, positions)
    start = 0
    while start < len(positions) and not job.cancel.is_set():
        stop = start + (_MORE_TOKENS if start else _FIRST_TOKENS)
        part = vectors[start:stop]
        regions, distances = nearest_regions(rows.dictionary, part, max(rows.topk, 2))
        norms = vector_norms(part)
        directions, _ = to_directions(part, rows.dictionary.center)
        lines = []
        for i, region, distance, norm, direction in zip(
            place[start:stop].tolist(), regions, distances, norms, directions, strict=True
        ):
            lines.append(rows.line(i, region, distance, float(norm)))
            if region[0] >= 0:
                found[i] = direction
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
        (batch,) = window_activations(model, [str(dictionary.site)], _window_of(whole, len(prompt)))
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


def _window_of(ids: Int64, first: int) -> TokenWindow:
    """A window of one text, given as tokens, whose rows begin at `first`."""
    n = len(ids)
    line = np.arange(n)[None]
    rows = line >= first
    positions = np.arange(first, n)
    zeros = np.zeros(n - first, np.int64)
    batch = TokenBatch(
        ids=np.asarray(ids, np.int64)[None],
        attention=np.ones((1, n), np.bool_),
        rows=rows,
        document=np.zeros((1, n), np.int64),
        position=line,
        position_ids=line,
    )
    return TokenWindow(
        batches=(batch,),
        destination=(np.arange(n - first),),
        document=zeros,
        position=positions,
        token=np.asarray(ids[first:], np.int64),
        start=zeros,
        end=zeros,
        documents=np.zeros(1, np.int64),
        document_rows=np.array([n - first]),
        tokens_before=positions,
        first_row=0,
        n_tokens=n,
        cursor={},
    )
