"""A dictionary as an SAE of SAEBench: a subclass of its `BaseSAE`.

    from sae_bench.evals.sparse_probing import main
    sae = saebench_sae(dictionary, readout="signed", model_name="gemma-2-2b", hook_layer=12)
    main.run_eval(config, [("exemplars", sae)], device, "results")

The codes are those of `exemplars.readout`, as a dense tensor; decode(codes) = codes · B + c with B
the unit directions. Written for sae-bench 0.6.0, which is imported when this is called.
"""

from __future__ import annotations

import functools
import re
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.export.selection import model_name_of, select_regions, spellings_of
from exemplars.readout import READOUTS


def saebench_sae(
    dictionary: Dictionary,
    readout: str = "topk",
    *,
    basis: str = "exemplar",
    k: int = 1,
    model_name: str | None = None,
    hook_layer: int | None = None,
    hook_name: str | None = None,
    device: Any = "cpu",
    dtype: Any = "float32",
    top: int | None = None,
    min_members: int | None = None,
) -> Any:
    """An instance of SAEBench's `BaseSAE` whose latents are regions.

    Args:
        dictionary: What to evaluate.
        readout: One of `exemplars.readout.READOUTS`: "topk" and "binary" are sparse; "signed" and
            "cosine" are dense, for probing.
        basis: "exemplar" or "mean".
        k: Latents kept by "topk" and "topk_norm".
        model_name: TransformerLens' name of the model; default: the dictionary's.
        hook_layer: Default: the layer of the dictionary's site.
        hook_name: Default: the site in TransformerLens' words.
        device: A torch device.
        dtype: A torch dtype or its name.
        top: Only so many regions with the most members.
        min_members: Only regions with at least so many members.

    Returns:
        The SAE; `sae.regions` (n,) are the numbers of its latents' regions.

    Raises:
        ImportError: SAEBench is not installed.
        ValueError: An unknown readout, a model or layer that the dictionary does not name, or no
            region left.
    """
    import torch

    if readout not in READOUTS:
        raise ValueError(f'readout is "{readout}", expected one of {", ".join(READOUTS)}')
    regions = select_regions(dictionary, top=top, min_members=min_members, basis=basis)
    if not 1 <= k <= len(regions):
        raise ValueError(f"k is {k}, expected 1 to {len(regions)}, the number of latents")
    if k > 1 and readout == "binary":
        raise ValueError(f"k is {k}, but the binary readout marks exactly 1 region")
    hook_name = hook_name or spellings_of(dictionary).get("transformer_lens")
    model_name = model_name or model_name_of(dictionary)
    if hook_layer is None and hook_name is not None:
        found = re.match(r"blocks\.(\d+)\.", hook_name)
        hook_layer = int(found[1]) if found else None
    if model_name is None or hook_layer is None:
        missing = "its model; pass model_name" if model_name is None else "a layer; pass hook_layer"
        raise ValueError(f"the dictionary does not name {missing}")
    wanted = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    sae = _sae_class()(
        d_in=dictionary.width, d_sae=len(regions), model_name=model_name, hook_layer=hook_layer,
        device=torch.device(device), dtype=wanted, hook_name=hook_name,
    )  # fmt: skip
    directions = torch.from_numpy(np.ascontiguousarray(dictionary.basis(basis)[regions]))
    with torch.no_grad():
        sae.W_dec.copy_(directions)
        sae.W_enc.copy_(directions.T)
        sae.b_dec.copy_(torch.from_numpy(np.array(dictionary.center)))
    sae.readout, sae.k, sae.regions = readout, k, regions
    sae.cfg.architecture = f"exemplar_partition_{readout}"
    sae.cfg.dtype = str(wanted).removeprefix("torch.")
    return sae


@functools.cache
def _sae_class() -> Any:
    try:
        from sae_bench.custom_saes.base_sae import (  # type: ignore[import-not-found]
            BaseSAE,
        )
    except ImportError as error:
        raise ImportError(
            f"SAEBench cannot be imported ({error}); run this in an environment with "
            "`pip install sae-bench exemplars`"
        ) from None

    class ExemplarSAE(BaseSAE):  # type: ignore[misc]
        """Regions as latents; parameters W_enc (D, n), W_dec (n, D), b_enc (n,), b_dec (D,)."""

        readout: str
        k: int

        def encode(self, x: Any) -> Any:
            """(..., D) -> (..., n) codes of the readout."""
            return _codes(x, self.W_enc, self.b_dec, self.readout, self.k)

        def decode(self, feature_acts: Any) -> Any:
            """(..., n) -> (..., D)."""
            return feature_acts @ self.W_dec + self.b_dec

        def forward(self, x: Any) -> Any:
            """(..., D) -> (..., D)."""
            return self.decode(self.encode(x))

    return ExemplarSAE


def _codes(x: Any, encoder: Any, center: Any, readout: str, k: int) -> Any:
    import torch

    centered = x.to(encoder.dtype) - center
    codes = centered @ encoder
    if readout in ("cosine", "topk_norm"):
        codes = codes / centered.norm(dim=-1, keepdim=True).clamp_min(1e-12)
    if readout in ("signed", "cosine"):
        return codes
    values, chosen = codes.topk(k, dim=-1)
    values = values.relu()
    if readout == "binary":
        values = centered.any(dim=-1, keepdim=True).to(values.dtype).expand_as(values)
    return torch.zeros_like(codes).scatter_(-1, chosen, values)
