"""The pages in a real browser: every journey, by mouse and by keyboard, on tiny dictionaries."""

import base64
import contextlib
import json
import re
import threading

import numpy as np
import pytest

import exemplars as ex
from exemplars.explorer.single_file import export_html
from explorer_browser import WATCH, WIDE, Visit, opened
from explorer_server import NEEDED, TOKEN, Served
from synthetic import HOSTILE, dictionary_of, exemplars, synthetic
from tiny_models import tiny_model

pytest.importorskip("fastapi", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

K, WIDTH = 300, 32
ROUTES = [
    "#/", "#/d/fine", "#/d/fine/sphere", "#/d/fine/sphere?mode=slice", "#/d/fine/map",
    "#/d/fine/regions", "#/d/fine/regions?view=table&member_count__gte=3", "#/d/fine/r/7",
    "#/d/fine/text", "#/d/fine/steer?regions=7", "#/d/fine/growth", "#/d/fine/resolution",
    "#/drift/fine/coarse", "#/notes", "#/about",
]  # fmt: skip


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pages")
    made = {
        "fine": synthetic(K, WIDTH, coincident=2),
        "coarse": dictionary_of(exemplars(60, WIDTH), theta=0.8),
        "hostile": synthetic(60, WIDTH, hostile=True),
        "three": synthetic(3, WIDTH),
    }
    views = {name: opened(ex.save(d, folder / name)) for name, d in made.items()}
    model = tiny_model("gpt2")
    with Served(views, load=lambda name: model, model="tiny") as found:
        found.made = made
        yield found


def focused(page):
    """What the keyboard is on: its text or its name."""
    return page.evaluate(
        """() => { const e = document.activeElement;
        return e.getAttribute("aria-label") || e.textContent; }"""
    )


def test_a_webgl2_context_exists(visit):
    assert visit.page.evaluate("() => !!document.createElement('canvas').getContext('webgl2')")


def test_from_all_dictionaries_to_a_region_and_back(visit):
    page = visit.page
    page.locator('a.card[href="#/d/fine"]').click()
    page.get_by_role("heading", name="Largest").wait_for()
    visit.settle()
    page.locator(".shelf a").first.click()
    page.get_by_role("heading", name="Members").wait_for()
    for name in ("Exemplar in context", "Portrait", "Distances", "Logit lens", "Token make-up",
                 "Neighbours", "Resolution", "Notes"):  # fmt: skip
        page.get_by_role("heading", name=name, exact=True).scroll_into_view_if_needed()
    visit.settle()
    assert page.locator(".members li").count() > 0
    page.get_by_role("button", name="Farthest").click()
    page.get_by_role("button", name="as table").first.click()
    page.get_by_role("region", name="Members, as a table").wait_for()
    page.get_by_role("button", name="copy", exact=True).first.click()
    page.wait_for_function(
        "() => navigator.clipboard.readText().then((t) => t.includes('distance in θ'))"
    )
    here = page.url
    page.get_by_role("link", name="Next region").click()
    page.wait_for_function("u => location.href !== u", arg=here)
    page.go_back()
    page.wait_for_function("u => location.href === u", arg=here)
    visit.check()


def test_search_as_one_types(visit, served):
    page = visit.go("#/d/fine")
    token = str(served.made["fine"].contexts.table()["text"][0]).strip()
    page.keyboard.press("/")
    page.keyboard.type(token)
    page.get_by_role("listbox", name="Regions found").get_by_role("option").first.wait_for()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Members").wait_for()
    page.keyboard.press("/")
    page.keyboard.type(token)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name=re.compile("of 300 regions")).wait_for()
    assert f"_search={token}" in page.url
    visit.check()


def test_the_list_is_its_address(visit, served):
    page = visit.go("#/d/fine/regions?member_count__gte=10&_sort_desc=coherence")
    counts = served.made["fine"].counts
    expected = int((counts >= 10).sum())
    page.get_by_role("heading", name=f"{expected} of 300 regions").wait_for()
    page.get_by_role("button", name="Table").click()
    page.get_by_role("button", name=re.compile("Take away")).click()
    page.get_by_role("heading", name="300 of 300 regions").wait_for()
    page.get_by_label("Value").fill("2")
    page.get_by_role("button", name="add").click()
    page.wait_for_url(re.compile("member_count__gte=2"))
    with page.expect_response(re.compile("_sort_desc=distinct_tokens.*_size=100")):
        page.get_by_label("Sort by").select_option("distinct_tokens")
    page.wait_for_url(re.compile("_sort_desc=distinct_tokens"))
    page.wait_for_timeout(300)
    shown = page.locator("main h1").inner_text()
    first = page.locator("tbody th").first.inner_text()
    page.reload()
    page.locator("tbody th").first.wait_for()
    assert page.locator("main h1").inner_text() == shown
    assert page.locator("tbody th").first.inner_text() == first
    page.get_by_role("button", name="More regions").click()
    page.wait_for_function("() => document.querySelectorAll('tbody tr').length > 100")
    visit.check()


def pixels(page, n):
    """[x, y, picked] at n pixels of the first canvas; picked is a region, "gap", or null."""
    return page.evaluate(
        """(n) => { const p = document.querySelector("canvas").picture, out = [];
        for (let j = 0; j < n; j++) {
          const x = Math.floor(p.width * ((j * 0.618034) % 1)) + 0.5;
          const y = Math.floor(p.height * ((j * 0.754877) % 1)) + 0.5;
          out.push([x, y, p.pick(x, y)]);
        } return out; }""",
        n,
    )


def camera(page):
    """Rotation (3, 3), pixels from middle to edge, width, height, of the first canvas."""
    turn, scale, width, height = page.evaluate(
        """() => { const p = document.querySelector("canvas").picture, c = p.scene.camera;
        return [[...c.matrix], c.scale(p.view), p.width, p.height]; }"""
    )
    return np.array(turn).reshape(3, 3).T, scale, width, height


def directions(page, picked):
    """Unit vectors under the pixels that are on the ball, well inside it, and what was picked."""
    turn, scale, width, height = camera(page)
    at = np.array([[x, y] for x, y, _ in picked])
    s = np.stack([at[:, 0] - width / 2, height / 2 - at[:, 1]], axis=1) / scale
    inside = (s**2).sum(axis=1) < 0.98
    z = np.sqrt(1 - (s[inside] ** 2).sum(axis=1))
    found = [p for (_, _, p), keep in zip(picked, inside, strict=True) if keep]
    return np.column_stack([s[inside], z]) @ turn, found  # rows: turn.T @ view


@pytest.mark.parametrize("zoom", [1, 3])
def test_cells_of_the_sphere_are_those_of_the_nearest_exemplar(visit, zoom):
    page = visit.go(f"#/d/fine/sphere?cam=0.1,0.3,-0.2,0.9,{zoom}")
    picked = pixels(page, 2000)
    at, found = directions(page, picked)
    xyz = np.array(page.evaluate("[...document.querySelector('canvas').picture.scene.xyz]"))
    nearest = (at @ xyz.reshape(-1, 3).T).argmax(axis=1)
    right = [a == b for a, b in zip(found, nearest, strict=True)]
    assert None not in found  # no hole in the ball
    assert len(right) > 500
    assert np.mean(right) >= 0.99, f"{np.mean(right):.4f}"
    visit.check()


def test_a_turning_picture_is_coarse_and_exact_again_when_it_rests(visit):
    page = visit.go("#/d/fine/sphere?cam=0.1,0.3,-0.2,0.9,1")
    moving = page.evaluate(
        """() => { const p = document.querySelector("canvas").picture;
        p.scene.camera.drag(60, 20, p.view); p.moved(); clearTimeout(p.rest);
        cancelAnimationFrame(p.frame); p.frame = 0; p.render();
        return [p.fine, p.targets[p.fine].width, p.canvas.width]; }"""
    )
    assert moving[0] == 0.5
    assert moving[1] < 0.7 * moving[2]
    xyz = np.array(page.evaluate("[...document.querySelector('canvas').picture.scene.xyz]"))

    def right():
        at, found = directions(page, pixels(page, 1500))
        nearest = (at @ xyz.reshape(-1, 3).T).argmax(axis=1)
        return np.mean([a == b for a, b in zip(found, nearest, strict=True)])

    assert right() >= 0.9  # also what is pointed at while it turns
    page.evaluate("() => document.querySelector('canvas').picture.moved()")
    page.wait_for_function("() => document.querySelector('canvas').picture.fine === 2")
    rested = drawn(visit)
    assert right() >= 0.99
    page.evaluate("() => document.querySelector('canvas').picture.redraw()")
    again = drawn(visit)
    assert np.array_equal(rested, again)  # the picture has forgotten that it moved
    visit.check()


def drawn(visit):
    """(height, width, 4) what the first canvas shows when it rests, refined."""
    page = visit.page
    page.evaluate(
        """() => { const p = document.querySelector("canvas").picture;
        const was = p.drawColours; window.__four = false;
        p.drawColours = (card, four, ...rest) => { was.call(p, card, four, ...rest);
          window.__four = four; }; }"""
    )
    page.evaluate("() => document.querySelector('canvas').picture.restyle()")
    page.wait_for_function(
        """() => window.__four && !document.querySelector("canvas").picture.frame
        && !document.querySelector("canvas").picture.moving"""
    )
    width, height, bits = page.evaluate(
        """() => { const p = document.querySelector("canvas").picture; delete p.drawColours;
        const { width, height } = p.canvas, d = p.context.getImageData(0, 0, width, height).data;
        let text = "";
        for (let i = 0; i < d.length; i += 8192)
          text += String.fromCharCode(...d.subarray(i, i + 8192));
        return [width, height, btoa(text)]; }"""
    )
    return np.frombuffer(base64.b64decode(bits), np.uint8).reshape(height, width, 4)


def test_colours_are_those_of_the_table_the_filter_and_the_pins(visit):
    page = visit.go("#/d/fine/sphere?cam=0.1,0.3,-0.2,0.9,1")
    page.evaluate(
        """async () => { const p = document.querySelector("canvas").picture;
        const { colouring } = await import("app/colour");
        p.colourBy(colouring("nn1_cos", Float32Array.from({ length: p.scene.k },
          (_, i) => (i % 7 ? Math.sin(i) : NaN))));
        p.filterBy(Uint32Array.from({ length: p.scene.k / 2 }, (_, i) => 2 * i)); }"""
    )
    picked = pixels(page, 4000)
    regions = sorted({p for _, _, p in picked if isinstance(p, int)})
    pins = regions[::5]
    page.evaluate(
        "pins => document.querySelector('canvas').picture.mark({ pins, over: null })", pins
    )
    shown = drawn(visit).astype(float)
    table, steps, theme = page.evaluate(
        """async () => { const { TABLES } = await import("app/tables");
        const p = document.querySelector("canvas").picture;
        const style = getComputedStyle(document.documentElement);
        const read = (name) => [1, 3, 5].map(
          (i) => parseInt(style.getPropertyValue(name).trim().slice(i, i + 2), 16));
        return [[...TABLES[p.colouring.table]], [...p.colouring.steps],
          { paper: read("--surface"), accent: read("--accent"), unknown: read("--unknown") }]; }"""
    )
    table = np.array(table, float).reshape(-1, 3)
    _, scale, width, height = camera(page)
    seen = 0
    for x, y, region in picked:
        s = np.array([x - width / 2, height / 2 - y]) / scale
        if not isinstance(region, int) or s @ s > 0.9:
            continue
        block = shown[int(y) - 5 : int(y) + 6, int(x) - 5 : int(x) + 6, :3]
        if np.ptp(block, axis=(0, 1)).max() > 6:  # a wall, or a rim of a pinned region
            continue
        z = np.sqrt(1 - s @ s)
        t = min(1.0, z / 0.42)
        light = 0.62 + 0.38 * t * t * (3 - 2 * t)
        colour = np.array(theme["unknown"]) if steps[region] == 255 else table[steps[region]]
        colour = colour * light
        if region % 2:
            colour = colour + (np.array(theme["paper"]) - colour) * 0.86
        if region in pins:
            colour = colour + (np.array(theme["accent"]) - colour) * 0.18
        assert np.abs(shown[int(y), int(x), :3] - colour).max() <= 2, region
        seen += 1
    assert seen > 200
    visit.check()


def samples(page, selector, n):
    """What a picture has drawn, at n of its samples: directions (n, 3) in the slice, and owners.

    Directions are those of the samples' own middles, in 64 bits; an owner is a region, or -1 for
    "outside every region". Samples beside the ball are left out.
    """
    at, ids, turn, middle, scale, span = page.evaluate(
        """async ([selector, n]) => { const { gpu } = await import("app/gl");
        const p = document.querySelector(selector).picture, card = gpu();
        const target = p.targets[p.fine], u = p.uniforms(target, p.fine), at = [], ids = [];
        const all = card.read(target, 0, 0, target.width, target.height);
        for (let j = 0; at.length < n && j < 40 * n; j++) {
          const x = Math.floor(target.width * ((j * 0.6180339887) % 1));
          const y = Math.floor(target.height * ((j * 0.7548776662) % 1));
          if (Math.hypot(x + .5 - u.middle[0], y + .5 - u.middle[1]) > u.scale * 0.999) continue;
          at.push([x, y]); ids.push(all[y * target.width + x]);
        } return [at, ids, [...u.turn], u.middle, u.scale, p.scene.span]; }""",
        [selector, n],
    )
    s = (np.array(at) + 0.5 - middle) / scale
    flat = np.linalg.norm(s, axis=1)
    if span:
        angle = flat * span
        seen = np.column_stack([s * (span * np.sinc(angle / np.pi))[:, None], np.cos(angle)])
    else:
        seen = np.column_stack([s, np.sqrt(1 - flat**2)])
    owners = np.array(ids, np.int64) - 1
    assert (owners >= 0).all()  # no hole
    owners[owners == 0xFFFFFFFE] = -1
    return seen @ np.array(turn).reshape(3, 3).T, owners  # rows: turn.T @ seen


MARGIN = 1e-5
"""Of cosine: how near to the best one may be that is drawn. The shader reckons in 32 bits."""


@pytest.mark.parametrize(
    ("route", "selector", "spanned"),
    [
        ("#/d/fine/sphere?mode=slice&basis=r.3.50.120", ".stage canvas", [3, 50, 120]),
        ("#/d/fine/sphere?mode=slice&basis=r.3.50.120&cam=0.1,0.3,-0.2,0.9,4", ".stage canvas",
         [3, 50, 120]),
        ("#/d/fine/r/7", "[aria-labelledby=h-portrait] canvas", None),
    ],
)  # fmt: skip
def test_cells_of_a_slice_are_those_of_the_nearest_exemplar_in_all_dimensions(
    visit, served, route, selector, spanned
):
    page = visit.go(route)
    page.locator(selector).scroll_into_view_if_needed()
    visit.settle()
    at, found = samples(page, selector, 20_000)
    rows = served.made["fine"].exemplars.astype(np.float64)
    cells = page.evaluate(f"document.querySelector('{selector}').picture.scene.cells")
    ids, p = np.array([c["id"] for c in cells]), np.array([c["p"] for c in cells])
    assert spanned is None or set(spanned) <= set(ids.tolist())
    basis, _, rank, _ = np.linalg.lstsq(rows[ids], p, rcond=None)  # of the exemplars to their p
    assert rank == WIDTH
    assert np.allclose(basis.T @ basis, np.eye(3), atol=1e-5)
    cosine = (at @ basis.T) @ rows.T
    best, inside = cosine.max(axis=1), found >= 0
    lost = best[inside] - cosine[inside, found[inside]]
    assert lost.max() <= MARGIN
    assert best[inside].min() >= 0.4 - MARGIN  # cos θ
    assert best[~inside].max(initial=0) <= 0.4 + MARGIN
    assert inside.any()
    assert inside.all() == ("cam" in route)  # near by, no part of it is outside every region
    visit.check()


def test_hover_choose_pin_and_slice_through_three(visit):
    page = visit.go("#/d/fine/sphere")
    box = page.locator("canvas").bounding_box()
    apart = {p: (box["x"] + x, box["y"] + y) for x, y, p in pixels(page, 300) if p is not None}
    three = list(apart.values())[:3]
    x, y = three[0]
    page.mouse.move(x, y)
    page.locator(".inspector h2").wait_for()
    page.wait_for_function("() => document.querySelector('canvas').picture.marks.arcs.length === 8")
    region = page.evaluate("document.querySelector('canvas').picture.marks.over")
    page.wait_for_function(
        "n => document.querySelector('.inspector .key').textContent.includes(`region ${n}·`)",
        arg=region,
    )
    for n, at in enumerate(three):
        page.mouse.click(*at)
        page.wait_for_function(
            """([x, y]) => { const c = document.querySelector("canvas");
            const b = c.getBoundingClientRect();
            return c.picture.marks.over === c.picture.pick(x - b.left, y - b.top); }""",
            arg=at,
        )
        page.keyboard.press("p")
        page.locator(".tray li").nth(n).wait_for()
    before = page.evaluate("document.querySelector('canvas').picture.scene.camera.text")
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + 60, y + 20, steps=4)
    page.mouse.up()
    page.wait_for_url(re.compile("cam="))
    assert page.evaluate("document.querySelector('canvas').picture.scene.camera.text") != before
    page.get_by_role("link", name="slice through 3").click()
    page.get_by_text("exact slice", exact=True).wait_for()
    visit.settle()
    page.get_by_role("button", name="as table").click()
    page.get_by_role("region", name="Regions of the slice, as a table").wait_for()
    visit.check()


def test_colour_filter_and_box_on_the_map(visit):
    page = visit.go("#/d/fine/map")
    page.get_by_label("Colour").select_option("member_count")
    page.wait_for_url(re.compile("colour=member_count"))
    page.wait_for_function(
        "() => document.querySelector('canvas').picture.colouring.column === 'member_count'"
    )
    page.get_by_label("Keep bright").fill("ba")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile("bright$")).wait_for()
    box = page.locator("canvas").bounding_box()
    page.keyboard.down("Shift")
    page.mouse.move(box["x"] + box["width"] * 0.4, box["y"] + box["height"] * 0.4)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, box["y"] + box["height"] * 0.6, steps=3)
    page.mouse.up()
    page.keyboard.up("Shift")
    page.get_by_text(re.compile("regions? chosen$")).wait_for()
    page.get_by_role("link", name="list", exact=True).click()
    page.get_by_role("heading", name=re.compile("of 300 regions")).wait_for()
    assert "ids=" in page.url
    visit.check()


def test_no_frame_is_drawn_when_nothing_changes(visit):
    page = visit.go("#/d/fine/sphere")
    page.evaluate(
        """() => { const p = document.querySelector("canvas").picture, render = p.render.bind(p);
        window.__drawn = 0; p.render = () => { window.__drawn++; render(); }; }"""
    )
    for _ in range(12):  # what was on its way comes to rest
        before = page.evaluate("window.__drawn")
        page.wait_for_timeout(400)
        if page.evaluate("window.__drawn") == before:
            return
    raise AssertionError("the picture is drawn again and again")


def test_a_lost_context_says_so_and_comes_back(visit):
    page = visit.go("#/d/fine/sphere")
    before = [p for _, _, p in pixels(page, 50)]
    page.evaluate(
        """async () => { const { gpu } = await import("app/gl");
        window.__lose = gpu().gl.getExtension("WEBGL_lose_context");
        window.__lose.loseContext(); }"""
    )
    page.get_by_text("Cannot draw because the graphics context was lost").wait_for()
    assert page.get_by_role("listbox", name="Regions in view").is_visible()
    page.evaluate("window.__lose.restoreContext()")
    page.get_by_text("Cannot draw because").wait_for(state="detached")
    visit.settle()
    page.wait_for_function("() => document.querySelector('canvas').picture.made === 1")
    assert [p for _, _, p in pixels(page, 50)] == before


def test_without_webgl_the_regions_are_listed(browser, served):
    visit = Visit(browser, served)
    visit.context.add_init_script(
        "const own = HTMLCanvasElement.prototype.getContext;"
        "HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {"
        " return kind === 'webgl2' ? null : own.call(this, kind, ...rest); };"
    )
    visit.page.reload()
    page = visit.go("#/d/fine/sphere")
    page.get_by_text("Cannot draw because this browser gives no WebGL2 context").wait_for()
    page.get_by_role("listbox", name="Regions in view").get_by_role("option").first.wait_for()
    page.get_by_role("listbox", name="Regions in view").focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Members").wait_for()
    visit.check()
    visit.close()


def test_too_few_regions_for_a_sphere_give_a_sentence(visit):
    page = visit.go("#/d/three/sphere")
    page.locator(".problem").first.wait_for()
    visit.go("#/d/three/regions")
    page.get_by_role("heading", name="3 of 3 regions").wait_for()
    visit.check()


def test_live_text_as_one_types(visit):
    page = visit.go("#/d/fine/text")
    page.get_by_label("Text to read").fill("one two 東京 three")
    page.wait_for_function("() => document.querySelectorAll('.strip .tok').length > 3")
    page.wait_for_function(
        """() => [...document.querySelectorAll(".tok")].flatMap((t) => [...t.childNodes])
        .filter((n) => n.nodeType === 3).map((n) => n.data).join("").includes("three")"""
    )
    strip = page.get_by_role("listbox", name="Tokens of the text")
    shown = page.evaluate(
        "[...document.querySelectorAll('.strip .tok')].map((t) => t.getAttribute('aria-label'))"
    )
    assert all(re.search("region|special|no region", s) for s in shown)
    strip.locator("[tabindex='0']").focus()
    page.keyboard.press("End")
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    page.locator(".token-detail").wait_for()
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Regions in this text").wait_for()
    page.get_by_role("button", name="Distance", exact=True).click()
    visit.settle()
    page.wait_for_url(re.compile("q=one"))
    visit.check()


def test_steering_side_by_side(visit):
    page = visit.go("#/d/fine/steer?regions=7.11")
    page.get_by_role("button", name="take out").first.click()
    page.get_by_label("tokens", exact=True).fill("6")
    page.get_by_role("button", name="Write").click()
    page.wait_for_function("() => document.querySelectorAll('.answer').length === 3")
    page.locator(".answer[aria-busy=true]").first.wait_for(state="detached")
    assert page.locator(".answer h3").first.inner_text() == "baseline"
    page.get_by_role("button", name="copy as Python").click()
    page.wait_for_function(
        "() => navigator.clipboard.readText().then((t) => t.includes('ex.Edit.ablate'))"
    )
    page.wait_for_url(re.compile("edits=7-ablate-generated-0.5_11-add-generated-0.5"))
    visit.check()


def test_growth_resolution_and_drift(visit):
    page = visit.go("#/d/fine/growth")
    page.wait_for_selector("main h1:text-is('Growth')")
    visit.go("#/d/fine/resolution")
    page.get_by_role("heading", name="Resolution").wait_for()
    visit.go("#/drift/fine/coarse")
    page.get_by_role("heading", name="Drift").wait_for()
    kept = page.locator(".figure dd").first.inner_text()
    page.get_by_role("slider", name="cosine that counts").fill("0.99")
    page.wait_for_function("k => document.querySelector('.figure dd').innerText !== k", arg=kept)
    page.wait_for_url(re.compile("cutoff=0.99"))
    visit.check()


def test_labels_and_notes_are_kept(visit):
    page = visit.go("#/d/fine/r/42")
    page.keyboard.press("l")
    page.get_by_label("Your label").fill("a <b>label</b>")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="a <b>label</b>").wait_for()
    page.get_by_role("heading", name="Notes").scroll_into_view_if_needed()
    page.get_by_label("Note on region 42").fill("remember this")
    page.get_by_role("button", name="Keep the note").click()
    page.get_by_role("button", name="Keep the note").wait_for(state="detached")
    visit.go("#/notes")
    page.get_by_text("remember this").wait_for()
    page.get_by_text("a <b>label</b>").wait_for()
    page.reload()
    page.get_by_text("remember this").wait_for()
    visit.check()


def command(page, text):
    """What the palette offers for a text, once it has the focus."""
    page.keyboard.press("Control+k")
    page.wait_for_function("() => document.activeElement?.getAttribute('role') === 'combobox'")
    page.keyboard.type(text)
    page.wait_for_function("t => document.activeElement?.value === t", arg=text)
    page.keyboard.press("Enter")


def test_every_page_by_keyboard_alone(visit):
    page = visit.page
    page.reload()
    page.locator("main h1").wait_for()
    page.keyboard.press("Tab")
    assert focused(page) == "Skip to the page"
    for _ in range(12):
        page.keyboard.press("Tab")
        if "fine" in (focused(page) or ""):
            break
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Largest").wait_for()
    for key, ready in (("s", "Regions in view"), ("m", "Regions in view")):
        page.keyboard.press(key)
        page.get_by_role("listbox", name=ready).get_by_role("option").first.wait_for()
    page.get_by_role("application").focus()
    before = page.evaluate("document.querySelector('canvas').picture.scene.camera.text")
    for key in ("ArrowLeft", "ArrowUp", "+", "-"):
        page.keyboard.press(key)
    assert page.evaluate("document.querySelector('canvas').picture.scene.camera.text") != before
    page.keyboard.press("0")
    page.keyboard.press("Tab")  # to the list beside the picture
    page.get_by_role("listbox", name="Regions in view").focus()
    page.keyboard.press("ArrowDown")
    page.locator(".inspector h2").wait_for()
    page.keyboard.press("ArrowRight")  # a true neighbour
    page.wait_for_timeout(150)
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Members").wait_for()
    page.keyboard.press("p")
    page.locator(".tray li").wait_for()
    command(page, "7")
    for key, shown in (("", 7), ("j", 8), ("k", 7)):
        if key:
            page.keyboard.press(key)
        page.wait_for_function(
            "k => document.querySelector('.crumb .key')?.textContent.startsWith(k)", arg=f"{shown}·"
        )
    page.keyboard.press("]")
    page.wait_for_function("() => !location.hash.endsWith('/r/7')")
    page.get_by_role("heading", name="Members").wait_for()
    page.keyboard.press("c")
    page.wait_for_function(
        "() => navigator.clipboard.readText().then((t) => t.includes('dictionary.region('))"
    )
    page.keyboard.press("?")
    page.get_by_role("heading", name="Keys").wait_for()
    page.keyboard.press("Escape")
    page.get_by_role("heading", name="Keys").wait_for(state="detached")
    command(page, "live text")
    page.get_by_role("heading", name="Live text").wait_for()
    visit.settle()
    command(page, "5")
    page.wait_for_url(re.compile("/r/5$"))
    visit.check()


def test_shortcuts_can_be_turned_off(visit):
    page = visit.go("#/d/fine/regions")
    page.keyboard.press("?")
    page.get_by_label("Single-key shortcuts").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("s")
    page.wait_for_timeout(100)
    assert page.url.endswith("/regions")
    page.keyboard.press("Control+k")
    page.get_by_role("combobox", name="Command").wait_for()


def test_a_deep_link_without_the_token_says_what_to_do(browser, served):
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://127.0.0.1:{served.port}/#/d/fine/r/7")
    page.get_by_text("open the link that `exemplars explore` printed").wait_for()
    page.goto(f"http://127.0.0.1:{served.port}/#t={TOKEN}")
    page.get_by_role("heading", name="4 dictionaries").wait_for()
    assert TOKEN not in page.url
    context.close()


def test_hostile_texts_stay_texts(visit):
    page = visit.page
    for i, text in enumerate(HOSTILE):
        page.evaluate(
            """async ([id, label]) => { const { send, forget } = await import("app/api");
            await send("PUT", `/d/hostile/regions/${id}/label`, { label });
            forget("/d/hostile"); }""",
            [i, text],
        )
    routes = [r.replace("fine", "hostile") for r in ROUTES if "drift" not in r and "steer" not in r]
    for route in [*routes, "#/d/hostile/regions?_search=%3Cscript%3E", "#/d/%3Cimg%20src=x%3E",
                  "#/%3Cscript%3E", "#/d/hostile/regions?member_count__gte=%3Cimg%3E"]:  # fmt: skip
        page.evaluate("route => { location.hash = route }", route)
        page.wait_for_timeout(250)
    for i in (0, 1, 4, 10):
        visit.go(f"#/d/hostile/r/{i}")
        page.wait_for_function(
            "id => document.querySelector('.crumb .key')?.textContent.startsWith(`${id}·`)",
            arg=str(i),
        )
        assert HOSTILE[i] in page.locator("h1").inner_text()
        page.mouse.wheel(0, 4000)
        page.wait_for_timeout(200)
        page.keyboard.press("p")
    page.keyboard.press("/")
    page.keyboard.type("<img")
    page.wait_for_timeout(500)
    page.keyboard.press("Escape")
    visit.go("#/d/hostile/text")
    page.get_by_label("Text to read").fill(HOSTILE[0] + HOSTILE[7])
    page.wait_for_function("() => document.querySelectorAll('.strip .tok').length > 20")
    assert page.locator("main img, main script, main iframe").count() == 0
    visit.check()


def test_hidden_characters_are_seen(visit):
    page = visit.go("#/d/hostile/r/8")
    assert "‹202E›" in page.locator("main").inner_text()
    assert "\u202e" not in page.locator("main").inner_text()


def test_axe_finds_nothing_on_any_page_in_either_theme(visit):
    axe = pytest.importorskip(
        "axe_playwright_python.sync_playwright",
        reason="accessibility is tested with axe: pip install axe-playwright-python",
    )
    found = {}
    visit.page.emulate_media(reduced_motion="reduce")  # else colours are seen on their way
    for route in ROUTES:
        page = visit.go(route)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for v in axe.Axe().run(page).response["violations"]:
                nodes = [(n["target"], n.get("failureSummary", "")[:200]) for n in v["nodes"][:3]]
                found[f"{route} {theme} {v['id']}"] = nodes
    visit.page.emulate_media(color_scheme="light", reduced_motion="no-preference")
    assert found == {}, json.dumps(found, indent=1)


def test_a_server_that_goes_away_in_mid_stream_leaves_the_page_usable(browser, tmp_path):
    from playwright.sync_api import TimeoutError as TooLate

    held = threading.Event()

    def load(name):
        held.wait(20)
        raise OSError("never loaded")

    folder = ex.save(synthetic(40, WIDTH), tmp_path / "fine")
    with Served({"fine": opened(folder)}, load=load, model="tiny") as first:
        visit = Visit(browser, first)
        page = visit.go("#/d/fine/text")
        page.get_by_label("Text to read").fill("a text that is never read")
        page.get_by_text(re.compile("Waiting for the model|this happens once")).wait_for()
        first.server.force_exit = True
        first.server.should_exit = True
        page.get_by_text("The server does not answer").first.wait_for()
        held.set()
    page.get_by_role("link", name="Regions").click()
    page.get_by_role("button", name="try again").wait_for()
    page.get_by_label("Text to read").wait_for(state="detached")
    with Served({"fine": opened(folder)}, port=first.port) as second:
        assert second.port == first.port
        with contextlib.suppress(TooLate):  # another request may find the server first
            page.get_by_role("button", name="try again").click(timeout=3_000)
        page.locator(".banner").wait_for(state="detached")
        page.get_by_role("heading", name="40 of 40 regions").wait_for()
        assert visit.errors == []
        visit.close()


@pytest.mark.parametrize("hostile", [False, True])
def test_one_file_opens_from_the_disk_with_the_same_routes(browser, served, tmp_path, hostile):
    out = tmp_path / "a file ü.html"
    name = "hostile" if hostile else "fine"
    view = served.explorer.views[name]
    export_html(view.folder, out, top=12)
    context = browser.new_context(viewport=WIDE)
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(20_000)
    asked, failed = [], []
    page.on("request", lambda r: asked.append(r.url))
    page.on("pageerror", lambda e: failed.append(str(e)))
    page.goto(out.as_uri())
    page.locator("main h1").wait_for()
    for route in ("#/d/main", "#/d/main/sphere", "#/d/main/sphere?mode=slice", "#/d/main/map",
                  "#/d/main/regions?member_count__gte=2&_sort=coherence", "#/d/main/growth",
                  "#/d/main/text", "#/about"):  # fmt: skip
        page.evaluate("route => { location.hash = route }", route)
        page.wait_for_timeout(400)
    page.evaluate("() => { location.hash = '#/d/main/regions' }")
    page.locator(".card h3 a").first.click()
    page.locator(".members li").first.wait_for()
    page.locator(".neighbours li").first.scroll_into_view_if_needed()
    page.wait_for_function("() => document.querySelector('canvas')?.picture?.fine")
    picked = page.evaluate("document.querySelector('canvas').picture.pick(200, 200)")
    assert picked is not None  # the portrait is drawn
    assert failed == []
    assert page.evaluate("window.__violations") == []
    assert page.evaluate("window.__pwn") is None
    assert [u for u in asked if not u.startswith(("file:", "data:", "blob:"))] == []
    context.close()
