"""Regions and traces as notebooks show them: whatever a document holds stays text."""

from html.parser import HTMLParser

import numpy as np
import pytest

from exemplars.characters import visible
from exemplars.notebook import COLOURS, token_strip
from exemplars.tracing import Trace
from synthetic import HOSTILE, synthetic

ALLOWED = {"div", "b", "span", "sup", "table", "tr", "td", "tbody"}
ATTRIBUTES = {"style", "title", "dir", "translate"}


class Seen(HTMLParser):
    """Elements, attributes and texts of some HTML."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.attributes, self.texts = [], [], []
        self.open = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.elements.append(tag)
        self.attributes += attrs
        self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)

    def handle_comment(self, data):
        raise AssertionError("a comment")

    def handle_decl(self, decl):
        raise AssertionError("a declaration")


def check_inert(html):
    seen = Seen(html)
    assert set(seen.elements) <= ALLOWED
    assert {name for name, _ in seen.attributes} <= ATTRIBUTES
    for name, value in seen.attributes:
        assert "url(" not in value
        assert name != "title" or all(c.isalnum() or c in " ,.θ–-" for c in value)
    return seen


def traced(tokens, regions, ratio):
    text = "".join(tokens)
    ends = np.cumsum([len(t) for t in tokens])
    n = np.arange(len(tokens))
    return Trace(
        document=0, name=HOSTILE[0], text=text, token=n, position=n,
        start=ends - [len(t) for t in tokens], end=ends, region=np.array(regions),
        distance=np.array(ratio, np.float32) / 2,
        threshold=0.5, norm_outlier=np.zeros(len(tokens), bool),
    )  # fmt: skip


def test_a_region_of_hostile_texts_is_inert():
    made = synthetic(len(HOSTILE), 6, hostile=True)
    for k in range(len(made)):
        seen = check_inert(made.region(k)._repr_html_())
        shown = "".join(seen.texts)
        assert f"region {k} of resid_post.1" in shown
        assert visible(HOSTILE[3 * k % len(HOSTILE)]) in shown


def test_a_trace_of_hostile_tokens_is_inert():
    n = len(HOSTILE)
    found = traced(HOSTILE, [k % 5 for k in range(n)], [0.5] * n)
    seen = check_inert(found._repr_html_())
    for text in HOSTILE:
        assert visible(text) in "".join(seen.texts)


def test_a_strip_says_region_by_letter_and_distance_by_line():
    html = token_strip("t", ["a", "b", "c", "d"], np.array([7, 7, 9, -1]),
                       np.array([0.5, 0.95, 1.2, np.nan], np.float32))  # fmt: skip
    spans = html.split("<span ")
    a, b, c, d = (next(s for s in spans if f">{token}" in s) for token in "abcd")
    assert "underline" not in a
    assert "dotted" in b
    assert "double" in c
    assert "underline" not in d
    assert "<sup>A</sup>" in a
    assert "<sup>B</sup>" in c
    assert COLOURS[0] in a
    assert COLOURS[1] in c
    assert "no region" in d
    assert "4 tokens, 1 outside" in html


def test_more_regions_than_colours_leave_the_rest_plain():
    n = 20
    html = token_strip("t", ["x"] * n, np.arange(n), np.full(n, 0.1, np.float32))
    assert html.count("<sup>") == len(COLOURS)


def test_a_region_without_contexts_still_has_its_numbers():
    made = synthetic(4, 6, contexts=0)
    seen = check_inert(made.region(1)._repr_html_())
    assert "members" in "".join(seen.texts)


@pytest.mark.parametrize("text", ["", " ", "\n", "a\u202eb"])
def test_texts_that_show_nothing_are_shown(text):
    html = token_strip("", [text], np.array([0]), np.array([0.1], np.float32))
    assert visible(text) in "".join(Seen(html).texts)
