"""A dictionary beside an SAE: a slow oracle, cases known in advance, folders good and bad."""

import json
import re
from dataclasses import fields, replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from exemplars import report
from exemplars.analyses import autoencoders
from exemplars.analyses import sae as module
from exemplars.analyses.autoencoders import ACTIVATIONS, SparseAutoencoder, load_sae
from exemplars.analyses.sae import METHODS, NULLS, compare_sae
from exemplars.cli import sae as _command  # noqa: F401  # the verb adds itself
from exemplars.report.sae import sae_figure, sae_text
from tiny_models import WIDTH as MODEL_WIDTH
from tiny_models import tiny_module

TO_REGION, TO_FEATURE = module.DIRECTIONS
PUBLISHED, BEST, HELD_OUT, ONE_TO_ONE = METHODS[:4]
WIDTH = 12


def clouds(n=400, n_clouds=8, seed=0, noise=0.2):
    """Rows round orthogonal centers, in random order."""
    random = np.random.default_rng(seed)
    centers = 10 * np.eye(n_clouds, WIDTH)
    rows = centers[random.integers(0, n_clouds, n)] + noise * random.standard_normal((n, WIDTH))
    return rows.astype(np.float32)


def dictionary_of(vectors, percentile=12.0):
    return ex.partition(vectors, ex.calibrate(vectors, [percentile]))


def sae_of(dictionary, activation="topk", k=1, order=None):
    """An SAE whose features are the regions: tied to the exemplars, around the center."""
    rows = np.array(dictionary.exemplars if order is None else dictionary.exemplars[order])
    zeros = np.zeros(len(rows), np.float32)
    return SparseAutoencoder(
        rows.T.copy(), zeros, rows, np.array(dictionary.center), activation, k, name="tied"
    )


def random_sae(n=10, seed=0, activation="relu", **more):
    """Weights that are small integers, so that every order of summation gives the same codes."""
    random = np.random.default_rng(seed)
    drawn = random.integers(-2, 3, (WIDTH, n)).astype(np.float32)
    bias = random.integers(-3, 2, n).astype(np.float32)
    zeros = np.zeros(WIDTH, np.float32)
    return SparseAutoencoder(drawn, bias, drawn.T.copy(), zeros, activation, name="r", **more)


def whole_rows(n=150, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, (n, WIDTH)).astype(np.float32)


@pytest.fixture(scope="module")
def vectors():
    return clouds()


@pytest.fixture(scope="module")
def dictionary(vectors):
    return dictionary_of(vectors)


@pytest.fixture(scope="module")
def compared(dictionary, vectors):
    return compare_sae(
        dictionary, sae_of(dictionary), vectors, readout="topk", top=30, min_active=5, seeds=2
    )


def value(result, method, direction="", statistic="mean F1"):
    return result.measure(method, direction, statistic).estimate


# The oracle: sets of Python, pair by pair.


def top_sets(codes, top, min_active):
    """Unit -> the rows of its largest positive codes, for units that take part."""
    found = {}
    for unit in range(codes.shape[1]):
        rows = [n for n in range(len(codes)) if codes[n, unit] > 0]
        if len(rows) >= min_active:
            found[unit] = set(sorted(rows, key=lambda n: (-codes[n, unit], n))[:top])
    return found


def f1(a, b):
    return 2 * len(a & b) / (len(a) + len(b)) if a or b else 0.0


def oracle_best(a, b):
    """(F1, partner) of each set of `a`, the partner by F1, ties to the lower number."""
    best = {u: max(((f1(s, t), -v) for v, t in b.items()), default=(0.0, 1)) for u, s in a.items()}
    return {u: (score, -v if score else -1) for u, (score, v) in best.items()}


def oracle_published(a, b):
    """F1 of the partner of the largest overlap; units without overlap dropped."""
    scores = []
    for s in a.values():
        overlap, partner = max(((len(s & t), -v) for v, t in b.items()), default=(0, 0))
        if overlap:
            precision, recall = overlap / len(s), overlap / len(b[-partner])
            scores.append(2 * precision * recall / (precision + recall))
    return scores


def oracle_held_out(codes_a, codes_b, take_part, top):
    """Partner on one half, F1 on the other, both ways."""
    middle, fewer = len(codes_a) // 2, (top + 1) // 2
    halves = [
        [{u: top_sets(c[part], fewer, 0)[u] for u in units} for c, units in zip(
            (codes_a, codes_b), take_part, strict=True)]
        for part in (slice(0, middle), slice(middle, None))
    ]  # fmt: skip
    total = dict.fromkeys(take_part[0], 0.0)
    for (chosen_a, chosen_b), (taken_a, taken_b) in (halves, halves[::-1]):
        for unit, (score, partner) in oracle_best(chosen_a, chosen_b).items():
            total[unit] += f1(taken_a[unit], taken_b[partner]) / 2 if score else 0.0
    return total


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["relu", "topk"]), st.sampled_from([4, 15]))
def test_f1_of_top_rows_is_that_of_the_oracle(seed, activation, top):
    vectors = whole_rows(seed=seed)
    dictionary = dictionary_of(vectors, 30.0)
    sae = random_sae(seed=seed, activation=activation, k=3 if activation == "topk" else None)
    found = compare_sae(dictionary, sae, vectors, top=top, min_active=3, seeds=1)
    codes = sae.encode(vectors), dictionary.encode(vectors, "signed")
    assert found.dropped == 0
    sets = [top_sets(c, top, 3) for c in codes]
    sides = ((0, TO_REGION, found.feature_f1, found.feature_partner),
             (1, TO_FEATURE, found.region_f1, found.region_partner))  # fmt: skip
    for side, direction, scores, partners in sides:
        best = oracle_best(sets[side], sets[1 - side])
        assert set(np.flatnonzero(~np.isnan(scores))) == set(best)
        for unit, (score, partner) in best.items():
            assert (scores[unit], partners[unit]) == (pytest.approx(score), partner)
        expected = [score for score, _ in best.values()]
        if expected:
            assert value(found, BEST, direction) == pytest.approx(np.mean(expected))
            share = np.mean(np.array(expected) > 0.3)
            assert value(found, BEST, direction, "F1 > 0.3") == pytest.approx(share)
        dropping = oracle_published(sets[side], sets[1 - side])
        if dropping:
            assert value(found, PUBLISHED, direction) == pytest.approx(np.mean(dropping))
            left = value(found, PUBLISHED, direction, "left out, no overlap")
            assert left == pytest.approx(1 - len(dropping) / len(best))
        held = oracle_held_out(codes[side], codes[1 - side], (sets[side], sets[1 - side]), top)
        if held:
            assert value(found, HELD_OUT, direction) == pytest.approx(np.mean(list(held.values())))


@pytest.mark.parametrize("activation", ["relu", "topk"])
def test_members_and_active_sets_are_those_of_the_oracle(activation):
    vectors = whole_rows(200)
    dictionary = dictionary_of(vectors, 20.0)
    sae = random_sae(activation=activation, k=2 if activation == "topk" else None)
    found = compare_sae(dictionary, sae, vectors, top=20, min_active=4, seeds=1)
    labels, distances = dictionary.assign(vectors)
    codes = sae.encode(vectors)
    members = {k: set(np.flatnonzero(labels == k)) for k in range(len(dictionary))}
    strongest = np.where(codes.max(1) > 0, codes.argmax(1), -1 - np.arange(len(codes)))
    for method, sets in (
        ("members, active", {m: set(np.flatnonzero(codes[:, m] > 0)) for m in range(10)}),
        ("members, top feature", {m: set(np.flatnonzero(strongest == m)) for m in range(10)}),
    ):
        a, b = ({u: s for u, s in x.items() if len(s) >= 4} for x in (sets, members))
        for direction, one, other in ((TO_REGION, a, b), (TO_FEATURE, b, a)):
            expected = [score for score, _ in oracle_best(one, other).values()]
            assert value(found, method, direction) == pytest.approx(np.mean(expected))
            total = []
            for unit in one:
                scores = []
                for chosen, taken in ((range(100), range(100, 200)), (range(100, 200), range(100))):
                    here, there = set(chosen), set(taken)
                    on = {v: t & here for v, t in other.items()}
                    best, partner = oracle_best({0: one[unit] & here}, on)[0]
                    scores.append(f1(one[unit] & there, other[partner] & there) if best else 0)
                total.append(np.mean(scores))
            assert value(found, f"{method}, held out", direction) == pytest.approx(np.mean(total))
    different = [
        len({strongest[n] for n in sorted(rows, key=lambda n: (distances[n], n))[:5]})
        for rows in members.values()
        if len(rows) >= 5
    ]
    assert value(found, "5 nearest members", "", "features") == pytest.approx(np.mean(different))
    one = np.mean(np.array(different) == 1)
    assert value(found, "5 nearest members", "", "all of one feature") == pytest.approx(one)


def test_an_sae_that_is_the_dictionary_matches_itself(compared, dictionary):
    assert compared.eligible_features == compared.eligible_regions == len(dictionary) > 5
    for method in METHODS[:-1]:
        for direction in ("",) if method == ONE_TO_ONE else module.DIRECTIONS:
            assert value(compared, method, direction) == pytest.approx(1.0)
    assert value(compared, "5 nearest members", "", "all of one feature") == 1.0
    assert value(compared, "5 nearest members", "", "features") == 1.0
    np.testing.assert_array_equal(compared.feature_partner, np.arange(len(dictionary)))
    np.testing.assert_array_equal(compared.region_partner, np.arange(len(dictionary)))


def test_permuted_rows_leave_only_chance(compared):
    n = compared.rows
    for method in (BEST, HELD_OUT, "members, active, held out", "members, top feature, held out"):
        for drawn in compared.measure(method, TO_REGION, "mean F1").nulls["permuted rows"]:
            assert drawn < 6 * compared.top / n
    nulls = compared.measure("5 nearest members", "", "features").nulls["permuted rows"]
    assert min(nulls) > 3


def test_a_held_out_partner_that_is_luck_scores_chance():
    """Many features of noise: the best of them looks good, on other rows it does not."""
    vectors = np.random.default_rng(0).standard_normal((2000, WIDTH)).astype(np.float32)
    dictionary = dictionary_of(vectors, 5.0)
    sae = sae_of(dictionary, "relu")
    found = compare_sae(dictionary, sae, vectors, top=20, min_active=5, seeds=1)
    best = found.measure(BEST, TO_FEATURE, "mean F1").nulls["permuted rows"][0]
    held_out = found.measure(HELD_OUT, TO_FEATURE, "mean F1").nulls["permuted rows"][0]
    assert held_out < 0.5 * best


def test_every_number_has_every_null_with_every_seed(compared):
    for measure in compared.measures:
        assert measure.method in METHODS
        assert set(measure.nulls) == set(NULLS)
        assert {len(drawn) for drawn in measure.nulls.values()} == {2}
    assert compared.seeds == (0, 1)
    some = compared.measure(BEST, TO_REGION, "mean F1").nulls["permuted rows"]
    assert some[0] != some[1]


def test_seeds_are_repeated_and_differ(dictionary, vectors, compared):
    again = compare_sae(
        dictionary,
        sae_of(dictionary),
        vectors,
        readout="topk",
        top=30,
        min_active=5,
        seeds=1,
        seed=1,
    )
    for one, other in zip(compared.measures, again.measures, strict=True):
        assert one.estimate == pytest.approx(other.estimate, nan_ok=True)
        for name in NULLS:
            assert one.nulls[name][1:] == pytest.approx(other.nulls[name], nan_ok=True)


@pytest.mark.parametrize("readout", ["signed", "topk", "binary"])
def test_blocks_change_nothing(monkeypatch, readout):
    vectors = whole_rows(300)
    dictionary = dictionary_of(vectors, 30.0)
    sae = random_sae(16)
    whole = compare_sae(dictionary, sae, vectors, readout=readout, top=10, min_active=3, seeds=1)
    monkeypatch.setattr(module, "rows_at_once", lambda n_units: 7)
    monkeypatch.setattr(module, "CELLS", 40)
    parts = compare_sae(dictionary, sae, vectors, readout=readout, top=10, min_active=3, seeds=1)
    assert report.to_json(parts.measures) == report.to_json(whole.measures)
    np.testing.assert_array_equal(parts.feature_partner, whole.feature_partner)
    np.testing.assert_array_equal(parts.region_f1, whole.region_f1)


def test_the_order_of_features_changes_nothing(dictionary, vectors):
    order = np.random.default_rng(3).permutation(len(dictionary))
    given = {"top": 30, "seeds": 1}
    one = compare_sae(dictionary, sae_of(dictionary, "relu"), vectors, **given)
    other = compare_sae(dictionary, sae_of(dictionary, "relu", order=order), vectors, **given)
    np.testing.assert_array_equal(other.feature_f1, one.feature_f1[order])
    for a, b in zip(one.measures, other.measures, strict=True):
        assert a.estimate == pytest.approx(b.estimate, nan_ok=True)


def test_ties_go_to_the_earlier_row():
    codes = np.array([[1, 0], [2, 1], [2, -1], [1, 1], [3, 0], [2, 1], [1, 1], [1, 2]], np.float32)
    found = module._top_rows(iter([(0, codes[:3]), (3, codes[3:])]), 2, 8, 3)
    assert found.whole.toarray().astype(bool).T.nonzero()[0].tolist() == [1, 1, 2, 3, 4, 7]
    assert found.positive.tolist() == [8, 5]
    # Halves keep as many as half of `top`, rounded up.
    assert np.flatnonzero(found.halves[0].toarray()[0]).tolist() == [1, 2]
    assert np.flatnonzero(found.halves[1].toarray()[1]).tolist() == [5, 7]


def test_tensors_are_arrays_and_outliers_are_left_out(dictionary, vectors, compared):
    rows = torch.from_numpy(vectors).bfloat16()
    one = compare_sae(dictionary, sae_of(dictionary), rows, top=30, seeds=1)
    other = compare_sae(dictionary, sae_of(dictionary), rows.float().numpy(), top=30, seeds=1)
    assert report.to_json(one) == report.to_json(other)
    limited = replace(dictionary, calibration=replace(dictionary.calibration, norm_limit=20.0))
    longer = np.concatenate([vectors[:10], vectors[:1] * 100, vectors[10:]])
    found = compare_sae(
        limited, sae_of(dictionary), longer, readout="topk", top=30, min_active=5, seeds=2
    )
    assert (found.dropped, found.rows) == (1, len(vectors))
    assert report.to_json(found.measures) == report.to_json(compared.measures)


def test_means_are_another_basis(dictionary, vectors):
    found = compare_sae(
        dictionary, sae_of(dictionary), vectors, basis="mean", readout="topk", top=30, seeds=1
    )
    assert found.basis == "mean"
    assert value(found, "members, active", TO_FEATURE) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"top": 1}, "top is 1"),
        ({"min_active": 200}, "at most top"),
        ({"seeds": 0}, "seeds is 0"),
        ({"readout": "x"}, 'readout is "x"'),
        ({"basis": "x"}, 'basis is "x"'),
    ],
)
def test_wrong_arguments_are_named(dictionary, vectors, arguments, says):
    with pytest.raises(ValueError, match=says):
        compare_sae(dictionary, sae_of(dictionary), vectors, **arguments)


def test_what_does_not_fit_is_a_sentence(dictionary, vectors):
    with pytest.raises(ValueError, match="give more rows"):
        compare_sae(dictionary, sae_of(dictionary), vectors[:3])
    with pytest.raises(ValueError, match="one array"):
        compare_sae(dictionary, sae_of(dictionary), iter([vectors]))
    wide = SparseAutoencoder(*(np.zeros(s, np.float32) for s in ((5, 3), 3, (3, 5), 5)), "relu")
    with pytest.raises(ex.MismatchError, match="width 5"):
        compare_sae(dictionary, wide, vectors)
    with pytest.raises(ex.MismatchError, match="width 12"):
        wide.encode(vectors)
    broken = vectors.copy()
    broken[7, 3] = np.nan
    with pytest.raises(ex.ActivationError, match="row 7"):
        compare_sae(dictionary, sae_of(dictionary), broken)
    with pytest.raises(ex.ActivationError, match="row 7"):
        sae_of(dictionary).encode(broken)


def test_sides_without_units_give_nan_and_can_be_shown(dictionary, vectors):
    silent = replace(sae_of(dictionary, "relu"), b_enc=np.full(len(dictionary), -1e6, np.float32))
    found = compare_sae(dictionary, silent, vectors, top=30, seeds=1)
    assert found.eligible_features == 0
    assert np.isnan(value(found, BEST, TO_REGION))
    assert value(found, "5 nearest members", "", "features") == 5
    assert "nan" in sae_text(found)
    sae_figure(found)
    assert json.loads(report.to_json(found))["eligible_features"] == 0


# Encoders, against their definitions.


def oracle_codes(sae, x):
    codes = np.zeros((len(x), sae.n_features))
    for n, row in enumerate(x.astype(np.float64)):
        if sae.normalization == "layer_norm":
            row = (row - row.mean()) / (row.std(ddof=1) + 1e-5)
        elif sae.normalization == "constant_norm_rescale":
            row = row * np.sqrt(len(row)) / np.linalg.norm(row)
        row = row - sae.b_dec * sae.apply_b_dec_to_input
        for m in range(sae.n_features):
            product = row @ sae.W_enc[:, m]
            value = product + sae.b_enc[m]
            if sae.rescale_by_decoder_norm:
                value *= np.linalg.norm(sae.W_dec[m].astype(np.float64))
            if sae.activation == "gated":
                value = product * np.exp(sae.r_mag[m]) + sae.b_enc[m]
                value *= product + sae.b_gate[m] > 0
            elif sae.activation == "jumprelu":
                value *= value > sae.threshold[m]
            codes[n, m] = max(value, 0)
        if sae.activation == "topk":
            codes[n, np.argsort(-codes[n], kind="stable")[sae.k :]] = 0
        elif sae.activation == "groupmax":
            for group in np.split(np.arange(sae.n_features), sae.k):
                best = group[codes[n, group].argmax()]
                codes[n, group[group != best]] = 0
    return codes


def any_sae(activation, seed=0, m=9, **more):
    random = np.random.default_rng(seed)
    draw = {f.name: random.standard_normal(9).astype(np.float32) for f in fields(SparseAutoencoder)}
    given = {
        "W_enc": random.standard_normal((WIDTH, m)).astype(np.float32),
        "W_dec": random.standard_normal((m, WIDTH)).astype(np.float32),
        "b_enc": draw["b_enc"],
        "b_dec": random.standard_normal(WIDTH).astype(np.float32),
        "activation": activation,
    }
    if activation in ("topk", "groupmax"):
        given["k"] = 3
    if activation == "jumprelu":
        given["threshold"] = np.abs(draw["threshold"])
    if activation == "gated":
        given |= {"b_gate": draw["b_gate"], "r_mag": draw["r_mag"]}
    return SparseAutoencoder(**given, **more)


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("normalization", ["none", "layer_norm", "constant_norm_rescale"])
@pytest.mark.parametrize("flag", [True, False])
def test_codes_are_those_of_the_definition(activation, normalization, flag):
    more = {"normalization": normalization, "apply_b_dec_to_input": flag}
    if activation != "gated":
        more["rescale_by_decoder_norm"] = not flag
    sae = any_sae(activation, **more)
    x = 3 * np.random.default_rng(5).standard_normal((40, WIDTH)).astype(np.float32)
    np.testing.assert_allclose(sae.encode(x), oracle_codes(sae, x), atol=3e-5)


def test_of_equal_preactivations_topk_keeps_the_first():
    codes = np.array([[1, 3, 3, 3, 0], [5, 5, 5, 5, 5], [4, 3, 2, 1, 0]], np.float32)
    autoencoders._zero_all_but_largest(codes, 2)
    assert codes.tolist() == [[0, 3, 3, 0, 0], [5, 5, 0, 0, 0], [4, 3, 0, 0, 0]]


# Folders, written by hand as the two libraries write them.


def saelens_folder(folder, sae, **config):
    names = {"relu": "standard"}
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "b_enc": sae.b_enc}
    if sae.activation == "gated":
        tensors["b_mag"] = tensors.pop("b_enc")
    more = {"threshold": sae.threshold, "b_gate": sae.b_gate, "r_mag": sae.r_mag}
    tensors |= {name: array for name, array in more.items() if array is not None}
    about = {
        "architecture": names.get(sae.activation, sae.activation),
        "d_in": sae.width,
        "d_sae": sae.n_features,
        "k": sae.k,
        "apply_b_dec_to_input": sae.apply_b_dec_to_input,
        "normalize_activations": sae.normalization,
        "rescale_acts_by_decoder_norm": sae.rescale_by_decoder_norm,
        "metadata": {"sae_lens_version": "6.54.12", "hook_name": "blocks.1.hook_resid_post"},
        **config,
    }
    folder.mkdir(parents=True)
    written = {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in tensors.items()}
    save_file(written, folder / "sae_weights.safetensors")
    (folder / "cfg.json").write_text(json.dumps(about))
    return folder


def sparsify_folder(folder, sae, **config):
    folder.mkdir(parents=True)
    tensors = {
        "encoder.weight": sae.W_enc.T, "encoder.bias": sae.b_enc, "W_dec": sae.W_dec,
        "b_dec": sae.b_dec,
    }  # fmt: skip
    written = {name: torch.from_numpy(np.ascontiguousarray(t)) for name, t in tensors.items()}
    save_file(written, folder / "sae.safetensors")
    about = {"activation": sae.activation, "k": sae.k, "d_in": sae.width, "transcode": False}
    (folder / "cfg.json").write_text(json.dumps({**about, **config}))
    return folder


def assert_same(found, sae):
    for field in fields(SparseAutoencoder):
        if field.name not in ("name", "site"):
            np.testing.assert_array_equal(getattr(found, field.name), getattr(sae, field.name))


@pytest.mark.parametrize("activation", ["relu", "topk", "jumprelu", "gated"])
@pytest.mark.parametrize("flag", [True, False])
def test_a_saelens_folder_is_read(tmp_path, activation, flag):
    more = {"apply_b_dec_to_input": flag, "normalization": "layer_norm" if flag else "none"}
    sae = any_sae(activation, rescale_by_decoder_norm=flag and activation == "topk", **more)
    found = load_sae(saelens_folder(tmp_path / "one", sae))
    assert_same(found, sae)
    assert (found.name, found.site) == ("one", "blocks.1.hook_resid_post")


def test_a_saelens_folder_of_before_version_6_is_read(tmp_path):
    sae = any_sae("topk")
    old = {
        "architecture": "standard", "activation_fn_str": "topk", "metadata": None, "k": None,
        "activation_fn_kwargs": {"k": 3}, "hook_point": "blocks.2.hook_resid_pre",
        "normalize_activations": False,
    }  # fmt: skip
    found = load_sae(saelens_folder(tmp_path / "old", sae, **old))
    assert_same(found, sae)
    assert found.site == "blocks.2.hook_resid_pre"
    plain = {"architecture": "standard", "metadata": None, "normalize_activations": True}
    relu = any_sae("relu")
    assert_same(load_sae(saelens_folder(tmp_path / "relu", relu, **plain)), relu)


@pytest.mark.parametrize("activation", ["topk", "groupmax"])
@pytest.mark.parametrize("transcode", [True, False])
def test_a_sparsify_folder_is_read(tmp_path, activation, transcode):
    sae = any_sae(activation, apply_b_dec_to_input=not transcode)
    folder = sparsify_folder(tmp_path / "layers.1", sae, transcode=transcode)
    assert_same(load_sae(folder), sae)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"architecture": "abstopk"}, "architecture abstopk"),
        ({"activation_fn": "tanh-relu"}, "activation tanh-relu"),
        ({"normalize_activations": "covariance_whitening"}, "covariance_whitening"),
        ({"architecture": "topk", "k": 0}, "k = 0"),
        ({"architecture": "topk", "k": True}, "k = True"),
        ({"architecture": "topk", "k": 10}, "does not fit its 9 features"),
        ({"architecture": "jumprelu"}, "lacks 'threshold'"),
        ({"architecture": "gated"}, "lacks 'b_mag'"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(tmp_path, config, says):
    folder = saelens_folder(tmp_path / "one", any_sae("relu"), **config)
    with pytest.raises(ex.FormatError, match=re.escape(says)):
        load_sae(folder)


def test_an_input_scale_outside_the_weights_is_refused(tmp_path):
    scale = {"normalize_activations": "expected_average_only_in"}
    folder = saelens_folder(tmp_path / "one", any_sae("relu"), **scale)
    assert load_sae(folder).normalization == "none"
    (folder / "activation_scaler.json").write_text('{"scaling_factor": 2.0}')
    with pytest.raises(ex.FormatError, match="checkpoint whose input scale"):
        load_sae(folder)


def test_a_finetuning_factor_is_refused_unless_it_is_one(tmp_path):
    sae = any_sae("relu")
    folder = saelens_folder(tmp_path / "one", sae)
    tensors = {"W_enc": sae.W_enc, "W_dec": sae.W_dec, "b_dec": sae.b_dec, "b_enc": sae.b_enc}
    for factor in (1.0, 2.0):
        tensors["scaling_factor"] = np.full(9, factor, np.float32)
        written = {name: torch.from_numpy(t) for name, t in tensors.items()}
        save_file(written, folder / "sae_weights.safetensors")
        if factor == 1.0:
            assert_same(load_sae(folder), sae)
    with pytest.raises(ex.FormatError, match="finetuning"):
        load_sae(folder)


@pytest.mark.parametrize("name", ["cfg.json", "sae_weights.safetensors"])
def test_absent_and_truncated_files_are_sentences(tmp_path, name):
    folder = saelens_folder(tmp_path / "one", any_sae("relu"))
    content = (folder / name).read_bytes()
    for size in (0, 1, 7, 9, len(content) // 2, len(content) - 1):
        (folder / name).write_bytes(content[:size])
        with pytest.raises(ex.FormatError, match="get the folder again"):
            load_sae(folder)
    (folder / name).unlink()
    with pytest.raises(ex.FormatError, match="not the folder of one SAE"):
        load_sae(folder)
    with pytest.raises(ex.FormatError, match="not the folder of one SAE"):
        load_sae(tmp_path / "nowhere")


def test_a_configuration_must_be_an_object(tmp_path):
    folder = saelens_folder(tmp_path / "one", any_sae("relu"))
    for text in ("[]", "null", "[" * 100_000, "{'a': 1}"):
        (folder / "cfg.json").write_text(text)
        with pytest.raises(ex.FormatError, match="JSON"):
            load_sae(folder)


@pytest.mark.parametrize("name", ["b_enc", "W_dec", "b_dec", "W_enc"])
def test_shapes_that_do_not_fit_and_nan_are_sentences(tmp_path, name):
    sae = any_sae("relu")
    shorter = replace(sae, **{name: getattr(sae, name)[:-1]})
    with pytest.raises(ex.FormatError, match="of shape"):
        load_sae(saelens_folder(tmp_path / "short", shorter))
    broken = np.array(getattr(sae, name))
    broken[..., 0] = np.nan
    with pytest.raises(ex.FormatError, match="not finite"):
        load_sae(saelens_folder(tmp_path / "nan", replace(sae, **{name: broken})))


# What people see.


def test_the_text_has_a_line_for_each_method_and_nothing_unsafe(compared):
    text = sae_text(replace(compared, sae="\x1b[31m\u202e"))
    assert "\x1b" not in text
    assert "\u202e" not in text
    for method in METHODS:
        assert f"\n{method} " in text
    for name in NULLS:
        assert name in text
    assert "1.000" in text
    assert "2 draws of each" in text


def test_the_figure_shows_shares_that_fall_to_zero(compared):
    figure = sae_figure(compared)
    for axes in figure.axes:
        assert len(axes.lines) == 1 + len(NULLS)
        for line in axes.lines:
            x, y = line.get_data()
            assert y[0] == 1
            assert y[-1] == 0
            assert (np.diff(x) >= 0).all()
            assert (np.diff(y) <= 0).all()


# The command.


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with a model, a corpus, a dictionary, kept activations, and SAEs of two widths."""
    place = tmp_path_factory.mktemp("sae")
    tiny_module().save_pretrained(place / "model")
    make_tokenizer("bos").save_pretrained(place / "model")
    (place / "corpus").mkdir()
    for k, content in enumerate(documents(80)):
        (place / "corpus" / f"{k:02}.txt").write_text(content, encoding="utf-8")
    model = ex.load_model(str(place / "model"))
    texts = ex.texts(place / "corpus")
    ex.build(model, "resid_post.1", texts, [20.0], out=place / "dictionary", **SETTINGS)
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    ex.extract(model, ["resid_post.1"], texts.shuffled(0), place / "kept", **stream)
    random = np.random.default_rng(0)
    for name, width in (("sae", MODEL_WIDTH), ("other", 7)):
        weights = random.standard_normal((width, 40)).astype(np.float32)
        zeros = np.zeros(40, np.float32), np.zeros(width, np.float32)
        made = SparseAutoencoder(weights, zeros[0], weights.T.copy(), zeros[1], "topk", 4)
        saelens_folder(place / name, made)
    return place


@pytest.fixture
def run(run, place):
    """Run `exemplars sae` on the dictionary: its exit status, stdout and stderr."""
    return lambda sae, *words: run("sae", place / "dictionary", place / sae, *words)


def test_the_command_compares_on_texts_and_on_kept_activations(run, place, tmp_path):
    given = ("--min-active", "5", "--top", "20", "--seeds", "1", "--json")
    figure = tmp_path / "figure.svg"
    texts = ("--text", place / "corpus", "--figure", figure)
    status, said, progress = run("sae", *texts, *given)
    assert (status, "written to" in progress) == (0, True)
    assert figure.exists()
    assert figure.with_suffix(".png").exists()
    of_text = json.loads(said)
    assert of_text["n_features"] == 40
    assert of_text["rows"] + of_text["dropped"] > 500
    status, said, _ = run("sae", "--activations", place / "kept", *given)
    assert status == 0
    assert json.loads(said)["measures"] == of_text["measures"]


def test_the_command_reads_as_many_rows_as_asked_for_and_prints_a_table(run, place):
    given = ("--min-active", "5", "--top", "20", "--seeds", "1", "--rows", "300")
    status, said, _ = run("sae", "--activations", place / "kept", *given, "--basis", "mean")
    assert status == 0
    assert "on 300 rows" in said
    assert "regions (mean, signed) and 40 features of sae" in said
    assert said.count("\n") > 30


@pytest.mark.parametrize(
    ("sae", "words", "says"),
    [
        ("sae", (), "neither --text nor --activations was given"),
        ("sae", ("--text", "{}/corpus", "--activations", "{}/kept"), "both were given"),
        ("other", ("--activations", "{}/kept"), "width 32 and the SAE other width 7"),
        ("nowhere", ("--activations", "{}/kept"), "not the folder of one SAE"),
        ("sae", ("--activations", "{}/corpus"), "holds no activation shards"),
        ("sae", ("--activations", "{}/kept", "--readout", "x"), 'readout is "x"'),
        ("sae", ("--activations", "{}/kept", "--rows", "3"), "give more rows"),
    ],
)
def test_an_error_is_a_sentence_and_status_2(run, place, sae, words, says):
    status, said, error = run(sae, *(word.format(place) for word in words))
    assert (status, said) == (2, "")
    assert "Traceback" not in error
    assert error.rstrip("\n").split("\n")[-1].startswith("error: ")
    assert says in error


def test_an_sae_of_another_site_is_warned_of(run, place):
    given = ("--min-active", "5", "--top", "20", "--seeds", "1", "--rows", "200")
    kept = ("--activations", place / "kept")
    _, _, quiet = run("sae", *kept, *given)
    assert "trained at" not in quiet
    about = json.loads((place / "sae" / "cfg.json").read_text())
    about["metadata"]["hook_name"] = "blocks.2.hook_resid_post"
    try:
        (place / "sae" / "cfg.json").write_text(json.dumps(about))
        _, _, warned = run("sae", *kept, *given)
    finally:
        about["metadata"]["hook_name"] = "blocks.1.hook_resid_post"
        (place / "sae" / "cfg.json").write_text(json.dumps(about))
    assert "the SAE was trained at blocks.2.hook_resid_post, the dictionary is of resid_post.1" in (
        warned
    )
