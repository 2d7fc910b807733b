"""`exemplars resolution`: several folders in, a sentence, tables, JSON and a figure out."""

import json
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import exemplars as ex
from exemplars import store
from exemplars.analyses.relatives import relatives_everywhere
from exemplars.analyses.resolution import coarse_to_fine, compare_resolutions
from exemplars.lens import lens_table
from exemplars.report.resolution import paths_text, relatives_text, resolution_text
from labelled_build import document, labelled_build, write
from resolutions import noise

WIDTH = 32


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with model, corpus, labels.jsonl, and `all`: three dictionaries of one pass."""
    folder = labelled_build(tmp_path_factory.mktemp("resolution"))
    model = ex.load_model(str(folder / "model"))
    found = ex.build(
        model, "resid_post.1", ex.texts(folder / "corpus"), [20, 8, 2.5], rows=None,
        out=folder / "all", batch_tokens=128, window_tokens=256, block_rows=128,
        tokenization=ex.Tokenization(context_length=64),
    )  # fmt: skip
    store.save_lens(
        folder / "all" / "resid_post.1-p8", lens_table(model, found["resid_post.1", 8.0])
    )
    ex.extract(
        model, "resid_post.1", ex.texts(folder / "corpus"), folder / "kept",
        tokenization=ex.Tokenization(context_length=64),
    )  # fmt: skip
    rows = [
        {"text": document(200 + k, k % 2 == 0), "marker": str(k % 2), "coin": "ab"[k // 2 % 2]}
        for k in range(40)
    ]
    write(folder / "two.jsonl", rows)
    return folder


@pytest.fixture
def run(run):
    return partial(run, "resolution")


def folders(built):
    return [built / "all" / f"resid_post.1-p{p}" for p in ("20", "8", "2.5")]


def test_a_build_of_several_is_compared_without_any_text(run, built):
    status, said, err = run(built / "all")
    assert status == 0, err
    assert said.startswith("From p = 20 to p = 2.5 the ")
    assert "It cannot conclude what the" in said
    assert run(*folders(built))[1] == said
    assert run(*reversed(folders(built)))[1] == said


def test_rows_of_text_and_kept_ones_give_the_same(run, built):
    status, said, err = run(built / "all", "--activations", built / "kept", "--rows", 300)
    assert status == 0, err
    assert "the previous token of" in said.split("\n\n")[0]
    assert "300 rows, documents: " in said
    assert "divided most from p = 8 to p = 2.5" in said
    status, said, err = run(built / "all", "--text", built / "corpus", "--rows", 0, "--json")
    assert status == 0, err
    found = json.loads(said)["resolutions"]
    assert [level["percentile"] for level in found["levels"]] == [20, 8, 2.5]
    assert len(found["steps"]) == 2
    assert found["documents"] == 30
    assert set(found["steps"][0]["nested"]["nulls"]) == {"permuted rows", "random rows"}


def test_a_region_has_relatives_at_the_other_resolutions(run, built):
    status, said, err = run(*folders(built)[1:], folders(built)[0], "--region", 3)
    assert status == 0, err
    assert said.startswith("Region 3 at p = 8 (")  # of the first folder
    assert "coarser, p = 20" in said
    assert "finer, p = 2.5" in said
    assert "by kept members" in said
    status, said, err = run(built / "all", "--region", 3, "--at", 8, "--json")
    dictionaries = coarse_to_fine([ex.load(folder) for folder in folders(built)])
    expected = relatives_everywhere(dictionaries, dictionaries[1], 3)
    found = json.loads(said)["relatives"]
    assert (found["percentile"], found["region"]) == (8, 3)
    assert [o["rows"] for o in found["others"]] == [one.rows for one in expected]
    regions = [[r["region"] for r in o["relatives"]] for o in found["others"]]
    assert regions == [[r.region for r in one.relatives] for one in expected]
    status, said, err = run(built / "all", "--region", 3, "--activations", built / "kept")
    assert status == 0, err
    assert "by rows" in said


def test_a_path_is_decoded_at_each_resolution(run, built):
    status, said, err = run(built / "all", "--path", 0, 5, "--at", 8)
    assert status == 0, err
    assert said.startswith("Between regions 0 and 5 (p = 8) the path has ")
    assert said.count("\np = ") == 3
    words = ex.load(folders(built)[1]).region(0).contexts
    exemplar = next(c for c in words if c.exemplar)
    assert f"»{exemplar.text}«" in said
    lens = store.load_lens(folders(built)[1])["exemplar_promoted"][0].as_py()
    assert f"‹{lens[0]}›" in said
    status, said, err = run(
        built / "all", "--path", 0, 5, "--at", 8, "--weighted", "--basis", "mean", "--neighbours",
        2, "--activations", built / "kept", "--json",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(said)["paths"]
    assert (found["weighted"], found["basis"], found["neighbours"]) == (True, "mean", 2)
    assert any("random rows" in path["nulls"] for path in found["paths"])


def test_labels_are_told_apart_by_dictionaries_or_by_partitions_of_the_texts(run, built):
    labels = ("--labels", built / "two.jsonl", "--label-column", "marker", "--label-column", "coin")
    status, said, err = run(folders(built)[2], *labels, "--seeds", 2)
    assert status == 0, err
    first, second = said.splitlines()[:2]
    assert first.startswith("marker appears at ")
    assert second.startswith("coin appears at ")
    assert "40 texts, 40 rows, the dictionaries' regions; 2 halvings" in said
    status, said, err = run(
        folders(built)[2], *labels, "-p", 30, "-p", 10, "--within", "marker", "--every-row",
        "--json",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(said)["distinctions"]
    assert (found["own"], found["percentiles"], found["within"]) == (True, [30, 10], "marker")
    assert found["rows"] > found["texts"] == 40
    assert found["ladder"] is None


@pytest.mark.parametrize(
    "asked",
    [
        (),
        ("--activations", "kept"),
        ("--region", 3),
        ("--region", 3, "--activations", "kept"),
        ("--path", 0, 5, "--at", 8),
        ("--labels", "two.jsonl", "--label-column", "marker", "--seeds", 1),
    ],
)
def test_each_question_has_a_figure(run, built, tmp_path, asked):
    words = [built / w if w in ("kept", "two.jsonl") else w for w in asked]
    status, _, err = run(built / "all", *words, "--figure", tmp_path / "f.png")
    assert status == 0, err
    assert (tmp_path / "f.svg").read_text().count("<svg") == 1
    assert (tmp_path / "f.png").read_bytes()[1:4] == b"PNG"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{d}"], "dictionaries given: 1, expected 2 or more"),
        (["{d}", "{d}"], "dictionaries given: 1"),
        (["{all}", "--region", 9999], "region 9999 does not exist"),
        (["{all}", "--path", 1, 1], "a path from region 1 to itself"),
        (["{all}", "--region", 0, "--at", 3], "--at is 3, and the dictionaries are at p = 20, 8"),
        (["{all}", "--text", "{corpus}", "--activations", "{kept}"], "both given"),
        (["{all}", "-p", 3], "--percentile was given without --labels"),
        (["{all}", "--labels", "{l}", "--text", "{corpus}"], "--labels has texts of its own"),
        (["{all}", "--labels", "{l}", "--label-column", "hue"], "no column 'hue'"),
        (["{all}", "--labels", "{l}", "--within", "hue"], "there is no label 'hue'"),
        (["{all}", "--path", 0, 1, "--region", 0, "--figure", "f"], "--figure was given with"),
        (["{corpus}"], "corpus"),
    ],
)
def test_a_mistake_is_one_sentence(run, built, words, message):
    named = {name: built / name for name in ("d", "all", "corpus", "kept")}
    named["l"] = built / "labels.jsonl"
    given = [w.format(**named) if isinstance(w, str) else w for w in words]
    status, said, err = run(*given)
    assert (status, said) == (2, "")
    last = err.rstrip().split("\n")[-1]
    assert last.startswith("error: ")
    assert message in last


@pytest.mark.parametrize("stage", ["rows", "dictionaries"])
def test_ctrl_c_ends_it_with_one_sentence(run, built, monkeypatch, stage):
    from tqdm import tqdm

    update = tqdm.update

    def interrupting(bar, n=1):
        if bar.desc == stage:
            signal.raise_signal(signal.SIGINT)
        return update(bar, n)

    monkeypatch.setattr(tqdm, "update", interrupting)
    status, said, err = run(built / "all", "--activations", built / "kept")
    assert (status, said) == (130, "")
    assert "Traceback" not in err
    assert err.rstrip().split("\n")[-1] == "interrupted; nothing was written"


def test_words_from_texts_cannot_write_to_the_terminal(tmp_path):
    """Contexts hold what documents held."""
    import pyarrow as pa

    from exemplars.analyses.paths import region_paths
    from exemplars.contexts import TableContexts

    vectors = noise(300, width=WIDTH)
    calibration = ex.calibrate(vectors, [20.0, 5.0])
    hostile = "\x1b[31m\u202e\n"
    found = []
    for p in (20.0, 5.0):
        made = ex.partition(vectors, calibration, p)
        table = made.contexts.table()
        for name, value in (("text", hostile), ("before", hostile), ("document", 3)):
            column = pa.array([value] * len(table), table.schema.field(name).type)
            table = table.set_column(table.schema.get_field_index(name), name, column)
        found.append(replace(made, contexts=TableContexts(table)))
    said = [
        resolution_text(compare_resolutions(found), found),
        relatives_text(found[0], 0, relatives_everywhere(found, found[0], 0), found),
        paths_text(region_paths(found, found[0], 0, 1, pairs=3)),
    ]
    for text in said:
        assert "\x1b" not in text
        assert "\u202e" not in text
    assert "␛[31m" in said[1]
    assert np.isfinite(len(said[2]))
