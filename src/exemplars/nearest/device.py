"""Screening on a torch device: products there, decisions on the host.

On CUDA the directions are rounded to float16, whose products tensor cores sum in float32;
elsewhere they stay float32. Both have a proven bound (docs/method.md). What it leaves open, about
one exemplar a row, comes back as pairs and is compared canonically on the host, so a device without
float64 will do, and every device gives the same answer.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from exemplars.geometry import Float32, Float64, Int64, compiled, gemm_band
from exemplars.nearest import dense
from exemplars.nearest.scanning import compare

_ROWS = 4096
_EXEMPLARS = 8192
_MOST_OPEN = 256
"""A row that leaves more open in one tile is searched densely on the host."""
_SCALE = 256.0
"""Keeps components of 2⁻²² and more out of float16's subnormal numbers; a power of 2."""


class DeviceScreen:
    """Exemplars kept on a torch device.

    Args:
        device: As torch names it: "cuda", "cuda:1", "mps", "cpu".
        width: D.
        half: Round to float16; None: on CUDA.

    Raises:
        ValueError: torch has no such device, or multiplies float32 less precisely than float32.
    """

    def __init__(self, device: str, width: int, half: bool | None = None) -> None:
        import torch

        try:
            self._device = torch.device(device)
            torch.zeros(1, device=self._device).item()
        except (RuntimeError, AssertionError, NotImplementedError) as error:
            why = str(error).splitlines()[0]
            raise ValueError(
                f'screen is "{device}", which is none of auto, dense, float32, int8, and no device '
                f"that torch can use here ({why})"
            ) from error
        self.half = self._device.type == "cuda" if half is None else half
        self.n = 0
        self._kept = torch.empty((0, width), dtype=self._dtype(), device=self._device)
        if self.half:
            # Rounding to float16 misses 2⁻¹¹ of a component at most, 2⁻²⁵ of the smallest. Tensor
            # cores may cut what they add; four times the bound of rounding allows for that.
            rest = 2.0**-11 * (1 + 2.0**-22) + np.sqrt(width) * 2.0**-25 / _SCALE
            self._slack = rest * (2.0 + rest) + 4.0 * 1.01 * width * 2.0**-23
        else:
            self._slack = 4.0 * gemm_band(width)
        self._self_test(width)

    def _self_test(self, width: int) -> None:
        """That products are as precise here as they are taken to be."""
        random = np.random.default_rng(0).standard_normal((64, width))
        some = (random / np.linalg.norm(random, axis=1, keepdims=True)).astype(np.float32)
        product = self._product(self._put(some), self._put(some)).cpu().numpy()
        worst = float(np.abs(product - some.astype(np.float64) @ some.T.astype(np.float64)).max())
        if not worst <= self._slack:
            raise ValueError(
                f'products on "{self._device}" err by {worst:.1e}, expected {self._slack:.1e} at '
                "most; search on the processor, with screen auto"
            )

    def _dtype(self) -> Any:
        import torch

        return torch.float16 if self.half else torch.float32

    def _put(self, directions: Float32) -> Any:
        """Directions on the device, scaled and rounded."""
        import torch

        values = torch.tensor(directions).to(self._device)
        return (values * _SCALE).to(torch.float16) if self.half else values

    def append(self, exemplars: Float32) -> None:
        """Take in the exemplars that come next."""
        import torch

        needed = self.n + len(exemplars)
        if needed > len(self._kept):
            room = max(needed, 2 * len(self._kept))
            kept = torch.empty(
                (room, self._kept.shape[1]), dtype=self._dtype(), device=self._device
            )
            kept[: self.n] = self._kept[: self.n]
            self._kept = kept
        for first in range(0, len(exemplars), _EXEMPLARS):
            part = self._put(np.asarray(exemplars[first : first + _EXEMPLARS]))
            self._kept[self.n + first : self.n + first + len(part)] = part
        self.n = needed

    def _product(self, rows: Any, exemplars: Any) -> Any:
        """(n, m) float32 similarities, to within the slack."""
        import torch

        precise = ("highest", "high") if self.half else ("highest",)
        setting = torch.get_float32_matmul_precision()
        if setting not in precise:
            raise ValueError(
                f'torch multiplies float32 with precision "{setting}", which breaks the bounds of '
                f'an exact search; call torch.set_float32_matmul_precision("{precise[0]}")'
            )
        if not self.half:
            return rows @ exemplars.T
        if self._device.type == "cuda":
            try:
                product = torch.mm(rows, exemplars.T, out_dtype=torch.float32)
                return product.div_(_SCALE**2)
            except TypeError:  # torch before 2.8
                pass
        # float16 numbers are exact in float32 and in TF32, so only the sums round.
        return (rows.float() @ exemplars.float().T).div_(_SCALE**2)

    def offer(
        self,
        directions: Float32,
        exemplars: Float32,
        region: Int64,
        similarity: Float64,
        threads: int = 1,
    ) -> tuple[int, int]:
        """Let exemplars, the first ones taken in, compete; 0, and how many were compared."""
        checks = 0
        kept = self._kept[: len(exemplars)]
        for start in range(0, len(directions), _ROWS):
            part = slice(start, start + _ROWS)
            rows, columns, many = self._open(directions[part], similarity[part], kept)
            checks += len(rows)
            _compare_pairs(
                rows, columns, directions[part], exemplars, region[part], similarity[part]
            )
            if len(many):
                some = start + many
                regions, similarities = region[some], similarity[some]
                checks += dense.offer(directions[some], exemplars, 0, regions, similarities)
                region[some], similarity[some] = regions, similarities
        return 0, checks

    def _open(
        self, directions: Float32, similarity: Float64, kept: Any
    ) -> tuple[Int64, Int64, Int64]:
        """Pairs that can be nearest, and rows that have too many of them to list."""
        import torch

        rows = self._put(directions)
        # In float32 and rounded down: what a row is known to reach.
        known = torch.tensor(np.nextafter(similarity.astype(np.float32), np.float32(-np.inf)))
        reached = known.to(self._device)
        many = torch.zeros(len(directions), dtype=torch.bool, device=self._device)
        found = []
        for first in range(0, len(kept), _EXEMPLARS):
            product = self._product(rows, kept[first : first + _EXEMPLARS])
            reached = torch.maximum(reached, product.amax(dim=1) - 1.01 * self._slack)
            open_ = product >= (reached - 1.01 * self._slack)[:, None]
            too_many = open_.sum(dim=1) > _MOST_OPEN
            many |= too_many
            open_ &= ~too_many[:, None]
            r, c = torch.nonzero(open_, as_tuple=True)
            found.append((r, c + first, product[r, c]))
        r, c, value = (torch.cat(parts) for parts in zip(*found, strict=True))
        still = (value >= reached[r] - 1.01 * self._slack) & ~many[r]
        return (
            r[still].cpu().numpy().astype(np.int64),
            c[still].cpu().numpy().astype(np.int64),
            torch.nonzero(many)[:, 0].cpu().numpy(),
        )

    def upper_bounds(self, directions: Float32, regions: Int64) -> Float64:
        """(n,) bound of each direction's similarity with one exemplar; for audits."""
        import torch

        bounds = []
        for start in range(0, len(directions), 256):
            part = slice(start, start + 256)
            chosen = self._kept[torch.tensor(regions[part]).to(self._device)]
            product = self._product(self._put(directions[part]), chosen)
            bounds.append(product.diagonal().cpu().numpy().astype(np.float64) + self._slack)
        return np.concatenate(bounds)


@compiled
def _compare_pairs(
    rows: Int64,
    columns: Int64,
    directions: Float32,
    exemplars: Float32,
    region: Int64,
    similarity: Float64,
) -> None:
    for p in range(rows.shape[0]):
        r, k = rows[p], columns[p]
        compare(directions, r, exemplars, k, k, region, similarity)
