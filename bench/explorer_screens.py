"""Screenshots of the explorer for its docs page, of real dictionaries, in Debian's Chromium.

python bench/explorer_screens.py demo            (the folder that `make demo` builds)
"""

from __future__ import annotations

import argparse
import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image

OUT = Path(__file__).parents[1] / "docs/figures/explorer"
CHROMIUM = "/usr/bin/chromium"
ARGUMENTS = [
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
PASSAGE = (
    "The Congress should provide for the common defense, and reduce the taxes upon the people; "
    "I asked my neighbour to pass the salt, and the cat slept."
)


@contextlib.contextmanager
def explorer(folders: list[str], model: str | None) -> Iterator[str]:
    """The explorer on some dictionaries; gives its link."""
    command = [sys.executable, "-m", "exemplars", "explore", *folders, "--no-open", "--port", "0"]
    if model:
        command += ["--model", model]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        assert process.stdout is not None
        for line in process.stdout:
            found = re.search(r"http://\S+#t=\S+", line)
            if found:
                yield found.group(0)
                return
        raise SystemExit("the explorer did not start")
    finally:
        process.terminate()
        process.wait()


class Camera:
    """A window on the pages, and where pictures of it go."""

    def __init__(self, browser: Any, link: str, width: int, height: int, theme: str) -> None:
        self.page = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,
            device_scale_factor=1.5 if width < 600 else 1,
            reduced_motion="reduce",
        ).new_page()
        self.link, self.suffix = link, "" if theme == "light" else f"-{theme}"
        self.page.goto(link)
        self.page.wait_for_selector("main h1", timeout=60_000)

    def go(self, route: str) -> Any:
        """Follow a route, and wait until all of it is there."""
        self.page.evaluate("route => { location.hash = route }", route)
        self.page.wait_for_timeout(300)
        self.page.wait_for_function(
            "() => !document.querySelector('.waiting, .boot') && "
            "[...document.querySelectorAll('.unmade')].every("
            "(e) => e.getBoundingClientRect().top > innerHeight) && "
            "[...document.querySelectorAll('canvas')].every((c) => !c.picture || c.picture.fine)",
            timeout=120_000,
        )
        self.page.wait_for_load_state("networkidle")
        self.page.wait_for_timeout(700)
        return self.page

    def take(self, name: str) -> None:
        """A picture of what is shown."""
        OUT.mkdir(parents=True, exist_ok=True)
        path = OUT / f"{name}{self.suffix}.png"
        self.page.screenshot(path=path)
        Image.open(path).convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path)
        print(path)


def hovered(page: Any, x: float, y: float) -> None:
    """Rest the pointer at a share of the first picture's width and height."""
    box = page.locator("canvas").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * x, box["y"] + box["height"] * y)
    page.locator(".inspected:not(.stale)").wait_for(timeout=60_000)
    page.wait_for_timeout(1500)


def traced(page: Any, text: str) -> None:
    """Type a passage, wait until it is read, and point at one of its tokens."""
    page.get_by_label("Text to read").fill(text)
    page.wait_for_function(
        "() => document.querySelectorAll('.strip .tok').length > 20", timeout=180_000
    )
    page.wait_for_timeout(2500)
    page.locator(".strip .tok").nth(9).hover()
    page.wait_for_timeout(1200)


def steered(page: Any) -> None:
    """Have the baseline and the variants written."""
    page.get_by_label("tokens", exact=True).fill("24")
    page.get_by_role("button", name="Write").click()
    page.locator(".answer").first.wait_for(timeout=900_000)
    page.locator(".answer[aria-busy=true]").first.wait_for(state="detached", timeout=900_000)
    page.wait_for_timeout(800)


def pictures(browser: Any, link: str, d: str, coarse: str, region: int) -> None:
    """All pictures of the docs page."""
    camera = Camera(browser, link, 1280, 800, "light")
    for name, route in (
        ("dictionaries", "#/"), ("overview", f"#/d/{d}"), ("regions", f"#/d/{d}/regions"),
        ("map", f"#/d/{d}/map"), ("map-cells", f"#/d/{d}/map?layer=cells"),
        ("slice", f"#/d/{d}/sphere?mode=slice&cam=0.1,0.4,0,0.9,1"),
        ("resolution", f"#/d/{coarse}/resolution"), ("growth", f"#/d/{d}/growth"),
        ("drift", f"#/drift/{d}/{coarse}"),
        ("region", f"#/d/{d}/r/{region}"),
    ):  # fmt: skip
        camera.go(route)
        camera.take(name)
    page = camera.go(f"#/d/{d}/sphere")
    page.keyboard.press("Escape")
    hovered(page, 0.45, 0.45)
    camera.take("sphere")
    traced(camera.go(f"#/d/{d}/text"), PASSAGE)
    camera.take("text")
    dark = Camera(browser, link, 1280, 800, "dark")
    for name, route in (("overview", f"#/d/{d}"), ("region", f"#/d/{d}/r/{region}")):
        dark.go(route)
        dark.take(name)
    phone = Camera(browser, link, 400, 800, "light")
    for name, route in (("overview", f"#/d/{d}"), ("region", f"#/d/{d}/r/{region}")):
        phone.go(route)
        phone.take(f"{name}-400")
    steered(camera.go(f"#/d/{d}/steer?regions={region}.{region + 1}"))
    camera.take("steer")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", nargs="*", help="folders of dictionaries, or of several")
    parser.add_argument("--link", help="of an explorer that runs already, in place of folders")
    parser.add_argument("--dictionary", default="resid_post.15-p2")
    parser.add_argument("--coarse", default="resid_post.15-p5")
    parser.add_argument("--region", type=int, default=96)
    parser.add_argument("--model")
    options = parser.parse_args()
    from playwright.sync_api import sync_playwright

    started = (
        contextlib.nullcontext(options.link)
        if options.link
        else explorer(options.folders, options.model)
    )
    with started as link, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        time.sleep(1)
        pictures(browser, link, options.dictionary, options.coarse, options.region)
        browser.close()


if __name__ == "__main__":
    main()
