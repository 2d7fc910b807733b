"""What is answered, without the web: the pages of regions and dictionaries, and arrays.

The server sends these, and an export holds them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from exemplars import __version__
from exemplars.explorer import live, pages, queries, relations, slices, sphere
from exemplars.explorer.columns import region_flags
from exemplars.explorer.layouts import layout_about
from exemplars.explorer.queries import Listed
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View, finite
from exemplars.report import to_json

LIMITS = {
    "text_tokens": live.TEXT_TOKENS, "new_tokens": live.NEW_TOKENS, "variants": live.VARIANTS + 1,
    "items": live.ITEMS, "body_bytes": 1 << 20, "page": queries.PAGE,
}  # fmt: skip


def app_page(explorer: Explorer) -> dict[str, Any]:
    """What is open, and what can be done with it."""
    views = list(explorer.views.values())
    reasons = {
        "trace": next(iter(map(explorer.why_no_model, views)), "no dictionary is open"),
        "steer": next(iter(map(explorer.why_no_model, views)), "no dictionary is open"),
        "write": explorer.notes.why_not,
        "drift": None if len(views) > 1 else "drift needs two dictionaries; open another beside it",
    }
    able = any(explorer.why_no_model(view) is None for view in views)
    if able:
        reasons |= {"trace": None, "steer": None}
    return {
        "version": __version__,
        "api": 1,
        "capabilities": {
            **{name: reason is None for name, reason in reasons.items()},
            "fts": any(
                view.status("cards")[0] == "ready" and view.cards.full_text for view in views
            ),
            "arrow": False,
            "lens": able or any(view.lens is not None for view in views),
        },
        "reasons": {name: reason for name, reason in reasons.items() if reason is not None},
        "limits": LIMITS,
        "models": explorer.models(),
        "dictionaries": [_entry(explorer, view) for view in views],
    }


def _entry(explorer: Explorer, view: View) -> dict[str, Any]:
    page = pages.dictionary_page(view)
    names = ("slug", "title", "k", "dim", "theta", "percentile", "fingerprint")
    about = page["model"]
    return {
        **{name: page[name] for name in names},
        "model": about["name"],
        "site": about["site"],
        "layer": about["layer"],
        "hook": about["hook"],
        "tokens_seen": page["build"]["tokens_seen"],
        "trace": explorer.why_no_model(view) is None,
    }


def dictionary_answer(explorer: Explorer, slug: str) -> dict[str, Any]:
    """The page of a dictionary."""
    explorer.drifts.add_changes(explorer.views, slug)
    found = pages.dictionary_page(explorer.listed(slug).view)
    related = relations.related(explorer.views, slug)
    return found | {"relations": related, "settled": explorer.settled}


def region_answer(
    explorer: Explorer, listed: Listed, region: int, extras: Sequence[str]
) -> dict[str, Any]:
    """A region's page, with some of its sections; one that cannot be had says why."""
    slug = listed.view.slug
    notes = explorer.notes
    found = pages.region_page(
        listed, region, notes.note(slug, region), notes.is_pinned(slug, region)
    )
    for name in extras:
        try:
            found[name] = section_answer(explorer, listed, region, name, {})
        except (LookupError, ValueError) as error:
            found[name] = {"error": str(error)}
    return found


def section_answer(
    explorer: Explorer, listed: Listed, region: int, section: str, parameters: Mapping[str, str]
) -> dict[str, Any]:
    """One section of a region's page."""
    view = listed.view
    if section == "members":
        return pages.members_page(
            view,
            region,
            parameters.get("kind", "nearest"),
            band=_band(parameters.get("band")),
            size=queries.whole(parameters, "_size", 10, 1, queries.PAGE),
            start=queries.start_of(parameters.get("_next")),
            collapse=parameters.get("collapse") == "1",
        )
    if section == "lens":
        k = queries.whole(parameters, "k", 20, 1, 100)
        direction = parameters.get("direction", "exemplar")
        return pages.lens_page(view, region, direction, k, explorer.loaded_model(view))
    if section == "neighbours":
        return pages.neighbours_page(listed, region, queries.whole(parameters, "k", 20, 1, 100))
    if section == "tokens":
        return pages.tokens_page(view, region)
    if section == "histogram":
        return pages.histogram_page(view, region)
    if section == "resolution":
        every = {slug: explorer.listed(slug) for slug in explorer.views}
        return relations.resolution_page(every, explorer.members, view.slug, region)
    if section == "drift":
        return relations.drift_of_region(
            explorer.drifts, {slug: explorer.listed(slug) for slug in explorer.views},
            view.slug, region,
        )  # fmt: skip
    raise LookupError(f"there is no section {section[:40]!r} of a region")


def slice_answer(explorer: Explorer, listed: Listed, basis: Mapping[str, Any]) -> dict[str, Any]:
    """An exact slice with the basis that a request names.

    Raises:
        ValueError: An unknown kind, or a basis that spans no three dimensions.
        LookupError: A region that there is not.
    """
    view = listed.view
    exemplars = view.dictionary.exemplars
    if not len(exemplars):
        raise ValueError("this dictionary has no regions, so there is nothing to cut")
    kind = basis.get("kind")
    if kind == "pca":
        numbers = _integers(basis.get("components", [0, 1, 2]), "components")
        return pages.slice_page(listed, slices.components(view.sphere.axes, numbers), "pca", [])
    if kind == "random":
        (seed,) = _integers([basis.get("seed", 0)], "seed")
        rows = slices.random_basis(view.dictionary.width, abs(seed))
        return pages.slice_page(listed, rows, "random", [])
    if kind == "regions":
        ids = [pages.region_of(view, str(k)) for k in _integers(basis.get("ids"), "ids")]
        named = _named(listed, ids)
        rows = slices.through(np.stack([row for _, _, row in named]) if named else exemplars[:0])
        return pages.slice_page(listed, rows, "regions", named)
    if kind == "local":
        region = pages.region_of(view, str(basis.get("id")))
        near = pages.nearest_to(view.distances_from(region), region, slices.PORTRAIT)
        rows = slices.around(exemplars, region, near)
        return pages.slice_page(listed, rows, "local", _named(listed, [region]))
    if kind == "run":
        named = _tokens(explorer, listed, basis)
        rows = slices.through(np.stack([row for _, _, row in named]))
        passage = live.slice_points(rows, explorer.run(str(basis.get("run"))))
        return pages.slice_page(listed, rows, "run", named) | {"passage": passage}
    raise ValueError(
        f"the kind of basis is {str(kind)[:40]!r}; choose pca, regions, local, run or random"
    )


def passage_answer(explorer: Explorer, listed: Listed, run: str) -> dict[str, Any]:
    """Where the tokens of a text that was traced lie on the projected sphere.

    Raises:
        LookupError: The text is not kept any more.
        ValueError: It was traced with another dictionary, or there is no sphere.
    """
    return {"points": live.sphere_points(listed.view.sphere, _run(explorer, listed, run))}


def columns_bytes(listed: Listed, names: Sequence[str] | None = None) -> bytes:
    """Columns of all regions as safetensors.

    Raises:
        ValueError: A column that there is not.
    """
    view = listed.view
    arrays = {name: column.values for name, column in view.columns.items()}
    labelled = np.zeros(view.dictionary.n_regions, np.bool_)
    labelled[list(listed.labels)] = True
    without = np.zeros_like(labelled)
    if view.status("cards")[0] == "ready":
        without = view.cards.token_codes < 0
    arrays["flags"] = region_flags(view.dictionary.counts, labelled, without)
    if names is not None:
        asked = {name: view.column(name) for name in names if name not in arrays}
        arrays |= {name: column.values for name, column in asked.items() if column is not None}
        unknown = [name for name in names if name not in arrays]
        if unknown:
            raise ValueError(f"there is no column {unknown[0][:40]!r}; see columns of the page")
        arrays = {name: arrays[name] for name in names}
    about = {"k": view.dictionary.n_regions, "fingerprint": view.fingerprint}
    return tensors(arrays, about)


def sphere_bytes(listed: Listed) -> bytes:
    """The projected sphere as safetensors."""
    view = listed.view
    about = {
        "variance": view.sphere.variance,
        "nn10": finite(view.sphere.neighbours_kept),
        "k": view.dictionary.n_regions,
        "fingerprint": view.fingerprint,
        "theta": view.dictionary.threshold,
    }
    return tensors(sphere.sphere_arrays(view.sphere), about)


def layout_bytes(explorer: Explorer, listed: Listed, name: str) -> bytes:
    """Places of all regions on a map as safetensors; raises as `Layouts.of` does."""
    found = explorer.layouts.of(listed.view, name)
    about = {
        **layout_about(found),
        "fingerprint": listed.view.fingerprint,
        "labels": pages.map_labels(listed, found.xy),
    }
    return tensors({"xy": found.xy}, about)


def cells_bytes(explorer: Explorer, listed: Listed, name: str) -> bytes:
    """What it takes to draw the cells of a map, as safetensors; raises as `Layouts.of` does."""
    arrays = explorer.layouts.cells(listed.view, name)
    return tensors(arrays, {"fingerprint": listed.view.fingerprint})


def _named(listed: Listed, regions: Sequence[int]) -> list[tuple[int | None, str, Any]]:
    about = queries.brief(listed, regions)
    exemplars = listed.view.dictionary.exemplars
    return [(k, pages.name_of(about[k]), np.asarray(exemplars[k])) for k in regions]


def _tokens(
    explorer: Explorer, listed: Listed, basis: Mapping[str, Any]
) -> list[tuple[int | None, str, Any]]:
    """Three tokens of a text that was traced."""
    run = _run(explorer, listed, str(basis.get("run")))
    positions = _integers(basis.get("positions"), "positions")
    missing = [i for i in positions if i not in run.directions]
    if missing or len(positions) != 3:
        raise ValueError(f"positions are {positions}, expected three tokens that have a direction")
    return [(None, run.texts[i], run.directions[i]) for i in positions]


def _run(explorer: Explorer, listed: Listed, name: str) -> live.Run:
    """A text that was traced with a dictionary."""
    run = explorer.run(name)
    if run.slug != listed.view.slug:
        raise ValueError(f"this text was traced with {run.slug}; trace it with this dictionary")
    return run


def _band(text: str | None) -> tuple[float, float] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+(?:\.\d+)?)-(\d+(?:\.\d+)?)", text, re.ASCII)
    if found is None:
        raise ValueError(f"band is {text[:40]!r}, expected two distances in θ: 0.2-0.4")
    return float(found[1]), float(found[2])


def _integers(values: Any, name: str) -> list[int]:
    if not isinstance(values, list) or not all(type(value) is int for value in values):
        raise ValueError(f"{name} is not a list of whole numbers")
    return values


def tensors(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Arrays as safetensors, and a JSON text under the one metadata key "about"."""
    from safetensors.numpy import save

    return save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        {"about": to_json(about)},
    )
