"""The routes: what the page asks, checked, and handed to the modules that know.

Reads are plain functions in a small pool of threads, streams are lines of JSON. Every answer says
how long it took; text is never HTML.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, Response
from pydantic import Field
from starlette.exceptions import HTTPException as AnyHTTPException

from exemplars import __version__
from exemplars.errors import ExemplarsError
from exemplars.explorer import contents, pages, queries, relations
from exemplars.explorer.answers import API, Body, answered, binary, drawn, only
from exemplars.explorer.assets import INSTALLED, Assets
from exemplars.explorer.described import describe
from exemplars.explorer.drift_routes import add_drift
from exemplars.explorer.jobs import Exports
from exemplars.explorer.notes import StaleError
from exemplars.explorer.queries import Listed
from exemplars.explorer.single_file import MAX_MB, TOP
from exemplars.explorer.state import Explorer
from exemplars.explorer.streams import add_streams
from exemplars.explorer.views import NotReadyError
from exemplars.explorer.worker import BusyError

_logger = logging.getLogger(__name__)
THREADS = 4
"""Reads at a time."""
EXTRAS = ("members", "lens", "neighbours", "resolution", "tokens", "histogram", "drift")


class SliceBody(Body):
    """What to cut with: a kind, and what that kind needs."""

    basis: dict[str, Any]


class PassageBody(Body):
    """A text that was traced."""

    run: str = Field(max_length=40)


class ExportBody(Body):
    """What goes into one file."""

    slug: str = Field(alias="dict")
    regions: list[int] | None = Field(default=None, max_length=10_000)
    top: int = Field(default=TOP, ge=1, le=10_000)
    corpus_text: bool = True
    max_mb: float = Field(default=MAX_MB, ge=0.1, le=200)


class LabelBody(Body):
    """A label; empty to take it away."""

    label: str = Field(max_length=2000)


class NotesBody(Body):
    """All pins and notes."""

    pins: list[dict[str, Any]] = Field(default_factory=list, max_length=10_000)
    notes: dict[str, str] = Field(default_factory=dict)


def create_app(explorer: Explorer, assets: Assets = INSTALLED) -> FastAPI:
    """The application, without its guard.

    Args:
        explorer: What it answers from; it is closed when the application ends.
        assets: The files of the page.
    """
    exports = Exports()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        import anyio.to_thread

        anyio.to_thread.current_default_thread_limiter().total_tokens = THREADS
        yield
        exports.close()

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
    _add_growth(app, explorer)
    add_drift(app, explorer)
    _add_notes(app, explorer)
    _add_exports(app, explorer, exports)
    add_streams(app, explorer)
    describe(app)
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
        about = {
            "ok": True, "status": "preparing", "stage": error.part, "progress": error.progress,
        }  # fmt: skip
        return JSONResponse(about, 202, {"Retry-After": "1"})

    kinds: tuple[tuple[type[Exception], int], ...] = (
        (StaleError, 412),
        (ValueError, 400),
        (LookupError, 404),
        (PermissionError, 403),
        (ExemplarsError, 409),
        (BusyError, 429),
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
        only(request)
        explorer.on_first_read()
        return answered(contents.app_page(explorer), begun)

    @app.get(f"{API}/d/{{slug}}")
    def about_dictionary(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        only(request)
        view = explorer.listed(slug).view
        return answered(contents.dictionary_answer(explorer, slug), begun, view)

    @app.get(f"{API}/d/{{slug}}/columns/{{fingerprint}}")
    def column_arrays(request: Request, slug: str, fingerprint: str) -> Response:
        only(request, "names")
        listed = _current(explorer, slug, fingerprint)
        names = request.query_params.get("names")
        return binary(contents.columns_bytes(listed, names.split(",") if names else None))

    @app.get(f"{API}/d/{{slug}}/sphere/{{fingerprint}}")
    def sphere_arrays(request: Request, slug: str, fingerprint: str) -> Response:
        only(request)
        return drawn(lambda: contents.sphere_bytes(_current(explorer, slug, fingerprint)))

    @app.get(f"{API}/d/{{slug}}/layout/{{name}}/{{fingerprint}}")
    def layout_arrays(request: Request, slug: str, name: str, fingerprint: str) -> Response:
        only(request)
        listed = _current(explorer, slug, fingerprint)
        return drawn(lambda: contents.layout_bytes(explorer, listed, name))

    @app.get(f"{API}/d/{{slug}}/cells/{{name}}/{{fingerprint}}")
    def cell_arrays(request: Request, slug: str, name: str, fingerprint: str) -> Response:
        only(request)
        listed = _current(explorer, slug, fingerprint)
        return drawn(lambda: contents.cells_bytes(explorer, listed, name))

    @app.post(f"{API}/d/{{slug}}/slice")
    def cut_slice(slug: str, body: SliceBody) -> Response:
        begun = time.perf_counter()
        listed = explorer.listed(slug)
        return answered(contents.slice_answer(explorer, listed, body.basis), begun, listed.view)

    @app.post(f"{API}/d/{{slug}}/passage")
    def place_passage(slug: str, body: PassageBody) -> Response:
        begun = time.perf_counter()
        listed = explorer.listed(slug)
        return answered(contents.passage_answer(explorer, listed, body.run), begun, listed.view)


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
        return answered(queries.page(listed, query), begun, listed.view)

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
        only(request, "_extra")
        listed = explorer.listed(slug)
        extras = [name for name in request.query_params.get("_extra", "").split(",") if name]
        if not set(extras) <= set(EXTRAS):
            raise ValueError(f"_extra has {', '.join(extras)[:80]}; choose {', '.join(EXTRAS)}")
        number = pages.region_of(listed.view, region)
        return answered(
            contents.region_answer(explorer, listed, number, extras), begun, listed.view
        )

    sections: dict[str, tuple[str, ...]] = {
        "members": ("kind", "band", "_size", "_next", "collapse"),
        "lens": ("direction", "k"),
        "neighbours": ("k",),
        "tokens": (),
        "histogram": (),
        "resolution": (),
        "drift": (),
    }

    @app.get(f"{base}/{{region}}/{{section}}")
    def region_section(request: Request, slug: str, region: str, section: str) -> Response:
        begun = time.perf_counter()
        if section not in sections:
            raise LookupError(f"there is no section {section[:40]!r} of a region")
        only(request, *sections[section])
        listed = explorer.listed(slug)
        number = pages.region_of(listed.view, region)
        found = contents.section_answer(explorer, listed, number, section, request.query_params)
        return answered(found, begun, listed.view)

    @app.get(f"{API}/d/{{slug}}/search")
    def search(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        only(request, "q", "k", "fields")
        parameters = request.query_params
        listed = explorer.listed(slug)
        fields = parameters.get("fields", "token,label,context,lens").split(",")
        unknown = set(fields) - {"token", "label", "context", "lens"}
        if unknown:
            raise ValueError(f"the field {sorted(unknown)[0][:40]!r} is not known")
        limit = queries.whole(parameters, "k", 50, 1, queries.PAGE)
        hits, truncated = queries.search(listed, parameters.get("q", "")[:500], fields, limit)
        found = {"hits": hits, "truncated": truncated, "fts": listed.view.cards.full_text}
        return answered(found, begun, listed.view)


def _add_growth(app: FastAPI, explorer: Explorer) -> None:
    @app.get(f"{API}/d/{{slug}}/growth")
    def growth(request: Request, slug: str) -> Response:
        begun = time.perf_counter()
        only(request)
        view = explorer.listed(slug).view
        return answered(relations.growth_page(explorer.views, slug), begun, view)


def _add_notes(app: FastAPI, explorer: Explorer) -> None:
    @app.get(f"{API}/notes")
    def read_notes(request: Request) -> Response:
        begun = time.perf_counter()
        only(request)
        return answered(explorer.notes.everything(), begun)

    @app.put(f"{API}/notes")
    def write_notes(request: Request, body: NotesBody) -> Response:
        begun = time.perf_counter()
        version = request.headers.get("if-match")
        explorer.notes.replace(body.pins, body.notes, version.strip('"') if version else None)
        return answered(explorer.notes.everything(), begun)

    @app.delete(f"{API}/notes")
    def delete_notes() -> Response:
        begun = time.perf_counter()
        explorer.notes.replace([], {}, None)
        return answered(explorer.notes.everything(), begun)

    @app.put(f"{API}/d/{{slug}}/regions/{{region}}/label")
    def write_label(slug: str, region: str, body: LabelBody) -> Response:
        begun = time.perf_counter()
        number = pages.region_of(explorer.listed(slug).view, region)
        explorer.notes.set_label(slug, number, body.label)
        label, source = explorer.listed(slug).labels.get(number, (None, None))
        return answered({"label": label, "label_source": source}, begun)


def _add_exports(app: FastAPI, explorer: Explorer, exports: Exports) -> None:
    @app.post(f"{API}/export")
    def begin(body: ExportBody) -> Response:
        begun = time.perf_counter()
        view = explorer.listed(body.slug).view
        found = exports.begin(view, body.regions, body.top, body.corpus_text, body.max_mb)
        return answered({"job": found}, begun)

    @app.get(f"{API}/jobs/{{job}}")
    def job_state(request: Request, job: str) -> Response:
        begun = time.perf_counter()
        only(request)
        return answered(exports.job(job).page(), begun)

    @app.get(f"{API}/jobs/{{job}}/file")
    def job_file(request: Request, job: str) -> Response:
        only(request)
        found = exports.job(job)
        if found.state != "done":
            raise HTTPException(409, f"the export is {found.state}; ask again when it is done")
        return FileResponse(
            exports.file(job), media_type="text/html; charset=utf-8", filename=found.name
        )


def _current(explorer: Explorer, slug: str, fingerprint: str) -> Listed:
    listed = explorer.listed(slug)
    if fingerprint != listed.view.fingerprint:
        raise HTTPException(409, "the dictionary has changed since; load the page again")
    return listed
