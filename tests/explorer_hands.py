"""Two ways to use a page: with a mouse, and with the keyboard alone."""

from __future__ import annotations

import time
from typing import Any

PATIENCE_S, SCROLLED_S = 60, 10
MOST = 150
"""Tab stops on the way from one thing to another, at most."""
STOP = """(to) => { const here = document.activeElement;
  const way = here === to ? 0 : here === document.body
    || here.compareDocumentPosition(to) & Node.DOCUMENT_POSITION_FOLLOWING ? 1 : -1;
  if (here === document.body || here.tabIndex < 0) return [way, "", here.tagName];
  const name = here.getAttribute("aria-label") ?? here.labels?.[0]?.textContent
    ?? here.textContent.slice(0, 40), said = `${here.tagName} ${name}`;
  const style = getComputedStyle(here), box = here.getBoundingClientRect();
  const ring = style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  if (here.matches(":focus-visible") && !ring) return [way, `${said} shows no focus`, said];
  const x = Math.max(0, Math.min(innerWidth - 1, box.left + box.width / 2));
  const y = Math.max(0, Math.min(innerHeight - 1, box.top + Math.min(box.height, innerHeight) / 2));
  const top = document.elementFromPoint(x, y);
  const shown = box.width > 0 && top && (here.contains(top) || top.contains(here));
  return [way, shown ? "" : `${said} is hidden while it has the focus`, said]; }"""


class Mouse:
    """Clicks, drags, and the wheel; letters are typed where a click has put the caret."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def find(self, what: Any) -> Any:
        """Scroll down until it is there: sections are made when they come near."""
        until = time.monotonic() + PATIENCE_S
        while not what.count() and time.monotonic() < until:
            self.page.mouse.move(2, 2)
            self.page.mouse.wheel(0, 200)
            self.page.wait_for_timeout(30)
        return what

    def press(self, what: Any) -> None:
        self.find(what).click()

    def write(self, field: Any, text: str) -> None:
        self.find(field).click()
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)

    def choose(self, select: Any, value: str) -> None:
        select.select_option(value)

    def slide(self, slider: Any) -> None:
        """To a tenth before the end."""
        box = slider.bounding_box()
        slider.click(position={"x": 0.9 * box["width"], "y": box["height"] / 2})


class Keyboard:
    """Tab, arrows, Enter and letters. On the way every stop must be seen to have the focus."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def find(self, what: Any) -> None:
        """Tab on until it is there: sections are made when they come near."""
        until = time.monotonic() + PATIENCE_S
        while not what.count() and time.monotonic() < until:
            self.page.keyboard.press("Tab")
            self.page.wait_for_timeout(30)

    def reach(self, what: Any) -> None:
        self.find(what)
        trail = []
        for stop in range(MOST):
            way, problem, here = what.evaluate(STOP)
            until = time.monotonic() + SCROLLED_S
            while stop and problem and time.monotonic() < until:  # the page may still scroll there
                self.page.wait_for_timeout(100)
                way, problem, here = what.evaluate(STOP)
            trail.append(here)
            assert not (stop and problem), problem  # before the first Tab the page may be scrolled
            if way == 0:
                return
            self.page.keyboard.press("Tab" if way > 0 else "Shift+Tab")
        raise AssertionError(f"no Tab leads to {what}; it went by {trail[-8:]}")

    def press(self, what: Any) -> None:
        for _ in range(3):  # what is drawn anew on the way loses the focus
            self.reach(what)
            if what.evaluate("(e) => e === document.activeElement"):
                break
        box = what.evaluate("(e) => e.type === 'checkbox'")
        self.page.keyboard.press("Space" if box else "Enter")

    def write(self, field: Any, text: str) -> None:
        self.reach(field)
        self.page.keyboard.press("ControlOrMeta+A")
        self.page.keyboard.type(text)

    def choose(self, select: Any, value: str) -> None:
        self.reach(select)
        steps = select.evaluate(
            "(e, value) => [...e.options].findIndex((o) => o.value === value) - e.selectedIndex",
            value,
        )
        for _ in range(abs(steps)):
            self.page.keyboard.press("ArrowDown" if steps > 0 else "ArrowUp")

    def slide(self, slider: Any) -> None:
        """Some steps towards the end."""
        self.reach(slider)
        for _ in range(12):
            self.page.keyboard.press("ArrowRight")


HANDS = [Mouse, Keyboard]
