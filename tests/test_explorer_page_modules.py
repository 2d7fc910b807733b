"""Modules of the page by themselves, in the browser, beside NumPy and the library."""

import base64

import numpy as np
import pytest
from safetensors.numpy import save

from exemplars.explorer.assets import INSTALLED
from explorer_browser import chromium


@pytest.fixture(scope="module")
def page():
    """An empty page at an address of its own, whose modules are those of the package."""
    with chromium() as browser:
        page = browser.new_page()
        shell = INSTALLED.shell.replace("static/app/main.js", "static/none.js")

        def answer(route):
            path = route.request.url.split("explorer.test/", 1)[1]
            if path.startswith("static/") and (INSTALLED.folder / path[7:]).is_file():
                body = (INSTALLED.folder / path[7:]).read_text(encoding="utf-8")
                kind = "text/css" if path.endswith("css") else "text/javascript"
                route.fulfill(body=body, content_type=kind)
            elif path == "":
                route.fulfill(body=shell, content_type="text/html")
            else:
                route.fulfill(status=404)

        page.route("https://explorer.test/**", answer)
        page.goto("https://explorer.test/")
        yield page


def test_safetensors_are_read_as_they_were_written(page):
    rng = np.random.default_rng(0)
    written = {
        "f16": rng.standard_normal(37).astype(np.float16),
        "odd": np.array([0, -0.0, 6e-8, 65504, np.inf, -np.inf], np.float16),
        "f32": rng.standard_normal((3, 5)).astype(np.float32),
        "f64": rng.standard_normal(4),
        "u8": rng.integers(0, 256, 3, np.uint8),
        "u16": rng.integers(0, 2**16, 5, np.uint16),
        "u32": rng.integers(0, 2**32, 7, np.uint32),
        "i32": rng.integers(-(2**31), 2**31, 7, np.int32),
        "u64": rng.integers(0, 2**53, 2, np.uint64),
        "none": np.zeros(0, np.float32),
    }
    read = page.evaluate(
        """async (text) => { const { readSafetensors } = await import("app/safetensors");
        const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
        const { tensors, metadata } = readSafetensors(bytes.buffer);
        return [Object.fromEntries(Object.entries(tensors).map(([n, t]) => [n, [t.shape,
          [...t.data].map((v) => Number.isFinite(v) ? v : String(v))]])), metadata]; }""",
        base64.b64encode(save(written, metadata={"about": "{}"})).decode(),
    )
    assert read[1] == {"about": "{}"}
    for name, array in written.items():
        shape, values = read[0][name]
        assert shape == list(array.shape)
        assert np.array_equal(np.array([float(v) for v in values]), array.ravel().astype(float))


def test_a_damaged_file_is_refused(page):
    good = save({"a": np.zeros(8, np.float32)})
    for bad in (good[:-4], b"\xff" * 16, b""):
        message = page.evaluate(
            """async (text) => { const { readSafetensors } = await import("app/safetensors");
            try { readSafetensors(Uint8Array.from(atob(text), (c) => c.charCodeAt(0)).buffer); }
            catch (error) { return error.message; } return "read"; }""",
            base64.b64encode(bad).decode(),
        )
        assert message != "read"


def test_octahedral_codes_are_the_servers(page):
    from exemplars.explorer.sphere import from_octahedral

    rng = np.random.default_rng(1)
    most = 2**23 - 1
    codes = rng.integers(-most, most + 1, (500, 2)).astype(np.int32)
    codes[:4] = [[0, 0], [most, 0], [0, -most], [most, most]]
    found = page.evaluate(
        """async (codes) => { const { decodeOctahedral } = await import("app/scenes");
        return [...decodeOctahedral(Int32Array.from(codes))]; }""",
        codes.ravel().tolist(),
    )
    assert np.allclose(np.reshape(found, (-1, 3)), from_octahedral(codes), atol=1e-6)


def test_every_hidden_character_gets_a_glyph(page):
    hidden = [*range(0x20), *range(0x7F, 0xA1), 0xAD, 0x61C, *range(0x200B, 0x2010),
              *range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, 0xE0041]  # fmt: skip
    shown = page.evaluate(
        """async (codes) => { const { pieces, plain } = await import("app/text");
        return codes.map((c) => String.fromCodePoint(c)).map((c) => [pieces(c), plain(c)]); }""",
        hidden,
    )
    for code, (found, plain) in zip(hidden, shown, strict=True):
        assert len(found) == 1, hex(code)
        assert found[0]["code"] == f"U+{code:04X}"
        assert chr(code) not in plain
        assert plain.strip()


def test_visible_text_is_left_as_it_is(page):
    for text in ("naïve 🌊", "👩‍👩‍👧", "שלום", "<b>&amp;</b>", "日本語", "e\u0301"):
        assert (
            page.evaluate(
                """async (text) => { const { pieces } = await import("app/text");
            return pieces(text).map((p) => p.text).join(""); }""",
                text,
            )
            == text
        )


def test_tokens_of_one_character_are_one_cluster(page):
    text = "a東京 b"
    spans = [(0, 1), (1, 2), (1, 2), (1, 2), (2, 3), (2, 4), (4, 5)]
    rows = [{"i": i, "start": s, "end": e, "region": i} for i, (s, e) in enumerate(spans)]
    found = page.evaluate(
        """async (rows) => { const { clusters } = await import("app/tokens");
        return clusters(rows).map((c) => [c.start, c.end, c.rows.map((r) => r.i)]); }""",
        rows,
    )
    assert found == [[0, 1, [0]], [1, 2, [1, 2, 3]], [2, 4, [4, 5]], [4, 5, [6]]]
    assert "".join(text[s:e] for s, e, _ in found) == text


def test_lines_of_a_stream_cut_anywhere(page):
    sent = '{"a":"東"}\n\n{"b":2}\n{"c":3}'.encode()
    for size in (1, 2, 3, 7, 100):
        assert page.evaluate(
            """async ([bytes, size]) => { const { readLines } = await import("app/ndjson");
            const parts = []; for (let i = 0; i < bytes.length; i += size)
              parts.push(Uint8Array.from(bytes.slice(i, i + size)));
            const body = new ReadableStream({ start(c) { parts.forEach((p) => c.enqueue(p));
              c.close(); } });
            const out = []; for await (const line of readLines(body)) out.push(line);
            return out; }""",
            [list(sent), size],
        ) == [{"a": "東"}, {"b": 2}, {"c": 3}]


def test_routes_round_trip(page):
    for path, query in (
        (["d", "a/b ü", "r", "12"], {"x": "1&2", "_search": "#?%"}),
        ([], {}),
        (["d", "<img>"], {"member_count__gte": "5"}),
    ):
        assert page.evaluate(
            """async ([path, query]) => { const { href, parseHash } = await import("app/router");
            return parseHash(href(path, query)); }""",
            [path, query],
        ) == {"path": path, "query": query}


def test_ticks_are_round_and_inside(page):
    found = page.evaluate(
        """async () => { const { ticks } = await import("app/charts");
        return [[0, 1], [0, 971], [-3.2, 4.1], [0.0001, 0.0007], [5, 5]]
          .map(([a, b]) => ticks(a, b)); }"""
    )
    assert found[0] == [0, 0.2, 0.4, 0.6, 0.8, 1]
    assert found[1] == [0, 200, 400, 600, 800]
    assert all(-3.2 <= v <= 4.1 for v in found[2])
    assert found[4] == [5]


def test_lines_of_a_caption_are_broken_between_words(page):
    found = page.evaluate(
        """async () => { const { wrapped } = await import("app/figures");
        return wrapped(["one two three four five six seven", "x".repeat(50)], 150); }"""
    )
    assert [line["text"] for line in found] == [
        "one two three four", "five six seven", "x" * 22, "x" * 22, "x" * 6,
    ]  # fmt: skip
    assert [line["first"] for line in found] == [True, True, False, False, False]


def test_areas_round_trip_and_hold_what_lies_in_them(page):
    read = """async (text) => { const { readArea, writeArea } = await import("app/areas");
        const area = readArea(text); return area && [area, writeArea(area)]; }"""
    corners, text = page.evaluate(read, "10,20,60,90")
    assert corners == [[0.1, 0.2], [0.6, 0.2], [0.6, 0.9], [0.1, 0.9]]
    assert text == "10,20,60,90"
    corners, text = page.evaluate(read, "10,20,60,25,50,90")
    assert np.allclose(corners, [[0.1, 0.2], [0.6, 0.25], [0.5, 0.9]])
    assert text == "10,20,60,25,50,90"
    for bad in ("", "1,2,3", "1,2,3,x", "1,2,,4", "1,2,3,4,5", ",".join(["1"] * 500), "NaN,1,2,3"):
        assert page.evaluate(read, bad) is None
    xy = np.random.default_rng(0).integers(0, 65536, (500, 2)).astype(np.uint16)
    found = page.evaluate(
        """async ([xy, text]) => { const { readArea, within } = await import("app/areas");
        return [...within(Uint16Array.from(xy), readArea(text))]; }""",
        [xy.ravel().tolist(), "20,30,70,80"],
    )
    share = xy / 65535
    inside = (share >= [0.2, 0.3]).all(axis=1) & (share <= [0.7, 0.8]).all(axis=1)
    assert found == np.flatnonzero(inside).tolist()


def test_a_long_loop_is_thinned_to_sixty_corners(page):
    angle = np.linspace(0, 2 * np.pi, 700, endpoint=False)
    corners = np.stack([0.5 + 0.3 * np.cos(angle), 0.5 + 0.3 * np.sin(angle)], axis=1)
    found = page.evaluate(
        """async (corners) => { const { readArea, writeArea } = await import("app/areas");
        return readArea(writeArea(corners)); }""",
        corners.tolist(),
    )
    assert 50 <= len(found) <= 60
    assert np.allclose(np.hypot(*(np.array(found) - 0.5).T), 0.3, atol=1e-3)


def test_the_rim_of_the_map_is_where_the_edge_of_the_sphere_goes(page):
    from exemplars.explorer.sphere import unrolled

    height = np.linspace(-0.999, 0.999, 41)
    edge = np.stack([-np.sqrt(1 - height**2), np.full(41, 1e-9), height], axis=1)
    xy = unrolled(edge) / 65535
    found = page.evaluate(
        """async (ys) => { const { widthAt } = await import("app/map-scenes");
        return ys.map(widthAt); }""",
        xy[:, 1].tolist(),
    )
    assert np.allclose(found, 2 * xy[:, 0] - 1, atol=2e-3)


@pytest.mark.parametrize(
    "keys",
    [
        [], [7], [3, 3, 3], [0, 2**32 - 1, 5, 2**31, 5, 2**11, 2**22],
        np.random.default_rng(2).integers(0, 2**32, 3000).tolist(),
        np.random.default_rng(3).integers(0, 9, 3000).tolist(),
        np.abs(np.random.default_rng(4).standard_normal(3000, np.float32)).view(np.uint32).tolist(),
    ],
)  # fmt: skip
def test_orders_without_comparisons_are_those_of_a_stable_sort(page, keys):
    found = page.evaluate(
        """async (keys) => { const { falling } = await import("app/order");
        return [...falling(Uint32Array.from(keys))]; }""",
        keys,
    )
    assert found == sorted(range(len(keys)), key=lambda i: (-keys[i], i))


@pytest.mark.parametrize(
    "values",
    [
        [4.0], [2.0, 1.0], [1.0] * 50, list(range(300)), list(range(300, 0, -1)),
        np.random.default_rng(5).standard_normal(401).tolist(),
        np.random.default_rng(6).integers(0, 4, 401).tolist(),
    ],
)  # fmt: skip
def test_the_nth_number_is_that_of_the_sorted(page, values):
    found = page.evaluate(
        """async (values) => { const { nth } = await import("app/order");
        return values.map((_, i) => nth(Float64Array.from(values), i)); }""",
        values,
    )
    assert found == sorted(values)


def test_a_colouring_runs_between_percentiles_and_says_what_is_unknown(page):
    rng = np.random.default_rng(7)
    values = rng.standard_normal(1000).astype(np.float32)
    values[rng.integers(0, 1000, 30)] = np.nan
    found = page.evaluate(
        """async (values) => { const { colouring } = await import("app/colour");
        const of = colouring("coherence", Float32Array.from(values, (v) => v ?? NaN));
        return [of.lo, of.hi, of.unknown, [...of.steps]]; }""",
        [None if np.isnan(v) else float(v) for v in values],
    )
    known = np.sort(values[~np.isnan(values)].astype(np.float64))
    low, high = (known[int(np.floor(q * (len(known) - 1) + 0.5))] for q in (0.01, 0.99))
    assert found[:3] == [low, high, int(np.isnan(values).sum())]
    steps = np.floor((values.astype(np.float64) - low) / (high - low) * 254 + 0.5).clip(0, 254)
    assert found[3] == np.where(np.isnan(values), 255, steps).astype(int).tolist()
