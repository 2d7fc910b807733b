"""Rows of the stream that a dictionary was built from: what a null draws its directions from."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.analyses.labelled import OnStep
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary, usable_directions
from exemplars.errors import SourceError
from exemplars.geometry import Float32

if TYPE_CHECKING:
    from exemplars.models import Model

_STRETCH = 8
"""Characters of a stretch, for each token of the context length."""
_AT_ONCE = 16
"""Documents read together."""


def stream_rows(
    dictionary: Dictionary,
    model: Model,
    n: int,
    seed: int = 0,
    texts: Texts | None = None,
    on_step: OnStep | None = None,
) -> tuple[Float32, str]:
    """Random rows of a dictionary's stream.

    Documents are taken in a random order; of a long one, a random stretch is read. Among at least
    n rows so read, n are drawn.

    Args:
        dictionary: Whose stream, site and masks.
        model: The model it is of.
        n: Rows.
        seed: Of the order, the stretches, and the draw.
        texts: What it was built from; None: what its provenance names, if that is still there.
        on_step: Told how many rows were read.

    Returns:
        vectors: (n', D) float32 raw, of rows that a build would keep; n' < n where the texts have
            no more.
        source: Where they are from, as a sentence.

    Raises:
        SourceError: The texts cannot be found, or have no rows.
        ValueError: The dictionary does not say which site it is of.
    """
    about = dictionary.provenance.get("texts")
    if texts is None and not isinstance(about, dict):
        raise SourceError("the dictionary does not say what texts it was built from; give them")
    texts = corpora.reopened(about) if texts is None and isinstance(about, dict) else texts
    assert texts is not None
    site = dictionary.site
    if site is None:
        raise ValueError("the dictionary does not say which site it is of; build it with a model")
    tokenization = tokenization_of(dictionary)
    random = np.random.default_rng([seed, 0x5EED])
    size = _STRETCH * tokenization.context_length
    stretches = (stretch(document.content, size, random) for document in texts.shuffled(seed))
    told = on_step or (lambda what, done, total: None)
    told("rows of the stream", 0, n)
    found: list[Float32] = []
    n_rows = n_documents = 0
    while n_rows < n and (part := list(itertools.islice(stretches, _AT_ONCE))):
        n_documents += len(part)
        for (batch,) in read_activations(model, [site], corpora.texts(part), tokenization):
            vectors = as_vectors(batch.vectors)
            _, rows, _ = usable_directions(vectors, 0, dictionary.calibration)
            found.append(vectors[rows])
            n_rows += len(rows)
            told("rows of the stream", min(n_rows, n), n)
    if not n_rows:
        raise SourceError("the dictionary's texts have no rows; give the texts it was built from")
    chosen = np.sort(random.permutation(n_rows)[:n])
    source = f"{len(chosen):,} random rows of {n_documents:,} documents of the dictionary's stream"
    return np.concatenate(found)[chosen], source


def stretch(content: Any, size: int, random: np.random.Generator) -> Any:
    """A random part of a long text, of `size` characters; conversations and short texts whole."""
    if not isinstance(content, str) or len(content) <= size:
        return content
    start = int(random.integers(0, len(content) - size + 1))
    return content[start : start + size]
