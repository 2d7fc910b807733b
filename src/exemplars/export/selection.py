"""Which regions are exported, in which numbers: a latent's number is not always its region's."""

from __future__ import annotations

from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.geometry import Float32, Int64

DTYPES = {"float32": 4, "bfloat16": 2, "float16": 2}
"""Types of exported weights, and their bytes."""
LARGEST_FLOAT16 = 65504.0


def select_regions(
    dictionary: Dictionary,
    *,
    top: int | None = None,
    min_members: int | None = None,
    basis: str = "exemplar",
) -> Int64:
    """The regions to export: latent j is region `select_regions(...)[j]`.

    Args:
        dictionary: Members are counted by its census if it has one, else as they joined.
        top: So many regions with the most members, ties to the lower number.
        min_members: Only regions with at least so many.
        basis: With "mean", regions without members are left out: they have no mean.

    Returns:
        (n,) region numbers, ascending.

    Raises:
        ValueError: No region is left, or an argument is out of range.
    """
    for name, value in (("top", top), ("min_members", min_members)):
        if value is not None and value < 1:
            raise ValueError(f"{name} is {value}, expected a positive number")
    if not len(dictionary):
        raise ValueError("the dictionary has no regions, so there is nothing to export")
    counts = member_counts(dictionary)
    chosen = np.flatnonzero(np.isfinite(dictionary.basis(basis)).all(axis=1))
    if min_members is not None:
        chosen = chosen[counts[chosen] >= min_members]
    if top is not None:
        chosen = np.sort(chosen[np.argsort(-counts[chosen], kind="stable")[:top]])
    if not len(chosen):
        found = f"the largest of {len(dictionary):,} regions has {counts.max():,} members"
        raise ValueError(f"no region is left to export: {found}; ask for fewer")
    return chosen.astype(np.int64)


def member_counts(dictionary: Dictionary) -> Int64:
    """(K,) members: of the census if there was one, else as they joined."""
    return (dictionary.census or dictionary.members).counts


def weight_bytes(n_latents: int, width: int, dtype: str = "float32") -> int:
    """Bytes of an encoder, a decoder, and their biases.

    Raises:
        ValueError: An unknown dtype.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype is "{dtype}", expected one of {", ".join(DTYPES)}')
    return DTYPES[dtype] * (2 * n_latents * width + n_latents + width)


def check_range(center: Float32, dtype: str) -> None:
    """Refuse a center that float16 cannot hold.

    Raises:
        ValueError: It has a component above 65504.
    """
    largest = float(np.abs(center).max())
    if dtype == "float16" and largest > LARGEST_FLOAT16:
        raise ValueError(
            f"the center has a component of {largest:g}, above the largest of float16 "
            f"({LARGEST_FLOAT16:g}); export bfloat16"
        )


def weight_warnings(n_latents: int, dtype: str) -> list[str]:
    """What a user of the exported weights should know."""
    warnings = []
    if dtype != "float32":
        warnings.append(
            f"the weights are rounded to {dtype}, so some rows go to another latent than the "
            "region that `assign` gives; docs/export.md says how many did"
        )
    codes = 4 * n_latents * 4096
    if codes > 4e9:
        warnings.append(
            f"readers of this format make dense codes, {codes / 1e9:.1f} GB for 4,096 tokens in "
            "float32; --top or --min-members export fewer regions"
        )
    return warnings


def record_of(dictionary: Dictionary, format_: str, basis: str, regions: Int64) -> dict[str, Any]:
    """What regions.json says: where the latents come from."""
    from exemplars import __version__

    model = _mapping(dictionary.provenance.get("model"))
    site = _mapping(dictionary.provenance.get("site"))
    return {
        "exemplars_version": __version__,
        "format": format_,
        "basis": basis,
        "percentile": float(dictionary.percentile),
        "threshold": float(dictionary.threshold),
        "n_regions": len(dictionary),
        "model": model.get("name"),
        "model_fingerprint": model.get("fingerprint"),
        "site": site.get("name"),
        "regions": regions.tolist(),
    }


def spellings_of(dictionary: Dictionary) -> dict[str, str]:
    """The names of the site that the dictionary knows: exemplars, transformer_lens, module."""
    site = _mapping(dictionary.provenance.get("site"))
    found = {**_mapping(site.get("spellings"))}
    found.setdefault("module", site.get("module"))
    found.setdefault("exemplars", site.get("name"))
    return {name: value for name, value in found.items() if isinstance(value, str) and value}


def model_name_of(dictionary: Dictionary) -> str | None:
    """What the dictionary calls its model."""
    name = _mapping(dictionary.provenance.get("model")).get("name")
    return name if isinstance(name, str) else None


def _mapping(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else {}
