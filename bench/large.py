"""Assign and census with a dictionary of 200,000 regions at width 2,304, mapped from disk.

Synthetic: exemplars about random centers, rows near some of them. Each run has a process of its
own; peak memory for four times the rows shows whether it is bounded.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

import rows as results

REGIONS, WIDTH, NEAR = 200_000, 2_304, 5_000
ROWS = (25_000, 100_000)
PART = 20_000


def exemplars():
    """All of them, unit length."""
    rng = np.random.default_rng(0)
    scale = np.exp(-np.arange(WIDTH) / 64).astype(np.float32) + np.float32(0.02)
    found = np.empty((REGIONS, WIDTH), np.float32)
    for first in range(0, REGIONS, PART):
        part = found[first : first + PART]
        part[:] = rng.standard_normal(part.shape, np.float32) * scale
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    return found


def save(folder: Path) -> None:
    from exemplars import store
    from exemplars.calibration import Calibration
    from exemplars.dictionary import Dictionary
    from exemplars.members import MemberStatistics

    found, ones = exemplars(), np.ones(REGIONS)
    dictionary = Dictionary(
        exemplars=found,
        exemplar_rows=np.arange(REGIONS),
        members=MemberStatistics(
            counts=ones.astype(np.int64), means=found, coherence=ones.astype(np.float32),
            distance_sums=0 * ones, distance_square_sums=0 * ones,
            histogram=np.zeros((REGIONS, 64), np.uint32),
        ),
        calibration=Calibration(np.zeros(WIDTH, np.float32), {1.0: 0.5}, REGIONS, 2048),
        percentile=1.0,
        membership="online",
        rows=REGIONS,
    )  # fmt: skip
    store.save(dictionary, folder)


def batches(dictionary, n_rows):
    """Rows near the first exemplars, 5,000 at a time."""
    rng = np.random.default_rng(1)
    centers = np.array(dictionary.exemplars[:NEAR])
    for _ in range(0, n_rows, 5_000):
        near = centers[rng.integers(0, NEAR, 5_000)]
        yield near + rng.standard_normal(near.shape, np.float32) * np.float32(0.6 / WIDTH**0.5)


def measure(verb: str, folder: str, n_rows: int) -> None:
    import exemplars as ex
    from exemplars.dictionary import take_census

    dictionary = ex.load(folder)
    started = time.perf_counter()
    if verb == "assign":
        for x in batches(dictionary, n_rows):
            dictionary.assign(x)
    else:
        statistics = take_census(dictionary, batches(dictionary, n_rows)).statistics()
        assert statistics.counts.sum() == n_rows
    elapsed = time.perf_counter() - started
    status = Path("/proc/self/status").read_text()
    peak, mapped = (
        int(re.search(rf"{name}:\s+(\d+) kB", status)[1]) * 1024 for name in ("VmHWM", "RssFile")
    )
    plan = dictionary.index().plan
    found = {"peak": peak, "mapped": mapped, "rows_per_s": n_rows / elapsed}
    print(json.dumps(found | {"plan": f"{plan.kind} {plan.axes}"}))


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder) / "dictionary")
        for verb in ("assign", "census"):
            found = {}
            for n_rows in ROWS:
                command = [sys.executable, __file__, verb, f"{folder}/dictionary", str(n_rows)]
                run = subprocess.run(command, check=True, capture_output=True, text=True)
                found[n_rows] = json.loads(run.stdout.splitlines()[-1])
            few, many = (found[n] for n in ROWS)
            results.write(
                "memory",
                measure="large",
                what=f"{verb}, {REGIONS:,} regions at width {WIDTH:,}",
                verb=verb,
                width=WIDTH,
                regions=REGIONS,
                runs={str(n): run for n, run in found.items()},
                ratio=many["peak"] / few["peak"],
            )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main()
