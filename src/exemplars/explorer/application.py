"""The routes: what the page asks, checked, and handed to the modules that know.

Reads are plain functions in a small pool of threads, streams are lines of JSON. Every answer says
how long it took; text is never HTML.
"""

from __future__ import annotations

import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from pydantic import BaseModel, ConfigDict, Field
from starlette.exceptions import HTTPException as AnyHTTPException

from exemplars import __version__
from exemplars.errors import ExemplarsError
from exemplars.explorer import pages, queries, slices, sphere
from exemplars.explorer.assets import INSTALLED, Assets
from exemplars.explorer.columns import region_flags
from exemplars.explorer.notes import Notes, StaleError
from exemplars.explorer.queries import Listed
from exemplars.explorer.views import NotReadyError, View, beside
from exemplars.report import to_json

API = "/api/v1"
_logger = logging.getLogger(__name__)
THREADS = 4
"""Reads at a time."""
LIMITS = {
    "text_tokens": 2048, "new_tokens": 256, "variants": 5, "items": 8, "body_bytes": 1 << 20,
    "page": queries.PAGE,
}  # fmt: skip
EXTRAS = ("members", "lens", "neighbours", "resolution", "tokens", "histogram", "drift")


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SliceBody(_Body):
    """What to cut with: a kind, and what that kind needs."""

    basis: dict[str, Any]


class LabelBody(_Body):
    """A label; empty to take it away."""

    label: str = Field(max_length=2000)


class NotesBody(_Body):
    """All pins and notes."""

    pins: list[dict[str, Any]] = Field(default_factory=list, max_length=10_000)
    notes: dict[str, str] = Field(default_factory=dict)


@dataclass
class Explorer:
    """What the routes answer from."""

    views: dict[str, View]
    notes: Notes
    allow_write: bool = True
    on_first_read: Callable[[], None] = lambda: None
    threads: list[threading.Thread] = field(default_factory=list)

    def listed(self, slug: str) -> Listed:
        """A dictionary and its labels.

        Raises:
            LookupError: There is none of this name.
        """
        view = self.views.get(slug)
        if view is None:
            raise LookupError(f"there is no dictionary {slug[:60]!r} open; see /app")
        return Listed(view, queries.labels_of(view, self.notes.labels(slug)))

    def prepare(self) -> None:
        """Prepare all dictionaries in a thread of its own."""

        def work() -> None:
            for view in self.views.values():
                view.prepare()

        thread = threading.Thread(target=work, name="prepare", daemon=True)
        self.threads.append(thread)
        thread.start()

    def close(self) -> None:
        """Close all that is open."""
        for thread in self.threads:
            thread.join()
        for view in self.views.values():
            view.close()


def create_app(explorer: Explorer, assets: Assets = INSTALLED) -> FastAPI:
    """The application, without its guard.

    Args:
        explorer: What it answers from; it is closed when the application ends.
        assets: The files of the page.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield

    app = FastAPI(
        title="exemplars explorer",
        version=__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=f"{API}/openapi.json",
        lifespan=lifespan,
    )
    _add_errors(app)
    _add_shell(app, assets)
    _add_dictionary(app, explorer)
    _add_regions(app, explorer)
    _add_notes(app, explorer)
    return app


def _add_errors(app: FastAPI) -> None:
    """Every error is one sentence, in the same form."""

    def refused(status: int, sentence: str, errors: Sequence[str] = ()) -> JSONResponse:
        about = {
            "ok": False, "error": sentence, "errors": list(errors) or [sentence], "status": status,
        }  # fmt: skip
        return JSONResponse(about, status)

    @app.exception_handler(AnyHTTPException)
    def _http(request: Request, error: AnyHTTPException) -> JSONResponse:
        return refused(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def _invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        found = [
            f"{'.'.join(map(str, one['loc']))}: {one['msg']}".lower() for one in error.errors()
        ]
        return refused(422, f"the request is not as expected ({found[0]})", found)

    @app.exception_handler(NotReadyError)
    def _not_ready(request: Request, error: NotReadyError) -> JSONResponse:
        about = {"ok": True, "status": "preparing", "stage": error.part, "progress": None}
        return JSONResponse(about, 202, {"Retry-After": "1"})

    kinds: tuple[tuple[type[Exception], int], ...] = (
        (StaleError, 412),
        (ValueError, 400),
        (LookupError, 404),
        (PermissionError, 403),
        (ExemplarsError, 409),
    )

    @app.exception_handler(KeyError)
    @app.exception_handler(IndexError)
    def _defect(request: Request, error: Exception) -> JSONResponse:
        _logger.error("%s %s failed", request.method, request.url.path, exc_info=error)
        return refused(500, "the server made a mistake; its terminal says which")

    for kind, status in kinds:
        app.add_exception_handler(
            kind, lambda request, error, status=status: refused(status, str(error))
        )


def _add_shell(app: FastAPI, assets: Assets) -> None:
    @app.get("/", include_in_schema=False)
    def shell() -> Response:
        return Response(assets.shell, media_type="text/html", headers={"Cache-Control": "no-cache"})

    @app.get("/static/{name:path}", include_in_schema=False)
    def static(name: str) -> Response:
        found = assets.read(name)
        if found is None:
            raise HTTPException(404, "there is no such file")
        return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-cache"})


def _add_dictionary(app: FastAPI, explorer: Explorer) -> None:
    @app.get(f"{API}/app")
    def about_app(request: Request) -> Response:
        begun = time.perf_counter()
        _only(request)
        explorer.on_first_read()
        return _answer(app_page(explorer), begun)

    @app.get(f"{API}/d/{{slug}}")
    def about_dictionary(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        _only(request)
        view = explorer.listed(slug).view
        return _answer(dictionary_answer(explorer, slug), begun, view)

    @app.get(f"{API}/d/{{slug}}/columns/{{fingerprint}}")
    def column_arrays(request: Request, slug: str, fingerprint: str) -> Response:
        _only(request, "names")
        listed = _current(explorer, slug, fingerprint)
        names = request.query_params.get("names")
        return _binary(columns_bytes(listed, names.split(",") if names else None))

    @app.get(f"{API}/d/{{slug}}/sphere/{{fingerprint}}")
    def sphere_arrays(request: Request, slug: str, fingerprint: str) -> Response:
        _only(request)
        return _drawn(lambda: sphere_bytes(_current(explorer, slug, fingerprint)))

    @app.get(f"{API}/d/{{slug}}/layout/{{name}}/{{fingerprint}}")
    def layout_arrays(request: Request, slug: str, name: str, fingerprint: str) -> Response:
        _only(request)
        if name != "unrolled":
            raise LookupError(f"there is no layout {name[:40]!r}; there is unrolled")
        return _drawn(lambda: layout_bytes(_current(explorer, slug, fingerprint)))

    @app.post(f"{API}/d/{{slug}}/slice")
    def cut_slice(slug: str, body: SliceBody) -> Response:
        begun = time.perf_counter()
        listed = explorer.listed(slug)
        return _answer(slice_answer(listed, body.basis), begun, listed.view)


def _add_regions(app: FastAPI, explorer: Explorer) -> None:
    base = f"{API}/d/{{slug}}/regions"

    @app.get(base)
    def region_list(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        listed = explorer.listed(slug)
        view = request.query_params.get("view", "rows")
        query = queries.parse_query(request.query_params.multi_items(), ("view",))
        if view not in ("rows", "ids"):
            raise ValueError(f"view is {view[:40]!r}, expected rows or ids")
        if view == "ids":
            found = queries.matching(listed, query).astype("<u4")
            return Response(
                found.tobytes(),
                media_type="application/octet-stream",
                headers={"X-Count": str(len(found)), "Cache-Control": "no-cache"},
            )
        return _answer(queries.page(listed, query), begun, listed.view)

    @app.get(f"{base}.csv")
    def region_table(request: Request, slug: str) -> Response:
        listed = explorer.listed(slug)
        query = queries.parse_query(request.query_params.multi_items())
        text, truncated = queries.table_csv(listed, query)
        name = re.sub(r"[^A-Za-z0-9._-]", "-", slug)
        return Response(
            text,
            media_type="text/csv; charset=utf-8",
            headers={
                "Content-Disposition": f'attachment; filename="{name}-regions.csv"',
                "X-Truncated": str(int(truncated)),
            },
        )

    @app.get(f"{base}/{{region}}")
    def region_page(request: Request, slug: str, region: str) -> Response:
        begun = time.perf_counter()
        _only(request, "_extra")
        listed = explorer.listed(slug)
        extras = [name for name in request.query_params.get("_extra", "").split(",") if name]
        if not set(extras) <= set(EXTRAS):
            raise ValueError(f"_extra has {', '.join(extras)[:80]}; choose {', '.join(EXTRAS)}")
        number = pages.region_of(listed.view, region)
        return _answer(region_answer(explorer, listed, number, extras), begun, listed.view)

    sections: dict[str, tuple[str, ...]] = {
        "members": ("kind", "band", "_size", "_next", "collapse"),
        "lens": ("direction", "k"),
        "neighbours": ("k",),
        "tokens": (),
        "histogram": (),
        "resolution": (),
    }

    @app.get(f"{base}/{{region}}/{{section}}")
    def region_section(request: Request, slug: str, region: str, section: str) -> Response:
        begun = time.perf_counter()
        if section not in sections:
            raise LookupError(f"there is no section {section[:40]!r} of a region")
        _only(request, *sections[section])
        listed = explorer.listed(slug)
        number = pages.region_of(listed.view, region)
        found = section_answer(explorer, listed, number, section, request.query_params)
        return _answer(found, begun, listed.view)

    @app.get(f"{API}/d/{{slug}}/search")
    def search(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        _only(request, "q", "k", "fields")
        parameters = request.query_params
        listed = explorer.listed(slug)
        fields = parameters.get("fields", "token,label,context,lens").split(",")
        unknown = set(fields) - {"token", "label", "context", "lens"}
        if unknown:
            raise ValueError(f"the field {sorted(unknown)[0][:40]!r} is not known")
        limit = _number(parameters, "k", 50, 1, queries.PAGE)
        hits, truncated = queries.search(listed, parameters.get("q", "")[:500], fields, limit)
        found = {"hits": hits, "truncated": truncated, "fts": listed.view.cards.full_text}
        return _answer(found, begun, listed.view)


def _add_notes(app: FastAPI, explorer: Explorer) -> None:
    @app.get(f"{API}/notes")
    def read_notes(request: Request) -> Response:
        begun = time.perf_counter()
        _only(request)
        return _answer(explorer.notes.everything(), begun)

    @app.put(f"{API}/notes")
    def write_notes(request: Request, body: NotesBody) -> Response:
        begun = time.perf_counter()
        version = request.headers.get("if-match")
        explorer.notes.replace(body.pins, body.notes, version.strip('"') if version else None)
        return _answer(explorer.notes.everything(), begun)

    @app.delete(f"{API}/notes")
    def delete_notes() -> Response:
        begun = time.perf_counter()
        explorer.notes.replace([], {}, None)
        return _answer(explorer.notes.everything(), begun)

    @app.put(f"{API}/d/{{slug}}/regions/{{region}}/label")
    def write_label(slug: str, region: str, body: LabelBody) -> Response:
        begun = time.perf_counter()
        number = pages.region_of(explorer.listed(slug).view, region)
        explorer.notes.set_label(slug, number, body.label)
        label, source = explorer.listed(slug).labels.get(number, (None, None))
        return _answer({"label": label, "label_source": source}, begun)


def app_page(explorer: Explorer) -> dict[str, Any]:
    """What is open, and what can be done with it."""
    why_not = explorer.notes.why_not
    return {
        "version": __version__,
        "api": 1,
        "capabilities": {
            "trace": False, "steer": False, "fts": any(
                view.status("cards")[0] == "ready" and view.cards.full_text
                for view in explorer.views.values()
            ),
            "arrow": False, "write": why_not is None, "drift": len(explorer.views) > 1,
            "lens": any(view.lens is not None for view in explorer.views.values()),
        },
        "reasons": {} if why_not is None else {"write": why_not},
        "limits": LIMITS,
        "models": [],
        "dictionaries": [_entry(explorer, view) for view in explorer.views.values()],
    }  # fmt: skip


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
        "trace": False,
    }


def dictionary_answer(explorer: Explorer, slug: str) -> dict[str, Any]:
    """The page of a dictionary."""
    return pages.dictionary_page(explorer.listed(slug).view)


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
            size=_number(parameters, "_size", 10, 1, queries.PAGE),
            start=_start(parameters.get("_next")),
            collapse=parameters.get("collapse") == "1",
        )
    if section == "lens":
        k = _number(parameters, "k", 20, 1, 100)
        return pages.lens_page(view, region, parameters.get("direction", "exemplar"), k, None)
    if section == "neighbours":
        return pages.neighbours_page(listed, region, _number(parameters, "k", 20, 1, 100))
    if section == "tokens":
        return pages.tokens_page(view, region)
    if section == "histogram":
        return pages.histogram_page(view, region)
    raise LookupError(f"{section} is not known here")


def slice_answer(listed: Listed, basis: Mapping[str, Any]) -> dict[str, Any]:
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
        rows = slices.around(exemplars, region)
        return pages.slice_page(listed, rows, "local", _named(listed, [region]))
    raise ValueError(
        f"the kind of basis is {str(kind)[:40]!r}; choose pca, regions, local, run or random"
    )


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
        unknown = [name for name in names if name not in arrays]
        if unknown:
            raise ValueError(f"there is no column {unknown[0][:40]!r}; see columns of the page")
        arrays = {name: arrays[name] for name in names}
    about = {"k": view.dictionary.n_regions, "fingerprint": view.fingerprint}
    return tensors_bytes(arrays, about)


def sphere_bytes(listed: Listed) -> bytes:
    """The projected sphere as safetensors."""
    view = listed.view
    about = pages.map_about(view) | {
        "k": view.dictionary.n_regions,
        "fingerprint": view.fingerprint,
        "theta": view.dictionary.threshold,
    }
    return tensors_bytes(sphere.sphere_arrays(view.sphere), about)


def layout_bytes(listed: Listed) -> bytes:
    """The unrolled map as safetensors."""
    view = listed.view
    xy = sphere.unrolled(view.sphere.points)
    arrays = {
        "xy": xy, "density": sphere.density(xy, 256), "density_1024": sphere.density(xy, 1024),
    }  # fmt: skip
    about = {
        **pages.map_about(view),
        "fingerprint": view.fingerprint,
        "labels": pages.map_labels(listed, xy),
    }
    return tensors_bytes(arrays, about)


def tensors_bytes(arrays: Mapping[str, Any], about: Mapping[str, Any]) -> bytes:
    """Arrays and a JSON text under the one metadata key "about", as safetensors."""
    from safetensors.numpy import save

    return save(
        {name: np.ascontiguousarray(array) for name, array in arrays.items()},
        {"about": to_json(about)},
    )


def _named(listed: Listed, regions: Sequence[int]) -> list[tuple[int | None, str, Any]]:
    about = queries.brief(listed, regions)
    exemplars = listed.view.dictionary.exemplars
    return [(k, pages.name_of(about[k]), np.asarray(exemplars[k])) for k in regions]


def _current(explorer: Explorer, slug: str, fingerprint: str) -> Listed:
    listed = explorer.listed(slug)
    if fingerprint != listed.view.fingerprint:
        raise HTTPException(409, "the dictionary has changed since; load the page again")
    return listed


def _drawn(make: Callable[[], bytes]) -> Response:
    """Arrays of a picture; 409 with the reason where there is none to draw."""
    try:
        return _binary(make())
    except ValueError as error:
        raise HTTPException(409, str(error)) from error


def _answer(found: Mapping[str, Any], begun: float, view: View | None = None) -> Response:
    took = 1000 * (time.perf_counter() - begun)
    text = to_json({"ok": True, **found, "query_ms": round(took, 2)})
    headers = {"Cache-Control": "no-cache"}
    if view is not None:
        headers["ETag"] = f'"{view.fingerprint}"'
    return Response(text, media_type="application/json", headers=headers)


def _binary(content: bytes) -> Response:
    return Response(
        content,
        media_type="application/vnd.safetensors",
        headers={"Cache-Control": "private, max-age=3600"},
    )


def _only(request: Request, *names: str) -> None:
    """Refuse parameters that mean nothing here."""
    for name in request.query_params:
        if name not in names:
            raise ValueError(f"the parameter {name[:60]!r} is not known; see openapi.json")


def _number(parameters: Mapping[str, str], name: str, default: int, low: int, high: int) -> int:
    text = parameters.get(name)
    if text is None:
        return default
    found = int(text) if re.fullmatch("[0-9]{1,9}", text) else low - 1
    if not low <= found <= high:
        raise ValueError(f"{name} is {text[:40]!r}, expected a number from {low} to {high}")
    return found


def _start(text: str | None) -> int:
    return queries.parse_query([("_next", text)]).start if text is not None else 0


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


def place_of(folder: Path, cache: Path | None, read_only: bool) -> Path | None:
    """Where the prepared files of a dictionary go; None for a temporary folder."""
    if cache is not None:
        return cache / beside(folder).name.strip(".")
    return None if read_only else beside(folder)
