"""Sparse autoencoders (SAEs) in the folder formats of SAELens and sparsify, read without either."""

from __future__ import annotations

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.calibration import as_vectors
from exemplars.errors import FormatError, MismatchError
from exemplars.geometry import Float32, check_finite, vector_norms

ACTIVATIONS = ("relu", "topk", "jumprelu", "gated", "groupmax")
CELLS = 2**22
"""Of a block of codes or overlaps: 16 to 32 MB."""
_EPSILON = 1e-5  # of SAELens' layer norm


@dataclass(frozen=True)
class SparseAutoencoder:
    """The encoder of an SAE, and its decoder's directions."""

    W_enc: Float32
    """(D, M)."""
    b_enc: Float32
    """(M,); of a gated SAE the bias of the magnitudes."""
    W_dec: Float32
    """(M, D)."""
    b_dec: Float32
    """(D,)."""
    activation: str
    """One of `ACTIVATIONS`."""
    k: int | None = None
    """Features kept by "topk"; groups of "groupmax"."""
    threshold: Float32 | None = None
    """(M,) up to which "jumprelu" gives 0."""
    b_gate: Float32 | None = None
    """(M,) of "gated"."""
    r_mag: Float32 | None = None
    """(M,) of "gated": log of the magnitudes' scale."""
    apply_b_dec_to_input: bool = True
    """Whether b_dec is subtracted from the input."""
    rescale_by_decoder_norm: bool = False
    """Whether pre-activations are multiplied by the lengths of the decoder's rows."""
    normalization: str = "none"
    """Of the input: "none", "layer_norm", or "constant_norm_rescale" (to length √D)."""
    name: str = ""
    """The folder's."""
    site: str = ""
    """What its configuration says that it was trained on."""

    @property
    def n_features(self) -> int:
        """M."""
        return len(self.b_enc)

    @property
    def width(self) -> int:
        """D."""
        return len(self.b_dec)

    def encode(self, vectors: Any) -> Float32:
        """Feature activations of raw vectors, computed in float32.

        Args:
            vectors: (..., D) raw activations, numpy or torch; leading dimensions are flattened.

        Returns:
            (N, M) float32, none below 0. Of equal pre-activations "topk" keeps the first ones.

        Raises:
            MismatchError: Another width.
            ActivationError: A NaN or infinite component.
        """
        x = as_vectors(vectors)
        self.check_width(x.shape[1])
        check_finite(vector_norms(x))
        codes = np.empty((len(x), self.n_features), np.float32)
        step = rows_at_once(self.n_features)
        for start in range(0, len(x), step):
            codes[start : start + step] = self._encode(x[start : start + step])
        return codes

    def check_width(self, width: int) -> None:
        """Raises `MismatchError` if vectors of this width are not what it encodes."""
        if width != self.width:
            raise MismatchError(
                f"the vectors have width {width} and the SAE {self.name} width {self.width}; give "
                "an SAE that was trained at the dictionary's site"
            )

    def _encode(self, x: Float32) -> Float32:
        if self.normalization == "layer_norm":
            x = x - x.mean(axis=1, keepdims=True)
            x = x / (x.std(axis=1, ddof=1, keepdims=True) + np.float32(_EPSILON))
        elif self.normalization == "constant_norm_rescale":
            length = np.linalg.norm(x, axis=1, keepdims=True)
            x = x * np.divide(math.sqrt(self.width), length, where=length > 0, out=length * 0)
        if self.apply_b_dec_to_input:
            x = x - self.b_dec
        codes: Float32 = x @ self.W_enc
        if self.activation == "gated":
            assert self.b_gate is not None and self.r_mag is not None  # noqa: PT018
            closed = codes + self.b_gate <= 0
            codes *= np.exp(self.r_mag)
            codes += self.b_enc
            codes[closed] = 0.0
            return np.maximum(codes, 0.0, out=codes)
        codes += self.b_enc
        if self.rescale_by_decoder_norm:
            codes *= np.linalg.norm(self.W_dec, axis=1)
        if self.activation == "jumprelu":
            assert self.threshold is not None
            codes[codes <= self.threshold] = 0.0
        elif self.activation == "topk":
            _zero_all_but_largest(codes, int(self.k or 0))
        elif self.activation == "groupmax":
            groups = codes.reshape(len(codes), int(self.k or 1), -1)
            other = np.arange(groups.shape[2]) != groups.argmax(axis=2)[:, :, None]
            groups[other] = 0.0
        return np.maximum(codes, 0.0, out=codes)


def load_sae(folder: str | os.PathLike[str]) -> SparseAutoencoder:
    """An SAE from a folder of SAELens (cfg.json, sae_weights.safetensors) or of sparsify (cfg.json,
    sae.safetensors), without either package.

    Of SAELens: the architectures standard, topk, jumprelu (also what it makes of batchtopk) and
    gated, with configurations of version 6 and before it. Of sparsify: topk and groupmax, also of
    transcoders. Weights are read as float32, whatever they are stored as.

    Args:
        folder: Of one SAE.

    Raises:
        FormatError: There is no SAE, its files do not fit, or it needs what is not reproduced here.
    """
    place = Path(folder)
    formats = {"sae_weights.safetensors": _of_saelens, "sae.safetensors": _of_sparsify}
    found = [name for name in formats if (place / name).is_file()]
    if not (place / "cfg.json").is_file() or not found:
        raise FormatError(
            f"{place} is not the folder of one SAE: it needs cfg.json and either "
            "sae_weights.safetensors (SAELens) or sae.safetensors (sparsify)"
        )
    config = _configuration(place / "cfg.json")
    tensors = _tensors(place / found[0])
    try:
        sae = formats[found[0]](config, tensors, place)
    except KeyError as missing:
        raise FormatError(f"{place} lacks {missing}, which an SAE of its kind has") from None
    _check_shapes(sae, place)
    return sae


def _configuration(path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise FormatError(f"{path} is not JSON ({error}); get the folder again") from None
    if not isinstance(config, dict):
        raise FormatError(f"{path} is not a JSON object; get the folder again")
    return config


def _tensors(path: Path) -> dict[str, Float32]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        loaded = load_file(path)
    except SafetensorError as error:
        raise FormatError(
            f"{path} is not a whole safetensors file ({error}); get the folder again"
        ) from None
    return {name: tensor.float().numpy() for name, tensor in loaded.items()}


def _of_saelens(
    config: dict[str, Any], tensors: dict[str, Float32], place: Path
) -> SparseAutoencoder:
    metadata = config.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    old = {**config, **metadata}
    site = old.get("hook_name") or old.get("hook_point") or ""
    architecture = config.get("architecture", "standard")
    function = config.get("activation_fn", config.get("activation_fn_str", "relu"))
    arguments = config.get("activation_fn_kwargs")
    k = config.get("k")
    if function == "topk" and isinstance(arguments, dict):  # before version 6
        architecture, k = "topk", arguments.get("k")
    known = {"standard": "relu", "topk": "topk", "jumprelu": "jumprelu", "gated": "gated"}
    if architecture not in known or function not in ("relu", "topk"):
        raise FormatError(
            f"{place} is an SAE of architecture {architecture} with activation {function}; those "
            f"that can be read are {', '.join(known)} with relu or topk"
        )
    normalization = config.get("normalize_activations") or "none"
    if normalization is True or normalization == "expected_average_only_in":
        normalization = "none"  # its factor is in the weights, unless a file holds it
        if (place / "activation_scaler.json").exists():
            raise FormatError(
                f"{place} is a checkpoint whose input scale is not yet part of its weights; give "
                "the SAE as saved at the end of training"
            )
    if normalization not in ("none", "layer_norm", "constant_norm_rescale"):
        raise FormatError(
            f"{place} normalises its input by {normalization}, which is not reproduced here; fold "
            "it into the weights"
        )
    factor = tensors.get("scaling_factor")
    if factor is not None and not np.allclose(factor, 1):
        raise FormatError(f"{place} has a finetuning scaling factor, which is not reproduced here")
    gated = architecture == "gated"
    return SparseAutoencoder(
        W_enc=tensors["W_enc"],
        b_enc=tensors["b_mag" if gated else "b_enc"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        activation=known[architecture],
        k=_kept(k, place) if architecture == "topk" else None,
        threshold=tensors["threshold"] if architecture == "jumprelu" else None,
        b_gate=tensors["b_gate"] if gated else None,
        r_mag=tensors["r_mag"] if gated else None,
        apply_b_dec_to_input=bool(config.get("apply_b_dec_to_input", True)),
        rescale_by_decoder_norm=bool(config.get("rescale_acts_by_decoder_norm", False)),
        normalization=normalization,
        name=place.name,
        site=str(site),
    )


def _of_sparsify(
    config: dict[str, Any], tensors: dict[str, Float32], place: Path
) -> SparseAutoencoder:
    activation = config.get("activation", "topk")
    if activation not in ("topk", "groupmax"):
        raise FormatError(
            f"{place} has the activation {activation}, expected topk or groupmax; it cannot be read"
        )
    return SparseAutoencoder(
        W_enc=np.ascontiguousarray(tensors["encoder.weight"].T),
        b_enc=tensors["encoder.bias"],
        W_dec=tensors["W_dec"],
        b_dec=tensors["b_dec"],
        activation=activation,
        k=_kept(config.get("k", 32), place),
        apply_b_dec_to_input=not config.get("transcode", False),
        name=place.name,
        site=place.name,  # sparsify names the folder for the hook point
    )


def _kept(k: Any, place: Path) -> int:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise FormatError(f"{place} has k = {k}, expected the number of features that are kept")
    return k


def _check_shapes(sae: SparseAutoencoder, place: Path) -> None:
    """Raises unless all arrays are of one width D and one number of features M, and finite."""
    if sae.W_enc.ndim != 2:
        raise FormatError(f"{place} has an encoder of shape {sae.W_enc.shape}, expected (D, M)")
    d, m = sae.W_enc.shape
    shapes = {
        "W_enc": (d, m), "b_enc": (m,), "W_dec": (m, d), "b_dec": (d,), "threshold": (m,),
        "b_gate": (m,), "r_mag": (m,),
    }  # fmt: skip
    for name, shape in shapes.items():
        array = getattr(sae, name)
        if array is None:
            continue
        if array.shape != shape:
            raise FormatError(
                f"{place} has {name} of shape {array.shape}, expected {shape} beside its encoder; "
                "get the folder again"
            )
        if not np.isfinite(array).all():
            raise FormatError(f"{place} has a {name} that is not finite; get the folder again")
    if sae.k is not None and (sae.k > m or (sae.activation == "groupmax" and m % sae.k)):
        raise FormatError(f"{place} has k = {sae.k}, which does not fit its {m} features")


def _zero_all_but_largest(codes: Float32, k: int) -> None:
    """All but the k largest of each row become 0; of equal ones the first are kept."""
    n = codes.shape[1]
    limit = np.partition(codes, n - k, axis=1)[:, n - k, None]
    kept = codes >= limit
    for row in np.flatnonzero(kept.sum(axis=1) > k):
        equal = np.flatnonzero(codes[row] == limit[row])
        kept[row, equal[k - int((codes[row] > limit[row]).sum()) :]] = False
    codes[~kept] = 0.0


def rows_at_once(n_units: int) -> int:
    """Rows whose codes over so many units are held at once."""
    return int(np.clip(CELLS // max(n_units, 1), 64, 8192))
