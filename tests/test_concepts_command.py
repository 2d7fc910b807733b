"""`exemplars concepts`: two files or an AxBench folder in, a table, a card, a figure out."""

import json
import signal
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import exemplars as ex
from exemplars.analyses.concepts import detect_concepts
from exemplars.analyses.labelled import read_concept, read_text_rows
from exemplars.building import tokenization_of
from exemplars.report.concepts import concepts_figure, concepts_summary, concepts_text
from labelled_build import document, labelled_build, write

FEW = ("--seeds", "1", "--k", "2")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return labelled_build(tmp_path_factory.mktemp("concepts"))


@pytest.fixture
def run(run):
    return partial(run, "concepts")


@pytest.fixture(scope="module")
def files(built):
    return ("--positive", built / "yes.txt", "--negative", built / "no.txt")


@pytest.fixture(scope="module")
def report(built):
    dictionary = ex.load(built / "d")
    concept = read_concept(built / "yes.txt", built / "no.txt")
    model = ex.load_model(str(built / "model"))
    rows = read_text_rows(model, "resid_post.1", concept.texts(), tokenization_of(dictionary))
    found = detect_concepts(dictionary, rows, [concept], rows.vectors, k=2, null_seeds=2)
    return dictionary, found


def test_two_files_give_a_table_and_the_card_of_the_region(run, built, files, tmp_path):
    status, said, err = run(built / "d", *files, *FEW, "--figure", tmp_path / "f.svg")
    assert status == 0, err
    lines = said.splitlines()
    assert lines[0] == "yes: trained on 10 positive and 10 negative texts, tested on 10 and 10"
    for method in (
        *("region mean", "exemplar, contrast", "random rows, 2 anchored", "k-means centroid"),
        *("logistic probe, tokens", "difference of means"),
    ):
        assert any(line.startswith(method) for line in lines)
    assert "the region whose mean detects it" in said
    assert "neighbours" in said
    assert lines[-1].startswith("The null and k-means are of ")
    assert "rows of the training texts" in lines[-1]
    assert (tmp_path / "f.svg").read_text().count("<svg") == 1
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"


def test_the_stream_of_the_null_can_be_given(run, built, files):
    status, said, err = run(built / "d", *files, *FEW, "--text", built / "corpus", "--json")
    assert status == 0, err
    assert "of the dictionary's stream" in json.loads(said)["notes"][0]


def test_the_command_says_what_the_library_finds(run, built, files, report):
    _, found = report
    status, said, err = run(built / "d", *files, "--seeds", "2", "--k", "2", "--json")
    assert status == 0, err
    result = json.loads(said)
    mean = found.mean("region mean")
    assert result["methods"]["region mean"]["cosine"]["auroc"] == {
        "estimate": mean.estimate, "low": mean.low, "high": mean.high,
    }  # fmt: skip
    region = found.detections["region mean"][0].detectors[0].regions[0]
    assert result["concepts"][0]["card"]["region"] == region
    assert result["methods"]["random rows"]["seeds"] == 2
    assert result["methods"]["random rows"]["cosine"]["less_null"] is None


STAGES = (
    *("texts", "rows of the stream", "choosing directions", "fitting probes"), "testing detectors",
)  # fmt: skip


def test_every_stage_is_shown_on_stderr_alone(run, built, files):
    status, said, err = run(built / "d", *files, *FEW, "--text", built / "corpus", "--json")
    assert status == 0, err
    json.loads(said)
    shown = [err.index(f"{stage}: ") for stage in STAGES]
    assert shown == sorted(shown)
    for stage in STAGES:
        assert f"{stage}: 100%" in err or stage == "rows of the stream"  # the corpus has few


@pytest.mark.parametrize("stage", STAGES)
def test_ctrl_c_ends_it_with_one_sentence(run, built, files, monkeypatch, stage):
    from tqdm import tqdm

    update = tqdm.update

    def interrupting(bar, n=1):
        if bar.desc == stage:
            signal.raise_signal(signal.SIGINT)
        return update(bar, n)

    monkeypatch.setattr(tqdm, "update", interrupting)
    status, said, err = run(built / "d", *files, *FEW, "--text", built / "corpus")
    assert (status, said) == (130, "")
    assert "Traceback" not in err
    assert err.rstrip().split("\n")[-1] == "interrupted; nothing was written"


def test_an_axbench_folder_gives_a_line_for_each_concept(run, built, tmp_path):
    train, test = [], []
    for k in range(8):
        train.append({"output": document(200 + k), "category": "negative", "concept_id": -1})
        for concept in (0, 1):
            about = {"concept_id": concept, "output_concept": f"c\x1b[31m{concept}"}
            seed = 10 * concept + k
            words = document(300 + seed, True)
            train.append({"output": words, "category": "positive", **about})
            test.append({"output": document(400 + seed, True), "category": "positive", **about})
            test.append({"output": document(500 + seed), "category": "negative", **about})
    test.append({"output": document(600), "category": "hard negative", **about})
    write(tmp_path / "train_data.parquet", train)
    write(tmp_path / "latent_eval_data.parquet", test)
    status, said, err = run(built / "d", "--axbench", tmp_path, *FEW)
    assert status == 0, err
    assert said.startswith("2 concepts\n")
    assert "\x1b" not in said
    assert "c␛[31m0" in said


def test_texts_without_a_row_are_left_out_and_counted(run, built, tmp_path):
    lines = (built / "yes.txt").read_text(encoding="utf-8").splitlines()
    short = [*lines, "a"]
    (tmp_path / "yes.txt").write_text("\n".join(short), encoding="utf-8")
    model = ex.load_model(str(built / "model"))
    rows = read_text_rows(model, "resid_post.1", ["a"])
    words = ("--positive", tmp_path / "yes.txt", "--negative", built / "no.txt")
    status, said, err = run(built / "d", *words, *FEW)
    assert status == 0, err
    assert ("1 texts have no row, and were left out" in said) == (len(rows.vectors) == 0)


def test_wrong_arguments_are_one_sentence(run, built, files, tmp_path):
    empty = tmp_path / "empty.txt"
    empty.write_text("\n \n")
    few = tmp_path / "few.txt"
    few.write_text("one\ntwo\n")
    lines = tmp_path / "lines.jsonl"
    lines.write_text('{"body": "x"}\n')
    yes = built / "yes.txt"
    for words, sentence in (
        ((), "one class alone was given; give both"),
        (("--positive", yes), "one class alone was given"),
        (("--positive", yes, "--negative", empty), "holds no text; give a file"),
        (("--positive", yes, "--negative", few), "holds 2 texts, expected at least 4"),
        (("--positive", yes, "--negative", yes), "give each text once"),
        (("--positive", yes, "--negative", tmp_path / "x.txt"), "there is no file"),
        (("--positive", yes, "--negative", lines), "has no column 'text'"),
        ((*files, "--axbench", tmp_path), "--axbench was given with other texts"),
        ((*files, "--test-positive", yes), "test texts of one class alone"),
        ((*files, "--test-share", "1.5"), "test_share is 1.5"),
        (("--axbench", tmp_path), "give a folder of AxBench's Parquet files"),
    ):
        status, said, err = run(built / "d", *words)
        assert (status, said) == (2, ""), words
        assert err.splitlines()[-1].startswith("error: ")
        assert sentence in err.splitlines()[-1], err


def test_a_dictionary_of_one_region_is_refused_before_a_model_is_loaded(
    run, files, tmp_path, monkeypatch
):
    vectors = np.random.default_rng(0).normal(size=(64, 8)).astype(np.float32) + 9
    calibration = ex.calibrate(vectors, percentiles=[50])
    wide = replace(calibration, thresholds={50.0: 2.0})
    ex.save(ex.partition(vectors, wide, percentile=50), tmp_path / "one")
    monkeypatch.setattr(ex, "load_model", lambda *_, **__: pytest.fail("a model was loaded"))
    status, _, err = run(tmp_path / "one", *files)
    assert status == 2
    assert "has 1 region, so there is nothing to choose among" in err


def test_the_text_agrees_with_the_summary(report):
    dictionary, found = report
    said = concepts_text(found, dictionary)
    summary = concepts_summary(found, dictionary)
    for method, about in summary["methods"].items():
        line = next(line for line in said.splitlines() if line.startswith(method + "  "))
        assert f"{about['cosine']['auroc'].estimate:.3f}" in line
        assert f"{about['validation_auroc']:.3f}" in line
    null = found.difference("region mean, 2 anchored", "random rows, 2 anchored")
    assert summary["methods"]["region mean, 2 anchored"]["cosine"]["less_null"] == null


def test_the_figure_has_a_line_for_each_method(report):
    _, found = report
    axes = concepts_figure(found).axes[0]
    names = [label.get_text() for label in axes.get_yticklabels()]
    assert sorted(names) == sorted(found.detections)
    means = [found.mean(name).estimate for name in names]
    assert means == sorted(means)


def test_the_figure_of_a_result_is_the_same_bytes(report, tmp_path):
    from exemplars.figures import save_figure

    _, found = report
    one, two = (save_figure(concepts_figure(found), Path(tmp_path / name)) for name in "ab")
    assert one[0].read_bytes() == two[0].read_bytes()
