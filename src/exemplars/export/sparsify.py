"""A dictionary as a sparsify sparse coder, which delphi and lm-evaluation-harness read too.

OUT/HOOKPOINT/ holds cfg.json and sae.safetensors: `encoder.weight` (K, D) and `W_dec` (K, D) are
the directions, `encoder.bias` is 0, `b_dec` is the center, k is 1. Why the largest pre-activation
is the nearest region: see `exemplars.export.saelens`. Several sites may be exported to one OUT,
which `SparseCoder.load_many` then opens as a whole.

A hookpoint is a module of the Hugging Face base model whose output is read: `layers.12`, or `h.12`
for GPT-2. Layout: eai-sparsify 1.3.3. It prints a line for each config key that it does not know,
so what we say of the dictionary is in regions.json.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.export.selection import (
    check_range,
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

WEIGHTS = "sae.safetensors"
_BASE_MODELS = ("model.", "transformer.", "gpt_neox.", "backbone.")
"""What the base model is called inside a model with a head."""


def to_sparsify(
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
    """Write a dictionary as a folder that `sparsify.SparseCoder.load_many` opens.

    Args:
        dictionary: What to export.
        out: The folder of all hookpoints; this one is a folder in it.
        top: Only so many regions with the most members.
        min_members: Only regions with at least so many members.
        basis: "exemplar" or "mean", the directions of the latents.
        dtype: Of the weights: float32, bfloat16, float16.
        hookpoint: Default: from the dictionary's site.
        overwrite: Replace an export that is there at this hookpoint.

    Raises:
        ValueError: No region is left, the hookpoint is not known, or an argument is wrong.
        FormatError: The place holds something else, or an export and not `overwrite`.
        OSError: The disk has too little room, or cannot be written.
    """
    regions = select_regions(dictionary, top=top, min_members=min_members, basis=basis)
    hookpoint = _checked(hookpoint) if hookpoint is not None else hookpoint_of(dictionary)
    needed = weight_bytes(len(regions), dictionary.width, dtype)
    check_range(dictionary.center, dtype)
    directions = dictionary.basis(basis)
    warnings = weight_warnings(len(regions), dtype)
    if "gemma" in str(Path(out).resolve()):
        warnings.append(
            'the path of the export contains "gemma", and delphi reads such paths as GemmaScope '
            "SAEs; name the folder otherwise to use it there"
        )
    tensors = {
        "W_dec": Tensor.rows(directions, regions),
        "b_dec": Tensor.of(dictionary.center),
        "encoder.bias": Tensor.of(np.zeros(len(regions), np.float32)),
        "encoder.weight": Tensor.rows(directions, regions),
    }
    config = {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": len(regions),
        "k": 1,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": dictionary.width,
    }
    with replaced(Path(out), hookpoint, overwrite, needed) as new:
        write_weights(new / WEIGHTS, tensors, dtype)
        write_json(new / CONFIG, config)
        write_json(new / REGIONS, record_of(dictionary, "sparsify", basis, regions))
        files, size = files_of(new)
    return Export(
        format="sparsify",
        folder=Path(out) / hookpoint,
        latents=len(regions),
        dropped=len(dictionary) - len(regions),
        basis=basis,
        dtype=dtype,
        bytes=size,
        files=files,
        warnings=tuple(warnings),
    )


def hookpoint_of(dictionary: Dictionary) -> str:
    """The module of the base model that the dictionary's rows are the output of.

    Raises:
        ValueError: The dictionary does not say, or its rows are the input of a module.
    """
    module = spellings_of(dictionary).get("module")
    if module is None:
        raise ValueError(
            "the dictionary does not say which site it is of; name the base model's module with "
            "--hookpoint, layers.12 say"
        )
    path, _, io = module.partition(":")
    if io == "in":
        raise ValueError(
            f"the dictionary is of the input of {path}, and a hookpoint is a module's output; name "
            "the module before it with --hookpoint"
        )
    base = next((base for base in _BASE_MODELS if path.startswith(base)), "")
    return _checked(path.removeprefix(base))


def _checked(hookpoint: str) -> str:
    """A hookpoint that is a module's path, and so a folder's name."""
    if re.fullmatch(r"\w+(\.\w+)*", hookpoint, re.ASCII) is None:
        raise ValueError(
            f'the hookpoint is "{hookpoint}", expected the path of a module such as layers.12; '
            "give it with --hookpoint"
        )
    return hookpoint
