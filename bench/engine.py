"""What the engine takes: nearest exemplars, whole builds, calibration, and with the model.

On one thread unless a row says otherwise. What is compared runs in turn in one process; ratios are
of medians. Every comparison asserts that the results are the same: regions are those of a float64
product on 1,024 rows, exemplars have equal row numbers. `--only` takes one or several of: assign,
build, calibration, forward, length, roofline, k.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from scipy.spatial.distance import pdist
from threadpoolctl import threadpool_limits

import activations
import exemplars as ex
import rows as results
from activations import GEMMA, QWEN, SMOLLM2, Source, Synthetic
from exemplars import building, streaming
from exemplars.calibration import pairwise_percentiles
from exemplars.clustering import LeaderClustering
from exemplars.geometry import canonical_similarity, to_directions
from exemplars.members import Members, fixed_point
from exemplars.nearest import THREADS, ExemplarIndex, vnni
from published_batches import PublishedBatches

CHUNK, BATCH = 4096, 2048
ASSIGNED = 30_000
FOUNDING = 36_000
"""Rows of a stream whose exemplars rows are assigned to, if there are as many before the last."""
ORACLE_ROWS = 1024


@dataclass(frozen=True)
class Options:
    """What was asked for."""

    rounds: int
    models: Path
    cache: Path
    quick: bool

    def rows(self, n: int) -> int:
        """So many, or few to see that everything runs."""
        return max(2048, n // 8) if self.quick else n

    def stream(self, source: Source) -> activations.Activations:
        return activations.of_model(source, self.models, self.cache)


def in_turn(rounds: int, **tasks: Callable) -> tuple[dict[str, list[float]], dict]:
    """Seconds of each task by round, and its last answer. One after the other in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    answers = {}
    for _ in range(rounds):
        for name, task in tasks.items():
            started = time.perf_counter()
            answers[name] = task()
            seconds[name].append(time.perf_counter() - started)
    return seconds, answers


def medians(seconds: dict[str, list[float]]) -> dict[str, float]:
    return {name: statistics.median(values) for name, values in seconds.items()}


def fastest(task: Callable, repeats: int = 20) -> float:
    """Seconds of the fastest of several calls: what the machine can do."""
    seconds, _ = in_turn(repeats, task=task)
    return min(seconds["task"])


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    threads, token = torch.get_num_threads(), THREADS.set(1)
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(threads)
        THREADS.reset(token)


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", flush=True)


def write(measure: str, options: Options, **values: object) -> None:
    results.write("engine", measure=measure, rounds=options.rounds, load=os.getloadavg(), **values)


# Correctness


def equal_to_oracle(
    regions: np.ndarray, directions: np.ndarray, exemplars: np.ndarray, born: np.ndarray | None
) -> float:
    """Share of 1,024 rows whose region a float64 product finds too.

    Args:
        regions: (N,) found.
        directions: (N, D).
        exemplars: (K, D).
        born: (K,) the row that each exemplar is: it is offered to that row and later ones. None:
            each row is offered all.
    """
    rows = np.linspace(0, len(regions) - 1, ORACLE_ROWS).astype(np.int64)
    left = directions[rows].astype(np.float64)
    best, found = np.full(len(rows), -np.inf), np.full(len(rows), -1)
    for first in range(0, len(exemplars), 8192):
        product = left @ exemplars[first : first + 8192].astype(np.float64).T
        if born is not None:
            product[born[None, first : first + 8192] > rows[:, None]] = -np.inf
        nearest = product.argmax(axis=1)
        value = product[np.arange(len(rows)), nearest]
        better = value > best
        best[better], found[better] = value[better], first + nearest[better]
    share = float((found == regions[rows]).mean())
    assert share == 1.0, f"{share:.4f} of rows have the region that float64 finds"
    return share


# assign


@dataclass(frozen=True)
class Case:
    """A dictionary, and raw rows to assign that had no part in it."""

    title: str
    dictionary: ex.Dictionary
    vectors: np.ndarray
    inputs: dict[str, object]


@functools.cache
def real_case(source: Source, percentile: float, options: Options) -> Case:
    """The exemplars of the first rows; the last rows are assigned."""
    a = options.stream(source)
    n_assigned = options.rows(ASSIGNED)
    n = min(options.rows(FOUNDING), len(a.rows) - n_assigned)
    clustering = LeaderClustering(a.directions.shape[1], a.calibration.threshold(percentile))
    clustering.add(a.directions[:n], a.rows[:n])
    return Case(
        f"{source.title}, p = {percentile:g}",
        dictionary_of(clustering.exemplars, a.calibration, percentile),
        a.vectors[a.rows[-n_assigned:]],
        {**a.inputs, "percentile": percentile, "exemplars_of_the_first": n,
         "assigned_the_last": n_assigned},
    )  # fmt: skip


def dictionary_of(
    exemplars: np.ndarray, calibration: ex.Calibration, percentile: float
) -> ex.Dictionary:
    """A dictionary of just these exemplars; statistics are of its first ones."""
    few = exemplars[:64] + calibration.center
    small = ex.partition(few, replace(calibration, norm_limit=None), percentile)
    rows = np.arange(len(exemplars))
    return replace(small, exemplars=np.ascontiguousarray(exemplars), exemplar_rows=rows)


def made_case(title: str, x: np.ndarray, n_exemplars: int, inputs: dict[str, object]) -> Case:
    """The first rows are the exemplars, the others are assigned; the center is not 0."""
    center = np.full(x.shape[1], 0.5 / np.sqrt(x.shape[1]), np.float32)
    directions, _ = to_directions(x[:n_exemplars], np.zeros_like(center))
    calibration = ex.Calibration(center, {1.0: 0.2}, rows=0, block_rows=BATCH)
    dictionary = dictionary_of(directions, calibration, 1.0)
    return Case(title, dictionary, x[n_exemplars:] + center, inputs)


def synthetic_case(options: Options) -> Case:
    n, k = options.rows(ASSIGNED), options.rows(20_000)
    made = Synthetic(2304)
    x = made.rows(k + n, seed=1)
    directions, _ = to_directions(x[:8192], np.zeros(2304, np.float32))
    inputs = {**made.inputs, "energy_of_first_axes": activations.energies(directions)}
    return made_case("synthetic, clustered", x, k, inputs)


def gaussian_case(options: Options) -> Case:
    n, k = options.rows(ASSIGNED), options.rows(10_000)
    x = np.random.default_rng(0).standard_normal((k + n, 576), np.float32)
    return made_case("isotropic Gaussian", x, k, {"rows": "isotropic Gaussian", "seed": 0})


class PlainSearch:
    """The plain way: a float32 product with all exemplars, the largest; one array for products."""

    def __init__(self, exemplars: np.ndarray) -> None:
        self.exemplars = exemplars
        self._products = np.ones((CHUNK, len(exemplars)), np.float32)

    def nearest(self, directions: np.ndarray) -> np.ndarray:
        products = self._products[: len(directions)]
        return np.matmul(directions, self.exemplars.T, out=products).argmax(axis=1)

    def assign(self, vectors: np.ndarray, center: np.ndarray) -> np.ndarray:
        """Directions in float32 too."""
        found = np.empty(len(vectors), np.int64)
        for start in range(0, len(vectors), CHUNK):
            u = vectors[start : start + CHUNK] - center
            u /= np.linalg.norm(u, axis=1, keepdims=True)
            found[start : start + CHUNK] = self.nearest(u)
        return found


def fresh(case: Case, kind: str) -> ex.Dictionary:
    """A copy whose index knows nothing: "auto", "without bytes", or "dense"."""
    dictionary = replace(case.dictionary)
    if kind == "without bytes":  # as on a processor without AVX-512 VNNI
        dictionary.index()._bytes = False
    return dictionary


def screen_of(kind: str) -> str:
    return "dense" if kind == "dense" else "auto"


def warm_up(case: Case) -> None:
    """Compile: every screen there is, on a few rows, with indexes of their own."""
    for screen in ("dense", "float32", *(("int8",) if vnni.available() else ())):
        few = replace(case.dictionary, exemplars=case.dictionary.exemplars[:2048])
        few.assign(case.vectors[:512], screen=screen)


def measure_assign(case: Case, options: Options) -> None:
    say(f"assign: {case.title}, K = {len(case.dictionary):,}")
    warm_up(case)
    center, exemplars, x = case.dictionary.center, case.dictionary.exemplars, case.vectors
    plain = PlainSearch(exemplars)
    kept: dict[str, ex.Dictionary] = {}

    def warm(kind: str) -> np.ndarray:
        return kept[kind].assign(x, screen=screen_of(kind))[0]

    def cold(kind: str) -> np.ndarray:
        kept[kind] = fresh(case, kind)
        return warm(kind)

    seconds, regions = in_turn(
        options.rounds,
        numpy=lambda: plain.assign(x, center),
        auto=lambda: cold("auto"),
        auto_warm=lambda: warm("auto"),
        without_bytes=lambda: cold("without bytes"),
        without_bytes_warm=lambda: warm("without bytes"),
        dense=lambda: cold("dense"),
    )
    by_numpy = regions.pop("numpy")
    for name, found in regions.items():
        assert (found == regions["dense"]).all(), f"{name} differs from dense"
    share = equal_to_oracle(regions["auto"], to_directions(x, center)[0], exemplars, None)
    median = medians(seconds)
    write(
        "assign", options,
        what=f"assign: {case.title}",
        title=case.title,
        inputs=case.inputs,
        width=case.dictionary.width, regions=len(exemplars), rows=len(x), threads=1,
        plans={kind: plan_of(d.index(screen_of(kind))) for kind, d in kept.items()},
        seconds=seconds,
        us_per_row={name: value / len(x) * 1e6 for name, value in median.items()},
        ratio=median["numpy"] / median["auto"],
        ratios={name: median["numpy"] / value for name, value in median.items()},
        ratio_note="numpy over auto, whose index is made and planned in the call",
        loss_without_bytes=median["without_bytes"] / median["numpy"] - 1,
        equal_to_oracle=share,
        numpy_equal=float((by_numpy == regions["auto"]).mean()),
    )  # fmt: skip


def plan_of(index: ExemplarIndex) -> str:
    return f"{index.plan.kind} {index.plan.axes}" if index.plan.axes else index.plan.kind


def run_assign(options: Options) -> None:
    for percentile in (10.0, 4.0, 1.0, 0.3):
        measure_assign(real_case(SMOLLM2, percentile, options), options)
    measure_assign(real_case(GEMMA, 1.0, options), options)
    measure_assign(real_case(QWEN, 0.3, options), options)
    measure_assign(synthetic_case(options), options)
    measure_assign(gaussian_case(options), options)


# build


def our_build(directions: np.ndarray, threshold: float) -> tuple[LeaderClustering, dict]:
    width = directions.shape[1]
    clustering, members = LeaderClustering(width, threshold), Members(width, threshold)
    regions, laps = [], {}
    for start in range(0, len(directions), CHUNK):
        laps[start] = time.perf_counter()
        chunk = directions[start : start + CHUNK]
        rows = np.arange(start, start + len(chunk))
        joined = clustering.add(chunk, rows)
        members.add(fixed_point(chunk), joined.region, joined.distance, rows, clustering.n_regions)
        regions.append(joined.region)
    laps[len(directions)] = time.perf_counter()
    assert int(members.statistics().counts.sum()) == len(directions)
    return clustering, {"laps": laps, "regions": np.concatenate(regions)}


def published_build(directions: np.ndarray, threshold: float) -> tuple[PublishedBatches, dict]:
    published = PublishedBatches(directions.shape[1], threshold, BATCH)
    laps = {}
    for start in range(0, len(directions), BATCH):
        laps[start] = time.perf_counter()
        published.add(directions[start : start + BATCH])
    laps[len(directions)] = time.perf_counter()
    assert sum(region.count for region in published.regions) == len(directions)
    return published, {"laps": laps}


def last_quarter(laps: dict[int, float]) -> float:
    """Rows per second from the first boundary of chunks in the last quarter on."""
    n = max(laps)
    first = min((row for row in laps if 3 * n // 4 <= row < n and row % CHUNK == 0), default=0)
    return (n - first) / (laps[n] - laps[first])


def measure_build(percentile: float, options: Options) -> None:
    a = options.stream(SMOLLM2)
    u, threshold = a.directions[: options.rows(60_000)], a.calibration.threshold(percentile)
    say(f"build: {len(u):,} rows, p = {percentile:g}")
    our_build(u[: 2 * CHUNK], threshold)
    rates: dict[str, list[float]] = {"ours": [], "published": []}

    def timed(name: str, build: Callable) -> tuple:
        found, more = build(u, threshold)
        rates[name].append(last_quarter(more["laps"]))
        return found, more

    seconds, found = in_turn(
        options.rounds,
        ours=lambda: timed("ours", our_build),
        published=lambda: timed("published", published_build),
    )
    (ours, more), (published, _) = found["ours"], found["published"]
    same = check_exemplar_rows(u, ours, np.array(published.exemplar_rows), threshold)
    share = equal_to_oracle(more["regions"], u, ours.exemplars, ours.exemplar_rows)
    median, rate = medians(seconds), medians(rates)
    write(
        "build", options,
        what=f"build with all statistics, p = {percentile:g}",
        inputs={**a.inputs, "percentile": percentile, "threshold": threshold},
        width=u.shape[1], rows=len(u), regions=ours.n_regions, threads=1,
        published_batch_rows=BATCH, chunk_rows=CHUNK,
        seconds=seconds,
        rows_per_s={name: len(u) / value for name, value in median.items()},
        rows_per_s_last_quarter=rates,
        ratio=median["published"] / median["ours"],
        ratio_last_quarter=rate["ours"] / rate["published"],
        exemplar_rows_equal=same,
        equal_to_oracle=share,
    )  # fmt: skip


def check_exemplar_rows(
    u: np.ndarray, ours: LeaderClustering, published: np.ndarray, threshold: float
) -> bool:
    """Equal, or the first that differs is a row that float32 rounding decides."""
    if np.array_equal(ours.exemplar_rows, published):
        return True
    n = min(len(published), ours.n_regions)
    differs = np.flatnonzero(ours.exemplar_rows[:n] != published[:n])
    k = int(differs[0]) if len(differs) else n
    row = int(min([*ours.exemplar_rows[k : k + 1], *published[k : k + 1]]))
    margin = float((ours.exemplars[:k] @ u[row]).max()) - (1.0 - threshold)
    assert abs(margin) < 1e-6, f"row {row} differs, {margin:.1e} from the threshold"
    say(f"exemplars are equal up to row {row}, {margin:.1e} from the threshold")
    return False


def run_build(options: Options) -> None:
    for percentile in (0.7, 3.5):
        measure_build(percentile, options)


# calibration


def pairs(block: np.ndarray) -> int:
    return len(block) * (len(block) - 1) // 2


def run_calibration(options: Options) -> None:
    a = options.stream(SMOLLM2)
    n_rows = 20_480 if options.quick else 200_000
    stream = a.directions[:66_000]  # no multiple of a block: each time round, blocks differ
    percentiles = (0.3, 1.0, 2.0, 4.0, 10.0)
    starts = range(0, n_rows, BATCH)
    say(f"calibration: {len(starts)} blocks")

    def block(start: int) -> np.ndarray:
        return stream[np.arange(start, min(start + BATCH, n_rows)) % len(stream)]

    some = [block(start) for start in starts[:: len(starts) // 6][:6]]
    as_many = sum(pairs(block(start)) for start in starts) / sum(map(pairs, some))
    pairwise_percentiles(some[0], percentiles)
    seconds, found = in_turn(
        options.rounds,
        ours=lambda: [pairwise_percentiles(block(start), percentiles) for start in starts],
        ours_of_some=lambda: [pairwise_percentiles(part, percentiles) for part in some],
        scipy_of_some=lambda: [np.percentile(pdist(part, "cosine"), 1.0) for part in some],
    )
    found_one = [values[percentiles.index(1.0)] for values in found["ours_of_some"]]
    largest = float(np.abs(np.subtract(found_one, found["scipy_of_some"])).max())
    assert largest <= 1e-7, f"percentiles differ by {largest:.1e}"
    median = medians(seconds)
    scaled = median["scipy_of_some"] * as_many
    write(
        "calibration", options,
        what="pairwise percentiles, five against one by scipy",
        inputs={**a.inputs, "rows_used": len(stream), "used": "over and over, blocks differ"},
        width=stream.shape[1], rows=n_rows, block_rows=BATCH, threads=1,
        percentiles={"ours": percentiles, "scipy": [1.0]},
        blocks={"ours": len(starts), "scipy": len(some)},
        scaled="scipy's time, to all pairs",
        seconds=seconds,
        seconds_scaled={"ours": median["ours"], "scipy": scaled},
        ratio=scaled / median["ours"],
        largest_difference=largest,
    )  # fmt: skip


# forward


class Stopwatch:
    """Seconds spent in functions that it stands in for, and what they last answered."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self.answers: dict[str, list] = {}

    @contextlib.contextmanager
    def on(self, owner: object, attribute: str, name: str) -> Iterator[None]:
        function = getattr(owner, attribute)
        self.seconds.setdefault(name, 0.0)
        answers = self.answers.setdefault(attribute, [])

        def timed(*args: object, **named: object) -> object:
            started = time.perf_counter()
            answer = function(*args, **named)
            self.seconds[name] += time.perf_counter() - started
            answers.append(answer)
            return answer

        setattr(owner, attribute, timed)
        try:
            yield
        finally:
            setattr(owner, attribute, function)


def timed_build(model: ex.Model, texts: ex.Texts, calibration: ex.Calibration) -> tuple:
    """One build of all texts, and where its seconds went."""
    watch = Stopwatch()
    with (
        watch.on(building, "_part", "clustering"),
        watch.on(building._Run, "add", "clustering"),
        watch.on(streaming, "window_activations", "forward"),
        watch.on(building, "_finish", "contexts"),
    ):
        started = time.perf_counter()
        found = ex.build(model, SMOLLM2.site, texts, 1.0, rows=None, calibration=calibration)
        watch.seconds["total"] = time.perf_counter() - started
    return found, watch


def run_forward(options: Options) -> None:
    a = options.stream(SMOLLM2)
    model = activations.load_model(SMOLLM2, options.models)
    documents = activations.documents()[: 50 if options.quick else 400]
    say(f"forward: {len(documents)} documents with the model, {torch.get_num_threads()} threads")
    timed_build(model, ex.texts(documents[:10]), a.calibration)
    seconds: dict[str, list[float]] = {}
    for _ in range(options.rounds):
        dictionary, watch = timed_build(model, ex.texts(documents), a.calibration)
        for name, value in watch.seconds.items():
            seconds.setdefault(name, []).append(value)
    dense = LeaderClustering(dictionary.width, dictionary.threshold, screen="dense")
    for part in watch.answers["_part"]:
        dense.add(part.directions, part.rows)
    assert np.array_equal(dictionary.exemplar_rows, dense.exemplar_rows)
    shares = [c / t for c, t in zip(seconds["clustering"], seconds["total"], strict=True)]
    write(
        "forward", options,
        what="clustering's share of a build with the model",
        inputs={**a.inputs, "first_documents": len(documents), "percentile": 1.0,
                "calibration": "given"},
        width=dictionary.width, rows=dictionary.rows, regions=len(dictionary),
        threads={"torch": torch.get_num_threads(), "search": len(os.sched_getaffinity(0))},
        seconds=seconds,
        share=statistics.median(shares),
        exemplar_rows_equal=True,
    )  # fmt: skip


# length


class Growing:
    """A build that goes on for as long as it is fed, and counts its time."""

    def __init__(self, width: int, threshold: float) -> None:
        self.clustering = LeaderClustering(width, threshold)
        self.members = Members(width, threshold)
        self.n_rows, self.seconds = 0, 0.0

    def add(self, x: np.ndarray) -> float:
        """Seconds for these raw rows, and what regions they went to."""
        directions, _ = to_directions(x, np.zeros(x.shape[1], np.float32))
        rows = np.arange(self.n_rows, self.n_rows + len(x))
        started = time.perf_counter()
        joined = self.clustering.add(directions, rows)
        self.members.add(
            fixed_point(directions), joined.region, joined.distance, rows,
            self.clustering.n_regions,
        )  # fmt: skip
        took = time.perf_counter() - started
        self.n_rows += len(x)
        self.seconds += took
        self.directions, self.region = directions, joined.region
        return took


def run_length(options: Options) -> None:
    """Two builds of one stream, one of them far ahead, are fed in turn."""
    made, threshold = Synthetic(576, clusters=2_000, noise=0.2), 0.2
    lengths = (20_000, 40_000) if options.quick else (100_000, 1_000_000)
    each = 6 * CHUNK
    say(f"length: {lengths[0]:,} and {lengths[1]:,} rows")
    builds, regions_at = {}, {}
    for n in lengths:
        builds[n] = Growing(576, threshold)
        for x in made.chunks(n - each * options.rounds // 2, seed=2, size=CHUNK):
            builds[n].add(x)
            if builds[n].n_rows >= 20_000:
                regions_at.setdefault(n, builds[n].clustering.n_regions)
    whole = {str(n): build.n_rows / build.seconds for n, build in builds.items()}
    seconds: dict[str, list[float]] = {str(n): [] for n in lengths}
    for k in range(options.rounds):
        took = dict.fromkeys(lengths, 0.0)
        for x in made.chunks(each, seed=3 + k, size=CHUNK):
            for n, build in builds.items():
                took[n] += build.add(x)
        for n, value in took.items():
            seconds[str(n)].append(value)
    shares = [
        equal_to_oracle(b.region, b.directions, b.clustering.exemplars, None)
        for b in builds.values()
    ]
    regions = {str(n): build.clustering.n_regions for n, build in builds.items()}
    assert len(set(regions.values())) == 1, regions
    rate = {n: each / value for n, value in medians(seconds).items()}
    write(
        "length", options,
        what="rows per second late in a stream against early",
        inputs={**made.inputs, "threshold": threshold},
        width=576, regions=regions, regions_after_20000_rows=regions_at[lengths[-1]], threads=1,
        rows_each_round=each, seconds=seconds, rows_per_s=rate, rows_per_s_before=whole,
        ratio=rate[str(lengths[1])] / rate[str(lengths[0])],
        equal_to_oracle=min(shares),
    )  # fmt: skip


# roofline


def float_rate(width: int) -> float:
    """Float32 operations per second of numpy's product."""
    random = np.random.default_rng(0)
    a, b = (random.standard_normal((2048, width), np.float32) for _ in range(2))
    out = np.empty((2048, 2048), np.float32)
    return 2 * 2048 * 2048 * width / fastest(lambda: np.matmul(a, b.T, out=out))


def byte_rate() -> float:
    """Operations per second of products of bytes that lie in the second cache."""
    rows, columns, fours = 2 * vnni.ROWS, 1024, 32
    packed = np.ones(rows * fours, np.int32)
    panels = np.ones(columns * fours, np.int32)
    start, shifts = np.zeros(columns, np.int32), np.zeros(rows, np.int32)
    out = np.empty((rows, columns), np.int16)

    def repeat() -> None:
        for _ in range(50):
            vnni.multiply(
                packed, 0, rows, panels, 0, columns, fours, start, shifts, np.int32(0), out
            )

    return 50 * 2 * rows * columns * 4 * fours / fastest(repeat)


def cache_rate() -> float:
    """Bytes per second that a copy within the second cache reads and writes."""
    a, b = np.ones(65_536, np.int16), np.empty(65_536, np.int16)

    def repeat() -> None:
        for _ in range(200):
            np.copyto(b, a)

    return 200 * 2 * a.nbytes / fastest(repeat)


def check_seconds(directions: np.ndarray, exemplars: np.ndarray) -> float:
    """Of one canonical similarity with an exemplar anywhere, and its wait for memory."""
    random = np.random.default_rng(0)
    rows = np.arange(len(directions))
    pairs = random.integers(0, len(exemplars), len(directions))
    return fastest(lambda: canonical_similarity(directions, exemplars, rows, pairs)) / len(rows)


def measure_roofline(case: Case, options: Options) -> None:
    say(f"roofline: {case.title}")
    warm_up(case)
    exemplars, x = case.dictionary.exemplars, case.vectors
    dictionary = fresh(case, "auto")
    regions, _ = dictionary.assign(x)
    directions, _ = to_directions(x, case.dictionary.center)
    index = dictionary.index()
    screen, plan = index._kept, index.plan
    if plan.kind not in ("prefix", "whole"):
        say(f"the plan is {plan.kind}, which the formula does not describe")
        return
    n, width, k = len(x), case.dictionary.width, len(exemplars)
    share = equal_to_oracle(regions, directions, exemplars, None)
    seconds, _ = in_turn(
        options.rounds,
        assign=lambda: dictionary.assign(x),
        nearest=lambda: index.nearest(directions, exemplars),
        directions=lambda: to_directions(x, case.dictionary.center),
    )
    finer, checks = screen.offer(directions, exemplars, np.full(n, -1), np.full(n, -np.inf))
    rates = {"float": float_rate(width), "byte": byte_rate(), "cache": cache_rate()}
    axes = plan.axes or 64  # without axes, a Hadamard transform of each 64
    terms = {
        "projection": 2 * width * axes / rates["float"],
        "bytes": 2 * k * 4 * screen._fours / rates["byte"],
        "two sweeps": 2 * 2 * k / rates["cache"],
        "finer bounds": finer / n * 2 * width / rates["byte"],
        "canonical checks": checks / n * check_seconds(directions, exemplars),
    }
    median = medians(seconds)
    write(
        "roofline", options,
        what=f"roofline: {case.title}",
        title=case.title, inputs=case.inputs,
        width=width, regions=k, rows=n, threads=1, plan=plan_of(index),
        operations_per_s=rates, finer_per_row=finer / n, checks_per_row=checks / n,
        terms_us_per_row={name: value * 1e6 for name, value in terms.items()},
        roofline_us_per_row=sum(terms.values()) * 1e6,
        seconds=seconds,
        us_per_row={name: value / n * 1e6 for name, value in median.items()},
        share=sum(terms.values()) * n / median["nearest"],
        share_of_assign=sum(terms.values()) * n / median["assign"],
        equal_to_oracle=share,
    )  # fmt: skip


def run_roofline(options: Options) -> None:
    if not vnni.available():
        say("roofline: this processor has no AVX-512 VNNI")
        return
    for source, percentile in ((SMOLLM2, 0.3), (GEMMA, 1.0)):
        measure_roofline(real_case(source, percentile, options), options)


# k


def measure_k(width: int, n_rows: int, options: Options) -> None:
    made = Synthetic(width)
    counts = (1_000, 4_000) if options.quick else (1_000, 10_000, 20_000, 50_000)
    zero = np.zeros(width, np.float32)
    everything, _ = to_directions(made.rows(counts[-1], seed=1), zero)
    rows, _ = to_directions(made.rows(n_rows, seed=2), zero)
    seconds, plans, shares = {}, {}, []
    for k in counts:
        say(f"k: D = {width}, K = {k:,}")
        took, plan, share = nearest_of(rows, everything[:k], options)
        seconds[str(k)], plans[str(k)] = took, plan
        shares.append(share)
    us = {k: {n: v / n_rows * 1e6 for n, v in medians(s).items()} for k, s in seconds.items()}
    write(
        "k", options,
        what=f"nearest only, growth with K, D = {width}",
        inputs={**made.inputs, "energy_of_first_axes": activations.energies(everything)},
        width=width, rows=n_rows, threads=1, plans=plans, seconds=seconds,
        us_per_row=us,
        ratios={k: times["numpy"] / times["auto"] for k, times in us.items()},
        ratio_note="numpy over auto with an index made before",
        growth={name: us[str(counts[-1])][name] / us[str(counts[1])][name]
                for name in ("numpy", "auto")},
        equal_to_oracle=min(shares),
    )  # fmt: skip


def nearest_of(
    rows: np.ndarray, exemplars: np.ndarray, options: Options
) -> tuple[dict[str, list[float]], str, float]:
    """Seconds by round, the plan, and the share that float64 finds too."""
    index, plain = ExemplarIndex(rows.shape[1]), PlainSearch(exemplars)
    index.nearest(rows[:BATCH], exemplars, rows_to_come=10**6)
    seconds, found = in_turn(
        options.rounds,
        numpy=lambda: plain.nearest(rows),
        auto=lambda: index.nearest(rows, exemplars)[0],
    )
    share = equal_to_oracle(found["auto"], rows, exemplars, None)
    return seconds, plan_of(index), share


def run_k(options: Options) -> None:
    measure_k(576, 4_096, options)
    measure_k(2304, 2_048, options)


MEASUREMENTS = {
    "assign": run_assign,
    "build": run_build,
    "calibration": run_calibration,
    "forward": run_forward,
    "length": run_length,
    "roofline": run_roofline,
    "k": run_k,
}


def main() -> None:
    home = Path.home() / ".cache" / "exemplars"
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=MEASUREMENTS, default=list(MEASUREMENTS))
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench")
    parser.add_argument(
        "--quick", action="store_true", help="few rows; what is measured is thrown away"
    )
    given = parser.parse_args()
    options = Options(given.rounds, given.models, given.cache, given.quick)
    with contextlib.ExitStack() as stack:
        if options.quick:
            results.RESULTS = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        for name in given.only:
            started = time.perf_counter()
            with contextlib.nullcontext() if name == "forward" else one_thread():
                MEASUREMENTS[name](options)
            say(f"{name} took {time.perf_counter() - started:.0f} s")


if __name__ == "__main__":
    main()
