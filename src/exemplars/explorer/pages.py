"""The page of one region, section by section, and the page of a dictionary."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.contexts import Context
from exemplars.explorer import slices
from exemplars.explorer.columns import distances_in_thresholds
from exemplars.explorer.layouts import why_no_umap
from exemplars.explorer.offsets import excerpt_of
from exemplars.explorer.queries import Listed, brief, cards_of, rows
from exemplars.explorer.sphere import LEVELS
from exemplars.explorer.views import View, finite, region_key
from exemplars.geometry import Float32, Float64, Int64, cosine_distance
from exemplars.lens import lens_entropies, logit_lens
from exemplars.members import BINS_PER_THRESHOLD, HISTOGRAM_BINS, MemberStatistics

if TYPE_CHECKING:
    from exemplars.models import Model

KINDS = ("nearest", "farthest", "random", "band", "all")
_LABELS = 200
_CRISP = 20


def dictionary_page(view: View) -> dict[str, Any]:
    """What a dictionary is, for its overview."""
    d = view.dictionary
    about = d.provenance
    model, site = _mapping(about.get("model")), _mapping(about.get("site"))
    texts, stream = _mapping(about.get("texts")), _mapping(about.get("stream"))
    median = d.calibration.vector_norms
    return {
        "slug": view.slug,
        "title": title_of(view),
        "folder_name": view.folder.resolve().name,
        "fingerprint": view.fingerprint,
        "k": d.n_regions,
        "dim": d.width,
        "theta": d.threshold,
        "percentile": d.percentile,
        "membership": d.membership,
        "rows": d.rows,
        "dropped": dict(d.dropped),
        "centre_norm": float(np.linalg.norm(d.center)),
        "activation_norm": dict(zip(("p5", "median", "p95"), map(finite, median), strict=True)),
        "model": {
            "name": model.get("name"),
            "revision": model.get("revision"),
            "site": d.site,
            "hook": _mapping(site.get("spellings")).get("transformer_lens"),
            "layer": layer_of(d.site),
            "dtype": about.get("dtype"),
        },
        "build": {
            "tokens_seen": _mapping(stream.get("cursor")).get("tokens"),
            "rows": d.rows,
            "corpus": texts.get("name"),
            "corpus_license": None,
            "seed": about.get("seed"),
            "created_at": None,
            "tool_version": view.tool_version,
            "complete": about.get("complete", True),
        },
        "stats": view.remembered("stats", lambda: _stats(view)),
        "sphere": _sphere_status(view),
        "layouts": _layouts(view),
        "search": {
            "status": view.status("cards")[0],
            "fts": view.status("cards")[0] == "ready" and view.cards.full_text,
        },
        "columns": [
            {
                "name": name,
                "dtype": str(column.values.dtype),
                "unit": column.unit,
                "min": column.range[0] if column.range else None,
                "max": column.range[1] if column.range else None,
                "description": column.description,
            }
            for name, column in view.columns.items()
        ],
        "later": list(view.later),
        "lod": [*(n for n in LEVELS if n < d.n_regions), d.n_regions],
        "shelves": shelves(view),
        "census": d.census is not None,
        "has_contexts": d.contexts is not None,
        "has_lens": view.lens is not None,
        "has_growth": d.growth is not None,
    }


def shelves(view: View) -> list[dict[str, str]]:
    """Queries that find something to begin with."""
    found = [
        ("largest", "Largest", "most members", "_sort_desc=member_count"),
        (
            "coherent",
            "Most coherent",
            f"members that point the same way, of regions with {_CRISP} or more",
            f"member_count__gte={_CRISP}&_sort_desc=coherence",
        ),
        (
            "surprising",
            "Surprising",
            "coherent although their tokens differ: ideas rather than words",
            f"member_count__gte={_CRISP}&coherence__gte=0.5&_sort_desc=distinct_tokens",
        ),
        ("loose", "Loosest", "members far from the exemplar",
         f"member_count__gte={_CRISP}&_sort_desc=mean_dist_theta"),
        ("newest", "Newest", "founded last", "_sort_desc=first_seen"),
        ("singletons", "Singletons", "one member only", "member_count__exact=1&_sort=first_seen"),
    ]  # fmt: skip
    there = {*view.columns, *view.later}
    found += [
        line
        for column, line in (
            (
                "lens_entropy",
                ("crisp", "Lens-crisp", "exemplars that read as few tokens, of regions with "
                 f"{_CRISP} or more", f"member_count__gte={_CRISP}&_sort=lens_entropy"),
            ),
            (
                "pieces",
                ("splitting", "Splits most", "shared out over most regions of the finer dictionary",
                 f"member_count__gte={_CRISP}&_sort_desc=pieces"),
            ),
            (
                "change_cosine",
                ("changed", "Most changed", "far from every region of the other checkpoint",
                 f"member_count__gte={_CRISP}&_sort=change_cosine"),
            ),
        )
        if column in there
    ]  # fmt: skip
    names = ("name", "title", "description", "query")
    return [dict(zip(names, line, strict=True)) for line in found]


def region_page(listed: Listed, region: int, note: str | None, pinned: bool) -> dict[str, Any]:
    """The head of a region's page."""
    view = listed.view
    d = view.dictionary
    card = cards_of(view, [region]).get(region)
    in_theta = _distances_of(view, region)
    exemplar = None
    if card is not None and card.founder is not None:
        exemplar = {
            "doc": card.document,
            "name": card.name,
            "position": card.position,
            "token_id": card.token_id,
            "row": card.founder,
            "context": excerpt_of(card.before, card.token, card.after),
        }
    return {
        **rows(listed, [region])[0],
        "theta": d.threshold,
        "exemplar": exemplar,
        "norm": {"median": finite(d.calibration.vector_norms[1])},
        "dist_theta": in_theta,
        "dist": {k: None if v is None else v * d.threshold for k, v in in_theta.items()},
        "prev": region - 1 if region else None,
        "next": region + 1 if region + 1 < d.n_regions else None,
        "note": note,
        "pinned": pinned,
    }


def members_page(
    view: View,
    region: int,
    kind: str = "nearest",
    *,
    band: tuple[float, float] | None = None,
    size: int = 10,
    start: int = 0,
    collapse: bool = False,
) -> dict[str, Any]:
    """Members of a region among those whose contexts are kept.

    Args:
        view: The dictionary.
        region: Which.
        kind: "nearest", "farthest", "random", "band": all within a band of distances, or "all".
        band: In θ, lower end included.
        size: Rows at most.
        start: Of the first.
        collapse: Members that read alike are one row.

    Raises:
        ValueError: An unknown kind, or a band without its ends.
    """
    if kind not in KINDS:
        raise ValueError(f"kind is {kind[:40]!r}; choose {', '.join(KINDS)}")
    if kind == "band" and band is None:
        raise ValueError("a band needs its ends; give band=0.2-0.4")
    kept = _contexts(view, region)
    theta = view.dictionary.threshold
    ranks = {"nearest": "nearest_rank", "farthest": "farthest_rank", "random": "sample_rank"}
    if kind == "band":
        low, high = band or (0.0, 0.0)
        chosen = [c for c in kept if low <= c.distance / theta < high]
    elif kind == "all":
        chosen = list(kept)
    else:
        rank = ranks[kind]
        chosen = [c for c in kept if getattr(c, rank) >= 0]
        chosen.sort(key=lambda c: getattr(c, rank))
    alike = Counter((c.before, c.text, c.after) for c in chosen)
    if collapse:
        chosen = list({(c.before, c.text, c.after): c for c in reversed(chosen)}.values())[::-1]
    stop = start + size
    return {
        "rows": [
            {**member_row(c, theta), "duplicates": alike[c.before, c.text, c.after] - 1}
            for c in chosen[start:stop]
        ],
        "next": f"r{stop}" if stop < len(chosen) else None,
        "count": len(chosen),
        "kept": len(kept),
    }


def member_row(context: Context, theta: float) -> dict[str, Any]:
    """A member as the page shows it."""
    shown = excerpt_of(context.before, context.text, context.after)
    return {
        "doc": context.document,
        "name": context.name,
        "position": context.position,
        "row": context.row,
        "token_id": context.token,
        "text": shown["text"],
        "tokens": [shown["span"]],
        "hit": 0,
        "span": shown["span"],
        "distance": context.distance,
        "theta_ratio": context.distance / theta,
        "exemplar": context.exemplar,
        "ranks": {
            "nearest": context.nearest_rank, "farthest": context.farthest_rank,
            "random": context.sample_rank,
        },
    }  # fmt: skip


def tokens_page(view: View, region: int) -> dict[str, Any]:
    """Which tokens the members are, among those kept: a word or an idea?"""
    kept = _contexts(view, region)
    counted = Counter((c.text, c.token) for c in kept)
    return {
        "rows": [
            {"text": text, "token_id": token, "count": n, "share": n / len(kept)}
            for (text, token), n in counted.most_common()
        ],
        "sampled": len(kept),
        "distinct": len(counted),
    }


def histogram_page(view: View, region: int) -> dict[str, Any]:
    """Members by distance in θ; the last bin holds all beyond."""
    edges = np.arange(HISTOGRAM_BINS + 1) / BINS_PER_THRESHOLD
    return {
        "bins": edges.tolist(),
        "counts": np.asarray(view.dictionary.members.histogram[region]).tolist(),
        "theta": view.dictionary.threshold,
        "last_open": True,
    }


def lens_page(
    view: View, region: int, direction: str, k: int, model: Model | None
) -> dict[str, Any]:
    """What a region reads as: by the model if it is there, else as it was stored.

    Raises:
        LookupError: Neither is there.
        ValueError: An unknown direction, or a region without members has no mean.
    """
    rows_ = view.dictionary.basis(direction)[[region]]
    if not np.isfinite(rows_).all():
        raise ValueError(f"region {region} has no members, so it has no mean direction")
    if model is not None:
        found = logit_lens(model, np.asarray(rows_), k)
        lists = {
            "promoted": (found.promoted_tokens[0], found.promoted_logits[0].tolist()),
            "suppressed": (found.suppressed_tokens[0], found.suppressed_logits[0].tolist()),
        }
    elif view.lens is not None:
        stored = {
            kind: view.lens[f"{direction}_{kind}"][region].as_py() or []
            for kind in ("promoted", "suppressed")
        }
        lists = {kind: (texts[:k], [None] * len(texts)) for kind, texts in stored.items()}
    else:
        raise LookupError(
            "no lens is stored and no model is loaded; start with --model, or build with the lens"
        )
    return {
        "direction": direction,
        "normed": True,
        **{
            kind: [
                {"token_id": None, "text": text, "value": value}
                for text, value in zip(texts, values, strict=False)
            ]
            for kind, (texts, values) in lists.items()
        },
        "entropy": _entropy(view, region, direction, model),
        "source": "model" if model is not None else "stored",
    }


def _entropy(view: View, region: int, direction: str, model: Model | None) -> float | None:
    """Of the lens of one region, in nats, where it is known or the model is there."""
    known = view.columns.get("lens_entropy")
    if direction == "exemplar" and known is not None:
        return finite(known.values[region])
    if model is None:
        return None
    return finite(lens_entropies(model, np.asarray(view.dictionary.basis(direction)[[region]]))[0])


def neighbours_page(listed: Listed, region: int, k: int = 20) -> dict[str, Any]:
    """The nearest other exemplars, and whether the cells share a wall half-way.

    The wall between two exemplars runs through the direction half-way between them. Where no
    third exemplar is nearer to it, the two regions touch there; `wall_theta` is its distance to
    both, in θ.
    """
    view = listed.view
    d = view.dictionary
    near = nearest_to(view.distances_from(region), region, k)
    distances = view.distances_from(region)[near]
    touches, at_wall = _walls(np.asarray(d.exemplars[region]), np.asarray(d.exemplars[near]))
    about = {row["id"]: row for row in rows(listed, near)}
    names = ("id", "key", "label", "label_source", "token", "context", "member_count")
    return {
        "rows": [
            {
                **{name: about[int(other)][name] for name in names},
                "cosine": 1 - float(distance),
                "distance": float(distance),
                "theta_ratio": float(distance) / d.threshold,
                "boundary": {
                    "wall_theta": float(cosine_distance(wall)) / d.threshold,
                    "shared": bool(touch),
                },
            }
            for other, distance, wall, touch in zip(near, distances, at_wall, touches, strict=True)
        ],
        "exact": True,
    }


def nearest_to(distances: Float32, region: int, k: int) -> Int64:
    """The k regions nearest to one, nearest first, ties to the lower index.

    Args:
        distances: (K,) of all exemplars to that of the region.
        region: Left out.
        k: All others, if there are fewer.
    """
    others = np.delete(np.arange(len(distances)), region)
    n = min(k, len(others))
    if n < len(others):
        reach = np.partition(distances[others], n)[n]
        others = others[distances[others] <= reach]
    order = np.argsort(distances[others], kind="stable")[:n]
    return others[order].astype(np.int64)


def slice_page(
    listed: Listed, basis: Float32, kind: str, named: Sequence[tuple[int | None, str, Float32]]
) -> dict[str, Any]:
    """An exact slice.

    Args:
        listed: The dictionary, and its labels.
        basis: (3, D) orthonormal rows.
        kind: What the basis is.
        named: Directions that the slice was put through: a region or None, a text, and (D,).
    """
    d = listed.view.dictionary
    found = slices.cut(d.exemplars, basis, d.threshold)
    largest = np.argsort(-found.area, kind="stable")
    about = brief(listed, found.regions[largest[:40]])
    rows_ = np.stack([direction for _, _, direction in named]) if named else None
    return {
        "exact": True,
        "theta": d.threshold,
        "cos_theta": 1 - d.threshold,
        "basis_kind": kind,
        "gram": slices.gram(rows_),
        "cells": [
            {"id": int(k), "p": p, "cap": cap}
            for k, p, cap in zip(
                found.regions, found.points.tolist(), found.caps.tolist(), strict=True
            )
        ],
        "covered_fraction": found.covered,
        "area_fraction": [
            {"id": int(found.regions[i]), "f": float(found.area[i])} for i in largest
        ],
        "samples": slices.SAMPLES,
        "labels": [
            {"id": int(k), "text": name_of(about[int(k)]), "y": _unit(found.points[i])}
            for i in largest[:40]
            if (k := found.regions[i]) in about and found.area[i] > 0
        ],
        "marks": [
            {"id": region, "text": text, "y": _unit(basis @ direction)}
            for region, text, direction in named
        ],
    }


def map_labels(listed: Listed, codes: Any) -> list[dict[str, Any]]:
    """Names on a map, in the order in which they are to be placed.

    Args:
        listed: The dictionary, and its labels.
        codes: (K, 2) places on the map, 0 to 65535.
    """
    order = listed.view.sphere.order[:_LABELS]
    about = brief(listed, order)
    return [
        {
            "id": int(k),
            "text": name_of(about[int(k)]),
            "x": int(codes[k, 0]),
            "y": int(codes[k, 1]),
            "level": int(np.log2(i + 1) // 2),
        }
        for i, k in enumerate(order)
    ]


def name_of(about: Mapping[str, Any]) -> str:
    """What a region is called in a picture: its label, else its exemplar's token."""
    return about["label"] or about["token"]["text"] or f"region {about['id']}"


def title_of(view: View) -> str:
    """A dictionary's name for people."""
    d = view.dictionary
    site = d.site or view.folder.resolve().name
    return f"{site}, p = {d.percentile:g}"


def layer_of(site: str | None) -> int | None:
    """The layer of a site like "resid_post.12"; None for another."""
    number = (site or "").rpartition(".")[2]
    return int(number) if number.isascii() and number.isdigit() else None


def region_of(view: View, text: str) -> int:
    """The region that a path names, by number or by key.

    Raises:
        LookupError: There is none.
    """
    number = text.partition("·")[0]
    d = view.dictionary
    if number.isascii() and number.isdigit() and int(number) < d.n_regions:
        region = int(number)
        if text == number or text == region_key(d.exemplars, region):
            return region
        raise LookupError(f"region {number} has another exemplar than {text[:40]!r} names")
    raise LookupError(f"{view.slug} has no region {text[:40]!r}, only 0 to {d.n_regions - 1}")


def _distances_of(view: View, region: int) -> dict[str, float | None]:
    """Mean, deviation and 95th percentile of one region's distances, in θ."""
    members = view.dictionary.members
    one = slice(region, region + 1)
    some = MemberStatistics(
        **{f.name: getattr(members, f.name)[one] for f in fields(MemberStatistics)}
    )
    found = distances_in_thresholds(some, view.dictionary.threshold)
    return {name: finite(v[0]) for name, v in zip(("mean", "std", "p95"), found, strict=True)}


def _contexts(view: View, region: int) -> list[Context]:
    contexts = view.dictionary.contexts
    return contexts.region(region) if contexts is not None else []


def _walls(own: Float32, near: Float32) -> tuple[NDArray[np.bool_], Float64]:
    """Whether no third exemplar owns the direction half-way to each of the nearest exemplars, and
    the cosine of that direction with both.

    One that is nearer to it than both are lies nearer to `own` than the other does (angles obey the
    triangle inequality), so only the nearest before it have to be looked at.

    Args:
        own: (D,) the exemplar.
        near: (n, D) the nearest others, nearest first.
    """
    halfway = near.astype(np.float64) + own
    norms = np.linalg.norm(halfway, axis=1, keepdims=True)
    halfway /= np.where(norms > 0, norms, 1)
    at_wall = halfway @ own.astype(np.float64)
    reach = halfway @ near.T.astype(np.float64)
    earlier = np.tril(np.ones(reach.shape, np.bool_), -1)
    nearest_third = np.where(earlier, reach, -np.inf).max(axis=1, initial=-np.inf)
    return nearest_third <= at_wall + 1e-6, at_wall


def _sphere_status(view: View) -> dict[str, Any]:
    status, reason = view.status("sphere")
    fidelity = None
    if status == "ready":
        sphere = view.sphere
        fidelity = {"variance": sphere.variance, "nn10": finite(sphere.neighbours_kept)}
    return {"status": status, "reason": reason, "fidelity": fidelity}


def _layouts(view: View) -> list[dict[str, Any]]:
    """Maps that can be had, and why the others cannot."""
    found = _sphere_status(view)
    if found["status"] == "ready":
        found["fidelity"] = {"nn10": finite(view.sphere.neighbours_kept_flat)}
    reason = why_no_umap()
    umap = {"status": "unavailable" if reason else "available", "reason": reason, "fidelity": None}
    return [{"name": "unrolled", **found}, {"name": "umap", **umap}]


def _stats(view: View) -> dict[str, Any]:
    counts = np.asarray(view.dictionary.counts)
    coherence = np.asarray(view.dictionary.coherence)
    coherence = coherence[np.isfinite(coherence)]
    return {
        "member_count": {
            "min": int(counts.min()) if len(counts) else 0,
            "median": float(np.median(counts)) if len(counts) else None,
            "max": int(counts.max(initial=0)),
            "singletons": int((counts == 1).sum()),
            "empty": int((counts == 0).sum()),
            "gini": _gini(counts),
        },
        "coherence": {
            f"p{p}": float(np.percentile(coherence, p)) if len(coherence) else None
            for p in (5, 50, 95)
        },
    }


def _gini(counts: Any) -> float | None:
    size = np.sort(counts).astype(np.float64)
    n = len(size)
    if not n or not size.sum():
        return None
    return float(2 * (np.arange(1, n + 1) * size).sum() / (n * size.sum()) - (n + 1) / n)


def _unit(vector: Any) -> list[float]:
    length = float(np.linalg.norm(vector))
    found: list[float] = (np.asarray(vector, np.float64) / (length or 1.0)).tolist()
    return found


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
