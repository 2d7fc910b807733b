"""Text from documents and models, made safe to show: nothing in it moves or hides anything."""

from __future__ import annotations

import unicodedata

_VISIBLE = {"\n": "⏎", "\r": "␍", "\t": "⇥"}


def visible(text: str) -> str:
    """Text on one line: control characters as signs, direction-changing ones as a dot."""
    shown = []
    for character in text:
        category = unicodedata.category(character)
        if character in _VISIBLE:
            shown.append(_VISIBLE[character])
        elif category == "Cc":
            shown.append(chr(0x2400 + ord(character)) if ord(character) < 32 else "␡")
        elif category in ("Cf", "Zl", "Zp") and character != "\u200d":
            shown.append("·")
        elif category == "Cs":
            shown.append("\ufffd")
        else:
            shown.append(character)
    return "".join(shown)
