"""Dictionaries in the words of other libraries: a file format each, or a Python class.

| name       | module     | opened by                                            |
|------------|------------|------------------------------------------------------|
| `saelens`  | `saelens`  | SAELens, and what takes its SAEs (SAEDashboard, ...) |
| `sparsify` | `sparsify` | sparsify, delphi, lm-evaluation-harness              |
| (a class)  | `saebench` | SAEBench's evaluations                               |
| (a class)  | `axbench`  | AxBench's training, inference and evaluation         |
| (a file)   | `directions` | of a direction: llama.cpp, repeng, steering-vectors, lm-eval |

    selection, writing ─► saelens, sparsify;  selection ─► saebench, axbench

None of the other libraries is needed to write its format; the classes import theirs when asked for.
"""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Mapping
from typing import Any

from exemplars.dictionary import Dictionary
from exemplars.export.axbench import axbench_model
from exemplars.export.directions import (
    DIRECTION_FORMATS,
    DirectionExport,
    export_direction,
    to_control_vector,
    to_lm_eval,
    to_steering_file,
    to_steering_vector,
)
from exemplars.export.saebench import saebench_sae
from exemplars.export.saelens import to_saelens
from exemplars.export.selection import select_regions, weight_bytes
from exemplars.export.sparsify import to_sparsify
from exemplars.export.writing import Export

__all__ = [
    "DIRECTION_FORMATS",
    "FORMATS",
    "DirectionExport",
    "Export",
    "axbench_model",
    "export_as",
    "export_direction",
    "saebench_sae",
    "select_regions",
    "to_control_vector",
    "to_lm_eval",
    "to_saelens",
    "to_sparsify",
    "to_steering_file",
    "to_steering_vector",
    "weight_bytes",
]

FORMATS: Mapping[str, Callable[..., Export]] = {"saelens": to_saelens, "sparsify": to_sparsify}
"""What writes each format: `f(dictionary, out, **options)`."""


def export_as(
    dictionary: Dictionary, format_: str, out: str | os.PathLike[str], **options: Any
) -> Export:
    """Write a dictionary in a format by its name.

    Args:
        dictionary: What to export.
        format_: A key of `FORMATS`.
        out: The folder.
        options: Of that format; None stands for its default.

    Raises:
        ValueError: An unknown format, or an option that it does not have.
    """
    check_format(format_)
    if format_ not in FORMATS:
        raise ValueError(f"{format_} is a format of directions; use export_direction")
    write = FORMATS[format_]
    given = {name: value for name, value in options.items() if value is not None}
    unknown = set(given) - set(inspect.signature(write).parameters)
    if unknown:
        raise ValueError(f"the format {format_} has no option {', '.join(sorted(unknown))}")
    return write(dictionary, out, **given)


def check_format(format_: str, *more: str) -> None:
    """Refuse a format that there is not.

    Raises:
        ValueError: It is none of `FORMATS` and `DIRECTION_FORMATS`, or of `more`.
    """
    known = (*FORMATS, *DIRECTION_FORMATS, *more)
    if format_ not in known:
        close = difflib.get_close_matches(format_, known, n=1)
        hint = f"; did you mean {close[0]}" if close else ""
        raise ValueError(
            f'there is no format "{format_}", expected one of {", ".join(known)}{hint}'
        )
