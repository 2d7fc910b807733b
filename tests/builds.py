"""Texts and settings for builds with tiny models, and what to compare of their folders."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

import exemplars as ex

TOKENIZATION = ex.Tokenization(context_length=24)
SETTINGS = {
    "tokenization": TOKENIZATION,
    "batch_tokens": 96,
    "window_tokens": 256,
    "calibration_rows": 500,
    "block_rows": 128,
}
PROMISED = ("regions.safetensors", "contexts.parquet", "growth.parquet")
WORDS = ["the", "then", "there", "a", "other", "sea", "salt", "moon", "ß", "naïve", "🌊", "\n"]


def documents(n: int = 60, seed: int = 0) -> list[str]:
    """Documents of 0 to 40 words, some empty."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, rng.integers(0, 40))) for _ in range(n)]


def promised(folder: Path) -> dict[str, str]:
    """SHA-256 of each file that the promise of equal bytes covers."""
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in PROMISED}
