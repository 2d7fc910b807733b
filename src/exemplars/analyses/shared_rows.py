"""The same tokens at two sites: of one model, or of two models that read the same texts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.activations import ActivationBatch
from exemplars.errors import MismatchError, SourceError
from exemplars.geometry import Int64


@dataclass(frozen=True, eq=False)
class SharedRows:
    """Rows that both sides have, in the order of the first side."""

    a: Any
    """(N, D_a) raw activations, numpy or torch, in the model's own dtype."""
    b: Any
    """(N, D_b) of the same tokens."""
    document: Int64
    """(N,) number of the document in its source."""
    token: Int64
    """(N,) token id, equal on both sides."""

    def __len__(self) -> int:
        return len(self.document)


@dataclass(frozen=True, eq=False)
class SiteRows:
    """Rows of one site, in stream order."""

    vectors: Any
    """(N, D) raw, torch, in the model's own dtype."""
    document: Int64
    position: Int64
    token: Int64

    def __len__(self) -> int:
        return len(self.document)


def site_rows(batches: Iterable[ActivationBatch], rows: int | None = None) -> SiteRows:
    """The first rows of a site's batches, in memory; what comes after them is not asked for.

    Raises:
        SourceError: There is none.
    """
    import torch

    vectors: list[Any] = []
    columns: dict[str, list[Int64]] = {"document": [], "position": [], "token": []}
    n_rows = 0
    for batch in batches:
        keep = len(batch.document) if rows is None else min(rows - n_rows, len(batch.document))
        vectors.append(batch.vectors[:keep])
        for name, parts in columns.items():
            parts.append(getattr(batch, name)[:keep])
        n_rows += keep
        if rows is not None and n_rows >= rows:
            break
    if not n_rows:
        raise SourceError("the text has no rows; give more of it")
    found: Mapping[str, Int64] = {name: np.concatenate(parts) for name, parts in columns.items()}
    return SiteRows(torch.cat([part for part in vectors if len(part)]), **found)


def share_rows(a: SiteRows, b: SiteRows) -> SharedRows:
    """The rows of the tokens that both sides have, told by document and position.

    Raises:
        SourceError: They share no token.
        MismatchError: A token of one side is another on the other: two tokenizers, or two texts.
    """
    if a is b:
        return SharedRows(a.vectors, a.vectors, a.document, a.token)
    place_a, place_b = (side.document * (1 << 32) + side.position for side in (a, b))
    _, in_a, in_b = np.intersect1d(place_a, place_b, assume_unique=True, return_indices=True)
    order = np.argsort(in_a)
    in_a, in_b = in_a[order], in_b[order]
    if not len(in_a):
        raise SourceError("the two sides have no token in common; give both the same texts")
    other = np.flatnonzero(a.token[in_a] != b.token[in_b])
    if len(other):
        where = int(in_a[other[0]])
        raise MismatchError(
            f"document {a.document[where]}, position {a.position[where]} is token "
            f"{a.token[where]} on one side and {b.token[in_b[other[0]]]} on the other; rows can be "
            "shared by models with one tokenizer on the same texts only"
        )
    return SharedRows(a.vectors[in_a], b.vectors[in_b], a.document[in_a], a.token[in_a])
