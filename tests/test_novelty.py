"""Whether texts are unlike a dictionary's: reading, scores, sets, and the command."""

import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest

import exemplars as ex
from conftest import make_tokenizer
from exemplars import corpora
from exemplars.analyses.conformal import LEAST_DOCUMENTS
from exemplars.analyses.novelty import like_lengths, novelty
from exemplars.analyses.passages import PassageReader, ScoredDocument, read_some, unread_texts
from exemplars.errors import SourceError
from exemplars.report.novelty import answer, novelty_figure, novelty_text
from tiny_models import tiny_module

WORDS = ("the ", "other ", "tin ", "around ", "an ", "heron ", "out ")
STRANGE = ("QZ ", "XJ~ ", "%%& ", "ÿþ ", "7_8 ")
SETTINGS = {
    "batch_tokens": 256, "window_tokens": 1024, "block_rows": 128,
    "tokenization": ex.Tokenization(context_length=24),
}  # fmt: skip


def text(seed, words=WORDS, n=30):
    return "".join(np.random.default_rng(seed).choice(words, n))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """A folder with a model, a corpus, and dictionaries: held (out), whole, and some (rows)."""
    folder = tmp_path_factory.mktemp("novelty")
    tiny_module().save_pretrained(folder / "model")
    make_tokenizer("bos").save_pretrained(folder / "model")
    corpus = folder / "corpus"
    corpus.mkdir()
    for k in range(120):
        (corpus / f"{k:03}.txt").write_text(text(k), encoding="utf-8")
    model, texts = ex.load_model(str(folder / "model")), ex.texts(corpus)
    kept, _ = texts.hold_out(0.4)
    for name, source, options in (
        ("held", kept, {"rows": None}),
        ("whole", texts, {"rows": None}),
        ("some", texts, {"rows": 2000}),
        ("mixed", texts, {"rows": 2000, "seed": 3}),
    ):
        ex.build(model, "resid_post.1", source, 2, out=folder / name, **options, **SETTINGS)
    for name, words, n in (("alike", WORDS, 20), ("strange", STRANGE, 20)):
        (folder / name).mkdir()
        for k in range(n):
            content = text(1000 + k, words)
            (folder / name / f"{k:02}.txt").write_text(content, encoding="utf-8")
    return folder


def unread(built, dictionary):
    return unread_texts(dictionary, ex.texts(built / "corpus"))


@pytest.fixture(scope="module")
def model(built):
    return ex.load_model(str(built / "model"))


@pytest.fixture(scope="module")
def dictionary(built):
    return ex.load(built / "held")


@pytest.fixture(scope="module")
def reader(dictionary, model):
    return PassageReader(dictionary, model, "standard")


@pytest.fixture(scope="module")
def reports(built, dictionary, model):
    usual, source, notes = unread(built, dictionary)
    return {
        name: novelty(dictionary, model, ex.texts(built / name), usual, source=source, notes=notes)
        for name in ("alike", "strange")
    }


def test_rows_are_those_of_a_trace(dictionary, model, reader):
    texts = ex.texts([text(7, WORDS + STRANGE, n) for n in (0, 40, 3, 90)])
    found = list(reader.read(texts))
    assert [d.number for d in found] == [0, 1, 2, 3]
    traces = {t.document: t for t in ex.trace(dictionary, model, texts)}
    for document in found:
        if not len(document):
            assert document.number not in traces
            continue
        trace = traces[document.number]
        kept = ~trace.norm_outlier & (trace.region >= 0)
        assert document.place.tolist() == np.flatnonzero(kept).tolist()
        assert document.region.tolist() == trace.region[kept].tolist()
        assert document.distance == pytest.approx(trace.distance[kept], abs=1e-5)


def test_a_document_has_the_same_scores_alone_and_among_others(reader):
    contents = [text(k, n=10 + 7 * (k % 5)) for k in range(20)]
    together = list(reader.read(ex.texts(contents)))
    for k in (0, 17, 19):
        (alone,) = reader.read(ex.texts([contents[k]]))
        assert alone.region.tolist() == together[k].region.tolist()
        assert alone.score == pytest.approx(together[k].score, abs=1e-4)


def test_rows_that_a_build_drops_are_left_out_and_counted(dictionary, model, reader):
    strict = replace(dictionary.calibration, norm_limit=dictionary.calibration.vector_norms[1])
    some = PassageReader(replace(dictionary, calibration=strict), model, "standard")
    texts = ex.texts([text(k) for k in range(5)])
    kept, whole = list(some.read(texts)), list(reader.read(texts))
    assert some.dropped == sum(map(len, whole)) - sum(map(len, kept)) > 20
    for part, every in zip(kept, whole, strict=True):
        assert part.region.tolist() == every.region[part.place].tolist()


def test_some_documents_share_the_rows(reader):
    contents = [text(k, n=120) for k in range(12)]
    found = list(read_some(reader, ex.texts(contents), 12 * 2 * reader.rows))
    assert sorted(d.number for d in found) == list(range(12))
    assert {len(d) for d in found} == {2 * reader.rows}
    few = list(read_some(reader, ex.texts(contents), reader.rows // 2))
    assert [len(d) for d in few] == [reader.rows]
    again = list(read_some(reader, ex.texts(contents), 12 * 2 * reader.rows))
    assert [d.number for d in again] == [d.number for d in found]
    assert all(np.array_equal(a.score, b.score) for a, b in zip(found, again, strict=True))


def test_what_a_build_held_out_is_found_again(built, dictionary):
    usual, source, notes = unread(built, dictionary)
    kept, held = ex.texts(built / "corpus").hold_out(0.4)
    assert [d.name for d in usual] == [d.name for d in held]
    assert not {d.name for d in usual} & {d.name for d in kept}
    assert "held out" in source
    assert notes == ()


def test_only_the_last_of_two_slices_is_turned_round():
    texts = ex.texts([str(k) for k in range(200)])
    kept, _ = texts.hold_out(0.3)
    kept, held = kept.hold_out(0.5)
    description = kept.shuffled(1).describe()
    assert corpora.held_out_slice(texts.describe()) is None
    view = [dict(step) for step in description["view"]]
    assert [step.get("part") for step in view] == ["kept", "kept", None]
    with pytest.raises(SourceError):  # a list of texts cannot be opened again
        corpora.held_out_slice(description)
    assert len(held) + len(kept) < 200


def test_documents_that_a_build_did_not_come_to_are_found(built):
    for name in ("some", "mixed"):
        dictionary = ex.load(built / name)
        read = set(dictionary.growth["document"].to_pylist())
        rest, source, notes = unread(built, dictionary)
        numbers = [d.number for d in rest]
        assert not read & set(numbers)
        assert len(read) + len(numbers) == 120
        assert "did not come to" in source
        assert bool(notes) == (name == "some")


def test_a_build_that_read_all_leaves_none(built, dictionary):
    texts, why, _ = unread(built, ex.load(built / "whole"))
    assert texts is None
    assert "held none out" in why
    texts, why, _ = unread_texts(replace(dictionary, provenance={}))
    assert texts is None
    assert "does not say" in why


def test_texts_that_have_changed_since_are_not_taken(built, dictionary):
    about = {**dictionary.provenance["texts"], "sha256": "0" * 64}
    changed = replace(dictionary, provenance={**dictionary.provenance, "texts": about})
    with pytest.raises(SourceError, match="have changed"):
        unread(built, changed)


def test_texts_that_lie_elsewhere_are_not_guessed_at(dictionary, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts, why, _ = unread_texts(dictionary)
    assert texts is None
    assert "corpus are not here" in why


def test_strange_texts_are_found_unlike_and_ordinary_ones_are_not(reports):
    strange, alike = reports["strange"], reports["alike"]
    assert strange.verdict == "unlike"
    assert strange.flagged == 20
    assert alike.verdict == "alike"
    assert alike.flagged < 5
    assert strange.mean("distance") > alike.mean("distance")
    assert strange.mean("within_threshold") < alike.mean("within_threshold")
    for report in (strange, alike):
        assert report.usual.documents >= LEAST_DOCUMENTS
        assert all(report.usual.least_p <= d.p <= 1 for d in report.documents)
        assert [t.statistic for t in report.tests] == ["mean score", "region histogram"]


def test_the_most_unusual_tokens_are_the_strange_ones(built, dictionary, model):
    mixed = ex.texts([text(3), text(1, STRANGE), text(4)])
    usual, source, _ = unread(built, dictionary)
    report = novelty(dictionary, model, mixed, usual, source=source, n_tokens=2, score="distance")
    assert [t.document for t in report.tokens] == [1, 1]
    first = report.tokens[0]
    assert (first.before + first.text + first.after) in text(1, STRANGE)
    assert first.score == max(t.score for t in report.tokens)
    assert first.p == pytest.approx(report.usual.least_p, abs=0.02)


def test_without_calibration_there_are_scores_and_no_p_values(built, model):
    whole = ex.load(built / "whole")
    usual, why, notes = unread(built, whole)
    report = novelty(whole, model, ex.texts(built / "strange"), usual, source=why, notes=notes)
    assert report.verdict == "unknown"
    assert np.isnan(report.p)
    assert report.tests == ()
    assert all(np.isnan(d.p) and np.isfinite(d.score) for d in report.documents)
    said = answer(report)
    assert said.startswith("Whether these 20 texts are unlike what the dictionary has seen cannot")
    assert "held none out" in said
    assert "not calibrated" in novelty_text(report)
    novelty_figure(report)


def test_too_few_calibration_documents_are_said_to_be_too_few(dictionary, model):
    few = ex.texts([text(k, n=300) for k in range(LEAST_DOCUMENTS - 1)])
    report = novelty(dictionary, model, ex.texts([text(5)]), few)
    assert report.verdict == "unknown"
    assert "18 documents" in answer(report)
    assert report.usual.documents == 18


def test_what_no_p_value_could_show_is_not_called_alike(dictionary, model):
    """Twice the smallest p-value of 28 documents is .069: a set cannot be unlike at .05."""
    few = ex.texts([text(k, n=300) for k in range(28)])
    strange = ex.texts([text(5, STRANGE)])
    report = novelty(dictionary, model, strange, few)
    assert report.p == pytest.approx(2 / 29)
    assert report.verdict == "unknown"
    assert "cannot be said: 28 calibration documents give" in answer(report)
    assert novelty(dictionary, model, strange, few, level=0.1).verdict == "unlike"


def test_one_text_is_a_set_of_its_own(built, dictionary, model):
    usual, source, _ = unread(built, dictionary)
    report = novelty(dictionary, model, ex.texts([text(1, STRANGE)]), usual, source=source)
    assert report.documents[0].p == report.usual.least_p
    assert report.p == pytest.approx(2 * report.usual.least_p)
    assert answer(report).startswith("This text is unlike")


def test_reports_are_the_same_each_time(built, dictionary, model):
    usual, source, _ = unread(built, dictionary)
    one, other = (
        novelty(dictionary, model, ex.texts(built / "alike"), usual, source=source, seed=4)
        for _ in range(2)
    )
    assert one.documents == other.documents
    assert one.tests == other.tests
    assert one.tokens == other.tokens


def test_lengths_do_not_tell_the_two_kinds_apart():
    def document(number, n):
        return ScoredDocument(
            number, "", np.arange(n), np.zeros(n, np.int64), np.zeros(n, np.float32), np.zeros(n)
        )

    asked = [document(k, n) for k, n in enumerate((3, 12, 30))]
    known = [document(k, n) for k, n in enumerate((40, 40, 40, 8, 2))]
    found = like_lengths(asked, known, 5, 0)
    assert sorted(len(d) for d in found[:3]) == [3, 12, 30]
    assert all(d.place[0] % 5 == 0 for d in found)
    assert all(len(d) >= 3 or d.number == 4 for d in found)


def test_hostile_and_empty_texts(built, dictionary, model):
    usual, source, _ = unread(built, dictionary)
    texts = ex.texts(["", "\u202e\x00\x1b[31m ﷽ 🌊‍🔥" * 3, " "])
    report = novelty(dictionary, model, texts, usual, source=source)
    assert report.empty >= 1
    said = novelty_text(report)
    assert "\x1b" not in said
    assert "\u202e" not in said
    with pytest.raises(SourceError, match="no rows"):
        novelty(dictionary, model, ex.texts(["", ""]), usual)


def test_bad_arguments_are_refused(built, dictionary, model):
    texts = ex.texts(built / "alike")
    with pytest.raises(ValueError, match="expected a share"):
        novelty(dictionary, model, texts, level=1.0)
    with pytest.raises(ValueError, match="are the texts asked about"):
        novelty(dictionary, model, texts, ex.texts(built / "alike"))
    with pytest.raises(ValueError, match="there is no score 'odd'"):
        novelty(dictionary, model, texts, score="odd")
    with pytest.raises(ValueError, match="which site"):
        novelty(replace(dictionary, provenance={}), model, texts)


def test_not_a_number_in_the_model_is_an_error(built, dictionary):
    broken = ex.load_model(str(built / "model"))
    broken.module.model.layers[1].mlp.down_proj.weight.data[:] = float("nan")
    with pytest.raises(ex.ActivationError, match="not finite"):
        novelty(dictionary, broken, ex.texts(built / "alike"))


@pytest.fixture
def ask(run):
    return partial(run, "novelty")


def test_the_command_answers_first(ask, built, tmp_path):
    status, said, err = ask(
        built / "held",
        "--text",
        built / "strange",
        "--figure",
        tmp_path / "f.svg",
        "--built-from",
        built / "corpus",
    )
    assert status == 0, err
    lines = said.splitlines()
    assert lines[0].startswith("These 20 texts are unlike what the dictionary has seen (p = ")
    assert "the slice that the build held out" in said
    assert "Most unusual tokens" in said
    assert any(line.startswith("region histogram") for line in lines)
    assert (tmp_path / "f.svg").exists()
    assert (tmp_path / "f.png").exists()


def test_the_command_gives_json(ask, built):
    status, said, err = ask(
        built / "whole", "--text", built / "alike", "--calibration", built / "corpus", "--json",
        "--calibration-rows", "2000", "--tokens", "3", "--score", "joint",
    )  # fmt: skip
    assert status == 0, err
    found = json.loads(said)
    assert len(found["documents"]) == 20
    assert found["verdict"] in found["answer"] or found["verdict"] == "alike"
    assert found["flagged"] == sum(d["p"] <= 0.05 for d in found["documents"])
    assert len(found["tokens"]) == 3
    assert found["score"] == "joint"
    assert found["usual"]["source"] == "documents given with --calibration"
    assert 0 < found["p"] <= 1


def test_the_command_says_what_it_cannot(ask, built):
    place = ("--built-from", built / "corpus")
    status, said, err = ask(built / "some", "--text", built / "alike", *place)
    assert status == 0, err
    assert "What cannot be concluded" in said
    assert "the calibration is of later ones" in said
    status, said, err = ask(built / "whole", "--text", built / "alike", "--json", *place)
    assert status == 0, err
    assert json.loads(said)["p"] is None


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("held", "--text", "nowhere/"), "nowhere"),
        (("nowhere", "--text", "alike"), "nowhere"),
        (("held", "--text", "alike", "--score", "odd"), "no score 'odd'"),
        (("held", "--text", "alike", "--calibration", "alike"), "are the texts asked about"),
        (("held", "--text", "alike", "--built-from", "strange"), "have changed"),
        (
            ("held", "--text", "alike", "--built-from", "corpus", "--calibration", "alike"),
            "one or the other",
        ),
    ],
)
def test_errors_are_a_sentence(ask, built, arguments, expected):
    given = [built / a if (built / a).exists() else a for a in arguments]
    status, said, err = ask(*given)
    assert status == 2
    assert said == ""
    assert expected in err
    assert "Traceback" not in err
