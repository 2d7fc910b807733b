"""Can this model's activations be trusted on this machine? The checks behind `exemplars doctor`.

Activations that are silently wrong poison a partition: padding that leaks, packed documents that
see each other, two BOS, numbers that overflow, a device that computes something else. Each check
measures, and says what it found.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from exemplars.activations import read_activations
from exemplars.corpora import Texts, texts
from exemplars.errors import ExemplarsError
from exemplars.tokenization import Tokenization, token_windows

if TYPE_CHECKING:
    import torch

    from exemplars.models import Model

_TEXTS = (
    "The ferry left at seven, and nobody on the quay waved.",
    "Dough.",
    "To find the median of an even number of values, sort them and take the mean of the two in the "
    "middle; with an odd number, take the middle one.",
    "def area(width, height):\n    return width * height\n",
    "Der Schlüssel liegt unter dem Blumentopf, wie immer.",
)
_TOKENIZATION = Tokenization(context_length=64)


@dataclass(frozen=True)
class Check:
    """One thing looked at."""

    name: str
    status: str
    """"ok", "warning" (works, with something to know), or "failed" (do not trust the result)."""
    found: str
    """One sentence: what was measured, and what to do if it is not as it should be."""


@dataclass(frozen=True)
class Plan:
    """What a build takes, in bytes."""

    weights_bytes: int
    window_bytes: int
    """Activations in memory at once, over all sites."""
    regions_bytes: int
    """Regions in memory, over all dictionaries (a site and a percentile each)."""
    disk_bytes: int
    """Dictionaries on disk, at most."""


@dataclass(frozen=True)
class Diagnosis:
    """What the checks found."""

    checks: tuple[Check, ...]
    plan: Plan

    @property
    def healthy(self) -> bool:
        """Whether no check failed."""
        return all(check.status != "failed" for check in self.checks)


def diagnose(
    model: Model,
    sites: Sequence[str] | None = None,
    *,
    rows: int = 1_000_000,
    percentiles: Sequence[float] = (2.0,),
    n_regions: int = 50_000,
    window_tokens: int = 16384,
) -> Diagnosis:
    """Run every check on a few built-in texts, and plan the memory of a build.

    Args:
        model: From `load_model`.
        sites: The sites to check; the residual stream after the first, middle and last layer by
            default.
        rows: Of the build that is planned.
        percentiles: Of the build that is planned: one dictionary for each, at each site.
        n_regions: Expected in each dictionary; never more than `rows`.
        window_tokens: Of the build that is planned.

    Raises:
        ValueError: If the model has no such site.
    """
    names = [model.site(site).name for site in sites or _default_sites(model)]
    checks = (
        _check("finite values", _finite, model, names),
        _check("padding", _padding, model, names),
        _check("packing", _packing, model, names),
        _check("BOS", _bos, model, names),
        _check("sites add up", _sums, model, names),
        _check("left as it was", _traces, model, names),
        _check("device", _device, model, names),
    )
    return Diagnosis(checks, _plan(model, len(names), rows, percentiles, n_regions, window_tokens))


def _default_sites(model: Model) -> list[str]:
    layers = sorted({0, model.n_layers // 2, model.n_layers - 1})
    return [f"resid_post.{layer}" for layer in layers]


def _check(
    name: str, run: Callable[[Model, list[str]], tuple[str, str]], model: Model, sites: list[str]
) -> Check:
    try:
        return Check(name, *run(model, sites))
    except ExemplarsError as error:
        return Check(name, "failed", str(error))


def _finite(model: Model, sites: list[str]) -> tuple[str, str]:
    vectors = _vectors(model, sites)
    largest = max(float(part.abs().max()) for part in vectors.values())
    return "ok", f"every value is finite in {_dtype_name(model)}; the largest is {largest:.4g}"


def _padding(model: Model, sites: list[str]) -> tuple[str, str]:
    found = _compared(_vectors(model, sites, batch_tokens=1), _vectors(model, sites))
    return _verdict(model, found, "texts alone and right-padded in a batch give", "do not batch")


def _packing(model: Model, sites: list[str]) -> tuple[str, str]:
    packed = replace(_TOKENIZATION, packing="documents")
    try:
        found = _compared(_vectors(model, sites), _vectors(model, sites, packed))
    except ValueError as error:
        return "warning", str(error)
    return _verdict(model, found, "texts packed and apart give", 'use packing="none"')


def _bos(model: Model, sites: list[str]) -> tuple[str, str]:
    bos = getattr(model.tokenizer, "bos_token_id", None)
    if bos is None:
        return "ok", "the tokenizer has no BOS token"
    plain = _leading(model, _TOKENIZATION, bos)
    found = f"plain text begins with {plain} BOS"
    counts = [plain]
    if getattr(model.tokenizer, "chat_template", None):
        counts.append(_leading(model, replace(_TOKENIZATION, chat=True), bos))
        found += f" and a message in the chat template with {counts[-1]}"
    if max(counts) > 1:
        return "failed", f"{found}; one is what a model knows, so mend the tokenizer or template"
    return "ok", found


def _sums(model: Model, sites: list[str]) -> tuple[str, str]:
    layers = sorted({layer for site in sites if (layer := model.site(site).layer) is not None})
    worst = (0.0, 1.0)
    for layer in layers:
        kinds = ("resid_pre", "attn_out", "mlp_out", "resid_post")
        try:
            vectors = _vectors(model, [f"{kind}.{layer}" for kind in kinds])
        except ValueError as error:
            return "warning", str(error)
        parts = [vectors[f"{kind}.{layer}"].float() for kind in kinds]
        found = _differences(parts[0] + parts[1] + parts[2], parts[3])
        worst = max(worst[0], found[0]), min(worst[1], found[1])
    listed = ", ".join(map(str, layers))
    return _verdict(
        model,
        worst,
        f"resid_pre + attn_out + mlp_out and resid_post of layers {listed} give",
        "read attn_out and mlp_out as parts of what a layer adds, not all of it",
        otherwise="warning",
    )


def _traces(model: Model, sites: list[str]) -> tuple[str, str]:
    import torch

    def state() -> tuple[list[tuple[int, ...]], list[bool]]:
        modules = list(model.module.modules())
        return (
            [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in modules],
            [m.training for m in modules],
        )

    before, values = state(), _vectors(model, sites)
    after, again = state(), _vectors(model, sites)
    if before != after:
        return "failed", "hooks or modes are not what they were before a reading; report this"
    if not all(torch.equal(values[site], again[site]) for site in sites):
        return "warning", "two readings differ; the device computes in no fixed order"
    return "ok", "hooks and modes are as before a reading, and two readings equal to the bit"


def _device(model: Model, sites: list[str]) -> tuple[str, str]:
    if model.device.type == "cpu":
        return "ok", "the model is on the CPU, which is the reference"
    reference = replace(model, module=copy.deepcopy(model.module).to("cpu"))
    found = _compared(_vectors(reference, sites), _vectors(model, sites))
    status, sentence = _verdict(
        model, found, f"the CPU and {model.device} give", "use another device"
    )
    if model.device.type == "mps" and status == "ok":
        status, sentence = "warning", f"{sentence}; MPS has given wrong results before, check again"
    return status, sentence


def _vectors(
    model: Model,
    sites: Sequence[str],
    tokenization: Tokenization = _TOKENIZATION,
    batch_tokens: int = 4096,
) -> dict[str, torch.Tensor]:
    """By site, the vectors of the built-in texts: one window."""
    (batches,) = read_activations(
        model, sites, texts(list(_TEXTS)), tokenization, batch_tokens=batch_tokens
    )
    return {batch.site: batch.vectors.float() for batch in batches}


def _differences(one: torch.Tensor, two: torch.Tensor) -> tuple[float, float]:
    """The largest relative difference of a row, and the smallest cosine."""
    import torch

    relative = (one - two).norm(dim=1) / two.norm(dim=1).clamp_min(1e-30)
    return float(relative.max()), float(torch.cosine_similarity(one, two).min())


def _compared(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> tuple[float, float]:
    found = [_differences(one[site], two[site]) for site in one]
    return max(relative for relative, _ in found), min(cosine for _, cosine in found)


def _verdict(
    model: Model,
    found: tuple[float, float],
    what: str,
    advice: str,
    otherwise: str = "failed",
) -> tuple[str, str]:
    """Equal to rounding, taken as the root of the dtype's epsilon: 3e-4, 0.03 or 0.09."""
    import torch

    relative, cosine = found
    tolerance = torch.finfo(model.dtype).eps ** 0.5
    sentence = (
        f"{what} vectors that differ by {relative:.1e} of their length at most, with cosine "
        f"{cosine:.6f} at least, in {_dtype_name(model)}"
    )
    return ("ok", sentence) if relative <= tolerance else (otherwise, f"{sentence}; {advice}")


def _leading(model: Model, tokenization: Tokenization, bos: int) -> int:
    """With how many BOS a text begins; the most of the built-in ones."""
    most = 0
    source: Texts = texts(list(_TEXTS))
    for window in token_windows(source, model.tokenizer, tokenization):
        for batch in window.batches:
            is_bos = (batch.ids == bos) & batch.attention
            most = max(most, int(is_bos.cumprod(axis=1).sum(axis=1).max()))
    return most


def _dtype_name(model: Model) -> str:
    return str(model.dtype).removeprefix("torch.")


def _plan(
    model: Model,
    n_sites: int,
    rows: int,
    percentiles: Sequence[float],
    n_regions: int,
    window_tokens: int,
) -> Plan:
    width, regions = model.width, min(rows, n_regions) * len(percentiles) * n_sites
    return Plan(
        weights_bytes=sum(p.numel() * p.element_size() for p in model.module.parameters()),
        window_bytes=min(rows, window_tokens) * width * model.dtype.itemsize * n_sites,
        # The exemplar in float32, the sum of its members in 64 bits, and the statistics.
        regions_bytes=regions * (4 * width + 8 * width + 1_600),
        # Exemplar and mean in float32, and at most this much of contexts.
        disk_bytes=regions * (8 * width + 6_000),
    )
