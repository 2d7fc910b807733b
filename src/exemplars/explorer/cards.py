"""The texts of regions in a SQLite file: what a row of a list shows, and what search looks in.

SQLite's full-text index (FTS5) is used where it was compiled in; otherwise search looks through
the cards for the words as they stand.
"""

from __future__ import annotations

import contextlib
import json
import re
import sqlite3
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Dictionary
from exemplars.explorer.offsets import utf16_offsets

FIELDS = ("token", "context", "lens")
"""What is searched in; labels change, and are searched by whoever holds them."""
_COLUMN_OF = {"token": "tokens", "context": "context", "lens": "lens"}
_NEAREST = 3
_BEFORE, _AFTER = 40, 100  # characters of an excerpt, from the first match on
_WORD = re.compile(r"[^\W_]+")

Words = tuple[tuple[str, ...], str]
"""Whole words, and the beginning of one (or nothing)."""
_SHOWN_LENS = 8
_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE card (
    id INTEGER PRIMARY KEY, token TEXT, before TEXT, after TEXT, document INTEGER, name TEXT,
    position INTEGER, token_id INTEGER, founder INTEGER, code INTEGER, distinct_tokens INTEGER,
    reads_as TEXT, tokens TEXT, context TEXT, lens TEXT
);
CREATE TABLE token (code INTEGER PRIMARY KEY, text TEXT);
CREATE TABLE place (place INTEGER PRIMARY KEY, region INTEGER);
"""
_FULL_TEXT = """
CREATE VIRTUAL TABLE found USING fts5(
    tokens, context, lens, content='', columnsize=0, prefix='1 2 3', tokenize='unicode61'
);
INSERT INTO found(rowid, tokens, context, lens)
    SELECT place, tokens, context, lens FROM place CROSS JOIN card ON card.id = place.region
    ORDER BY place;
"""
"""Rows are numbered by members, so that the first matches are those of the largest regions: no
other match is looked at. The beginnings of words have lists of their own."""


@dataclass(frozen=True)
class Card:
    """The exemplar of a region where it was seen."""

    region: int
    token: str
    before: str
    after: str
    document: int
    name: str
    position: int
    token_id: int
    founder: int | None
    """Row of the stream where the exemplar was seen; None where a member stands in for it."""
    lens: tuple[str, ...]
    """Tokens that the exemplar promotes, if that is stored."""


@dataclass(frozen=True)
class Hit:
    """A region that a search found."""

    region: int
    field: str
    text: str
    spans: list[list[int]]
    """[start, end) of the matches in `text`, in UTF-16 code units."""


def has_full_text() -> bool:
    """Whether this SQLite has FTS5."""
    with contextlib.closing(sqlite3.connect(":memory:")) as database:
        options = {row[0] for row in database.execute("PRAGMA compile_options")}
    return "ENABLE_FTS5" in options


def write_cards(path: Path, dictionary: Dictionary, lens: Any = None) -> None:
    """Write the cards of all regions to a new file.

    Args:
        path: That does not exist.
        dictionary: With contexts or without.
        lens: The table stored beside it, or None.
    """
    codes: dict[str, int] = {}
    with contextlib.closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode = OFF")
        database.execute("PRAGMA synchronous = OFF")
        database.executescript(_SCHEMA)
        marks = ", ".join("?" * 15)
        lines = _lines(dictionary, _promoted(lens, dictionary.n_regions), codes)
        database.executemany(f"INSERT INTO card VALUES ({marks})", lines)
        database.executemany(
            "INSERT INTO token VALUES (?, ?)", ((code, text) for text, code in codes.items())
        )
        largest_first = np.argsort(-np.asarray(dictionary.counts), kind="stable")
        database.executemany("INSERT INTO place VALUES (?, ?)", enumerate(largest_first.tolist()))
        if has_full_text():
            database.executescript(_FULL_TEXT)
        database.commit()


class Cards:
    """An open file of cards. One connection, one question at a time.

    Args:
        path: That `write_cards` wrote.
        n_regions: K.
    """

    def __init__(self, path: Path, n_regions: int) -> None:
        self._lock = threading.Lock()
        name = f"file:{quote(str(path.resolve()))}?mode=ro&immutable=1"
        self._database = sqlite3.connect(name, uri=True, check_same_thread=False)
        tables = {row[0] for row in self._ask("SELECT name FROM sqlite_master")}
        self.full_text = "found" in tables
        self.token_texts = [row[0] for row in self._ask("SELECT text FROM token ORDER BY code")]
        """Distinct tokens of exemplars; `token_codes` points into it."""
        found = np.array(self._ask("SELECT id, code, distinct_tokens FROM card"), np.int64)
        self.token_codes: NDArray[np.int32] = np.full(n_regions, -1, np.int32)
        """(K,) the token of each region's exemplar; -1 where no context is known."""
        self.distinct_tokens: NDArray[np.uint32] = np.zeros(n_regions, np.uint32)
        """(K,) distinct tokens among the contexts that are kept."""
        if len(found):
            self.token_codes[found[:, 0]] = found[:, 1]
            self.distinct_tokens[found[:, 0]] = found[:, 2]
        places = [row[0] for row in self._ask("SELECT region FROM place ORDER BY place")]
        self._largest_first = np.array(places, np.int64)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._database.close()

    def cards(self, regions: Sequence[int]) -> dict[int, Card]:
        """Cards by region; regions without one are left out."""
        found: dict[int, Card] = {}
        names = [field.name for field in fields(Card)]
        for start in range(0, len(regions), _AT_ONCE):
            some = [int(k) for k in regions[start : start + _AT_ONCE]]
            marks = ", ".join("?" * len(some))
            rows = self._ask(
                "SELECT id, token, before, after, document, name, position, token_id, founder, "
                f"reads_as FROM card WHERE id IN ({marks})",
                some,
            )
            for row in rows:
                about = dict(zip(names, row, strict=True))
                found[row[0]] = Card(**about | {"lens": tuple(json.loads(about["lens"]))})
        return found

    def search(
        self, query: str, fields: Sequence[str] = FIELDS, limit: int | None = None
    ) -> list[Hit]:
        """Regions whose texts have all words of a query.

        Those whose tokens have them come first, and then those with more members; ties by region.

        Args:
            query: Words; the last may be the beginning of one.
            fields: Of `FIELDS`.
            limit: Hits at most.
        """
        columns = [_COLUMN_OF[field] for field in fields]
        matched = _match(query, columns)
        if not columns or (matched is None and not query.strip()):
            return []
        if not self.full_text or matched is None:
            return self._looked_through(query, fields, limit)
        found: list[int] = []
        if "token" in fields:
            found = self._first(_match(query, [_COLUMN_OF["token"]]), limit)
        if limit is None or len(found) < limit:
            found = list(dict.fromkeys([*found, *self._first(matched, limit)]))[:limit]
        return self._hits(found, _words(query), fields)

    def matching(self, query: str, fields: Sequence[str] = FIELDS) -> NDArray[np.int64]:
        """All regions that `search` would find, ascending."""
        columns = [_COLUMN_OF[field] for field in fields]
        matched = _match(query, columns)
        if self.full_text and matched is not None and columns:
            # One text of numbers: rows of one number each take three times as long.
            ((numbers,),) = self._ask(
                "SELECT group_concat(rowid, ' ') FROM found WHERE found MATCH ?", [matched]
            )
            places = np.fromstring(numbers or "", np.int64, sep=" ")
            return np.sort(self._largest_first[places])
        hits = self._looked_through(query, fields, None) if columns else []
        return np.array(sorted(hit.region for hit in hits), np.int64)

    def _first(self, matched: str | None, limit: int | None) -> list[int]:
        """Regions that a query of the index finds, those with most members first."""
        rows = self._ask(
            "SELECT rowid FROM found WHERE found MATCH ? ORDER BY rowid LIMIT ?",
            [matched, -1 if limit is None else limit],
        )
        found: list[int] = self._largest_first[[row[0] for row in rows]].tolist()
        return found

    def _hits(self, regions: Sequence[int], words: Words, fields: Sequence[str]) -> list[Hit]:
        """Where in the texts of regions the words are: in the first field that has one."""
        columns = ", ".join(_COLUMN_OF[field] for field in fields)
        texts: dict[int, Sequence[str]] = {}
        for start in range(0, len(regions), _AT_ONCE):
            some = regions[start : start + _AT_ONCE]
            marks = ", ".join("?" * len(some))
            rows = self._ask(f"SELECT id, {columns} FROM card WHERE id IN ({marks})", some)
            texts |= {row[0]: row[1:] for row in rows}
        hits = []
        for region in regions:
            places = [_places(text, words) for text in texts[region]]
            k = max(range(len(fields)), key=lambda i: (bool(places[i]), -i))
            text, spans = _excerpt(texts[region][k], places[k])
            hits.append(Hit(region, fields[k], text, spans))
        return hits

    def _looked_through(self, query: str, fields: Sequence[str], limit: int | None) -> list[Hit]:
        """Without a full-text index, or for a query without words: the text as it stands."""
        wanted = query.strip()
        found: dict[int, tuple[tuple[bool, int], Hit]] = {}
        for field in fields:
            column = _COLUMN_OF[field]
            rows = self._ask(
                f"SELECT place, region, {column} FROM place CROSS JOIN card ON card.id = region "
                f"WHERE instr(lower({column}), lower(?)) > 0 ORDER BY place LIMIT ?",
                [wanted, -1 if limit is None else limit],
            )
            for place, region, text in rows:
                at = text.lower().find(wanted.lower())
                text, spans = _excerpt(text, [(at, at + len(wanted))] if at >= 0 else [])
                order = (field != "token", place)
                found.setdefault(region, (order, Hit(region, field, text, spans)))
        return [hit for _, hit in sorted(found.values(), key=lambda one: one[0])][:limit]

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._database.execute(question, values).fetchall()


def _words(query: str) -> Words:
    """The words of a query, folded; the last is a beginning if nothing follows it."""
    found = _WORD.findall(query)
    if not found or not query[-1:].isalnum():
        return tuple(map(_folded, found)), ""
    return tuple(map(_folded, found[:-1])), _folded(found[-1])


def _match(query: str, columns: Sequence[str]) -> str | None:
    """A query of FTS5 that finds all words of a query, nothing in it read as syntax."""
    whole, beginning = _words(query)
    quoted = [f'"{word}"' for word in whole] + ([f'"{beginning}"*'] if beginning else [])
    return f"{{{' '.join(columns)}}} : ({' AND '.join(quoted)})" if quoted else None


def _folded(word: str) -> str:
    """Without case and diacritics, as the index compares."""
    split = unicodedata.normalize("NFKD", word.casefold())
    return "".join(c for c in split if not unicodedata.combining(c))


def _places(text: str, words: Words) -> list[tuple[int, int]]:
    """Where words stand in a text, in characters."""
    whole, beginning = words
    return [
        found.span()
        for found in _WORD.finditer(text)
        if (word := _folded(found[0])) in whole or (beginning and word.startswith(beginning))
    ]


def _excerpt(text: str, places: Sequence[tuple[int, int]]) -> tuple[str, list[list[int]]]:
    """The part of a text round the first place, and all places in it, in UTF-16 code units."""
    at = places[0][0] if places else 0
    start = max(at - _BEFORE, 0)
    shown = text[start : at + _AFTER]
    inside = [(a - start, b - start) for a, b in places if b - start <= len(shown)]
    before = "…" if start else ""
    after = "…" if start + len(shown) < len(text) else ""
    shown = before + shown + after
    edges = [edge + len(before) for pair in inside for edge in pair]
    offsets = utf16_offsets(shown, edges).tolist()
    return shown, [offsets[i : i + 2] for i in range(0, len(offsets), 2)]


def _promoted(lens: Any, n_regions: int) -> list[list[str]] | None:
    """Tokens that each exemplar promotes, from the stored table."""
    if lens is None or "exemplar_promoted" not in lens.schema.names or len(lens) != n_regions:
        return None
    found = lens["exemplar_promoted"].to_pylist()
    return [[str(token) for token in (tokens or [])[:_SHOWN_LENS]] for tokens in found]


def _lines(
    dictionary: Dictionary, promoted: list[list[str]] | None, codes: dict[str, int]
) -> Iterator[tuple[Any, ...]]:
    """Lines of the table `card`; new tokens get the next code."""
    done: set[int] = set()
    tables: Iterable[Any] = dictionary.contexts.tables() if dictionary.contexts is not None else ()
    for table in tables:
        tokens = _tokens_of_regions(table)
        for region, shown in _shown_of_regions(table):
            first = shown[0]
            reads_as = promoted[region] if promoted else []
            done.add(region)
            yield (
                region, first["text"], first["before"], first["after"], first["document"],
                first["name"], first["position"], first["token"],
                first["row"] if first["exemplar"] else None,
                codes.setdefault(first["text"], len(codes)), len(tokens[region]),
                json.dumps(reads_as), _plain(" ".join(tokens[region])),
                _plain("\n".join(c["before"] + c["text"] + c["after"] for c in shown)),
                _plain(" ".join(reads_as)),
            )  # fmt: skip
    if promoted:
        for region, reads_as in enumerate(promoted):
            if region not in done and reads_as:
                text = _plain(" ".join(reads_as))
                yield (
                    region,
                    *("",) * 3,
                    -1,
                    "",
                    -1,
                    -1,
                    None,
                    -1,
                    0,
                    json.dumps(reads_as),
                    "",
                    "",
                    text,
                )


def _tokens_of_regions(table: Any) -> dict[int, list[str]]:
    """Distinct texts of the contexts' tokens, by region."""
    grouped = table.select(["region", "text"]).group_by("region").aggregate([("text", "distinct")])
    return dict(
        zip(grouped["region"].to_pylist(), grouped["text_distinct"].to_pylist(), strict=True)
    )


def _shown_of_regions(table: Any) -> Iterator[tuple[int, list[dict[str, Any]]]]:
    """Of each region the founder, and after it the nearest members."""
    rank = table["nearest_rank"].to_numpy()
    founder = table["exemplar"].to_numpy(zero_copy_only=False)
    regions = table["region"].to_numpy()
    first = np.ones(len(regions), np.bool_)
    first[1:] = regions[1:] != regions[:-1]
    kept = np.flatnonzero(founder | ((rank >= 0) & (rank < _NEAREST)) | first)
    region: int | None = None
    shown: list[dict[str, Any]] = []
    for line in table.take(kept).to_pylist():
        if line["region"] != region:
            if region is not None:
                yield region, shown
            region, shown = line["region"], []
        shown.insert(0 if line["exemplar"] else len(shown), line)
    if region is not None:
        yield region, shown


def _plain(text: str) -> str:
    """Without the zero that ends a text in C."""
    return text.replace("\0", " ")
