"""The routes of drift: two dictionaries beside each other."""

from __future__ import annotations

import re
import time

from fastapi import FastAPI, Request
from fastapi.responses import Response

from exemplars.explorer import beside, contents, queries, relations, sphere
from exemplars.explorer.answers import API, answered, binary, drawn, only
from exemplars.explorer.queries import Listed
from exemplars.explorer.state import Explorer


def add_drift(app: FastAPI, explorer: Explorer) -> None:
    """Add them."""

    def both(request: Request, *names: str) -> tuple[Listed, Listed]:
        only(request, "a", "b", *names)
        a, b = (explorer.listed(request.query_params.get(side, "")) for side in ("a", "b"))
        relations.check_comparable(a.view.dictionary, b.view.dictionary)
        return a, b

    def seen(a: Listed, b: Listed) -> beside.Beside:
        return explorer.besides.of(explorer.views, a.view, b.view)

    @app.get(f"{API}/drift")
    def drift(request: Request) -> Response:
        begun = time.perf_counter()
        a, b = both(request, "cutoff")
        found = explorer.drifts.of(a.view, b.view)
        return answered(relations.drift_page(a.view, b.view, found, _cutoff(request)), begun)

    @app.get(f"{API}/drift/columns")
    def drift_columns(request: Request) -> Response:
        a, b = both(request)
        found = explorer.drifts.of(a.view, b.view)
        about = {"a": a.view.fingerprint, "b": b.view.fingerprint}
        return binary(contents.tensors(relations.drift_arrays(found), about))

    @app.get(f"{API}/drift/pairs")
    def drift_pairs(request: Request) -> Response:
        begun = time.perf_counter()
        a, b = both(request, "cutoff", "kind", "_sort", "_sort_desc", "_size", "_next")
        parameters = request.query_params
        page = relations.drift_pairs(
            a, b, explorer.drifts.of(a.view, b.view), _cutoff(request),
            parameters.get("kind", "moved"),
            parameters.get("_sort_desc", parameters.get("_sort", "cosine")),
            "_sort_desc" in parameters, queries.start_of(parameters.get("_next")),
            queries.whole(parameters, "_size", 50, 1, queries.PAGE),
        )  # fmt: skip
        return answered(page, begun)

    @app.get(f"{API}/drift/sphere")
    def drift_sphere(request: Request) -> Response:
        a, b = both(request)

        def arrays() -> bytes:
            found = seen(a, b)
            about = beside.sphere_about(a.view, b.view, found)
            assert isinstance(found.sphere, sphere.Sphere)
            return contents.tensors(sphere.sphere_arrays(found.sphere), about)

        return drawn(arrays)

    @app.get(f"{API}/drift/flows")
    def drift_flows(request: Request) -> Response:
        begun = time.perf_counter()
        a, b = both(request)
        found = explorer.drifts.of(a.view, b.view)
        listed = {slug: explorer.listed(slug) for slug in explorer.views}
        return answered(beside.flows_page(a, b, found, seen(a, b), listed), begun)


def _cutoff(request: Request) -> float:
    text = request.query_params.get("cutoff", str(relations.CUTOFF))
    found = float(text) if re.fullmatch(r"-?[0-9.]{1,12}", text) and text.count(".") < 2 else 2.0
    if not -1 <= found <= 1:
        raise ValueError(f"cutoff is {text[:40]!r}, expected a cosine from -1 to 1")
    return found
