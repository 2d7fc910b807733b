"""Chromium, as Debian packages it, on pages of a server in the test."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from exemplars.explorer import views
from exemplars.explorer.views import View
from explorer_server import TOKEN

CHROMIUM = Path("/usr/bin/chromium")
NEEDED = "the pages are tested in Debian's chromium: apt-get install chromium"
DRIVER = "the pages are tested with Playwright: pip install playwright"
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-quic",
    "--no-first-run",
    "--disable-smooth-scrolling",
]
"""Without the SwiftShader flag a newer Chromium gives no WebGL."""
WATCH = """
window.__violations = [];
addEventListener("securitypolicyviolation", (e) => window.__violations.push(
  `${e.violatedDirective} ${e.blockedURI} ${e.sample}`));
"""
FOLLOW = """
(route) => new Promise((followed) => {
  const before = location.hash;
  location.hash = route;
  if (location.hash === before) followed();
  else addEventListener("hashchange", () => followed(), { once: true });
})
"""
"""Until the page has followed the address, which the browser may put off on a busy machine."""
WIDE = {"width": 1280, "height": 800}


@contextlib.contextmanager
def chromium() -> Iterator[Any]:
    """The browser, or a skip that says what is missing."""
    api = pytest.importorskip("playwright.sync_api", reason=DRIVER)
    if not CHROMIUM.exists():
        pytest.skip(NEEDED)
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(CHROMIUM), args=ARGUMENTS)
        yield browser
        browser.close()


def opened(folder: Path, slug: str | None = None) -> View:
    """A dictionary that is ready to be shown."""
    view = View(folder, slug or folder.name, views.view_of(folder))
    view.prepare()
    return view


class Visit:
    """A person with a browser: what they see, and what the browser complained of."""

    def __init__(self, browser: Any, served: Any, **options: Any) -> None:
        options.setdefault("viewport", WIDE)
        self.origin = f"http://127.0.0.1:{served.port}"
        self.context = browser.new_context(**options)
        self.context.grant_permissions(["clipboard-read", "clipboard-write"])
        self.context.add_init_script(WATCH)
        self.requests: list[str] = []
        self.errors: list[str] = []
        self.page = self.context.new_page()
        self.page.set_default_timeout(60_000)
        self.page.on("request", lambda r: self.requests.append(r.url))
        self.page.on("pageerror", lambda e: self.errors.append(str(e)))
        self.page.on("dialog", lambda d: (self.errors.append(f"dialog {d.message}"), d.dismiss()))
        self.page.goto(f"{self.origin}/#t={TOKEN}")
        self.page.wait_for_selector("main h1")

    def anew(self) -> None:
        """As at the first visit, without loading the page again."""
        self.requests.clear()
        self.errors.clear()
        self.page.evaluate(
            """async () => { const s = await import("app/state");
            s.tray.value = []; s.shortcuts.value = true; s.select(null, null); s.hover(null, null);
            s.lastList.value = { d: null, ids: [] }; window.__violations = [];
            for (const open of document.querySelectorAll("dialog[open]")) open.close();
            location.hash = "#/"; }"""
        )
        self.page.wait_for_selector("main h1:text('dictionar')")
        self.page.mouse.move(2, 2)

    def go(self, route: str) -> Any:
        """Follow a route of the page, and wait until nothing is awaited."""
        self.page.evaluate(FOLLOW, route)
        self.page.wait_for_selector("main h1, main .picture", state="attached")
        self.settle()
        return self.page

    def settle(self) -> None:
        """Wait until nothing says that it is loading, and pictures are drawn."""
        # two frames: an address that has just changed is then followed
        self.page.evaluate(
            "() => new Promise((r) => requestAnimationFrame(() => requestAnimationFrame(r)))"
        )
        self.page.wait_for_function(
            """() => !document.querySelector(".waiting, .boot")
            && [...document.querySelectorAll(".unmade")].every(
              (e) => e.getBoundingClientRect().top > innerHeight)
            && [...document.querySelectorAll("canvas")].every((c) => !c.picture
              || (c.picture.times !== undefined && c.picture.fine && !c.picture.frame))"""
        )

    def check(self) -> None:
        """Nothing was refused, nothing failed, nothing was asked of elsewhere."""
        assert self.errors == []
        assert self.page.evaluate("window.__violations") == []
        assert self.page.evaluate("window.__pwn") is None
        foreign = [u for u in self.requests if not u.startswith((self.origin, "data:", "blob:"))]
        assert foreign == []

    def close(self) -> None:
        self.context.close()
