"""What a person does with the explorer, each thing with the mouse and with the keyboard alone."""

import json
import re
import time
from pathlib import Path

import pytest

import exemplars as ex
from builds import SETTINGS, documents
from explorer_browser import Visit, chromium, opened
from explorer_hands import HANDS, Keyboard, Mouse
from explorer_server import NEEDED, Served
from tiny_models import tiny_model

pytest.importorskip("fastapi", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

TITLES = {"fine": "resid_post.1, p = 10", "coarse": "resid_post.1, p = 40"}
CAMERA = "document.querySelector('.stage canvas').picture.scene.camera.text"
QUICK = {"calibration_rows": 200}


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """Two dictionaries of one site, as they are built, and the model that they are of."""
    model = tiny_model()
    out = tmp_path_factory.mktemp("journeys") / "built"
    ex.build(
        model, "resid_post.1", ex.texts(documents(30)), [10.0, 40.0], out=out, **SETTINGS | QUICK
    )
    names = {"resid_post.1-p10": "fine", "resid_post.1-p40": "coarse"}
    views = {slug: opened(out / name, slug) for name, slug in names.items()}
    with Served(views, load=lambda name: model, model="tiny") as found:
        found.model = model
        yield found


@pytest.fixture(scope="module")
def page_open(served):
    with chromium() as browser:
        found = Visit(browser, served, viewport={"width": 1200, "height": 640})
        yield found
        found.close()


@pytest.fixture
def visit(page_open):
    page_open.anew()
    yield page_open
    page_open.check()


@pytest.fixture(params=HANDS, ids=["mouse", "keyboard"])
def hand(request, visit):
    return request.param(visit.page)


def button(page, name, **options):
    return page.get_by_role("button", name=name, **options)


def link(page, name, **options):
    return page.get_by_role("link", name=name, **options)


def region_shown(page, region):
    page.wait_for_function(
        "k => document.querySelector('.crumb .key')?.textContent.startsWith(k)", arg=f"{region}·"
    )


def answers(page):
    """Name and text of each column."""
    return page.evaluate(
        """[...document.querySelectorAll(".answer")].map((a) =>
        [a.querySelector("h3").textContent, a.querySelector(".written").textContent])"""
    )


def pinned(page, *regions):
    page.evaluate(
        """async (ids) => { const s = await import("app/state");
        for (const id of ids) s.togglePin({ d: "fine", id, token: `t${id}`, label: null }); }""",
        list(regions),
    )
    page.locator(".tray li").nth(len(regions) - 1).wait_for()


def test_steering(visit, hand, served):
    page = visit.go("#/d/fine/r/7")
    hand.press(link(page, "steer", exact=True))
    variants = page.get_by_role("region", name="Variants")
    hand.write(variants.get_by_label("add a variant with region"), "11")
    hand.press(button(variants, "add", exact=True).last)
    second = variants.get_by_role("group", name="Variant 2")
    hand.press(button(second, "cap"))
    hand.choose(second.get_by_label("Where"), "all")
    before = second.get_by_role("slider").input_value()
    hand.slide(second.get_by_role("slider"))
    assert second.get_by_role("slider").input_value() > before
    first = variants.get_by_role("group", name="Variant 1")
    hand.press(button(first, "Turn the sign round"))
    hand.write(page.get_by_label("Prompt"), "the sea ")
    hand.write(page.get_by_label("tokens", exact=True), "6")
    hand.write(page.get_by_label("seed"), "3")
    hand.press(button(page, "Write"))
    page.wait_for_function(
        "() => document.querySelectorAll('.answer[aria-busy=false]').length === 3"
    )
    shown = answers(page)
    assert shown[0][0] == "baseline"
    assert shown[1][0].startswith("+−0.50×")  # the sign that was turned round
    assert shown[2][0].startswith("cap 11")
    with page.expect_download() as downloading:
        hand.press(button(page, "save JSON"))
    saved = json.loads(Path(downloading.value.path()).read_text(encoding="utf-8"))
    assert downloading.value.suggested_filename.startswith("steering-")
    assert [a["name"] for a in saved["answers"]] == [name for name, _ in shown]
    assert saved["asked"]["seed"] == 3
    (cap,) = saved["asked"]["variants"][1]["items"]
    assert (cap["region"], cap["op"], cap["positions"]) == (11, "cap", "all")
    (answer,) = ex.generate(
        served.model, ["the sea "], chat=False, max_new_tokens=6, temperature=0.0, seed=3
    )
    assert saved["answers"][0]["text"] == answer.text
    page.wait_for_url(re.compile("edits=7-add-generated--0.5_11-cap-all-"))
    page.reload()
    visit.settle()
    assert page.get_by_label("Prompt").input_value() == "the sea "
    assert page.get_by_label("seed").input_value() == "3"
    again = page.get_by_role("group", name="Variant 2")
    assert again.get_by_label("Where").input_value() == "all"
    assert button(again, "cap").get_attribute("aria-pressed") == "true"


def test_stopping_what_is_written(visit, hand, served):
    page = visit.go("#/d/fine/steer?regions=3&tokens=40&prompt=the+sea")
    slow = served.model.module.register_forward_pre_hook(lambda *_: time.sleep(0.05))
    try:
        hand.press(button(page, "Write"))
        page.wait_for_function("() => document.querySelector('.answer .written')?.textContent")
        hand.press(button(page, "Stop"))
        button(page, "Write").wait_for()
        page.get_by_text("stopped").first.wait_for()
        assert page.locator(".answer[aria-busy=true]").count() == 0
        if isinstance(hand, Keyboard):
            assert button(page, "Write").evaluate("(e) => e === document.activeElement")
        deadline = time.monotonic() + 30
        while served.explorer.worker.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert served.explorer.worker.running == 0
    finally:
        slow.remove()
    written = answers(page)[0][1]
    assert 0 < len(written) < 200


def test_growth(visit, hand, served):
    page = visit.go("#/d/fine/growth")
    chart = page.get_by_role("img", name="Regions as tokens were read")
    chart.wait_for()
    hand.press(button(page, "linear"))
    page.wait_for_url(re.compile("axes=linear"))
    hand.press(button(page, "this one"))
    page.wait_for_function(
        "() => document.querySelectorAll('.chart[aria-label^=Regions] .series').length === 1"
    )
    hand.press(button(page, "as table").first)
    table = page.get_by_role("region", name="Regions, as a table")
    last = table.locator("tbody tr").last.inner_text().split()
    assert last[-1] == str(len(served.explorer.views["fine"].dictionary))
    page.reload()
    visit.settle()
    assert button(page, "linear").get_attribute("aria-pressed") == "true"
    assert button(page, "this one").get_attribute("aria-pressed") == "true"


def test_drift(visit, hand):
    page = visit.go("#/drift/fine/coarse")
    page.get_by_role("heading", name="Drift").wait_for()
    kinds = page.get_by_role("group", name="Which regions")
    cutoff = page.get_by_role("slider", name=re.compile("cosine that counts"))
    before = cutoff.input_value()
    hand.slide(cutoff)
    assert cutoff.input_value() > before
    page.wait_for_url(re.compile(f"cutoff={cutoff.input_value()}"))
    hand.press(button(kinds, "Dropped"))
    page.wait_for_url(re.compile("kind=dropped"))
    page.get_by_role("heading", name="Regions dropped").wait_for(state="attached")
    first = page.get_by_role("region", name="Changed regions").locator("tbody a").first
    if isinstance(hand, Keyboard):
        page.keyboard.press("End")  # sections are made when they come near
        first.wait_for()
    hand.press(first)
    page.get_by_role("heading", name="Members").wait_for()
    page.go_back()
    page.get_by_role("heading", name="Drift").wait_for()
    assert "kind=dropped" in page.url
    hand.write(page.get_by_label("Text for both"), "the sea and the moon")
    for title in TITLES.values():
        page.get_by_role("listbox", name=f"Tokens through {title}").get_by_role(
            "option"
        ).first.wait_for()


def test_relatives_at_other_resolutions(visit, hand):
    page = visit.go("#/d/coarse/r/2")
    if isinstance(hand, Keyboard):
        page.keyboard.press("d")
    else:
        section = page.get_by_role("region", name="Resolution", exact=True)
        hand.press(section.locator(".relatives a").first)
    page.wait_for_url(re.compile("/d/fine/r/"))
    page.get_by_role("heading", name="Members").wait_for()
    if isinstance(hand, Keyboard):
        page.keyboard.press("u")
        page.wait_for_url(re.compile("/d/coarse/r/"))
        page.get_by_role("heading", name="Members").wait_for()
    visit.go("#/d/coarse/resolution")
    hand.press(page.locator(".icicle a").first)
    page.wait_for_url(re.compile("/d/fine/r/"))
    visit.go("#/d/coarse/resolution")
    hand.press(page.locator(".ladder").get_by_role("link", name=TITLES["fine"]))
    page.wait_for_url(re.compile("/d/fine/resolution"))


def test_a_label_and_a_note(visit, hand):
    page = visit.go("#/d/fine/r/9")
    edit = button(page, "label", exact=True)
    hand.press(edit)
    hand.write(page.get_by_label("Your label"), f"by {hand.__class__.__name__}")
    hand.press(button(page, "Keep", exact=True))
    page.get_by_role("heading", name=f"by {hand.__class__.__name__}").wait_for()
    assert edit.evaluate("(e) => e === document.activeElement")
    hand.press(edit)
    hand.press(button(page, "Cancel"))
    hand.write(page.get_by_label("Note on region 9"), "seen")
    hand.press(button(page, "Keep the note"))
    button(page, "Keep the note").wait_for(state="detached")
    hand.press(link(page, "exemplars: all dictionaries"))
    hand.press(link(page, "Notes"))
    row = page.get_by_role("region", name="note, as a table").get_by_role("row", name="fine 9")
    assert "seen" in row.inner_text()
    hand.press(row.get_by_role("link"))
    region_shown(page, 9)
    hand.press(edit)
    hand.write(page.get_by_label("Your label"), " ")
    hand.press(button(page, "Keep", exact=True))
    page.get_by_text(f"by {hand.__class__.__name__}").first.wait_for(state="detached")
    hand.write(page.get_by_label("Note on region 9"), " ")
    hand.press(button(page, "Keep the note"))
    button(page, "Keep the note").wait_for(state="detached")


def looked(page, act):
    """Act, and wait for another camera, which comes to stand in the address."""
    before = page.evaluate(CAMERA)
    act()
    page.wait_for_function(f"before => {CAMERA} !== before", arg=before)
    page.wait_for_function(
        f"() => new URLSearchParams(location.hash.split('?')[1]).get('cam') === {CAMERA}"
    )
    return page.evaluate(CAMERA)


def moves(page, hand):
    """Turn or move, come nearer, and go back to the start, each as this hand does it."""
    stage = page.get_by_role("application")
    if isinstance(hand, Keyboard):
        hand.reach(stage)
        return [lambda key=key: page.keyboard.press(key) for key in ("ArrowLeft", "+", "0")]
    box = stage.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2

    def drag():
        page.mouse.move(x, y)
        page.mouse.down()
        page.mouse.move(x + 50, y + 30, steps=4)
        page.mouse.up()

    return [drag, lambda: page.mouse.wheel(0, -300), lambda: hand.press(button(page, "Start view"))]


def test_the_map(visit, hand):
    page = visit.go("#/d/fine/map")
    start = page.evaluate(CAMERA)
    move, nearer, back = moves(page, hand)
    assert looked(page, move) != start
    assert float(looked(page, nearer).split(",")[-1]) > 1
    assert looked(page, back) == start
    hand.choose(page.get_by_label("Colour"), "member_count")
    page.wait_for_url(re.compile("colour=member_count"))
    hand.write(page.get_by_label("Keep bright the regions that match"), "the")
    page.keyboard.press("Enter")
    page.get_by_text(re.compile("bright$")).wait_for()
    listed = page.get_by_role("listbox", name="Regions in view")
    listed.get_by_role("option").nth(1).wait_for()
    if isinstance(hand, Keyboard):
        hand.reach(listed)
        page.keyboard.press("ArrowDown")
    else:
        hand.press(listed.get_by_role("option").nth(1))
    name = page.locator(".inspector h2 a")
    name.wait_for()
    hand.press(name)
    page.get_by_role("heading", name="Members").wait_for()


def test_the_sphere_and_its_slices(visit, hand):
    page = visit.go("#/d/fine/sphere")
    pinned(page, 3, 11, 20)
    start = page.evaluate(CAMERA)
    turn, nearer, back = moves(page, hand)
    assert looked(page, turn) != start
    assert float(looked(page, nearer).split(",")[-1]) > 1
    assert looked(page, back) == start
    hand.press(button(page, "Exact slice"))
    page.get_by_text("exact slice", exact=True).wait_for()
    visit.settle()
    through = page.get_by_label("Through")
    hand.choose(through, "r.3.11.20")
    page.get_by_text("exact slice", exact=True).wait_for()
    visit.settle()
    page.wait_for_url(re.compile("basis=r.3.11.20"))
    hand.press(button(page, "as table"))
    rows = page.get_by_role("region", name="Regions of the slice, as a table")
    there = set(rows.locator("tbody a").all_inner_texts())
    assert {"3", "11", "20"} <= there  # each owns its own direction
    page.go_back()
    page.wait_for_url(re.compile(r"mode=slice(?!.*basis=r\.)"))
    visit.settle()
    hand.press(button(page, "Projected"))
    page.get_by_text(re.compile("^projected")).wait_for()
    visit.settle()
    assert "mode" not in page.url


def test_true_neighbours_are_walked_by_arrows_and_said(visit, served):
    page = visit.go("#/d/fine/sphere")
    hand = Keyboard(page)
    listed = page.get_by_role("listbox", name="Regions in view")
    hand.reach(listed)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowLeft")
    said = page.locator(".unseen[role=status]")
    page.wait_for_function("() => /from the one before/.test(document.body.textContent)")
    first = page.evaluate("import('app/state').then((s) => s.selected.value.id)")
    text = said.inner_text()
    assert re.fullmatch(
        rf"Region {first}, .+, [\d,]+ members?, [\d.]+ θ from the one before\.", text
    )
    start = int(listed.get_by_role("option").first.get_attribute("id").removeprefix("view-"))
    rows = served.explorer.views["fine"].dictionary.exemplars
    cosine = rows @ rows[start]
    cosine[start] = -2
    assert first == cosine.argmax()
    page.evaluate("import('app/state').then((s) => s.select('coarse', 1))")
    page.keyboard.press("Enter")  # what is chosen of another dictionary is not meant
    page.wait_for_url(re.compile("/d/fine/r/"))


def command(page, hand, typed, name):
    """Open the palette, type, and choose what stands there by then."""
    hand.press(button(page, re.compile("^Commands")))
    page.wait_for_function("() => document.activeElement?.getAttribute('role') === 'combobox'")
    page.keyboard.type(typed)
    chosen = page.get_by_role("listbox", name="Commands").get_by_role("option", name=name)
    chosen.wait_for()
    if isinstance(hand, Mouse):
        hand.press(chosen)
        return
    for _ in range(12):
        if chosen.get_attribute("aria-selected") == "true":
            break
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")


def test_commands(visit, hand):
    page = visit.go("#/d/fine/regions")
    opener = button(page, re.compile("^Commands"))
    hand.press(opener)
    page.get_by_role("combobox", name=re.compile("^Command")).wait_for()
    page.keyboard.press("Escape")
    page.locator("dialog").wait_for(state="detached")
    assert opener.evaluate("(e) => e === document.activeElement")
    command(page, hand, "drift", f"Drift from here to {TITLES['coarse']}")
    page.wait_for_url(re.compile("#/drift/fine/coarse"))
    visit.go("#/d/fine")
    command(page, hand, "theme", "Dark theme")
    page.wait_for_function("() => document.documentElement.dataset.theme === 'dark'")
    assert opener.evaluate("(e) => e === document.activeElement")  # nothing was opened
    hand.press(button(page, "Light theme"))
    page.wait_for_function("() => document.documentElement.dataset.theme === 'light'")
    command(page, hand, "12", "Region 12")
    region_shown(page, 12)


def test_the_tray(visit, hand):
    page = visit.go("#/d/fine/r/4")
    items = page.locator(".tray li")
    for n, region in enumerate((4, 5, 6, 7)):
        region_shown(page, region)
        hand.press(button(page.locator(".region-head"), "Pin to the tray"))
        items.nth(n).wait_for()
        hand.press(link(page, "Next region"))
    tray = page.get_by_role("region", name="Tray of pinned regions")
    hand.press(button(tray, "Take region 5 out of the tray"))
    page.wait_for_function("() => document.querySelectorAll('.tray li').length === 3")
    here = page.evaluate("document.activeElement.getAttribute('aria-label')")
    assert here == "Take region 6 out of the tray"
    hand.press(link(tray, "slice through 3"))
    page.wait_for_url(re.compile("basis=r.4.6.7"))
    page.get_by_text("exact slice", exact=True).wait_for()
    visit.settle()
    hand.press(link(tray, "steer"))
    for n in (1, 2, 3):
        page.get_by_role("group", name=f"Variant {n}").wait_for()
    hand.press(button(tray, "Take region 4 out of the tray"))
    hand.press(link(tray, "steer"))
    page.wait_for_url(re.compile("edits=6-add-generated-0.5_7-add-generated-0.5"))
    page.get_by_role("group", name="Variant 3").wait_for(state="detached")
    hand.press(link(tray, "compare"))
    page.get_by_role("heading", name=re.compile("^2 of")).wait_for()
    hand.press(button(page.locator(".cards"), "Take out of the tray").first)
    page.wait_for_function("() => document.querySelectorAll('.tray li').length === 1")
    hand.press(button(tray, "empty"))
    tray.wait_for(state="detached")


def test_the_switcher_of_dictionaries(visit, hand):
    page = visit.go("#/d/fine/growth")
    switcher = page.get_by_role("combobox", name="Dictionary")
    hand.choose(switcher, "coarse")
    page.wait_for_url(re.compile("#/d/coarse/growth"))
    page.get_by_role("heading", name="Growth").wait_for()
    if isinstance(hand, Keyboard):  # the next key is meant for it still
        assert switcher.evaluate("(e) => e === document.activeElement")
    hand.choose(switcher, "fine")
    page.wait_for_url(re.compile("#/d/fine/growth"))
    page.go_back()
    page.wait_for_url(re.compile("#/d/coarse/growth"))
    page.wait_for_function("() => document.querySelector('.switcher select').value === 'coarse'")


def test_help_and_the_setting_of_shortcuts(visit, hand):
    page = visit.go("#/d/fine/regions")
    help_ = button(page, re.compile("^Help"))
    hand.press(help_)
    page.get_by_role("heading", name="Keys").wait_for()
    check = page.get_by_label("Single-key shortcuts")
    hand.press(check)
    assert not check.is_checked()
    hand.press(button(page, "Close"))
    page.locator("dialog").wait_for(state="detached")
    assert help_.evaluate("(e) => e === document.activeElement")
    page.keyboard.press("s")
    page.keyboard.press("?")
    page.keyboard.press("Control+k")  # a chord still works, and shows that the keys were heard
    page.get_by_role("combobox", name=re.compile("^Command")).wait_for()
    assert page.url.endswith("/regions")
    assert page.get_by_role("heading", name="Keys").count() == 0
    page.reload()  # it is remembered
    page.locator("main h1").wait_for()
    command(page, hand, "single", "Single-key shortcuts on")
    page.keyboard.press("s")
    page.wait_for_url(re.compile("/sphere"))


def test_from_the_overview_to_a_list_and_a_region(visit, hand):
    page = visit.go("#/d/fine")
    shelf = page.get_by_role("region", name="Largest", exact=True)
    hand.press(link(shelf, "all"))
    page.get_by_role("heading", name=re.compile("of \\d+ regions")).wait_for()
    hand.write(page.get_by_label("Value"), "2")
    hand.press(button(page, "add", exact=True))
    page.wait_for_url(re.compile("member_count__gte=2"))
    hand.press(button(page, "Largest first; turn round"))
    page.wait_for_url(re.compile("_sort=member_count"))
    hand.choose(page.get_by_label("Sort by"), "coherence")
    page.wait_for_url(re.compile("_sort=coherence"))
    hand.press(button(page, "Table"))
    page.wait_for_url(re.compile("view=table"))
    page.locator("tbody th a").first.wait_for()
    hand.press(button(page, re.compile("^Take away: members")))
    page.wait_for_function("() => !location.hash.includes('member_count__gte')")
    page.go_back()
    page.wait_for_url(re.compile("member_count__gte=2"))
    page.wait_for_function(
        "() => document.querySelector('select[aria-label=\"Sort by\"]').value === 'coherence'"
    )
    visit.settle()
    hand.press(page.locator("tbody th a").first)
    page.get_by_role("heading", name="Members").wait_for()


def test_the_sections_of_a_region(visit, hand):
    page = visit.go("#/d/fine/r/3")
    hand.press(button(page, "By distance"))
    hand.press(button(page, "0.4–0.6"))
    hand.press(button(page, "Full", exact=True))
    hand.press(page.get_by_label("collapse duplicates"))
    assert not page.get_by_label("collapse duplicates").is_checked()
    visit.settle()
    lens = page.get_by_role("region", name="Logit lens")
    hand.press(button(lens, "Mean of members"))
    visit.settle()
    distances = page.get_by_role("region", name="Distances", exact=True)
    hand.press(button(distances, "as table"))
    page.get_by_role("region", name="Distances, as a table").wait_for()
    neighbours = page.get_by_role("region", name="Neighbours")
    hand.press(neighbours.locator(".who a").first)
    page.wait_for_function("() => !location.hash.endsWith('/r/3')")
    page.get_by_role("heading", name="Members").wait_for()
    page.go_back()
    region_shown(page, 3)


def test_live_text(visit, hand):
    page = visit.go("#/d/fine/text")
    hand.write(page.get_by_label("Text to read"), "the sea then the moon")
    page.wait_for_url(re.compile(r"q=the\+sea"))
    tokens = page.get_by_role("listbox", name=re.compile("^Tokens of the text"))
    tokens.get_by_role("option", name=re.compile("^the: region")).first.wait_for()
    hand.press(button(page, "Distance", exact=True))
    page.wait_for_url(re.compile("colour=distance"))
    if isinstance(hand, Keyboard):
        hand.reach(tokens.locator("[tabindex='0']"))
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        page.keyboard.press("Enter")
    else:
        hand.press(tokens.get_by_role("option").nth(1))
    page.locator(".token-detail").wait_for()
    page.locator(".inspector h2").wait_for()
    passage = page.get_by_role("region", name="On the sphere")
    hand.press(link(passage, "slice through three tokens"))
    page.get_by_text("exact slice", exact=True).wait_for()
    visit.settle()
    page.go_back()
    page.get_by_label("Text to read").wait_for()
    assert page.get_by_label("Text to read").input_value() == "the sea then the moon"
    assert button(page, "Distance", exact=True).get_attribute("aria-pressed") == "true"


def test_search(visit, hand, served):
    page = visit.go("#/d/fine/growth")
    field = page.get_by_role("combobox", name="Search the regions")
    hand.write(field, "moon")
    found = page.get_by_role("listbox", name="Regions found").get_by_role("option")
    found.first.wait_for()
    if isinstance(hand, Keyboard):
        page.keyboard.press("ArrowDown")
        page.keyboard.press("Enter")
    else:
        hand.press(found.first)
    page.get_by_role("heading", name="Members").wait_for()


STATES = {
    "#/d/fine/sphere?cam=0.1,0.3,-0.2,0.9,2&colour=member_count": [CAMERA, "COLOUR"],
    "#/d/fine/sphere?mode=slice&basis=r.3.11.20&colour=coherence": ["BASIS", "COLOUR", CAMERA],
    "#/d/fine/map?cam=0.4,0.6,3&_search=the": [CAMERA, "BRIGHT"],
    "#/d/fine/regions?member_count__gte=2&_sort=coherence&view=table": ["LIST"],
    "#/d/fine/steer?edits=3-cap-all-1.5_4-ablate-generated-1&tokens=9&seed=2": ["STEER"],
    "#/d/fine/growth?axes=linear&which=own": ["PRESSED"],
    "#/drift/fine/coarse?cutoff=0.8&kind=kept": ["DRIFT", "PRESSED"],
    "#/d/fine/text?q=the+sea&colour=distance": ["TEXT", "PRESSED"],
}
READ = {
    "COLOUR": "document.querySelector('.stage canvas').picture.colouring.column",
    "BASIS": "document.querySelector('select[aria-label=Through]').value",
    "BRIGHT": "[document.querySelector('.filter-field input').value,"
    " document.querySelector('.stage canvas').picture.filter?.length]",
    "LIST": "[document.querySelector('main h1').textContent,"
    " document.querySelector('tbody th').textContent]",
    "STEER": "[...document.querySelectorAll('.variants input, .variants select,"
    " .variants [aria-pressed=true], .composer input')].map((e) => e.value || e.textContent)",
    "PRESSED": "[...document.querySelectorAll('main [aria-pressed=true]')].map("
    "(e) => e.textContent)",
    "DRIFT": "[...document.querySelectorAll('.figure dd')].map((e) => e.textContent)",
    "TEXT": "[document.querySelector('textarea').value,"
    " document.querySelectorAll('.strip .tok').length > 0]",
}


def answered(page, address):
    """Wait for what the server is asked beside the page."""
    if "text" in address:
        page.locator(".strip .tok").first.wait_for()
    if "_search" in address:
        page.wait_for_function("() => document.querySelector('.stage canvas')?.picture?.filter")


def state_of(visit, keys):
    visit.settle()
    return [visit.page.evaluate(READ.get(key, key)) for key in keys]


def test_an_address_gives_the_same_state_again_and_so_does_going_back(visit):
    """What is seen by a link, by going back and forward, and by loading the address afresh."""
    page = visit.page
    seen = []
    for address, keys in STATES.items():
        visit.go(address)
        answered(page, address)
        seen.append(state_of(visit, keys))
    assert seen[0][0].startswith("0.")
    assert float(seen[0][0].split(",")[-1]) == 2
    assert seen[4][0][:1] != seen[5][0][:1]
    for (address, keys), before in zip(reversed(STATES.items()), reversed(seen), strict=True):
        page.wait_for_function("a => location.hash.startsWith(a)", arg=address.split("?")[0])
        answered(page, address)
        assert state_of(visit, keys) == before, f"{address} after going back"
        page.go_back()
    page.go_forward()
    for (address, keys), before in zip(STATES.items(), seen, strict=True):
        page.wait_for_function("a => location.hash.startsWith(a)", arg=address.split("?")[0])
        page.reload()
        page.wait_for_selector("main h1, main .picture", state="attached")
        answered(page, address)
        assert state_of(visit, keys) == before, f"{address} loaded afresh"
        page.go_forward()
