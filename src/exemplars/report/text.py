"""Text that is safe to print, tables, sizes, and JSON."""

from __future__ import annotations

import dataclasses
import json
import math
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from exemplars.characters import visible as visible


def to_json(result: Any) -> str:
    """Any result as JSON: records as objects, arrays as lists, NaN and infinity as null."""
    return json.dumps(_plain(result), allow_nan=False)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Aligned columns: numbers to the right, text to the left."""
    cells = [[cell(value) for value in row] for row in rows]
    numeric = [all(_is_number(row[k]) for row in cells) for k in range(len(header))]
    widths = [max(_width(line[k]) for line in [list(header), *cells]) for k in range(len(header))]

    def line(row: Sequence[str]) -> str:
        parts = []
        for k, value in enumerate(row):
            space = " " * (widths[k] - _width(value))
            parts.append(space + value if numeric[k] and cells else value + space)
        return "  ".join(parts).rstrip()

    rule = "  ".join("─" * width for width in widths)
    return "\n".join([line(list(header)), rule, *(line(row) for row in cells)])


def duration(seconds: float) -> str:
    """Seconds as people say them: "8 s", "3 min 20 s", "2 h 5 min"."""
    if not math.isfinite(seconds):
        return "an unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def size(n_bytes: float) -> str:
    """Bytes as people say them: "6.0 kB", "1.2 GB"."""
    for unit in ("B", "kB", "MB", "GB"):
        if abs(n_bytes) < 1000:
            return f"{n_bytes:.0f} B" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"


def cell(value: Any) -> str:
    """A value as a table shows it."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (int, np.integer)):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.4g}"
    return visible(str(value))


def _is_number(text: str) -> bool:
    stripped = text.replace(",", "").rstrip("%")
    if stripped in ("", "nan", "–"):
        return stripped == "nan"
    try:
        float(stripped)
    except ValueError:
        return False
    return True


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining marks none."""
    return sum(
        0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1
        for c in text
    )


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {
            key if isinstance(key, str) else " ".join(map(str, key)) if isinstance(key, tuple)
            else f"{key:g}" if isinstance(key, float) else str(key): _plain(v)
            for key, v in value.items()
        }  # fmt: skip
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    return str(value)
