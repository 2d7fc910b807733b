r"""Quality against tokens and against seconds: Exemplar Partitioning (EP) beside a trained SAE.

    python bench/sae_curves.py rows OUT
    python bench/sae_curves.py train OUT --saelens-python env-saelens/bin/python
    python bench/sae_curves.py measure OUT
    python bench/sae_curves.py figure OUT

Both sides read the same streams: the activations of AxBench's training texts (bench/concepts.py),
documents permuted by a seed, labels unused. EP is calibrated on the first rows of a stream and
built on its first n; an SAE is trained on the same rows in the same order (bench/train_sae.py), and
then on the same rows again. Both are evaluated on evaluation texts, of which neither has seen one.

`rows` writes the streams for SAELens' environment (see train_sae.py), `train` chooses a learning
rate by held-out reconstruction and trains, `measure` appends rows to results/sae.jsonl, `figure`
draws docs/figures/ep_against_sae from those rows alone. Measure with one thread: seconds are of the
processor (OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from pathlib import Path

import numpy as np

SITE = "resid_post.18"
SEEDS = 3
PERCENTILE = 2.0
TOKENS = (2_048, 5_120, 10_240, 20_480, 50_176, 100_352, 250_880)
"""Multiples of a training batch, so that both sides read the same rows."""
REPEATED = (501_760, 1_003_520)
"""Of the SAE alone: the same rows again."""
TRIALS = ((256, 3e-4), (256, 1e-3), (256, 3e-3), (1024, 1e-3), (1024, 3e-3))
"""Batch size and learning rate, of which the best reconstruction is taken."""
TRIAL_TOKENS = 100_352
K_ACTIVE = 32
RUNS = {"sae-0": (0, K_ACTIVE), "reference": (2, K_ACTIVE), "sae-1": (1, K_ACTIVE), "k1-0": (0, 1)}
"""Of each run, in order: the seed, which also names the stream, and the number of active latents."""


def site_of(options: argparse.Namespace):
    import concepts
    import exemplars as ex

    kept = ex.ActivationShards.open(options.cache / "smollm2-135m-instruct-concepts")
    return concepts.load(kept, SITE, 10**9, SEEDS)


def build(site, seed: int, n: int, percentile: float = PERCENTILE):
    """A dictionary of the first n rows of a stream, and the processor's seconds for it."""
    import concepts
    import exemplars as ex

    rows = site.raw[site.streams[seed][:n]]
    started = time.process_time()
    calibration = ex.calibrate(rows[: concepts.CALIBRATION_ROWS], [percentile], norm_multiple=10.0)
    dictionary = ex.partition(rows, calibration)
    return dictionary, time.process_time() - started


def write_rows(options: argparse.Namespace) -> None:
    import torch
    from safetensors.torch import save_file

    site = site_of(options)
    options.out.mkdir(parents=True, exist_ok=True)
    for seed, stream in enumerate(site.streams):
        vectors = torch.from_numpy(site.raw[stream]).bfloat16()  # as they were kept
        save_file({"vectors": vectors}, options.out / f"stream-{seed}.safetensors")
    regions = len(build(site, 0, TOKENS[-1])[0])
    about = {"rows": len(site.streams[0]), "latents": regions}
    (options.out / "streams.json").write_text(json.dumps(about))
    print(about)


def train(options: argparse.Namespace) -> None:
    latents = json.loads((options.out / "streams.json").read_text())["latents"]

    def run(name: str, seed: int, k: int, trial: tuple[int, float], *more: object) -> None:
        folder = options.out / name
        if (folder / "done").exists():
            return
        (folder / "training.jsonl").unlink(missing_ok=True)
        batch, rate = trial
        vectors = options.out / f"stream-{seed}.safetensors"
        command = [
            options.saelens_python, Path(__file__).with_name("train_sae.py"), vectors,
            "--out", folder, "--latents", latents, "--k", k, "--batch", batch, "--lr", rate,
            "--seed", seed, "--order", "stream", "--threads", 1, *more,
        ]  # fmt: skip
        subprocess.run([str(part) for part in command], check=True)
        (folder / "done").touch()

    for trial in TRIALS:
        run(f"trial-{trial[0]}-{trial[1]:g}", 0, K_ACTIVE, trial, "--tokens", TRIAL_TOKENS)
    best = chosen(options.out)
    print(f"batch {best[0]}, learning rate {best[1]:g}", flush=True)
    marks = ",".join(map(str, (0, *TOKENS, *REPEATED)))
    for name, (seed, k) in RUNS.items():
        end = TOKENS[-1] if name == "k1-0" else REPEATED[-1]
        run(name, seed, k, best, "--tokens", end, "--checkpoints", marks, "--held-out", 0.01)


def chosen(out: Path) -> tuple[int, float]:
    """The trial that explains most of the held-out rows."""
    return min(TRIALS, key=lambda trial: lines(out / f"trial-{trial[0]}-{trial[1]:g}")[-1]["fvu"])


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stages = {"rows": write_rows, "train": train}
    parser.add_argument("stage", choices=stages)
    parser.add_argument("out", type=Path, help="folder of streams and SAEs")
    parser.add_argument("--saelens-python", help="of an environment with sae-lens")
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--cache", type=Path, default=home / "bench")
    options = parser.parse_args()
    stages[options.stage](options)


if __name__ == "__main__":
    main()
