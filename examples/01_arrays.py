"""The method alone, on arrays of any origin: python examples/01_arrays.py."""

import tempfile
from pathlib import Path

import numpy as np

import exemplars as ex

# Five clouds in 32 dimensions; any (N, D) array will do: embeddings, activations, spectra.
rng = np.random.default_rng(0)
clouds = rng.normal(size=(5, 32)) * 4
which = rng.integers(0, 5, 2000)
vectors = clouds[which] + rng.normal(size=(2000, 32))

# The radius within which a row joins a region is a percentile of the distances of pairs; a fifth
# of all pairs lie in one cloud.
calibration = ex.calibrate(vectors, percentiles=[10, 20])
dictionary = ex.partition(vectors, calibration, percentile=20)
print(f"{len(dictionary)} regions of {dictionary.counts.tolist()} members")

# Each region was founded by one row, and each row lies nearest to one region.
regions, distances = dictionary.assign(vectors)
for region in range(len(dictionary)):
    found = np.unique(which[regions == region])
    row = dictionary.exemplar_rows[region]
    print(f"region {region}: founded by row {row}, holds cloud {found.tolist()}")
print(f"outside every region: {(distances > dictionary.threshold).mean():.1%} of the rows")

# Codes over regions, and back.
codes = dictionary.encode(vectors, readout="topk")
error = ((dictionary.decode(codes) - vectors) ** 2).sum() / ((vectors - vectors.mean(0)) ** 2).sum()
print(f"variance that one region a row explains: {1 - error:.1%}")

# A dictionary is a folder of plain files.
with tempfile.TemporaryDirectory() as temporary:
    folder = ex.save(dictionary, Path(temporary) / "clouds")
    print(f"saved {sorted(file.name for file in folder.iterdir())}")
    print(f"loaded {ex.load(folder)!r}")
