"""How long a person waits in the browser: explorer_pages.py FOLDER [RUNS].

Headless Chromium with software WebGL, a fresh profile each run, the server in this process. Beside
the latencies: a reference workload, timed in the same run, and the machine's load.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

import rows as results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from explorer_browser import WATCH, chromium, opened
from explorer_server import TOKEN, Served

RUNS = 5
TARGETS_MS = {
    "first figures": 1000, "first sphere pixels": 2000, "exact sphere": 4000, "orbit frame": 100,
    "exact frame": 600, "recolour": 150, "filter": 150, "hover card": 250,
    "search as you type": 150,
    "region list": 80, "region header": 250, "region sections": 1500, "exact slice": 1500,
    "route change": 200,
}  # fmt: skip
"""p95, on two cores with software WebGL."""

DRAWN = """() => { const p = document.querySelector("canvas")?.picture;
  return Boolean(p && p.fine && p.made === 0); }"""
EXACT = """() => { const p = document.querySelector("canvas")?.picture;
  return Boolean(p && p.fine && !p.frame && !p.moving
    && p.drawnLevel === p.scene.levels.length - 1); }"""
FRAMES = """async () => { const p = document.querySelector("canvas").picture, out = [];
  for (let i = 0; i < 12; i++) { p.scene.camera.drag(9, 3, p.view); p.moved();
    cancelAnimationFrame(p.frame); p.frame = 0;
    const t = performance.now(); p.render(); p.settle(); out.push(performance.now() - t); }
  return out.slice(4); }"""
STILL = """async () => { const p = document.querySelector("canvas").picture;
  clearTimeout(p.rest); p.moving = false; p.redraw(); cancelAnimationFrame(p.frame); p.frame = 0;
  const t = performance.now(); do { p.frame = 0; p.render(); cancelAnimationFrame(p.frame);
  } while (p.want.geometry); p.frame = 0; p.settle(); return performance.now() - t; }"""
RESTYLE = """async (what) => { const p = document.querySelector("canvas").picture;
  const { colouring } = await import("app/colour"); const k = p.scene.k;
  const values = Float32Array.from({ length: k }, (_, i) => Math.sin(i));
  const t = performance.now();
  if (what === "recolour") p.colourBy(colouring("coherence", values));
  else p.filterBy(Uint32Array.from({ length: k >> 1 }, (_, i) => 2 * i));
  cancelAnimationFrame(p.frame); p.frame = 0; p.render(); p.settle();
  p.filterBy(null); return performance.now() - t; }"""


def reference_s() -> float:
    """A matrix product that takes about 0.1 s on one idle core."""
    a = np.random.default_rng(0).standard_normal((1200, 1200)).astype(np.float32)
    begun = time.perf_counter()
    for _ in range(3):
        a @ a
    return time.perf_counter() - begun


def timed(act, ready) -> float:
    """Milliseconds from an act until something is there."""
    begun = time.perf_counter()
    act()
    ready()
    return 1000 * (time.perf_counter() - begun)


def run(browser, served, slug: str) -> dict[str, float]:
    """One person's visit, with a fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(120_000)
    found: dict[str, float] = {}
    origin = f"http://127.0.0.1:{served.port}"
    page.goto(f"{origin}/#t={TOKEN}")
    page.wait_for_selector("main h1")

    def to(route: str):
        return lambda: page.evaluate("route => { location.hash = route }", route)

    def there(script: str):
        return lambda: page.wait_for_function(script, polling=10)

    page.goto("about:blank")
    found["first figures"] = timed(
        lambda: page.goto(f"{origin}/#/d/{slug}/growth"), lambda: page.wait_for_selector("main h1")
    )
    sphere = f"#/d/{slug}/sphere"
    begun = time.perf_counter()
    to(sphere)()
    there(DRAWN)()
    found["first sphere pixels"] = 1000 * (time.perf_counter() - begun)
    there(EXACT)()
    found["exact sphere"] = 1000 * (time.perf_counter() - begun)
    found["orbit frame"] = float(np.percentile(page.evaluate(FRAMES), 95))
    found["exact frame"] = page.evaluate(STILL)
    found["recolour"] = page.evaluate(RESTYLE, "recolour")
    found["filter"] = page.evaluate(RESTYLE, "filter")
    page.wait_for_timeout(1000)
    box = page.locator("canvas").bounding_box()
    found["hover card"] = timed(
        lambda: page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2),
        lambda: page.wait_for_selector(".inspected:not(.stale)"),
    )
    found["exact slice"] = timed(
        to(f"#/d/{slug}/sphere?mode=slice"),
        there("() => document.querySelector('canvas')?.picture?.scene.kind === 'slice'"),
    )
    found["region list"] = timed(to(f"#/d/{slug}/regions"), lambda: page.wait_for_selector(".card"))
    page.keyboard.press("/")
    found["search as you type"] = timed(
        lambda: page.keyboard.type("ba"), lambda: page.wait_for_selector(".popup li")
    )
    page.keyboard.press("Escape")
    begun = time.perf_counter()
    to(f"#/d/{slug}/r/77")()
    page.wait_for_selector(".region-head h1")
    found["region header"] = 1000 * (time.perf_counter() - begun)
    page.wait_for_selector(".members li")
    there("() => !document.querySelector('.waiting')")()
    found["region sections"] = 1000 * (time.perf_counter() - begun)
    found["route change"] = timed(
        to("#/about"), lambda: page.wait_for_selector("h1:text-is('About')")
    )
    found["heap MB"] = page.evaluate("performance.memory.usedJSHeapSize / 1e6")
    context.close()
    return found


def main() -> None:
    folder = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    view = opened(folder)
    with Served({view.slug: view}) as served, chromium() as browser:
        reference = reference_s()
        visits = [run(browser, served, view.slug) for _ in range(runs)]
    p95 = {name: float(np.percentile([v[name] for v in visits], 95)) for name in visits[0]}
    results.write(
        "explorer",
        what="pages: how long a person waits in the browser",
        regions=view.dictionary.n_regions,
        width=view.dictionary.width,
        runs=runs,
        renderer="SwiftShader",
        load=os.getloadavg(),
        reference_s=reference,
        p95_ms={name: round(v, 1) for name, v in p95.items() if name != "heap MB"},
        heap_mb=round(p95["heap MB"], 1),
        targets_ms=TARGETS_MS,
        missed=[name for name, most in TARGETS_MS.items() if p95[name] > most],
    )


if __name__ == "__main__":
    main()
