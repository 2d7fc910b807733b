"""Rows of bench/results: what was measured, with which inputs, versions, and commit."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
SHARED = Path(os.environ.get("EXEMPLARS_SHARED", Path(__file__).parents[2] / "shared"))


def write(benchmark: str, **values: object) -> None:
    """Append one row to results/BENCHMARK.jsonl, and print it."""
    row = {
        "benchmark": benchmark,
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "machine": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "versions": {
            name: importlib.metadata.version(name)
            for name in ("exemplars", "numpy", "numba", "torch", "transformers")
        }
        | {"python": platform.python_version()},
        **values,
    }
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f"{benchmark}.jsonl").open("a") as file:
        file.write(json.dumps(row) + "\n")
    print(json.dumps(values, indent=1))


def markdown(header: Sequence[str], lines: Iterable[Sequence[object]]) -> str:
    """A table of a docs page."""
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, rule, *lines))


def _commit() -> str:
    root = Path(__file__).parent
    found = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=root
    )
    dirty = subprocess.run(
        ["git", "status", "--porcelain", "--", "../src", "."],
        capture_output=True, text=True, cwd=root,
    )  # fmt: skip
    changed = [line for line in dirty.stdout.splitlines() if "results/" not in line]
    return found.stdout.strip() + ("+" if changed else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
