"""Dictionaries of any size from a seed: clustered exemplars, members, and made-up contexts."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from exemplars.calibration import Calibration
from exemplars.contexts import TableContexts, contexts_schema
from exemplars.dictionary import Dictionary
from exemplars.members import HISTOGRAM_BINS, MemberStatistics

THETA = 0.6
SYLLABLES = ("ba", "den", "fi", "gor", "hul", "ka", "lem", "mo", "nis", "pu", "ra", "sil", "tov")
HOSTILE = (
    "<img src=x onerror=window.__pwn=1>",
    "</script><script>window.__pwn=2</script>",
    '" onmouseover="window.__pwn=3',
    "javascript:window.__pwn=4",
    "${window.__pwn=5}",
    '{{constructor.constructor("window.__pwn=6")()}}',
    "<!--<script>",
    "\u2028\u2029window.__pwn=7",
    "\u202egnp.exe",
    "]]>",
    '{"type":"script","props":{"dangerouslySetInnerHTML":{"__html":"x"}}}',
    "=cmd|' /C calc'!A0",
    "\x00\x01\x02\x1b[31m",
    "naïve 🌊👩‍👩‍👧 שלום",
)
"""Texts that are only text, wherever they are shown."""


def exemplars(k: int, width: int, seed: int = 0, coincident: int = 0) -> np.ndarray:
    """(k, width) unit rows about cluster centers; the last `coincident` repeat the first."""
    rng = np.random.default_rng(seed)
    rank = min(64, width)
    basis = rng.standard_normal((rank, width), np.float32)
    basis *= (np.float32(0.9) ** np.arange(rank, dtype=np.float32))[:, None]
    centers = 1.5 * rng.standard_normal((max(4, k // 200), rank), np.float32)
    found = np.empty((k, width), np.float32)
    for start in range(0, k, 20_000):
        n = min(20_000, k - start)
        near = centers[rng.integers(0, len(centers), n)] + rng.standard_normal(
            (n, rank), np.float32
        )
        rows = near @ basis + np.float32(0.25) * rng.standard_normal((n, width), np.float32)
        found[start : start + n] = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    if coincident:
        found[-coincident:] = found[:coincident]
    return found


def members_of(rows: np.ndarray, seed: int = 0) -> MemberStatistics:
    """Statistics of members that were never there: Pareto counts, plausible distances."""
    rng = np.random.default_rng(seed)
    k = len(rows)
    counts = np.minimum(rng.pareto(1.2, k) * 4 + 1, 1e6).astype(np.int64)
    histogram = np.zeros((k, HISTOGRAM_BINS), np.uint32)
    bins = np.sort(rng.integers(8, 32, (k, 3)), axis=1)
    index = np.arange(k)
    histogram[index, bins[:, 1]] += (
        (counts - 1 - counts // 2 - counts // 4).clip(0).astype(np.uint32)
    )
    histogram[index, bins[:, 0]] += (counts // 2).astype(np.uint32)
    histogram[index, bins[:, 2]] += (counts // 4).astype(np.uint32)
    histogram[index, 0] += (counts - histogram.sum(axis=1)).clip(0).astype(np.uint32)
    middle = (np.arange(HISTOGRAM_BINS) + 0.5) / 32 * THETA
    return MemberStatistics(
        counts=counts,
        means=rows,
        coherence=rng.uniform(0.4, 1.0, k).astype(np.float32),
        distance_sums=histogram @ middle,
        distance_square_sums=histogram @ middle**2,
        histogram=histogram,
    )


def contexts_of(k: int, each: int = 3, seed: int = 0, hostile: bool = False) -> TableContexts:
    """`each` contexts a region, of words that recur."""
    rng = np.random.default_rng(seed)
    words = ["".join(rng.choice(SYLLABLES, rng.integers(1, 4))) for _ in range(2000)]
    weight = 1 / np.arange(1, len(words) + 1)
    n = k * each
    passages = [
        " ".join(rng.choice(words, 12, p=weight / weight.sum())) for _ in range(min(n, 5000))
    ]
    picked = rng.integers(0, len(words), n)
    tokens = [f" {words[i]}" for i in picked]
    before = [passages[i] for i in rng.integers(0, len(passages), n)]
    after = [f" {passages[i]}" for i in rng.integers(0, len(passages), n)]
    if hostile:
        tokens = [HOSTILE[i % len(HOSTILE)] for i in range(n)]
        before = [HOSTILE[(i + 3) % len(HOSTILE)] for i in range(n)]
    rank = np.tile(np.arange(each), k)
    columns = {
        "region": np.repeat(np.arange(k), each),
        "row": np.arange(n) * 7,
        "distance": THETA * rank / each,
        "document": np.arange(n) // 50,
        "position": np.arange(n) % 50,
        "token": picked,
        "before": before,
        "text": tokens,
        "after": after,
        "name": [HOSTILE[0] if hostile else "made-up.txt"] * n,
        "exemplar": rank == 0,
        "nearest_rank": rank,
        "farthest_rank": each - 1 - rank,
        "sample_rank": rank,
    }
    schema = contexts_schema()
    arrays = [pa.array(columns[f.name]).cast(f.type) for f in schema]
    return TableContexts(pa.Table.from_arrays(arrays, schema=schema))


def dictionary_of(
    rows: np.ndarray, seed: int = 0, contexts: int = 3, hostile: bool = False, theta: float = THETA
) -> Dictionary:
    """A dictionary with these exemplars."""
    k, width = rows.shape
    calibration = Calibration(
        center=np.full(width, 0.5, np.float32),
        thresholds={10.0: theta},
        rows=1000,
        block_rows=100,
        vector_norms=(8.0, 10.0, 12.0),
        centered_norms=(7.0, 9.0, 11.0),
        norm_limit=None,
        dropped={"norm outlier": 0, "no direction": 0},
        source={},
    )
    return Dictionary(
        exemplars=rows,
        exemplar_rows=np.arange(k, dtype=np.int64) * 7 * max(contexts, 1),
        members=members_of(rows, seed),
        calibration=calibration,
        percentile=10.0,
        membership="online",
        rows=k * 100,
        contexts=contexts_of(k, contexts, seed, hostile) if contexts else None,
        provenance={"site": {"name": "resid_post.1"}},
    )


def synthetic(k: int, width: int = 32, seed: int = 0, **options: object) -> Dictionary:
    """A dictionary of k regions."""
    coincident = int(options.pop("coincident", 0))
    return dictionary_of(exemplars(k, width, seed, coincident), seed, **options)
