"""Dictionaries beside each other: which belong together, how they grew, and what changed."""

from __future__ import annotations

import contextlib
import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.correspondence import SPACES, Correspondence, by_direction
from exemplars.analyses.detection import Interval
from exemplars.analyses.differences import differences
from exemplars.analyses.growth import Curve, curve_of, growth, incomparable, plain_heaps
from exemplars.analyses.relatives import KeptMembers, relatives
from exemplars.dictionary import Dictionary
from exemplars.explorer.background import Background
from exemplars.explorer.columns import Column
from exemplars.explorer.queries import Listed, brief
from exemplars.explorer.views import NotReadyError, View, finite
from exemplars.geometry import Float32, Int64

KINDS = ("kept", "moved", "dropped", "introduced")
SORTS = ("cosine", "members_log_ratio", "member_count")
CUTOFF = 0.7
"""Cosine from which on a pair counts as kept, unless the reader says otherwise."""
_POINTS = 400
_BLOCK = 2048
_PAIR_WORK = 2e12
PARENT_WORK = 3e11
"""Multiplications that a search for coarser regions may take."""
_UNASKED_WORK = 1e11
"""Multiplications of a comparison that is made before anyone asks for it."""


@dataclass(frozen=True, eq=False)
class Drift:
    """Two dictionaries' regions, one to one and each with its nearest, by their mean directions."""

    correspondence: Correspondence
    best_of_a: Int64
    """(K_a,) the nearest region of B; -1 for a region without members."""
    cosine_of_a: Float32
    best_of_b: Int64
    cosine_of_b: Float32


class Drifts:
    """Comparisons of two dictionaries, made in the background and kept."""

    def __init__(self) -> None:
        self._made: Background[tuple[str, str], Drift] = Background("matches")

    def of(self, a: View, b: View) -> Drift:
        """The comparison of two.

        Raises:
            NotReadyError: It is still being made.
            ValueError: They have no common space, or are too large.
        """
        check_comparable(a.dictionary, b.dictionary)
        return self._made.of((a.slug, b.slug), lambda: compared(a.dictionary, b.dictionary))

    def begin(self, views: Mapping[str, View]) -> None:
        """Compare checkpoints of one site in the background, if that is quickly done."""
        for slug, view in views.items():
            for other in related(views, slug)["checkpoints"][:1]:
                a, b = sorted((slug, other))
                work = float(len(view.dictionary)) * len(views[other].dictionary)
                if work * view.dictionary.width <= _UNASKED_WORK:
                    with contextlib.suppress(NotReadyError, ValueError):
                        self.of(views[a], views[b])

    @property
    def busy(self) -> bool:
        """Whether two are being compared."""
        return self._made.busy

    def add_changes(self, views: Mapping[str, View], slug: str) -> None:
        """Know how near each region's nearest is in another checkpoint, once they are compared."""
        if "change_cosine" in views[slug].columns:
            return
        checkpoints = related(views, slug)["checkpoints"]
        compared_with = self.known(slug)
        for other in checkpoints:
            if other not in compared_with:
                continue
            drift, is_a = compared_with[other]
            cosine = drift.cosine_of_a if is_a else drift.cosine_of_b
            what = f"cosine of its mean direction with the nearest of {other}: low where it changed"
            views[slug].add_columns({"change_cosine": Column(cosine, "cosine", what)})
            return

    def known(self, slug: str) -> dict[str, tuple[Drift, bool]]:
        """Comparisons that are made of a dictionary, by the other; whether it is the A of them."""
        return {
            b if a == slug else a: (drift, a == slug)
            for (a, b), drift in self._made.made().items()
            if slug in (a, b)
        }

    def close(self) -> None:
        """Wait for what is being made."""
        self._made.close()


def check_comparable(a: Dictionary, b: Dictionary) -> None:
    """Refuse two dictionaries that cannot be matched by direction here."""
    if a.width != b.width:
        raise ValueError(
            f"the widths differ ({a.width} and {b.width}), so directions of one mean nothing in "
            "the other; compare them by shared rows: exemplars compare"
        )
    if not len(a) or not len(b):
        raise ValueError("a dictionary without regions has nothing to be matched")
    if float(len(a)) * len(b) * a.width > _PAIR_WORK:
        raise ValueError(
            f"matching {len(a):,} with {len(b):,} regions takes too long here; run exemplars "
            "compare"
        )


def compared(a: Dictionary, b: Dictionary) -> Drift:
    """Match two dictionaries by the mean directions of their members, each in its own frame."""
    of_a, of_b = np.asarray(a.means), np.asarray(b.means)
    best_of_a, cosine_of_a = nearest_rows(of_a, of_b)
    best_of_b, cosine_of_b = nearest_rows(of_b, of_a)
    return Drift(
        by_direction(SPACES[0], a, b, (of_a, of_b)),
        best_of_a, cosine_of_a, best_of_b, cosine_of_b,
    )  # fmt: skip


def drift_page(a: View, b: View, drift: Drift, cutoff: float) -> dict[str, Any]:
    """What changed from A to B, counted."""
    found = drift.correspondence
    kinds = _kinds(found, cutoff)
    one, two = a.dictionary, b.dictionary
    lengths = [float(np.linalg.norm(d.center)) for d in (one, two)]
    centre = float(one.center.astype(float) @ two.center) / max(lengths[0] * lengths[1], 1e-30)
    return {
        "a": a.slug,
        "b": b.slug,
        "k_a": len(one),
        "k_b": len(two),
        "theta_a": one.threshold,
        "theta_b": two.threshold,
        "basis": "mean",
        "method": found.method,
        "comparable": {
            "centre_cos": finite(centre),
            "theta_ratio": two.threshold / one.threshold,
            "warnings": list(differences(one, two)),
        },
        "cutoff": cutoff,
        "counts": {kind: len(kinds[kind]) for kind in KINDS},
        "mean_cosine": finite(found.score.mean()) if len(found.score) else None,
        "nulls": {name: [finite(v) for v in values] for name, values in found.nulls.items()},
    }


def drift_arrays(drift: Drift) -> dict[str, NDArray[Any]]:
    """The matches of all regions, for counting and drawing on the page."""
    found = drift.correspondence
    partner = np.full(found.n_regions[0], -1, np.int32)
    cosine = np.full(found.n_regions[0], np.nan, np.float32)
    chance = np.full(found.n_regions[0], np.nan, np.float32)
    partner[found.pairs[:, 0]] = found.pairs[:, 1]
    cosine[found.pairs[:, 0]] = found.score
    chance[found.pairs[:, 0]] = found.chance
    return {
        "best_b": drift.best_of_a.astype(np.int32),
        "cos_a": drift.cosine_of_a,
        "best_a": drift.best_of_b.astype(np.int32),
        "cos_b": drift.cosine_of_b,
        "match_b": partner,
        "match_cos": cosine,
        "match_chance": chance,
    }


def drift_pairs(
    a: Listed, b: Listed, drift: Drift, cutoff: float, kind: str, sort: str, descending: bool,
    start: int, size: int,
) -> dict[str, Any]:  # fmt: skip
    """Regions of one kind of change, a page at a time.

    Raises:
        ValueError: An unknown kind or order.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind[:40]!r}; choose {', '.join(KINDS)}")
    if sort not in SORTS:
        raise ValueError(f"_sort is {sort[:40]!r}; choose {', '.join(SORTS)}")
    pairs = _kinds(drift.correspondence, cutoff)[kind]
    left, right = pairs[:, 0].astype(np.int64), pairs[:, 1].astype(np.int64)
    counts = [
        np.where(side >= 0, np.asarray(listed.view.dictionary.counts)[side], 0)
        for side, listed in ((left, a), (right, b))
    ]
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = np.log(counts[1] / counts[0])
    keys = {
        "cosine": pairs[:, 2], "members_log_ratio": ratio, "member_count": counts[0] + counts[1],
    }  # fmt: skip
    values = np.nan_to_num(keys[sort], nan=-np.inf, posinf=np.inf, neginf=-np.inf)
    order = np.argsort(-values if descending else values, kind="stable")[start : start + size]
    about_a = brief(a, left[order][left[order] >= 0])
    about_b = brief(b, right[order][right[order] >= 0])
    stop = start + size
    return {
        "rows": [
            {
                "a": about_a.get(int(left[i])),
                "b": about_b.get(int(right[i])),
                "cosine": finite(pairs[i, 2]),
                "members_log_ratio": finite(ratio[i]),
            }
            for i in order
        ],
        "next": f"r{stop}" if stop < len(pairs) else None,
        "count": len(pairs),
    }


def drift_of_region(
    drifts: Drifts, listed: Mapping[str, Listed], slug: str, region: int
) -> dict[str, Any]:
    """A region's partners in the dictionaries that it was compared with."""
    rows: list[dict[str, Any]] = []
    for other, (drift, is_a) in drifts.known(slug).items():
        found = drift.correspondence
        mine, theirs = (0, 1) if is_a else (1, 0)
        place = np.flatnonzero(found.pairs[:, mine] == region)
        if not len(place):
            rows.append({"dict": other, "match": None, "cosine": None, "chance": None})
            continue
        partner = int(found.pairs[place[0], theirs])
        rows.append(
            {
                "dict": other,
                "match": brief(listed[other], [partner])[partner],
                "cosine": finite(found.score[place[0]]),
                "chance": finite(found.chance[place[0]]),
            }
        )
    return {"rows": rows}


def related(views: Mapping[str, View], slug: str) -> dict[str, list[str]]:
    """Other dictionaries of the same space: coarser and finer ones, nearest first; and of the same
    site in other checkpoints.
    """
    own = views[slug].dictionary
    coarser: list[View] = []
    finer: list[View] = []
    checkpoints: list[str] = []
    for other in views.values():
        d = other.dictionary
        if other.slug == slug or d.width != own.width or d.site != own.site:
            continue
        if np.array_equal(d.center, own.center):
            (coarser if d.threshold > own.threshold else finer).append(other)
        else:
            checkpoints.append(other.slug)
    coarser.sort(key=lambda view: view.dictionary.threshold)
    finer.sort(key=lambda view: -view.dictionary.threshold)
    return {
        "coarser": [view.slug for view in coarser],
        "finer": [view.slug for view in finer],
        "checkpoints": checkpoints,
    }


def add_parents(views: Mapping[str, View], slug: str) -> None:
    """Know the region of the next coarser dictionary that each lies in, if quickly found."""
    coarser = related(views, slug)["coarser"]
    own = views[slug].dictionary
    if not coarser or not len(own):
        return
    other = views[coarser[0]].dictionary
    if not len(other) or float(len(own)) * len(other) * own.width > PARENT_WORK:
        return
    parent, _ = nearest_rows(own.exemplars, other.exemplars)
    views[slug].add_columns(
        {
            "parent": Column(
                parent.astype(np.int32), "region", f"region of {coarser[0]} that holds the exemplar"
            )
        }
    )


class Members:
    """The members that dictionaries keep, read once each."""

    def __init__(self) -> None:
        self._found: dict[str, KeptMembers | None] = {}
        self._lock = threading.Lock()

    def of(self, view: View) -> KeptMembers | None:
        """Those of a dictionary; None without contexts."""
        with self._lock:
            if view.slug not in self._found:
                self._found[view.slug] = KeptMembers.of(view.dictionary)
            return self._found[view.slug]


def resolution_page(
    listed: Mapping[str, Listed], members: Members, slug: str, region: int
) -> dict[str, Any]:
    """A region's relatives at the other resolutions that are open.

    A region has no parent: what lies in it is shared out over regions of the other dictionary, with
    shares both ways.
    """
    views = {name: one.view for name, one in listed.items()}
    own = views[slug]
    near = related(views, slug)
    sides: dict[str, list[dict[str, Any]]] = {"coarser": [], "finer": []}
    dictionaries = []
    for side, found in sides.items():
        for name in near[side]:
            other = views[name]
            mine, theirs = members.of(own), members.of(other)
            kept = None if mine is None or theirs is None else (mine, theirs)
            if not len(other.dictionary):
                continue
            there = relatives(own.dictionary, region, other.dictionary, kept=kept)
            about = brief(listed[name], [one.region for one in there.relatives])
            found += [
                about[one.region]
                | {"dict": name, "cosine": one.similarity}
                | {field: _plain(getattr(one, field)) for field in _RELATIVE}
                for one in there.relatives
            ]
            dictionaries.append(
                {"dict": name} | {field: _plain(getattr(there, field)) for field in _RELATIVES}
            )
    return {
        "parents": sides["coarser"],
        "children": sides["finer"],
        "dictionaries": dictionaries,
        "method": "exemplars, and the members that both dictionaries keep",
        "notes": ["Regions of one resolution do not lie within those of another: see the shares."],
    }


_RELATIVE = (
    "share", "low", "high", "share_by_chance", "share_of_relative", "same_exemplar",
    "holds_exemplar", "exemplar_inside",
)  # fmt: skip
_RELATIVES = (
    "percentile", "threshold", "n_regions", "finer", "source", "rows", "pieces",
    "pieces_by_chance", "inside", "left_out",
)  # fmt: skip


def _plain(value: Any) -> Any:
    return finite(value) if isinstance(value, float) else value


def growth_page(views: Mapping[str, View], slug: str) -> dict[str, Any]:
    """How a dictionary grew, what that foretells, and the other open ones beside it.

    Raises:
        ValueError: It has no growth table.
    """
    curve = curve_of(views[slug].dictionary, slug)
    others = [
        curve_of(view.dictionary, name)
        for name, view in views.items()
        if name != slug and view.dictionary.growth is not None and len(view.dictionary.growth)
    ]
    found = growth(curve)
    heaps = plain_heaps(curve) if curve.documents > 1 and curve.regions[-1] else None
    warnings = [f"the curves differ in {part}" for part in incomparable([curve, *others])]
    if not found.curve.shuffled:
        warnings.append(
            "the documents were not read in random order, so a forecast holds only if later ones "
            "are like earlier ones"
        )
    return {
        "series": [_series(one) for one in (curve, *others)],
        "fit": None
        if found.chance is None
        else {
            "heaps": None
            if heaps is None
            else {"a": heaps(1.0), "b": math.log(heaps(math.e) / heaps(1.0)), "ci": None},
            "exponent": _interval(found.exponent),
            "chance": _interval(found.chance),
            "forecasts": [
                {
                    "rows": forecast.rows,
                    "regions": _interval(forecast.regions),
                    "as_now": finite(forecast.as_now),
                    "heaps": finite(forecast.heaps),
                }
                for forecast in found.forecasts
            ],
            "verdict": found.verdict,
            "target": found.target,
        },
        "good_turing": finite(found.singleton_share),
        "warnings": warnings,
    }


def _series(curve: Curve) -> dict[str, Any]:
    """A curve at no more points than one sees."""
    picked = np.unique(np.linspace(0, curve.documents - 1, _POINTS).round().astype(int))
    rows, regions = curve.rows[picked], curve.regions[picked]
    new = np.diff(regions, prepend=0) / np.maximum(np.diff(rows, prepend=0), 1)
    return {
        "name": curve.name,
        "dict": curve.name,
        "theta": curve.threshold,
        "percentile": curve.percentile,
        "x": rows.tolist(),
        "k": regions.tolist(),
        "new_rate": new.tolist(),
        "hit_rate": (1 - new).tolist(),
        "singletons": curve.singletons[picked].tolist(),
    }


def _interval(found: Interval | None) -> dict[str, float | None] | None:
    if found is None:
        return None
    return {name: finite(getattr(found, name)) for name in ("estimate", "low", "high")}


def _kinds(found: Correspondence, cutoff: float) -> dict[str, NDArray[np.float64]]:
    """By kind (n, 3): region of A, region of B, cosine; -1 and NaN where there is none.

    A pair that is no better than chance is none: its A was dropped, its B introduced.
    """
    better = found.score > found.chance
    rows = np.c_[found.pairs, found.score]
    kept, moved = better & (found.score >= cutoff), better & (found.score < cutoff)

    def alone(side: int) -> NDArray[np.float64]:
        there = np.setdiff1d(np.arange(found.n_regions[side]), found.pairs[better, side])
        lines = np.full((len(there), 3), -1.0)
        lines[:, side], lines[:, 2] = there, np.nan
        return lines

    return {"kept": rows[kept], "moved": rows[moved], "dropped": alone(0), "introduced": alone(1)}


def nearest_rows(a: Float32, b: Float32) -> tuple[Int64, Float32]:
    """(K_a,) the row of b of the largest cosine with each of a, and it; -1 where a has none."""
    usable = np.flatnonzero(np.isfinite(b).all(axis=1))
    best = np.full(len(a), -1, np.int64)
    cosine = np.full(len(a), np.nan, np.float32)
    if not len(usable):
        return best, cosine
    others = b[usable]
    for start in range(0, len(a), _BLOCK):
        rows = a[start : start + _BLOCK]
        there = np.flatnonzero(np.isfinite(rows).all(axis=1))
        product = rows[there] @ others.T
        place = product.argmax(axis=1)
        best[start + there] = usable[place]
        cosine[start + there] = product[np.arange(len(there)), place]
    return best, cosine
