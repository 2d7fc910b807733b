"""Every kept member is listed once, with its rank in each list and where it was seen."""

from dataclasses import fields

import numpy as np
import pyarrow as pa
import pytest

from exemplars.calibration import Calibration
from exemplars.contexts import (
    SEEN,
    Context,
    TableContexts,
    contexts_from,
    contexts_schema,
    contexts_table,
    kept_row_numbers,
)
from exemplars.dictionary import partition
from exemplars.members import Members, fixed_point


@pytest.fixture(scope="module")
def kept():
    """80 members of regions 0, 1 and 3, with many equal distances; nothing in region 2."""
    rng = np.random.default_rng(0)
    region = rng.choice([0, 1, 1, 1, 3], 80)
    region[:4] = [0, 1, 3, 1]
    distance = rng.integers(0, 20, 80) / 32
    distance[:3] = 0
    members = Members(2, 0.5)
    members.add(fixed_point(np.ones((80, 2), np.float32)), region, distance, np.arange(80), 4)
    return members.kept_rows(), region, distance


def sightings(rows):
    """A text in which the token at row n of the stream reads "t<n>"."""
    return pa.table(
        {
            "row": rows,
            "document": rows // 10,
            "position": rows % 10,
            "token": rows + 1000,
            "before": [f"b{n}" for n in rows],
            "text": [f"t{n}" for n in rows],
            "after": [f"a{n}" for n in rows],
            "name": [f"d{n // 10}" for n in rows],
        }
    )


def test_the_table_has_a_column_for_each_field_of_a_context():
    assert contexts_schema().names == [f.name for f in fields(Context)]


def test_kept_rows_are_listed_once_each_in_the_order_of_region_distance_and_row(kept):
    rows, region, distance = kept
    table = contexts_table(rows, np.array([0, 1, -1, 2]))
    assert table.schema == contexts_schema()
    found = contexts_from(table)
    order = [(c.region, distance[c.row], c.row) for c in found]
    assert order == sorted(set(order))
    assert [c.region for c in found] == region[[c.row for c in found]].tolist()
    np.testing.assert_array_equal(
        [c.distance for c in found], distance[[c.row for c in found]].astype(np.float32)
    )
    assert sorted(c.row for c in found) == kept_row_numbers(rows).tolist()
    listed = {r for part in (rows.nearest_row, rows.farthest_row, rows.sample_row)
              for r in part.ravel().tolist()} - {-1}  # fmt: skip
    assert {c.row for c in found} == listed


@pytest.mark.parametrize("kind", ["nearest", "farthest", "sample"])
def test_a_rank_is_the_place_in_its_list(kept, kind):
    rows = kept[0]
    found = contexts_from(contexts_table(rows, None))
    by_rank = {
        (c.region, getattr(c, f"{kind}_rank")): c.row
        for c in found if getattr(c, f"{kind}_rank") >= 0
    }  # fmt: skip
    lists = getattr(rows, f"{kind}_row")
    expected = {(k, n): row for k, line in enumerate(lists.tolist())
                for n, row in enumerate(line) if row >= 0}  # fmt: skip
    assert by_rank == expected


def test_founders_are_marked_where_they_are_rows_of_this_stream(kept):
    found = contexts_from(contexts_table(kept[0], np.array([0, 1, -1, 2])))
    assert [(c.region, c.row) for c in found if c.exemplar] == [(0, 0), (1, 1), (3, 2)]
    assert not any(c.exemplar for c in contexts_from(contexts_table(kept[0], None)))


def test_each_context_is_what_was_seen_at_its_row(kept):
    rows = kept_row_numbers(kept[0])
    table = contexts_table(kept[0], None, sightings(rows))
    assert table.schema == contexts_schema()
    for c in contexts_from(table):
        assert (c.document, c.position, c.token) == (c.row // 10, c.row % 10, c.row + 1000)
        assert (c.before, c.text, c.after) == (f"b{c.row}", f"t{c.row}", f"a{c.row}")
        assert c.name == f"d{c.row // 10}"


def test_sightings_may_come_in_chunks_and_hold_more_rows_than_are_kept(kept):
    every = sightings(np.arange(80))
    chunked = pa.concat_tables([every.slice(0, 33), every.slice(33)])
    expected = contexts_table(kept[0], None, sightings(kept_row_numbers(kept[0])))
    assert contexts_table(kept[0], None, chunked).equals(expected)


def test_rows_without_a_text_say_so(kept):
    nothing = {name: -1 if name in ("document", "position", "token") else "" for name in SEEN}
    for c in contexts_from(contexts_table(kept[0], None)):
        assert {name: getattr(c, name) for name in SEEN} == nothing


def test_the_contexts_of_one_region_are_its_own_by_distance(kept):
    table = contexts_table(kept[0], None)
    contexts = TableContexts(table)
    every = [contexts.region(k) for k in range(4)]
    assert [c for part in every for c in part] == contexts_from(table)
    assert [{c.region for c in part} for part in every] == [{0}, {1}, set(), {3}]
    assert contexts.table() is table
    distances = [c.distance for c in every[1]]
    assert distances == sorted(distances)


def test_no_members_make_an_empty_table():
    empty = contexts_table(Members(2, 0.5).kept_rows(), np.empty(0, np.int64))
    assert empty.num_rows == 0
    assert empty.schema == contexts_schema()
    assert kept_row_numbers(Members(2, 0.5).kept_rows()).tolist() == []


def test_a_partition_of_arrays_names_its_rows_and_its_exemplar_first():
    x = np.random.default_rng(0).standard_normal((500, 4)).astype(np.float32)
    made = partition(x, Calibration(np.zeros(4, np.float32), {5.0: 0.5}, 1, 2048))
    for k in range(len(made)):
        first = made.region(k).contexts[0]
        assert (first.row, first.exemplar) == (made.exemplar_rows[k], True)
        assert first.distance == first.nearest_rank == 0
        assert sum(c.exemplar for c in made.region(k).contexts) == 1
        assert sum(c.sample_rank >= 0 for c in made.region(k).contexts) == min(30, made.counts[k])
