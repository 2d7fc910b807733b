"""What the routes answer, beside NumPy; caches, notes, hostile texts, and limits."""

import itertools
import json
import os
import re
import struct
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exemplars as ex
from exemplars import store
from exemplars.errors import FormatError
from exemplars.explorer import cards, queries, views
from exemplars.explorer.columns import Column
from exemplars.explorer.queries import Listed, parse_query
from exemplars.explorer.sphere import from_octahedral
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import NotReadyError, View, region_key
from exemplars.store import manifest
from exemplars.store.folders import view_of
from explorer_server import NEEDED
from synthetic import HOSTILE, dictionary_of, exemplars, synthetic

application = pytest.importorskip("exemplars.explorer.application", reason=NEEDED)
TestClient = pytest.importorskip("starlette.testclient", reason=NEEDED).TestClient

K, D = 500, 12
API = "/api/v1"


def opened(tmp_path, made, name="made"):
    folder = ex.save(made, tmp_path / name)
    view = View(folder, name, view_of(folder))
    view.prepare()
    return view


class Asked:
    """A client that answers with JSON, and the explorer behind it."""

    def __init__(self, *views_, **options):
        self.explorer = Explorer({view.slug: view for view in views_}, **options)
        self.http = TestClient(application.create_app(self.explorer), raise_server_exceptions=False)

    def __call__(self, path, status=200, **parameters):
        found = self.http.get(f"{API}/{path}", params=parameters or None)
        assert found.status_code == status, found.text[:500]
        return found.json()

    def send(self, method, path, body, status=200, **headers):
        found = self.http.request(method, f"{API}/{path}", json=body, headers=headers)
        assert found.status_code == status, found.text[:500]
        return found.json()

    def arrays(self, path, **parameters):
        found = self.http.get(f"{API}/{path}", params=parameters or None)
        assert found.status_code == 200, found.text[:500]
        return tensors(found.content)


def tensors(content):
    """Arrays and what is said of them, read as a browser reads them: by hand."""
    (size,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + size])
    about = json.loads(header.pop("__metadata__")["about"])
    kinds = {"F32": "<f4", "F64": "<f8", "U32": "<u4", "I32": "<i4", "U8": "u1", "U16": "<u2"}
    data = content[8 + size :]
    found = {}
    for name, entry in header.items():
        start, stop = entry["data_offsets"]
        kind = np.dtype(kinds[entry["dtype"]])
        assert (8 + size + start) % kind.itemsize == 0  # a typed array can be laid over it
        found[name] = np.frombuffer(data[start:stop], kind).reshape(entry["shape"])
    return found, about


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    view = opened(tmp_path_factory.mktemp("api"), synthetic(K, D, coincident=3))
    found = Asked(view)
    yield found
    found.explorer.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    made = synthetic(40, D, hostile=True)
    view = opened(tmp_path_factory.mktemp("hostile"), made)
    found = Asked(view)
    yield found
    found.explorer.close()


def dictionary(asked):
    return asked.explorer.views["made"].dictionary


def every(asked, **parameters):
    """All rows of a list, page by page."""
    found, following = [], {}
    while True:
        page = asked("d/made/regions", _size=77, **parameters, **following)
        found += page["rows"]
        if page["next"] is None:
            assert len(found) == page["count"]
            return found
        following = {"_next": page["next"]}


def test_the_application_says_what_it_can_and_why_it_cannot(asked):
    found = asked("app")
    assert found["ok"]
    assert found["dictionaries"][0]["k"] == K
    assert found["capabilities"]["trace"] is False
    assert "--no-model" in found["reasons"]["trace"]
    assert found["capabilities"]["write"] is True
    assert found["query_ms"] >= 0


def test_a_dictionary_says_its_numbers(asked):
    found, made = asked("d/made"), dictionary(asked)
    counts = made.counts
    assert found["theta"] == pytest.approx(made.threshold)
    assert found["stats"]["member_count"]["max"] == counts.max()
    assert found["stats"]["member_count"]["singletons"] == (counts == 1).sum()
    assert found["lod"] == [K]
    assert found["sphere"]["status"] == "ready"
    assert 0 < found["sphere"]["fidelity"]["variance"] < 1
    names = {column["name"] for column in found["columns"]}
    assert {"member_count", "coherence", "mean_dist_theta", "nn1_cos", "distinct_tokens"} <= names
    for shelf in found["shelves"]:
        asked(f"d/made/regions?{shelf['query']}")


def test_columns_are_those_of_the_dictionary(asked):
    made = dictionary(asked)
    fingerprint = asked("d/made")["fingerprint"]
    found, about = asked.arrays(f"d/made/columns/{fingerprint}")
    assert about == {"k": K, "fingerprint": fingerprint}
    assert np.array_equal(found["member_count"], made.counts)
    assert np.allclose(found["coherence"], made.coherence)
    assert np.array_equal(found["first_seen"], made.exemplar_rows)
    assert np.array_equal(found["flags"] & 1 > 0, made.counts == 1)
    one, _ = asked.arrays(f"d/made/columns/{fingerprint}", names="coherence")
    assert list(one) == ["coherence"]
    asked("d/made/columns/0123456789abcdef", status=409)
    asked(f"d/made/columns/{fingerprint}", status=400, names="nothing")


def test_the_sphere_and_the_map_have_a_place_for_every_region(asked):
    fingerprint = asked("d/made")["fingerprint"]
    found, about = asked.arrays(f"d/made/sphere/{fingerprint}")
    assert found["oct"].shape == (K, 2)
    assert sorted(found["lod_order"].tolist()) == list(range(K))
    assert np.allclose(np.linalg.norm(from_octahedral(found["oct"]), axis=1), 1)
    assert found["basis"].shape == (3, D)
    assert set(found["rep"][:, 0].tolist()) == set(np.flatnonzero(found["radius"] == 0).tolist())
    assert 0 <= about["nn10"] <= 1
    layout, labels = asked.arrays(f"d/made/layout/unrolled/{fingerprint}")
    assert layout["xy"].shape == (K, 2)
    assert list(layout) == ["xy"]
    assert labels["labels"][0]["text"]
    assert labels["nn10"] == asked("d/made")["layouts"][0]["fidelity"]["nn10"]
    asked(f"d/made/layout/globe/{fingerprint}", status=404)


NUMBERS = (
    "member_count", "coherence", "mean_dist_theta", "id", "first_seen", "p95_dist_theta",
    "distinct_tokens", "nn1_cos",
)  # fmt: skip
COMPARE = {
    "exact": np.equal, "not": np.not_equal, "gte": np.greater_equal, "gt": np.greater,
    "lte": np.less_equal, "lt": np.less,
}  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(NUMBERS), st.sampled_from(sorted(COMPARE)), st.integers(0, K - 1)
        ),
        max_size=3,
    ),
    st.sampled_from(NUMBERS),
    st.booleans(),
)
def test_filters_and_orders_are_those_of_numpy(asked, filters, sort, descending):
    view = asked.explorer.views["made"]
    values = {name: queries.numbers(view, name) for name in NUMBERS}
    keep = np.ones(K, bool)
    parameters = [("_sort_desc" if descending else "_sort", sort)]
    for name, operation, region in filters:
        value = values[name][region]
        keep &= COMPARE[operation](values[name], value)
        parameters.append((f"{name}__{operation}", repr(float(value))))
    found = queries.matching(Listed(view), parse_query(parameters))
    rows = np.flatnonzero(keep)
    key = values[sort][rows].astype(float)
    expected = rows[np.lexsort((rows, -key if descending else key))]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    "values",
    [
        np.array([3.0, np.nan, 1.0, 3.0, -2.0, np.nan], np.float32),
        np.array([3, -1, 1, 3, 0, -1], np.int32),
        np.array([3, 2**32 - 1, 0, 3, 1, 2**32 - 1], np.uint32),
    ],
)
def test_orders_of_a_column_have_ties_by_region_and_those_without_a_value_last(values):
    column = Column(values, "", "")
    known = np.array([np.nan if values.dtype.kind == "i" and v < 0 else float(v) for v in values])
    some = [k for k in range(len(values)) if not np.isnan(known[k])]
    none = [k for k in range(len(values)) if np.isnan(known[k])]
    assert np.array_equal(np.asarray(column.known, float), known, equal_nan=True)
    assert column.rising.tolist() == sorted(some, key=lambda k: (known[k], k)) + none
    assert column.falling.tolist() == sorted(some, key=lambda k: (-known[k], k)) + none


def test_pages_join_to_the_whole_and_agree_with_the_ids(asked):
    # Equal keys on purpose: many regions have one member count.
    rows = every(asked, _sort_desc="member_count", member_count__lte="5")
    ids = asked.http.get(
        f"{API}/d/made/regions",
        params={"_sort_desc": "member_count", "member_count__lte": "5", "view": "ids"},
    )
    assert np.array_equal(np.frombuffer(ids.content, "<u4"), [row["id"] for row in rows])
    assert int(ids.headers["x-count"]) == len(rows)


def test_texts_are_filtered_as_they_stand(asked):
    view = asked.explorer.views["made"]
    tokens = [dictionary(asked).contexts.region(k)[0].text for k in range(K)]
    some = tokens[7]
    found = [row["id"] for row in every(asked, token__exact=some)]
    assert found == [k for k, token in enumerate(tokens) if token == some]
    part = some.strip()[:2].upper()
    found = [row["id"] for row in every(asked, token__contains=part)]
    assert found == [k for k, token in enumerate(tokens) if part.lower() in token.lower()]
    assert asked("d/made/regions", label__isnull="0")["count"] == 0
    assert asked("d/made/regions", ids="9,3,5,3,100000")["count"] == 3
    assert [row["id"] for row in asked("d/made/regions", ids="9,3,5")["rows"]] == [9, 3, 5]
    assert view.cards.token_texts[view.cards.token_codes[7]] == some


def test_facets_count_what_matched(asked):
    found = asked("d/made/regions", _facet="member_count", coherence__gte="0.7")
    (facet,) = found["facets"]
    assert sum(one["count"] for one in facet["bins"]) == found["count"]
    (facet,) = asked("d/made/regions", _facet="token", _size=1)["facets"]
    tokens = [dictionary(asked).contexts.region(k)[0].text for k in range(K)]
    assert facet["values"][0]["count"] == max(tokens.count(t) for t in set(tokens))
    for one in facet["values"]:
        assert tokens.count(one["value"]) == one["count"]


@pytest.mark.parametrize(
    "query",
    [
        "nothing=1", "member_count__gte=x", "member_count__gte=nan", "member_count__near=1",
        "wrong__gte=1", "_size=0", "_size=201", "_size=1e2", "_next=5", "_next=r-1",
        "_sort=wrong", "_facet=wrong", "label__gte=1", "member_count__contains=1",
        "label__isnull=yes", "ids=1,x", "view=html", "_sort=__class__",
    ],
)  # fmt: skip
def test_what_is_not_known_is_one_sentence(asked, query):
    found = asked(f"d/made/regions?{query}", status=400)
    assert found["ok"] is False
    assert "\n" not in found["error"]


def test_search_finds_words_of_contexts_tokens_and_labels(asked):
    context = dictionary(asked).contexts.region(11)[0]
    word = context.text.strip()
    hits = asked("d/made/search", q=word, k=200)["hits"]
    assert 11 in {hit["id"] for hit in hits}
    for hit in hits:
        units = hit["text"].encode("utf-16-le")
        for start, end in hit["spans"]:
            assert units[2 * start : 2 * end].decode("utf-16-le").lower().startswith(word.lower())
    asked.send("PUT", "d/made/regions/12/label", {"label": "tax and *spend*"})
    first = asked("d/made/search", q="TAX")["hits"][0]
    assert (first["id"], first["field"]) == (12, "label")
    assert asked("d/made/regions", _search="tax")["rows"][0]["label_source"] == "yours"
    assert asked("d/made/search", q="")["hits"] == []
    asked.send("PUT", "d/made/regions/12/label", {"label": ""})


def words_of(text):
    return set(re.findall(r"[^\W_]+", text.lower()))


def test_search_gives_tokens_first_and_then_the_largest(asked):
    made, found = dictionary(asked), asked.explorer.views["made"].cards
    seen = [made.contexts.region(k) for k in range(K)]
    tokens = [words_of(" ".join(c.text for c in kept)) for kept in seen]
    texts = [words_of(" ".join(c.before + c.text + c.after for c in kept)) for kept in seen]
    begun = {text.strip()[:n] for text in (kept[0].text for kept in seen[:40]) for n in (1, 2, 4)}
    words = [kept[0].text.strip() for kept in seen[:20]]
    both = [f"{a} {b[:2]}" for a, b in itertools.pairwise(words)]
    some_in_tokens = 0
    for query in [*sorted(begun), *words, *(f"{w} " for w in words[:5]), *both]:
        *whole, last = query.lower().split()
        ends = query.endswith(" ")

        def has(there, whole=whole, last=last, ends=ends):
            last_there = last in there if ends else any(w.startswith(last) for w in there)
            return last_there and there.issuperset(whole)

        expected = sorted(
            (k for k in range(K) if has(texts[k])),
            key=lambda k: (not has(tokens[k]), -made.counts[k], k),
        )
        assert found.matching(query).tolist() == sorted(expected)
        for limit in (1, 7, 90):
            hits = found.search(query, limit=limit)
            assert [hit.region for hit in hits] == expected[:limit], query
        some_in_tokens += 0 < sum(map(has, tokens)) < len(expected)
    assert some_in_tokens > 10
    assert [hit.region for hit in found.search(query)] == expected


@pytest.mark.parametrize(
    "query", ['"', "*", "a AND", "NEAR(", "x:y", "-a", "^a", "(", "{tokens}", "'; DROP TABLE card"]
)
def test_search_reads_nothing_as_its_own_syntax(asked, query):
    asked("d/made/search", q=query)
    asked("d/made/regions", _search=query)


def test_search_without_a_full_text_index_finds_the_same(tmp_path, monkeypatch):
    made = synthetic(60, 6)
    with_index = opened(tmp_path, made, "with")
    monkeypatch.setattr(cards, "has_full_text", lambda: False)
    without = opened(tmp_path, made, "without")
    assert with_index.cards.full_text
    assert not without.cards.full_text
    word = made.contexts.region(3)[0].text.strip()
    found = set(with_index.cards.matching(word).tolist())
    assert found <= set(without.cards.matching(word).tolist())
    hits = without.cards.search(word)
    assert 3 in {hit.region for hit in hits}
    order = [(hit.field != "token", -made.counts[hit.region], hit.region) for hit in hits]
    assert order == sorted(order)
    assert [hit.region for hit in without.cards.search(word, limit=4)] == [
        hit.region for hit in hits[:4]
    ]
    with_index.close(), without.close()


def test_a_region_page_has_its_sections(asked):
    made = dictionary(asked)
    extras = "members,neighbours,tokens,histogram,lens,drift"
    found = asked("d/made/regions/5", _extra=extras)
    assert found["key"] == region_key(made.exemplars, 5)
    assert found["member_count"] == made.counts[5]
    assert (found["prev"], found["next"]) == (4, 6)
    context = made.contexts.region(5)[0]
    assert found["exemplar"]["context"]["text"] == context.before + context.text + context.after
    founder = next(c for c in made.contexts.region(5) if c.exemplar)
    assert {name: found["exemplar"][name] for name in ("doc", "name", "position", "row")} == {
        "doc": founder.document, "name": founder.name, "position": founder.position,
        "row": founder.row,
    }  # fmt: skip
    assert found["exemplar"]["token_id"] == founder.token
    assert "no lens" in found["lens"]["error"]
    assert sum(found["histogram"]["counts"]) == made.members.histogram[5].sum()
    assert found["tokens"]["sampled"] == 3
    assert asked(f"d/made/regions/{found['key']}")["id"] == 5
    asked("d/made/regions/5·00000000", status=404)
    asked("d/made/regions/500", status=404)
    asked("d/made/regions/-1", status=404)
    asked("d/other/regions/1", status=404)
    asked("d/made/regions/1", status=400, _extra="wrong")
    asked("d/made/regions/1/wrong", status=404)


@pytest.mark.parametrize("width", [3, D])
def test_neighbours_are_the_nearest_and_their_walls_are_real(tmp_path, width):
    made = synthetic(200, width)
    asked, rows = Asked(opened(tmp_path, made)), made.exemplars
    found = []
    for own in (40, 7):
        cosine = rows @ rows[own]
        cosine[own] = -np.inf
        near = asked(f"d/made/regions/{own}/neighbours", k=60)["rows"]
        assert [row["id"] for row in near] == np.argsort(-cosine, kind="stable")[:60].tolist()
        for row in near:
            middle = rows[own].astype(float) + rows[row["id"]]
            middle /= np.linalg.norm(middle)
            reach = rows @ middle
            assert row["boundary"]["shared"] == (reach.max() <= reach[own] + 1e-6)
            assert row["boundary"]["wall_theta"] == pytest.approx((1 - reach[own]) / 0.6, abs=1e-4)
            found.append(row["boundary"]["shared"])
    assert any(found)
    assert not all(found)
    asked.explorer.close()


def test_members_come_by_kind_and_band(asked):
    made = dictionary(asked)
    kept = made.contexts.region(8)
    near = asked("d/made/regions/8/members", kind="nearest", _size=2)
    assert [row["row"] for row in near["rows"]] == [c.row for c in kept[:2]]
    rest = asked("d/made/regions/8/members", kind="nearest", _size=2, _next=near["next"])
    assert len(rest["rows"]) == 1
    far = asked("d/made/regions/8/members", kind="farthest")["rows"]
    assert [row["distance"] for row in far] == sorted((c.distance for c in kept), reverse=True)
    band = asked("d/made/regions/8/members", kind="band", band="0.3-0.5")["rows"]
    assert [row["row"] for row in band] == [
        c.row for c in kept if 0.3 <= c.distance / made.threshold < 0.5
    ]
    for row in far:
        start, end = row["span"]
        assert row["text"].encode("utf-16-le")[2 * start : 2 * end].decode("utf-16-le") in {
            c.text for c in kept
        }
    asked("d/made/regions/8/members", status=400, kind="band")
    asked("d/made/regions/8/members", status=400, kind="worst")


@pytest.mark.parametrize(
    "basis",
    [
        {"kind": "pca", "components": [0, 1, 2]}, {"kind": "pca"}, {"kind": "random", "seed": 4},
        {"kind": "regions", "ids": [1, 20, 300]}, {"kind": "local", "id": 9},
    ],
)  # fmt: skip
def test_a_slice_is_exact(asked, basis):
    found = asked.send("POST", "d/made/slice", {"basis": basis})
    assert found["exact"]
    assert found["cos_theta"] == pytest.approx(1 - found["theta"])
    assert sum(one["f"] for one in found["area_fraction"]) == pytest.approx(1)
    cells = {cell["id"]: cell for cell in found["cells"]}
    for id_ in basis.get("ids", [basis.get("id")]):
        assert id_ is None or id_ in cells
    assert len(found["marks"]) == len(basis.get("ids", [basis["id"]] if "id" in basis else []))


@pytest.mark.parametrize(
    ("basis", "status"),
    [
        ({"kind": "wrong"}, 400), ({}, 400), ({"kind": "regions", "ids": [1, 1, 2]}, 400),
        ({"kind": "regions", "ids": [1, 2]}, 400), ({"kind": "regions", "ids": "abc"}, 400),
        ({"kind": "regions", "ids": [1, 2, 10**9]}, 404), ({"kind": "local", "id": "x"}, 404),
        ({"kind": "pca", "components": [0, 1, 99]}, 400),
        ({"kind": "run", "run": "x", "positions": [1, 2, 3]}, 404),
    ],
)  # fmt: skip
def test_a_slice_that_cannot_be_cut_says_why(asked, basis, status):
    assert asked.send("POST", "d/made/slice", {"basis": basis}, status)["error"]


def test_bodies_are_checked(asked):
    asked.send("POST", "d/made/slice", {"basis": {"kind": "pca"}, "more": 1}, 422)
    asked.send("POST", "d/made/slice", [], 422)
    found = asked.http.post(
        f"{API}/d/made/slice", content=b"{", headers={"Content-Type": "application/json"}
    )
    assert found.status_code == 422
    assert found.json()["ok"] is False


def test_small_and_flat_dictionaries_are_lists_and_not_traces_of_errors(tmp_path):
    flat = np.eye(3, 8, dtype=np.float32)[[0, 1, 0, 1, 0]]
    made = {
        "one": dictionary_of(exemplars(1, 6)),
        "three": dictionary_of(exemplars(3, 6)),
        "four": dictionary_of(exemplars(4, 6)),
        "flat": dictionary_of(flat),
        "bare": dictionary_of(exemplars(30, 6), contexts=0),
        "narrow": dictionary_of(exemplars(9, 2)),
    }
    asked = Asked(*(opened(tmp_path, one, name) for name, one in made.items()))
    for name, one in made.items():
        about = asked(f"d/{name}")
        fingerprint = about["fingerprint"]
        drawn = name in ("four", "bare")
        assert about["sphere"]["status"] == ("ready" if drawn else "unavailable")
        sphere = asked.http.get(f"{API}/d/{name}/sphere/{fingerprint}")
        assert sphere.status_code == (200 if drawn else 409)
        if not drawn:
            assert "see the list" in sphere.json()["error"]
        extras = "members,neighbours,tokens,histogram"
        for region in range(len(one)):
            page = asked(f"d/{name}/regions/{region}", _extra=extras)
            assert all("error" not in page[extra] for extra in extras.split(","))
        assert asked(f"d/{name}/regions", _sort_desc="coherence")["count"] == len(one)
        for kind in ("pca", "random", "local"):
            basis = {"kind": kind, "id": 0}
            answer = asked.http.post(f"{API}/d/{name}/slice", json={"basis": basis})
            assert answer.status_code in (200, 400)
            assert answer.json()["ok"] is (answer.status_code == 200)
    asked.explorer.close()


def test_labels_notes_and_pins_are_kept_beside_the_dictionary(tmp_path):
    made = synthetic(20, 6)
    asked = Asked(opened(tmp_path, made))
    written = asked.send("PUT", "d/made/regions/3/label", {"label": " sea "})
    assert (written["label"], written["label_source"]) == ("sea", "yours")
    notes = asked("notes")
    body = {"pins": [{"dict": "made", "id": 7}], "notes": {"made/2": HOSTILE[1]}}
    asked.send("PUT", "notes", body, **{"If-Match": notes["version"]})
    asked.send("PUT", "notes", body, 412, **{"If-Match": notes["version"]})
    asked.send("PUT", "notes", {"pins": [{"dict": "made", "id": 99}]}, 400)
    asked.send("PUT", "notes", {"pins": [], "notes": {"other/1": "x"}}, 400)
    asked.send("PUT", "d/made/regions/3/label", {"label": "x" * 3000}, 422)
    assert asked("d/made/regions/2")["note"] == HOSTILE[1]
    assert asked("d/made/regions/7")["pinned"]
    asked.explorer.close()
    again = Asked(View(tmp_path / "made", "made", view_of(tmp_path / "made")))
    found = again("notes")
    assert found["labels"] == {"made/3": "sea"}
    assert [pin["id"] for pin in found["pins"]] == [7]
    again.explorer.close()
    # Another dictionary in its place: its regions are other ones, and get no labels.
    ex.save(synthetic(20, 6, seed=9), tmp_path / "made", overwrite=True)
    other = Asked(View(tmp_path / "made", "made", view_of(tmp_path / "made")))
    assert other("notes")["labels"] == {}
    other.explorer.close()
    assert ex.load(tmp_path / "made")


def test_a_reader_without_leave_writes_nothing(tmp_path):
    folder = ex.save(synthetic(12, 6), tmp_path / "made")
    before = sorted(tmp_path.rglob("*"))
    view = View(folder, "made", views.place_of(folder, None, read_only=True))
    view.prepare()
    asked = Asked(view, why_not_write="started with --read-only")
    asked.send("PUT", "d/made/regions/3/label", {"label": "x"}, 403)
    asked.send("PUT", "notes", {}, 403)
    assert asked("app")["reasons"]["write"] == "started with --read-only"
    assert asked("d/made/search", q="a")["fts"]
    assert sorted(tmp_path.rglob("*")) == before
    kept = view.place
    asked.explorer.close()
    assert not kept.exists()


def test_a_folder_that_cannot_be_written_to_works(tmp_path, monkeypatch):
    folder = ex.save(synthetic(12, 6), tmp_path / "made")
    (tmp_path / ".made.explorer").write_text("a file in the way")
    view = View(folder, "made", view_of(folder))
    view.prepare()
    assert view.is_temporary
    assert view.sphere.points.shape == (12, 3)
    view.close()


def test_what_was_prepared_is_read_again_and_made_anew_when_it_is_not_whole(tmp_path, monkeypatch):
    made = synthetic(50, 6)
    view = opened(tmp_path, made)
    place = view.place / view.fingerprint
    files = ("cards.sqlite", "sphere.safetensors", "neighbours.safetensors")
    first = {name: (place / name).read_bytes() for name in files}
    view.close()

    def times():
        return {name: (place / name).stat().st_mtime_ns for name in files}

    kept = times()
    for name in files:
        damaged = bytearray(first[name])
        damaged[len(damaged) // 2] ^= 1
        (place / name).write_bytes(bytes(damaged))
        again = View(tmp_path / "made", "made", view_of(tmp_path / "made"))
        again.prepare()
        assert again.sphere.order.tolist() == view.sphere.order.tolist()
        again.close()
        assert (place / name).read_bytes()[:100] == first[name][:100]
        assert times()[name] != kept[name]
    kept = times()
    whole = View(tmp_path / "made", "made", view_of(tmp_path / "made"))
    whole.prepare()
    whole.close()
    assert times() == kept
    assert not list(place.glob(".*.new"))
    ex.save(synthetic(50, 6, seed=1), tmp_path / "made", overwrite=True)
    new = View(tmp_path / "made", "made", view_of(tmp_path / "made"))
    new.prepare()
    assert new.fingerprint != view.fingerprint
    assert not place.exists()
    new.close()


def test_a_dictionary_is_hashed_again_when_its_files_are_not_those_of_the_last_time(
    tmp_path, monkeypatch
):
    hashed = []
    whole = manifest.sha256_of
    monkeypatch.setattr(manifest, "sha256_of", lambda path: hashed.append(path.name) or whole(path))
    folder = ex.save(synthetic(50, 6), tmp_path / "made")
    place = view_of(folder)
    View(folder, "made", place).close()
    assert "regions.safetensors" in hashed
    hashed.clear()
    View(folder, "made", place).close()
    assert hashed == []
    file = folder / "regions.safetensors"
    os.utime(file, ns=(1, 1))
    View(folder, "made", place).close()
    assert "regions.safetensors" in hashed
    hashed.clear()
    View(folder, "made", place).close()
    assert hashed == []
    times, content = file.stat(), bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))  # as if nothing had happened
    with pytest.raises(FormatError, match="altered"):
        View(folder, "made", place)
    (place / views.fingerprint_of(store.manifest_of(folder)) / "view.json").write_text("[]")
    with pytest.raises(FormatError, match="altered"):
        View(folder, "made", place)


def test_before_everything_is_prepared_the_list_works_and_pictures_say_wait(tmp_path):
    folder = ex.save(synthetic(30, 6), tmp_path / "made")
    view = View(folder, "made", view_of(folder))
    with pytest.raises(NotReadyError):
        _ = view.cards
    asked = Asked(view)
    assert asked("d/made")["sphere"]["status"] == "preparing"
    rows = asked("d/made/regions", _sort_desc="member_count")["rows"]
    assert rows[0]["token"]["text"]
    found = asked.http.get(f"{API}/d/made/sphere/{view.fingerprint}")
    assert (found.status_code, found.headers["retry-after"]) == (202, "1")
    assert found.json()["status"] == "preparing"
    assert asked.http.get(f"{API}/d/made/search?q=a").status_code == 202
    asked.explorer.prepare()
    deadline = time.monotonic() + 20
    while view.status("neighbours")[0] != "ready" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert asked("d/made")["sphere"]["status"] == "ready"
    asked.explorer.close()


def test_hostile_texts_stay_texts(hostile):
    view = hostile.explorer.views["made"]
    rows = hostile("d/made/regions", _size=40)["rows"]
    shown = {row["token"]["text"] for row in rows}
    assert shown <= set(HOSTILE)
    answer = hostile.http.get(f"{API}/d/made/regions/0?_extra=members,tokens,neighbours")
    assert answer.headers["content-type"] == "application/json"
    assert answer.content.isascii()
    for k in range(40):
        member = hostile(f"d/made/regions/{k}/members")["rows"][0]
        start, end = member["span"]
        units = member["text"].encode("utf-16-le")[2 * start : 2 * end]
        assert units.decode("utf-16-le") == view.dictionary.contexts.region(k)[0].text
    for text in HOSTILE:
        hostile("d/made/search", q=text)
        label = hostile.send("PUT", "d/made/regions/1/label", {"label": text})["label"]
        assert label == (text.strip() or None)
        hostile("d/made/regions", _search=text)
        hostile("d/made/regions", token__exact=text)
    hostile.send("PUT", "d/made/regions/1/label", {"label": ""})


def test_a_table_for_spreadsheets_begins_no_formula(hostile):
    found = hostile.http.get(f"{API}/d/made/regions.csv")
    assert found.headers["content-type"].startswith("text/csv")
    assert 'attachment; filename="made-regions.csv"' in found.headers["content-disposition"]
    assert "'=cmd|" in found.text
    assert ",=cmd|" not in found.text


def test_numbers_that_are_none_are_null(tmp_path):
    made = synthetic(10, 5)
    made.members.coherence[3] = np.nan
    asked = Asked(opened(tmp_path, made))
    text = asked.http.get(f"{API}/d/made/regions/3").text
    assert "NaN" not in text
    assert json.loads(text)["coherence"] is None
    assert [row["id"] for row in every(asked, _sort="coherence")][-1] == 3
    assert [row["id"] for row in every(asked, _sort_desc="coherence")][-1] == 3
    asked.explorer.close()


def test_slugs_are_plain_and_apart(tmp_path):
    folders = [tmp_path / "a b", tmp_path / "x" / "a b", tmp_path / "<script>", tmp_path / "..x"]
    assert views.slugs_of(folders) == ["a-b", "a-b~2", "script", "x"]


def test_an_export_is_begun_asked_after_and_fetched(tmp_path):
    asked = Asked(opened(tmp_path, synthetic(30, 6)))
    with asked.http:
        job = asked.send("POST", "export", {"dict": "made", "top": 4})["job"]
        deadline = time.monotonic() + 60
        while (state := asked(f"jobs/{job}"))["state"] == "running":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert state["state"] == "done", state
        assert state["result"]["regions"] == 4
        file = asked.http.get(f"{API}/jobs/{job}/file")
        assert len(file.content) == state["result"]["bytes"]
        assert 'filename="made.html"' in file.headers["content-disposition"]
        asked("jobs/nothing", status=404)
        asked.send("POST", "export", {"dict": "other"}, 404)
        wrong = asked.send("POST", "export", {"dict": "made", "regions": [99]})["job"]
        while (state := asked(f"jobs/{wrong}"))["state"] == "running":
            time.sleep(0.02)
        assert "does not exist" in state["message"]
        asked(f"jobs/{wrong}/file", status=409)
    asked.explorer.close()
