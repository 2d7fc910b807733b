"""What all routes share: the form of answers and of request bodies, and checks of parameters."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

from fastapi import HTTPException, Request
from fastapi.responses import Response
from pydantic import BaseModel, ConfigDict

from exemplars.explorer.views import View
from exemplars.report import to_json

API = "/api/v1"


class Body(BaseModel):
    """A request's JSON: nothing unknown in it, and no number as text."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


def answered(found: Mapping[str, Any], begun: float, view: View | None = None) -> Response:
    """An answer as JSON, with the time since `begun`; numbers that are not finite are null."""
    took = 1000 * (time.perf_counter() - begun)
    text = to_json({"ok": True, **found, "query_ms": round(took, 2)})
    headers = {"Cache-Control": "no-cache"}
    if view is not None:
        headers["ETag"] = f'"{view.fingerprint}"'
    return Response(text, media_type="application/json", headers=headers)


def binary(content: bytes) -> Response:
    """Arrays, which stay what they are under their address."""
    return Response(
        content,
        media_type="application/vnd.safetensors",
        headers={"Cache-Control": "private, max-age=3600"},
    )


def drawn(make: Callable[[], bytes]) -> Response:
    """Arrays of a picture; 409 with the reason where there is none to draw."""
    try:
        return binary(make())
    except ValueError as error:
        raise HTTPException(409, str(error)) from error


def only(request: Request, *names: str) -> None:
    """Refuse parameters that mean nothing here."""
    for name in request.query_params:
        if name not in names:
            raise ValueError(f"the parameter {name[:60]!r} is not known; see openapi.json")
