"""Lists of regions: filters, search, order, facets, and the rows that are shown."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.explorer.cards import FIELDS, Card
from exemplars.explorer.columns import Column
from exemplars.explorer.offsets import excerpt_of, utf16_length
from exemplars.explorer.views import NotReadyError, View, finite, region_key
from exemplars.geometry import Int64

OPERATIONS = ("exact", "not", "gte", "gt", "lte", "lt", "in", "contains", "isnull")
TEXT_COLUMNS = ("label", "label_source", "token")
PAGE = 200
"""Rows of a page, at most."""
_DEFAULT_PAGE = 50
_BINS = 24
_VALUES = 20
_LOGARITHMIC = ("member_count", "first_seen", "distinct_tokens")
_MAX_CSV = 10_000

Labels = Mapping[int, tuple[str, str]]
"""Text and source ("yours", "auto") of the labels of regions."""


@dataclass(frozen=True)
class Query:
    """What is asked of a list."""

    filters: tuple[tuple[str, str, str], ...] = ()
    """(column, operation, value)."""
    sort: str | None = None
    descending: bool = False
    size: int = _DEFAULT_PAGE
    start: int = 0
    search: str = ""
    facets: tuple[str, ...] = ()
    ids: tuple[int, ...] | None = None
    """These regions alone; in this order, unless another is asked for."""


@dataclass(frozen=True)
class Listed:
    """What a list is made of."""

    view: View
    labels: Labels = field(default_factory=dict)


def labels_of(view: View, own: Mapping[int, str]) -> Labels:
    """A reader's labels before those that came with the dictionary."""
    auto = {region: (text, "auto") for region, text in view.auto_labels.items()}
    return {**auto, **{region: (text, "yours") for region, text in own.items()}}


def parse_query(parameters: Iterable[tuple[str, str]], also: Sequence[str] = ()) -> Query:
    """A query from the parameters of an address.

    Args:
        parameters: (name, value) pairs.
        also: Names that mean something to the caller, and are passed over.

    Raises:
        ValueError: An unknown parameter, operation or column, or a value out of range.
    """
    filters, facets = [], []
    plain: dict[str, str] = {}
    for name, value in parameters:
        column, mark, operation = name.rpartition("__")
        if name == "_facet":
            facets.append(_known(value, ("parent", *_numeric_names(), *TEXT_COLUMNS)))
        elif mark and not name.startswith("_") and column:
            if operation not in OPERATIONS:
                raise ValueError(
                    f"the operation {operation[:40]!r} is not known; use {', '.join(OPERATIONS)}"
                )
            filters.append((_known(column, (*_numeric_names(), *TEXT_COLUMNS)), operation, value))
        elif name in ("_sort", "_sort_desc", "_size", "_next", "_search", "ids"):
            plain[name] = value
        elif name not in also:
            raise ValueError(f"the parameter {name[:60]!r} is not known; see openapi.json")
    sort = plain.get("_sort_desc", plain.get("_sort"))
    if sort is not None:
        _known(sort, (*_numeric_names(), *TEXT_COLUMNS))
    return Query(
        filters=tuple(filters),
        sort=sort,
        descending="_sort_desc" in plain,
        size=_whole(plain.get("_size", str(_DEFAULT_PAGE)), "_size", 1, PAGE),
        start=start_of(plain.get("_next")),
        search=plain.get("_search", ""),
        facets=tuple(facets),
        ids=_ids(plain["ids"]) if "ids" in plain else None,
    )


def matching(listed: Listed, query: Query) -> Int64:
    """Regions that a query finds, in its order; ties by region."""
    view = listed.view
    n = view.dictionary.n_regions
    keep = np.ones(n, np.bool_)
    if query.ids is not None:
        keep[:] = False
        keep[[k for k in query.ids if 0 <= k < n]] = True
    for column, operation, value in query.filters:
        keep &= _filtered(listed, column, operation, value)
    if query.search.strip():
        found = np.zeros(n, np.bool_)
        found[view.cards.matching(query.search)] = True
        found[_labelled_like(listed.labels, query.search)] = True
        keep &= found
    regions = np.flatnonzero(keep)
    if query.sort is None:
        if query.ids is not None:
            asked = list(dict.fromkeys(k for k in query.ids if 0 <= k < n))
            return np.array([k for k in asked if keep[k]], np.int64)
        return regions
    if query.sort == "id":
        return regions[::-1] if query.descending else regions
    if query.sort not in TEXT_COLUMNS:
        sorted_by = _column(view, query.sort)
        order = sorted_by.falling if query.descending else sorted_by.rising
        return order[keep[order]].astype(np.int64)
    ranks = _ranks(listed, query.sort)
    values = np.where(ranks < 0, np.nan, ranks.astype(np.float64))[regions]
    return regions[np.argsort(-values if query.descending else values, kind="stable")]


def page(listed: Listed, query: Query) -> dict[str, Any]:
    """A page of rows, with the facets of all that matched."""
    found = matching(listed, query)
    stop = query.start + query.size
    return {
        "rows": rows(listed, found[query.start : stop]),
        "next": f"r{stop}" if stop < len(found) else None,
        "count": len(found),
        "facets": [facet(listed, name, found) for name in query.facets],
    }


def rows(listed: Listed, regions: Iterable[Any]) -> list[dict[str, Any]]:
    """What a list shows of regions."""
    view = listed.view
    numbers_ = [int(k) for k in regions]
    cards = cards_of(view, numbers_)
    taken = {
        name: column.values[numbers_] for name, column in view.columns.items() if len(numbers_)
    }
    return [
        _row(listed, region, cards.get(region), {name: v[i] for name, v in taken.items()})
        for i, region in enumerate(numbers_)
    ]


def brief(listed: Listed, regions: Iterable[Any]) -> dict[int, dict[str, Any]]:
    """The little that is said of a region beside others."""
    return {
        row["id"]: {key: row[key] for key in ("id", "key", "label", "token", "member_count")}
        for row in rows(listed, regions)
    }


def cards_of(view: View, regions: Sequence[int]) -> dict[int, Card]:
    """Cards of regions; from the contexts themselves until they are prepared."""
    try:
        return view.cards.cards(regions)
    except NotReadyError:
        return {k: card for k in regions if (card := _card_from_contexts(view, k)) is not None}


def facet(listed: Listed, name: str, regions: Int64) -> dict[str, Any]:
    """How many of some regions have each value of a column, or fall in each bin."""
    if name in TEXT_COLUMNS:
        texts, ranks = _texts(listed, name), _ranks(listed, name)[regions]
        counted = np.bincount(ranks[ranks >= 0], minlength=len(texts))
        return {"name": name, "kind": "values", "values": _most(counted, texts)}
    values = numbers(listed.view, name)[regions].astype(np.float64)
    values = values[np.isfinite(values)]
    if name == "parent":
        counted = np.bincount(values.astype(np.int64))
        return {"name": name, "kind": "values", "values": _most(counted, range(len(counted)))}
    return {"name": name, "kind": "histogram", "bins": _bins(values, name in _LOGARITHMIC)}


def table_csv(listed: Listed, query: Query) -> tuple[str, bool]:
    """Rows as CSV, and whether some were left out.

    A cell that a spreadsheet would take for a formula begins with an apostrophe.
    """
    found = matching(listed, query)
    out = io.StringIO()
    names = (
        "id", "key", "label", "token", "member_count", "share", "coherence", "mean_dist_theta",
        "p95_dist_theta", "first_seen", "distinct_tokens",
    )  # fmt: skip
    writer = csv.writer(out)
    writer.writerow([*names, "context"])
    for row in rows(listed, found[:_MAX_CSV]):
        cells = [row[name] for name in names]
        cells[3] = row["token"]["text"]
        writer.writerow([_cell(cell) for cell in (*cells, row["context"]["text"])])
    return out.getvalue(), len(found) > _MAX_CSV


def numbers(view: View, name: str) -> NDArray[Any]:
    """(K,) a numeric column.

    Raises:
        ValueError: It is not known of this dictionary.
    """
    return np.arange(view.dictionary.n_regions) if name == "id" else _column(view, name).known


def _column(view: View, name: str) -> Column:
    column = view.column(name)
    if column is None:
        raise ValueError(
            f"{name} is not known of this dictionary (yet); it has {', '.join(view.columns)}"
        )
    return column


def search(
    listed: Listed, text: str, fields: Sequence[str], limit: int
) -> tuple[list[dict[str, Any]], bool]:
    """Hits of a search, those in labels first, and whether there are more."""
    hits: list[dict[str, Any]] = []
    for region in _labelled_like(listed.labels, text) if "label" in fields else []:
        label = listed.labels[region][0]
        at = label.lower().find(text.strip().lower())
        begin = utf16_length(label[:at])
        span = [begin, begin + utf16_length(text.strip())]
        same = len(label.lower()) == len(label)
        spans = [span] if same else []
        hits.append({"id": region, "field": "label", "text": label, "spans": spans})
    known = {hit["id"] for hit in hits}
    others = [name for name in fields if name in FIELDS]
    for hit in listed.view.cards.search(text, others, limit + 1 + len(known)):
        if hit.region not in known:
            hits.append(
                {
                    "id": hit.region,
                    "field": hit.field,
                    "text": hit.text,
                    "spans": hit.spans,
                }
            )
    truncated = len(hits) > limit
    about = brief(listed, [hit["id"] for hit in hits[:limit]])
    return [about[hit["id"]] | hit for hit in hits[:limit]], truncated


def _row(
    listed: Listed, region: int, card: Card | None, values: Mapping[str, Any]
) -> dict[str, Any]:
    label = listed.labels.get(region)
    parent = values.get("parent")
    return {
        "id": region,
        "key": region_key(listed.view.dictionary.exemplars, region),
        "label": label[0] if label else None,
        "label_source": label[1] if label else None,
        "token": {"text": card.token if card else ""},
        "context": excerpt_of(card.before, card.token, card.after)
        if card
        else excerpt_of("", "", ""),
        "member_count": int(values["member_count"]),
        "distinct_tokens": int(values["distinct_tokens"]) if "distinct_tokens" in values else None,
        "lens": list(card.lens) if card else [],
        "parent": int(parent) if parent is not None and parent >= 0 else None,
        **{
            name: finite(values[name]) if name in values else None
            for name in (
                "share", "coherence", "mean_dist_theta", "p95_dist_theta", "first_seen",
                "nn1_cos", "parent_share", "pieces", "lens_entropy", "change_cosine",
            )
        },
    }  # fmt: skip


def _card_from_contexts(view: View, region: int) -> Card | None:
    contexts = view.dictionary.contexts
    seen = contexts.region(region) if contexts is not None else []
    if not seen:
        return None
    c = next((one for one in seen if one.exemplar), seen[0])
    founder = c.row if c.exemplar else None
    return Card(
        region, c.text, c.before, c.after, c.document, c.name, c.position, c.token, founder, ()
    )


def _filtered(listed: Listed, column: str, operation: str, value: str) -> NDArray[np.bool_]:
    if column in TEXT_COLUMNS:
        return _filtered_text(listed, column, operation, value)
    values = numbers(listed.view, column).astype(np.float64)
    if operation == "isnull":
        return np.equal(np.isnan(values), _truth(value))
    if operation == "contains":
        raise ValueError(f"{column} is a number, which contains nothing; use exact, gte or in")
    if operation == "in":
        return np.isin(values, [_number(part, column) for part in value.split(",")])
    compare: dict[str, Callable[[Any, Any], Any]] = {
        "exact": np.equal, "not": np.not_equal, "gte": np.greater_equal, "gt": np.greater,
        "lte": np.less_equal, "lt": np.less,
    }  # fmt: skip
    # Columns are float32: a number as it was shown must equal itself.
    wanted = _number(value, column)
    if numbers(listed.view, column).dtype == np.float32:
        wanted = float(np.float32(wanted))
    found: NDArray[np.bool_] = compare[operation](values, wanted) & ~np.isnan(values)
    return found


def _filtered_text(listed: Listed, column: str, operation: str, value: str) -> NDArray[np.bool_]:
    texts, ranks = _texts(listed, column), _ranks(listed, column)
    if operation == "isnull":
        return np.equal(ranks < 0, _truth(value))
    tests: dict[str, Callable[[str], bool]] = {
        "exact": lambda text: text == value,
        "not": lambda text: text != value,
        "contains": lambda text: value.casefold() in text.casefold(),
        "in": lambda text: text in value.split(","),
    }
    if operation not in tests:
        raise ValueError(f"{column} is a text, which has no order; use exact, not, contains or in")
    wanted = np.array([tests[operation](text) for text in texts] + [False], np.bool_)
    return wanted[ranks]


def _texts(listed: Listed, column: str) -> list[str]:
    """Distinct values of a column of texts; of tokens in the order of their codes."""
    if column == "token":
        return listed.view.cards.token_texts
    which = 0 if column == "label" else 1
    return sorted({label[which] for label in listed.labels.values()})


def _ranks(listed: Listed, column: str) -> NDArray[np.int64]:
    """(K,) which of `_texts` each region has; -1 for none. Of tokens in order of text."""
    if column == "token":
        return listed.view.cards.token_codes.astype(np.int64)
    number = {text: i for i, text in enumerate(_texts(listed, column))}
    which = 0 if column == "label" else 1
    found = np.full(listed.view.dictionary.n_regions, -1, np.int64)
    for region, label in listed.labels.items():
        found[region] = number[label[which]]
    return found


def _labelled_like(labels: Labels, text: str) -> list[int]:
    wanted = text.strip().casefold()
    return sorted(k for k, (label, _) in labels.items() if wanted and wanted in label.casefold())


def _bins(values: NDArray[np.float64], logarithmic: bool) -> list[dict[str, Any]]:
    if not len(values):
        return []
    low, high = float(values.min()), float(values.max())
    if low == high:
        return [{"lo": low, "hi": high, "count": len(values)}]
    if logarithmic:
        edges = np.expm1(np.linspace(np.log1p(low), np.log1p(high), _BINS + 1))
        edges[0], edges[-1] = low, high
    else:
        edges = np.linspace(low, high, _BINS + 1)
    counted = np.histogram(values, edges)[0]
    return [
        {"lo": float(edges[i]), "hi": float(edges[i + 1]), "count": int(n)}
        for i, n in enumerate(counted)
    ]


def _most(counted: NDArray[np.int64], values: Sequence[Any]) -> list[dict[str, Any]]:
    order = np.argsort(-counted, kind="stable")[:_VALUES]
    return [{"value": values[k], "count": int(counted[k])} for k in order if counted[k]]


def _numeric_names() -> tuple[str, ...]:
    return (
        "id", "member_count", "share", "coherence", "mean_dist_theta", "p95_dist_theta",
        "first_seen", "distinct_tokens", "nn1", "nn1_cos", "parent", "parent_share",
        "pieces", "lens_entropy", "change_cosine",
    )  # fmt: skip


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise ValueError(f"the column {name[:60]!r} is not known; there are {', '.join(names)}")
    return name


def _number(text: str, column: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = float("nan")
    if not np.isfinite(found):
        raise ValueError(f"{text[:40]!r} was given for {column}, expected a number")
    return found


def _truth(text: str) -> bool:
    if text not in ("0", "1"):
        raise ValueError(f"{text[:40]!r} was given for isnull, expected 0 or 1")
    return text == "1"


def _whole(text: str, name: str, low: int, high: int) -> int:
    found = int(text) if re.fullmatch("[0-9]{1,9}", text) else -1
    if not low <= found <= high:
        raise ValueError(f"{name} is {text[:40]!r}, expected a number from {low} to {high}")
    return found


def whole(parameters: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    """A whole number among parameters.

    Raises:
        ValueError: It is none, or out of range.
    """
    return _whole(parameters.get(name, str(default)), name, low, high)


def start_of(text: str | None) -> int:
    """Where a page begins, from what an earlier page gave as its "next"."""
    if text is None:
        return 0
    if not re.fullmatch("r[0-9]{1,9}", text):
        raise ValueError(f"_next is {text[:40]!r}, expected what an earlier page gave")
    return int(text[1:])


def _ids(text: str) -> tuple[int, ...]:
    parts = [part for part in text.split(",") if part]
    if len(parts) > 5000 or not all(re.fullmatch("[0-9]{1,9}", part) for part in parts):
        raise ValueError("ids are not up to 5,000 numbers with commas between them")
    return tuple(map(int, parts))


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value[:1] in ("=", "+", "-", "@", "\t", "\r"):
        return "'" + value
    return "" if value is None else value
