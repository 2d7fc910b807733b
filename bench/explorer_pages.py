"""How long a person waits in the browser: explorer_pages.py FOLDER [RUNS] [ROUTES].

Headless Chromium with software WebGL, a fresh profile each run, the server as `exemplars explore`
starts it. Beside the latencies: a reference workload, timed in the same run, and the machine's
load. A second row says what ROUTES changes of route (500) leave behind, and what an idle page does.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import rows as results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from explorer_browser import WATCH, chromium, opened

RUNS = 5
FACETS = ("member_count", "coherence", "mean_dist_theta", "token")
TARGETS_MS = {
    "first figures": 1000, "first sphere pixels": 2000, "exact sphere": 4000, "orbit frame": 100,
    "exact frame": 600, "recolour": 150, "filter": 150, "hover card": 250,
    "search as you type": 150, "search, all regions": 250, "list query": 80,
    "facets query": 120, "list page": 200,
    "region header": 250, "region sections": 1500, "exact slice": 1500, "route change": 200,
    "server ready": 3000,
}  # fmt: skip
"""p95, on two cores with software WebGL. The page of the list is a change of route; its query is
what the page asks the server for it, from the call to the answer as an object. "search, all
regions" types letters with which a word of nearly every region begins."""
ROUTES = 500
IDLE_S = 5
HEAP_MB, CONTEXTS = 20, 2
"""Growth of the heap over all changes of route, and contexts that a page makes, at most."""

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
  const kept = Uint32Array.from({ length: k >> 1 }, (_, i) => 2 * i);
  cancelAnimationFrame(p.frame); p.frame = 0; p.settle();
  const t = performance.now();
  if (what === "recolour") p.colourBy(colouring("coherence", values));
  else p.filterBy(kept);
  cancelAnimationFrame(p.frame); p.frame = 0; p.render(); p.settle();
  p.filterBy(null); return performance.now() - t; }"""
ASK = """async (paths) => { const { getJson } = await import("app/api"), out = [];
  for (const path of paths) {
    const t = performance.now(); await getJson(path); out.push(performance.now() - t); }
  return out; }"""
CONTEXT = """async (path) => { const { getJson } = await import("app/api");
  return (await getJson(path)).rows[0].context.text; }"""
THERE = "() => document.querySelector('main h1, main .picture') !== null"
COUNT = """window.__frames = 0; window.__contexts = 0;
const frame = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = (f) => { window.__frames++; return frame(f); };
const own = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...rest) {
  const known = this.__made; this.__made = true;
  if (!known && /^webgl/.test(kind)) window.__contexts++;
  return own.call(this, kind, ...rest); };
"""


@dataclass(frozen=True)
class Server:
    """One that runs, and the dictionary that it shows."""

    port: int
    token: str
    slug: str

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


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


def run(browser, server: Server) -> dict[str, float]:
    """One person's visit, with a fresh profile."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(WATCH)
    page = context.new_page()
    page.set_default_timeout(120_000)
    found: dict[str, float] = {}
    origin, slug = server.origin, server.slug
    page.goto(f"{origin}/#t={server.token}")
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
    there(EXACT)()  # the slice is drawn
    found["list page"] = timed(to(f"#/d/{slug}/regions"), lambda: page.wait_for_selector(".card"))
    page.wait_for_timeout(500)
    seen = page.evaluate(CONTEXT, f"/d/{slug}/regions?ids=77")
    word = max(seen.split(), key=len)[:3]
    for name, typed in (("search as you type", word), ("search, all regions", "ba")):
        page.keyboard.press("/")
        found[name] = timed(
            lambda typed=typed: page.keyboard.type(typed),
            lambda: page.wait_for_selector(".popup li"),
        )
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)
    base = f"/d/{slug}/regions?member_count__gte="
    facets = "&_size=1" + "".join(f"&_facet={name}" for name in FACETS)
    lists = [f"{base}{n}&_sort_desc=coherence&_size=48" for n in range(2, 22)]
    found["list query"] = float(np.percentile(page.evaluate(ASK, lists), 95))
    counts = [f"{base}{n}{facets}" for n in range(2, 22)]
    found["facets query"] = float(np.percentile(page.evaluate(ASK, counts), 95))
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


def leftovers(browser, server: Server, changes: int) -> dict[str, float]:
    """What changes of route leave: megabytes of the heap, WebGL contexts, frames when idle."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    context.add_init_script(COUNT)
    page = context.new_page()
    page.set_default_timeout(120_000)
    page.goto(f"{server.origin}/#t={server.token}")
    page.wait_for_selector("main h1")
    session = context.new_cdp_session(page)
    d = f"#/d/{server.slug}"
    routes = [d, f"{d}/sphere", f"{d}/regions", f"{d}/r/7", f"{d}/sphere?mode=slice", f"{d}/map",
              f"{d}/growth", "#/about"]  # fmt: skip

    def heap() -> float:
        session.send("HeapProfiler.collectGarbage")
        used = session.send("Runtime.getHeapUsage")
        return (used["usedSize"] + used.get("backingStorageSize", 0)) / 1e6

    def visit(number: int) -> None:
        page.evaluate("route => { location.hash = route }", routes[number % len(routes)])
        page.wait_for_function(THERE)  # a handle of an element would hold its page

    for number in range(3 * len(routes)):  # what is loaded once is there
        visit(number)
        page.wait_for_timeout(500)
    before = heap()
    for number in range(changes):
        visit(number)
    page.wait_for_timeout(3000)
    after = heap()
    visit(1)
    page.wait_for_function(EXACT, polling=100)
    page.wait_for_timeout(1000)
    frames = page.evaluate("window.__frames")
    page.wait_for_timeout(1000 * IDLE_S)
    found = {
        "heap_growth_mb": round(after - before, 1),
        "contexts": page.evaluate("window.__contexts"),
        "idle_frames": page.evaluate("window.__frames") - frames,
    }
    context.close()
    return found


@contextlib.contextmanager
def started(folder: Path) -> Iterator[Server]:
    """The command, until it is no longer needed."""
    command = [sys.executable, "-m", "exemplars", "explore", str(folder), "--no-model", "--no-open"]
    with subprocess.Popen(
        [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            said = ""
            while not (link := re.search(r"http://127\.0\.0\.1:(\d+)/#t=([\w-]+)", said)):
                line = process.stdout.readline()
                if not line:
                    raise RuntimeError(f"the explorer did not start: {said}")
                said += line
            yield Server(int(link[1]), link[2], folder.name)
        finally:
            process.terminate()


def ready_ms(folder: Path) -> float:
    """From the start of the command until the list is answered; what is prepared lies there."""
    begun = time.perf_counter()
    with started(folder) as server:
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
        connection.request(
            "GET",
            f"/api/v1/d/{server.slug}/regions?_sort_desc=member_count",
            headers={"Authorization": f"Bearer {server.token}"},
        )
        if connection.getresponse().status != 200:
            raise RuntimeError("the list was not answered")
        return 1000 * (time.perf_counter() - begun)


def main() -> None:
    folder = Path(sys.argv[1])
    runs = int(sys.argv[2]) if len(sys.argv) > 2 else RUNS
    view = opened(folder)
    ready = [ready_ms(folder) for _ in range(runs)]
    with started(folder) as server, chromium() as browser:
        reference = reference_s()
        visits = [run(browser, server) for _ in range(runs)]
        changes = int(sys.argv[3]) if len(sys.argv) > 3 else ROUTES
        left = leftovers(browser, server, changes) if changes else None
    for one, took in zip(visits, ready, strict=True):
        one["server ready"] = took
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
    if left is not None:
        results.write(
            "explorer",
            what="pages: what changes of route leave behind",
            regions=view.dictionary.n_regions,
            width=view.dictionary.width,
            changes=changes,
            idle_s=IDLE_S,
            **left,
            most={"heap_growth_mb": HEAP_MB, "contexts": CONTEXTS, "idle_frames": 0},
        )


if __name__ == "__main__":
    main()
