"""Pages that need a model, in a real browser: text as one types, walls, and columns made later."""

import json
import re
import threading
from collections import Counter

import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars.explorer import state
from exemplars.explorer.views import View
from exemplars.store.folders import view_of
from explorer_browser import Visit
from explorer_server import NEEDED, Served
from synthetic import HOSTILE
from tiny_models import tiny_model

pytest.importorskip("fastapi", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

TEXT = "the sea and then naïve there"
PLAIN = "the sea and then QZ @#{} 789 XYJK"
"""Each token is a character or more."""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """A fine and a coarse dictionary whose texts are hostile, and the model they are of."""
    place = tmp_path_factory.mktemp("reading")
    model = tiny_model()
    hostile = [text for text in HOSTILE if len(text) < 200 and "\0" not in text]
    texts = documents(50) + hostile * 3
    ex.build(model, "resid_post.1", ex.texts(texts), [2.0, 40.0], out=place / "built", **SETTINGS)
    names = ("fine", "coarse")
    views = {}
    for name, folder in zip(names, sorted((place / "built").glob("resid*")), strict=True):
        views[name] = View(folder, name, view_of(folder))
    with Served(views, load=lambda name: model, model="tiny") as found:
        yield found.prepared()


def typed(visit, text):
    """The page of live text, once it has read a text."""
    page = visit.go("#/d/fine/text")
    page.get_by_label("Text to read").fill(text)
    page.wait_for_function(
        """text => [...document.querySelectorAll(".tok, .between")]
        .flatMap((e) => [...e.childNodes]).filter((n) => n.nodeType === 3).map((n) => n.data)
        .join("").includes(text)
        && /token/.test(document.querySelector(".composer .note").textContent)""",
        arg=text,
    )
    return page


def trace_of(page):
    """What the server says of the text that is in the page."""
    return page.evaluate(
        """async () => { const { streamLines } = await import("app/api");
        const body = { text: document.querySelector("textarea").value, topk: 3,
          skip_special: true, client: "a test" };
        const out = [];
        for await (const line of streamLines("/d/fine/trace", body, null))
          out.push(...line.rows ?? []);
        return out; }"""
    )


def selected(page):
    """Which token of the strip is chosen."""
    return page.evaluate(
        """[...document.querySelectorAll(".strip [role=option]")]
        .findIndex((e) => e.ariaSelected === "true")"""
    )


def test_the_distances_are_walked_along_with_the_arrow_keys(visit):
    page = typed(visit, PLAIN)
    slider = page.get_by_role("slider", name="Distance to the nearest exemplar")
    names = page.evaluate(
        "[...document.querySelectorAll('.strip .tok')].map((t) => t.getAttribute('aria-label'))"
    )
    slider.focus()
    assert slider.get_attribute("aria-valuemin") == "0"
    assert slider.get_attribute("aria-valuemax") == str(len(names) - 1)
    page.keyboard.press("End")
    last = len(names) - 1
    steps = (("Home", 0), ("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("PageUp", 11))
    for key, at in (*steps, ("End", last), ("ArrowRight", last)):
        page.keyboard.press(key)
        page.wait_for_function(
            "at => document.querySelector('.spark').getAttribute('aria-valuenow') === `${at}`",
            arg=at,
        )
        assert slider.get_attribute("aria-valuetext") == names[at]
        assert selected(page) == at
    page.locator(".token-detail").wait_for()
    visit.check()


def test_colours_by_distance_are_ten_steps_and_hatched_beyond(visit):
    page = typed(visit, PLAIN)
    rows = trace_of(page)
    page.get_by_role("button", name="Distance", exact=True).click()
    shown = page.evaluate(
        """[...document.querySelectorAll(".strip .tok")].map((e) => { const s = getComputedStyle(e);
        return [e.className, s.backgroundImage, s.backgroundColor, s.textDecorationStyle]; })"""
    )
    assert len(rows) == len(shown)
    beyond = 0
    for row, (names, image, colour, line) in zip(rows, shown, strict=True):
        if row["special"]:
            assert "special" in names
            continue
        ratio = row["theta_ratio"]
        if ratio > 1:
            beyond += 1
            assert "do" in names.split()
            assert "repeating-linear-gradient" in image
            assert line == "double"
        else:
            assert f"d{min(9, int(ratio * 10))}" in names.split()
            assert image == "none"
            assert colour != "rgba(0, 0, 0, 0)"
    assert beyond > 0
    visit.check()


def test_the_tokens_lie_on_the_sphere_and_in_a_slice(visit, served):
    page = typed(visit, TEXT)
    page.get_by_role("heading", name="On the sphere").scroll_into_view_if_needed()
    ordinary = page.locator(".strip .tok:not(.special)").count()
    page.wait_for_function(
        "() => document.querySelector('.half canvas')?.picture?.marks.points?.length > 0"
    )
    points = page.evaluate("document.querySelector('.half canvas').picture.marks.points")
    run = next(reversed(served.explorer._runs.values()))
    assert len(points) >= ordinary  # parts of one character are a token each
    assert len(points) <= len(run.directions)
    lengths = [sum(x * x for x in p) for p in points]
    assert lengths == pytest.approx([1.0] * len(points), abs=1e-5)
    page.locator(".strip .tok").nth(3).click()
    page.wait_for_function(
        "() => document.querySelector('.half canvas').picture.marks.points.length === 1"
    )
    page.get_by_text("1 dot: the token in question").wait_for()
    page.get_by_role("link", name="slice through three tokens").click()
    page.get_by_text(re.compile(r"Dots: \d+ of \d+ tokens, those within 45°")).wait_for()
    page.wait_for_function(  # the three directions of the slice, and their tokens
        "() => document.querySelector('canvas').picture.marks.points?.length >= 6"
    )
    visit.check()


def test_what_one_types_on_is_not_read_anew_and_is_said(visit):
    page = typed(visit, TEXT)
    page.get_by_label("Text to read").focus()
    page.keyboard.press("End")
    page.keyboard.type(" sea")
    page.get_by_text(re.compile(r"\d+ kept from before")).wait_for()
    visit.check()


def test_the_table_of_regions_counts_the_tokens_of_the_text(visit):
    page = typed(visit, TEXT)
    rows = [row for row in trace_of(page) if not row["special"]]
    table = page.get_by_role("region", name="Regions in this text").locator("tbody tr")
    table.first.wait_for()
    found = []
    for line in table.all():
        cells = [cell.inner_text() for cell in line.get_by_role("cell").all()]
        region = line.get_by_role("link").get_attribute("href").rpartition("/")[2]
        found.append((int(region), int(cells[2]), cells[3]))
    counts = Counter(row["region"] for row in rows)
    expected = [
        (k, n, f"{sum(r['theta_ratio'] for r in rows if r['region'] == k) / n:.2f} θ")
        for k, n in sorted(counts.items(), key=lambda one: (-one[1], one[0]))
    ]
    assert found == expected
    visit.check()


def test_the_members_at_the_walls_are_read_again_when_asked_for(visit):
    page = visit.go("#/d/fine/r/3")
    page.get_by_role("heading", name="Neighbours", exact=True).scroll_into_view_if_needed()
    page.get_by_text("The wall is where the two are equally near").wait_for()
    assert page.locator(".witness").count() == 0
    page.get_by_role("button", name="find the members at the walls").click()
    page.get_by_text(
        re.compile("Members at the walls: among .* read again from|None of")
    ).wait_for()
    said = page.get_by_text(re.compile("Members at the walls: among")).inner_text()
    n = int(re.search(r"among (\d+) member", said)[1])
    assert 1 <= n <= 32
    assert page.locator(".witness").count() == page.locator(".neighbours > li").count()
    assert "own exemplar" in page.locator(".witness").first.inner_text()
    assert page.locator("main img, main script, main iframe").count() == 0
    visit.check()


def test_a_column_that_takes_the_model_is_made_and_colours_and_sorts(visit, served):
    page = visit.go("#/d/fine")
    page.get_by_role("heading", name="Lens-crisp").scroll_into_view_if_needed()
    visit.settle()
    page.locator("[aria-labelledby='h-shelf-crisp'] li").first.wait_for()
    view = served.explorer.views["fine"]
    crisp = page.locator("[aria-labelledby='h-shelf-crisp'] li a").first.get_attribute("href")
    counts, values = view.dictionary.counts, view.columns["lens_entropy"].values
    best = min((values[k], k) for k in range(len(values)) if counts[k] >= 20)[1]
    assert crisp == f"#/d/fine/r/{best}"
    visit.go("#/d/fine/sphere")
    page.get_by_label("Colour").select_option("lens_entropy")
    page.wait_for_function(
        "() => document.querySelector('canvas').picture.colouring.column === 'lens_entropy'"
    )
    page.get_by_text(re.compile(r"\d\.\d\d nats")).first.wait_for()
    page.reload()
    visit.go("#/d/fine/regions")
    page.get_by_label("Sort by").select_option("lens_entropy")
    page.wait_for_url(re.compile("_sort_desc=lens_entropy"))
    page.get_by_role("region", name="lens entropy").wait_for()
    page.get_by_role("region", name="share in coarser region, estimated").wait_for()
    visit.go("#/d/coarse")
    page.get_by_role("heading", name="Splits most").wait_for()
    visit.check()


def test_what_is_found_out_after_the_page_was_opened_comes_to_it(browser, served, monkeypatch):
    held = threading.Event()
    own = state.add_shares

    def late(*parts):
        assert held.wait(60)
        own(*parts)

    monkeypatch.setattr(state, "add_shares", late)
    folders = {name: view.folder for name, view in served.explorer.views.items()}
    views = {name: View(folder, name, view_of(folder)) for name, folder in folders.items()}
    with Served(views) as second:
        visit = Visit(browser, second)
        page = visit.go("#/d/coarse/sphere")
        options = page.get_by_label("Colour").locator("option")
        assert "finer regions, effective" not in options.all_inner_texts()
        held.set()
        page.wait_for_function(
            """() => [...document.querySelectorAll("option")]
            .some((o) => o.textContent === "finer regions, effective")"""
        )
        page.get_by_label("Colour").select_option("pieces")
        page.wait_for_function(
            "() => document.querySelector('canvas').picture.colouring.column === 'pieces'"
        )
        visit.go("#/d/coarse")
        page.get_by_role("heading", name="Splits most").wait_for()
        visit.check()
        visit.close()


def test_axe_finds_nothing_in_either_theme(visit):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="accessibility is tested with axe: pip install axe-playwright-python",
    )
    found = {}
    visit.page.emulate_media(reduced_motion="reduce")

    def look(where):
        for theme in ("light", "dark"):
            visit.page.emulate_media(color_scheme=theme)
            for v in axe.Axe().run(visit.page).response["violations"]:
                nodes = [(n["target"], n.get("failureSummary", "")[:200]) for n in v["nodes"][:3]]
                found[f"{where} {theme} {v['id']}"] = nodes

    page = typed(visit, TEXT + HOSTILE[0])
    page.get_by_role("button", name="Distance", exact=True).click()
    page.locator(".strip .tok").nth(4).click()
    look("text by distance")
    visit.go("#/d/fine/r/3")
    page.get_by_role("heading", name="Neighbours", exact=True).scroll_into_view_if_needed()
    page.get_by_role("button", name="find the members at the walls").click()
    page.locator(".witness").first.wait_for()
    look("walls")
    visit.go("#/d/fine/regions?_sort=lens_entropy")
    look("regions")
    visit.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    assert found == {}, json.dumps(found, indent=1)
