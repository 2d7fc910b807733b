"""Do unmodified SAELens and sparsify assign exported dictionaries' rows as we do?

Dictionaries of kept activations of SmolLM2 and Gemma, built from the first 60,000 rows, are
exported and opened in environments of their own (`pip install sae-lens`, `pip install
eai-sparsify`), whose pythons the options name. There 10,000 rows that had no part in the build are
encoded by the programs in third_party/. Of the rows that go elsewhere it is said by how much our
region is nearer, in float64. Rows whose best projection is negative have no code by the formats'
definition; they are counted apart.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import rows as results
from activations import GEMMA, SMOLLM2, Source
from exemplars.export import to_saelens, to_sparsify
from exemplars.geometry import to_directions

BUILT, HELD_OUT = 60_000, 10_000
THIRD_PARTY = Path(__file__).parent / "third_party"
WRITERS = {"saelens": to_saelens, "sparsify": to_sparsify}
DTYPES = ("float32", "bfloat16")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path("~/.cache/exemplars").expanduser()
    parser.add_argument("--saelens-python", type=Path, help="Of an environment with sae-lens.")
    parser.add_argument("--sparsify-python", type=Path, help="Of one with eai-sparsify.")
    parser.add_argument("--percentile", "-p", type=float, action="append")
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench")
    options = parser.parse_args()
    pythons = {"saelens": options.saelens_python, "sparsify": options.sparsify_python}
    if not any(pythons.values()):
        raise SystemExit("name an environment's python with --saelens-python, --sparsify-python")
    for source in (SMOLLM2, GEMMA):
        for percentile in options.percentile or [1.0]:
            dictionary, held_out = case(source, percentile, options)
            for name, python in pythons.items():
                for dtype in DTYPES if python is not None else ():
                    check(name, python, dictionary, held_out, source, dtype)


def case(source: Source, percentile: float, options: argparse.Namespace):
    """A dictionary of the first rows, and later rows."""
    kept = activations.shards(source, options.models, options.cache)
    vectors = activations.of_model(source, options.models, options.cache).vectors
    calibration = ex.calibrate(
        vectors[: activations.CALIBRATION_ROWS], [percentile], norm_multiple=10.0
    )
    dictionary = ex.partition(vectors[:BUILT], calibration)
    layer = source.site.rpartition(".")[2]
    site = {
        "name": source.site,
        "spellings": {
            "exemplars": source.site,
            "transformer_lens": f"blocks.{layer}.hook_resid_post",
            "module": f"model.layers.{layer}",
        },
    }
    about = {"site": site, "model": kept.describe["model"], "texts": kept.describe["texts"]}
    return replace(dictionary, provenance=about), vectors[-HELD_OUT:]


def check(name, python, dictionary, held_out, source, dtype) -> None:
    """Write one row of results."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "export"
        done = WRITERS[name](dictionary, folder, dtype=dtype)
        np.save(Path(place) / "rows.npy", np.ascontiguousarray(held_out))
        np.save(Path(place) / "exemplars.npy", dictionary.exemplars)
        asked = [python, THIRD_PARTY / f"{name}_assign.py", done.folder, place]
        said = subprocess.run(
            [str(word) for word in asked], check=True, capture_output=True, text=True,
            env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        theirs = np.load(Path(place) / "latents.npy")
    region, distance = dictionary.assign(held_out)
    directions, norms = to_directions(held_out, dictionary.center)
    coded = distance < 1.0
    differ = np.flatnonzero(coded & (theirs != region))
    gaps = gap(directions[differ], dictionary.exemplars, region[differ], theirs[differ])
    other = json.loads(said.stdout.splitlines()[-1])
    results.write(
        "export",
        what=f"{name} export",
        activations=f"{source.title} {source.site}",
        percentile=dictionary.percentile,
        dtype=dtype,
        regions=len(dictionary),
        width=dictionary.width,
        export_bytes=done.bytes,
        built_from=BUILT,
        held_out_rows=len(held_out),
        rows_with_negative_best_projection=int((~coded).sum()),
        rows_beyond_threshold=int((distance > dictionary.threshold).sum()),
        compared=int(coded.sum()),
        identical=int(coded.sum() - len(differ)),
        largest_gap_of_the_others=float(gaps.max()) if len(gaps) else None,
        median_norm=float(np.median(norms)),
        **other,
    )


def gap(directions, exemplars, ours, theirs) -> np.ndarray:
    """(n,) by how much the similarity of our region is above that of theirs, in float64."""
    left = directions.astype(np.float64)
    nearest, found = (exemplars[k].astype(np.float64) for k in (ours, np.maximum(theirs, 0)))
    return (left * nearest).sum(axis=1) - (left * found).sum(axis=1)


if __name__ == "__main__":
    main()
