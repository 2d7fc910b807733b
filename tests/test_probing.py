"""Probes find what is planted and nothing else, whatever way the codes are computed."""

import itertools
import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import exemplars as ex
import exemplars.cli.probe  # adds itself
from exemplars.analyses import probing
from exemplars.analyses.detection import auroc, weighted_aurocs
from exemplars.analyses.labelled import Concept, TextRows
from exemplars.analyses.probing import (
    CODES,
    COMPONENTS,
    FIRST_COMPONENTS,
    MAJORITY,
    PERMUTED,
    RANDOM_ROWS,
    RAW,
    mean_codes,
    mean_report,
    probe,
    probe_tasks,
)
from exemplars.analyses.tasks import ProbeTask, read_task, without_empty_texts
from exemplars.report.probing import probe_figure, probe_text
from labelled_build import document, labelled_build, write

ONE = {"readouts": ("binary",), "bases": ("exemplar",), "k_sparse": (1,), "seeds": 1}
READOUTS = ("binary", "cosine", "signed", "topk", "topk_norm")
PARTS = ("train", "test")
WIDTH = 12


def text_rows(vectors, lengths):
    texts = tuple(f"text {k:03}" for k in range(len(lengths)))
    starts = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    none = np.zeros(len(vectors), np.int64)
    number = {text: k for k, text in enumerate(texts)}
    return TextRows("resid_post.1", texts, vectors.astype(np.float32), starts, none, none, number)


def task_of(rows, labels, n_train, n_classes=2):
    labels = tuple(int(label) for label in labels)
    classes = tuple("abcdef"[:n_classes])
    return ProbeTask(
        "planted", classes, rows.texts[:n_train], labels[:n_train], rows.texts[n_train:],
        labels[n_train:],
    )  # fmt: skip


def planted(n_texts=60, n_classes=2, seed=0):
    """Rows round 6 centers; a text of class c > 0 has one row more, round center 5 + c."""
    random = np.random.default_rng(seed)
    centers = 6 * np.linalg.qr(random.normal(size=(WIDTH, WIDTH)))[0]
    labels = np.arange(n_texts) % n_classes
    lengths = random.integers(4, 9, n_texts) + (labels > 0)
    rows = text_rows(np.zeros((lengths.sum(), WIDTH)), lengths)
    cluster = random.integers(0, 6, len(rows.vectors))
    for text, label in enumerate(labels):
        if label:
            cluster[rows.starts[text] + 1] = 5 + label
    rows.vectors[:] = 1 + centers[cluster] + 0.3 * random.normal(size=rows.vectors.shape)
    calibration = ex.calibrate(rows.vectors, [15])
    dictionary = ex.partition(rows.vectors, calibration, 15)
    assert len(dictionary) >= 5 + n_classes
    return dictionary, rows, task_of(rows, labels, n_texts // 2, n_classes)


def identity(n_texts=50, n_train=30, seed=0):
    """Rows that are their own codes: unit axes about a center of 0, each an exemplar."""
    random = np.random.default_rng(seed)
    dictionary, *_ = planted()
    lengths = random.integers(1, 7, n_texts)
    labels = np.arange(n_texts) % 2
    text = np.repeat(labels, lengths)
    axis = np.where(random.random(len(text)) < 0.4, text, random.integers(0, WIDTH, len(text)))
    axes = np.eye(WIDTH, dtype=np.float32)
    rows = text_rows(axes[axis], lengths)
    calibration = replace(
        dictionary.calibration, center=np.zeros(WIDTH, np.float32), norm_limit=None
    )
    ours = replace(dictionary, exemplars=axes, calibration=calibration)
    return ours, rows, task_of(rows, labels, n_train)


def found(report):
    return [(s.method, s.readout, s.basis, s.k, s.accuracy, s.auroc) for s in report.scores]


# What a code is


@pytest.mark.parametrize("basis", ["exemplar", "mean"])
@pytest.mark.parametrize("readout", READOUTS)
def test_codes_of_texts_are_means_of_the_codes_of_rows(readout, basis):
    dictionary, rows, _ = planted()
    members = replace(dictionary.members, means=dictionary.means.copy())
    members.means[2] = np.nan  # a region without members
    dictionary = replace(dictionary, members=members)
    rows.vectors[3] = dictionary.center  # a row without a direction counts, and codes as zeros
    lengths = [*rows.lengths()[:-1], 0, rows.lengths()[-1]]  # a text without rows
    rows = text_rows(rows.vectors, lengths)
    codes = mean_codes(dictionary, rows, readout, basis)
    codes = codes if isinstance(codes, np.ndarray) else codes.toarray()
    assert codes.shape == (len(lengths), len(dictionary))
    for text, (start, end) in enumerate(zip(rows.starts[:-1], rows.starts[1:], strict=True)):
        slow = np.zeros(len(dictionary))
        for row in rows.vectors[start:end]:
            one = dictionary.encode(row[None], readout, basis)
            slow += (one if isinstance(one, np.ndarray) else one.toarray())[0] / (end - start)
        np.testing.assert_allclose(codes[text], slow, atol=2e-5)


def test_one_hot_codes_are_the_share_of_rows_that_assign_gives():
    dictionary, rows, _ = planted()
    region, _ = dictionary.assign(rows.vectors)
    codes = mean_codes(dictionary, rows).toarray()
    for text in range(len(rows.texts)):
        mine = region[rows.starts[text] : rows.starts[text + 1]]
        np.testing.assert_allclose(
            codes[text], np.bincount(mine, minlength=len(dictionary)) / len(mine)
        )


@pytest.mark.parametrize("n_train", [8, 30])  # fewer texts than dimensions, and more
def test_where_codes_are_the_activations_all_probes_agree(n_train):
    dictionary, rows, task = identity(n_train=n_train)
    ks = (1, 3, WIDTH)
    report = probe(
        dictionary, rows, task, readouts=READOUTS, bases=("exemplar",), k_sparse=ks, seeds=1
    )
    for k in (*ks, None):
        raw = report.score(RAW, k)
        for readout in READOUTS:
            score = report.score(CODES, k, readout, "exemplar")
            assert score.accuracy == raw.accuracy
            # Rounding decides between texts that tie.
            assert score.auroc.estimate == pytest.approx(raw.auroc.estimate, abs=0.01)
            assert score.of_raw.estimate == raw.of_raw.estimate
    assert report.score(RAW).of_raw.estimate == 1


def test_all_dimensions_are_the_same_probe_however_activations_are_turned():
    dictionary, rows, task = planted()
    turn = np.linalg.qr(np.random.default_rng(1).normal(size=(WIDTH, WIDTH)))[0]
    turned = replace(rows, vectors=(rows.vectors @ turn).astype(np.float32))
    calibration = replace(
        dictionary.calibration, center=(dictionary.center @ turn).astype(np.float32)
    )
    other = replace(
        dictionary, exemplars=(dictionary.exemplars @ turn).astype(np.float32),
        calibration=calibration,
    )  # fmt: skip
    settings = {**ONE, "readouts": ("cosine", "binary")}
    one, two = (probe(d, r, task, **settings) for d, r in ((dictionary, rows), (other, turned)))
    for which in ((RAW,), (CODES, None, "cosine", "exemplar"), (COMPONENTS, 1)):
        assert one.score(*which).auroc.estimate == pytest.approx(
            two.score(*which).auroc.estimate, abs=1e-6
        )


def test_one_dimension_is_chosen_by_the_difference_of_class_means():
    """With one dimension the AUROC is that of the code itself, up to its sign."""
    dictionary, rows, task = planted(seed=3)
    turned = {f"{p}_labels": tuple(1 - k for k in getattr(task, f"{p}_labels")) for p in PARTS}
    for one, readout in itertools.product((task, replace(task, **turned)), READOUTS):
        codes = mean_codes(dictionary, rows, readout)
        codes = codes if isinstance(codes, np.ndarray) else codes.toarray()
        labels, tested = np.array(one.train_labels), np.array(one.test_labels)
        train, test = codes[: len(labels)], codes[len(labels) :]
        difference = train[labels == 1].mean(0) - train[labels == 0].mean(0)
        best = np.abs(difference).argmax()
        column = test[:, best] * np.sign(difference[best])
        report = probe(dictionary, rows, one, **{**ONE, "readouts": (readout,)})
        assert report.score(CODES, 1, readout, "exemplar").auroc.estimate == pytest.approx(
            auroc(column[tested == 1], column[tested == 0]), abs=1e-9
        )


def test_products_of_means_and_basis_are_probed_as_if_they_were_made():
    dictionary, rows, _ = planted(seed=8)
    task = task_of(rows, np.random.default_rng(0).permutation(60) % 2, 30)  # hard to tell
    n = len(dictionary)
    codes = mean_codes(dictionary, rows, "cosine")
    calibration = replace(dictionary.calibration, center=np.zeros(n, np.float32), norm_limit=None)
    other = replace(dictionary, exemplars=np.eye(n, dtype=np.float32), calibration=calibration)
    made = text_rows(codes, np.ones(len(codes), np.int64))
    ours = probe(dictionary, rows, task, **{**ONE, "readouts": ("cosine",)})
    dense = probe(other, made, task, **ONE)
    for k in (1, None):
        assert ours.score(CODES, k, "cosine", "exemplar").auroc.estimate == pytest.approx(
            dense.score(RAW, k).auroc.estimate, abs=0.01
        )


def test_the_first_components_are_those_of_a_principal_component_analysis():
    from sklearn.decomposition import PCA

    dictionary, rows, task = planted()
    raw = np.stack([part.mean(0) for part in np.split(rows.vectors, rows.starts[1:-1])])
    n = len(task.train_texts)
    first = PCA(1).fit(raw[:n]).transform(raw)[:, 0]
    labels, tested = np.array(task.train_labels), np.array(task.test_labels)
    sign = np.sign(first[:n][labels == 1].mean() - first[:n][labels == 0].mean())
    score = probe(dictionary, rows, task, **ONE).score(FIRST_COMPONENTS, 1)
    assert score.auroc.estimate == pytest.approx(
        auroc(sign * first[n:][tested == 1], sign * first[n:][tested == 0]), abs=1e-6
    )


# What it finds


def test_a_region_that_only_one_class_falls_in_is_found_by_one_dimension():
    dictionary, rows, task = planted(n_texts=120)
    report = probe(dictionary, rows, task, **{**ONE, "seeds": 4}, stream=rows.vectors)
    best = report.score(CODES, 1, "binary", "exemplar")
    assert (best.accuracy.estimate, best.auroc.estimate) == (1, 1)
    assert (best.accuracy.low, best.accuracy.high) == (1, 1)
    null = report.score(PERMUTED, 1, "binary", "exemplar")
    assert len(null.by_seed) == 4
    assert abs(null.accuracy.estimate - 0.5) < 0.25
    assert null.accuracy.low == min(null.by_seed) <= null.accuracy.high == max(null.by_seed)
    assert null.accuracy.estimate == pytest.approx(np.mean(null.by_seed))
    assert null.of_raw is None
    assert report.score(MAJORITY).accuracy.estimate == 0.5
    assert report.score(RAW, 1).accuracy.estimate < 1


def test_three_classes_are_told_one_against_the_rest():
    dictionary, rows, task = planted(n_texts=90, n_classes=3)
    report = probe(dictionary, rows, task, **ONE)
    best = report.score(CODES, 1, "binary", "exemplar")
    assert best.auroc.estimate > 0.8  # "a" has no region of its own
    assert report.score(CODES, None, "binary", "exemplar").accuracy.estimate > 0.9
    assert report.score(MAJORITY).accuracy.estimate == pytest.approx(1 / 3)
    assert report.train_texts == report.test_texts == (15, 15, 15)


def test_classes_weigh_the_same_however_many_texts_they_have():
    dictionary, rows, task = planted(n_texts=120)
    few = [k for k, label in enumerate(task.train_labels) if label == 0 or k < 10]
    other = replace(
        task,
        train_texts=tuple(task.train_texts[k] for k in few),
        train_labels=tuple(task.train_labels[k] for k in few),
    )
    report = probe(dictionary, rows, other, **ONE)
    assert report.score(CODES, 1, "binary", "exemplar").accuracy.estimate == 1
    # All test texts of one class wrong, however few, is half of the accuracy.
    flipped = replace(task, test_labels=tuple(0 if k else 1 for k in range(len(task.test_labels))))
    report = probe(dictionary, rows, flipped, **ONE)
    told = np.array(task.test_labels)
    expected = ((told[:1] == 1).mean() + (told[1:] == 0).mean()) / 2
    assert report.score(CODES, 1, "binary", "exemplar").accuracy.estimate == expected


def test_labels_of_test_texts_decide_nothing_but_the_score():
    dictionary, rows, task = planted(seed=2)
    other = replace(task, test_labels=tuple(1 - label for label in task.test_labels))
    settings = {**ONE, "readouts": ("cosine",), "k_sparse": (1, 3)}
    for a, b in zip(
        probe(dictionary, rows, task, **settings).scores,
        probe(dictionary, rows, other, **settings).scores,
        strict=True,
    ):
        assert a.accuracy.estimate + b.accuracy.estimate == pytest.approx(1)
        assert a.auroc.estimate + b.auroc.estimate == pytest.approx(1)


def test_random_rows_that_are_the_exemplars_give_their_codes():
    dictionary, rows, task = planted()
    stream = rows.vectors[dictionary.exemplar_rows][::-1]
    report = probe(
        dictionary, rows, task, readouts=("binary", "cosine"), bases=("exemplar",), k_sparse=(1,),
        seeds=2, stream=stream,
    )  # fmt: skip
    for readout in ("binary", "cosine"):
        for k in (1, None):
            ours = report.score(CODES, k, readout, "exemplar").accuracy.estimate
            assert report.score(RANDOM_ROWS, k, readout).by_seed == (ours, ours)


def test_random_rows_depend_on_the_seed_and_not_on_chance():
    dictionary, rows, task = planted(seed=5)
    stream = np.random.default_rng(0).normal(size=(200, WIDTH)).astype(np.float32)
    settings = {**ONE, "seeds": 4, "stream": stream}
    one, two = (probe(dictionary, rows, task, **settings) for _ in range(2))
    assert found(one) == found(two)
    assert len(set(one.score(RANDOM_ROWS, None, "binary").by_seed)) > 1
    assert found(probe(dictionary, rows, task, **settings, seed=1)) != found(one)


# What it does not depend on


def test_the_order_of_texts_changes_nothing():
    dictionary, rows, task = planted(seed=4)
    random = np.random.default_rng(0)
    order = random.permutation(len(rows.texts))
    vectors = np.concatenate([rows.vectors[rows.starts[k] : rows.starts[k + 1]] for k in order])
    texts = tuple(rows.texts[k] for k in order)
    other = replace(
        text_rows(vectors, rows.lengths()[order]), texts=texts,
        number={text: k for k, text in enumerate(texts)},
    )  # fmt: skip
    parts = {}
    for part in ("train", "test"):
        these, labels = getattr(task, f"{part}_texts"), getattr(task, f"{part}_labels")
        order = random.permutation(len(these))
        parts[f"{part}_texts"] = tuple(these[k] for k in order)
        parts[f"{part}_labels"] = tuple(labels[k] for k in order)
    settings = {**ONE, "readouts": ("binary", "topk"), "k_sparse": (1, 3)}
    assert found(probe(dictionary, rows, task, **settings)) == found(
        probe(dictionary, other, replace(task, **parts), **settings)
    )


def test_blocks_of_rows_change_nothing(monkeypatch):
    dictionary, rows, task = planted()
    settings = {**ONE, "readouts": ("binary", "topk")}
    before = found(probe(dictionary, rows, task, **settings))
    monkeypatch.setattr(probing, "_ROWS", 7)
    assert found(probe(dictionary, rows, task, **settings)) == before


def test_several_tasks_give_what_each_gives_alone():
    dictionary, rows, task = planted()
    half = replace(
        task, name="half", train_texts=task.train_texts[:20], train_labels=task.train_labels[:20]
    )
    together = probe_tasks(dictionary, rows, [task, half], **ONE, stream=rows.vectors)
    alone = [probe(dictionary, rows, t, **ONE, stream=rows.vectors) for t in (task, half)]
    assert together == alone
    mean = mean_report(together)
    assert mean.tasks == 2
    for score, *parts in zip(mean.scores, *(r.scores for r in together), strict=True):
        assert score.accuracy.estimate == pytest.approx(
            np.mean([part.accuracy.estimate for part in parts])
        )
    assert mean_report(alone[:1]) is alone[0]
    with pytest.raises(ValueError, match="different methods"):
        mean_report([alone[0], probe(dictionary, rows, task, **ONE)])


def test_norm_outliers_are_left_out():
    dictionary, rows, task = planted()
    calibration = replace(dictionary.calibration, norm_limit=50.0)
    before = probe(replace(dictionary, calibration=calibration), rows, task, **ONE)
    vectors = np.insert(rows.vectors, rows.starts[:-1], 1e4, axis=0)
    loud = text_rows(vectors, rows.lengths() + 1)
    after = probe(replace(dictionary, calibration=calibration), loud, task, **ONE)
    assert found(after) == found(before)
    assert (before.dropped_rows, after.dropped_rows) == (0, len(rows.texts))


@pytest.mark.parametrize("seed", range(5))
def test_weighted_auroc_is_that_of_repeated_texts(seed):
    random = np.random.default_rng(seed)
    scores = random.integers(0, 6, 20).astype(float)  # with ties
    positive = np.arange(20) % 3 == 0
    draws = random.integers(0, 4, (5, 20)).astype(float)
    for weights, value in zip(draws, weighted_aurocs(scores, positive, draws), strict=True):
        repeated = np.repeat(np.arange(20), weights.astype(int))
        mine = positive[repeated]
        assert value == pytest.approx(auroc(scores[repeated][mine], scores[repeated][~mine]))


def test_intervals_hold_the_estimate_and_narrow_with_more_texts():
    widths = []
    for n in (40, 400):
        dictionary, rows, task = planted(n_texts=n, seed=6)
        score = probe(dictionary, rows, task, **ONE).score(RAW, 1)
        assert score.accuracy.low <= score.accuracy.estimate <= score.accuracy.high
        assert score.auroc.low <= score.auroc.estimate <= score.auroc.high
        widths.append(score.auroc.high - score.auroc.low)
    assert widths[1] < 0.6 * widths[0]


def test_a_concept_is_a_task_of_two_classes():
    dictionary, rows, task = planted()
    parts = {
        name: tuple(t for t, label in zip(texts, labels, strict=True) if label == kind)
        for name, texts, labels, kind in (
            ("positive", task.train_texts, task.train_labels, 1),
            ("negative", task.train_texts, task.train_labels, 0),
            ("test_positive", task.test_texts, task.test_labels, 1),
            ("test_negative", task.test_texts, task.test_labels, 0),
        )
    }
    report = probe(dictionary, rows, Concept("planted", **parts), **ONE)
    assert report.classes == ("negative", "positive")
    assert found(report) == found(probe(dictionary, rows, task, **ONE))


# Faults


def refused(sentence, *changes, **settings):
    dictionary, rows, task = planted()
    for change in changes:
        dictionary, rows, task = change(dictionary, rows, task)
    with pytest.raises(ValueError, match=sentence) as error:
        probe(dictionary, rows, task, **{**ONE, **settings})
    assert "\n" not in str(error.value)


def test_settings_that_cannot_be_are_refused():
    refused("k is 0, expected 1 to", k_sparse=(1, 0))
    refused("k is 900, expected 1 to .*, the number of regions", k_sparse=(900,))
    refused('readout is "softmax", expected some of topk', readouts=("softmax",))
    refused("no readout was given", readouts=())
    refused('basis is "median"', bases=("median",))
    refused("no basis was given", bases=())
    refused("seeds is 0", seeds=0)
    refused("the stream has 3 rows", stream=np.ones((3, WIDTH), np.float32) * [[1], [2], [4]])
    refused(
        "the dictionary has 1 region, so all texts have the same code",
        lambda d, r, t: (replace(d, exemplars=d.exemplars[:1]), r, t),
    )
    refused(
        "rows have width 5, this dictionary 12",
        lambda d, r, t: (d, replace(r, vectors=r.vectors[:, :5].copy()), t),
    )


def test_texts_that_cannot_be_are_refused():
    refused(
        "the class 'b' of 'planted' has 0 training texts, expected at least 2",
        lambda d, r, t: (d, r, replace(t, train_labels=(0,) * len(t.train_labels))),
    )
    refused(
        "the class 'a' of 'planted' has 0 test texts, expected at least 1",
        lambda d, r, t: (d, r, replace(t, test_labels=(1,) * len(t.test_labels))),
    )
    refused(
        "'planted' has 1 class, expected two", lambda d, r, t: (d, r, replace(t, classes=("a",)))
    )
    refused(
        "the activations of 'never seen' were not read",
        lambda d, r, t: (d, r, replace(t, test_texts=("never seen", *t.test_texts[1:]))),
    )
    refused(
        "30 texts have 31 labels",
        lambda d, r, t: (d, r, replace(t, train_labels=(*t.train_labels, 0))),
    )
    refused(
        "a label is not one of 0 to 1",
        lambda d, r, t: (d, r, replace(t, test_labels=(*t.test_labels[:-1], 2))),
    )
    refused(
        "'text 000' is given twice",
        lambda d, r, t: (d, r, replace(t, test_texts=(t.train_texts[0], *t.test_texts[1:]))),
    )
    empty = "'text 004' of 'planted' has no row"
    refused(empty, lambda d, r, t: (d, r.select(r.text_of_rows() != 4), t))


def test_a_row_that_is_not_finite_is_named():
    dictionary, rows, task = planted()
    rows.vectors[17, 3] = np.nan
    with pytest.raises(ex.ActivationError, match="NaN or infinite"):
        probe(dictionary, rows, task, **ONE)


def test_texts_without_rows_can_be_left_out():
    dictionary, rows, task = planted()
    rows = rows.select(~np.isin(rows.text_of_rows(), [4, 40]))
    left, lost = without_empty_texts(rows, task)
    assert lost == 2
    assert set(task.texts()) - set(left.texts()) == {"text 004", "text 040"}
    assert (
        dict(zip(left.train_texts, left.train_labels, strict=True)).items()
        <= dict(zip(task.train_texts, task.train_labels, strict=True)).items()
    )
    probe(dictionary, rows, left, **ONE)
    with pytest.raises(ValueError, match="has 0 training texts"):
        without_empty_texts(rows.select(rows.text_of_rows() >= 30), task)


# Files


def labelled(n=20, classes=("no", "yes")):
    return [
        {"text": f'text "{k}", naïve\n🌊', "label": classes[k % len(classes)]} for k in range(n)
    ]


@pytest.mark.parametrize("suffix", [".jsonl", ".ndjson", ".parquet", ".csv", ".tsv"])
def test_every_kind_of_file_gives_the_same_task(suffix, tmp_path):
    task = read_task(write(tmp_path / f"a{suffix}", labelled()), seed=1)
    assert task.name == "a"
    assert task.classes == ("no", "yes")
    truth = {row["text"]: row["label"] for row in labelled()}
    for texts, labels in (
        (task.train_texts, task.train_labels),
        (task.test_texts, task.test_labels),
    ):
        assert np.bincount(labels).tolist() == [5, 5]
        assert all(truth[t] == task.classes[k] for t, k in zip(texts, labels, strict=True))
    assert sorted(task.texts()) == sorted(truth)
    assert task == read_task(write(tmp_path / "a.jsonl", labelled()), seed=1)
    assert task != read_task(write(tmp_path / "a.jsonl", labelled()), seed=2)


def test_a_test_file_is_read_as_it_is(tmp_path):
    one = write(tmp_path / "one.jsonl", [{"t": f"a{k}", "topic": k % 3} for k in range(9)])
    two = write(tmp_path / "two.csv", [{"t": f"b{k}", "topic": k % 3} for k in range(3)])
    task = read_task(one, two, column="t", label_column="topic")
    assert task.classes == ("0", "1", "2")
    assert (len(task.train_texts), task.test_texts) == (9, ("b0", "b1", "b2"))


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([{"text": "a", "y": 1}], "has no column 'label'; it has text, y"),
        ([{"body": "a", "label": 1}], "has no column 'text'; it has body, label"),
        ([{"text": "a", "label": 1}, {"text": "b", "label": 1}], "has the one class '1'"),
        ([{"text": "a", "label": None}], "a row without a text or without a label"),
        ([{"text": 3, "label": 1}], "a row without a text or without a label"),
        ([{"text": "a", "label": 1}, {"text": "a", "label": 2}], "is of the class '1' and of '2'"),
        ([{"text": " ", "label": 1}], "holds no text"),
        ([{"text": f"{k}", "label": k > 1} for k in range(9)], "has 2 texts of the class 'False'"),
    ],
)
def test_a_file_that_cannot_be_a_task_is_refused(rows, sentence, tmp_path):
    with pytest.raises((ValueError, ex.SourceError), match=sentence):
        read_task(write(tmp_path / "a.jsonl", rows))


def test_files_that_cannot_be_read_are_refused(tmp_path):
    for name, content, sentence in (
        ("a.jsonl", '{"text": "a", "label": 1}\n{"text"', "a.jsonl, line 2, is not JSON"),
        ("a.jsonl", "[1]\n", "line 1, is not an object"),
        ("a.parquet", "nothing", "is not a Parquet file"),
        ("a.txt", "a", "is not a table of texts and labels; expected one of .jsonl"),
        ("a.csv", "", "holds no text"),
    ):
        (tmp_path / name).write_text(content, encoding="utf-8")
        with pytest.raises(ex.SourceError, match=sentence):
            read_task(tmp_path / name)
    with pytest.raises(ex.SourceError, match="there is no file"):
        read_task(tmp_path / "absent.jsonl")
    one = write(tmp_path / "one.jsonl", labelled())
    with pytest.raises(ValueError, match="is both a training and a test text"):
        read_task(one, one)
    other = write(tmp_path / "other.jsonl", [{"text": "new", "label": "perhaps"}])
    with pytest.raises(ValueError, match=r"texts of the class 'perhaps', which .* has none of"):
        read_task(one, other)
    with pytest.raises(ValueError, match="test_share is 1"):
        read_task(one, test_share=1)


# Text and figure


def test_the_text_says_what_stands_beside_what():
    dictionary, rows, task = planted()
    report = probe(dictionary, rows, replace(task, name="a\x1b[31m"), **ONE, stream=rows.vectors)
    text = probe_text(report)
    assert "\x1b" not in text
    for part in ("binary exemplar codes", RAW, RANDOM_ROWS, PERMUTED, MAJORITY, "97% to 98%"):
        assert part in text
    assert "no null of random rows" not in text
    assert "no null of random rows" in probe_text(probe(dictionary, rows, task, **ONE))
    other = probe(dictionary, rows, task, **{**ONE, "readouts": ("cosine",)})
    assert "The paper" not in probe_text(other)
    with pytest.raises(ValueError, match=r"no probe of cosine, exemplar, codes with k = 1"):
        report.score(CODES, 1, "cosine", "exemplar")


def test_the_figure_shows_every_number_of_dimensions(tmp_path):
    pytest.importorskip("matplotlib")
    from exemplars.figures import save_figure

    dictionary, rows, task = planted()
    report = probe(dictionary, rows, task, **{**ONE, "k_sparse": (1, 5)}, stream=rows.vectors)
    svg, png = save_figure(probe_figure(report), tmp_path / "probe")
    assert png.stat().st_size > 1000
    shown = svg.read_text()
    assert all(f">{name}<" in shown for name in ("1", "5", "all", "binary exemplar codes", RAW))
    with pytest.raises(ValueError, match="give some k"):
        probe_figure(probe(dictionary, rows, task, **{**ONE, "k_sparse": ()}))


# The command


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return labelled_build(tmp_path_factory.mktemp("probe"))


@pytest.fixture
def run(run):
    return partial(run, "probe")


FEW = ("--readout", "binary", "--basis", "exemplar", "--k", "1", "--seeds", "1")


def test_the_command_shows_what_it_reads_and_ctrl_c_ends_it(run, built, monkeypatch):
    words = (built / "d", "--labels", built / "labels.jsonl", "--text", built / "corpus", *FEW)
    status, _, err = run(*words)
    assert status == 0, err
    assert "texts: 100%" in err
    assert "rows of the stream: " in err

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(probing, "probe_tasks", interrupt)
    status, said, err = run(*words)
    assert (status, said) == (130, "")
    assert err.rstrip().split("\n")[-1] == "interrupted; nothing was written"


def test_the_command_probes_a_file_of_labels(run, built, tmp_path):
    stream = ("--text", built / "corpus")
    words = (built / "d", "--labels", built / "labels.jsonl", *stream, *FEW)
    status, said, progress = run(*words, "--figure", tmp_path / "f.svg", "--json")
    assert status == 0, progress
    result = json.loads(said)
    assert result["tasks"] == [result["mean"]]
    assert "random rows of" in result["stream"]
    scores = {(s["method"], s["k"]): s for s in result["mean"]["scores"]}
    assert scores[RAW, None]["of_raw"] == {"estimate": 1, "low": 1, "high": 1}
    assert result["mean"]["test_texts"] == [10, 10]
    assert {m for m, _ in scores} >= {CODES, RAW, RANDOM_ROWS, PERMUTED, MAJORITY}
    assert (tmp_path / "f.png").exists()
    status, said, _ = run(*words)
    assert status == 0
    assert "binary exemplar codes" in said
    assert "95 %" in said


def test_the_command_probes_two_files_and_without_a_stream(run, built, tmp_path):
    import shutil

    shutil.copytree(built / "d", tmp_path / "d")
    dictionary = ex.load(built / "d")
    about = {k: v for k, v in dictionary.provenance.items() if k != "texts"}
    ex.save(replace(dictionary, provenance=about), tmp_path / "e")
    files = ("--positive", built / "yes.txt", "--negative", built / "no.txt")
    status, said, progress = run(tmp_path / "e", *files, *FEW, "--json")
    assert status == 0, progress
    assert "of the training texts" in json.loads(said)["stream"]
    status, said, _ = run(tmp_path / "e", *files, *FEW, "--text", built / "corpus", "--json")
    assert status == 0
    assert "of the dictionary's stream" in json.loads(said)["stream"]


def test_the_command_averages_the_concepts_of_an_axbench_folder(run, built, tmp_path):
    train, test = [], []
    for k in range(8):
        train.append({"output": document(200 + k), "category": "negative", "concept_id": -1})
        for concept in (0, 1):
            about = {"concept_id": concept, "output_concept": f"c{concept}"}
            seed = 10 * concept + k
            words = document(300 + seed, True)
            train.append({"output": words, "category": "positive", **about})
            test.append({"output": document(400 + seed, True), "category": "positive", **about})
            test.append({"output": document(500 + seed), "category": "negative", **about})
    write(tmp_path / "train_data.parquet", train)
    write(tmp_path / "latent_eval_data.parquet", test)
    status, said, progress = run(built / "d", "--axbench", tmp_path, *FEW, "--json")
    assert status == 0, progress
    result = json.loads(said)
    assert [task["task"] for task in result["tasks"]] == ["c0", "c1"]
    assert result["mean"]["tasks"] == 2
    assert "mean of 2 tasks" in run(built / "d", "--axbench", tmp_path, *FEW)[1]


def test_wrong_arguments_are_one_sentence(run, built, tmp_path):
    labels = ("--labels", built / "labels.jsonl")
    one = write(tmp_path / "one.jsonl", [{"text": "a", "label": 1}])
    for words, sentence in (
        ((), "no sources of labelled texts were given; give one"),
        ((*labels, "--axbench", tmp_path), "2 sources of labelled texts were given"),
        (("--positive", built / "yes.txt"), "one class alone was given"),
        ((*labels, "--k", "9999"), "k is 9999, expected 1 to"),
        ((*labels, "--label-column", "topic"), "has no column 'topic'"),
        ((*labels, "--column", "body"), "has no column 'body'"),
        (("--labels", one), "has the one class '1'"),
        (("--axbench", tmp_path), "there is no file"),
        (("--axbench", tmp_path, "--test", one), "--test goes with --labels"),
        ((*labels, "--readout", "softmax"), 'readout is "softmax"'),
    ):
        status, said, err = run(built / "d", *words)
        assert (status, said) == (2, ""), words
        assert err.splitlines()[-1].startswith("error: ")
        assert sentence in err.splitlines()[-1]
