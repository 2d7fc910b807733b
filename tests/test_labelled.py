"""Labelled texts: what is read from files, how it is parted, and whose activations are whose."""

import json
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

import exemplars as ex
from builds import TOKENIZATION, documents
from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.analyses import labelled
from exemplars.analyses.labelled import (
    SPLITS,
    Concept,
    check_rows,
    read_axbench,
    read_concept,
    read_text_rows,
    without_empty,
)
from exemplars.errors import SourceError
from tiny_models import WIDTH, tiny_model

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


# AxBench's folders


def axbench_rows(*rows, asked="asked"):
    keys = ("output", "category", "concept_id", "output_concept", "input")
    return [dict(zip(keys, (*row, f"{asked} {k}"), strict=True)) for k, row in enumerate(rows)]


TRAIN = axbench_rows(
    ("in 0 a", "positive", 0, "salt"),
    ("in 1 a", "positive", 1, "sea"),
    ("in 0 b", "positive", 0, "salt"),
    ("in 0 a", "positive", 0, "salt"),  # twice
    ("shared", "negative", -1, "EEEEE"),
    ("", "negative", -1, "EEEEE"),  # no text
    ("shared too", "negative", -1, "EEEEE"),
    ("own", "negative", 1, "sea"),  # AxBench trains on none of these
    ("in 7", "positive", 7, "no test"),
)
TEST = axbench_rows(
    ("test 0 not", "negative", 0, "other"),
    ("test 0", "positive", 0, "salt"),
    ("test 0 hard", "hard negative", 0, "pepper"),
    ("test 1", "positive", 1, None),
    ("test 1 not", "negative", 1, "other"),
    ("test 9", "positive", 9, "no training"),
    asked="asked to test",
)


def write_axbench(folder, train=TRAIN, test=TEST):
    for name, rows in (("train_data", train), ("latent_eval_data", test)):
        parquet.write_table(pa.Table.from_pylist(rows), folder / f"{name}.parquet")
    return folder


def test_an_axbench_folder_gives_each_concept_its_texts(tmp_path):
    shared = ("shared", "shared too")
    assert read_axbench(write_axbench(tmp_path)) == [
        Concept("salt", ("in 0 a", "in 0 b"), shared, ("test 0",), ("test 0 not",),
                ("test 0 hard",)),
        Concept("concept 1", ("in 1 a",), shared, ("test 1",), ("test 1 not",)),
    ]  # fmt: skip
    asked = read_axbench(tmp_path, column="input")
    assert asked[0].positive == ("asked 0", "asked 2", "asked 3")


@pytest.mark.parametrize("category", ["positive", "negative", "hard negative"])
def test_no_text_of_an_axbench_concept_is_in_both_parts(tmp_path, category):
    before = read_axbench(write_axbench(tmp_path))
    assert [concept.left_out for concept in before] == [0, 0]
    both = axbench_rows(*((text, category, 0, "salt") for text in ("in 0 b", "shared", "in 1 a")))
    first, second = read_axbench(write_axbench(tmp_path, test=[*TEST, *both]))
    assert (first.positive, first.negative) == (("in 0 a",), ("shared too",))
    held = {*first.test_positive, *first.test_negative, *first.test_hard_negative}
    assert {"in 0 b", "shared", "in 1 a"} <= held
    assert first.left_out == 2
    assert second == before[1]  # another concept's test texts are none of its own


def test_a_concept_lists_each_of_its_texts_once():
    concept = Concept("c", ("a", "b"), ("c",), ("d",), ("c", "e"), ("f", "a"))
    assert concept.texts() == ["a", "b", "c", "d", "e", "f"]


def test_what_an_axbench_folder_lacks_is_named(tmp_path):
    with pytest.raises(SourceError, match=r"no file .*train_data\.parquet"):
        read_axbench(tmp_path)
    write_axbench(tmp_path)
    with pytest.raises(SourceError, match=r"no column 'prompt'; it has output, category"):
        read_axbench(tmp_path, column="prompt")
    (tmp_path / "latent_eval_data.parquet").write_bytes(b"PAR1 is how it began")
    with pytest.raises(SourceError, match=r"latent_eval_data\.parquet is not a Parquet file"):
        read_axbench(tmp_path)
    (tmp_path / "latent_eval_data.parquet").unlink()
    with pytest.raises(SourceError, match=r"no file .*latent_eval_data\.parquet"):
        read_axbench(tmp_path)


# Files of one concept


def names(prefix, n):
    return [f"{prefix} {k}" for k in range(n)]


def write_as(folder, name, texts, kind):
    """A file or folder that holds the texts, in one of the forms that are read."""
    path = folder / f"{name}.{kind}"
    if kind in ("txt", "md"):
        path.write_text("\n\n".join(texts) + "\n  \n")
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif kind == "parquet":
        parquet.write_table(pa.table({"text": texts}), path)
    else:
        path.mkdir()
        for k, text in enumerate(texts):
            (path / f"{k:02}.txt").write_text(text + "\n")
    return path


@pytest.mark.parametrize("kind", ["txt", "md", "jsonl", "parquet", "folder"])
def test_every_form_of_file_gives_the_same_concept(tmp_path, kind):
    texts = {key: names(key, 4 + k) for k, key in enumerate(("yes", "no", "test yes", "test no"))}
    paths = [write_as(tmp_path, key, value, kind) for key, value in texts.items()]
    found = read_concept(*paths)
    assert found == Concept("yes", *(tuple(value) for value in texts.values()))
    assert read_concept(*map(str, paths), name="said") == replace(found, name="said")


def test_a_named_column_is_read(tmp_path):
    for name in ("a", "b"):
        lines = [json.dumps({"body": text, "text": 3}) for text in names(name, 4)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    found = read_concept(tmp_path / "a.jsonl", tmp_path / "b.jsonl", column="body")
    assert {*found.positive, *found.test_positive} == set(names("a", 4))
    with pytest.raises(SourceError, match="no column 'title'"):
        read_concept(tmp_path / "a.jsonl", tmp_path / "b.jsonl", column="title")


@pytest.mark.parametrize("n", [4, 5, 11])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.5, 0.99])
def test_two_files_are_halved_without_overlap_or_loss(tmp_path, n, share):
    yes, no = names("yes", n), names("no", 2 * n)
    paths = [write_as(tmp_path, key, texts, "txt") for key, texts in (("yes", yes), ("no", no))]
    found = read_concept(*paths, test_share=share, seed=3)
    for texts, train, test in (
        (yes, found.positive, found.test_positive),
        (no, found.negative, found.test_negative),
    ):
        assert sorted(train + test) == sorted(texts)
        assert not set(train) & set(test)
        assert [*train] == [t for t in texts if t in train]  # in the order of the file
        assert len(test) == np.clip(round(share * len(texts)), 2, len(texts) - 2)
    assert read_concept(*paths, test_share=share, seed=3) == found


def test_halves_are_drawn_by_their_seed(tmp_path):
    paths = [write_as(tmp_path, key, names(key, 30), "txt") for key in ("yes", "no")]
    held = [set(read_concept(*paths, seed=seed).test_positive) for seed in range(40)]
    assert len(set(map(frozenset, held))) > 30
    counts = [sum(text in part for part in held) for text in names("yes", 30)]
    assert min(counts) > 5  # each text is sometimes tested on, and sometimes not
    assert max(counts) < 35


def test_too_few_or_misplaced_texts_are_refused(tmp_path):
    many, few, none = (
        write_as(tmp_path, key, texts, "txt")
        for key, texts in (("many", names("yes", 9)), ("few", names("no", 3)), ("none", [" "]))
    )
    one = write_as(tmp_path, "one", ["only"], "txt")
    mixed = write_as(tmp_path, "mixed", [*names("no", 5), "yes 2"], "txt")
    with pytest.raises(ValueError, match=r"few\.txt holds 3 texts, expected at least 4"):
        read_concept(many, few)
    with pytest.raises(ValueError, match=r"none\.txt holds no text"):
        read_concept(none, many)
    with pytest.raises(ValueError, match="'many' has 1 test negative texts, expected at least 2"):
        read_concept(many, few, mixed, one)
    with pytest.raises(ValueError, match="'yes 2' is both a "):
        read_concept(many, mixed)
    new, one_more = (write_as(tmp_path, key, names(key, 3), "txt") for key in ("new", "more"))
    with pytest.raises(ValueError, match="'yes 2' is both a positive and a test negative text"):
        read_concept(many, new, one_more, mixed)
    with pytest.raises(ValueError, match="'yes 0' is both a positive and a test positive text"):
        read_concept(many, few, many, mixed)
    with pytest.raises(ValueError, match="one class alone"):
        read_concept(many, few, many)
    for share in (0, 1, -0.1, float("nan")):
        with pytest.raises(ValueError, match=r"expected a share in \(0, 1\)"):
            read_concept(many, mixed, test_share=share)


@pytest.mark.parametrize("name", ["none.txt", "none.jsonl", "none.parquet", "none", "some/one"])
def test_a_file_that_is_absent_is_named_and_never_sought_elsewhere(tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(corpora, "_HubDataset", None)  # to ask it is an error of another kind
    with pytest.raises(SourceError, match=f"no file {name}"):
        read_concept(name, name)


def test_conversations_are_no_texts_of_a_concept(tmp_path):
    chat = [{"role": "user", "content": "yes"}]
    (tmp_path / "a.jsonl").write_text(json.dumps({"text": chat}) + "\n")
    with pytest.raises(ValueError, match="holds conversations, expected texts"):
        read_concept(tmp_path / "a.jsonl", tmp_path / "a.jsonl")


def test_hostile_lines_stay_one_text_each(tmp_path):
    long = "word " * 20_000 + "end"
    texts = ["first", "a\x0bb\x0cc\x1cd", "one\u2028line\x85still", "nul\x00inside", long, "last"]
    # A byte order mark, CRLF, a blank line, a repetition, and bytes that are not UTF-8.
    data = (
        b"\xef\xbb\xbf" + "\r\n".join([*texts, "", "first "]).encode() + b"\r\nbad\xff\xed\xa0\x80"
    )
    (tmp_path / "yes.txt").write_bytes(data)
    found = read_concept(tmp_path / "yes.txt", write_as(tmp_path, "no", names("no", 4), "txt"))
    read = {*found.positive, *found.test_positive}
    assert set(texts) < read
    (bad,) = read - set(texts)
    assert bad.startswith("bad\ufffd")
    assert "\ud800" not in bad
    assert len(found.positive) + len(found.test_positive) == len(texts) + 1


def test_lone_surrogates_in_json_lines_are_replaced(tmp_path):
    lines = [f'{{"text": "s \\ud800 {k}"}}\n' for k in range(4)]
    (tmp_path / "yes.jsonl").write_text("".join(lines))
    found = read_concept(tmp_path / "yes.jsonl", write_as(tmp_path, "no", names("no", 4), "txt"))
    assert {*found.positive, *found.test_positive} == {f"s \ufffd {k}" for k in range(4)}


# Their activations


def one_by_one(model, text, tokenization=TOKENIZATION):
    """Vectors, tokens and positions of one text, read alone."""
    parts = [batch for (batch,) in read_activations(model, SITE, ex.texts([text]), tokenization)]
    return tuple(
        np.concatenate([np.asarray(getattr(part, key)) for part in parts])
        for key in ("vectors", "token", "position")
    )


def assert_rows_are(rows, text, expected):
    (number,) = rows.of([text])
    mine = slice(rows.starts[number], rows.starts[number + 1])
    vectors, token, position = expected
    assert np.array_equal(rows.token[mine], token)
    assert np.array_equal(rows.position[mine], position)
    assert rows.vectors[mine] == pytest.approx(vectors, abs=1e-4)  # batches change the last bits
    assert (rows.text_of_rows()[mine] == number).all()


TEXTS = [*dict.fromkeys([*documents(25), ""])]
HOSTILE = ["\x00\x01\x7f", "lone \ud800 surrogate", "\ufeffmark", "a\r\nb", "x", "the " * 60]


@pytest.fixture(scope="module")
def rows(model):
    return read_text_rows(model, SITE, [*TEXTS, *HOSTILE], TOKENIZATION)


def test_rows_are_those_of_each_text_read_alone(model, rows):
    assert rows.vectors.dtype == np.float32
    assert rows.vectors.shape == (rows.starts[-1], WIDTH)
    assert len(rows.token) == len(rows.position) == rows.lengths().sum() == len(rows.vectors)
    assert rows.texts == (*TEXTS, *HOSTILE)
    for text in rows.texts:
        assert_rows_are(rows, text, one_by_one(model, text))
    assert (rows.lengths() == 0).any()  # of the empty text
    assert rows.lengths().max() > TOKENIZATION.context_length  # of one in several pieces


def test_rows_follow_the_order_of_the_texts(model, rows):
    turned = read_text_rows(model, SITE, rows.texts[::-1], TOKENIZATION)
    assert np.array_equal(turned.lengths(), rows.lengths()[::-1])
    for text in rows.texts[::5]:
        (number,) = rows.of([text])
        mine = slice(rows.starts[number], rows.starts[number + 1])
        assert_rows_are(turned, text, (rows.vectors[mine], rows.token[mine], rows.position[mine]))


def test_texts_are_found_by_what_they_say(rows):
    asked = [rows.texts[7], rows.texts[2], rows.texts[7]]
    assert rows.of(asked).tolist() == [7, 2, 7]
    assert rows.of([]).dtype == np.int64
    with pytest.raises(ValueError, match=r"activations of 'never seen' were not read"):
        rows.of([rows.texts[0], "never seen"])
    with pytest.raises(ValueError, match="activations of '" + 40 * "x" + "…' were not read"):
        rows.of(["x" * 5000])


def test_a_text_twice_or_none_at_all_is_refused(model):
    with pytest.raises(ValueError, match="2 texts were given twice"):
        read_text_rows(model, SITE, ["a", "b", "a", "a"], TOKENIZATION)
    with pytest.raises(ValueError, match="no text was given"):
        read_text_rows(model, SITE, [], TOKENIZATION)


def test_how_many_texts_were_read_is_told(model, monkeypatch):
    monkeypatch.setattr(labelled, "_WINDOW_TOKENS", 64)
    steps = []
    texts = [*filter(None, TEXTS), ""]  # the last has no rows to tell of
    read_text_rows(model, SITE, texts, TOKENIZATION, lambda *step: steps.append(step))
    assert {(what, total) for what, _, total in steps} == {("texts", len(texts))}
    done = [n for _, n, _ in steps]
    assert len(done) > 3
    assert done == sorted(done)
    assert done[-1] == len(texts)


def test_only_empty_texts_have_no_rows(model):
    found = read_text_rows(model, SITE, [""], TOKENIZATION)
    assert found.vectors.shape == (0, WIDTH)
    assert found.lengths().tolist() == [0]


def test_a_selection_keeps_whose_rows_they_are(rows):
    keep = np.random.default_rng(0).random(len(rows.vectors)) < 0.4
    keep[rows.text_of_rows() == 3] = False
    found = rows.select(keep)
    assert np.array_equal(found.text_of_rows(), rows.text_of_rows()[keep])
    for key in ("vectors", "token", "position"):
        assert np.array_equal(getattr(found, key), getattr(rows, key)[keep])
    assert found.lengths()[3] == 0
    assert found.texts == rows.texts
    assert np.array_equal(rows.select(np.ones(len(keep), bool)).starts, rows.starts)
    assert not rows.select(np.zeros(len(keep), bool)).starts.any()


def test_kept_activations_give_the_same_rows(model, rows, tmp_path):
    kept = ex.extract(
        model, [SITE, "resid_post.0"], ex.texts(list(rows.texts)), tmp_path / "all",
        tokenization=TOKENIZATION, window_tokens=64,
    )  # fmt: skip
    found = read_text_rows(kept, SITE, rows.texts)
    for key in ("starts", "token", "position"):
        assert np.array_equal(getattr(found, key), getattr(rows, key))
    assert found.vectors == pytest.approx(rows.vectors, abs=1e-4)
    for others in (rows.texts[:-1], rows.texts[::-1], (*rows.texts, "one more")):
        with pytest.raises(ValueError, match="does not hold all activations of these texts"):
            read_text_rows(kept, SITE, others)


def test_kept_activations_that_stopped_early_are_refused(model, tmp_path):
    kept = ex.extract(
        model, SITE, ex.texts(TEXTS), tmp_path, tokenization=TOKENIZATION, rows=20, window_tokens=64
    )
    assert kept.complete
    with pytest.raises(ValueError, match="does not hold all activations"):
        read_text_rows(kept, SITE, TEXTS)


def test_a_text_without_a_row_is_named_or_left_out(rows):
    filled = [text for text, n in zip(rows.texts, rows.lengths(), strict=True) if n]
    whole = Concept("c", *(tuple(filled[3 * k : 3 * k + 3]) for k in range(4)))
    check_rows(rows, whole)
    assert without_empty(rows, whole) == (whole, 0)
    lacking = replace(whole, test_negative=(*whole.test_negative, ""))
    with pytest.raises(ValueError, match=r"'' \(test negative text 4 of 'c'\) has no token"):
        check_rows(rows, lacking)
    assert without_empty(rows, lacking) == (whole, 1)
    hard = replace(whole, test_hard_negative=("",))
    assert without_empty(rows, hard) == (whole, 1)
    with pytest.raises(ValueError, match="'c' has 1 positive texts, expected at least 2"):
        without_empty(rows, replace(whole, positive=(filled[0], "")))


def test_the_parts_of_a_concept_are_all_looked_at():
    fields = Concept.__dataclass_fields__
    assert [name for name in fields if name not in ("name", "left_out")] == [*SPLITS]
    assert labelled.SPLITS is SPLITS
