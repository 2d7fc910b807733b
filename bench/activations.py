"""Rows to measure the engine with: activations of three models, and synthetic rows.

The models read the distinct outputs of AxBench's data in source order: consecutive rows are of one
document, as in a build. What was extracted is kept, and read again the next time. Synthetic rows
are clustered, with the energies in the first axes that a model's activations have.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import exemplars as ex
import rows as results
from exemplars.calibration import as_vectors
from exemplars.dictionary import usable_directions

SOURCES = ("conceptFD_2b_l20", "concept10_2b_l20")
PERCENTILES = (10.0, 4.0, 3.5, 1.0, 0.7, 0.3)
CALIBRATION_ROWS = 20_480
ENERGY = {1: 0.12, 32: 0.64, 64: 0.74, 128: 0.85, 256: 0.94}
"""Share of the second moment in the first axes of synthetic rows."""


@dataclass(frozen=True)
class Source:
    """A model's activations at one site."""

    title: str
    folder: str
    site: str
    rows: int
    """At least so many; what is left of the last window comes on top."""


SMOLLM2 = Source("SmolLM2-135M-Instruct", "smollm2-135m-instruct", "resid_post.15", 66_000)
GEMMA = Source("Gemma-3-270m", "gemma-3-270m", "resid_post.9", 66_000)
QWEN = Source("Qwen2.5-Coder-0.5B-Instruct", "qwen2.5-coder-0.5b-instruct", "resid_post.12", 66_000)


@dataclass(frozen=True)
class Activations:
    """Rows of one site in source order, and their calibration."""

    vectors: np.ndarray
    """(N, D) float32, raw."""
    directions: np.ndarray
    """(n, D) float32, of the rows that take part."""
    rows: np.ndarray
    """(n,) their numbers."""
    calibration: ex.Calibration
    inputs: dict[str, object]


def documents() -> list[str]:
    """The distinct outputs, in source order."""
    import pyarrow.parquet as pq

    folder = results.SHARED / "data/axbench"
    if not folder.exists():
        raise SystemExit(f"{folder} is absent; set EXEMPLARS_SHARED to the folder that has data/")
    found: dict[str, None] = {}
    for source in SOURCES:
        for part in ("train_data", "latent_eval_data"):
            table = pq.read_table(folder / source / f"{part}.parquet", columns=["output"])
            found |= dict.fromkeys(text for text in table["output"].to_pylist() if text)
    return list(found)


def load_model(source: Source, models: Path) -> ex.Model:
    file = models / source.folder / f"{source.folder}.gguf"
    if not file.exists():
        raise SystemExit(f"{file} is absent; say with --models where the models are")
    return ex.load_model(str(file), dtype="bfloat16")


def shards(source: Source, models: Path, cache: Path) -> ex.ActivationShards:
    """Kept ones of the same texts if they are complete; else extracted."""
    texts, folder = ex.texts(documents()), cache / source.folder
    if (folder / "activations.json").exists():
        kept = ex.ActivationShards.open(folder)
        same = kept.describe["texts"] == texts.describe() and source.site in kept.sites
        if same and kept.complete and kept.rows >= source.rows:
            return kept
    print(f"extracting {source.rows:,} rows of {source.title} to the cache", flush=True)
    model = load_model(source, models)
    return ex.extract(model, source.site, texts, folder, rows=source.rows)


@functools.cache
def of_model(source: Source, models: Path, cache: Path) -> Activations:
    kept = shards(source, models, cache)
    windows = kept.windows((source.site,))
    vectors = np.concatenate([as_vectors(batches[0].vectors) for batches, *_ in windows])
    calibration = ex.calibrate(vectors[:CALIBRATION_ROWS], PERCENTILES, norm_multiple=10.0)
    directions, rows, dropped = usable_directions(vectors, 0, calibration)
    inputs = {
        "activations": f"{source.title} {source.site}, {kept.describe['dtype']}",
        "model": kept.describe["model"]["fingerprint"][:16],
        "documents": kept.describe["texts"]["sha256"][:16],
        "order": "source order",
        "stream_rows": len(vectors),
        "dropped": {reason: len(lost) for reason, lost in dropped.items()},
        "calibration_rows": CALIBRATION_ROWS,
    }
    return Activations(vectors, directions, rows, calibration, inputs)


def spectrum(width: int) -> np.ndarray:
    """(D,) shares of energy, descending, that add up as `ENERGY` says, and to 1."""
    known = {**ENERGY, width: 1.0}
    axes = np.log2(np.arange(1, width + 1))
    total = np.interp(axes, np.log2(list(known)), list(known.values()))
    return np.diff(total, prepend=0.0)


class Synthetic:
    """Rows round cluster centers; centers and noise have one spectrum, in random axes.

    Args:
        width: D.
        clusters: Centers.
        noise: Length of a row's noise for a center of length 1.
        seed: Of the axes and the centers.
    """

    def __init__(
        self, width: int, clusters: int = 4_000, noise: float = 0.5, seed: int = 0
    ) -> None:
        self.width, self.noise = width, noise
        random = np.random.default_rng(seed)
        axes, _ = np.linalg.qr(random.standard_normal((width, width), np.float32))
        self._turn = np.sqrt(spectrum(width), dtype=np.float32)[:, None] * axes.T
        self.centers = random.standard_normal((clusters, width), np.float32) @ self._turn
        self.inputs = {
            "rows": "synthetic", "width": width, "clusters": clusters, "noise": noise, "seed": seed,
        }  # fmt: skip

    def chunks(self, n: int, seed: int, size: int = 4096) -> Iterator[np.ndarray]:
        """Rows, (size, D) float32 at a time: the same ones for the same seed and size."""
        random = np.random.default_rng([seed, self.width])
        for start in range(0, n, size):
            m = min(size, n - start)
            noise = random.standard_normal((m, self.width), np.float32) @ self._turn
            center = self.centers[random.integers(0, len(self.centers), m)]
            yield center + np.float32(self.noise) * noise

    def rows(self, n: int, seed: int) -> np.ndarray:
        return np.concatenate(list(self.chunks(n, seed)))


def energies(directions: np.ndarray) -> dict[str, float]:
    """Share of the second moment in the first principal axes, as it is."""
    sample = directions[:8192]
    values = np.linalg.eigvalsh(sample.T @ sample)[::-1]
    shares = np.cumsum(values) / values.sum()
    return {str(d): float(shares[d - 1]) for d in ENERGY if d > 1}
