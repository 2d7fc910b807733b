"""A text that changes while one types: what stands before the change is not computed again.

In a causal model a token's activation depends on the tokens before it alone. So of the text that
was read last, the vectors of the common beginning are kept, and the model goes on from there with
its keys and values. What differs from a full run is rounding: matrix products of other shapes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.activations import continued_activations, window_activations
from exemplars.geometry import Float64, Int64
from exemplars.tokenization import common_prefix, window_of_ids

if TYPE_CHECKING:
    import torch

    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

TOLERANCE = 1e-5
"""Cosine distances of a continued run are within this of a full run's, in a float32 model. Where so
much could change a region, or the side of θ, the text is read in full."""
_LEAST = 8
"""Tokens in common that are worth going on from."""
_MOST = 4096
"""Tokens whose keys and values are kept, at most: twice the longest text."""
_CHECK = 1e-4
"""Norm of the change, over the norm, up to which a model is taken to go on as it should."""


@dataclass(eq=False)
class Reading:
    """A piece of a text that was read."""

    ids: Int64
    vectors: torch.Tensor
    """(n, D) on the CPU."""
    past: Any
    """The model's keys and values of these tokens; None where it keeps none that can be cut."""
    same: int = 0
    """Leading tokens whose vectors are those of the reading before."""
    regions: Int64 = field(default_factory=lambda: np.empty((0, 0), np.int64))
    """(m, k) of the first m tokens, as far as they were searched for."""
    distances: Float64 = field(default_factory=lambda: np.empty((0, 0)))
    """(m, k) cosine distances, NaN without a direction."""


class Prefixes:
    """The pieces of the last text that was read. For one thread."""

    def __init__(self) -> None:
        self._key: tuple[Any, ...] = ()
        self._pieces: list[Reading] = []
        self._continues: dict[tuple[int, str], bool] = {}

    def begin(self, *key: Any) -> list[Reading]:
        """The pieces of the text before, if it was read likewise: what a new text goes on from.

        They are forgotten here; `keep` those of the new text as they are done.

        Args:
            *key: All that vectors and regions depend on: model, site, dictionary.
        """
        before = self._pieces if key == self._key else []
        self._key, self._pieces = key, []
        return before

    def keep(self, piece: Reading) -> None:
        """Remember a piece; the oldest go where there are too many."""
        self._pieces.append(piece)
        while sum(len(one.ids) for one in self._pieces) > _MOST:
            del self._pieces[0]

    def read(self, model: Model, site: str, ids: Int64, before: list[Reading]) -> Reading:
        """The vectors of a piece, computed from where it differs from one that was read before.

        Args:
            model: The model.
            site: Where.
            ids: (n,) tokens of the piece.
            before: Of `begin`; the piece that is gone on from is taken out.
        """
        shared = [common_prefix(ids, piece.ids) for piece in before]
        best = int(np.argmax(shared)) if shared else 0
        if not shared or shared[best] < min(_LEAST, len(ids)):
            return self.read_in_full(model, site, ids)
        old, same = before[best], shared[best]
        if old.past is None and not np.array_equal(ids, old.ids):
            return self.read_in_full(model, site, ids)
        del before[best]
        if same < len(old.ids):
            old.past.crop(same - len(old.ids))
        vectors = old.vectors[:same]
        if same < len(ids):
            import torch

            more = continued_activations(model, site, ids[same:], old.past)
            vectors = torch.cat([vectors, more])
        return Reading(ids, vectors, old.past, same, old.regions[:same], old.distances[:same])

    def read_in_full(self, model: Model, site: str, ids: Int64) -> Reading:
        """The vectors of a piece by one pass over it."""
        past = _new_cache() if self._goes_on(model, site) else None
        if past is not None:
            return Reading(ids, continued_activations(model, site, ids, past), past)
        return Reading(ids, _alone(model, site, ids), None)

    def _goes_on(self, model: Model, site: str) -> bool:
        """Whether the model can go on from a cache that was cut; a few short passes tell."""
        key = id(model), site
        if key not in self._continues:
            self._continues[key] = goes_on(model, site)
        return self._continues[key]


def goes_on(model: Model, site: str) -> bool:
    """Whether a model, from keys and values that were cut, gives what one pass gives.

    Some keep a state that cannot be cut, or none at all before the site; for others this fails.
    Models of 16 bits count as such, whose rounding is coarser than `TOLERANCE`.
    """
    if "past_key_values" not in model.accepts or not model.dtype.itemsize >= 4:
        return False
    ids = np.arange(1, 25) % min(25, len(model.tokenizer))
    try:
        whole = _alone(model, site, ids[:16]).double()
        past = _new_cache()
        first = continued_activations(model, site, np.append(ids[:8], ids[16:20]), past)
        if int(past.get_seq_length()) != 12:
            return False
        past.crop(-4)
        rest = continued_activations(model, site, ids[8:16], past)
    except Exception:  # whatever the model's code does with a cache that it does not know
        return False
    import torch

    change = torch.cat([first[:8], rest]).double() - whole
    return bool((change.norm(dim=1) <= _CHECK * whole.norm(dim=1)).all())


def in_doubt(dictionary: Dictionary, distances: Float64) -> bool:
    """Whether rounding could give a token another nearest region, or put it across θ.

    Args:
        dictionary: Whose θ.
        distances: (n, k) to the nearest regions, nearest first; NaN without a direction.
    """
    near = np.abs(distances[:, 0] - dictionary.threshold) < TOLERANCE
    if distances.shape[1] > 1:
        near |= distances[:, 1] - distances[:, 0] < 2 * TOLERANCE
    return bool(near.any())


def _alone(model: Model, site: str, ids: Int64) -> torch.Tensor:
    """One pass as texts are read elsewhere, without a cache."""
    (batch,) = window_activations(model, [site], window_of_ids(ids))
    return batch.vectors


def _new_cache() -> Any:
    import transformers

    return transformers.DynamicCache()
