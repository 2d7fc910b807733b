"""Regions and traced texts as HTML for notebooks.

Texts are escaped, and their control characters made visible: whatever a document holds, it stays
text. There is no script, no address and no style but those written here.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from html import escape

import numpy as np

from exemplars.characters import visible
from exemplars.contexts import Context
from exemplars.geometry import Float32, Int64

COLOURS = (
    "#e69f00", "#56b4e9", "#009e73", "#f0e442", "#0072b2", "#d55e00", "#cc79a7", "#999999",
)  # fmt: skip
"""Okabe and Ito's, which most people with a colour vision deficiency tell apart."""
NEAR = 0.9
"""Distance in θ up to which a token counts as well inside its region."""
_MEMBERS = 6
_BEFORE, _AFTER = 60, 40
_MARK = "background:rgba(240,190,60,.45);border-radius:2px"
_TEXT = 'style="unicode-bidi:isolate;white-space:pre-wrap" dir="auto" translate="no"'
_SMALL = "opacity:.7;font-size:90%"


def region_card(
    title: str, facts: Sequence[tuple[str, str]], contexts: Sequence[Context], threshold: float
) -> str:
    """A region: what it is in numbers, its exemplar in context, and its nearest members.

    Args:
        title: One line.
        facts: Names and values, each a few words.
        contexts: Of the region.
        threshold: θ.
    """
    numbers = " · ".join(f"{escape(name)} {escape(value)}" for name, value in facts)
    founder = [c for c in contexts if c.exemplar]
    nearest = [c for c in contexts if c.nearest_rank >= 0 and not c.exemplar]
    nearest = sorted(nearest, key=lambda c: c.nearest_rank)[:_MEMBERS]
    lines = "".join(
        f'<tr><td style="text-align:right;{_SMALL}">{_number(c.distance / threshold)} θ</td>'
        f'<td style="text-align:left">{_in_context(c)}</td></tr>'
        for c in (*founder, *nearest)
    )
    table = f'<table style="margin-top:.4em">{lines}</table>' if lines else ""
    return f'<div><b>{escape(visible(title))}</b><div style="{_SMALL}">{numbers}</div>{table}</div>'


def token_strip(
    name: str, tokens: Sequence[str], regions: Int64, distances_in_thresholds: Float32
) -> str:
    """A text, token by token: background and letter say the region, the underline the distance.

    The eight regions that most tokens lie in have colours. No line: within 0.9 θ; dotted: within
    θ; double: outside every region.

    Args:
        name: Of the text.
        tokens: (n,) texts.
        regions: (n,) -1 for none.
        distances_in_thresholds: (n,) NaN for none.
    """
    counted = Counter(int(k) for k in regions if k >= 0)
    common = [k for k, _ in counted.most_common(len(COLOURS))]
    letter = {k: chr(ord("A") + i) for i, k in enumerate(common)}
    shown = "".join(
        _token(text, int(k), float(ratio), letter)
        for text, k, ratio in zip(tokens, regions, distances_in_thresholds, strict=True)
    )
    legend = " · ".join(
        f'<span style="background:{COLOURS[i]}66">{letter[k]}</span> region {k} ({counted[k]})'
        for i, k in enumerate(common)
    )
    outside = int((np.asarray(distances_in_thresholds) > 1).sum())
    said = f"{len(tokens)} tokens, {outside} outside every region (double underline)"
    return (
        f'<div><b>{escape(visible(name))}</b> <span style="{_SMALL}">{said}</span>'
        f'<div style="line-height:2">{shown}</div><div style="{_SMALL}">{legend}</div></div>'
    )


def _token(text: str, region: int, ratio: float, letter: dict[int, str]) -> str:
    style = "unicode-bidi:isolate;white-space:pre-wrap;"
    if region in letter:
        style += f"background:{COLOURS[ord(letter[region]) - ord('A')]}66;"
    if ratio > 1:
        style += "text-decoration:underline double;"
    elif ratio > NEAR:
        style += "text-decoration:underline dotted;"
    where = f"region {region}, {_number(ratio)} θ" if region >= 0 else "no region"
    mark = f"<sup>{letter[region]}</sup>" if region in letter else ""
    return (
        f'<span style="{style}" title="{where}" dir="auto" translate="no">'
        f"{escape(visible(text))}{mark}</span>"
    )


def _in_context(context: Context) -> str:
    before, after = visible(context.before)[-_BEFORE:], visible(context.after)[:_AFTER]
    if not (before or context.text or after):
        return f"row {context.row}"
    return (
        f"<span {_TEXT}>{escape(before)}</span>"
        f'<span {_TEXT}><span style="{_MARK}">{escape(visible(context.text))}</span></span>'
        f"<span {_TEXT}>{escape(after)}</span>"
    )


def _number(value: float) -> str:
    return f"{value:.2f}" if np.isfinite(value) else "–"
