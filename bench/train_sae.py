r"""Train a TopK SAE on kept activations with SAELens, and save it as it comes along.

It is the other side of a comparison by tokens and by seconds. It runs in SAELens' environment, not
in this project's:

    python3 -m venv env-saelens && env-saelens/bin/pip install sae-lens==6.54.12
    env-saelens/bin/python bench/train_sae.py rows.safetensors --out sae --latents 2048 --k 32 \
        --tokens 1000000 --checkpoints 50000,100000,200000,500000

`rows.safetensors` has one tensor "vectors" (N, D), float32 or bfloat16, in stream order; a .npy
file of that array will do too. The last rows (--held-out, a tenth) are never trained on. The rest
is read as often as --tokens needs, permuted anew each time (--order shuffled), or the first time
as it comes (--order stream), which is how a dictionary sees it.

Each checkpoint is a folder OUT/tokens-N in the format of SAELens, input scale folded into the
weights, with a training.json beside it; OUT/training.jsonl has a line for each:

    tokens            rows trained on, repetitions included
    rows_seen         different rows among them
    seconds           in training steps alone; reading, saving and measuring are not in it
    cpu_seconds       processor time of these steps, all threads: less at the mercy of other work
    fvu               held-out squared error over the variance about the mean of the held-out rows
    explained         1 - fvu
    l0                mean number of active latents a row
    dead_held_out     share of latents that no held-out row activates
    dead_training     share of latents that were idle for the last --dead-tokens rows of training

The training is SAELens' own (TopKTrainingSAE, SAETrainer: Adam, auxiliary loss for dead latents,
gradients clipped to 1). Before it, rows are scaled to a mean length of √D, and the decoder's bias
starts as the mean of the first rows. Rows longer than --norm-multiple medians are left out, as a
dictionary's build leaves them out.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch


def read_vectors(path: Path) -> torch.Tensor:
    """(N, D) float32."""
    if path.suffix == ".npy":
        return torch.from_numpy(np.load(path)).float()
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        if "vectors" not in file.keys():  # noqa: SIM118
            raise SystemExit(f'{path} has no tensor "vectors"')
        return file.get_tensor("vectors").float()


def batches(rows: torch.Tensor, size: int, order: str, seed: int) -> Iterator[torch.Tensor]:
    """Batches without end: every row once, then every row again in another order."""
    generator = torch.Generator().manual_seed(seed)
    first = order == "stream"
    while True:
        places = (
            torch.arange(len(rows)) if first else torch.randperm(len(rows), generator=generator)
        )
        first = False
        for start in range(0, len(rows) - size + 1, size):
            yield rows[places[start : start + size]]


def trainer_of(arguments: argparse.Namespace, rows: torch.Tensor) -> Any:
    """SAELens' trainer with an SAE that has seen nothing but the mean of some rows."""
    from sae_lens.config import LoggingConfig, SAETrainerConfig
    from sae_lens.saes.topk_sae import TopKTrainingSAE, TopKTrainingSAEConfig
    from sae_lens.training.sae_trainer import SAETrainer

    sae = TopKTrainingSAE(
        TopKTrainingSAEConfig(
            d_in=rows.shape[1], d_sae=arguments.latents, k=arguments.k, normalize_activations="none"
        )
    )
    sae.cfg.metadata.hook_name = arguments.site
    sae.cfg.metadata.model_name = arguments.model
    with torch.no_grad():
        sae.b_dec.copy_(rows[: 16 * arguments.batch].mean(0))
    steps = math.ceil(arguments.tokens / arguments.batch)
    settings = SAETrainerConfig(
        total_training_samples=arguments.tokens,
        train_batch_size_samples=arguments.batch,
        lr=arguments.lr,
        lr_end=arguments.lr,
        lr_warm_up_steps=min(arguments.warm_up, steps // 4),
        dead_feature_window=max(1, arguments.dead_tokens // arguments.batch),
        logger=LoggingConfig(log_to_wandb=False),
    )
    provider = batches(rows, arguments.batch, arguments.order, arguments.seed)
    return SAETrainer(settings, sae, provider)


@torch.no_grad()
def quality(folder: Path, held_out: torch.Tensor) -> dict[str, float]:
    """Of the SAE as saved, on raw rows."""
    from sae_lens import SAE

    sae = SAE.load_from_disk(folder)
    error, active = 0.0, torch.zeros(sae.cfg.d_sae)
    for rows in held_out.split(2048):
        codes = sae.encode(rows)
        error += float(((sae.decode(codes) - rows) ** 2).sum(dtype=torch.float64))
        active += (codes > 0).sum(0)
    variance = float(((held_out - held_out.mean(0)) ** 2).sum(dtype=torch.float64))
    return {
        "fvu": error / variance,
        "explained": 1 - error / variance,
        "l0": float(active.sum()) / len(held_out),
        "dead_held_out": float((active == 0).float().mean()),
    }


def save(trainer: Any, folder: Path, scale: float) -> None:
    """The SAE for raw rows; the one in training stays as it is."""
    sae = copy.deepcopy(trainer.sae)
    sae.fold_activation_norm_scaling_factor(scale)
    sae.save_inference_model(folder)


def train(arguments: argparse.Namespace) -> None:
    vectors = read_vectors(arguments.vectors)
    length = vectors.norm(dim=1)
    usable = length <= arguments.norm_multiple * length.median()
    vectors = vectors[usable]
    n_train = int(len(vectors) * (1 - arguments.held_out))
    if n_train < arguments.batch or n_train == len(vectors):
        raise SystemExit(f"{len(vectors)} rows are too few for this batch and held-out share")
    rows, held_out = vectors[:n_train], vectors[n_train:]
    scale = math.sqrt(vectors.shape[1]) / float(rows.norm(dim=1).mean())
    rows *= scale
    torch.manual_seed(arguments.seed)
    trainer = trainer_of(arguments, rows)
    wanted = sorted({t for t in arguments.checkpoints if t < arguments.tokens} | {arguments.tokens})
    arguments.out.mkdir(parents=True, exist_ok=True)
    about = {
        name: str(value) if isinstance(value, Path) else value
        for name, value in vars(arguments).items()
    }
    about |= {"rows": n_train, "left_out": int((~usable).sum()), "width": vectors.shape[1]}
    seconds = cpu = 0.0
    loss = None
    while wanted:
        tokens = trainer.n_training_samples
        if tokens < wanted[0]:
            started, started_cpu = time.perf_counter(), time.process_time()
            loss = trainer.step(next(trainer.data_provider)).loss.detach()
            trainer.n_training_steps += 1
            seconds += time.perf_counter() - started
            cpu += time.process_time() - started_cpu
            continue
        while wanted and tokens >= wanted[0]:
            wanted.pop(0)
        folder = arguments.out / f"tokens-{tokens}"
        save(trainer, folder, scale)
        line = {
            "tokens": tokens,
            "rows_seen": min(tokens, n_train),
            "seconds": round(seconds, 3),
            "cpu_seconds": round(cpu, 3),
            "loss": None if loss is None else float(loss),
            **quality(folder, held_out),
            "dead_training": float(trainer.dead_neurons.float().mean()),
        }
        (folder / "training.json").write_text(json.dumps({**line, "settings": about}))
        with (arguments.out / "training.jsonl").open("a") as file:
            file.write(json.dumps(line) + "\n")
        print(json.dumps(line), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a TopK SAE on kept activations.")
    parser.add_argument("vectors", type=Path, help="rows: .safetensors with vectors, or .npy")
    parser.add_argument("--out", type=Path, required=True, help="folder of checkpoints")
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--k", type=int, default=32)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--warm-up", type=int, default=20, help="steps")
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--tokens", type=int, default=1_000_000, help="rows, repetitions included")
    parser.add_argument(
        "--checkpoints",
        type=lambda text: [int(part) for part in text.split(",") if part],
        default=[],
        help="token counts with commas, 0 for the SAE before training; the end is always one",
    )
    parser.add_argument("--dead-tokens", type=int, default=50_000)
    parser.add_argument("--held-out", type=float, default=0.1)
    parser.add_argument("--norm-multiple", type=float, default=10.0)
    parser.add_argument("--order", choices=("shuffled", "stream"), default="shuffled")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--site", default="", help="for the metadata: blocks.15.hook_resid_post")
    parser.add_argument("--model", default="", help="for the metadata")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    train(arguments)


if __name__ == "__main__":
    main()
