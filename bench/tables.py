"""docs/performance.md from the newest rows of bench/results."""

from __future__ import annotations

import json
import statistics
from pathlib import Path

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "performance.md"

HEAD = """# Performance

Made by `python bench/tables.py` from `bench/results/*.jsonl`; `make bench` measures anew. Ratios are of
medians of runs in turn, in one process or one call; absolute times are of a shared machine and drift.
"""


def newest() -> dict[str, dict]:
    """The last row of each measurement."""
    rows: dict[str, dict] = {}
    for file in sorted((HERE / "results").glob("*.jsonl")):
        for line in file.read_text().splitlines():
            row = json.loads(line)
            rows[row["what"]] = row
    return rows


def provenance(row: dict) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in row["versions"].items())
    return f"*{row['date']}, commit {row['commit']}, {row['machine']}; {versions}.*"


def end_to_end(row: dict) -> str:
    ours, theirs = (statistics.median(row["seconds"][k]) for k in ("ours", "published"))
    rate = row["rows_per_s"]
    return f"""## End to end against the published pipeline's way of working

SmolLM2-135M-Instruct, {row["site"]}, p = {row["percentile"]:g}, bfloat16 on both sides,
{row["rows"]:,} rows of the reference documents, calibration on the first 5,000 rows counted on both sides,
{len(row["seconds"]["ours"])} rounds in turn. The baseline (`bench/published_pipeline.py`) runs the whole model to the
logits in right-padded unsorted batches of 32, and clusters with a dense float32 product and Python
bookkeeping row by row; it reads the calibration rows a second time, as the published code does.

| | seconds | rows/s | regions |
|---|---|---|---|
| exemplars | {ours:.2f} | {rate["ours"]:,.0f} | {row["regions"]["ours"]} |
| the published way | {theirs:.2f} | {rate["published"]:,.0f} | {row["regions"]["published"]} |

**{row["ratio"]:.2f} times faster.** (The numbers of regions differ because the published θ depends on its
batches.) Most of it is the early exit, the sorted batches, and reading each row once.

{provenance(row)}
"""


def several(row: dict) -> str:
    return f"""## Many dictionaries in one pass

4 sites x 5 percentiles (20 dictionaries) against a single one at the same deepest site, {row["rows"]:,} rows,
everything counted (calibration, clustering, contexts, saving): **{row["ratio"]:.2f} times** its time.

{provenance(row)}
"""


def forward(row: dict) -> str:
    return f"""## The forward pass

The pass to layer 15 does {row["forward_flop_per_s"] / 1e9:,.0f} GFLOP/s in weight products, {row["share"]:.0%} of the
{row["peak_flop_per_s"] / 1e9:,.0f} GFLOP/s that the best bfloat16 matrix product of the same run reaches on this machine.
The rest is attention, norms, rotations and copies, in transformers' code.

{provenance(row)}
"""


def startup(row: dict) -> str:
    lines = "\n".join(f"| `{name}` | {value:.3f} |" for name, value in row["median_s"].items())
    return f"""## Starting

Whole processes, medians of {row["runs"]}.

| | seconds |
|---|---|
{lines}

{provenance(row)}
"""


def memory(row: dict) -> str:
    small, large = row["peak_bytes"]["100000"], row["peak_bytes"]["1000000"]
    k = row["regions"]["1000000"]
    return f"""## Memory

A build from shards of synthetic rows (D = {row["width"]}, {row["regions"]["100000"]:,} and {k:,} regions), each in a
process of its own: peak {small / 1e6:,.0f} MB for 100,000 rows, {large / 1e6:,.0f} MB for 1,000,000: **{row["ratio"]:.3f} times**.

{provenance(row)}
"""


def disk(row: dict) -> str:
    return f"""## Disk

A dictionary of the reference documents ({row["regions"]} regions, D = {row["width"]}): {row["bytes_per_region"]:,.0f} bytes a region on
disk, of which {row["contexts_bytes_per_region"]:,.0f} are contexts; the bound is 8·D + 6,000 = {8 * row["width"] + 6000:,}. What the
published format stores of the same regions (30 float32 member directions, 20 whole prompts, every member's row)
would take {row["published_bytes_per_region"]:,.0f}: **{row["ratio"]:.1f} times** as much.

{provenance(row)}
"""


SECTIONS = {
    "end to end against the published pipeline": end_to_end,
    "4 sites x 5 percentiles against 1 x 1, same deepest site": several,
    "forward pass, share of the measured bfloat16 matrix-product peak": forward,
    "whole processes": startup,
    "peak memory, 1,000,000 rows against 100,000": memory,
    "bytes on disk per region": disk,
}


def main() -> None:
    rows = newest()
    parts = [HEAD, *(make(rows[what]) for what, make in SECTIONS.items() if what in rows)]
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
