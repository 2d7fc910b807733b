"""How undecided every region's lens is, found out while the models have nothing else to do."""

from __future__ import annotations

import logging
from collections.abc import Callable
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
        self._values = np.empty(0, np.float32)
        self._begun = False
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
            raise NotReadyError("lenses of all regions", len(self._values) / total)

    def _step(self) -> bool:
        try:
            return self._read_some(self._worker.model(self._model))
        except (ExemplarsError, ValueError, OSError, ImportError) as error:
            said = str(error)
        except Exception as error:  # whatever the model's code raises
            _logger.exception("the lenses of all regions failed")
            said = f"{type(error).__name__}: {error}"[:300]
        self._why_not = f"the lenses of all regions cannot be read: {said}"
        self._view.later.pop("lens_entropy", None)
        return False

    def _read_some(self, model: Model) -> bool:
        """Read the lenses of the next regions; False when all are read."""
        d, start = self._view.dictionary, len(self._values)
        if not start:
            check_readable(self._view, model)
        rows = np.asarray(d.exemplars[start : start + _AT_ONCE])
        self._values = np.append(self._values, lens_entropies(model, rows))
        if len(self._values) < d.n_regions:
            return True
        self._view.keep_lens_entropy(self._values)
        return False


def check_readable(view: View, model: Model, most: float = MOST_WORK) -> None:
    """Refuse another model than the dictionary's, and more work than is done unasked.

    Raises:
        MismatchError: Another model.
        ValueError: It would take too long here.
    """
    store.check_model(view.dictionary, model)
    vocabulary, width = model.unembedding.weight.shape
    if float(view.dictionary.n_regions) * vocabulary * width > most:
        raise ValueError(
            f"{view.dictionary.n_regions:,} regions and {vocabulary:,} tokens take too long here; "
            "run exemplars prepare --lens"
        )


def read_entropies(view: View, model: Model, on_step: Callable[[str, int, int], None]) -> None:
    """Read the lenses of all regions at once, unless they are known.

    Args:
        view: The dictionary.
        model: The dictionary's.
        on_step: Told how many regions are read.

    Raises:
        MismatchError: Another model.
    """
    if "lens_entropy" in view.columns:
        return
    check_readable(view, model, np.inf)
    n = view.dictionary.n_regions
    values = [np.empty(0, np.float32)]
    for start in range(0, n, _AT_ONCE):
        on_step("lenses", start, n)
        rows = np.asarray(view.dictionary.exemplars[start : start + _AT_ONCE])
        values.append(lens_entropies(model, rows))
    view.keep_lens_entropy(np.concatenate(values))
    on_step("lenses", n, n)
