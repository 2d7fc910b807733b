"""Activations at a dictionary's site: read by its model, or kept from an earlier run."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from exemplars.cli.terminal import progress_bar, say

if TYPE_CHECKING:
    from exemplars.activations import ActivationBatch
    from exemplars.corpora import Texts
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model


def kept_batches(
    dictionary: Dictionary, folder: Path, allow_mismatch: bool
) -> Iterator[ActivationBatch]:
    """Kept activations at the dictionary's site, shard by shard."""
    from exemplars import store
    from exemplars.activations import ActivationShards
    from exemplars.report import provenance

    shards = ActivationShards.open(folder)
    source = SimpleNamespace(**(shards.describe.get("model") or {}))
    warning = store.check_model(dictionary, source, allow_mismatch=allow_mismatch)
    if warning:
        say(f"warning: {warning}")
    name = provenance(dictionary, "site").get("name")
    if name is None and len(shards.sites) > 1:
        raise ValueError(
            f"the dictionary does not say which site it is of, and {folder} has several "
            f"({', '.join(shards.sites)}); give activations of its site alone"
        )
    return (batches[0] for batches, *_ in shards.windows([name or shards.sites[0]]))


def read_batches(dictionary: Dictionary, model: Model, texts: Texts) -> Iterator[ActivationBatch]:
    """Activations of texts at the dictionary's site, window by window, as they are asked for."""
    from exemplars.activations import read_activations
    from exemplars.building import tokenization_of

    about = dictionary.provenance
    sizes = {name: about[name] for name in ("batch_tokens", "window_tokens") if name in about}
    windows = read_activations(
        model, [about["site"]["name"]], texts, tokenization_of(dictionary), **sizes
    )
    return (batch for (batch,) in windows)


def counted(batches: Iterable[ActivationBatch], rows: int | None) -> Iterator[Any]:
    """The same batches, up to so many rows, with a line on stderr that says how far they are."""
    from exemplars.streaming import Progress

    n_rows, started = 0, time.monotonic()
    with progress_bar() as on_progress:
        for batch in batches:
            yield batch
            n_rows += len(batch.document)
            on_progress(Progress("activations", n_rows, rows, {}, time.monotonic() - started))
            if rows is not None and n_rows >= rows:
                return
