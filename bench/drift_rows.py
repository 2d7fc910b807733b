"""Activations of SmolLM2 and of fine-tuned copies of it, on the same tokens: kept, read again."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import activations
import exemplars as ex
from exemplars.analyses.shared_rows import SiteRows, site_rows

SITES = ("resid_post.9", "resid_post.14", "resid_post.15")
ROWS = 40_000


@dataclass(frozen=True)
class Copy:
    """A model by name, and where it is."""

    name: str
    path: Path


def copies(models: Path, tuned: Path | None) -> list[Copy]:
    """The model itself, and every fine-tuned copy in a folder of them."""
    folder = activations.SMOLLM2.folder
    found = [Copy("base", models / folder / f"{folder}.gguf")]
    if tuned is not None:
        found += [
            Copy(place.parent.name, place.parent) for place in sorted(tuned.glob("*/config.json"))
        ]
    return found


def shards(copy: Copy, cache: Path, rows: int = ROWS) -> ex.ActivationShards:
    """Kept ones of the same texts if they are complete; else extracted."""
    texts, folder = ex.texts(activations.documents()).shuffled(0), cache / copy.name
    if (folder / "activations.json").exists():
        kept = ex.ActivationShards.open(folder)
        if kept.complete and kept.describe["texts"] == texts.describe() and kept.rows >= rows:
            return kept
    print(f"reading {rows:,} rows with {copy.name}", flush=True)
    model = ex.load_model(str(copy.path), dtype="float32")
    return ex.extract(model, SITES, texts, folder, rows=rows)


def rows_of(kept: ex.ActivationShards, site: str, rows: int = ROWS) -> SiteRows:
    """The first rows of one site, in memory."""
    return site_rows((batches[0] for batches, *_ in kept.windows([site])), rows)
