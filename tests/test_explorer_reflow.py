"""The pages narrow or enlarged, in other colour visions, without motion, in forced colours."""

import contextlib
import io
import json
import re

import numpy as np
import pytest

import exemplars as ex
from explorer_browser import WIDE, Visit, opened
from explorer_server import NEEDED, Served
from synthetic import dictionary_of, exemplars, synthetic
from tiny_models import WIDTH, tiny_model

pytest.importorskip("fastapi", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

ROUTES = [
    "#/", "#/d/fine", "#/d/fine/sphere", "#/d/fine/sphere?mode=slice", "#/d/fine/map",
    "#/d/fine/regions?member_count__gte=3", "#/d/fine/regions?view=table", "#/d/fine/r/7",
    "#/d/fine/text?q=the+sea+and+the+moon", "#/d/fine/steer?regions=7.11&tokens=5&prompt=the",
    "#/d/fine/growth", "#/d/fine/resolution", "#/drift/fine/coarse", "#/notes", "#/about",
]  # fmt: skip
SIZES = {"320 px": (320, 640), "200 %": (WIDE["width"] // 2, WIDE["height"] // 2)}
ALL_NEAR = """window.IntersectionObserver = class {
  constructor(said) { this.said = said; }
  observe(target) { queueMicrotask(() => this.said([{ isIntersecting: true, target }])); }
  disconnect() {} };"""
"""Sections are made when they come near the window: here all are."""
CONTROLS = """() => {
  for (const fold of document.querySelectorAll("details")) fold.open = true;
  const out = {};
  for (const e of document.querySelectorAll("a[href], button, input, select, textarea, summary")) {
    if (e.disabled || e.closest(".skip, [aria-hidden=true]") || !e.checkVisibility({
      opacityProperty: true, visibilityProperty: true })) continue;
    e.scrollIntoView({ block: "nearest", inline: "nearest" });
    const box = e.getBoundingClientRect(), w = document.documentElement.clientWidth;
    if (box.width < 1 || box.height < 1 || box.left > w - 4 || box.right < 4) continue;
    const name = (e.getAttribute("aria-label") ?? e.labels?.[0]?.innerText ?? e.innerText
      ?? "").trim().slice(0, 60);
    out[`${e.tagName} ${name}`] = (out[`${e.tagName} ${name}`] ?? 0) + 1;
  }
  return out; }"""


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reflow")
    made = {
        "fine": synthetic(60, WIDTH),
        "coarse": dictionary_of(exemplars(20, WIDTH), theta=0.8),
    }
    views = {name: opened(ex.save(d, folder / name)) for name, d in made.items()}
    model = tiny_model("gpt2")
    with Served(views, load=lambda name: model, model="tiny") as found:
        yield found


@pytest.fixture(scope="module")
def visit(browser, served):
    found = Visit(browser, served, reduced_motion="reduce")
    yield found
    found.check()
    found.close()


def shown(visit, route):
    """A route with all of its sections, with what is written by the model."""
    page = visit.go(route)
    if "steer" in route:
        page.get_by_role("button", name="Write").click()
        page.wait_for_function(
            "() => document.querySelectorAll('.answer[aria-busy=false]').length === 3"
        )
    if "text" in route:
        page.locator(".note[role=status]", has_text=re.compile(r"\d token")).wait_for()
    visit.settle()
    return page


@contextlib.contextmanager
def window(browser, served, width, height=WIDE["height"]):
    size = {"width": width, "height": height}
    found = Visit(browser, served, viewport=size, reduced_motion="reduce")
    found.context.add_init_script(ALL_NEAR)
    found.page.reload()
    yield found
    found.check()
    found.close()


@pytest.fixture(scope="module")
def wide(browser, served):
    """Names of the controls of each route where there is room."""
    with window(browser, served, WIDE["width"]) as visit:
        return {route: shown(visit, route).evaluate(CONTROLS) for route in ROUTES}


@pytest.mark.parametrize("size", SIZES)
def test_no_page_scrolls_sideways_and_nothing_is_lost(browser, served, wide, size):
    problems = {}
    with window(browser, served, *SIZES[size]) as visit:
        for route in ROUTES:
            page = shown(visit, route)
            over = page.evaluate(
                "document.documentElement.scrollWidth - document.documentElement.clientWidth"
            )
            lost = sorted(set(wide[route]) - set(page.evaluate(CONTROLS)))
            if over > 0 or lost:
                problems[route] = {"hangs over by": over, "lost": lost}
    assert problems == {}, json.dumps(problems, indent=1, ensure_ascii=False)


def test_at_a_height_of_256_pixels_nothing_stays_in_the_way(browser, served):
    """As 1280 × 1024 at 400 %: bars that stay in place would leave no room to read."""
    visit = Visit(browser, served, viewport={"width": 320, "height": 256})
    page = visit.go("#/d/fine/r/7")
    page.keyboard.press("p")
    page.locator(".tray li").wait_for()
    page.evaluate("scrollTo(0, 600)")
    fixed = page.evaluate(
        """() => [...document.querySelectorAll("body *")].filter((e) => {
          const b = e.getBoundingClientRect();
          return /fixed|sticky/.test(getComputedStyle(e).position) && b.height > 0
            && b.bottom > 0 && b.top < innerHeight; }).map((e) => e.className)"""
    )
    visit.close()
    assert fixed == []


DEFICIENCIES = ["none", "protanopia", "deuteranopia", "tritanopia", "achromatopsia"]
APART = 6.0
"""ΔE (CIE 1976) between swatches that stand beside each other: thrice what is just seen."""
SWATCHES = """() => {
  const box = document.createElement("div"), ns = "http://www.w3.org/2000/svg";
  box.id = "swatches";
  box.style.cssText = "position:fixed;inset:0;z-index:99;background:var(--surface)";
  const square = (kind) => {
    const swatch = document.createElement("span");
    swatch.className = kind;
    swatch.style.cssText = "display:inline-block;width:20px;height:20px";
    return swatch; };
  const drawn = (kind) => {
    const svg = document.createElementNS(ns, "svg"), part = document.createElementNS(ns, "rect");
    for (const e of [svg, part]) for (const side of ["width", "height"]) e.setAttribute(side, 20);
    svg.setAttribute("class", "chart");
    part.setAttribute("class", kind);
    svg.append(part);
    return svg; };
  const eight = [0, 1, 2, 3, 4, 5, 6, 7];
  const rows = { "shares of tokens": eight.map((i) => drawn(`part s${i}`)),
    "letters of regions": eight.map((i) => square(`letter s${i}`)),
    "kept and moved": ["point", "point moved"].map(drawn) };
  for (const row of Object.values(rows)) box.append(...row, document.createElement("br"));
  document.body.append(box);
  return Object.entries(rows).map(([name, row]) => [name, row.map((e) => {
    const b = e.getBoundingClientRect();
    return [b.left + b.width / 2, b.top + b.height / 2]; })]); }"""


def lab(rgb):
    """CIELAB (D65) of sRGB bytes."""
    c = np.asarray(rgb, float) / 255
    c = np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)
    matrix = [[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]]
    x = c @ np.transpose(matrix) / [0.9505, 1.0, 1.089]
    f = np.where(x > 0.008856, np.cbrt(x), 7.787 * x + 16 / 116)
    return np.stack(
        [116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], -1
    )


def seen(page, places):
    """Colours of points of the page as they are shown."""
    image = pytest.importorskip(
        "PIL.Image", reason="pixels are read with Pillow: pip install pillow"
    )
    shot = image.open(io.BytesIO(page.screenshot())).convert("RGB")
    return [shot.getpixel((round(x), round(y))) for x, y in places]


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_swatches_beside_each_other_stay_apart_whatever_colours_one_sees(visit, theme):
    page = visit.go("#/about")
    page.emulate_media(color_scheme=theme)
    rows = page.evaluate(SWATCHES)
    session = visit.context.new_cdp_session(page)
    problems, grey = {}, {}
    for kind in DEFICIENCIES:
        session.send("Emulation.setEmulatedVisionDeficiency", {"type": kind})
        for name, places in rows:
            colours = seen(page, places)
            grey[kind] = all(max(c) - min(c) <= 2 for c in colours)
            apart = np.linalg.norm(np.diff(lab(colours), axis=0), axis=1)
            if apart.min() < APART:
                problems[f"{name}, {kind}"] = apart.round(1).tolist()
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": "none"})
    page.evaluate("document.getElementById('swatches').remove()")
    page.emulate_media(color_scheme="light")
    assert grey["achromatopsia"]  # the emulation is there
    assert not grey["none"]
    assert problems == {}, json.dumps(problems, indent=1)


@pytest.mark.parametrize("kind", DEFICIENCIES)
def test_the_legend_of_a_picture_rises_in_lightness_whatever_colours_one_sees(visit, kind):
    page = visit.go("#/d/fine/sphere")
    session = visit.context.new_cdp_session(page)
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": kind})
    box = page.locator(".legend svg").bounding_box()
    y = box["y"] + box["height"] / 2
    steps = np.linspace(box["x"] + 2, box["x"] + box["width"] - 3, 9)
    unknown = page.locator(".legend .unknown").bounding_box()
    *scale, none = seen(page, [*((x, y) for x in steps), (unknown["x"] + 4, unknown["y"] + 4)])
    session.send("Emulation.setEmulatedVisionDeficiency", {"type": "none"})
    light = lab(scale)[:, 0]
    assert (np.diff(light) > 2).all(), light
    if kind != "achromatopsia":  # a grey is among greys; there the legend has no grey of its own
        assert np.linalg.norm(lab(scale) - lab(none), axis=1).min() > APART


def test_nothing_moves_where_motion_is_not_wanted(visit):
    page = visit.go("#/d/fine/regions")
    moving = "getComputedStyle(document.querySelector('.card')).transitionDuration"
    assert page.evaluate(moving) == "0s"
    page.emulate_media(reduced_motion="no-preference")
    assert page.evaluate(moving) != "0s"  # the stylesheet asks, and does not just stand still
    page.emulate_media(reduced_motion="reduce")
    page.locator(".card").first.hover()
    assert page.evaluate("document.getAnimations().length") == 0


def test_forced_colours_leave_everything_told_apart(visit):
    page = shown(visit, "#/d/fine/text?q=the+sea+and+the+moon")
    page.emulate_media(forced_colors="active")
    styles = page.evaluate(
        """() => { const of = (q) => getComputedStyle(document.querySelector(q));
        const probe = document.createElement("i"); probe.style.color = "CanvasText";
        document.body.append(probe); const ink = getComputedStyle(probe).color; probe.remove();
        return { ink, pressed: of(".choice [aria-pressed=true]").outlineStyle,
          other: of(".choice [aria-pressed=false]").outlineStyle,
          token: of(".tok.s0").borderTopStyle, icon: of(".tools .icon").stroke,
          line: of(".chart.spark path").stroke, axis: of(".chart .mark").stroke }; }"""
    )
    page.keyboard.press("Tab")
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page2 = visit.go("#/d/fine/r/7")
    text = page2.evaluate("getComputedStyle(document.querySelector('.chart .tick')).fill")
    page.emulate_media(forced_colors="none")
    assert styles["pressed"] == "solid" != styles["other"]
    assert styles["token"] == "solid"
    for part in ("icon", "line", "axis"):
        assert styles[part] == styles["ink"], part
    assert text == styles["ink"]
    assert ring != "none"
