"""The method as its definition reads, in float64 and without haste: what the tests compare with."""

import math

import numpy as np

SMALLEST_RELATIVE_NORM = 1e-6


def canonical(a, b):
    """Canonical similarity of two float32 rows, in Python floats."""
    s = [0.0] * 8
    for d, (x, y) in enumerate(zip(a.tolist(), b.tolist(), strict=True)):
        s[d % 8] += x * y
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def canonical_matrix(a, b):
    """`canonical` of every row of a with every row of b: numpy adds whole lanes at a time."""
    pad = [(0, 0), (0, -a.shape[1] % 8)]
    a, b = np.pad(a.astype(np.float64), pad), np.pad(b.astype(np.float64), pad)
    s = np.zeros((len(a), len(b), 8))
    for d in range(0, a.shape[1], 8):
        s += a[:, None, d : d + 8] * b[None, :, d : d + 8]
    s = np.moveaxis(s, 2, 0)
    return ((s[0] + s[4]) + (s[2] + s[6])) + ((s[1] + s[5]) + (s[3] + s[7]))


def norms(vectors):
    return np.array([math.sqrt(canonical_matrix(x[None], x[None])[0, 0]) for x in vectors])


def directions(vectors, center):
    """Directions of the rows that have one, and the numbers of these rows."""
    centered = (vectors - center).astype(np.float32)
    length = norms(centered)
    rows = np.flatnonzero(length > SMALLEST_RELATIVE_NORM * norms(center[None])[0])
    return (centered[rows].astype(np.float64) / length[rows, None]).astype(np.float32), rows


def leader(u, threshold, rows=None, batch=0):
    """Founders, and the region and distance each row had when it joined.

    batch = 0: the nearest exemplar founded up to the row. batch = B: the nearest of those founded
    before the row's batch of B if it is within θ, else of those the batch has founded so far; the
    very first exemplar counts as founded before its batch.
    """
    founders, region, distance = [], [], []
    before, current = 0, None
    for i in range(len(u)):
        number = i if rows is None else int(rows[i])
        if batch and number // batch != current:
            current, before = number // batch, len(founders)
        s = canonical_matrix(u[i : i + 1], u[founders])[0]
        covered = len(s) > 0 and s.max() >= 1.0 - threshold
        if not covered:
            region.append(len(founders))
            distance.append(0.0)
            founders.append(i)
            before = max(before, 1)
            continue
        if batch and s[:before].max() < 1.0 - threshold:
            s[:before] = -np.inf
        elif batch:
            s = s[:before]
        region.append(int(s.argmax()))  # the first of equals
        distance.append(float(np.clip(1.0 - s.max(), 0.0, 2.0)))
    return np.array(founders, int), np.array(region, int), np.array(distance)


def census(u, exemplars):
    """The nearest of all exemplars, the first of equals, and the distance to it."""
    s = np.concatenate([canonical_matrix(x[None], exemplars) for x in u])
    return s.argmax(axis=1), np.clip(1.0 - s.max(axis=1), 0.0, 2.0)


def splitmix64(x):
    mask = 2**64 - 1
    z = (x + 0x9E3779B97F4A7C15) & mask
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & mask
    return z ^ (z >> 31)


def statistics(u, region, distance, rows, n_regions, threshold, seed=0):
    """One dict a region, of what its members come to."""
    found = []
    for k in range(n_regions):
        mine = np.flatnonzero(region == k)
        d, r = distance[mine], np.asarray(rows)[mine]
        total = u[mine].astype(np.float64).sum(axis=0)
        by_hash = sorted((splitmix64((splitmix64(seed) + int(n)) % 2**64), n) for n in r.tolist())
        bins = np.minimum((d * (32 / threshold)).astype(int), 63)
        found.append(
            {
                "count": len(mine),
                "sum": total,
                "distance_sum": math.fsum(d),
                "distance_square_sum": math.fsum(d * d),
                "histogram": np.bincount(bins, minlength=64),
                "nearest": sorted(zip(d.tolist(), r.tolist(), strict=True))[:10],
                "farthest": sorted(zip((-d).tolist(), r.tolist(), strict=True))[:10],
                "sample": [n for _, n in by_hash[:30]],
            }
        )
    return found
