"""The member of a region that lies nearest to a neighbour: read again, as vectors are not stored.

The members whose places are kept are read through the model once more: in the texts of the build
where they are still there, else in the text that is kept round each. Of those only the ones count
that lie as far from the exemplar as they did then: a context that was cut gives another vector.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars import corpora, store
from exemplars.activations import window_activations
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.contexts import Context
from exemplars.dictionary import Dictionary
from exemplars.errors import SourceError
from exemplars.geometry import Float32, Float64, Int64, to_directions
from exemplars.tokenization import Tokenization, locate, token_windows, window_of_ids

if TYPE_CHECKING:
    from exemplars.models import Model

MOST = 32
"""Members that are read again, at most."""
AS_STORED = 1e-3
"""Cosine distances to the exemplar, now and then, that count as the same."""


@dataclass(frozen=True, eq=False)
class ReadAgain:
    """Members of a region with their directions."""

    members: tuple[Context, ...]
    """Those that lie as far from the exemplar as they did."""
    directions: Float32
    """(n, D) unit."""
    asked: int
    """Members that were read."""
    source: str
    """Where they were read: the end of a sentence."""

    def nearest_to(self, exemplar: Float32) -> tuple[Context, float] | None:
        """The member nearest to another exemplar, and its cosine distance to that."""
        if not self.members:
            return None
        distance = 1 - self.directions.astype(np.float64) @ np.asarray(exemplar, np.float64)
        k = int(distance.argmin())
        return self.members[k], float(distance[k])


def build_texts(dictionary: Dictionary) -> corpora.Texts | None:
    """The texts of a dictionary's build, if they are on this machine as they were."""
    about = dictionary.provenance.get("texts")
    try:
        return corpora.reopened(about) if isinstance(about, dict) else None
    except (SourceError, OSError):
        return None


def read_again(
    dictionary: Dictionary,
    model: Model,
    region: int,
    texts: corpora.Texts | None,
    on_step: Callable[[int, int], None] = lambda done, total: None,
    cancel: threading.Event | None = None,
) -> ReadAgain:
    """The members of a region whose contexts are kept, with their directions.

    Args:
        dictionary: With contexts.
        model: The dictionary's.
        region: Its number.
        texts: Of `build_texts`; None to read the text that is kept round each member.
        on_step: Told how many members are read, of how many.
        cancel: Set to stop.

    Raises:
        MismatchError: Another model than the dictionary's.
        ValueError: The dictionary keeps no members, or does not say how its texts were read.
    """
    store.check_model(dictionary, model)
    kept = dictionary.contexts.region(region) if dictionary.contexts is not None else []
    chosen = [c for c in _in_turn(kept)[:MOST] if c.text or c.document >= 0]
    if not chosen or dictionary.site is None:
        raise ValueError("the dictionary keeps no members of this region that could be read again")
    tokenization = tokenization_of(dictionary)
    found: list[Context] = []
    vectors: list[Float32] = []
    on_step(0, len(chosen))
    for n, (context, ids, place) in enumerate(_pieces(chosen, model, tokenization, texts)):
        if cancel is not None and cancel.is_set():
            break
        if place >= 0:
            # One pass for each: members of one piece are few, and a pass stops at the site.
            (batch,) = window_activations(model, [dictionary.site], window_of_ids(ids))
            vectors.append(as_vectors(batch.vectors)[place])
            found.append(context)
        on_step(n + 1, len(chosen))
    width = dictionary.width
    directions, _ = to_directions(
        np.array(vectors, np.float32).reshape(len(found), width), dictionary.center
    )
    own = np.asarray(dictionary.exemplars[region], np.float64)
    now: Float64 = 1 - directions.astype(np.float64) @ own
    same = (
        np.abs(now - [c.distance for c in found]) <= AS_STORED if found else np.empty(0, np.bool_)
    )
    return ReadAgain(
        members=tuple(c for c, keep in zip(found, same, strict=True) if keep),
        directions=directions[same],
        asked=len(chosen),
        source="the texts of the build" if texts is not None else "the text kept round them",
    )


def _in_turn(kept: Sequence[Context]) -> list[Context]:
    """Nearest, farthest and random members in turn, each once."""
    lists = []
    for rank in ("farthest_rank", "sample_rank", "nearest_rank"):
        there = [c for c in kept if getattr(c, rank) >= 0]
        lists.append(sorted(there, key=attrgetter(rank)))
    longest = max(map(len, lists), default=0)
    found = [one[i] for i in range(longest) for one in lists if i < len(one)]
    return list({c.row: c for c in found}.values())


def _pieces(
    members: Sequence[Context], model: Model, tokenization: Tokenization,
    texts: corpora.Texts | None,
) -> Iterator[tuple[Context, Int64, int]]:  # fmt: skip
    """Of each member the tokens that are read with it, and its place in them; -1 if it is lost."""
    whole = replace(tokenization, packing="none", rows="all", keep_first=True, keep_prefix=True)
    if texts is None:
        for context in members:
            yield (context, *_in_excerpt(context, model, whole))
        return
    by_document: dict[int, list[Context]] = {}
    for context in sorted(members, key=lambda c: (c.document, c.position)):
        by_document.setdefault(context.document, []).append(context)
    for document in texts.fetch(by_document):
        windows = list(token_windows(corpora.texts([document.content]), model.tokenizer, whole))
        for context in by_document[document.number]:
            yield (context, *_piece_of(windows, context))


def _piece_of(windows: Sequence[Any], context: Context) -> tuple[Int64, int]:
    """The piece of a document that a member is in."""
    for window in windows:
        for batch in window.batches:
            line, place = np.nonzero(batch.position == context.position)
            if len(line) and batch.ids[line[0], place[0]] == context.token:
                there = batch.attention[line[0]]
                return batch.ids[line[0]][there], int(place[0])
    return np.empty(0, np.int64), -1


def _in_excerpt(context: Context, model: Model, tokenization: Tokenization) -> tuple[Int64, int]:
    """The text that is kept round a member, as if it were the document."""
    plain = replace(tokenization, chat=False)
    text = corpora.texts([context.before + context.text + context.after])
    found = next(iter(locate(text, model.tokenizer, plain, [0])), None)
    if found is None:
        return np.empty(0, np.int64), -1
    there = (found.start == len(context.before)) & (found.token == context.token)
    windows = list(token_windows(text, model.tokenizer, plain))
    for position in found.position[there].tolist():
        return _piece_of(windows, replace(context, position=position))
    return np.empty(0, np.int64), -1
