"""The explorer in one file, which opens without a server and asks the network for nothing.

It holds the page's own code as modules in `data:` addresses, the answers that the server would give
for the regions that were chosen, and what was made for it alone: texts that were read, steering
sessions, a drift summary. What is left out to stay below a size is said.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars import __version__
from exemplars.explorer import contents, frozen, pages, queries, relations
from exemplars.explorer.assets import INSTALLED, Assets, hash_of
from exemplars.explorer.queries import Listed
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View
from exemplars.report import to_json
from exemplars.store.folders import view_of

if TYPE_CHECKING:
    from exemplars.models import Model

EXTRAS = ("members", "lens", "neighbours", "resolution", "tokens", "histogram")
TOP = 500
"""Regions that are chosen by default: those of most members."""
MAX_MB = 25.0
_PORTRAITS = 100
_DIGITS = 6
_BOOT = re.compile(r'<script type="module" src="(static/[^"]+)"></script>')
_STYLE = re.compile(r'<link rel="stylesheet" href="static/([^"]+)">')
_MAP = re.compile(r'<script type="importmap">.*?</script>', re.DOTALL)

OnStep = Callable[[str, int, int], None]


@dataclass(frozen=True)
class SingleFile:
    """What was written."""

    file: Path
    bytes: int
    sha256: str
    regions: int
    """With a page of their own."""
    of: int
    """Regions of the dictionary."""
    parts: Mapping[str, int]
    """Bytes of the code, the pictures, the list, the regions' pages, and of what was frozen."""
    documents: int
    """Of the corpus, that text was taken from."""
    characters: int
    """Of the corpus, that are in the file."""
    left_out: tuple[str, ...]
    """Sentences."""


def export_html(
    folder: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    regions: Sequence[int] | None = None,
    top: int = TOP,
    min_members: int = 1,
    corpus_text: bool = True,
    max_mb: float = MAX_MB,
    traces: Sequence[str] = (),
    model: Model | None = None,
    sessions: Sequence[str | os.PathLike[str]] = (),
    drift: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    created: str | None = None,
    assets: Assets = INSTALLED,
    on_step: OnStep = lambda what, done, total: None,
) -> SingleFile:
    """Write a dictionary and its explorer to one HTML file.

    Args:
        folder: Of the dictionary.
        out: The file.
        regions: That get a page, in this order of importance; None for those of most members.
        top: So many at most, if they are not named.
        min_members: Regions with fewer get no page, if they are not named.
        corpus_text: Keep the text round each token; else the tokens alone are kept, and no names
            of documents.
        max_mb: Megabytes; pages of regions are left out, the last first, until the file fits.
        traces: Texts whose tokens' regions are in the file; at most 50.
        model: The dictionary's, for `traces`.
        sessions: Files of steering sessions, as the page saves them.
        drift: Folder of a dictionary that this one became; what changed is in the file.
        overwrite: Replace a file that is there.
        created: A time in words; now by default.
        assets: The page's files.
        on_step: Told how many regions are done.

    Raises:
        FileExistsError: The file is there already.
        ValueError: A region that there is not, a size that even the list does not fit in, or a
            text, session or dictionary that is not as expected.
        MismatchError: Another model than the dictionary's.
    """
    if traces and model is None:
        raise ValueError("texts were given and no model to read them with; give one")
    place = Path(out)
    if place.is_dir():
        raise FileExistsError(f"{place} is a folder, expected a file to write; choose another name")
    if place.exists() and not overwrite:
        raise FileExistsError(f"{place} is already there; choose another name, or --overwrite")
    kept = view_of(Path(folder))
    view = View(
        Path(folder),
        "main",
        kept if corpus_text and kept.is_dir() else None,
        corpus_text=corpus_text,
    )
    explorer = Explorer({"main": view})
    try:
        view.prepare()
        chosen = _chosen(view, regions, top, min_members)
        made = frozen.Frozen(
            traces=tuple(frozen.traced(explorer.listed("main"), model, traces, on_step))
            if model
            else (),
            sessions=tuple(frozen.session_of(Path(file), view) for file in sessions),
            drift=None if drift is None else _drift(explorer, Path(drift)),
        )
        when = created or datetime.datetime.now(datetime.timezone.utc).isoformat("T", "seconds")
        text, about = page_of(
            explorer, "main", chosen, max_mb, corpus_text, when, assets, on_step, made
        )
    finally:
        explorer.close()
    content = text.encode("utf-8")
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".{place.name}.{os.getpid()}.new")
    try:
        new.write_bytes(content)
        new.replace(place)
    finally:
        new.unlink(missing_ok=True)
    digest = hashlib.sha256(content).hexdigest()
    return SingleFile(file=place, bytes=len(content), sha256=digest, **about)


def page_of(
    explorer: Explorer,
    slug: str,
    chosen: Sequence[int],
    max_mb: float = MAX_MB,
    corpus_text: bool = True,
    created: str = "",
    assets: Assets = INSTALLED,
    on_step: OnStep = lambda what, done, total: None,
    made: frozen.Frozen = frozen.NOTHING,
) -> tuple[str, dict[str, Any]]:
    """The file's text, and what is in it: the fields of `SingleFile` that are not of the file."""
    listed = explorer.listed(slug)
    shell = _shell(assets)
    binary = _binary(explorer, listed, slug)
    fixed = _fixed_answers(explorer, listed, slug)
    fixed[f"d/{slug}"]["frozen"] = made.listed
    asked_for = {
        part: {path: _text(found) for path, found in several.items()}
        for part, several in made.answers(slug).items()
    }
    sizes = {
        "code": len(shell.encode()),
        "pictures": sum(map(len, binary.values())),
        **{part: sum(map(len, found.values())) for part, found in asked_for.items() if found},
    }
    room = int(max_mb * 1e6) - sum(sizes.values()) - 4096
    room -= sum(len(_text(found)) for found in fixed.values())
    answers: dict[str, str] = {}
    rows: list[Any] = []
    kept: list[int] = []
    for number, region in enumerate(chosen):
        found = _region_answers(explorer, listed, slug, region, portrait=number < _PORTRAITS)
        row = queries.rows(listed, [region])[0]
        size = sum(len(path) + len(text) + 6 for path, text in found.items()) + len(_text(row)) + 2
        if size > room:
            break
        room -= size
        answers |= found
        rows.append(row)
        kept.append(region)
        on_step("regions", number + 1, len(chosen))
    if chosen and not kept:
        said = ", ".join(f"{part} {n / 1e6:.2f} MB" for part, n in sizes.items())
        raise ValueError(
            f"{max_mb:g} MB hold {said}, and not one region; allow more with --max-mb, or leave "
            "something away"
        )
    left_out = [*_left_out(listed.view, chosen, kept, corpus_text), made.missing]
    fixed["app"] |= {"export": {"regions": len(kept), "of": listed.view.dictionary.n_regions,
                                "corpus_text": corpus_text, "left_out": left_out,
                                "created": created, "drift": made.drift is not None}}  # fmt: skip
    answers |= {path: _text(found) for path, found in fixed.items()}
    sizes |= {"list": len(_text(rows)), "pages": sum(map(len, answers.values()))}
    for found in asked_for.values():
        answers |= found
    data = _data(answers, {slug: rows}, binary, created)
    about = {
        "regions": len(kept),
        "of": listed.view.dictionary.n_regions,
        "parts": sizes,
        "left_out": tuple(left_out),
        **_corpus(listed.view, kept, corpus_text),
    }
    return shell.replace("<!--DATA-->", data), about


def _chosen(view: View, regions: Sequence[int] | None, top: int, min_members: int) -> list[int]:
    counts = np.asarray(view.dictionary.counts)
    if regions is None:
        order = np.argsort(-counts, kind="stable")[:top]
        return [int(k) for k in order if counts[k] >= min_members]
    wrong = [k for k in regions if not 0 <= k < len(counts)]
    if wrong:
        raise ValueError(f"region {wrong[0]} does not exist; there are 0 to {len(counts) - 1}")
    return list(dict.fromkeys(regions))


def _drift(explorer: Explorer, folder: Path) -> dict[str, Any]:
    """What changed from the exported dictionary to the one in a folder."""
    kept = view_of(folder)
    other = View(folder, "other", kept if kept.is_dir() else None)
    try:
        other.prepare()
        listed = explorer.listed("main")
        return frozen.changes(listed, Listed(other, queries.labels_of(other, {})))
    finally:
        other.close()


def _fixed_answers(explorer: Explorer, listed: Listed, slug: str) -> dict[str, dict[str, Any]]:
    """Answers that the file has whatever regions are chosen."""
    app = contents.app_page(explorer)
    only = [entry for entry in app["dictionaries"] if entry["slug"] == slug]
    reason = "this is an exported file: open the dictionary with `exemplars explore`"
    able = ("trace", "steer", "write", "drift")
    app |= {
        "capabilities": app["capabilities"] | dict.fromkeys(able, False),
        "reasons": dict.fromkeys(able, reason),
        "dictionaries": only,
        "models": [],
    }
    page = contents.dictionary_answer(explorer, slug)
    page["settled"] = True
    page["relations"] = {"coarser": [], "finer": [], "checkpoints": []}
    found: dict[str, dict[str, Any]] = {"app": app, f"d/{slug}": page}
    found["notes"] = {"pins": [], "notes": {}, "labels": {}, "version": ""}
    if page["has_growth"]:
        found[f"d/{slug}/growth"] = relations.growth_page({slug: listed.view}, slug)
    if page["sphere"]["status"] == "ready":
        basis = {"kind": "pca", "components": [0, 1, 2]}
        found[f"d/{slug}/slice:pca"] = contents.slice_answer(explorer, listed, basis)
    return {path: {"ok": True, **answer} for path, answer in found.items()}


def _region_answers(
    explorer: Explorer, listed: Listed, slug: str, region: int, portrait: bool
) -> dict[str, str]:
    page = contents.region_answer(explorer, listed, region, EXTRAS)
    page["members"] = pages.members_page(listed.view, region, "all", size=queries.PAGE)
    path = f"d/{slug}/regions/{region}"
    found = {f"{path}?_extra={','.join(EXTRAS)}": _text({"ok": True, **page})}
    if portrait:
        try:
            cut = contents.slice_answer(explorer, listed, {"kind": "local", "id": region})
        except ValueError as error:
            cut = {"error": str(error)}
        found[f"d/{slug}/slice:local:{region}"] = _text({"ok": "error" not in cut, **cut})
    return found


def _binary(explorer: Explorer, listed: Listed, slug: str) -> dict[str, str]:
    """Arrays of the pictures, deflated, in base64, by the path they are asked by."""
    fingerprint = listed.view.fingerprint
    made = {f"d/{slug}/columns/{fingerprint}": contents.columns_bytes(listed)}
    if listed.view.status("sphere")[0] == "ready":
        made[f"d/{slug}/sphere/{fingerprint}"] = contents.sphere_bytes(listed)
        made[f"d/{slug}/layout/unrolled/{fingerprint}"] = contents.layout_bytes(
            explorer, listed, "unrolled"
        )
        made[f"d/{slug}/cells/unrolled/{fingerprint}"] = contents.cells_bytes(
            explorer, listed, "unrolled"
        )
    return {path: _deflated(content) for path, content in made.items()}


def _deflated(content: bytes) -> str:
    packer = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return base64.b64encode(packer.compress(content) + packer.flush()).decode("ascii")


def _left_out(
    view: View, chosen: Sequence[int], kept: Sequence[int], corpus_text: bool
) -> list[str]:
    n = view.dictionary.n_regions
    found = []
    if len(kept) < len(chosen):
        found.append(f"{len(chosen) - len(kept):,} of the chosen regions did not fit the size")
    if len(kept) < n:
        found.append(f"{n - len(kept):,} of {n:,} regions are in the pictures alone")
    if len(kept) > _PORTRAITS:
        found.append(f"portraits of {len(kept) - _PORTRAITS:,} regions")
    if not corpus_text:
        found.append("the text round the tokens, and the names of documents")
    return found


def _corpus(view: View, kept: Sequence[int], corpus_text: bool) -> dict[str, int]:
    """How much of the corpus the chosen regions' contexts show."""
    contexts = view.dictionary.contexts
    seen = [c for k in kept for c in contexts.region(k)] if contexts is not None else []
    return {
        "documents": len({c.document for c in seen if c.document >= 0}) if corpus_text else 0,
        "characters": sum(len(c.before) + len(c.text) + len(c.after) for c in seen),
    }


def _data(
    answers: Mapping[str, str], rows: Mapping[str, Any], binary: Mapping[str, str], created: str
) -> str:
    """The element that holds the answers; nothing in it ends it, or begins another."""
    frozen = ",".join(f"{json.dumps(path)}:{text}" for path, text in answers.items())
    text = (
        f'{{"version":{json.dumps(__version__)},"created":{json.dumps(created)},'
        f'"json":{{{frozen}}},"rows":{_text(rows)},"binary":{json.dumps(dict(binary))}}}'
    )
    return f'<script type="application/json" id="export-data">{_inert(text)}</script>'


def _shell(assets: Assets) -> str:
    """The page with its styles and modules inside, a policy that allows them and nothing else, and
    a place for the data.
    """
    modules = json.dumps({"imports": _inline_modules(assets)})
    found = _BOOT.search(assets.shell)
    if found is None:
        raise ValueError("the page of the explorer has no module to begin with; install it again")
    names = {address.removeprefix("./"): name for name, address in assets.modules.items()}
    boot = f"import {json.dumps(names[found[1]])};"
    styles = "\n".join(_asset(assets, name) for name in _STYLE.findall(assets.shell))
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src '{hash_of(modules)}' '{hash_of(boot)}' data:",
            f"style-src '{hash_of(styles)}'",
            "img-src data: blob:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )
    meta = f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
    page = _MAP.sub(lambda _: f'<script type="importmap">{modules}</script>', assets.shell)
    page = _BOOT.sub(lambda _: f"<style>{styles}</style>", page)
    page = _STYLE.sub("", page)
    page = page.replace('<meta charset="utf-8">', f'<meta charset="utf-8">\n{meta}', 1)
    end = f'<!--DATA-->\n<script type="module">{boot}</script>\n</body>'
    return page.replace("</body>", end, 1)


def _inline_modules(assets: Assets) -> dict[str, str]:
    """Names of modules, and the modules themselves as addresses."""
    found: dict[str, str] = {}
    for name, address in assets.modules.items():
        path = address.removeprefix("./static/")
        if name.endswith("/"):
            inside = [file for file in assets.names() if file.startswith(path)]
            found |= {name + file.removeprefix(path): _address(assets, file) for file in inside}
        else:
            found[name] = _address(assets, path)
    return found


def _address(assets: Assets, name: str) -> str:
    code = base64.b64encode(_asset(assets, name).encode("utf-8")).decode("ascii")
    return f"data:text/javascript;base64,{code}"


def _asset(assets: Assets, name: str) -> str:
    found = assets.read(name)
    if found is None:
        raise FileNotFoundError(f"the page of the explorer has no {name}; install it again")
    return found[0].decode("utf-8")


def _text(value: Any) -> str:
    """JSON in ASCII that can stand inside an element, numbers to six digits."""
    short = _short(json.loads(to_json(value)))
    return _inert(json.dumps(short, separators=(",", ":"), allow_nan=False))


def _inert(text: str) -> str:
    """JSON without the characters that mean something to HTML; it says the same."""
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _short(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.{_DIGITS}g}")
    if isinstance(value, dict):
        return {key: _short(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_short(item) for item in value]
    return value
