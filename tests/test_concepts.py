"""Concept detection: planted concepts are found, chance is not, and test texts choose nothing."""

from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from builds import TOKENIZATION, documents
from exemplars.analyses import candidates as ways
from exemplars.analyses import detectors
from exemplars.analyses.candidates import (
    NULL,
    Candidates,
    region_methods,
    supervised_methods,
    training_pairs,
)
from exemplars.analyses.concepts import (
    K_MEANS,
    RESAMPLES,
    SCORES,
    ConceptReport,
    check_choice,
    detect_concepts,
    evaluate,
)
from exemplars.analyses.detection import (
    auroc,
    bootstrap_aurocs,
    hard_negative_score,
    max_over_positions,
)
from exemplars.analyses.labelled import Concept, TextRows, read_text_rows
from tiny_models import tiny_model

WIDTH = 12
SEVERAL = ("by_auroc", "by_contrast", "several", "anchored")


def text_rows(vectors, lengths):
    texts = tuple(f"text {k}" for k in range(len(lengths)))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    none = np.zeros(len(vectors), np.int64)
    number = {text: k for k, text in enumerate(texts)}
    return TextRows("resid_post.1", texts, vectors.astype(np.float32), starts, none, none, number)


def planted(n_texts=80, seed=0):
    """Texts of rows round 6 centers; in every odd text one row more, round a seventh."""
    random = np.random.default_rng(seed)
    centers = 8 * np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    shown = np.arange(n_texts) % 2 == 1
    lengths = random.integers(2, 6, n_texts) + shown
    cluster = random.integers(0, 6, lengths.sum())
    starts = np.concatenate([[0], np.cumsum(lengths)])
    cluster[starts[:-1][shown] + random.integers(0, lengths[shown])] = 6
    vectors = centers[cluster] + 0.3 * random.normal(size=(lengths.sum(), WIDTH))
    return text_rows(vectors, lengths), centers


def concept_of(rows, labels, name="planted", hard=()):
    """The first half of the texts to train, the second to test, by label."""
    half = len(labels) // 2
    parts = [
        tuple(rows.texts[k] for k in range(*part) if labels[k] == label)
        for part in ((0, half), (half, len(labels)))
        for label in (True, False)
    ]
    return Concept(name, *parts, test_hard_negative=tuple(hard))


@pytest.fixture(scope="module")
def rows():
    return planted()[0]


@pytest.fixture(scope="module")
def dictionary(rows):
    calibration = ex.calibrate(rows.vectors, [10.0])
    return ex.partition(rows.vectors, replace(calibration, thresholds={10.0: 0.3}))


@pytest.fixture(scope="module")
def found(rows, dictionary):
    return detectors.site_rows(rows, dictionary.calibration)


@pytest.fixture(scope="module")
def concept(rows):
    return concept_of(rows, np.arange(80) % 2 == 1)


@pytest.fixture(scope="module")
def concepts(rows, concept):
    """The planted one, and two of chance; the last has hard negatives."""
    random = np.random.default_rng(1)
    first, second = (random.permutation(80) % 2 == 1 for _ in range(2))
    last = concept_of(rows, second, "chance 2")
    last = replace(last, test_hard_negative=last.test_negative[:3])
    return [concept, concept_of(rows, first, "chance 1"), last]


@pytest.fixture(scope="module")
def report(dictionary, rows, concepts):
    return detect_concepts(dictionary, rows, concepts, rows.vectors, k=2, null_seeds=2)


def planted_region(dictionary, centers):
    direction = centers[6] - dictionary.center
    return int(np.argmax(dictionary.means @ direction))


def candidates_of(found, directions, concept):
    return Candidates.of(found, directions, training_pairs(found.rows, [concept]))


def fitted(candidates, name, positive, negative, k=2):
    options = {"k": k} if name in ("several", "anchored") else {}
    return getattr(candidates, name)(positive, negative, **options)


def held_out(found, detector, concept):
    scores = detector.scores(found)
    return auroc(scores[found.rows.of(concept.test_positive)],
                 scores[found.rows.of(concept.test_negative)])  # fmt: skip


# Choosing among regions


@pytest.mark.parametrize("basis", ["means", "exemplars"])
@pytest.mark.parametrize("name", SEVERAL)
def test_the_planted_region_is_found(rows, dictionary, found, concept, basis, name):
    region = planted_region(dictionary, planted()[1])
    candidates = candidates_of(found, getattr(dictionary, basis), concept)
    detector = fitted(candidates, name, *detectors.numbers(rows, concept)[:2])
    assert detector.regions[0] == region
    # A second region that knows nothing of the concept is summed with the first.
    assert held_out(found, detector, concept) >= (0.85 if name == "several" else 1)
    if name in ("by_auroc", "by_contrast"):
        assert detector.directions[0] == pytest.approx(candidates.directions[region], abs=1e-6)
    else:
        assert len(detector.regions) == len(detector.weights) == 2


def test_labels_of_chance_are_not_found_on_test_texts(rows, dictionary, found):
    concepts = [
        concept_of(rows, np.random.default_rng(seed).permutation(80) % 2 == 1) for seed in range(40)
    ]
    candidates = Candidates.of(found, dictionary.means, training_pairs(found.rows, concepts))
    values = {name: [] for name in SEVERAL}
    train = []
    for concept in concepts:
        positive, negative, *_ = detectors.numbers(rows, concept)
        for name, several in values.items():
            detector = fitted(candidates, name, positive, negative)
            several.append(held_out(found, detector, concept))
        scores = candidates.by_auroc(positive, negative).scores(found)
        train.append(auroc(scores[positive], scores[negative]))
    assert {name: np.mean(v) for name, v in values.items()} == pytest.approx(
        dict.fromkeys(SEVERAL, 0.5), abs=0.06
    )
    assert np.mean(train) > 0.58  # on the texts it was chosen with, the best of many is too good


def test_candidates_know_how_each_direction_tells_the_classes_apart(found, dictionary):
    directions = dictionary.means.copy()
    directions[1] = np.nan
    pairs = [(np.array([3, 0, 17]), np.array([40, 2])), (np.array([9]), np.array([2, 41, 5]))]
    candidates = Candidates.of(found, directions, pairs)
    for k, direction in enumerate(directions):
        for pair, values in zip(pairs, candidates.aurocs.values(), strict=True):
            expected = auroc(*(
                np.array([p.max() for p in found.products(part, direction[None])]) for part in pair
            ))  # fmt: skip
            assert values[k] == (-np.inf if k == 1 else pytest.approx(expected))
    some = candidates.some(np.array([2, 0]))
    assert np.array_equal(some.directions, directions[[2, 0]])
    for mine, whole in zip(some.aurocs.values(), candidates.aurocs.values(), strict=True):
        assert np.array_equal(mine, whole[[2, 0]])
    with pytest.raises(ValueError, match="not scored on these training texts"):
        candidates.by_auroc(pairs[0][0], pairs[1][1])


def test_candidates_hold_the_scores_of_a_block_of_directions(found, dictionary, monkeypatch):
    pairs = [(np.arange(20), np.arange(20, 40))]
    whole, widths = Candidates.of(found, dictionary.means, pairs), []

    def counted(vectors, starts, directions):
        widths.append(len(directions))
        return max_over_positions(vectors, starts, directions)

    monkeypatch.setattr(ways, "max_over_positions", counted)
    monkeypatch.setattr(ways, "_DIRECTIONS", 3)
    blocks = Candidates.of(found, dictionary.means, pairs)
    assert max(widths) == 3
    assert sum(widths) == len(dictionary)
    for mine, theirs in zip(blocks.aurocs.values(), whole.aurocs.values(), strict=True):
        assert np.array_equal(mine, theirs)


@pytest.mark.parametrize("name", SEVERAL)
def test_regions_without_members_are_never_chosen(rows, dictionary, found, concept, name):
    """Not even where every other one points the wrong way."""
    directions = np.full((4, WIDTH), np.nan, np.float32)
    directions[2] = -dictionary.means[planted_region(dictionary, planted()[1])]
    positive, negative, *_ = detectors.numbers(rows, concept)
    detector = fitted(candidates_of(found, directions, concept), name, positive, negative, k=3)
    assert detector.regions == (2,)
    assert np.isfinite(detector.directions).all()
    assert np.isfinite(detector.scores(found)).all()


def test_equally_good_regions_go_to_the_first(rows, dictionary, found, concept):
    region = planted_region(dictionary, planted()[1])
    best = dictionary.means[region]
    others = dictionary.means[[k for k in range(len(dictionary)) if k != region]][:2]
    directions = np.stack([others[0], best, best, others[1], best])
    candidates = candidates_of(found, directions, concept)
    positive, negative, *_ = detectors.numbers(rows, concept)
    assert candidates.by_auroc(positive, negative).regions == (1,)
    assert candidates.several(positive, negative, 3).regions == (1, 2, 4)


def test_summed_scores_are_in_units_of_their_spread(rows, dictionary, found, concept):
    positive, negative, *_ = detectors.numbers(rows, concept)
    candidates = candidates_of(found, dictionary.means, concept)
    detector = candidates.several(positive, negative, 3)
    train = np.concatenate([positive, negative])
    expected = np.zeros(80)
    for region in detector.regions:
        scores = np.array(
            [p.max() for p in found.products(np.arange(80), dictionary.means[[region]])]
        )
        expected += scores / scores[train].std()
    assert detector.scores(found) == pytest.approx(expected, rel=1e-4)


def test_a_precision_turns_anchored_directions(rows, dictionary, found, concept):
    positive, negative, *_ = detectors.numbers(rows, concept)
    candidates = candidates_of(found, dictionary.means, concept)
    plain = candidates.anchored(positive, negative, 2)
    same = candidates.anchored(positive, negative, 2, 5 * np.eye(WIDTH))
    assert same.directions == pytest.approx(plain.directions, abs=1e-6)
    scale = np.diag(np.linspace(0.1, 3, WIDTH))
    turned = candidates.anchored(positive, negative, 2, scale)
    expected = plain.directions @ scale
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert turned.directions == pytest.approx(expected, abs=1e-5)
    assert turned.regions == plain.regions


def test_anchored_directions_are_differences_at_the_tokens_regions_name(
    rows, dictionary, found, concept
):
    positive, negative, *_ = detectors.numbers(rows, concept)
    detector = candidates_of(found, dictionary.means, concept).anchored(positive, negative, 3)
    for region, direction, weight in zip(
        detector.regions, detector.directions, detector.weights, strict=True
    ):
        named = []
        for t in (*positive, *negative):
            mine = found.directions[rows.starts[t] : rows.starts[t + 1]]
            named.append(mine[np.argmax(mine @ dictionary.means[region])])
        difference = np.mean(named[: len(positive)], 0) - np.mean(named[len(positive) :], 0)
        assert direction == pytest.approx(difference / np.linalg.norm(difference), abs=1e-4)
        products = found.products(np.concatenate([positive, negative]), direction[None])
        assert weight == pytest.approx(1 / np.std([p.max() for p in products]), rel=1e-3)


# Test texts choose nothing


def same(one, other):
    return all(
        np.array_equal(getattr(one, key), getattr(other, key))
        for key in ("directions", "weights", "pooling", "regions")
    )


def test_selection_never_sees_test_texts(rows, dictionary, concepts, report):
    """Other test texts, with other rows: the same detectors, and the same validation."""
    held = rows.of(t for c in concepts for t in c.texts() if t not in {*c.positive, *c.negative})
    train = rows.of(t for c in concepts for t in (*c.positive, *c.negative))
    assert not set(held) & set(train)
    vectors = np.array(rows.vectors)
    vectors[np.isin(rows.text_of_rows(), held)] = np.random.default_rng(5).normal(size=WIDTH)
    changed = replace(rows, vectors=vectors)
    turned = [
        replace(c, test_positive=c.test_negative, test_negative=c.test_positive) for c in concepts
    ]
    other = detect_concepts(dictionary, changed, turned, rows.vectors, k=2, null_seeds=2)
    for name, detections in report.detections.items():
        for mine, theirs in zip(detections, other.detections[name], strict=True):
            assert all(map(same, mine.detectors, theirs.detectors)), name
            assert mine.train_auroc == theirs.train_auroc
            assert mine.validation_auroc == theirs.validation_auroc
    # All test texts are alike now, but for how a library rounds the same product in two places.
    assert other.mean("region mean").estimate == pytest.approx(0.5, abs=0.05)


def test_validation_is_by_halves_of_the_training_texts(found, concepts, dictionary):
    concept = concepts[1]
    candidates = candidates_of(found, dictionary.means, concept)
    seen = []

    def fit(positive, negative):
        seen.append((set(positive.tolist()), set(negative.tolist())))
        return candidates.by_auroc(positive, negative)

    (detection,) = evaluate(found, [concept], {"m": [fit]}).detections["m"]
    whole = tuple(
        set(found.rows.of(part).tolist()) for part in (concept.positive, concept.negative)
    )
    assert seen[0] == whole
    values = []
    for k, other in ((1, 2), (2, 1)):
        assert not seen[k][0] & seen[other][0]
        assert seen[k][0] | seen[other][0] == whole[0]
        assert seen[k][1] | seen[other][1] == whole[1]
        detector = candidates.by_auroc(*(np.array(sorted(part)) for part in seen[k]))
        scores = detector.scores(found)
        values.append(auroc(*(scores[sorted(part)] for part in seen[other])))
    assert detection.validation_auroc == pytest.approx(np.mean(values), abs=0.01)
    skipped = evaluate(found, [concept], {"m": [fit], "n": [fit]}, validated=["n"]).detections
    assert np.isnan(skipped["m"][0].validation_auroc)
    assert skipped["n"][0].validation_auroc == detection.validation_auroc


# The report


def test_the_report_has_every_method_on_every_concept(report, concepts):
    assert report.concepts == tuple(concepts)
    ways = (", 2 summed", ", 2 anchored", ", 2 whitened")
    assert set(report.detections) == {
        *("region mean", "region mean, contrast", "exemplar", "exemplar, contrast", NULL, K_MEANS),
        *(f"{name}{way}" for name in ("region mean", NULL) for way in ways),
        *("difference of means", "logistic probe, tokens", "logistic probe, means"),
    }
    for name, detections in report.detections.items():
        assert len(detections) == 3
        for detection in detections:
            seeds = 2 if name.startswith((NULL, K_MEANS)) else 1
            assert len(detection.detectors) == len(detection.seed_aurocs["cosine"]) == seeds
    assert report.mean("region mean").estimate > report.mean("exemplar").low


def test_what_is_planted_is_found_beside_chance(report):
    for name in ("region mean", "region mean, 2 summed", "region mean, 2 anchored", "exemplar"):
        first, *others = report.detections[name]
        least = 0.8 if "summed" in name else 1
        assert first.auroc["cosine"].estimate >= least
        assert first.validation_auroc >= least
        assert np.mean([d.auroc["cosine"].estimate for d in others]) == pytest.approx(0.5, abs=0.25)


def test_detections_are_what_their_detectors_score(found, report):
    for name, detections in report.detections.items():
        for concept, detection in zip(report.concepts, detections, strict=True):
            for score in SCORES:
                values, hard = [], []
                for detector in detection.detectors:
                    scores = detector.scores(found, score)
                    parts = [scores[n] for n in detectors.numbers(found.rows, concept)]
                    values.append(auroc(parts[2], parts[3]))
                    hard.append(hard_negative_score(*parts[2:]))
                assert detection.seed_aurocs[score] == pytest.approx(values, abs=0.01), name
                interval = detection.auroc[score]
                assert interval.estimate == pytest.approx(detection.seed_aurocs[score].mean())
                low, high = np.quantile(detection.samples[score], [0.025, 0.975])
                assert (interval.low, interval.high) == pytest.approx((low, high))
                if concept.test_hard_negative:
                    assert detection.hard_negative[score] == pytest.approx(np.mean(hard), abs=0.02)
                else:
                    assert np.isnan(detection.hard_negative[score])
            scores = [d.scores(found) for d in detection.detectors]
            train = [auroc(s[found.rows.of(concept.positive)], s[found.rows.of(concept.negative)])
                     for s in scores]  # fmt: skip
            assert detection.train_auroc == pytest.approx(np.mean(train), abs=0.01)


def test_samples_of_all_methods_are_of_the_same_draws(found, report):
    for k, concept in enumerate(report.concepts):
        for detections in report.detections.values():
            pairs = []
            for detector in detections[k].detectors:
                scores = detector.scores(found)
                numbers = detectors.numbers(found.rows, concept)
                pairs.append((scores[numbers[2]], scores[numbers[3]]))
            expected = bootstrap_aurocs(pairs, RESAMPLES, k).mean(axis=1)
            assert detections[k].samples["cosine"] == pytest.approx(expected, abs=0.03)


def test_means_and_differences_are_over_concepts_and_paired(report):
    drawn = np.random.default_rng(0).integers(0, 3, (3, RESAMPLES))

    def slow(name):
        parts = [d.samples["dot"] for d in report.detections[name]]
        return np.array([np.mean([parts[j][r] for j in drawn[:, r]]) for r in range(RESAMPLES)])

    one, other = "region mean", NULL
    estimates = {
        name: np.mean([d.auroc["dot"].estimate for d in report.detections[name]])
        for name in (one, other)
    }
    found = report.mean(one, "dot")
    assert found.estimate == pytest.approx(estimates[one])
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(slow(one), [0.025, 0.975])))
    found = report.difference(one, other, "dot")
    assert found.estimate == pytest.approx(estimates[one] - estimates[other])
    samples = slow(one) - slow(other)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(samples, [0.025, 0.975])))
    itself = report.difference(one, one)
    assert (itself.estimate, itself.low, itself.high) == (0, 0, 0)
    back = report.difference(other, one, "dot")
    assert (back.estimate, back.low, back.high) == pytest.approx(
        (-found.estimate, -found.high, -found.low)
    )


def test_spread_validation_and_hard_negatives_are_means_over_concepts(report):
    for score in SCORES:
        seeds = [d.seed_aurocs[score] for d in report.detections[NULL]]
        means = [np.mean([s[j] for s in seeds]) for j in range(2)]
        assert report.spread(NULL, score) == pytest.approx((min(means), max(means)))
        low, high = report.spread("exemplar", score)
        assert low == high == pytest.approx(report.mean("exemplar", score).estimate)
    values = [d.validation_auroc for d in report.detections["exemplar"]]
    assert report.validation("exemplar") == pytest.approx(np.mean(values))
    (hard,) = [d.hard_negative["dot"] for d in report.detections["exemplar"]][2:]
    assert report.hard_negative("exemplar", "dot") == hard
    alone = ConceptReport(
        report.concepts[:1], {name: found[:1] for name, found in report.detections.items()}
    )
    assert np.isnan(alone.hard_negative("exemplar"))
    detection = alone.detections[NULL][0]
    assert alone.mean(NULL) == detection.auroc["cosine"]


def test_a_report_is_by_its_seed_and_its_progress_is_told(dictionary, rows, concepts, report):
    done = []
    again = detect_concepts(
        dictionary, rows, concepts, rows.vectors, k=2, null_seeds=2,
        on_step=lambda *step: done.append(step),
    )  # fmt: skip
    assert done == [
        (stage, n, total)
        for stage, total in (
            ("choosing directions", 18), ("fitting probes", 3), ("testing detectors", 3),
        )
        for n in range(total + 1)
    ]  # fmt: skip
    for name, detections in report.detections.items():
        for mine, theirs in zip(detections, again.detections[name], strict=True):
            assert all(map(same, mine.detectors, theirs.detectors))
            assert mine.auroc == theirs.auroc
    other = detect_concepts(
        dictionary, rows, concepts[:1], rows.vectors, k=2, null_seeds=2, seed=7, notes=["said"]
    )
    mine, theirs = (r.detections[NULL][0].detectors for r in (report, other))
    assert not any(map(same, mine, theirs))
    assert same(report.detections["exemplar"][0].detectors[0],
                other.detections["exemplar"][0].detectors[0])  # fmt: skip
    assert other.notes == ("said",)


def test_methods_are_named_after_what_they_choose_from(found, dictionary, concept):
    one = candidates_of(found, dictionary.means[:2], concept)
    names = set(
        region_methods(
            {"region mean": [one], "census mean": [one]}, 5, np.eye(one.directions.shape[1])
        )
    )
    assert names == {  # no more than there are
        "region mean", "region mean, contrast", "region mean, 2 summed", "region mean, 2 anchored",
        "region mean, 2 whitened", "census mean",
    }  # fmt: skip
    assert len(supervised_methods(found)) == 3
    positive, negative, *_ = detectors.numbers(found.rows, concept)
    scale = np.diag(np.linspace(0.1, 3, WIDTH))
    methods = region_methods({"region mean": [one]}, 2, scale)
    (fit,) = methods["region mean, 2 whitened"]
    expected = one.anchored(positive, negative, 2, scale)
    assert np.array_equal(fit(positive, negative).directions, expected.directions)
    (fit,) = methods["region mean, 2 anchored"]
    assert not np.array_equal(fit(positive, negative).directions, expected.directions)


# End to end, and what is refused


def test_a_model_end_to_end_leaves_out_texts_without_rows():
    model = tiny_model()
    texts = [*dict.fromkeys(t for t in documents(60) if len(t) > 20)]
    positive = [f"{text} salt zzz" for text in texts[:12]]
    negative = texts[12:24]
    concept = Concept(
        "zzz", tuple(positive[:6]), (*negative[:6], ""), (*positive[6:], ""), tuple(negative[6:])
    )
    stream = ex.texts(texts[24:])
    dictionary = ex.build(
        model, "resid_post.1", stream, 20.0, rows=400, tokenization=TOKENIZATION,
        calibration_rows=300, block_rows=128,
    )  # fmt: skip
    assert len(dictionary) >= 2
    rows = read_text_rows(model, "resid_post.1", concept.texts(), TOKENIZATION)
    drawn = np.concatenate([rows.vectors, rows.vectors[::-1] + 1])
    report = detect_concepts(dictionary, rows, [concept], drawn, k=2, null_seeds=1, notes=["n"])
    assert report.notes == ("n", "2 texts have no row, and were left out")
    assert report.concepts[0].test_positive == tuple(positive[6:])
    assert report.concepts[0].negative == tuple(negative[:6])
    census = ex.census(dictionary, model, stream)
    more = detect_concepts(census, rows, [concept], drawn, k=2, null_seeds=1)
    assert set(more.detections) - set(report.detections) == {"census mean"}


def test_training_texts_that_are_left_out_are_said(dictionary, rows, concepts):
    some = [replace(concepts[0], left_out=2), replace(concepts[1], left_out=1)]
    report = detect_concepts(dictionary, rows, some, rows.vectors, null_seeds=1)
    assert report.notes == ("3 training texts are test texts too, and were left out",)


def test_the_least_that_is_allowed_is_enough(dictionary, rows, concept):
    small = Concept(
        "small", concept.positive[:2], concept.negative[:3], concept.test_positive[:2],
        concept.test_negative[:2],
    )  # fmt: skip
    report = detect_concepts(dictionary, rows, [small], rows.vectors, null_seeds=1)
    for (detection,) in report.detections.values():
        assert 0 <= detection.validation_auroc <= 1
        assert 0 <= detection.auroc["dot"].low <= detection.auroc["dot"].high <= 1 + 1e-6


def test_what_leaves_no_choice_is_refused(dictionary, rows, concept):
    vectors = np.random.default_rng(0).normal(size=(50, WIDTH)) * 0.01 + np.eye(1, WIDTH)
    calibration = replace(ex.calibrate(vectors, [99.0]), thresholds={99.0: 2.0})
    one = ex.partition(vectors, calibration)
    assert len(one) == 1
    with pytest.raises(ValueError, match="has 1 region, so there is nothing to choose"):
        detect_concepts(one, rows, [concept], rows.vectors)
    few = rows.vectors[: len(dictionary) - 1]
    with pytest.raises(ValueError, match=rf"{len(few)} rows of the stream .* {len(dictionary)}"):
        detect_concepts(dictionary, rows, [concept], few)
    for options in ({"k": 0}, {"null_seeds": 0}):
        with pytest.raises(ValueError, match="expected positive numbers"):
            detect_concepts(dictionary, rows, [concept], rows.vectors, **options)
    lacking = replace(concept, test_positive=concept.test_positive[:1])
    with pytest.raises(ValueError, match="1 test positive texts"):
        detect_concepts(dictionary, rows, [lacking], rows.vectors)
    with pytest.raises(ValueError, match="nothing to choose"):
        check_choice(one)
