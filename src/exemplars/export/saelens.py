"""A dictionary as a SAELens folder: a stock TopK SAE with k = 1.

With unit exemplars E, center c, W_enc = Eᵀ, W_dec = E, b_enc = 0 and b_dec = c, the largest
pre-activation (x − c)·e_i belongs to the exemplar nearest by cosine, since ‖x − c‖ is the same for
all i. What such an SAE cannot say: that a row lies outside every region (the threshold), and the
region of a row whose best projection is negative (its code is 0).

Layout: SAELens 6.54.12, `SAE.load_from_disk`. Two things it needs that are easily left out: without
`metadata.sae_lens_version` a config is read as older than 6.0 and loses its hook name; without
`rescale_acts_by_decoder_norm` a TopK SAE refuses `fold_W_dec_norm()`. For decoder rows of length 1
the rescaling changes nothing but the last bits.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.export.selection import (
    check_range,
    member_counts,
    model_name_of,
    record_of,
    select_regions,
    spellings_of,
    weight_bytes,
    weight_warnings,
)
from exemplars.export.writing import (
    CONFIG,
    REGIONS,
    Export,
    Tensor,
    files_of,
    replaced,
    write_json,
    write_weights,
)
from exemplars.geometry import Int64

WEIGHTS, SPARSITY = "sae_weights.safetensors", "sparsity.safetensors"
LAYOUT_VERSION = "6.54.12"
"""The SAELens whose layout this is."""
_NO_FREQUENCY = 1e-10


def to_saelens(
    dictionary: Dictionary,
    out: str | os.PathLike[str],
    *,
    top: int | None = None,
    min_members: int | None = None,
    basis: str = "exemplar",
    dtype: str = "float32",
    hookpoint: str | None = None,
    overwrite: bool = False,
) -> Export:
    """Write a dictionary as a folder that `sae_lens.SAE.load_from_disk` opens.

    Args:
        dictionary: What to export.
        out: The folder: cfg.json, sae_weights.safetensors, regions.json, and, with all regions,
            sparsity.safetensors (log10 of each latent's share of the members).
        top: Only so many regions with the most members.
        min_members: Only regions with at least so many members.
        basis: "exemplar" or "mean", the directions of the latents.
        dtype: Of the weights: float32, bfloat16, float16.
        hookpoint: The hook's name; default: the site's, in TransformerLens' words if it has any.
        overwrite: Replace an export that is there.

    Raises:
        ValueError: No region is left, or an argument is wrong.
        FormatError: The folder holds something else, or an export and not `overwrite`.
        OSError: The disk has too little room, or cannot be written.
    """
    regions = select_regions(dictionary, top=top, min_members=min_members, basis=basis)
    needed = weight_bytes(len(regions), dictionary.width, dtype)
    check_range(dictionary.center, dtype)
    directions = dictionary.basis(basis)
    record = record_of(dictionary, "saelens", basis, regions)
    metadata = _metadata(dictionary, record, hookpoint)
    warnings = weight_warnings(len(regions), dtype)
    if "hook_name" not in metadata:
        warnings.append(
            "the dictionary names no site, so SAELens can encode with it but not attach it to a "
            "model; give --hookpoint"
        )
    tensors = {
        "W_enc": Tensor.columns(directions, regions),
        "W_dec": Tensor.rows(directions, regions),
        "b_enc": Tensor.of(np.zeros(len(regions), np.float32)),
        "b_dec": Tensor.of(dictionary.center),
    }
    with replaced(Path(out), "", overwrite, needed) as new:
        write_weights(new / WEIGHTS, tensors, dtype)
        if len(regions) == len(dictionary):
            shares = _log_shares(dictionary, regions)
            write_weights(new / SPARSITY, {"sparsity": Tensor.of(shares)})
        write_json(new / CONFIG, _config(len(regions), dictionary.width, dtype, metadata))
        write_json(new / REGIONS, record)
        files, size = files_of(new)
    return Export(
        format="saelens",
        folder=Path(out),
        latents=len(regions),
        dropped=len(dictionary) - len(regions),
        basis=basis,
        dtype=dtype,
        bytes=size,
        files=files,
        warnings=tuple(warnings),
    )


def _config(n_latents: int, width: int, dtype: str, metadata: dict[str, Any]) -> dict[str, Any]:
    return {
        "architecture": "topk",
        "k": 1,
        "d_in": width,
        "d_sae": n_latents,
        "dtype": dtype,
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": True,
        "metadata": metadata,
    }


def _metadata(
    dictionary: Dictionary, record: dict[str, Any], hookpoint: str | None
) -> dict[str, Any]:
    """SAELens' own keys where they are known, and ours with "ep_" before them."""
    names = spellings_of(dictionary)
    lens, module = names.get("transformer_lens"), names.get("module")
    hook = hookpoint or lens or module
    of_lens = hook is not None and hook.startswith("blocks.")
    provenance = dictionary.provenance
    tokens, texts = (
        found if isinstance(found, dict) else {}
        for found in (provenance.get("tokenization"), provenance.get("texts"))
    )
    known = {
        "model_name": model_name_of(dictionary),
        "hook_name": hook,
        "model_class_name": hook and ("HookedTransformer" if of_lens else "AutoModelForCausalLM"),
        "context_size": tokens.get("context_length"),
        "dataset_path": texts.get("name"),
    }
    ours = {f"ep_{name}": value for name, value in record.items() if name != "regions"}
    return {
        "sae_lens_version": LAYOUT_VERSION,
        "sae_lens_training_version": None,
        **{name: value for name, value in known.items() if value is not None},
        **{name: value for name, value in ours.items() if value is not None},
    }


def _log_shares(dictionary: Dictionary, regions: Int64) -> Any:
    counts = member_counts(dictionary)[regions].astype(np.float64)
    return np.log10(counts / max(counts.sum(), 1.0) + _NO_FREQUENCY).astype(np.float32)
