r"""Quality against tokens and against seconds: Exemplar Partitioning (EP) beside a trained SAE.

    python bench/sae_curves.py rows OUT
    python bench/sae_curves.py train OUT --saelens-python env-saelens/bin/python
    python bench/sae_curves.py measure OUT
    python bench/sae_curves.py write OUT
    python bench/sae_page.py

Both sides read the same streams: the activations of AxBench's training texts (bench/concepts.py),
documents permuted by a seed, labels unused. EP is calibrated on the first rows of a stream and
built on its first n; an SAE is trained on the same rows in the same order (bench/train_sae.py).
Both are evaluated on evaluation texts, of which neither has seen one; for the F1 match they are
compared with the latents of one more SAE, of a stream in another order.

`rows` writes the streams for SAELens' environment (see train_sae.py), `train` chooses a learning
rate by held-out reconstruction and trains, `measure` takes points and goes on where it stopped,
`write` appends their summary to results/sae.jsonl, of which bench/sae_page.py makes the docs'
section and figure. Measure with one thread: seconds are of the processor (OMP_NUM_THREADS=1
OPENBLAS_NUM_THREADS=1 NUMBA_NUM_THREADS=1).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache, partial
from pathlib import Path

import numpy as np

SITE = "resid_post.18"
SEEDS = 3
"""Orders of the stream; an SAE of the same seed reads each."""
PERCENTILE = 2.0
TOKENS = (2_048, 5_120, 10_240, 20_480, 50_176, 100_352, 250_880)
"""Multiples of a training batch, so that both sides read the same rows."""
COARSE_FIRST = (250_880, 20_480, 2_048, 0, 100_352, 5_120, 50_176, 10_240)
"""The order of measuring, so that one that is stopped has the whole range."""
TRIALS = ((256, 3e-4), (256, 1e-3), (256, 3e-3), (1024, 1e-3))
"""Batch size and learning rate, of which the best reconstruction is taken."""
TRIAL_TOKENS = 100_352
K_ACTIVE = 32
REFERENCE = "reference"
"""The SAE whose last checkpoint the others are matched with, of an order and a seed of its own."""
RUNS = {**{f"sae-{seed}": seed for seed in range(SEEDS)}, REFERENCE: SEEDS}
"""By name, the seed, which also names the stream."""
EP, RANDOM_ROWS, UNTRAINED, SAE = "EP", "random rows", "untrained SAE", f"SAE, k = {K_ACTIVE}"
MATCH_ROWS = 30_000
TOP, MIN_ACTIVE = 100, 20
"""Rows that describe a unit, and the positive ones that it needs (compare_sae's defaults)."""
PENALTIES = (0.1, 3.0, 100.0, 3e3, 1e5)
TEXTS_AT_ONCE = 64


def site_of(options: argparse.Namespace):
    import concepts
    import exemplars as ex

    kept = ex.ActivationShards.open(options.cache / "smollm2-135m-instruct-concepts")
    return concepts.load(kept, SITE, 10**9, len(RUNS))


def build(site, seed: int, n: int, times: int = 1):
    """A dictionary of the first n rows of a stream, and the processor's seconds for it: the median
    of several times, as the first may compile.
    """
    import concepts
    import exemplars as ex

    rows, seconds = site.raw[site.streams[seed][:n]], []
    for _ in range(times):
        started = time.process_time()
        first = rows[: concepts.CALIBRATION_ROWS]
        calibration = ex.calibrate(first, [PERCENTILE], norm_multiple=10.0)
        dictionary = ex.partition(rows, calibration)
        seconds.append(time.process_time() - started)
    return dictionary, float(np.median(seconds))


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

    def run(name: str, seed: int, trial: tuple[int, float], *more: object) -> None:
        folder = options.out / name
        if (folder / "done").exists():
            return
        (folder / "training.jsonl").unlink(missing_ok=True)
        batch, rate = trial
        vectors = options.out / f"stream-{seed}.safetensors"
        command = [
            options.saelens_python, Path(__file__).with_name("train_sae.py"), vectors,
            "--out", folder, "--latents", latents, "--k", K_ACTIVE, "--batch", batch, "--lr", rate,
            "--seed", seed, "--order", "stream", "--threads", 1, *more,
        ]  # fmt: skip
        subprocess.run([str(part) for part in command], check=True)
        (folder / "done").touch()

    for trial in TRIALS:
        run(f"trial-{trial[0]}-{trial[1]:g}", 0, trial, "--tokens", TRIAL_TOKENS)
    best = chosen(options.out)
    print(f"batch {best[0]}, learning rate {best[1]:g}", flush=True)
    marks = ",".join(map(str, (0, *TOKENS)))
    for name, seed in RUNS.items():
        run(name, seed, best, "--tokens", TOKENS[-1], "--checkpoints", marks, "--held-out", 0.01)


def chosen(out: Path) -> tuple[int, float]:
    """The trial that explains most of the held-out rows."""
    return min(TRIALS, key=lambda trial: lines(out / f"trial-{trial[0]}-{trial[1]:g}")[-1]["fvu"])


def lines(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


@dataclass(frozen=True, eq=False)
class Side:
    """What one side says of texts, for detection and probing, and of rows, for the F1 match."""

    of_texts: Callable[[], tuple[np.ndarray, np.ndarray]]
    of_rows: Callable[[], np.ndarray]
    about: dict[str, float]

    @cached_property
    def texts(self) -> tuple[np.ndarray, np.ndarray]:
        """Two (T, M) over the rows of each text: the largest cosine, or latent; and the mean
        one-hot code, or latent.
        """
        return self.of_texts()


class Evaluation:
    """The texts, rows and concepts that all sides are measured on."""

    def __init__(self, site) -> None:
        from exemplars.analyses import detectors

        self.rows = site.rows.rows
        self.numbers = [detectors.numbers(self.rows, concept) for concept in site.concepts]
        tests = np.unique(np.concatenate([part for n in self.numbers for part in n[2:4]]))
        order = np.random.default_rng(0).permutation(tests)
        spans = [np.arange(self.rows.starts[t], self.rows.starts[t + 1]) for t in order]
        self.match = self.rows.vectors[np.concatenate(spans)[:MATCH_ROWS]]

    def blocks(self):
        """(number of the first text, raw vectors of some texts, where each starts)."""
        starts = self.rows.starts
        for first in range(0, len(self.rows.texts), TEXTS_AT_ONCE):
            last = min(first + TEXTS_AT_ONCE, len(self.rows.texts))
            own = starts[first : last + 1]
            if own[-1] > own[0]:
                yield first, self.rows.vectors[own[0] : own[-1]], own - own[0]

    def of_directions(self, center, exemplars, means, about) -> Side:
        """Regions: cosines with their means, one-hot codes and projections by exemplars."""
        from exemplars.analyses.detection import max_over_positions
        from exemplars.geometry import to_directions
        from exemplars.nearest import ExemplarIndex
        from exemplars.readout import encode

        def of_texts():
            shape = len(self.rows.texts), len(exemplars)
            largest, mean = np.full(shape, -np.inf, np.float32), np.zeros(shape, np.float32)
            index = ExemplarIndex(exemplars.shape[1])
            for first, vectors, starts in self.blocks():
                directions, _ = to_directions(vectors, center)
                found = max_over_positions(directions, starts, means)
                largest[first : first + len(found)] = found
                region, _ = index.nearest(directions, exemplars)
                lengths = np.diff(starts)
                text = first + np.repeat(np.arange(len(lengths)), lengths)
                np.add.at(mean, (text, region), 1 / np.repeat(lengths, lengths))
            return largest, mean

        return Side(of_texts, lambda: encode(self.match, center, exemplars, "signed"), about)

    def of_sae(self, sae, about) -> Side:
        def of_texts():
            shape = len(self.rows.texts), sae.n_features
            largest, mean = np.zeros(shape, np.float32), np.zeros(shape, np.float32)
            for first, vectors, starts in self.blocks():
                codes, lengths = sae.encode(vectors), np.diff(starts)
                filled, own = first + np.flatnonzero(lengths), starts[:-1][lengths > 0]
                largest[filled] = np.maximum.reduceat(codes, own, axis=0)
                mean[filled] = np.add.reduceat(codes, own, axis=0) / lengths[lengths > 0, None]
            return largest, mean

        return Side(of_texts, lambda: sae.encode(self.match), about)

    def detection(self, largest) -> list[float]:
        """The test AUROC of each concept, of the column of the best AUROC on training texts (of
        equal ones the first, as Candidates.by_auroc).
        """
        from exemplars.analyses.detection import auroc, aurocs

        found = []
        for positive, negative, test_positive, test_negative, _ in self.numbers:
            best = int(aurocs(largest[positive], largest[negative]).argmax())
            found.append(auroc(largest[test_positive, best], largest[test_negative, best]))
        return found

    def probes(self, mean, k: int | None) -> list[float]:
        """The accuracy on the test texts of each concept, mean of both classes."""
        found = []
        for positive, negative, test_positive, test_negative, _ in self.numbers:
            train, test = np.r_[positive, negative], np.r_[test_positive, test_negative]
            label, told = np.arange(len(train)) < len(positive), len(test_positive)
            decision = probe(mean[train], label, mean[test], k)
            found.append(((decision[:told] > 0).mean() + (decision[told:] <= 0).mean()) / 2)
        return found


def probe(x, label, z, k: int | None) -> np.ndarray:
    """Decisions of a k-sparse probe by the protocol of exemplars.analyses.probing: the dimensions
    of the largest difference of class means, one scale for all, C by cross-validated log loss. The
    dimensions are chosen once, not in each fold anew.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold

    x, z = x.astype(np.float64), z.astype(np.float64)
    if k is not None:
        difference = np.abs(x[label].mean(0) - x[~label].mean(0))
        chosen = np.argsort(-difference, kind="stable")[:k]
        x, z = x[:, chosen], z[:, chosen]
    center = x.mean(axis=0)
    x, z = x - center, z - center
    if x.shape[1] > len(x):  # coordinates in the span of the training texts: the same probe
        sizes, axes = np.linalg.eigh(x @ x.T)
        keep = sizes > sizes.max() * 1e-10
        axes = axes[:, keep] / np.sqrt(sizes[keep])
        x, z = x @ (x.T @ axes), z @ (x.T @ axes)
    scale = np.sqrt((x**2).sum(axis=1).mean()) or 1.0
    x, z = x / scale, z / scale

    def decide(rows, others, penalty):
        model = LogisticRegression(
            C=penalty, class_weight="balanced", solver="newton-cholesky", max_iter=1000
        )
        return model.fit(x[rows], label[rows]).decision_function(others)

    weight = np.where(label, 1 / label.sum(), 1 / (~label).sum())
    sign = np.where(label, -1.0, 1.0)
    loss = np.zeros(len(PENALTIES))
    for rows, held in StratifiedKFold(3, shuffle=True, random_state=0).split(x, label):
        for number, penalty in enumerate(PENALTIES):
            decision = decide(rows, x[held], penalty)
            loss[number] += np.logaddexp(0, sign[held] * decision) @ weight[held]
    return decide(np.arange(len(x)), z, PENALTIES[int(loss.argmin())])


def top_rows(codes):
    """Units as sets of rows, as compare_sae describes them: for each half of the rows, the (M, N/2)
    sparse sets of the TOP/2 largest; and which units have MIN_ACTIVE positive rows.
    """
    from scipy.sparse import csr_array

    middle, sets = len(codes) // 2, []
    for part in (codes[:middle], codes[middle:]):
        values = np.ascontiguousarray(part.T)
        rows = np.argpartition(-values, TOP // 2, axis=1)[:, : TOP // 2]
        keep = np.take_along_axis(values, rows, axis=1) > 0
        unit = np.broadcast_to(np.arange(len(rows))[:, None], rows.shape)[keep]
        sets.append(csr_array((np.ones(len(unit)), (unit, rows[keep])), shape=values.shape))
    return sets, (codes > 0).sum(axis=0) >= MIN_ACTIVE


def match(reference, codes) -> float:
    """Mean over the reference's latents of the F1 with the best partner, which is chosen on one
    half of the rows and scored on the other.
    """
    (ours, our_part), (theirs, their_part) = reference, top_rows(codes)
    if not their_part.any():
        return 0.0
    f1 = []
    for a, b in zip(ours, theirs, strict=True):
        a, b = a[np.flatnonzero(our_part)], b[np.flatnonzero(their_part)]
        sizes = a.sum(axis=1)[:, None] + b.sum(axis=1)[None]
        f1.append(2 * (a @ b.T).toarray() / np.maximum(sizes, 1))
    each = np.arange(len(f1[0]))
    # Without any overlap on the one half there is no partner.
    ways = [
        np.where(f1[h].max(axis=1) > 0, f1[1 - h][each, f1[h].argmax(axis=1)], 0) for h in (0, 1)
    ]
    return float(np.mean(ways))


def sides(options: argparse.Namespace, site, evaluation: Evaluation):
    """(name, seed, tokens, make) of every point, where make() gives the side."""
    from exemplars.analyses import detectors
    from exemplars.analyses.autoencoders import load_sae
    from exemplars.dictionary import usable_directions

    built_of = lru_cache(1)(partial(build, site, times=3))

    def ep(seed: int, n: int) -> Side:
        built, seconds = built_of(seed, n)
        about = {"cpu_seconds": round(seconds, 3), "units": len(built)}
        return evaluation.of_directions(built.center, built.exemplars, built.means, about)

    def random_rows(seed: int, n: int) -> Side:
        built, _ = built_of(seed, n)
        rows = site.raw[site.streams[seed][:n]]
        directions, _, _ = usable_directions(rows, 0, built.calibration)
        drawn = detectors.random_directions(directions, len(built), seed)
        return evaluation.of_directions(built.center, drawn, drawn, {"units": len(built)})

    def sae(name: str, line: dict) -> Side:
        loaded = load_sae(options.out / name / f"tokens-{line['tokens']}")
        about = {key: line[key] for key in ("cpu_seconds", "fvu", "dead_held_out")}
        return evaluation.of_sae(loaded, {**about, "units": loaded.n_features})

    build(site, 0, 4096)  # compiles
    for seed in range(SEEDS):
        name = f"sae-{seed}"
        trained = {line["tokens"]: partial(sae, name, line) for line in lines(options.out / name)}
        for n in COARSE_FIRST:
            if n in TOKENS:
                yield EP, seed, n, partial(ep, seed, n)
            yield SAE if n else UNTRAINED, seed, n, trained[n]
            if n in TOKENS:
                yield RANDOM_ROWS, seed, n, partial(random_rows, seed, n)


def measure(options: argparse.Namespace) -> None:
    """What is in OUT/points.jsonl is not measured again."""
    site = site_of(options)
    evaluation = Evaluation(site)
    site = replace(site, rows=None)  # its directions take as much memory as the rows
    file = options.out / "points.jsonl"
    have = {(p["side"], p["seed"], p["tokens"], p["measure"]) for p in read_points(file)}
    reference = reference_of(options.out, evaluation)
    measures = {
        "detection": lambda side: evaluation.detection(side.texts[0]),
        "probe 1": lambda side: evaluation.probes(side.texts[1], 1),
        "probe all": lambda side: evaluation.probes(side.texts[1], None),
        "match": lambda side: [match(reference, side.of_rows())],
    }
    for name, seed, tokens, make in sides(options, site, evaluation):
        wanted = [m for m in measures if m in options.measures.split(",")]
        wanted = [m for m in wanted if (name, seed, tokens, m) not in have]
        if options.tokens and str(tokens) not in options.tokens.split(","):
            continue
        side = make() if wanted else None
        for m in wanted:
            started = time.process_time()
            values = [round(float(v), 4) for v in measures[m](side)]
            point = {"side": name, "seed": seed, "tokens": tokens, "measure": m, **side.about}
            with file.open("a") as out:
                out.write(json.dumps({**point, "values": values}) + "\n")
            print(
                f"{name} {seed} {tokens:,} {m} {np.mean(values):.4f} {side.about}, "
                f"{time.process_time() - started:.0f} s",
                flush=True,
            )


def reference_of(out: Path, evaluation: Evaluation):
    """The reference SAE's units as sets of rows."""
    from exemplars.analyses.autoencoders import load_sae

    folder = out / REFERENCE
    last = folder / f"tokens-{lines(folder)[-1]['tokens']}"
    return top_rows(load_sae(last).encode(evaluation.match))


def read_points(file: Path) -> list[dict]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def summary(points: list[dict]) -> list[dict]:
    """One entry for each side and number of tokens: by measure the mean over seeds and concepts,
    the least and the largest mean of a seed, and the 95 % bootstrap interval over concepts where
    the measure has them.
    """
    found = []
    for side, tokens in dict.fromkeys((p["side"], p["tokens"]) for p in points):
        mine = [p for p in points if (p["side"], p["tokens"]) == (side, tokens)]
        entry: dict = {"side": side, "tokens": tokens, "units": median(mine, "units")}
        if "cpu_seconds" in mine[0]:
            entry["cpu_seconds"] = median(mine, "cpu_seconds")
        if "fvu" in mine[0]:
            entry["fvu"] = median(mine, "fvu")
        for name in dict.fromkeys(p["measure"] for p in mine):
            values = np.array([p["values"] for p in mine if p["measure"] == name])
            each = values.mean(axis=1)
            entry[name] = {
                "seeds": len(values),
                "mean": float(each.mean()),
                "seed_range": [float(each.min()), float(each.max())],
            }
            if values.shape[1] > 1:
                entry[name]["interval"] = list(over_concepts(values.mean(axis=0)))
        found.append(entry)
    return sorted(found, key=lambda entry: (entry["side"], entry["tokens"]))


def differences(points: list[dict], other: str) -> list[dict]:
    """EP less another side, where both have read as many tokens: paired by concept, or by seed
    where a measure has no concepts.
    """
    found = []
    for name in dict.fromkeys(p["measure"] for p in points):
        for tokens in TOKENS:
            sides = (EP, tokens, name), (other, tokens, name)
            ours, theirs = (
                np.array(
                    [p["values"] for p in points if (p["side"], p["tokens"], p["measure"]) == s]
                )
                for s in sides
            )
            if not len(ours) or ours.shape != theirs.shape:
                continue
            d = ours - theirs
            each = d.mean(axis=1)
            about = {"measure": name, "tokens": tokens, "mean": float(d.mean())}
            about["seed_range"] = [float(each.min()), float(each.max())]
            if d.shape[1] > 1:
                about["interval"] = list(over_concepts(d.mean(axis=0)))
            found.append(about)
    return found


def over_concepts(values) -> tuple[float, float]:
    """The 95 % bootstrap interval of the mean of (concepts,) values."""
    drawn = np.random.default_rng(0).integers(0, len(values), (2000, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return float(low), float(high)


def median(points: list[dict], key: str) -> float:
    """Over seeds."""
    by_seed = {p["seed"]: p[key] for p in points}
    return float(np.median(list(by_seed.values())))


def write(options: argparse.Namespace) -> None:
    import rows as results

    points = read_points(options.out / "points.jsonl")
    trials = {
        f"batch {batch}, lr {rate:g}": lines(options.out / f"trial-{batch}-{rate:g}")[-1]["fvu"]
        for batch, rate in TRIALS
    }
    results.write(
        "sae",
        what="EP against a TopK SAE, by tokens and by seconds",
        inputs={
            "model": "SmolLM2-135M-Instruct",
            "site": SITE,
            "stream": json.loads((options.out / "streams.json").read_text())["rows"],
            "percentile": PERCENTILE,
            "sae": f"TopK of SAELens 6.54.12, k = {K_ACTIVE}",
            "one_pass": TOKENS[-1],
            "match": f"with an SAE of another order, {MATCH_ROWS} evaluation rows",
            "intervals": "95 %, bootstrap over 26 concepts",
            "note": options.note,
        },
        trials_fvu=trials,
        chosen=chosen(options.out),
        points=rounded(summary(points)),
        ep_less_sae=rounded(differences(points, SAE)),
        ep_less_random_rows=rounded(differences(points, RANDOM_ROWS)),
    )


def rounded(value):
    """All floats to 4 digits."""
    if isinstance(value, dict):
        return {key: rounded(v) for key, v in value.items()}
    if isinstance(value, list):
        return [rounded(v) for v in value]
    return round(value, 4) if isinstance(value, float) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    stages = {
        "rows": write_rows,
        "train": train,
        "measure": measure,
        "write": write,
    }
    parser.add_argument("stage", choices=stages)
    parser.add_argument("out", type=Path, help="folder of streams and SAEs")
    parser.add_argument("--saelens-python", help="of an environment with sae-lens")
    parser.add_argument("--measures", default="detection,probe 1,probe all,match")
    parser.add_argument("--tokens", default="", help="of the points to measure; default: all")
    parser.add_argument("--note", default="", help="for the row that is written")
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--cache", type=Path, default=home / "bench")
    options = parser.parse_args()
    stages[options.stage](options)


if __name__ == "__main__":
    main()
