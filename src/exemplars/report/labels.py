"""Labels of regions as text."""

from __future__ import annotations

import math
from collections.abc import Sequence

from exemplars.labels import Accuracy, Detection, Label, together
from exemplars.report.text import table, visible


def labels_text(labels: Sequence[Label]) -> str:
    """A line for each label, its scores and its null; then what all of them did together."""
    header = ("region", "members", "label", "vs random", "vs neighbours", "null", "unanswered")
    rows = []
    for label in labels:
        score = label.score
        cells = ["–"] * 4
        if score is not None:
            cells = [
                accuracy_text(score.own.against_random),
                accuracy_text(score.own.against_neighbours),
                "–" if score.null is None else _both(score.null),
                f"{score.own.unanswered}",
            ]
        rows.append((label.region, label.members, label.text or "(failed)", *cells))
    parts = [table(header, rows)]
    notes: dict[str, list[str]] = {}
    for label in labels:
        if label.note:
            notes.setdefault(visible(label.note), []).append(str(label.region))
    parts += [f"{_regions(numbers)}: {note}" for note, numbers in notes.items()]
    scores = [label.score for label in labels if label.score is not None]
    if scores:
        own = together(score.own for score in scores)
        null = together(score.null for score in scores if score.null is not None)
        judges = ", ".join(dict.fromkeys(visible(score.judge) for score in scores))
        parts.append(
            f"balanced accuracy of detection by {judges}, all scored regions together: "
            f"{accuracy_text(own.against_random)} against random contexts, "
            f"{accuracy_text(own.against_neighbours)} against neighbouring regions; "
            f"with another region's label (the null): {accuracy_text(null.against_random)} and "
            f"{accuracy_text(null.against_neighbours)}; 0.5 is chance"
        )
    return "\n\n".join(parts)


def label_text(label: Label) -> str:
    """One label on one line, with its score and who wrote it."""
    score = label.score
    who = f"{visible(label.labeller)}, {visible(label.host)}, {label.date[:10]}"
    if score is None:
        return f"{visible(label.text)} ({who}; {visible(label.note)})"
    null = "" if score.null is None else f"; null {_both(score.null)}"
    return (
        f"{visible(label.text)} ({who}; detection {accuracy_text(score.own.against_random)} "
        f"against random, {accuracy_text(score.own.against_neighbours)} against neighbours{null})"
    )


def accuracy_text(accuracy: Accuracy) -> str:
    """A balanced accuracy and its 95% interval; a dash where nothing was answered."""
    if math.isnan(accuracy.value):
        return "–"
    return f"{accuracy.value:.2f} [{accuracy.low:.2f}, {accuracy.high:.2f}]"


def _both(null: Detection) -> str:
    values = (null.against_random.value, null.against_neighbours.value)
    return " / ".join("–" if math.isnan(value) else f"{value:.2f}" for value in values)


def _regions(numbers: Sequence[str]) -> str:
    shown = ", ".join(numbers[:12]) + (", …" if len(numbers) > 12 else "")
    return f"region{'s' if len(numbers) > 1 else ''} {shown}"
