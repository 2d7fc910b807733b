"""How undecided every region's lens is, found out while the models have nothing else to do."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from exemplars import store
from exemplars.errors import ExemplarsError
from exemplars.explorer.views import NotReadyError, View
from exemplars.lens import lens_entropies

if TYPE_CHECKING:
    from exemplars.explorer.worker import Worker
    from exemplars.models import Model

_logger = logging.getLogger(__name__)
MOST_WORK = 3e13
"""Multiplications that are done unasked: minutes. For more there is `exemplars prepare --lens`."""
_AT_ONCE = 64
"""Regions of a step, so that a text that is typed meanwhile waits for a moment alone."""


class LensEntropies:
    """The entropies of one dictionary's lenses, made when they are first asked for.

    Args:
        view: The dictionary.
        worker: In whose idle time they are made.
        model: The name of the dictionary's model.
    """

    def __init__(self, view: View, worker: Worker, model: str) -> None:
        self._view, self._worker, self._model = view, worker, model
        self._steps: Iterator[int] | None = None
        self._begun, self._done = False, 0
        self._why_not: str | None = None

    def __call__(self) -> None:
        """Begin, or say how far it is.

        Raises:
            NotReadyError: They are being made.
            ValueError: They cannot be made; says why.
        """
        if self._why_not is not None:
            raise ValueError(self._why_not)
        if not self._begun:
            self._begun = True
            self._worker.when_idle(self._step)
        if "lens_entropy" not in self._view.columns:
            total = max(self._view.dictionary.n_regions, 1)
            raise NotReadyError("lenses of all regions", self._done / total)

    def _step(self) -> bool:
        try:
            if self._steps is None:
                model = self._worker.model(self._model)
                self._steps = entropy_steps(self._view, model, MOST_WORK)
            done = next(self._steps, None)
            self._done = self._done if done is None else done
            return done is not None
        except (ExemplarsError, ValueError, OSError, ImportError) as error:
            said = str(error)
        except Exception as error:  # whatever the model's code raises
            _logger.exception("the lenses of all regions failed")
            said = f"{type(error).__name__}: {error}"[:300]
        self._why_not = f"the lenses of all regions cannot be read: {said}"
        self._view.later.pop("lens_entropy", None)
        return False


def entropy_steps(view: View, model: Model, most: float = np.inf) -> Iterator[int]:
    """Read the lenses of all regions, some at a time; at the end the view knows them.

    Args:
        view: The dictionary.
        model: The dictionary's.
        most: Multiplications, at most.

    Yields:
        How many regions are read.

    Raises:
        MismatchError: Another model.
        ValueError: It would take too long here.
    """
    store.check_model(view.dictionary, model)
    n, (vocabulary, width) = view.dictionary.n_regions, model.unembedding.weight.shape
    if float(n) * vocabulary * width > most:
        raise ValueError(
            f"{n:,} regions and {vocabulary:,} tokens take too long here; "
            "run exemplars prepare --lens"
        )
    values = np.empty(n, np.float32)
    for start in range(0, n, _AT_ONCE):
        rows = np.asarray(view.dictionary.exemplars[start : start + _AT_ONCE])
        values[start : start + len(rows)] = lens_entropies(model, rows)
        yield start + len(rows)
    view.keep_lens_entropy(values)
