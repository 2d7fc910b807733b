"""An exported file in a real browser: the texts, sessions and changes that were frozen into it."""

import json
import re

import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars.explorer.single_file import export_html
from exemplars.explorer.views import View
from exemplars.store.folders import view_of
from explorer_browser import WATCH, WIDE, Visit
from explorer_server import NEEDED, Served
from synthetic import HOSTILE
from tiny_models import tiny_model

pytest.importorskip("fastapi", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

TEXTS = ["the sea 🌊 then naïve 東京 there", HOSTILE[0] + HOSTILE[7]]


@pytest.fixture(scope="module")
def file(browser, tmp_path_factory):
    """A file with everything in it; the session is one that the page itself saved."""
    place = tmp_path_factory.mktemp("frozen")
    model = tiny_model()
    ex.build(model, "resid_post.1", ex.texts(documents()), [10.0, 40.0], out=place / "built",
             **SETTINGS)  # fmt: skip
    fine, coarse = sorted((place / "built").glob("resid*"))
    view = View(fine, "fine", view_of(fine))
    view.prepare()
    with Served({"fine": view}, load=lambda name: model, model="tiny") as served:
        visit = Visit(browser, served)
        page = visit.go("#/d/fine/steer?regions=2")
        page.get_by_label("Prompt").fill(f"the sea {HOSTILE[0]}")
        page.get_by_label("tokens", exact=True).fill("5")
        page.get_by_role("button", name="Write").click()
        page.wait_for_function("() => document.querySelectorAll('.answer').length === 2")
        page.locator(".answer[aria-busy=true]").first.wait_for(state="detached")
        written = page.locator(".answer .written").all_inner_texts()
        page.get_by_role("button", name="copy JSON").click()
        page.wait_for_function(
            "() => navigator.clipboard.readText().then((t) => t.includes('answers'))"
        )
        session = page.evaluate("navigator.clipboard.readText()")
        visit.check()
        visit.close()
    (place / "session.json").write_text(session, encoding="utf-8")
    out = place / "shown.html"
    export_html(
        fine, out, top=8, traces=TEXTS, model=model, sessions=[place / "session.json"],
        drift=coarse, created="then",
    )  # fmt: skip
    return out, written, json.loads(session)


@pytest.fixture
def page(browser, file):
    context = browser.new_context(viewport=WIDE)
    context.add_init_script(WATCH)
    found = context.new_page()
    found.set_default_timeout(20_000)
    asked, failed = [], []
    found.on("request", lambda r: asked.append(r.url))
    found.on("pageerror", lambda e: failed.append(str(e)))
    found.goto(file[0].as_uri())
    found.locator("main h1").wait_for()
    yield found
    assert failed == []
    assert found.evaluate("window.__violations") == []
    assert found.evaluate("window.__pwn") is None
    assert found.locator("main img, main script, main iframe").count() == 0
    assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
    context.close()


def go(page, route, heading):
    page.evaluate("route => { location.hash = route }", route)
    page.get_by_role("heading", name=heading, exact=True).wait_for()
    page.get_by_text("frozen", exact=True).first.wait_for()


def test_frozen_texts_are_read_and_chosen(page):
    go(page, "#/d/main/text", "Live text")
    strip = page.get_by_role("listbox", name="Tokens of the text")
    strip.wait_for()
    assert all(character in strip.inner_text() for character in "🌊東京")
    assert page.get_by_label("Text to read").count() == 0
    assert "LlamaForCausalLM · resid_post.1 · float32" in page.locator(".badges").first.inner_text()
    assert "made then" in page.locator(".badges").first.inner_text()
    strip.get_by_role("option").nth(3).click()
    page.locator(".token-detail").wait_for()
    page.get_by_role("heading", name="Regions in this text").wait_for()
    assert page.get_by_text("slice through three tokens").count() == 0  # only the server cuts it
    page.get_by_label("Text", exact=True).select_option(index=1)
    page.wait_for_url(re.compile("frozen=1"))
    page.wait_for_function(
        """text => [...document.querySelectorAll(".tok, .between")]
        .flatMap((e) => [...e.childNodes]).filter((n) => n.nodeType === 3).map((n) => n.data)
        .join("").includes(text)""",
        arg=HOSTILE[0],
    )
    page.go_back()
    page.wait_for_url(re.compile("text$"))


def test_a_frozen_session_shows_what_was_asked_and_written(page, file):
    _, written, session = file
    assert session["model"]["dtype"] == "float32"
    go(page, "#/d/main/steer", "Steer")
    page.locator(".answer").nth(1).wait_for()
    assert page.locator(".answer .written").all_inner_texts() == written
    assert page.get_by_role("button", name="Write").count() == 0
    said = page.locator("main").inner_text()
    assert HOSTILE[0] in said
    assert "temperature 0, seed 0" in said
    assert "float32 · seed 0" in said
    variants = page.get_by_role("list", name="Variants")
    assert "add 0.50× generated of region 2" in variants.inner_text()


def test_frozen_drift_shows_the_counts_and_the_regions(page, file):
    go(page, "#/drift", "Drift")
    figures = page.locator(".figure").all_inner_texts()
    assert [f.split("\n")[0] for f in figures[:4]] == ["kept", "moved", "dropped", "introduced"]
    page.get_by_role("button", name="Kept").click()
    rows = page.get_by_role("region", name="Changed regions").locator("tbody tr")
    rows.first.wait_for()
    assert rows.count() > 0
    page.get_by_role("button", name="as table").click()
    page.get_by_role("region", name="Cosines of matched regions, as a table").wait_for()
    page.evaluate("() => { location.hash = '#/' }")
    page.get_by_role("link", name="What changed to another dictionary").click()
    page.get_by_role("heading", name="Drift", exact=True).wait_for()


def test_axe_finds_nothing_on_frozen_pages_in_either_theme(page):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="accessibility is tested with axe: pip install axe-playwright-python",
    )
    found = {}
    page.emulate_media(reduced_motion="reduce")
    for route, heading in (
        ("#/d/main/text", "Live text"), ("#/d/main/steer", "Steer"), ("#/drift", "Drift"),
    ):  # fmt: skip
        go(page, route, heading)
        if heading == "Live text":
            page.get_by_role("button", name="Distance", exact=True).click()
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme, reduced_motion="reduce")
            for v in axe.Axe().run(page).response["violations"]:
                nodes = [(n["target"], n.get("failureSummary", "")[:200]) for n in v["nodes"][:3]]
                found[f"{route} {theme} {v['id']}"] = nodes
    assert found == {}, json.dumps(found, indent=1)
