"""Readouts are the formulas of the method, whatever is done to be fast."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_array, issparse

import oracle
from exemplars.calibration import Calibration
from exemplars.dictionary import partition
from exemplars.errors import ActivationError
from exemplars.readout import READOUTS, decode, encode

PROPERTY = settings(deadline=None, max_examples=60)


def dense_formula(x, center, basis, readout, k):
    """method.md §2.8, in float64; a NaN row of the basis has no code."""
    xc = x.astype(np.float64) - center
    length = np.linalg.norm(xc, axis=1, keepdims=True)
    unit = np.divide(xc, length, out=np.zeros_like(xc), where=length > 1e-6)
    usable = np.isfinite(basis).all(axis=1)
    b = np.where(usable[:, None], basis, 0).astype(np.float64)
    if readout == "signed":
        return xc @ b.T
    if readout == "cosine":
        return unit @ b.T
    projections = (xc if readout == "topk" else unit) @ b.T
    projections[:, ~usable] = -np.inf
    kept = np.zeros(projections.shape, bool)
    np.put_along_axis(kept, np.argsort(-projections, axis=1)[:, :k], True, axis=1)
    kept[:, ~usable] = False
    if readout == "binary":
        return (kept & (length > 1e-6)).astype(np.float64)
    return np.where(kept, np.maximum(projections, 0), 0)


@st.composite
def problems(draw):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    n, k, width = draw(st.integers(1, 20)), draw(st.integers(1, 12)), draw(st.integers(2, 40))
    center = (10 * rng.standard_normal(width)).astype(np.float32)
    x = (center + 20 * rng.standard_normal((n, width))).astype(np.float32)
    x[draw(st.lists(st.integers(0, n - 1), max_size=3))] = center
    basis = rng.standard_normal((k, width))
    basis = (basis / np.linalg.norm(basis, axis=1, keepdims=True)).astype(np.float32)
    basis[draw(st.lists(st.integers(0, k - 1), max_size=k - 1))] = np.nan
    return x, center, basis


@PROPERTY
@given(problems(), st.sampled_from(READOUTS), st.integers(1, 12))
def test_codes_are_the_formula(problem, readout, k):
    x, center, basis = problem
    k = 1 if readout == "binary" else min(k, len(basis))
    codes = encode(x, center, basis, readout, k)
    assert issparse(codes) == (readout not in ("signed", "cosine"))
    assert codes.shape == (len(x), len(basis))
    assert codes.dtype == np.float32
    dense = codes.toarray() if issparse(codes) else codes
    expected = dense_formula(x, center, basis, readout, k)
    scale = np.linalg.norm(x - center, axis=1).max() if readout in ("topk", "signed") else 1.0
    np.testing.assert_allclose(dense, expected, rtol=0, atol=3e-6 * max(scale, 1.0))
    if issparse(codes):
        assert (codes.data > 0).all()
        assert codes.has_canonical_format
        assert (np.diff(codes.indptr) <= k).all()


@PROPERTY
@given(problems(), st.sampled_from(READOUTS))
def test_decoding_is_codes_times_basis_plus_center(problem, readout):
    x, center, basis = problem
    codes = encode(x, center, basis, readout)
    back = decode(codes, center, basis)
    dense = codes.toarray() if issparse(codes) else codes
    rows = np.where(np.isfinite(basis), basis, 0)
    assert back.dtype == np.float32
    np.testing.assert_allclose(back, dense.astype(np.float64) @ rows + center, atol=2e-3)
    np.testing.assert_array_equal(decode(csr_array(dense), center, basis).shape, x.shape)


def test_all_entries_of_topk_are_the_positive_part_of_signed():
    rng = np.random.default_rng(0)
    x, basis = rng.standard_normal((50, 9)), rng.standard_normal((6, 9))
    x, basis = x.astype(np.float32), basis.astype(np.float32)
    center = np.zeros(9, np.float32)
    for sparse, dense in (("topk", "signed"), ("topk_norm", "cosine")):
        np.testing.assert_allclose(
            encode(x, center, basis, sparse, 6).toarray(),
            np.maximum(encode(x, center, basis, dense), 0), atol=1e-5,
        )  # fmt: skip


def test_an_exemplar_times_its_code_gives_back_a_vector_along_it():
    exemplars = np.eye(3, dtype=np.float32)
    center = np.array([1, 2, 3], np.float32)
    x = center + np.array([[4, 0, 0], [0, 0, 0.5]], np.float32)
    codes = encode(x, center, exemplars, "topk")
    np.testing.assert_array_equal(codes.toarray(), [[4, 0, 0], [0, 0, 0.5]])
    np.testing.assert_array_equal(decode(codes, center, exemplars), x)


def test_with_one_entry_the_region_is_the_exactly_nearest_also_among_the_nearly_equal():
    rng = np.random.default_rng(0)
    base = rng.standard_normal(577)
    x = (base + rng.standard_normal((300, 577))).astype(np.float32)
    near = (base + 1e-7 * rng.standard_normal((60, 577))).astype(np.float32)
    origin = np.zeros(577, np.float32)
    basis, rows = oracle.directions(near, origin)[0], oracle.directions(x, origin)[0]
    region, _ = oracle.census(rows, basis)
    assert ((rows @ basis.T).argmax(axis=1) != region).any()
    for readout in ("topk", "topk_norm", "binary"):
        np.testing.assert_array_equal(encode(x, origin, basis, readout).indices, region)


def test_more_rows_than_are_taken_at_once_are_coded_alike():
    rng = np.random.default_rng(1)
    x, basis = rng.standard_normal((2500, 6)), rng.standard_normal((9, 6))
    x, basis = x.astype(np.float32), basis.astype(np.float32)
    center = np.zeros(6, np.float32)
    np.testing.assert_allclose(
        encode(x, center, basis, "topk", 3).toarray(),
        dense_formula(x, center, basis, "topk", 3), atol=1e-5,
    )  # fmt: skip


@pytest.mark.parametrize("readout", READOUTS)
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_that_is_not_finite_is_refused_and_not_coded_as_nothing(readout, bad):
    x = np.ones((4, 3), np.float32)
    x[2, 1] = bad
    with pytest.raises(ActivationError, match="row 2 has a NaN or infinite component"):
        encode(x, np.zeros(3, np.float32), np.eye(3, dtype=np.float32), readout)


@pytest.mark.parametrize("readout", READOUTS)
def test_a_basis_of_empty_regions_codes_as_zeros(readout):
    x = np.ones((4, 3), np.float32)
    codes = encode(x, np.zeros(3, np.float32), np.full((2, 3), np.nan, np.float32), readout)
    assert codes.shape == (4, 2)
    assert abs(codes).sum() == 0


@pytest.mark.parametrize(
    ("readout", "k", "message"),
    [
        ("relu", 1, 'readout is "relu", expected one of topk, signed, cosine, topk_norm, binary'),
        ("signed_norm", 1, 'readout is "signed_norm", expected'),
        ("topk", 0, "k is 0, expected 1 to 3, the number of regions"),
        ("topk_norm", 4, "k is 4, expected 1 to 3"),
        ("binary", 2, "k is 2, but the binary readout marks exactly 1 region"),
    ],
)
def test_a_wrong_readout_is_refused_in_words(readout, k, message):
    with pytest.raises(ValueError, match=message):
        encode(
            np.ones((2, 3), np.float32), np.zeros(3, np.float32), np.eye(3, dtype="f4"), readout, k
        )


def test_a_dictionary_reads_with_its_exemplars_or_its_means():
    rng = np.random.default_rng(3)
    x = (5 + rng.standard_normal((400, 8))).astype(np.float32)
    made = partition(x, Calibration(np.full(8, 5, np.float32), {5.0: 0.6}, 400, 2048))
    means = made.means.copy()
    means[1] = np.nan
    made = replace(made, members=replace(made.members, means=means))
    for basis, rows in (("exemplar", made.exemplars), ("mean", means)):
        for readout in READOUTS:
            k = 1 if readout == "binary" else 3
            codes = made.encode(x, readout, basis, k)
            dense = codes.toarray() if issparse(codes) else codes
            expected = dense_formula(x, made.center, rows, readout, k)
            np.testing.assert_allclose(dense, expected, atol=1e-5)
            np.testing.assert_allclose(
                made.decode(codes, basis), expected @ np.nan_to_num(rows) + 5, atol=1e-4
            )
    assert (made.encode(x, "cosine", "mean")[:, 1] == 0).all()
    with pytest.raises(ValueError, match=f"codes have 2 columns, expected {len(made)}, one a reg"):
        made.decode(np.ones((3, 2)))
    with pytest.raises(ValueError, match='basis is "median", expected "exemplar" or "mean"'):
        made.encode(x, basis="median")
    with pytest.raises(ValueError, match="vectors have width 3, this dictionary 8"):
        made.encode(np.ones((2, 3)))
