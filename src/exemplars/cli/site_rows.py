"""Rows at a dictionary's site: of texts that a model reads, or of kept activations."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from exemplars.cli.terminal import say

if TYPE_CHECKING:
    from exemplars.dictionary import Dictionary


def kept_batches(
    dictionary: Dictionary, folder: Path, allow_mismatch: bool = False
) -> Iterator[Any]:
    """Batches of kept activations at the dictionary's site, shard by shard."""
    from exemplars import store
    from exemplars.activations import ActivationShards

    shards = ActivationShards.open(folder)
    source = SimpleNamespace(**(shards.describe.get("model") or {}))
    warning = store.check_model(dictionary, source, allow_mismatch=allow_mismatch)
    if warning:
        say(f"warning: {warning}")
    if dictionary.site is None and len(shards.sites) > 1:
        raise ValueError(
            f"the dictionary does not say which site it is of, and {folder} has several "
            f"({', '.join(shards.sites)}); give activations of its site alone"
        )
    site = dictionary.site or shards.sites[0]
    return (batches[0] for batches, *_ in shards.windows([site]))


def read_batches(dictionary: Dictionary, model: Any, texts: Any) -> Iterator[Any]:
    """Batches of texts at the dictionary's site, window by window, as they are asked for."""
    from exemplars.activations import read_activations
    from exemplars.building import tokenization_of

    about = dictionary.provenance
    sizes = {name: about[name] for name in ("batch_tokens", "window_tokens") if name in about}
    windows = read_activations(
        model, [about["site"]["name"]], texts, tokenization_of(dictionary), **sizes
    )
    return (batch for (batch,) in windows)
