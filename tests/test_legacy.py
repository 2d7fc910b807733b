"""Published pickles: what a good one says, and that a bad one does nothing.

The pickles here are made by hand or by classes of the same names; nothing reads them but
`exemplars.legacy`.
"""

import contextlib
import copyreg
import functools
import json
import os
import pickle
import struct
import sys
from collections import OrderedDict, defaultdict
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from exemplars import legacy, store
from exemplars.errors import FormatError
from exemplars.legacy import import_reference

SHARED = Path(
    os.environ.get(
        "EXEMPLARS_SHARED", Path(__file__).resolve().parents[1].parent / "shared" / "data"
    )
)
PUBLISHED = next(
    (
        folder / "published_tiny.pkl"
        for folder in (SHARED / "reference", SHARED / "data" / "reference")
        if (folder / "published_tiny.pkl").exists()
    ),
    None,
)
needs_published = pytest.mark.skipif(
    PUBLISHED is None, reason="the shared data (EXEMPLARS_SHARED) with published_tiny.pkl is absent"
)


# --- good files ---


@needs_published
def test_a_published_dictionary_is_what_its_description_says(tmp_path):
    expected = json.loads(PUBLISHED.with_suffix(".json").read_text())
    dictionary = import_reference(PUBLISHED, tmp_path / "imported", percentile=10)
    assert dictionary.n_regions == expected["regions"]
    assert dictionary.threshold == expected["threshold"]
    assert np.linalg.norm(dictionary.center) == pytest.approx(expected["center_norm"], rel=1e-6)
    assert dictionary.counts.tolist() == expected["member_count"]
    assert dictionary.coherence == pytest.approx(expected["coherence"], abs=1e-6)
    assert dictionary.exemplar_rows.tolist() == expected["exemplar_row"]
    assert dictionary.exemplars[:, :3] == pytest.approx(
        np.array(expected["first_components"]), abs=1e-6
    )
    assert dictionary.provenance["labels"] == expected["labels"]
    nearest = dictionary.region(0).contexts[0]
    assert [nearest.distance, nearest.before, nearest.position] == expected[
        "closest_prompt_of_region_0"
    ]
    assert (nearest.exemplar, nearest.row, nearest.token, nearest.nearest_rank) == (True, 0, -1, 0)
    assert dictionary.membership == "batch:unknown"
    assert dictionary.rows == sum(expected["member_count"])
    assert store.load(tmp_path / "imported").n_regions == expected["regions"]
    members = dictionary.members
    spread = members.distance_square_sums / members.counts
    assert (spread >= (members.distance_sums / members.counts) ** 2 - 1e-9).all()
    np.testing.assert_allclose(np.linalg.norm(dictionary.means, axis=1), 1, atol=1e-5)


def published(package: str = "ep", library: str = "Dictionary", cell: str = "Partition"):
    """Classes with the names of the published ones, where a pickle looks for them."""
    module = ModuleType(f"{package}.discovery.dictionary")
    for name in (library, cell):
        setattr(module, name, type(name, (), {"__module__": module.__name__}))
    return module, getattr(module, library), getattr(module, cell)


def made(
    tmp_path, protocol=4, names=("ep", "Dictionary", "Partition"), name="made_p10.pkl", **changes
):
    module, library, cell = published(*names)
    rng = np.random.default_rng(0)
    cells = []
    for k in range(3):
        direction = np.eye(3, 5, dtype=np.float32)[k]
        one = cell()
        one.__dict__.update(
            exemplar_direction=direction,
            mean_member_direction=direction.copy(),
            member_count=np.int64(4 + k),
            member_coherence=np.float32(0.5),
            sum_dist_to_exemplar=0.25 * k,
            sum_sq_dist_to_exemplar=0.125 * k,
            source_iterations={0, k},
            constituent_sample_indices=[10 * k, 10 * k + 3],
            sample_prompts=[(-0.5, "far", 2), (-0.0, "founder", 1), (-0.25, "near", 7)],
            boundary_prompts=[(0.5, "far", 2), (0.75, "farther", 3)],
            sample_members=[rng.normal(size=5).astype(np.float32)],
            label=None,
        )
        one.__dict__.update(changes.get("cell", {}))
        cells.append(one)
    whole = library()
    whole.__dict__.update(
        center=np.arange(5, dtype=np.float32),
        threshold=0.5,
        merge_close=False,
        partitions=cells,
        counters=defaultdict(list),
        settings=OrderedDict(a=1),
    )
    whole.__dict__.update(changes.get("library", {}))
    parts = module.__name__.split(".")
    path = tmp_path / name
    with pytest.MonkeyPatch.context() as patch:
        for n in range(1, len(parts) + 1):
            patch.setitem(sys.modules, ".".join(parts[:n]), ModuleType(parts[n - 1]))
        patch.setitem(sys.modules, module.__name__, module)
        path.write_bytes(pickle.dumps(whole, protocol=protocol))
    return path


@pytest.mark.parametrize("protocol", [4, 5])
@pytest.mark.parametrize(
    "names", [("ep", "Dictionary", "Partition"), ("cas", "ConceptLibrary", "Concept")]
)
def test_all_names_and_protocols_of_the_publications_are_read(tmp_path, protocol, names):
    dictionary = import_reference(made(tmp_path, protocol, names))
    assert dictionary.percentile == 10
    assert dictionary.counts.tolist() == [4, 5, 6]
    assert np.array_equal(dictionary.exemplars, np.eye(3, 5))
    assert dictionary.exemplar_rows.tolist() == [0, 10, 20]
    assert dictionary.rows == 24
    contexts = dictionary.contexts.region(1)
    assert [(c.before, c.distance, c.nearest_rank, c.farthest_rank) for c in contexts] == [
        ("founder", 0, 0, -1),
        ("near", 0.25, 1, -1),
        ("far", 0.5, 2, 1),
        ("farther", 0.75, -1, 0),
    ]
    assert [c.row for c in contexts] == [10, -1, -1, -1]


def test_float64_and_big_endian_arrays_become_float32(tmp_path):
    center = np.arange(5, dtype=">f8")
    dictionary = import_reference(made(tmp_path, library={"center": center}))
    assert dictionary.center.dtype == np.float32
    assert dictionary.center.tolist() == [0, 1, 2, 3, 4]


def test_what_is_not_known_stays_unknown(tmp_path):
    path = made(
        tmp_path,
        cell={"constituent_sample_indices": None, "sample_prompts": [], "boundary_prompts": None},
        library={"merge_close": True},
    )
    dictionary = import_reference(path)
    assert dictionary.exemplar_rows.tolist() == [-1, -1, -1]
    assert dictionary.contexts is None
    assert dictionary.members.histogram.sum() == 0
    assert dictionary.calibration.rows == 0
    assert "labels" not in dictionary.provenance


def test_the_percentile_is_given_or_named(tmp_path):
    assert import_reference(made(tmp_path, name="x_p2.5.pkl")).percentile == 2.5
    assert import_reference(made(tmp_path, name="x_p2.5.pkl"), percentile=0.5).percentile == 0.5
    (tmp_path / "m_L1_p3").mkdir()
    assert import_reference(made(tmp_path / "m_L1_p3", name="d.pkl")).percentile == 3
    for name in ("x.pkl", "x_p0.pkl"):  # the publication wrote 0 for all below 1
        with pytest.raises(ValueError, match="give percentile="):
            import_reference(made(tmp_path, name=name))
    with pytest.raises(ValueError, match="percentile is 0"):
        import_reference(made(tmp_path), percentile=0)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"library": {"threshold": -1.0}}, "threshold"),
        ({"library": {"threshold": float("nan")}}, "threshold"),
        ({"library": {"threshold": 10**400}}, "threshold"),
        ({"library": {"center": None}}, "center"),
        ({"library": {"center": np.array([np.inf] * 5, np.float32)}}, "not finite"),
        ({"library": {"partitions": []}}, "no list of regions"),
        ({"library": {"partitions": [1]}}, "no list of regions"),
        ({"cell": {"exemplar_direction": np.ones(5, np.float32)}}, "unit length"),
        ({"cell": {"exemplar_direction": np.ones(4, np.float32)}}, "width 4, expected 5"),
        ({"cell": {"member_count": -1}}, "member_count"),
        ({"cell": {"member_count": 1.5}}, "member_count"),
        ({"cell": {"constituent_sample_indices": ["a"]}}, "not row numbers"),
        ({"cell": {"sample_prompts": [(0.0, 1, 2)]}}, "sample_prompts"),
        ({"cell": {"sample_prompts": [(0.0, "a", 2**40)]}}, "position"),
        ({"cell": {"sample_prompts": [(0.0, "a", 1)] * 1001}}, "at most 1000"),
        ({"cell": {"__class__x": 1}}, "attribute '__class__x'"),
        ({"cell": {"sample_members": np.array([{}, 1], object)}}, "no objects"),
        ({"cell": {"sample_members": np.zeros(2, "V8")}}, "dtype"),
        ({"cell": {"sample_members": np.zeros(2, "f4,f4")}}, "dtype"),
        ({"cell": {"label": Path("x")}}, "pathlib"),
    ],
)
def test_what_no_published_dictionary_holds_is_refused(tmp_path, changes, match):
    with pytest.raises(FormatError, match=match):
        import_reference(made(tmp_path, **changes))


# --- bad files ---


class Reduced:
    """Pickles as a call of any function."""

    def __init__(self, function, *args):
        self.call = function, args

    def __reduce__(self):
        return self.call


def by_opcode(module: str, name: str, argument: str, how: str) -> bytes:
    text = b"X" + struct.pack("<I", len(argument)) + argument.encode()
    named = f"c{module}\n{name}\n".encode()
    stacked = b"\x8c" + bytes([len(module)]) + module.encode()
    stacked += b"\x8c" + bytes([len(name)]) + name.encode() + b"\x93"
    return {
        "REDUCE": b"\x80\x02" + named + text + b"\x85R.",
        "STACK_GLOBAL": b"\x80\x04" + stacked + text + b"\x85R.",
        "OBJ": b"\x80\x02(" + named + text + b"o.",
        "INST": b"(" + text + f"i{module}\n{name}\n".encode() + b".",
        "NEWOBJ": b"\x80\x02" + named + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + named + text + b"\x85}\x92.",
        "BUILD": b"\x80\x02" + named + b"}" + text + text + b"sb.",
        "NAME": b"\x80\x02" + named + b".",
    }[how]


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A folder that stays empty unless something of a pickle was carried out."""
    folder = tmp_path / "trap"
    folder.mkdir()
    monkeypatch.chdir(folder)
    yield folder
    assert list(folder.iterdir()) == []


def refuse(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(FormatError) as caught:
        import_reference(path, percentile=10)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    "how", ["REDUCE", "STACK_GLOBAL", "OBJ", "INST", "NEWOBJ", "NEWOBJ_EX", "BUILD", "NAME"]
)
@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("os", "system"), ("posix", "system"), ("subprocess", "Popen"), ("builtins", "eval"),
        ("builtins", "exec"), ("builtins", "getattr"), ("builtins", "__import__"),
        ("builtins", "open"), ("builtins", "bytearray"), ("__builtin__", "eval"),
        ("functools", "partial"), ("numpy", "load"), ("numpy", "fromfile"),
        ("copyreg", "__newobj__"), ("copyreg", "_reconstructor"),
        ("numpy.core.multiarray", "fromfile"),
        ("ep.discovery.dictionary", "os.system"), ("ep.discovery.dictionary", "__builtins__"),
        ("numpy", "dtype.__class__"), ("exemplars.legacy", "_ALLOWED"), ("ep.evil", "Dictionary"),
        ("_codecs", "encode"), ("operator", "attrgetter"), ("torch", "load"),
    ],
)  # fmt: skip
def test_names_outside_the_list_are_refused_and_named(tmp_path, trap, module, name, how):
    said = refuse(tmp_path / "bad.pkl", by_opcode(module, name, "touch pwned", how))
    if how in ("INST", "OBJ", "NEWOBJ_EX"):
        assert f"the instruction {how}" in said
    else:
        assert f"{module}.{name}" in said


def test_a_call_hidden_inside_a_good_dictionary_is_refused(tmp_path, trap):
    for function, args, named in (
        (os.system, ("touch pwned",), "system"),
        (eval, ("open('pwned', 'w')",), "builtins.eval"),
        (functools.partial, (os.system, "touch pwned"), "functools.partial"),
        (np.load, ("x.npy",), "numpy"),
        (getattr, (os, "system"), "getattr"),
    ):
        hidden = Reduced(function, *[Reduced(len, "") if a is os else a for a in args])
        for where in ({"library": {"extra": [({"a": hidden},)]}}, {"cell": {"label": hidden}}):
            path = made(tmp_path, **where)
            assert named in refuse(path, path.read_bytes())


def test_the_extension_registry_is_refused(tmp_path, trap):
    copyreg.add_extension("os", "system", 200)
    try:
        for code in (b"\x82\xc8", b"\x83\xc8\x00", b"\x84\xc8\x00\x00\x00"):
            said = refuse(tmp_path / "x.pkl", b"\x80\x02" + code + b"X\x04\0\0\0true\x85R.")
            assert "the instruction EXT" in said
    finally:
        copyreg.remove_extension("os", "system", 200)


def test_persistent_ids_and_buffers_outside_the_file_are_refused(tmp_path):
    for content in (
        b"Pos.system\n.",
        b"\x80\x02X\x01\0\0\0aQ.",
        b"\x80\x05\x97.",
        b"\x80\x05N\x98.",
    ):
        assert "instruction" in refuse(tmp_path / "x.pkl", content)


ALLOWED = [".".join(key) for key in legacy._ALLOWED]


@pytest.mark.parametrize("dotted", ALLOWED)
def test_what_is_allowed_cannot_be_changed_or_misused(tmp_path, dotted):
    """State, slots, items and calls of every kind: a refusal, and the same stand-ins after it."""
    module, _, name = dotted.rpartition(".")
    before = {
        key: (value, getattr(value, "__dict__", None)) for key, value in legacy._ALLOWED.items()
    }
    named = f"c{module}\n{name}\n".encode()
    key = b"X\x0c\0\0\0__setstate__"
    klass = b"X\x09\0\0\0__class__"
    for tail in (
        b"}" + key + b"K\x01sb.",  # BUILD with a dict
        b"N}" + key + b"K\x01s\x86b.",  # BUILD with slots
        b"N}" + klass + named + b"s\x86b.",
        key + b"K\x01s.",  # SETITEM
        b"K\x01a.",  # APPEND
        b"(K\x01K\x02e.",  # APPENDS
        b"\x85R.",  # called with nothing before it on the stack
        b")R.", b")\x81.", b"K\x01\x85R.", b"K\x01\x85\x81.", b"(K\x01K\x02K\x03K\x04tR.",
        b")RK\x01b.", b")RN}" + klass + named + b"s\x86b.", b")R}" + klass + named + b"sb.",
        b")R(K\x01K\x02e.", b")R" + key + b"K\x01s.",
    ):  # fmt: skip
        refuse(tmp_path / "x.pkl", b"\x80\x02" + named + tail)
    after = {
        key: (value, getattr(value, "__dict__", None)) for key, value in legacy._ALLOWED.items()
    }
    assert after == before


def test_every_truncation_is_refused(tmp_path):
    content = made(tmp_path).read_bytes()
    for cut in [*range(0, len(content), 37), len(content) - 1]:
        refuse(tmp_path / "cut.pkl", content[:cut])


def test_damage_gives_a_dictionary_or_a_refusal(tmp_path, trap):
    content = made(tmp_path).read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(1500):
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 4)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        path = tmp_path / "damaged.pkl"
        path.write_bytes(bytes(damaged))
        with contextlib.suppress(FormatError):
            import_reference(path, percentile=10)


@pytest.mark.parametrize(
    "content",
    [
        b"\x8e" + struct.pack("<Q", 2**40) + b"x.",  # BINBYTES8
        b"\x96" + struct.pack("<Q", 2**40) + b"x.",  # BYTEARRAY8
        b"\x8d" + struct.pack("<Q", 2**62) + b"x.",  # BINUNICODE8
        b"\x95" + struct.pack("<Q", 2**62) + b"N.",  # FRAME
        b"B" + struct.pack("<I", 2**31) + b"x.",  # BINBYTES
        b"X" + struct.pack("<I", 2**32 - 1) + b"x.",  # BINUNICODE
        b"Nr" + struct.pack("<I", 2**32 - 1) + b".",  # LONG_BINPUT: a memo of 64 GB
        b"Np4294967295\n.",
        b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x.",  # LONG4
        b"I" + b"9" * 100_000 + b"\n.",
        b"(" * 1_000_000 + b".",
        b"]" * 100_000 + b"a" * 99_999 + b".",
    ],
)
def test_gigantic_sizes_are_refused_without_room_being_made(tmp_path, content):
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    said = refuse(tmp_path / "x.pkl", b"\x80\x04" + content)
    assert "numbers object" in said or content[:2] not in (b"Nr", b"Np")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000


@pytest.mark.parametrize("shape", [(2**60,), (2**31, 2**31), (-1,), (5, 0), (10**400,), (1,) * 70])
def test_an_array_is_as_large_as_its_bytes(tmp_path, shape):
    class Lying:
        def __reduce__(self):
            blank = np.ndarray.__reduce__(np.zeros(5, np.float32))
            return blank[0], blank[1], (1, shape, np.dtype("f4"), False, b"\0" * 20)

    with pytest.raises(FormatError, match="an array"):
        import_reference(made(tmp_path, library={"center": Lying()}))


def test_a_short_file_cannot_ask_for_much_memory(tmp_path):
    """One list of many, copied many times over, is a small file and a large answer."""
    many = b"\x80\x02(" + b"K\x01" * 1000 + b"lq\x00"
    for name in ("set", "frozenset", "list", "dict"):
        copies = f"cbuiltins\n{name}\n".encode() + b"h\x00\x85R"
        refuse(tmp_path / "x.pkl", many + b"(" + copies * 1000 + b"t.")
    path = made(tmp_path)
    same = [1.0] * 10_000
    nested = [same] * 1000
    for _ in range(30):
        nested = [nested] * 2
    for where in ({"library": {"threshold": nested}}, {"cell": {"label": nested}}):
        path = made(tmp_path, **where)
        if "library" in where:
            assert "a list as threshold" in refuse(path, path.read_bytes())
        else:
            assert import_reference(path).provenance["labels_not_text"] == 3


def test_other_things_are_not_dictionaries(tmp_path):
    assert "no dictionary" in refuse(tmp_path / "x.pkl", pickle.dumps([1, 2]))
    assert "is empty" in refuse(tmp_path / "x.pkl", b"")
    refuse(tmp_path / "x.pkl", b"PK\x03\x04 a zip")
    with pytest.raises(FormatError, match="is not a file"):
        import_reference(tmp_path / "nowhere_p10.pkl")


def test_no_module_reads_pickles_freely():
    folder = Path(legacy.__file__).parent
    for source in folder.rglob("*.py"):
        text = source.read_text()
        assert "pickle.load(" not in text
        assert "pickle.loads(" not in text
