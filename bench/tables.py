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


NAMES = {
    "numpy": "numpy product, argmax",
    "auto": "auto, first call",
    "auto_warm": "auto, later calls",
    "without_bytes": "no bytes, first call",
    "dense": "dense screen",
}


def assign(rows: list[dict]) -> str:
    lines = "\n".join(
        f"| {row['title']} | {row['width']:,} | {row['regions']:,} | {row['us_per_row']['numpy']:,.1f} | "
        + " | ".join(
            f"{row['us_per_row'][k]:,.1f} ({row['ratios'][k]:.2f})" for k in list(NAMES)[1:]
        )
        + f" | {row['plans']['auto']}, {row['plans']['without bytes']} |"
        for row in rows
    )
    head = " | ".join(NAMES.values())
    return f"""## Assigning rows

`Dictionary.assign` of {rows[0]["rows"]:,} raw float32 rows that had no part in the dictionary, microseconds a row on
one thread; in brackets, how many times faster than numpy's float32 directions, product with all exemplars and
argmax (which gives no distances). A first call makes and plans its index; "no bytes" is what a processor without AVX-512 VNNI gets. Medians of
{rows[0]["rounds"]} rounds in turn. Regions are the same with all screens, and those of a float64 product on 1,024 rows;
numpy's own are equal in {min(row["numpy_equal"] for row in rows):.3%} of the rows at least. Activations come in source order. Rows of
the synthetic stream have {_energies(rows)} of their energy in the first 32, 64, 128, 256 axes.

| rows | D | K | {head} | plans |
|---|---|---|{"---|" * len(NAMES)}---|
{lines}

{_gaussian(rows)}{provenance(rows[-1])}
"""


def _energies(rows: list[dict]) -> str:
    found = [e for row in rows if (e := row["inputs"].get("energy_of_first_axes"))]
    return ", ".join(f"{value:.0%}" for value in found[0].values()) if found else "(not measured)"


def _gaussian(rows: list[dict]) -> str:
    row = next((row for row in rows if "Gaussian" in row["title"]), None)
    if row is None:
        return ""
    loss = row["loss_without_bytes"]
    return (
        "Isotropic rows are the worst case: no axes bound anything. There a first call without bytes takes "
        f"**{abs(loss):.1%} {'more' if loss > 0 else 'less'}** than numpy.\n\n"
    )


def builds(rows: list[dict]) -> str:
    lines = "\n".join(
        f"| {row['inputs']['percentile']:g} | {row['regions']:,} | {statistics.median(row['seconds']['ours']):.2f} | "
        f"{statistics.median(row['seconds']['published']):.2f} | **{row['ratio']:.2f}** | "
        f"{statistics.median(row['rows_per_s_last_quarter']['ours']):,.0f} | "
        f"{statistics.median(row['rows_per_s_last_quarter']['published']):,.0f} | {row['ratio_last_quarter']:.2f} |"
        for row in rows
    )
    equal = all(row["exemplar_rows_equal"] for row in rows)
    return f"""## Clustering with all statistics

{rows[0]["rows"]:,} rows of {rows[0]["inputs"]["activations"]}, one thread, {rows[0]["rounds"]} rounds in turn,
against adding batches of {rows[0]["published_batch_rows"]:,} as the published code does (`bench/published_batches.py`). The rows that founded
regions are {"the same" if equal else "the same but for float32 rounding at the threshold"}.

| p | K | exemplars, s | the published way, s | ratio | rows/s at the end | the published way | ratio |
|---|---|---|---|---|---|---|---|
{lines}

{provenance(rows[0])}
"""


def calibration(rows: list[dict]) -> str:
    row = rows[0]
    scaled, blocks = row["seconds_scaled"], row["blocks"]
    return f"""## Calibration

{len(row["percentiles"]["ours"])} percentiles of pairwise distance of {row["rows"]:,} rows in blocks of {row["block_rows"]:,} (the first
{row["inputs"]["rows_used"]:,} rows of {row["inputs"]["activations"]}, over and over in other blocks) take {scaled["ours"]:.1f} s
on one thread; scipy's `pdist` and numpy's `percentile` take {scaled["scipy"]:.0f} s for one ({blocks["scipy"]} blocks timed, scaled to
{blocks["ours"]}): **{row["ratio"]:.1f} times** as long. Values differ by {row["largest_difference"]:.0e} at most.

{provenance(row)}
"""


def clustering_share(rows: list[dict]) -> str:
    row = rows[0]
    total, clustering, forward, contexts = (
        statistics.median(row["seconds"][k]) for k in ("total", "clustering", "forward", "contexts")
    )
    return f"""## Clustering beside the model

A build of {row["rows"]:,} rows of {row["inputs"]["activations"]} with the model, p = {row["inputs"]["percentile"]:g},
{row["regions"]:,} regions, calibration given, {row["threads"]["torch"]} threads: {total:.1f} s, of which clustering and
statistics take {clustering:.2f} s: **{row["share"]:.1%}** (the forward pass: {forward:.1f} s). Looking up contexts takes {contexts:.2f} s.

{provenance(row)}
"""


def length(rows: list[dict]) -> str:
    row = rows[0]
    (few, slow), (many, fast) = row["rows_per_s"].items()
    return f"""## Long streams

Synthetic rows (D = {row["width"]}, {row["regions"][many]:,} regions after the first 20,000 rows and at the end), clustering and
statistics, one thread: {slow:,.0f} rows/s round row {int(few):,} and {fast:,.0f} rows/s round row {int(many):,}, two builds fed in turn:
**{row["ratio"]:.3f} times**.

{provenance(row)}
"""


def roofline(rows: list[dict]) -> str:
    lines = "\n".join(
        f"| {row['title']} | {row['plan']} | {_rates(row)} | {_terms(row)} | {row['roofline_us_per_row']:.1f} | "
        f"{row['us_per_row']['nearest']:.1f} | {row['share']:.0%} |"
        for row in rows
    )
    return f"""## The search against what the processor could do

Microseconds a row of the search for the nearest exemplar of directions, with an index made before, against the sum
of its parts at the best rates measured beside it: float32 products (numpy), products of bytes within the second
cache, copies within it for the two sweeps over the bounds, and canonical similarities with exemplars anywhere.

| rows | plan | float32, bytes (GOP/s) | projection + bytes + sweeps + finer + checks | sum | measured | share |
|---|---|---|---|---|---|---|
{lines}

{provenance(rows[0])}
"""


def _rates(row: dict) -> str:
    return ", ".join(f"{row['operations_per_s'][k] / 1e9:,.0f}" for k in ("float", "byte"))


def _terms(row: dict) -> str:
    return " + ".join(f"{value:.1f}" for value in row["terms_us_per_row"].values())


def growth(rows: list[dict]) -> str:
    lines = "\n".join(
        f"| {row['width']:,} | {int(k):,} | {us['numpy']:,.1f} | {us['auto']:,.1f} | {row['ratios'][k]:.2f} | {row['plans'][k]} |"
        for row in rows
        for k, us in row["us_per_row"].items()
    )
    return f"""## Growth with K

Nearest exemplar only, directions given, with an index made before; synthetic rows, one thread. Every exemplar is
bounded, so the search stays linear in K; where auto grows less, the nearest exemplar has come nearer and leaves fewer
others open. From the second K to the last, {_growth(rows)}.

| D | K | numpy product, argmax, µs/row | auto, µs/row | ratio | plan |
|---|---|---|---|---|---|
{lines}

{provenance(rows[0])}
"""


def _growth(rows: list[dict]) -> str:
    return "; ".join(
        f"numpy takes {row['growth']['numpy']:.1f} and auto {row['growth']['auto']:.1f} times as long (D = {row['width']:,})"
        for row in rows
    )


def large(rows: list[dict]) -> str:
    lines = "\n".join(
        f"| {row['verb']} | {int(n):,} | {run['peak'] / 1e9:.2f} | {run['mapped'] / 1e9:.2f} | {run['rows_per_s']:,.0f} | {run['plan']} |"
        for row in rows
        for n, run in row["runs"].items()
    )
    row = rows[0]
    return f"""## Large dictionaries

Synthetic, {row["regions"]:,} regions at width {row["width"]:,}, mapped from disk ({4 * row["regions"] * row["width"] / 1e9:.2f} GB of exemplars);
rows near 5,000 of them, each run in a process of its own, planning counted, {", ".join(f"{r['verb']} peaks at {r['ratio']:.3f} times" for r in rows)}
for four times the rows. A census adds sums for the regions that rows fall in, and their means: 12 bytes a component.

| | rows | peak, GB | of which mapped | rows/s | plan |
|---|---|---|---|---|---|
{lines}

{provenance(row)}
"""


ENGINE = {
    "assign": assign,
    "k": growth,
    "roofline": roofline,
    "build": builds,
    "length": length,
    "forward": clustering_share,
    "calibration": calibration,
    "large": large,
}
"""Sections of bench/engine.py and bench/large.py, each from all rows of a measurement."""

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
    for measure, make in ENGINE.items():
        measured = [row for row in rows.values() if row.get("measure") == measure]
        if measured:
            parts.append(make(measured))
    PAGE.write_text("\n".join(parts))


if __name__ == "__main__":
    main()
