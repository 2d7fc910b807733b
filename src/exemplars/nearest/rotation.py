"""Coordinates in which a similarity can be bounded from a few numbers.

Orthonormal columns V split x·e into (Vᵀx)·(Vᵀe) and what lies outside their span, which is at most
ρ_x ρ_e by Cauchy–Schwarz, with ρ the length outside. docs/method.md has the proofs; here are the
quantities, each rounded to the safe side.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from exemplars.geometry import Float32, Float64, gemm_band, vector_norms

LONGEST = 1.0 + 2.0**-22
"""No direction is longer: each component was rounded once."""
_HADAMARD = 64


@dataclass(frozen=True)
class Rotation:
    """How directions become coordinates."""

    basis: Float32
    """(D, d) near-orthonormal columns; or (64, 64), applied to each 64 components by itself."""
    width: int
    """d, the number of coordinates."""
    overlap: float
    """ε >= ‖VᵀV − I‖: how far from orthonormal the columns are."""
    rounding: float
    """δ >= ‖computed coordinates − Vᵀx‖, for every direction x."""
    whole: bool
    """Nothing lies outside: ρ = 0."""

    @property
    def longest(self) -> float:
        """No ‖Vᵀx‖ is larger."""
        return float(np.sqrt(1.0 + self.overlap)) * LONGEST

    @property
    def slack(self) -> float:
        """What non-orthonormal columns and the canonical sum's own rounding can add."""
        return self.overlap * LONGEST**2 + 1e-9

    def coordinates(self, directions: Float32) -> Float32:
        """(n, D) -> (n, d) float32."""
        if not self.whole:
            return directions @ self.basis
        n, width = directions.shape
        if width < self.width:
            padded = np.zeros((n, self.width), np.float32)
            padded[:, :width] = directions
            directions = padded
        blocks = np.ascontiguousarray(directions).reshape(-1, _HADAMARD)
        return (blocks @ self.basis).reshape(n, self.width)

    def outside(self, coordinates: Float32) -> Float64:
        """(n,) float64 ρ: no direction with these coordinates has more outside the span."""
        if self.whole:
            return np.zeros(len(coordinates))
        length = vector_norms(coordinates)
        inside = np.maximum(length * (1.0 - 1e-12) - self.rounding, 0.0)
        rest = LONGEST**2 - inside**2 / (1.0 + self.overlap)
        return np.sqrt(np.maximum(rest, 0.0)) * (1.0 + 1e-12)


def whole_rotation(width: int, seed: int = 0) -> Rotation:
    """All D components, spread by a Hadamard transform of each 64 after random signs.

    Outlying dimensions would else decide the step of an integer grid.
    """
    hadamard = np.ones((1, 1))
    while len(hadamard) < _HADAMARD:
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    signs = np.random.default_rng(seed).choice([-1.0, 1.0], _HADAMARD)
    basis = (signs[:, None] * hadamard / np.sqrt(_HADAMARD)).astype(np.float32)  # ±1/8, exact
    return Rotation(
        basis=basis,
        width=-(-width // _HADAMARD) * _HADAMARD,
        overlap=0.0,
        # Of each block at most γ_64 ‖basis‖_F ‖x‖, and the blocks' squares add.
        rounding=gemm_band(_HADAMARD) * np.sqrt(_HADAMARD) * LONGEST,
        whole=True,
    )


def prefix_rotation(axes: Float32, width: int, seed: int = 0) -> Rotation:
    """The first `width` axes, mixed by a random rotation so that their energies are alike.

    Args:
        axes: (D, m) near-orthonormal columns, ordered by energy.
        width: d <= m.
        seed: Of the rotation.
    """
    mix, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((width, width)))
    basis = np.ascontiguousarray((axes[:, :width].astype(np.float64) @ mix).astype(np.float32))
    exact = basis.astype(np.float64)
    overlap = float(np.linalg.norm(exact.T @ exact - np.eye(width))) * (1 + 1e-9) + 1e-12
    return Rotation(
        basis=basis,
        width=width,
        overlap=overlap,
        # Each coordinate errs by γ_D ‖v‖‖x‖ at most.
        rounding=gemm_band(len(basis)) * float(np.linalg.norm(exact)) * LONGEST,
        whole=False,
    )


def principal_axes(sample: Float32, n_axes: int, seed: int = 0) -> Float32:
    """(D, n_axes) orthonormal columns of most energy in a sample, largest first.

    Subspace iteration on the second moment. That it converges only roughly costs speed, never
    correctness: any orthonormal columns give valid bounds.
    """
    moment = sample.T @ sample
    axes = np.random.default_rng(seed).standard_normal((len(moment), n_axes)).astype(np.float32)
    for _ in range(2):
        axes, _ = np.linalg.qr(moment @ axes)
    energies, turn = np.linalg.eigh(axes.T @ moment @ axes)
    return np.ascontiguousarray(axes @ turn[:, np.argsort(-energies)], np.float32)
