"""What needs a model or a second dictionary, made once and kept in an exported file.

Texts that were read, answers that were steered, and what changed between two dictionaries. Each
says of which model it is, in which revision and dtype, and from which seed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from exemplars import store
from exemplars.analyses.labelled import read_lines
from exemplars.explorer import live, pages, relations
from exemplars.explorer.queries import Listed, brief
from exemplars.explorer.views import View
from exemplars.explorer.worker import Job

if TYPE_CHECKING:
    from exemplars.models import Model

TEXTS = 50
"""Texts that one file holds, at most."""
_ROWS = 20
_BINS = 40
_NAMED = 120
_UNREAD = "expected what the page for steering saves as JSON"

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Frozen:
    """What was made for one file."""

    traces: tuple[dict[str, Any], ...] = ()
    """As `traced` gives them."""
    sessions: tuple[dict[str, Any], ...] = ()
    """As `session_of` does."""
    drift: dict[str, Any] | None = None
    """As `changes` does."""

    def answers(self, slug: str) -> dict[str, dict[str, Any]]:
        """By part, the answers by the path that the page asks."""
        traces, sessions = enumerate(self.traces), enumerate(self.sessions)
        return {
            "live text": {f"d/{slug}/frozen/trace/{i}": found for i, found in traces},
            "steering": {f"d/{slug}/frozen/session/{i}": found for i, found in sessions},
            "drift": {} if self.drift is None else {"frozen/drift": self.drift},
        }

    @property
    def listed(self) -> dict[str, Any]:
        """What the pages choose from: beginnings of texts and of prompts."""
        return {
            "traces": [found["text"][:_NAMED] for found in self.traces],
            "sessions": [_prompt_of(found["asked"])[:_NAMED] for found in self.sessions],
            "drift": self.drift is not None,
        }

    @property
    def missing(self) -> str:
        """What only the server has: the last of the sentences on what was left out."""
        there = {"live text": self.traces, "steering": self.sessions, "drift": self.drift}
        names = [name for name, found in there.items() if not found]
        return f"{', '.join([*names, 'notes'])}, which need the server"


NOTHING = Frozen()


def _prompt_of(asked: Mapping[str, Any]) -> str:
    return asked["prompt"] or " ".join(m["content"] for m in asked["messages"] or ())


class _Part(BaseModel):
    """Of a saved session: what is shown is kept, and all else is left out."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)


class _Token(_Part):
    i: int
    id: int
    text: str
    kl: float | None = None
    theta_ratio: float | None = None
    region: int | None = None
    logprob: float | None = None


class _Statistics(_Part):
    ppl_base: float | None = None
    mean_kl: float | None = None
    target_hit: float | None = None
    ood: float | None = None


class _End(_Part):
    reason: str
    stats: _Statistics | None = None


class _Answer(_Part):
    name: str
    tokens: list[_Token] = Field(max_length=live.NEW_TOKENS)
    end: _End | None = None


class _Item(_Part):
    region: int
    op: str
    strength: float | None = None
    positions: str | None = None


class _Variant(_Part):
    name: str = ""
    items: list[_Item]


class _Message(_Part):
    role: str
    content: str


class _Asked(_Part):
    prompt: str | None = None
    messages: list[_Message] | None = None
    variants: list[_Variant]
    max_new_tokens: int
    temperature: float
    seed: int


class _Named(_Part):
    name: str | None = None
    revision: str | None = None
    site: str | None = None
    dtype: str | None = None


class _Session(_Part):
    fingerprint: str
    model: _Named
    asked: _Asked
    answers: list[_Answer] = Field(min_length=1, max_length=64)


def texts_to_trace(file: Path) -> list[str]:
    """The texts of a file, as `read_lines` reads it.

    Raises:
        SourceError: There is no such file.
        ValueError: It has no texts, or more than one file holds.
    """
    found = read_lines(file)
    if len(found) > TEXTS:
        raise ValueError(f"{file} has {len(found):,} texts, expected at most {TEXTS}; give fewer")
    return found


def traced(
    listed: Listed,
    model: Model,
    texts: Sequence[str],
    on_step: OnStep = lambda what, done, total: None,
) -> list[dict[str, Any]]:
    """What live text would say of texts.

    Args:
        listed: The dictionary, and its labels.
        model: The dictionary's.
        texts: Each of at most 2,048 tokens.
        on_step: Told how many are read.

    Returns:
        For each the text, its tokens as the stream has them, where they lie on the sphere, what its
        regions are called, and by which model it was read.

    Raises:
        MismatchError: Another model than the dictionary's.
        ValueError: A text that cannot be read; says why.
    """
    view = listed.view
    store.check_model(view.dictionary, model)
    found = []
    for n, text in enumerate(texts):
        on_step("texts", n, len(texts))
        runs: list[live.Run] = []
        job = Job("trace", "", partial(_trace, view, model, text, runs))
        job.run()
        messages = job.messages()
        wrong = next((m["error"] for m in messages if m["type"] == "error"), None)
        if wrong is not None:
            raise ValueError(f"the text {text[:40]!r} cannot be read: {wrong}")
        rows = [row for m in messages if m["type"] == "tokens" for row in m["rows"]]
        start = next(m for m in messages if m["type"] == "start")
        points = live.sphere_points(view.sphere, runs[0]) if _has_sphere(view) else []
        about = about_model(view, model)
        met = sorted({row["region"] for row in rows if row["region"] is not None})
        found.append(
            {"text": start["text"], "rows": rows, "points": points, "about": about,
             "regions": list(brief(listed, met).values())}
        )  # fmt: skip
    on_step("texts", len(texts), len(texts))
    return found


def _trace(view: View, model: Model, text: str, runs: list[live.Run], job: Job) -> None:
    runs.append(live.trace_text(view.dictionary, model, text, job, view.slug))


def _has_sphere(view: View) -> bool:
    return view.status("sphere")[0] == "ready"


def about_model(view: View, model: Model) -> dict[str, Any]:
    """Which model something was read with, and the seed of the dictionary's build."""
    found = live.named(view.dictionary, model)
    return {**found, "model": found["name"], "seed": view.dictionary.provenance.get("seed")}


def session_of(file: Path, view: View) -> dict[str, Any]:
    """A steering session as the page saves it.

    Raises:
        ValueError: It is none, or it is of another dictionary.
    """
    try:
        found = _Session.model_validate(json.loads(file.read_text(encoding="utf-8")))
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise ValueError(f"{file}: {where}: {first['msg'].lower()}; {_UNREAD}") from error
    except ValueError as error:
        raise ValueError(f"{file} is not JSON ({error}); {_UNREAD}") from error
    if found.fingerprint != view.fingerprint:
        raise ValueError(
            f"{file} is a session with another dictionary (or with this one before it was built "
            "anew); steer again, and save that"
        )
    asked = found.asked
    return {
        "about": {**found.model.model_dump(), "model": found.model.name, "seed": asked.seed},
        "asked": asked.model_dump(),
        "answers": [answer.model_dump() for answer in found.answers],
    }


def changes(a: Listed, b: Listed, cutoff: float = relations.CUTOFF) -> dict[str, Any]:
    """What changed from one dictionary to another: counts, cosines, and some regions of each kind.

    Raises:
        ValueError: They cannot be matched.
    """
    relations.check_comparable(a.view.dictionary, b.view.dictionary)
    drift = relations.compared(a.view.dictionary, b.view.dictionary)
    orders = {
        "moved": ("cosine", False),
        "dropped": ("member_count", True),
        "introduced": ("member_count", True),
        "kept": ("cosine", False),
    }
    matched = drift.correspondence
    counts, edges = np.histogram(matched.score, np.linspace(-1, 1, _BINS + 1).round(6))
    first = int(np.argmax(counts > 0))
    return {
        **relations.drift_page(a.view, b.view, drift, cutoff),
        "titles": [pages.title_of(one.view) for one in (a, b)],
        "about": [_built(one.view) for one in (a, b)],
        "cosines": {"bins": edges[first:].tolist(), "counts": counts[first:].tolist()},
        "pairs": {
            kind: relations.drift_pairs(a, b, drift, cutoff, kind, sort, descending, 0, _ROWS)
            for kind, (sort, descending) in orders.items()
        },
    }


def _built(view: View) -> dict[str, Any]:
    """Of which model a dictionary is."""
    about = view.dictionary.provenance
    named = about.get("model")
    model: Mapping[str, Any] = named if isinstance(named, Mapping) else {}
    return {
        "model": model.get("name"),
        "revision": model.get("revision"),
        "dtype": about.get("dtype"),
        "site": view.dictionary.site,
        "seed": about.get("seed"),
    }
