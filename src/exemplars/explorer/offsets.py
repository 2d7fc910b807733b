"""Offsets as browsers count them: in UTF-16 code units, where a character beyond U+FFFF is two."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from exemplars.geometry import Int64


def utf16_length(text: str) -> int:
    """Code units of a text."""
    return len(text) if text.isascii() else len(text) + sum(c > "\uffff" for c in text)


def utf16_offsets(text: str, characters: Sequence[int] | Int64) -> Int64:
    """Offsets in code units of offsets in characters.

    Args:
        text: What they refer to.
        characters: (n,) each from 0 to the length of the text.
    """
    asked = np.asarray(characters, np.int64)
    if text.isascii():
        return asked
    wide = np.fromiter((c > "\uffff" for c in text), np.int64, len(text))
    return asked + np.concatenate([[0], np.cumsum(wide)])[asked]


def excerpt_of(before: str, text: str, after: str) -> dict[str, Any]:
    """A token in its context, as the page reads it: the whole, and where the token lies in it."""
    start = utf16_length(before)
    return {"text": before + text + after, "span": [start, start + utf16_length(text)]}
