"""A dictionary as a method of AxBench: a class that its scripts train, save, load and score.

    import axbench
    axbench.EPExemplar = axbench_model(dictionary)     # before AxBench's `main()`

Training chooses one region for each concept; its unit direction becomes the weight of a linear
probe with bias 0. Two rules choose, both from the cosines of (x − c) to every direction at every
position but the first `prefix_length`:

- `auroc`: per text the largest cosine over positions; the region with the largest AUROC between
  positive and negative texts (Mann-Whitney, tied ranks averaged).
- `contrast`: the region with the largest difference between the mean cosine over all tokens of
  positive texts and that over all tokens of negative ones.

Ties go to the lower region. Scores and steering are AxBench's own: the score of a token is the raw
product of its activation with the weight, neither centered nor normalised. Source: Rumbelow 2026
(arXiv:2605.14347), section on AxBench.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary
from exemplars.export.selection import select_regions
from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    check_finite,
    has_direction,
    to_directions,
)

RULES = ("auroc", "contrast")
_BATCH = 32
_MAX_TOKENS = 1024
_COLUMNS = 512


@dataclass(frozen=True)
class Choice:
    """The region chosen for a concept."""

    region: int
    score: float
    """Its training AUROC, or its difference of mean cosines."""
    direction: Float32
    """(D,) of length 1."""


def axbench_model(
    dictionary: Dictionary,
    rule: str = "auroc",
    *,
    basis: str = "exemplar",
    top: int | None = None,
    min_members: int | None = None,
) -> Any:
    """A subclass of AxBench's `LinearProbe`, so of its `Model`, named EPExemplar or EPMean.

    Args:
        dictionary: Of the layer that AxBench is run at.
        rule: "auroc" or "contrast".
        basis: "exemplar" or "mean"; it is chosen by and scored with.
        top: Only so many regions with the most members.
        min_members: Only regions with at least so many members.

    Raises:
        ImportError: AxBench is not installed.
        ValueError: An unknown rule or basis, or no region left.
    """
    _check_rule(rule)
    regions = select_regions(dictionary, top=top, min_members=min_members, basis=basis)
    try:
        from axbench.models.probe import LinearProbe  # type: ignore[import-not-found]
        from axbench.utils.model_utils import (  # type: ignore[import-not-found]
            gather_residual_activations,
        )
    except ImportError as error:
        raise ImportError(
            f"AxBench cannot be imported ({error}); install it from its repository, and run this "
            "in its environment"
        ) from None

    class EPExemplar(LinearProbe):  # type: ignore[misc]
        """One direction for each concept; `self.choice` is the last concept's."""

        choice: Choice | None = None

        def __str__(self) -> str:
            return type(self).__name__

        def make_model(self, **kwargs: Any) -> None:
            if kwargs.get("mode", "train") == "steering":
                super().make_model(**kwargs)
            else:
                width = self.model.config.hidden_size
                self.ax = _linear(width, kwargs.get("low_rank_dimension", 1)).to(self.device)

        def train(self, examples: Any, **kwargs: Any) -> None:
            """Choose a region from a table with columns input and labels (1 is positive)."""
            import torch

            texts, labels = list(examples["input"]), np.asarray(examples["labels"])
            prefix = kwargs.get("prefix_length", 1)
            with torch.no_grad():
                rows = _rows_of_texts(self, gather_residual_activations, texts, prefix)
                self.choice = choose_region(
                    dictionary, rows, labels, rule, basis=basis, regions=regions
                )
            if not hasattr(self, "ax"):
                self.make_model(**kwargs)
            weight = torch.from_numpy(self.choice.direction.copy())[None]
            self.ax.proj.weight.data = weight.to(self.device)
            self.ax.proj.bias.data = torch.zeros(1, device=self.device)

    EPExemplar.__name__ = EPExemplar.__qualname__ = "EPMean" if basis == "mean" else "EPExemplar"
    return EPExemplar


def choose_region(
    dictionary: Dictionary,
    texts: Iterable[Float32],
    labels: Any,
    rule: str = "auroc",
    *,
    basis: str = "exemplar",
    regions: Int64 | None = None,
) -> Choice:
    """The region that tells positive from negative texts best.

    Args:
        dictionary: Whose regions.
        texts: (n, D) raw activations of each text; one without rows is left out.
        labels: (texts,) 1 for positive, else negative.
        rule: "auroc" or "contrast".
        basis: "exemplar" or "mean".
        regions: Only these; default: all that have a direction in the basis.

    Raises:
        ValueError: An unknown rule, or no text of one of the two kinds.
        ActivationError: A NaN or infinite component.
    """
    _check_rule(rule)
    if regions is None:
        regions = select_regions(dictionary, basis=basis)
    directions = np.ascontiguousarray(dictionary.basis(basis)[regions])
    largest: list[Float32] = []
    sums: dict[bool, Any] = {True: 0.0, False: 0.0}
    tokens = {True: 0, False: 0}
    kept: list[bool] = []
    positive = np.asarray(labels) == 1
    for vectors, is_positive in zip(texts, positive.tolist(), strict=True):
        rows, norms = to_directions(vectors, dictionary.center)
        check_finite(norms)
        rows = rows[has_direction(norms, dictionary.center)]
        if not len(rows):
            continue
        cosines = rows @ directions.T
        kept.append(is_positive)
        if rule == "auroc":
            largest.append(cosines.max(axis=0))
        sums[is_positive] += cosines.sum(axis=0, dtype=np.float64)
        tokens[is_positive] += len(rows)
    for kind, name in ((True, "positive"), (False, "negative")):
        if not tokens[kind]:
            raise ValueError(f"no {name} text has a row, so no region can be chosen; give some")
    if rule == "auroc":
        scores = auroc_of_columns(np.stack(largest), np.asarray(kept))
    else:
        scores = sums[True] / tokens[True] - sums[False] / tokens[False]
    best = int(scores.argmax())
    return Choice(int(regions[best]), float(scores[best]), directions[best])


def auroc_of_columns(scores: Float32, positive: Any) -> Float64:
    """(K,) Mann-Whitney AUROC of each column of (n, K) scores, tied ranks averaged."""
    from scipy.stats import rankdata

    n, m = int(positive.sum()), int((~positive).sum())
    ranks = np.concatenate(
        [
            rankdata(scores[:, start : start + _COLUMNS], axis=0)[positive].sum(axis=0)
            for start in range(0, scores.shape[1], _COLUMNS)
        ]
    )
    return np.asarray((ranks - n * (n + 1) / 2) / (n * m))


def _rows_of_texts(model: Any, gather: Any, texts: list[str], prefix: int) -> Iterable[Float32]:
    """The activations that AxBench reads of each text, without the prefix and the padding."""
    for start in range(0, len(texts), _BATCH):
        inputs = model.tokenizer(
            texts[start : start + _BATCH], return_tensors="pt", padding=True, truncation=True,
            max_length=_MAX_TOKENS, add_special_tokens=True,
        ).to(model.device)  # fmt: skip
        found = gather(model.model, model.layer, inputs)
        mask = inputs["attention_mask"].bool()
        if tuple(found.shape[:-1]) != tuple(mask.shape):
            raise ValueError(
                f"AxBench read activations of shape {tuple(found.shape)} for tokens of shape "
                f"{tuple(mask.shape)}: it expects layers that return a tuple; use the version of "
                "transformers that AxBench names"
            )
        for vectors, kept in zip(found, mask, strict=True):
            yield vectors[kept][prefix:].float().cpu().numpy()


def _linear(width: int, n_concepts: int) -> Any:
    """What AxBench calls `ax`: a linear map `proj`, without the sigmoid of its own probe."""
    import torch

    class Projection(torch.nn.Module):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.proj = torch.nn.Linear(width, n_concepts)

        def forward(self, x: Any) -> Any:
            return self.proj(x.to(self.proj.weight.dtype))

    return Projection()


def _check_rule(rule: str) -> None:
    if rule not in RULES:
        raise ValueError(f'rule is "{rule}", expected one of {", ".join(RULES)}')
