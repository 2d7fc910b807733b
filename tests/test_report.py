"""Reports are for people at a terminal, who must not be written to by the texts they look at."""

import json
import unicodedata
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

import exemplars as ex
from exemplars import report
from exemplars.building import BuildPlan
from exemplars.contexts import TableContexts
from exemplars.diagnosis import Check, Diagnosis, Plan
from exemplars.tracing import Trace

CONTROLS = "".join(map(chr, [*range(0x20), *range(0x7F, 0xA0)]))
BIDI = "\u061c\u200e\u200f" + "".join(map(chr, [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]))
HOSTILE = f"\x1b]0;title\x07\x1b[2J\x1b[31m{CONTROLS}{BIDI}\u2028\u2029\ufeff\u00ad\udc80 end"
TABLE = [["a", 1, 0.5], ["bcd", 23456, 12.25]]


def make_dictionary(hostile=HOSTILE, texts=True):
    """Three planted clouds; what a document or a manifest says is hostile."""
    rng = np.random.default_rng(0)
    clouds = np.eye(3, 8) * 40
    vectors = clouds[np.arange(90) % 3] + 0.3 * rng.standard_normal((90, 8))
    dictionary = ex.partition(vectors, ex.calibrate(vectors, [32]), 32)
    assert len(dictionary) == 3
    hostile = hostile.replace("\udc80", "")  # which Arrow cannot hold
    table = dictionary.contexts.table()
    if texts:
        for name in ("before", "text", "after", "name"):
            column = pa.array([f"{name} {hostile}"] * len(table)).cast(
                table.schema.field(name).type
            )
            table = table.set_column(table.schema.get_field_index(name), name, column)
        table = table.set_column(3, "document", pa.array([7] * len(table), pa.int64()))
    return replace(
        dictionary,
        contexts=TableContexts(table) if texts is not None else None,
        provenance={"site": {"name": f"s{hostile}"}, "model": {"name": f"m{hostile}"}},
    )


def make_lens(n=3, hostile=HOSTILE):
    names = ("exemplar_promoted", "exemplar_suppressed", "mean_promoted", "mean_suppressed")
    tokens = [[f"t{k}{hostile}".replace("\udc80", ""), "plain"] for k in range(n)]
    return pa.table({name: pa.array(tokens, pa.list_(pa.string())) for name in names})


def make_trace(text="one two", **fields):
    values = {
        "document": 0,
        "name": f"name{HOSTILE}",
        "text": text,
        "token": np.array([1, 2, 3]),
        "position": np.array([1, 2, 3]),
        "start": np.array([0, 2, 4]),
        "end": np.array([2, 4, len(text)]),
        "region": np.array([2, 0, -1]),
        "distance": np.array([0.1, 0.9, np.nan], np.float32),
        "threshold": 0.5,
        "norm_outlier": np.array([True, False, False]),
    }
    return Trace(**{**values, **fields})


def unsafe(text):
    """Characters that a terminal may act on, or that turn the direction of what follows."""
    return {
        hex(ord(c))
        for c in text
        if (ord(c) < 0x20 and c != "\n") or 0x7F <= ord(c) < 0xA0 or c in BIDI
        or unicodedata.category(c) in ("Zl", "Zp", "Cs")
    }  # fmt: skip


def test_the_check_sees_what_is_unsafe():
    assert len(unsafe(CONTROLS)) == 31 + 33
    assert unsafe(BIDI) == {hex(ord(c)) for c in BIDI}


def test_visible_leaves_nothing_that_a_terminal_acts_on():
    every = "".join(map(chr, range(0x110000)))
    shown = report.visible(every)
    assert unsafe(shown) == set()
    assert "\n" not in shown
    assert len(shown) == len(every)
    assert report.visible(shown) == shown


def test_visible_leaves_text_as_it_is():
    text = "Ünïcode 漢字 العربية 👩‍🚀 e\u0301 – “quotes”"
    assert report.visible(text) == text
    assert report.visible("a\tb\nc\x1b") == "a⇥b⏎c␛"


def reports():
    hostile, lens = make_dictionary(), make_lens()
    about = replace(hostile, provenance={**hostile.provenance, "complete": False})
    plan = BuildPlan((f"s{HOSTILE}",), (2.0,), 1000, 100, 10.0, 100.0, 1, 1, 1, 1)
    diagnosis = Diagnosis((Check("padding", "ok", f"found {HOSTILE}"),), Plan(1, 2, 3, 4))
    key = ("site", 32.0)
    return {
        "table": report.table(("a", "b"), [(HOSTILE, 1)]),
        "dictionaries": report.dictionaries_text([hostile]),
        "dictionary": report.dictionary_text(about, lens),
        "regions": report.regions_text(hostile, lens),
        "card": report.card_text(hostile, 1, lens),
        "trace": report.trace_text([make_trace(f"a{HOSTILE}")], hostile, 3),
        "plan": report.plan_text(plan),
        "diagnosis": report.diagnosis_text(diagnosis),
        "demo": report.demo_text({key: hostile}, {key: lens}, key, "out", "out/folder"),
        "json": report.to_json([report.card(hostile, 1, lens), make_trace(f"a{HOSTILE}")]),
        "summary": report.to_json(report.dictionary_summary(hostile)),
    }


@pytest.mark.parametrize("name", reports())
def test_no_report_lets_hostile_text_through(name):
    text = reports()[name]
    assert unsafe(text) == set()
    assert len(text) > 20


def test_columns_are_aligned_numbers_right_and_text_left():
    assert report.table(("name", "n", "x"), TABLE) == (
        "name       n      x\n────  ──────  ─────\na          1    0.5\nbcd   23,456  12.25"
    )


def test_wide_and_combining_characters_are_aligned_by_their_width():
    rows = [("漢字", "x"), ("e\u0301e\u0301", "y"), ("abcd", "z")]
    lines = report.table(("t", "u"), rows).split("\n")[2:]
    assert lines == ["漢字  x", "e\u0301e\u0301    y", "abcd  z"]


def test_a_table_without_rows_is_its_header():
    assert report.table(("a", "bc"), []) == "a  bc\n─  ──"


def test_numbers_that_are_missing_stay_in_their_column():
    text = report.table(("m", "v"), [("a", 1.5), ("b", float("nan"))])
    assert text.split("\n")[2:] == ["a  1.5", "b  nan"]


def test_json_has_null_for_what_is_not_finite():
    found = json.loads(
        report.to_json(
            {"a": float("nan"), "b": [np.inf, np.float32(1.5)], "c": np.array([np.nan, 2])}
        )
    )
    assert found == {"a": None, "b": [None, 1.5], "c": [None, 2.0]}


def test_json_has_records_as_objects_and_keys_as_text():
    found = json.loads(
        report.to_json(
            {
                "trace": make_trace(),
                ("site", 2.0): np.int64(3),
                2.0: np.bool_(True),
                "set": {1},
                "path": ex.Tokenization,
                "none": None,
            }
        )
    )
    assert found["trace"]["region"] == [2, 0, -1]
    assert found["trace"]["distance"][2] is None
    assert found["site 2.0"] == 3
    assert found["2"] is True
    assert found["set"] == [1]
    assert found["none"] is None


def test_json_is_ascii_and_loses_nothing():
    text = "ä漢👩‍🚀\x1b\u202e"
    assert report.to_json(text).isascii()
    assert json.loads(report.to_json(text)) == text


def test_a_card_has_all_that_is_known_of_a_region():
    dictionary = make_dictionary("")
    found = report.card(dictionary, 1, make_lens(), n_contexts=4)
    assert found["members"] == 30
    assert found["exemplar"].row == found["exemplar_row"] == dictionary.exemplar_rows[1]
    distances = [c.distance for c in found["nearest"]]
    assert len(distances) == 4
    assert distances == sorted(distances)
    assert not any(c.exemplar for c in found["nearest"] + found["farthest"])
    assert max(distances) < min(c.distance for c in found["farthest"])
    assert [n["region"] for n in found["neighbours"]] == dictionary.neighbours(1)[0].tolist()
    assert found["lens"]["mean_promoted"][1] == "plain"
    text = report.card_text(dictionary, 1, make_lens(), 4)
    for part in ("region 1 of 3: 30 members", "nearest members", "farthest members", "reads as"):
        assert part in text


def test_a_card_without_lens_or_texts_names_rows():
    dictionary = make_dictionary("", texts=False)
    found = report.card(dictionary, 0)
    assert found["lens"] is None
    text = report.card_text(dictionary, 0)
    assert "reads as" not in text
    assert f"exemplar: row {dictionary.exemplar_rows[0]}" in text


def test_a_card_without_contexts_has_numbers_only():
    dictionary = make_dictionary("", texts=None)
    found = report.card(dictionary, 0, make_lens())
    assert (found["exemplar"], found["nearest"], found["farthest"]) == (None, [], [])
    assert "exemplar" not in report.card_text(dictionary, 0).split("\n")[1:]
    assert "region" in report.regions_text(dictionary)


def test_a_card_of_no_such_region_is_an_error():
    with pytest.raises(ValueError, match="region 3 does not exist; this dictionary has 0 to 2"):
        report.card(make_dictionary(""), 3)


def test_regions_are_listed_from_the_largest():
    dictionary = make_dictionary("")
    lines = report.regions_text(dictionary, None, 2).split("\n")
    assert len(lines) == 4
    assert int(lines[2].split()[1]) == dictionary.counts.max()


def test_a_trace_notes_what_to_be_careful_with():
    lines = report.trace_text([make_trace()], make_dictionary("")).split("\n")[3:]
    assert lines[0].endswith("0.20  norm outlier")
    assert lines[1].endswith("1.80  outside θ")
    assert lines[2].endswith("-1         nan")


def test_metrics_show_a_census_beside_the_build():
    dictionary = make_dictionary("")
    assert report.metrics_text(dictionary).split("\n")[0].split() == ["metric", "value"]
    counted = dictionary.with_census(dictionary.members)
    header, _, first, *_ = report.metrics_text(counted).split("\n")
    assert header.split() == ["metric", "while", "streaming", "census"]
    assert first.split() == ["n_regions", "3", "3"]


@pytest.mark.parametrize("about", [{}, {"site": None, "model": None}, {"site": "s", "model": 3}])
def test_a_dictionary_that_says_nothing_of_itself_can_be_shown(about):
    dictionary = replace(make_dictionary(""), provenance=about)
    assert report.dictionary_summary(dictionary)["site"] is None
    assert "–" in report.dictionary_text(dictionary)


def test_an_interrupted_build_is_called_so():
    dictionary = make_dictionary("")
    assert "interrupted" not in report.dictionary_text(dictionary)
    unfinished = replace(dictionary, provenance={"complete": False})
    assert "interrupted" in report.dictionary_text(unfinished)


def test_a_plan_says_what_is_not_known():
    plan = BuildPlan(("resid_post.1",), (2.0, 5.0), 1000, 100, 10.0, 100.0, 10**6, 100, 10**9, 1)
    text = report.plan_text(plan)
    assert "rows         1,000, the first 100 of them" in text
    assert "about 1 min 40 s of forward passes at 10 rows/s" in text
    assert "2, 5  (2 dictionaries)" in text
    assert "all of the text" in report.plan_text(plan, whole_text=True)
    for rate in (0.0, float("nan")):
        nothing = replace(plan, rows_per_s=rate, forward_s=float("nan"))
        assert "not known" in report.plan_text(nothing)


@pytest.mark.parametrize(
    ("seconds", "said"),
    [(0.4, "0 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (3661, "1 h 1 min")],
)  # fmt: skip
def test_durations_are_said_as_people_say_them(seconds, said):
    assert report.duration(seconds) == said


@pytest.mark.parametrize(
    ("n_bytes", "said"), [(999, "999 B"), (6000, "6.0 kB"), (1.25e9, "1.2 GB"), (3e12, "3.0 TB")]
)
def test_sizes_are_said_as_people_say_them(n_bytes, said):
    assert report.size(n_bytes) == said
