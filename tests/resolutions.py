"""Clouds within clouds, their dictionaries at several resolutions, and rows with tokens."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

import exemplars as ex
from exemplars.analyses.resolution import coarse_to_fine, site_directions

WIDTH = 16
N_COARSE, N_FINE = 4, 3
"""Clouds, and clouds in each."""


@dataclass(frozen=True)
class Batch:
    """What `site_directions` reads of an ActivationBatch."""

    vectors: np.ndarray
    document: np.ndarray
    position: np.ndarray
    token: np.ndarray


def clouds(n=600, seed=0, noise=0.05):
    """(n, D) rows, and (n,) numbers of their coarse and of their fine cloud."""
    random = np.random.default_rng(seed)
    within = np.random.default_rng(99).normal(size=(N_COARSE * N_FINE, WIDTH))
    within /= np.linalg.norm(within, axis=1)[:, None]
    fine = random.integers(0, N_COARSE * N_FINE, n)
    coarse = fine // N_FINE
    middle = 10 * np.eye(N_COARSE, WIDTH)[coarse] + 3 * within[fine]
    rows = middle + noise * random.normal(size=(n, WIDTH))
    return rows.astype(np.float32), coarse, fine


def ladder(vectors, percentiles, block_rows=2048):
    """Dictionaries of one pass, from coarse to fine."""
    calibration = ex.calibrate(vectors, percentiles, block_rows=block_rows)
    return coarse_to_fine([ex.partition(vectors, calibration, p) for p in percentiles], least=1)


def planted_ladder(vectors):
    """One region for each coarse cloud, and one for each fine one."""
    calibration = replace(ex.calibrate(vectors, [15.0, 6.0]), thresholds={15.0: 0.5, 6.0: 0.02})
    found = coarse_to_fine([ex.partition(vectors, calibration, p) for p in (15.0, 6.0)])
    assert [len(d) for d in found] == [N_COARSE, N_COARSE * N_FINE]
    return found


def noise(n=500, seed=0, width=WIDTH):
    return np.random.default_rng(seed).normal(size=(n, width)).astype(np.float32)


def batches(vectors, token=None, n_documents=20, step=128):
    """Consecutive rows are of one document."""
    n = len(vectors)
    document = np.arange(n) * n_documents // max(n, 1)
    position = np.arange(n) - np.searchsorted(document, document) + 1
    token = np.arange(n) % 7 if token is None else token
    for start in range(0, n, step):
        part = slice(start, start + step)
        yield Batch(vectors[part], document[part], position[part], token[part])


def rows_of(vectors, dictionary, token=None, n_documents=20):
    return site_directions(batches(vectors, token, n_documents), dictionary)
