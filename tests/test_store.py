import errno
import json
import os
import shutil
import struct
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exemplars import store
from exemplars.calibration import Calibration, calibrate
from exemplars.contexts import TableContexts, contexts_table, kept_row_numbers
from exemplars.dictionary import Dictionary, partition, take_census
from exemplars.errors import ExemplarsError, FormatError, MismatchError
from exemplars.members import Members, MemberStatistics
from exemplars.store import folders, tables

V1 = Path(__file__).parent / "data" / "v1"
V2 = Path(__file__).parent / "data" / "v2"
"""As V1, with the stability of its regions."""
BYTES_PROMISED = ("regions.safetensors", "contexts.parquet", "growth.parquet")
WORDS = ["the", "cat", "—", "sat,", "on", "“mats”", "and\nwas", "猫", "🐈", "happy"]


def example(n_rows: int = 600, width: int = 16, seed: int = 0, n_clusters: int = 12) -> Dictionary:
    """A dictionary of planted clusters, with contexts that have text."""
    rng = np.random.default_rng(seed)
    planted = rng.normal(size=(n_clusters, width))
    x = planted[rng.integers(0, n_clusters, n_rows)] + 0.1 * rng.normal(size=(n_rows, width))
    x = x.astype(np.float32)
    calibration = calibrate(x, [2, 8.5], block_rows=256, source={"text": "planted"})
    dictionary = partition(x, calibration, 8.5)
    members = take_census(dictionary, [x])

    kept = members.kept_rows()
    rows = kept_row_numbers(kept)
    seen = [
        {
            "row": row,
            "document": row // 50,
            "position": row % 50,
            "token": row % 97,
            "before": " ".join(WORDS[: row % 7]),
            "text": WORDS[row % len(WORDS)],
            "after": " ".join(WORDS[row % 5 :]),
            "name": f"document {row // 50}",
        }
        for row in rows.tolist()
    ]
    table = contexts_table(kept, dictionary.exemplar_rows, pa.Table.from_pylist(seen))
    growth = pa.table(
        {
            "document": [0, 1, 2],
            "rows": [50, 100, 150],
            "regions": [9, 11, 12],
            "singletons": [3, 1, 0],
        }
    )
    return replace(
        dictionary,
        contexts=TableContexts(table),
        growth=growth,
        provenance={
            "model": {"name": "tiny", "fingerprint": "f1", "tokenizer_fingerprint": "t1"},
            "site": {"name": "resid_post.1", "module": "model.layers.1"},
            "seed": 0,
        },
    )


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    return example()


@pytest.fixture
def saved(dictionary: Dictionary, tmp_path: Path) -> Path:
    return store.save(dictionary, tmp_path / "saved", run={"seconds": 1.5})


def equal(a: Dictionary, b: Dictionary) -> bool:
    arrays = [(a.exemplars, b.exemplars), (a.center, b.center), (a.exemplar_rows, b.exemplar_rows)]
    for mine, theirs in ((a.members, b.members), (a.census, b.census)):
        assert (mine is None) == (theirs is None)
        if mine is not None:
            arrays += [(getattr(mine, n), getattr(theirs, n)) for n in vars(mine)]
    assert all(np.array_equal(x, y, equal_nan=True) and x.dtype == y.dtype for x, y in arrays)
    scalars = ("percentile", "threshold", "membership", "rows", "dropped", "provenance")
    assert all(getattr(a, name) == getattr(b, name) for name in scalars)
    names = ("thresholds", "rows", "block_rows", "norm_limit", "dropped", "source")
    assert all(getattr(a.calibration, n) == getattr(b.calibration, n) for n in names)
    assert np.array_equal(a.calibration.vector_norms, b.calibration.vector_norms, equal_nan=True)
    assert (a.contexts is None) == (b.contexts is None)
    if a.contexts is not None:
        assert a.contexts.table().to_pylist() == b.contexts.table().to_pylist()
    assert (a.growth is None) == (b.growth is None)
    return a.growth is None or a.growth.to_pylist() == b.growth.to_pylist()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def edit_manifest(folder: Path, **changes) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def relist(folder: Path, name: str) -> None:
    """Make the manifest say what the file now is, as an attacker would."""
    files = json.loads((folder / "manifest.json").read_text())["files"]
    files[name] = {
        "sha256": folders.sha256_of(folder / name),
        "size": (folder / name).stat().st_size,
    }
    edit_manifest(folder, files=files)


# --- there and back ---


def test_what_is_loaded_is_what_was_saved(dictionary, saved):
    assert equal(store.load(saved), dictionary)
    assert equal(store.load(saved, verify=False), dictionary)


def test_saving_what_was_loaded_gives_the_same_bytes(saved, tmp_path):
    again = store.save(store.load(saved), tmp_path / "again")
    for name in BYTES_PROMISED:
        assert (saved / name).read_bytes() == (again / name).read_bytes()


def test_bytes_do_not_depend_on_how_the_table_was_divided_or_encoded(dictionary, tmp_path):
    table = dictionary.contexts.table()
    pieces = pa.concat_tables([table.slice(0, 7), table.slice(7, 100), table.slice(107)])
    shifted = pa.concat_tables([table, table]).slice(len(table))
    names = [pa.array([x]).dictionary_encode() for x in reversed(table["name"].to_pylist())]
    encoded = table.set_column(
        table.schema.get_field_index("name"), "name", pa.chunked_array(names[::-1])
    )
    whole = store.save(dictionary, tmp_path / "whole")
    for k, other in enumerate((pieces, shifted, encoded)):
        folder = store.save(replace(dictionary, contexts=TableContexts(other)), tmp_path / str(k))
        assert (folder / store.CONTEXTS).read_bytes() == (whole / store.CONTEXTS).read_bytes()


def test_bytes_do_not_depend_on_the_layout_of_arrays(dictionary, saved, tmp_path):
    turned = replace(dictionary, exemplars=np.asfortranarray(dictionary.exemplars))
    folder = store.save(turned, tmp_path / "turned")
    assert (folder / store.REGIONS).read_bytes() == (saved / store.REGIONS).read_bytes()


def test_another_safetensors_reader_reads_the_regions(dictionary, saved):
    from safetensors.numpy import load_file

    tensors = load_file(saved / store.REGIONS)
    assert np.array_equal(tensors["exemplars"], dictionary.exemplars)
    assert np.array_equal(tensors["histogram"], dictionary.members.histogram)
    assert len(tensors) == 9


def test_numbers_and_missing_numbers_survive_the_manifest(dictionary, tmp_path):
    odd = {0.1: 0.1 + 0.2, 2.0: 1 / 3, 33.3: 5e-324 + 0.7, 99.99999999999999: 2.0}
    calibration = replace(
        dictionary.calibration, thresholds=odd, vector_norms=(np.nan, 1e300, 5e-324)
    )
    provenance = {"pair": (1, 2), "gone": float("nan"), "half": np.float32(0.5), "where": Path("x")}
    changed = replace(dictionary, calibration=calibration, percentile=0.1, provenance=provenance)
    folder = store.save(changed, tmp_path / "odd")
    loaded = store.load(folder)
    assert loaded.calibration.thresholds == odd
    assert np.array_equal(loaded.calibration.vector_norms, calibration.vector_norms, equal_nan=True)
    assert loaded.provenance == {"pair": [1, 2], "gone": None, "half": 0.5, "where": "x"}
    assert "NaN" not in (folder / store.MANIFEST).read_text()


def test_a_dictionary_without_contexts_growth_or_members_is_saved(tmp_path):
    d, k = 3, 2
    nothing = np.zeros(k, np.int64)
    nan = np.full(k, np.nan)
    members = MemberStatistics(
        nothing, np.full((k, d), np.nan, np.float32), nan.astype(np.float32), nan, nan,
        np.zeros((k, 64), np.uint32),
    )  # fmt: skip
    bare = Dictionary(
        exemplars=np.eye(k, d, dtype=np.float32),
        exemplar_rows=np.full(k, -1),
        members=members,
        calibration=Calibration(np.ones(d, np.float32), {10.0: 0.5}, 0, 2048),
        percentile=10.0,
        membership="census",
        rows=0,
    )
    folder = store.save(bare, tmp_path / "bare")
    assert sorted(contents(folder)) == ["manifest.json", "regions.safetensors"]
    assert equal(store.load(folder), bare)


def test_provenance_that_json_cannot_say_is_refused_before_anything_is_written(
    dictionary, tmp_path
):
    with pytest.raises(ValueError, match=r"provenance\.model is a object"):
        store.save(replace(dictionary, provenance={"model": object()}), tmp_path / "x")
    with pytest.raises(ValueError, match="expected document, rows, regions, singletons"):
        store.save(replace(dictionary, growth=pa.table({"rows": [1]})), tmp_path / "x")
    with pytest.raises(ValueError, match="exemplar_rows has shape"):
        store.save(replace(dictionary, exemplar_rows=np.zeros(1, np.int64)), tmp_path / "x")
    backwards = dictionary.contexts.table().sort_by([("region", "descending")])
    with pytest.raises(ValueError, match="not sorted by region"):
        store.save(replace(dictionary, contexts=TableContexts(backwards)), tmp_path / "x")
    assert list(tmp_path.iterdir()) == []


# --- memory and laziness ---


def test_arrays_are_read_only_views_of_the_file(dictionary, saved):
    loaded = store.load(saved)
    for array in (loaded.exemplars, loaded.center, loaded.counts, loaded.members.histogram):
        assert not array.flags.writeable
        assert not array.flags.owndata
        assert array.flags.aligned
        with pytest.raises(ValueError, match="read-only"):
            array[...] = 0
    x = np.random.default_rng(1).normal(size=(50, 16)).astype(np.float32)
    for a, b in zip(loaded.assign(x), dictionary.assign(x), strict=True):
        assert np.array_equal(a, b)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc to read memory")
def test_opening_200_megabytes_takes_a_few(tmp_path):
    k, d = 25_000, 1024
    exemplars = np.zeros((k, d), np.float32)
    exemplars[:, 0] = 1
    nan = np.zeros(k)
    members = MemberStatistics(
        np.ones(k, np.int64), exemplars, nan.astype(np.float32), nan, nan,
        np.zeros((k, 64), np.uint32),
    )  # fmt: skip
    large = Dictionary(
        exemplars=exemplars,
        exemplar_rows=np.arange(k),
        members=members,
        calibration=Calibration(np.ones(d, np.float32), {10.0: 0.5}, 9, 2048),
        percentile=10.0,
        membership="online",
        rows=k,
    )
    folder = store.save(large, tmp_path / "large")
    assert (folder / store.REGIONS).stat().st_size > 200e6
    code = (
        "import sys, resource; from pathlib import Path\n"
        "from exemplars import store\n"
        "rss = lambda: int(Path('/proc/self/statm').read_text().split()[1]) * 4096\n"
        f"store.load({str(V1)!r})\n"
        "before = rss(); d = store.load(sys.argv[1], verify=False); opened = rss() - before\n"
        "d.exemplars.sum(); print(opened, rss() - before)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    ).stdout.split()
    assert int(out[0]) < 8e6
    assert int(out[1]) > 90e6, "the measure sees what is read"


def test_reading_one_region_leaves_the_others_on_disk(tmp_path, monkeypatch):
    n, k = 40, 1000
    table = big_contexts(n, k)
    members = np.ones(k)
    path = tmp_path / "contexts.parquet"
    tables.write_contexts(path, table)
    contexts = store.ParquetContexts(path, k)
    assert members.sum() * n == len(table)
    groups = []
    read = contexts._file.read_row_groups
    contexts._file = SimpleNamespace(
        read_row_groups=lambda g, **options: groups.append(g) or read(g, **options),
        num_row_groups=contexts._file.num_row_groups,
        metadata=contexts._file.metadata,
    )
    held = TableContexts(table)
    assert contexts.region(500) == held.region(500)
    assert len(groups) == 1
    assert len(groups[0]) == 1
    assert contexts._file.metadata.row_group(groups[0][0]).num_rows <= 2048
    assert contexts.region(501) == held.region(501)
    assert len(groups) == 1, "the neighbour is in the same row group"
    for region in (0, 999):
        assert contexts.region(region) == held.region(region)
    assert contexts.region(1000) == contexts.region(-1) == []
    assert contexts.table().equals(table)


def big_contexts(n: int, k: int):
    from exemplars.contexts import contexts_schema

    size = n * k
    columns = {
        f.name: pa.array(np.zeros(size, np.int64)).cast(f.type)
        if pa.types.is_integer(f.type)
        else None
        for f in contexts_schema()
    }
    columns["region"] = pa.array(np.repeat(np.arange(k), n).astype(np.int32))
    columns["row"] = pa.array(np.arange(size))
    columns["distance"] = pa.array(np.tile(np.linspace(0, 1, n), k).astype(np.float32))
    for name in ("before", "text", "after"):
        columns[name] = pa.array([f"{name} {i}" for i in range(size)])
    columns["name"] = pa.array([f"d{i // 100}" for i in range(size)]).dictionary_encode()
    columns["exemplar"] = pa.array(np.arange(size) % n == 0)
    return pa.table(columns, schema=contexts_schema())


def test_a_region_with_more_rows_than_a_group_holds_stays_whole(tmp_path):
    table = pa.concat_tables([big_contexts(3000, 2), big_contexts(1, 0)])
    tables.write_contexts(tmp_path / "c.parquet", table)
    contexts = store.ParquetContexts(tmp_path / "c.parquet")
    assert [contexts._file.metadata.row_group(g).num_rows for g in range(2)] == [3000, 3000]
    assert len(contexts.region(1)) == 3000


def test_contexts_can_be_asked_for_from_many_threads_and_sent_to_another_process(saved):
    import copy
    from concurrent.futures import ThreadPoolExecutor

    loaded = store.load(saved)
    regions = list(range(loaded.n_regions)) * 20
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(loaded.contexts.region, regions))
    assert found == [loaded.contexts.region(k) for k in regions]
    assert copy.deepcopy(loaded.contexts).region(1) == loaded.contexts.region(1)


# --- census and lens ---


def test_a_census_and_a_lens_are_added_to_a_saved_dictionary(dictionary, saved):
    before = contents(saved)
    members = Members(16, dictionary.threshold)
    members.grow(dictionary.n_regions)
    census = members.statistics()
    store.save_census(saved, census, dictionary.contexts.table())
    lens = pa.table({"region": [0, 1], "tokens": [["a"], ["b", "c"]]})
    store.save_lens(saved, lens)
    loaded = store.load(saved)
    assert equal(loaded, replace(dictionary, census=census))
    assert store.load(saved).census_contexts.region(2) == loaded.contexts.region(2)
    assert store.load_lens(saved).equals(lens)
    after = contents(saved)
    assert all(after[name] == before[name] for name in before if name != store.MANIFEST)
    store.save_census(saved, census)
    assert store.load(saved).census_contexts is None
    assert store.load_lens(saved).equals(lens)
    with pytest.raises(ValueError, match="counts has shape"):
        store.save_census(saved, example(n_clusters=5, seed=3).members)


def test_without_a_census_or_lens_there_is_none(saved):
    assert store.load(saved).census_contexts is None
    assert store.load_lens(saved) is None


# --- writing ---


def test_an_existing_folder_is_not_overwritten_unless_told(dictionary, saved):
    with pytest.raises(FormatError, match="already holds a dictionary; allow overwriting"):
        store.save(dictionary, saved)
    store.save(example(seed=2), saved, overwrite=True)
    assert equal(store.load(saved), example(seed=2))
    assert not (saved / store.RUN).exists()
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


def test_an_empty_folder_may_be_saved_to(dictionary, tmp_path):
    (tmp_path / "empty").mkdir()
    assert equal(store.load(store.save(dictionary, tmp_path / "empty")), dictionary)


def test_a_folder_that_is_not_a_dictionary_is_never_written_to(dictionary, tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.txt").write_text("years of work")
    for overwrite, match in ((False, "choose another folder"), (True, "is not overwritten")):
        with pytest.raises(FormatError, match=match):
            store.save(dictionary, tmp_path / "home", overwrite=overwrite)
    (tmp_path / "home" / "manifest.json").write_text('{"name": "another program\'s"}')
    with pytest.raises(FormatError, match="is not overwritten"):
        store.save(dictionary, tmp_path / "home", overwrite=True)
    assert len(contents(tmp_path / "home")) == 2
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is a file"):
        store.save(dictionary, tmp_path / "file", overwrite=True)


def test_overwriting_keeps_files_that_are_not_the_dictionarys(dictionary, saved):
    (saved / "notes.txt").write_text("look at region 7")
    store.save(dictionary, saved, overwrite=True)
    assert (saved / "notes.txt").read_text() == "look at region 7"
    store.load(saved)


def test_a_dictionary_can_be_saved_over_itself(saved, dictionary):
    loaded = store.load(saved)
    store.save(loaded, saved, overwrite=True)
    assert equal(store.load(saved), dictionary)
    assert equal(loaded, dictionary), "what was open stays what it was"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_a_kill_at_any_moment_leaves_the_old_or_the_new(tmp_path):
    """A process for each n ends at the n-th call of the system that changes a folder."""
    old, new = example(seed=0), example(seed=1)
    for n in range(30):
        store.save(old, tmp_path / str(n) / "d")
    code = f"""
import os, sys
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_store
from exemplars import store
new = test_store.example(seed=1)
left = None
def event(name, args):
    global left
    changes = ("os.rename", "os.mkdir", "os.remove", "os.rmdir", "shutil.rmtree")
    writes = name == "open" and isinstance(args[1], str) and args[1][:1] in ("w", "x")
    if left is not None and (name in changes or writes):
        if left == 0:
            os._exit(9)
        left -= 1
sys.addaudithook(event)
for n in range(30):
    child = os.fork()
    if child == 0:
        left = n
        store.save(new, Path({str(tmp_path)!r}) / str(n) / "d", overwrite=True)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    ).stdout.split()
    assert ended[0] == "9"
    assert ended[-1] == "0"
    survived = set()
    for n, status in enumerate(ended):
        found = store.load(tmp_path / str(n) / "d")
        is_new = np.array_equal(found.exemplars, new.exemplars)
        assert equal(found, new if is_new else old)
        assert is_new or status == "9"
        survived.add((status, is_new))
        store.save(new, tmp_path / str(n) / "d", overwrite=True)
        assert [p.name for p in (tmp_path / str(n)).iterdir()] == ["d"]
    assert survived == {("9", False), ("9", True), ("0", True)}


def test_a_dictionary_set_aside_by_a_killed_save_is_put_back(dictionary, saved, caplog):
    saved.rename(saved.with_name(".saved.old"))
    assert equal(store.load(saved), dictionary)
    assert "has been put back" in caplog.text
    assert not saved.with_name(".saved.old").exists()


@pytest.mark.parametrize("call", range(4))
def test_a_full_disk_loses_nothing_and_leaves_nothing(dictionary, saved, monkeypatch, call):
    before = contents(saved)
    calls = []

    def full(*_):
        calls.append(1)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match=r"disk of .*saved is full: .* needs about [\d,]+ bytes") as e:
        store.save(example(seed=1), saved, overwrite=True)
    assert e.value.errno == errno.ENOSPC
    monkeypatch.undo()
    assert contents(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs POSIX limits")
def test_a_file_that_cannot_grow_loses_nothing(saved):
    """A limit of the operating system on the size of files, so that real writes fail."""
    before = contents(saved)
    code = f"""
import resource, signal, sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import test_store
from exemplars import store
new = test_store.example(seed=1)
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
try:
    store.save(new, {str(saved)!r}, overwrite=True)
except OSError as error:
    print(error.errno)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(errno.EFBIG)
    assert contents(saved) == before
    assert [p.name for p in saved.parent.iterdir()] == ["saved"]


# --- damage and attacks ---


def test_each_file_that_is_truncated_altered_or_missing_is_named(saved, tmp_path):
    for name in ("manifest.json", *BYTES_PROMISED):
        for damage in ("truncated", "emptied", "altered", "missing"):
            folder = tmp_path / f"{name} {damage}"
            shutil.copytree(saved, folder)
            content = bytearray((folder / name).read_bytes())
            if damage == "missing":
                (folder / name).unlink()
            else:
                content[len(content) // 2] ^= 255
                cut = {"truncated": content[:-9], "emptied": b"", "altered": content}[damage]
                (folder / name).write_bytes(cut)
            with pytest.raises(FormatError, match=name.replace(".", r"\.")) as caught:
                store.load(folder)
            assert "\n" not in str(caught.value)


def test_what_is_not_a_dictionary_is_said_to_be_none(tmp_path):
    with pytest.raises(FormatError, match="does not exist"):
        store.load(tmp_path / "nowhere")
    with pytest.raises(FormatError, match=r"has no manifest\.json"):
        store.load(tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(FormatError, match="is not a folder"):
        store.load(tmp_path / "file")


def test_a_newer_version_says_upgrade(saved):
    edit_manifest(saved, format_version=3, something_new={})
    with pytest.raises(FormatError, match=r"newer version of exemplars .*; upgrade exemplars"):
        store.load(saved)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"format_version": "1"}, "format_version"),
        ({"format_version": 0}, "format_version"),
        ({"unknown": 1}, "unknown"),
        ({"rows": -1}, "rows"),
        ({"width": 0}, "width"),
        ({"percentile": float("nan")}, "NaN is not JSON"),
        ({"n_regions": 10**30}, "regions.safetensors"),
        ({"width": 17}, "regions.safetensors"),
        ({"threshold": 0.123}, "threshold"),
        ({"files": {}}, "lists no regions.safetensors"),
        ({"files": {"../../etc/passwd": {"sha256": "0" * 64, "size": 1}}}, "none of a dictionary"),
        ({"files": {"/etc/passwd": {"sha256": "0" * 64, "size": 1}}}, "none of a dictionary"),
        ({"files": {"regions.safetensors": {"sha256": "x", "size": 1}}}, "sha256"),
    ],
)
def test_a_wrong_manifest_is_refused(saved, changes, match):
    edit_manifest(saved, **changes)
    with pytest.raises(FormatError, match=match):
        store.load(saved)


def test_a_manifest_of_nested_brackets_or_another_kind_is_refused(saved):
    for text in ("[" * 10**6, "[]", "1", "null", '{"a":' * 10**5, "\xff"):
        (saved / "manifest.json").write_bytes(text.encode("latin-1"))
        with pytest.raises(FormatError, match=r"manifest\.json"):
            store.load(saved)


def header_of(path: Path) -> tuple[dict, bytes]:
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def with_header(path: Path, header, data: bytes, length: int | None = None) -> None:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text) if length is None else length) + text + data)


def hostile_headers():
    def change(name, **entry):
        return lambda header: header | {name: header[name] | entry}

    return {
        "dtype": change("exemplars", dtype="F16"),
        "object dtype": change("exemplars", dtype="O"),
        "shape": change("exemplars", shape=[2**40, 2**40]),
        "negative shape": change("exemplars", shape=[-1, 16]),
        "negative offsets": change("center", data_offsets=[-64, 0]),
        "huge offsets": change("center", data_offsets=[2**62, 2**62 + 64]),
        "float offsets": change("center", data_offsets=[0.0, 64.0]),
        "overlap": lambda h: h | {"distance_sums": h["distance_square_sums"]},
        "no offsets": change("center", data_offsets=None),
        "not an object": lambda h: [1],
        "entry": lambda h: h | {"center": 3},
        "missing": lambda h: {n: e for n, e in h.items() if n != "center"},
        "extra": lambda h: h | {"x": h["center"]},
        "nested": lambda h: b"[" * 100_000,
        "not utf-8": lambda h: b"\xff\xfe{}",
    }  # fmt: skip


@pytest.mark.parametrize("name", hostile_headers())
def test_a_hostile_tensor_header_is_refused(saved, name):
    path = saved / store.REGIONS
    header, data = header_of(path)
    with_header(path, hostile_headers()[name](header), data)
    relist(saved, store.REGIONS)
    with pytest.raises(FormatError, match=r"regions\.safetensors"):
        store.load(saved)


@pytest.mark.parametrize("length", [2**64 - 1, 2**40, 2**24, 0])
def test_a_hostile_header_length_is_refused(saved, length):
    path = saved / store.REGIONS
    header, data = header_of(path)
    with_header(path, header, data, length)
    relist(saved, store.REGIONS)
    with pytest.raises(FormatError, match=r"regions\.safetensors"):
        store.load(saved)


def test_trailing_bytes_are_refused(saved):
    path = saved / store.REGIONS
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    relist(saved, store.REGIONS)
    with pytest.raises(FormatError, match="its tensors end at byte"):
        store.load(saved)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.5])
def test_exemplars_must_be_finite_and_of_unit_length(dictionary, tmp_path, value):
    exemplars = dictionary.exemplars.copy()
    exemplars[3, 2] = value
    folder = store.save(replace(dictionary, exemplars=exemplars), tmp_path / "x")
    with pytest.raises(FormatError, match="exemplar 3 of length"):
        store.load(folder)


def test_random_damage_to_a_listed_file_never_crashes(saved, tmp_path):
    """Whatever the bytes, the answer is a dictionary or an error of ours."""
    rng = np.random.default_rng(0)
    good = {name: (saved / name).read_bytes() for name in BYTES_PROMISED}
    for _ in range(150):
        name = BYTES_PROMISED[rng.integers(3)]
        content = bytearray(good[name])
        for _ in range(rng.integers(1, 6)):
            where = rng.integers(len(content)) if rng.random() < 0.5 else -rng.integers(1, 200)
            content[int(where)] = rng.integers(256)
        if rng.random() < 0.2:
            del content[int(rng.integers(len(content))) :]
        (saved / name).write_bytes(bytes(content))
        relist(saved, name)
        try:
            loaded = store.load(saved)
            loaded.contexts.table()
            loaded.contexts.region(0)
        except ExemplarsError as error:
            assert name in str(error)  # noqa: PT017
        (saved / name).write_bytes(good[name])
        relist(saved, name)


def test_hostile_tables_are_refused(dictionary, saved):
    path = saved / store.CONTEXTS
    table = dictionary.contexts.table()
    cases = {
        "expected int32": table.set_column(0, "region", table["region"].cast(pa.int64())),
        'column "text"': table.drop_columns("text"),
        "names region": table.set_column(0, "region", pa.array(np.full(len(table), 99, np.int32))),
        "not sorted": table.sort_by([("region", "descending")]),
    }
    for match, hostile in cases.items():
        pq.write_table(hostile, path, row_group_size=20)
        relist(saved, store.CONTEXTS)
        with pytest.raises(FormatError, match=match):
            store.load(saved)
    for content in (b"PAR1", b"PAR1" + b"\xff" * 100 + b"PAR1", b"not parquet" * 10):
        path.write_bytes(content)
        relist(saved, store.CONTEXTS)
        with pytest.raises(FormatError, match=r"contexts\.parquet is not readable as Parquet"):
            store.load(saved)


def test_a_table_of_more_rows_than_its_bytes_can_say_is_refused(saved):
    many = pa.table(
        {name: pa.array(np.zeros(3_000_000, np.int64)) for name in store.GROWTH_COLUMNS}
    )
    pq.write_table(many, saved / store.GROWTH, compression="zstd")
    relist(saved, store.GROWTH)
    with pytest.raises(FormatError, match="claims 3,000,000 rows"):
        store.load(saved)


# --- versions ---


def test_the_dictionary_of_version_1_opens_for_ever():
    loaded = store.load(V1)
    manifest = store.manifest_of(V1)
    assert (manifest.format_version, loaded.n_regions, loaded.width) == (1, V1_REGIONS, 16)
    assert loaded.rows == 600
    assert loaded.percentile == 8.5
    assert loaded.threshold == V1_THRESHOLD
    assert loaded.counts.tolist() == V1_COUNTS
    assert loaded.exemplar_rows.tolist() == V1_EXEMPLAR_ROWS
    assert loaded.census.counts.sum() == 600
    assert [round(float(x), 6) for x in loaded.exemplars[2, :3]] == V1_COMPONENTS
    assert loaded.provenance["site"]["name"] == "resid_post.1"
    assert loaded.growth.to_pylist()[-1] == {
        "document": 2, "rows": 150, "regions": 12, "singletons": 0
    }  # fmt: skip
    context = loaded.region(2).contexts[0]
    assert (context.exemplar, context.row) == (True, V1_EXEMPLAR_ROWS[2])
    assert context.distance == pytest.approx(0, abs=1e-7)
    assert (context.before, context.text, context.after, context.name) == V1_TEXT
    assert len(store.load(V1).census_contexts.region(2)) == len(loaded.region(2).contexts)
    assert store.load_lens(V1).to_pylist()[0] == {"region": 0, "tokens": ["the", "a"]}


V1_REGIONS = 12
V1_THRESHOLD = 0.2496861483395666
V1_COUNTS = [42, 57, 41, 52, 58, 51, 57, 56, 52, 47, 43, 44]
V1_EXEMPLAR_ROWS = [0, 1, 2, 5, 6, 7, 9, 11, 13, 14, 22, 24]
V1_COMPONENTS = [0.015781, -0.113898, 0.022341]
V1_TEXT = ("the cat", "—", "— sat, on “mats” and\nwas 猫 🐈 happy", "document 0")


def test_the_dictionary_of_version_2_opens_for_ever():
    assert store.manifest_of(V2).format_version == 2
    assert store.load(V2).counts.tolist() == V1_COUNTS
    table = store.load_stability(V2)
    assert table["region"].to_pylist() == list(range(V1_REGIONS))
    assert table["mean_cosine"].to_pylist()[:3] == [1.0, 0.5, None]
    assert table["exemplar_cosine"].to_pylist()[:2] == [0.75, 0.25]
    assert set(table["others"].to_pylist()) == {4}
    for name in BYTES_PROMISED:
        assert (V2 / name).read_bytes() == (V1 / name).read_bytes()


def stability(n=V1_REGIONS):
    return pa.table(
        {
            "region": pa.array(range(n), pa.int32()),
            "mean_cosine": pa.array([1.0, 0.5, None, *[0.9] * (n - 3)], pa.float32()),
            "exemplar_cosine": pa.array([0.75, 0.25, *[0.5] * (n - 2)], pa.float32()),
            "found": pa.array([1.0] * n, pa.float32()),
            "others": pa.array([4] * n, pa.int32()),
        }
    )


def test_stability_raises_the_version_and_nothing_else_does(saved, dictionary):
    census = dictionary.members, None
    assert store.load_stability(saved) is None
    assert store.manifest_of(saved).format_version == 1
    store.save_lens(saved, pa.table({"region": [0]}))
    assert store.manifest_of(saved).format_version == 1
    store.save_stability(saved, stability())
    assert store.manifest_of(saved).format_version == 2
    assert store.load_stability(saved).equals(stability())
    store.save_census(saved, *census)  # what is added later keeps it
    assert store.manifest_of(saved).format_version == 2
    assert store.load_stability(saved).equals(stability())
    store.save(store.load(saved), saved, overwrite=True)
    assert store.manifest_of(saved).format_version == 1
    assert store.load_stability(saved) is None


def test_a_manifest_of_version_1_cannot_list_a_file_of_version_2(saved):
    store.save_stability(saved, stability())
    edit_manifest(saved, format_version=1)
    with pytest.raises(FormatError, match="which format version 1 does not have"):
        store.load(saved)


def test_stability_of_other_regions_or_columns_is_refused(saved):
    with pytest.raises(ValueError, match="one line for each of 12 regions"):
        store.save_stability(saved, stability(11))
    with pytest.raises(ValueError, match="has columns region, expected"):
        store.save_stability(saved, stability().select(["region"]))
    store.save_stability(saved, stability())
    pq.write_table(stability().slice(0, 5), saved / store.STABILITY)
    relist(saved, store.STABILITY)
    with pytest.raises(FormatError, match="one line for each of 12 regions"):
        store.load_stability(saved)


def test_the_manifest_has_a_json_schema(saved):
    schema = store.Manifest.model_json_schema()
    assert set(json.loads((saved / "manifest.json").read_text())) == set(schema["properties"])
    assert schema["additionalProperties"] is False


# --- the model ---


def test_a_dictionary_knows_its_model(dictionary):
    model = SimpleNamespace(fingerprint="f1", tokenizer_fingerprint="t1")
    assert store.check_model(dictionary, model) is None
    for other, match in (
        (SimpleNamespace(fingerprint="f2", tokenizer_fingerprint="t1"), r"model f1 \(tiny\).*f2"),
        (SimpleNamespace(fingerprint="f1", tokenizer_fingerprint="t2"), "tokenizer t1.*t2"),
    ):
        with pytest.raises(MismatchError, match=match):
            store.check_model(dictionary, other)
        assert "allow the mismatch" in store.check_model(dictionary, other, allow_mismatch=True)
    unknown = replace(dictionary, provenance={})
    assert "not known" in store.check_model(unknown, model)


# --- imports ---


def test_importing_the_store_loads_no_model_library():
    code = (
        "import sys, exemplars.store;"
        "print([m for m in ('torch', 'transformers', 'huggingface_hub') if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
