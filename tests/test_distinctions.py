"""Which labels regions tell apart: scikit-learn's indexes, planted labels, labels of nothing."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import adjusted_rand_score, mutual_info_score

from exemplars.analyses.distinctions import INDEXES, distinctions, indexes, pair_ladder
from exemplars.analyses.tasks import read_label_columns
from exemplars.errors import SourceError
from labelled_build import write
from resolutions import N_COARSE, N_FINE, clouds, noise, planted_ladder

PERCENTILES = (40.0, 28.0, 9.0, 1.0)


def planted(n=180, seed=0):
    """Vectors, and labels: the coarse cloud, the place within it, and a coin."""
    vectors, coarse, fine = clouds(n, seed)
    coin = np.random.default_rng([seed, 7]).integers(0, 2, n)
    labels = {
        "coarse": [f"c{k}" for k in coarse],
        "place": [f"f{k % N_FINE}" for k in fine],
        "coin": [str(k) for k in coin],
    }
    return vectors, labels


@pytest.fixture(scope="module")
def texts():
    return planted()


@pytest.fixture(scope="module")
def found(texts):
    vectors, labels = texts
    return distinctions(
        vectors, np.arange(len(vectors)), labels, percentiles=PERCENTILES, seeds=3, permutations=60
    )


def by_label(found):
    return {one.label: one for one in found.distinctions}


def scores(one, index="ARI"):
    return {s.percentile: s.scores[index] for s in one.separations}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 8), st.integers(1, 5), st.integers(2, 40))
def test_indexes_are_scikit_learns(seed, n_regions, n_labels, n):
    random = np.random.default_rng(seed)
    regions, labels = random.integers(0, n_regions, n), random.integers(0, n_labels, (3, n))
    got = indexes(regions * 3 + 1, labels)  # numbers with gaps
    for k in range(3):
        classes = [len(set(values.tolist())) for values in (regions, labels[k])]
        if classes not in ([1, 1], [n, n]):  # where it is not defined, it is 0 here
            expected = adjusted_rand_score(labels[k], regions)
            assert got["ARI"][k] == pytest.approx(expected, abs=1e-9)
        expected = mutual_info_score(labels[k], regions)
        assert got["information"][k] == pytest.approx(expected, abs=1e-9)
        commonest = sum(np.bincount(labels[k][regions == r]).max() for r in set(regions.tolist()))
        assert got["purity"][k] == pytest.approx(commonest / n)


def test_many_labellings_are_taken_some_at_a_time(monkeypatch):
    from exemplars.analyses import distinctions as module

    random = np.random.default_rng(0)
    regions, labels = random.integers(0, 9, 50), random.integers(0, 4, (33, 50))
    whole = indexes(regions, labels)
    monkeypatch.setattr(module, "_CELLS", 100)
    for name, values in indexes(regions, labels).items():
        assert np.array_equal(values, whole[name])


def test_what_is_far_apart_appears_at_a_coarser_percentile(found):
    coarse, place = by_label(found)["coarse"], by_label(found)["place"]
    assert coarse.appears_at == 40.0
    assert scores(coarse)[28.0].estimate > 0.95
    assert coarse.at_chosen.estimate > 0.95
    assert place.appears_at == 9.0
    assert scores(place)[9.0].estimate > scores(place)[1.0].estimate > scores(place)[28.0].estimate
    assert coarse.at_chosen.null < 0.05


def test_a_label_of_nothing_does_not_appear(found):
    coin = by_label(found)["coin"]
    assert coin.appears_at is None
    assert coin.above_chance == ()
    assert abs(coin.at_chosen.estimate) < 0.1
    for s in coin.separations:
        assert s.scores["ARI"].estimate <= s.scores["ARI"].null_high + 0.03
        assert s.scores["named"].estimate < 0.65


def test_purity_rises_with_the_number_of_regions_even_of_a_coin_and_so_does_its_null(found):
    coin = scores(by_label(found)["coin"], "purity")
    assert coin[1.0].estimate > coin[40.0].estimate + 0.03
    assert coin[1.0].null == pytest.approx(coin[1.0].estimate, abs=0.08)


@pytest.mark.filterwarnings("error")
def test_every_score_is_told_beside_chance(found):
    assert found.percentiles == PERCENTILES
    for one in found.distinctions:
        assert sum(one.classes.values()) == found.texts == found.rows == 180
        assert len(one.chosen) == len(found.seeds) == 3
        assert set(one.chosen) <= set(PERCENTILES)
        for s in one.separations:
            assert set(s.scores) == set(INDEXES)
            for score in s.scores.values():
                assert score.low <= score.estimate <= score.high
                assert score.null <= score.null_high


def test_false_positives_of_appearing_are_about_five_in_a_hundred():
    vectors = noise(60, 3)
    appeared = []
    for seed in range(40):
        coin = np.random.default_rng([seed, 1]).integers(0, 2, 60).astype(str).tolist()
        one = distinctions(
            vectors, np.arange(60), {"coin": coin}, percentiles=[40, 20, 5], seeds=1,
            permutations=40, seed=seed,
        )  # fmt: skip
        appeared.append(one.distinctions[0].appears_at is not None)
    assert sum(appeared) <= 7  # of 40 at 5 %: 8 or more once in a thousand times


def test_within_a_label_its_copy_adds_nothing(texts):
    vectors, labels = texts
    given_labels = {"coarse": labels["coarse"], "copy": [f"x{k}" for k in labels["coarse"]],
                    "place": labels["place"]}  # fmt: skip
    found = distinctions(
        vectors, np.arange(len(vectors)), given_labels, percentiles=PERCENTILES, seeds=2,
        permutations=40, within="coarse",
    )  # fmt: skip
    one = by_label(found)
    assert one["coarse"].within is None
    assert one["coarse"].appears_at == 40.0
    assert one["copy"].within == "coarse"
    assert one["copy"].appears_at is None
    assert one["copy"].at_chosen.null == pytest.approx(one["copy"].at_chosen.estimate)
    assert one["place"].appears_at is not None


def test_names_of_labels_and_the_order_of_others_change_nothing(texts, found):
    vectors, labels = texts
    renamed = {"coin": [f"~{k}" for k in labels["coin"]],
               "coarse": [f"~{k}" for k in labels["coarse"]]}  # fmt: skip
    other = distinctions(
        vectors, np.arange(len(vectors)), renamed, percentiles=PERCENTILES, seeds=3,
        permutations=60,
    )  # fmt: skip
    for name in renamed:
        assert by_label(other)[name].separations == by_label(found)[name].separations


def test_dictionaries_take_the_place_of_partitions(texts):
    vectors, labels = texts
    dictionaries = planted_ladder(clouds()[0])
    found = distinctions(
        vectors, np.arange(len(vectors)), labels, dictionaries=dictionaries, seeds=2,
        permutations=20,
    )  # fmt: skip
    coarse, place = by_label(found)["coarse"], by_label(found)["place"]
    assert (found.own, found.percentiles) == (False, (15.0, 6.0))
    assert scores(coarse)[15.0].estimate == 1.0
    assert coarse.chosen == (15.0, 15.0)
    assert [s.regions for s in place.separations] == [N_COARSE, N_COARSE * N_FINE]
    assert scores(place, "named")[6.0].estimate == 1.0
    assert scores(place, "named")[15.0].estimate < 0.7


def test_all_rows_of_a_text_have_its_label_and_its_half():
    vectors, coarse, _ = clouds(240)
    order = np.argsort(coarse, kind="stable")  # rows of a text are of one cloud
    vectors, text = vectors[order], np.arange(240) // 4
    labels = {"coarse": [f"c{coarse[order][4 * k]}" for k in range(60)]}
    found = distinctions(vectors, text, labels, percentiles=[28.0], seeds=2, permutations=20)
    assert (found.texts, found.rows, found.ladder) == (60, 240, None)
    assert found.distinctions[0].at_chosen.estimate > 0.6


def test_pairs_are_grouped_by_the_labels_in_which_they_agree():
    random = np.random.default_rng(2)
    vectors = random.normal(size=(14, 5)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1)[:, None]
    labels = {"x": ["ab"[k % 2] for k in range(14)], "y": ["cde"[k % 3] for k in range(14)]}
    found = pair_ladder(vectors, labels, permutations=30)
    groups = {}
    for i, j in itertools.combinations(range(14), 2):
        agree = tuple(name for name in labels if labels[name][i] == labels[name][j])
        groups.setdefault(agree, []).append(1 - float(vectors[i] @ vectors[j]))
    assert {g.agree: g.pairs for g in found.groups} == {k: len(v) for k, v in groups.items()}
    medians = [g.quartiles[1] for g in found.groups]
    assert medians == sorted(medians)
    for g in found.groups:
        expected = np.quantile(groups[g.agree], [0.25, 0.5, 0.75])
        assert g.quartiles == pytest.approx(expected, abs=1e-6)
    for c in found.comparisons:
        won = [a < b for a in groups[c.nearer] for b in groups[c.farther]]
        assert c.probability == pytest.approx(np.mean(won))
        assert c.low <= c.probability + 0.05
        assert c.null_low < 0.5 < c.null_high


def test_the_ladder_of_planted_labels(found, texts):
    vectors, labels = texts
    names = ("coarse", "place")
    from exemplars.geometry import to_directions

    directions, _ = to_directions(vectors, np.zeros(vectors.shape[1], np.float32))
    ladder = pair_ladder(directions, {name: labels[name] for name in names}, permutations=30)
    assert [g.agree for g in ladder.groups][:2] == [("coarse", "place"), ("coarse",)]
    first = ladder.comparisons[0]
    assert (first.nearer, first.farther) == (("coarse", "place"), ("coarse",))
    assert first.probability == 1.0
    assert first.null_high < 0.7
    assert found.ladder is not None  # three labels, one row of each text
    assert len(found.ladder.groups) == 8


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"percentiles": None}, "give dictionaries, or percentiles"),
        ({"seeds": 0}, "seeds is 0"),
        ({"permutations": 3}, "permutations 3"),
        ({"within": "hue"}, "no label 'hue'"),
        ({"labels": {}}, "no label was given"),
        ({"labels": {"a": ["x", "y"]}}, "180 texts have 2 labels"),
        ({"labels": {"a": ["x"] * 180}}, "1 classes"),
        ({"labels": {"a": [str(k) for k in range(180)]}}, "180 classes"),
    ],
)
def test_what_cannot_be_told_is_refused(texts, change, message):
    vectors, labels = texts
    arguments = {"labels": labels, "percentiles": PERCENTILES} | change
    given_labels = arguments.pop("labels")
    with pytest.raises(ValueError, match=message):
        distinctions(vectors, np.arange(len(vectors)), given_labels, **arguments)


def test_few_texts_are_refused():
    with pytest.raises(ValueError, match="expected at least 8"):
        distinctions(noise(4), np.arange(4), {"a": list("xyxy")}, percentiles=[10])
    with pytest.raises(ValueError, match="there are 0 texts"):
        distinctions(noise(0), np.arange(0), {"a": []}, percentiles=[10])


def test_several_label_columns_are_read_of_one_file(tmp_path):
    rows = [{"text": f"t{k}", "x": k % 2, "y": "ab"[k // 3 % 2], "z": "" if k == 4 else "z"}
            for k in range(9)]  # fmt: skip
    path = write(tmp_path / "labels.csv", [*rows, rows[0]])
    texts, labels = read_label_columns(path, ["x", "y", "x"])
    assert texts == [f"t{k}" for k in range(9)]
    assert labels == {"x": [str(k % 2) for k in range(9)], "y": list("aaabbbaaa")}
    with pytest.raises(SourceError, match="without a label"):
        read_label_columns(path, ["x", "z"])
    with pytest.raises(SourceError, match="no column 'w'"):
        read_label_columns(path, ["w"])
    with pytest.raises(ValueError, match="no label column"):
        read_label_columns(path, [])
    twice = write(tmp_path / "twice.csv", [*rows, {**rows[0], "y": "b"}])
    with pytest.raises(ValueError, match="give each text one label"):
        read_label_columns(twice, ["x", "y"])
