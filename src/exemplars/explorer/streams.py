"""The routes that answer line by line: live text and steering, and their cancelling."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.responses import Response, StreamingResponse
from pydantic import Field

from exemplars.explorer import live, pages, witnesses
from exemplars.explorer.answers import API, Body, answered
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View
from exemplars.explorer.worker import Job

if TYPE_CHECKING:
    from exemplars.models import Model


class Message(Body):
    """A message of a conversation."""

    role: str = Field(max_length=40)
    content: str = Field(max_length=live.LONGEST)


class TraceBody(Body):
    """A text or a conversation, and how much to say of each token."""

    text: str | None = Field(default=None, max_length=live.LONGEST)
    messages: list[Message] | None = Field(default=None, max_length=live.MESSAGES)
    topk: int = Field(default=3, ge=1, le=7)
    skip_special: bool = True
    client: str = Field(default="", max_length=80)


class EditBody(Body):
    """One edit."""

    region: int = Field(ge=0)
    op: str
    strength: float = Field(default=1.0, ge=-100, le=100)
    unit: str = "norm"
    positions: str = "edited"


class VariantBody(Body):
    """Edits that act together."""

    name: str = Field(default="", max_length=200)
    items: list[EditBody] = Field(max_length=live.ITEMS)


class SteerBody(Body):
    """A prompt, and what is to be done to the model while it answers."""

    prompt: str | None = Field(default=None, max_length=live.LONGEST)
    messages: list[Message] | None = Field(default=None, max_length=live.MESSAGES)
    variants: list[VariantBody] = Field(default_factory=list, max_length=live.VARIANTS)
    max_new_tokens: int = Field(default=64, ge=1, le=live.NEW_TOKENS)
    temperature: float = Field(default=0.0, ge=0, le=10)
    seed: int = Field(default=0, ge=0, le=2**31)
    client: str = Field(default="", max_length=80)


class DriftBody(Body):
    """A text for two dictionaries."""

    a: str
    b: str
    text: str = Field(max_length=live.LONGEST)
    client: str = Field(default="", max_length=80)


class WitnessBody(Body):
    """How many neighbours are asked about."""

    k: int = Field(default=20, ge=1, le=100)
    client: str = Field(default="", max_length=80)


class CancelBody(Body):
    """Nothing."""


def add_streams(app: FastAPI, explorer: Explorer) -> None:
    """Add the routes."""

    @app.post(f"{API}/d/{{slug}}/trace")
    async def trace(slug: str, body: TraceBody) -> Response:
        view = explorer.listed(slug).view
        name = explorer.model_name(view)
        content = _content(body.text, body.messages)

        def work(job: Job) -> None:
            model = explorer.worker.model(name)
            found = live.trace_text(
                view.dictionary, model, content, job, slug,
                topk=body.topk, skip_special=body.skip_special, prefixes=explorer.prefixes,
            )  # fmt: skip
            explorer.remember(job.id, found)

        return _streamed(explorer, "trace", body.client, work, name)

    @app.post(f"{API}/d/{{slug}}/steer")
    async def steer(slug: str, body: SteerBody) -> Response:
        view = explorer.listed(slug).view
        name = explorer.model_name(view)
        content = _content(body.prompt, body.messages)
        variants = tuple(_variant(view, variant) for variant in body.variants)
        asked = live.Steering(content, variants, body.max_new_tokens, body.temperature, body.seed)

        def work(job: Job) -> None:
            live.steer_text(view.dictionary, explorer.worker.model(name), asked, job)

        return _streamed(explorer, "steer", body.client, work, name)

    @app.post(f"{API}/drift/trace")
    async def drift_trace(body: DriftBody) -> Response:
        views = [explorer.listed(slug).view for slug in (body.a, body.b)]
        names = [explorer.model_name(view) for view in views]
        pairs = explorer.drifts.of(*views).correspondence.pairs
        partners = set(map(tuple, pairs.tolist()))

        def work(job: Job) -> None:
            a, b = (
                (view.dictionary, explorer.worker.model(name))
                for view, name in zip(views, names, strict=True)
            )
            live.trace_both(a, b, body.text, lambda i, j: (i, j) in partners, job)

        return _streamed(explorer, "drift", body.client, work, names[0])

    @app.post(f"{API}/d/{{slug}}/regions/{{region}}/witnesses")
    async def witness(slug: str, region: str, body: WitnessBody) -> Response:
        view = explorer.listed(slug).view
        name = explorer.model_name(view)
        number = pages.region_of(view, region)

        def work(job: Job) -> None:
            say_witnesses(view, explorer.worker.model(name), number, body.k, job)

        return _streamed(explorer, "witness", body.client, work, name)

    @app.post(f"{API}/sessions/{{session}}/cancel")
    async def cancel(session: str, body: CancelBody) -> Response:
        begun = time.perf_counter()
        return answered({"cancelled": explorer.worker.cancel(session)}, begun)


def say_witnesses(view: View, model: Model, region: int, k: int, job: Job) -> None:
    """Say which member of a region lies nearest to each of its k nearest neighbours."""
    d = view.dictionary
    texts = view.remembered("texts", lambda: witnesses.build_texts(d))
    again = witnesses.read_again(
        d, model, region, texts, lambda n, of: job.put("progress", done=n, of=of), job.cancel
    )
    rows = []
    for other in pages.nearest_to(view.distances_from(region), region, k).tolist():
        found = again.nearest_to(d.exemplars[other])
        if found is not None:
            member, distance = found
            about = pages.member_row(member, d.threshold)
            rows.append({"id": other, **about, "to_neighbour_theta": distance / d.threshold})
    job.put("end", rows=rows, read=len(again.members), asked=again.asked, source=again.source)


def _streamed(explorer: Explorer, kind: str, client: str, work: Any, model: str) -> Response:
    job = explorer.worker.submit(kind, client, work, model)
    return StreamingResponse(
        job.lines(),
        media_type="application/x-ndjson",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _variant(view: View, body: VariantBody) -> Any:
    items: list[Mapping[str, Any]] = [item.model_dump() for item in body.items]
    wrong = next((item["unit"] for item in items if item["unit"] != "norm"), None)
    if wrong is not None:
        raise ValueError(f"the unit is {wrong[:40]!r}, expected norm: the median activation norm")
    edits, regions = live.edits_of(view.dictionary, items)
    return body.name or "variant", edits, regions


def _content(text: str | None, messages: list[Message] | None) -> Any:
    if (text is None) == (messages is None):
        raise ValueError("give a text, or messages, and not both")
    if messages is None:
        return text
    if not messages:
        raise ValueError("a conversation needs a message")
    return [message.model_dump() for message in messages]
