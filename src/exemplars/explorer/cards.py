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
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
from numpy.typing import NDArray

from exemplars.dictionary import Dictionary
from exemplars.explorer.offsets import utf16_length

FIELDS = ("token", "context", "lens")
"""What is searched in; labels change, and are searched by whoever holds them."""
_COLUMN_OF = {"token": "tokens", "context": "context", "lens": "lens"}
_NEAREST = 3
_OPEN, _CLOSE = "\x01", "\x02"  # round a match in a snippet; taken out of the texts before
_WORDS = 14
_SHOWN_LENS = 8
_AT_ONCE = 500
_SCHEMA = """
CREATE TABLE card (
    id INTEGER PRIMARY KEY, token TEXT, before TEXT, after TEXT, document INTEGER, name TEXT,
    position INTEGER, token_id INTEGER, code INTEGER, distinct_tokens INTEGER, reads_as TEXT,
    tokens TEXT, context TEXT, lens TEXT
);
CREATE TABLE token (code INTEGER PRIMARY KEY, text TEXT);
"""
_FULL_TEXT = """
CREATE VIRTUAL TABLE found USING fts5(
    tokens, context, lens, content='card', content_rowid='id', tokenize='unicode61'
);
INSERT INTO found(found) VALUES ('rebuild');
"""


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
    score: float
    """Larger is better; only the order within one search means anything."""


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
        marks = ", ".join("?" * 14)
        lines = _lines(dictionary, _promoted(lens, dictionary.n_regions), codes)
        database.executemany(f"INSERT INTO card VALUES ({marks})", lines)
        database.executemany(
            "INSERT INTO token VALUES (?, ?)", ((code, text) for text, code in codes.items())
        )
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
                "SELECT id, token, before, after, document, name, position, token_id, reads_as "
                f"FROM card WHERE id IN ({marks})",
                some,
            )
            for row in rows:
                about = dict(zip(names, row, strict=True))
                found[row[0]] = Card(**about | {"lens": tuple(json.loads(about["lens"]))})
        return found

    def search(
        self, query: str, fields: Sequence[str] = FIELDS, limit: int | None = None
    ) -> list[Hit]:
        """Regions whose texts have all words of a query, the best first.

        Args:
            query: Words; the last may be the beginning of one.
            fields: Of `FIELDS`.
            limit: Hits at most.
        """
        columns = [_COLUMN_OF[field] for field in fields]
        matched = _match(query, columns)
        if not columns or (matched is None and not query.strip()):
            return []
        if self.full_text and matched is not None:
            return self._ranked(matched, fields, limit)
        return self._looked_through(query, fields, limit)

    def matching(self, query: str, fields: Sequence[str] = FIELDS) -> NDArray[np.int64]:
        """All regions that `search` would find, ascending."""
        columns = [_COLUMN_OF[field] for field in fields]
        matched = _match(query, columns)
        if self.full_text and matched is not None and columns:
            rows = self._ask("SELECT rowid FROM found WHERE found MATCH ?", [matched])
            return np.sort(np.array([row[0] for row in rows], np.int64))
        hits = self._looked_through(query, fields, None) if columns else []
        return np.array(sorted(hit.region for hit in hits), np.int64)

    def _ranked(self, matched: str, fields: Sequence[str], limit: int | None) -> list[Hit]:
        order = tuple(_COLUMN_OF)
        # First the best, then their excerpts: those of all matches would take most of the time.
        best = self._ask(
            "SELECT rowid, rank FROM found WHERE found MATCH ? ORDER BY rank, rowid LIMIT ?",
            [matched, -1 if limit is None else limit],
        )
        snippets = ", ".join(
            f"snippet(found, {order.index(field)}, char(1), char(2), '…', {_WORDS})"
            for field in fields
        )
        shown: dict[int, Sequence[str]] = {}
        for start in range(0, len(best), _AT_ONCE):
            some = [row[0] for row in best[start : start + _AT_ONCE]]
            marks = ", ".join("?" * len(some))
            rows = self._ask(
                f"SELECT rowid, {snippets} FROM found WHERE found MATCH ? AND rowid IN ({marks})",
                [matched, *some],
            )
            shown |= {row[0]: row[1:] for row in rows}
        hits = []
        for region, rank in best:
            texts = shown[region]
            k = next((i for i, text in enumerate(texts) if _OPEN in text), 0)
            text, spans = _unmarked(texts[k])
            hits.append(Hit(region, fields[k], text, spans, -float(rank)))
        return hits

    def _looked_through(self, query: str, fields: Sequence[str], limit: int | None) -> list[Hit]:
        """Without a full-text index, or for a query without words: the text as it stands."""
        hits = []
        for field in fields:
            column = _COLUMN_OF[field]
            rows = self._ask(
                f"SELECT id, {column} FROM card WHERE instr(lower({column}), lower(?)) > 0 "
                "ORDER BY id LIMIT ?",
                [query.strip(), -1 if limit is None else limit],
            )
            hits += [
                Hit(region, field, *_found_in(text, query.strip()), 0.0) for region, text in rows
            ]
        first = {hit.region: hit for hit in reversed(hits)}
        ordered = sorted(first.values(), key=lambda hit: hit.region)
        return ordered if limit is None else ordered[:limit]

    def _ask(self, question: str, values: Sequence[Any] = ()) -> list[Any]:
        with self._lock:
            return self._database.execute(question, values).fetchall()


def _match(query: str, columns: Sequence[str]) -> str | None:
    """A query of FTS5 that finds all words of a query, nothing in it read as syntax."""
    words = re.findall(r"[^\W_]+", query)
    if not words:
        return None
    quoted = [f'"{word}"' for word in words]
    if query[-1:].isalnum():
        quoted[-1] += "*"
    return f"{{{' '.join(columns)}}} : ({' AND '.join(quoted)})"


def _unmarked(snippet: str) -> tuple[str, list[list[int]]]:
    """A snippet without its marks, and where they were."""
    spans: list[list[int]] = []
    text, length = [], 0
    for part in re.split(f"([{_OPEN}{_CLOSE}])", snippet):
        if part == _OPEN:
            spans.append([length, length])
        elif part == _CLOSE:
            spans[-1][1] = length
        else:
            text.append(part)
            length += utf16_length(part)
    return "".join(text), spans


def _found_in(text: str, query: str) -> tuple[str, list[list[int]]]:
    """The part of a text round the first place where a query stands."""
    at = text.lower().find(query.lower())
    if at < 0 or len(text.lower()) != len(text):
        return text[:120], []
    start = max(at - 40, 0)
    shown = text[start : at + len(query) + 60]
    begin = utf16_length(text[start:at])
    return shown, [[begin, begin + utf16_length(text[at : at + len(query)])]]


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
    """Without the marks of snippets, and the zero that ends a text in C."""
    return text.replace(_OPEN, " ").replace(_CLOSE, " ").replace("\0", " ")
