"""In how two dictionaries were made differently: what a difference between them may be due to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from exemplars.dictionary import Dictionary

SAME_CENTER = 1e-3
"""Distance of two centers, in median centered norms, up to which they count as one."""
ALIKE_ROWS = 1.5
"""Ratio of rows read up to which two dictionaries count as built from as many."""


def differences(a: Dictionary, b: Dictionary) -> tuple[str, ...]:
    """Sentences on what differs between the making of A and B; () where nothing known does."""
    return tuple(_sentences(a, b))


def _sentences(a: Dictionary, b: Dictionary) -> Iterator[str]:
    models = [_part(d, "model") for d in (a, b)]
    if _differ(*(model.get("fingerprint") for model in models)):
        names = [model.get("name") or "a model without a name" for model in models]
        yield f"the models differ: {names[0]} and {names[1]}"
    if _differ(a.site, b.site):
        yield f"the sites differ: {a.site} and {b.site}"
    yield from _of_calibration(a, b)
    for key, what in (("tokenization", "tokens and masks"), ("texts", "corpora")):
        found = [_part(d, key) for d in (a, b)]
        keys = [k for k in {**found[0], **found[1]} if found[0].get(k) != found[1].get(k)]
        if keys and all(found):
            yield f"the {what} differ, in {', '.join(sorted(keys))}"
    if _differ(*(d.provenance.get("dtype") for d in (a, b))):
        yield f"the dtypes differ: {a.provenance['dtype']} and {b.provenance['dtype']}"
    if a.membership != b.membership:
        yield f"memberships differ: {a.membership} and {b.membership}; means are of other members"
    if max(a.rows, b.rows) > ALIKE_ROWS * min(a.rows, b.rows):
        yield f"A was built from {a.rows:,} rows and B from {b.rows:,}; more rows, more regions"


def _of_calibration(a: Dictionary, b: Dictionary) -> Iterator[str]:
    if a.width != b.width:
        yield f"the widths differ: {a.width} and {b.width}; there is no common space"
    elif not np.array_equal(a.center, b.center):
        apart = float(np.linalg.norm(a.center.astype(float) - b.center))
        unit = a.calibration.centered_norms[1]
        if not apart <= SAME_CENTER * unit:  # true if the unit is not known
            yield (
                f"the centers differ by {apart / unit:.2g} median centered norms of A, so a "
                "direction is not the same direction on both sides; see the cosines in one frame"
            )
    if a.threshold != b.threshold:
        yield (
            f"the thresholds differ: θ is {a.threshold:.4f} (p = {a.percentile:g}) and "
            f"{b.threshold:.4f} (p = {b.percentile:g})"
        )


def _part(dictionary: Dictionary, name: str) -> Mapping[str, Any]:
    found = dictionary.provenance.get(name)
    return found if isinstance(found, Mapping) else {}


def _differ(one: Any, other: Any) -> bool:
    """Both known, and not the same."""
    return one is not None and other is not None and one != other
