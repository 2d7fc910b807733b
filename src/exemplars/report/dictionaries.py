"""Dictionaries, regions, traces, plans and diagnoses as text."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.report.labels import label_text
from exemplars.report.text import cell, duration, size, table, visible

if TYPE_CHECKING:
    from exemplars.building import BuildPlan
    from exemplars.contexts import Context
    from exemplars.diagnosis import Diagnosis
    from exemplars.dictionary import Dictionary
    from exemplars.labels import Label
    from exemplars.nearest import Audit
    from exemplars.tracing import Trace


def provenance(dictionary: Dictionary, key: str) -> Mapping[str, Any]:
    """What a dictionary says of its "site", its "model", ...; empty where it says nothing."""
    found = dictionary.provenance.get(key)
    return found if isinstance(found, Mapping) else {}


def audit_text(audit: Audit) -> str:
    """What an audit compared; it would have raised at the first wrong answer."""
    text = f"audit: {audit.pairs:,} pairs compared, none nearer than what was found"
    if audit.bounded:
        text += (
            f"; {audit.bounded:,} bounds, none too low (by {audit.smallest_slack:.2g} at the least)"
        )
    return text


def plan_text(plan: BuildPlan, whole_text: bool = False) -> str:
    """A build's plan, before it starts; without a budget, `whole_text`, for its calibration."""
    n = len(plan.sites) * len(plan.percentiles)
    percentiles = ", ".join(f"{p:g}" for p in plan.percentiles)
    rows = "all of the text" if whole_text else f"{plan.rows:,}"
    time = (
        f"about {duration(plan.forward_s)} of forward passes at {plan.rows_per_s:,.0f} rows/s, "
        f"clustering on top{' (for the calibration rows alone)' if whole_text else ''}"
    )
    if not plan.rows_per_s > 0:
        time = "not known: the first documents have no rows"
    return "\n".join(
        [
            f"sites        {visible(', '.join(plan.sites))}",
            f"percentiles  {percentiles}  ({n} {'dictionary' if n == 1 else 'dictionaries'})",
            f"rows         {rows}, the first {plan.calibration_rows:,} of them read first "
            "for calibration",
            f"time         {time}",
            f"memory       {size(plan.window_bytes)} of activations, and {size(plan.region_bytes)} "
            "for each region, beside the model",
            f"disk         {size(plan.working_disk_bytes)} while building; at most "
            f"{size(plan.region_disk_bytes)} for each region afterwards",
        ]
    )


def dictionary_summary(dictionary: Dictionary) -> dict[str, Any]:
    """What a dictionary is and its intrinsic metrics, as plain values."""
    return {
        "site": provenance(dictionary, "site").get("name"),
        "model": provenance(dictionary, "model").get("name"),
        "regions": dictionary.n_regions,
        "rows": dictionary.rows,
        "width": dictionary.width,
        "percentile": dictionary.percentile,
        "threshold": dictionary.threshold,
        "membership": dictionary.membership,
        "complete": dictionary.provenance.get("complete", True),
        "dropped": dict(dictionary.dropped),
        "center_norm": float(np.linalg.norm(dictionary.center)),
        "metrics": dictionary.metrics(),
        "census": None if dictionary.census is None else dictionary.metrics("census"),
    }


def dictionaries_text(dictionaries: Iterable[Dictionary]) -> str:
    """A line for each dictionary."""
    header = (
        "site", "p", "θ", "rows", "regions", "single", "in ≥2", "median size", "coherence",
        "separation",
    )  # fmt: skip
    rows = []
    for d in dictionaries:
        metrics = d.metrics()
        many = d.counts >= 2
        rows.append(
            (
                provenance(d, "site").get("name", "–"),
                f"{d.percentile:g}",
                f"{d.threshold:.4f}",
                d.rows,
                d.n_regions,
                int(metrics["singletons"]),
                f"{metrics['coverage']:.1%}",
                f"{metrics.get('median_size', math.nan):.0f}",
                f"{float(np.median(d.coherence[many])) if many.any() else math.nan:.3f}",
                f"{metrics.get('separation_ratio', math.nan):.3f}",
            )
        )
    return table(header, rows)


def metrics_text(dictionary: Dictionary) -> str:
    """The intrinsic metrics, those of the build and, if there was one, of the census."""
    build = dictionary.metrics()
    if dictionary.census is None:
        return table(("metric", "value"), build.items())
    census = dictionary.metrics("census")
    rows = [(name, value, census.get(name, math.nan)) for name, value in build.items()]
    return table(("metric", "while streaming", "census"), rows)


def dictionary_text(
    dictionary: Dictionary,
    lens: Any = None,
    n: int = 20,
    labels: Mapping[int, Label] | None = None,
    stability: Any = None,
) -> str:
    """A dictionary on a page: what it is, its metrics, its n largest regions."""
    parts = [dictionaries_text([dictionary])]
    if dictionary.provenance.get("complete", True) is False:
        parts.append("The build was interrupted: this is what it had found.")
    regions = regions_text(dictionary, lens, n, labels, stability)
    return "\n\n".join([*parts, metrics_text(dictionary), regions])


def demo_text(
    found: Mapping[tuple[str, float], Dictionary],
    lenses: Mapping[tuple[str, float], Any],
    key: tuple[str, float],
    out: Path,
    folder: Path,
) -> str:
    """What the demo found, one coherent region of one dictionary, and what to do next."""
    dictionary, lens = found[key], lenses[key]
    region = int((dictionary.coherence * (dictionary.counts >= 8)).argmax())
    return "\n".join(
        [
            dictionaries_text(found.values()),
            "",
            f"largest regions of {key[0]} at p = {key[1]:g}",
            regions_text(dictionary, lens, 10),
            "",
            card_text(dictionary, region, lens),
            "",
            f"The dictionaries are in {out}. Look at another region:",
            f"  exemplars show {folder} 5",
            "or see which regions a text passes through:",
            f'  exemplars assign {folder} "My fellow citizens" --examples 3',
        ]
    )


def regions_text(
    dictionary: Dictionary,
    lens: Any = None,
    n: int = 12,
    labels: Mapping[int, Label] | None = None,
    stability: Any = None,
) -> str:
    """The largest regions: members, coherence, how well other orders find them, label, what they
    read as, exemplar in context.
    """
    order = np.argsort(-dictionary.counts, kind="stable")[:n]
    rows = []
    for k in order:
        region = dictionary.region(int(k))
        founder = next((c for c in region.contexts if c.exemplar), None)
        reads = _reads_as(lens, int(k), "exemplar_promoted", 4)
        label = labels.get(int(k)) if labels else None
        rows.append(
            (
                region.index,
                region.count,
                f"{region.coherence:.3f}",
                *(
                    (_number(stability["mean_cosine"][int(k)].as_py()),)
                    if stability is not None
                    else ()
                ),
                *((label.text[:60] if label else "",) if labels else ()),
                *((reads,) if lens is not None else ()),
                _excerpt(founder, 28, 12) if founder else "",
            )
        )
    header = ["region", "members", "coherence", *(["found again"] if stability is not None else [])]
    header += ["label"] if labels else []
    header += ["reads as"] if lens is not None else []
    return table([*header, "exemplar in context"], rows)


def card(
    dictionary: Dictionary,
    region: int,
    lens: Any = None,
    n_contexts: int = 8,
    labels: Mapping[int, Label] | None = None,
    stability: Any = None,
) -> dict[str, Any]:
    """Everything about one region, as plain values."""
    found = dictionary.region(region)
    near, distances = dictionary.neighbours(found.index, 5)
    by_rank = sorted(
        (c for c in found.contexts if c.nearest_rank >= 0), key=lambda c: c.nearest_rank
    )
    far = sorted((c for c in found.contexts if c.farthest_rank >= 0), key=lambda c: c.farthest_rank)
    lists = ("exemplar_promoted", "exemplar_suppressed", "mean_promoted", "mean_suppressed")
    return {
        "region": found.index,
        "members": found.count,
        "coherence": found.coherence,
        "mean_distance": found.mean_distance,
        "threshold": found.threshold,
        "exemplar_row": found.exemplar_row,
        "label": (labels or {}).get(found.index),
        "stability": None
        if stability is None
        else {
            name: stability[name][found.index].as_py()
            for name in ("mean_cosine", "exemplar_cosine", "found", "others")
        },
        "exemplar": next((c for c in found.contexts if c.exemplar), None),
        "nearest": [c for c in by_rank if not c.exemplar][:n_contexts],
        "farthest": [c for c in far if not c.exemplar][:n_contexts],
        "lens": None if lens is None else {name: lens[name][found.index].as_py() for name in lists},
        "neighbours": [
            {"region": int(k), "distance": float(d)} for k, d in zip(near, distances, strict=True)
        ],
    }


def card_text(
    dictionary: Dictionary,
    region: int,
    lens: Any = None,
    n_contexts: int = 8,
    labels: Mapping[int, Label] | None = None,
    stability: Any = None,
) -> str:
    """One region's card: exemplar in context, members, lens, neighbours."""
    about = card(dictionary, region, lens, n_contexts, labels, stability)
    theta = about["threshold"]
    lines = [
        f"region {about['region']} of {dictionary.n_regions:,}: {about['members']:,} members, "
        f"coherence {about['coherence']:.3f}, mean distance {about['mean_distance'] / theta:.2f} θ "
        f"(θ = {theta:.4f})"
    ]
    if about["stability"] is not None:
        lines.append(_stability_line(about["stability"]))
    if about["label"] is not None:
        lines += ["", f"label: {label_text(about['label'])}"]
    founder: Context | None = about["exemplar"]
    if founder is not None and founder.document >= 0:
        lines += [
            "",
            f"exemplar: document {founder.document} ({visible(founder.name)}), position "
            f"{founder.position}, token {founder.token}, row {founder.row}",
            f"  {_excerpt(founder, 96, 48)}",
        ]
    elif founder is not None:
        lines += ["", f"exemplar: row {founder.row}"]
    for title, key in (("nearest members", "nearest"), ("farthest members", "farthest")):
        if about[key]:
            lines += ["", title]
            lines += [
                f"  {context.distance / theta:4.2f} θ  {_excerpt(context, 60, 24)}"
                for context in about[key]
            ]
    if about["lens"] is not None:
        lines += ["", "reads as (final norm and unembedding)"]
        for name, tokens in about["lens"].items():
            if tokens:
                shown = "  ".join(f"‹{visible(token)}›" for token in tokens)
                lines.append(f"  {name.replace('_', ', '):<20} {shown}")
    if about["neighbours"]:
        lines += ["", "neighbours"]
        for near in about["neighbours"]:
            other = next(
                (c for c in dictionary.region(near["region"]).contexts if c.exemplar), None
            )
            shown = _excerpt(other, 40, 16) if other else ""
            lines.append(f"  {near['region']:>6}  {near['distance'] / theta:4.2f} θ  {shown}")
    return "\n".join(lines)


def trace_text(traces: Sequence[Trace], dictionary: Dictionary, examples: int = 0) -> str:
    """Per token: the region, the distance in θ, and on request the region's contexts."""
    parts = []
    for found in traces:
        rows = []
        for k, text in enumerate(found.tokens()):
            region = int(found.region[k])
            ratio = float(found.distance_in_thresholds[k])
            note = "norm outlier" if found.norm_outlier[k] else "outside θ" if ratio > 1 else ""
            rows.append((int(found.position[k]), f"‹{text}›", region, f"{ratio:.2f}", note))
        title = visible(found.name) or f"document {found.document}"
        parts.append(f"{title}\n{table(('position', 'token', 'region', 'distance/θ', ''), rows)}")
        if examples:
            for region in dict.fromkeys(r for r in found.region.tolist() if r >= 0):
                members = dictionary.region(region)
                nearest = sorted(
                    (c for c in members.contexts if c.nearest_rank >= 0),
                    key=lambda c: c.nearest_rank,
                )[:examples]
                shown = "\n".join(f"    {_excerpt(c, 60, 24)}" for c in nearest)
                parts.append(f"  region {region} ({members.count:,} members)\n{shown}")
    return "\n\n".join(parts)


def diagnosis_text(diagnosis: Diagnosis) -> str:
    """A line for each check, and the memory plan."""
    marks = {"ok": "✓", "warning": "!", "failed": "✗"}
    lines = [f"{marks[c.status]} {c.name}: {visible(c.found)}" for c in diagnosis.checks]
    plan = dataclasses.asdict(diagnosis.plan)
    lines += ["", "memory plan"]
    lines += [
        f"  {name.replace('_bytes', '').replace('_', ' '):<24} "
        f"{size(value) if name.endswith('_bytes') else cell(value)}"
        for name, value in plan.items()
    ]
    return "\n".join(lines)


def _stability_line(found: Mapping[str, Any]) -> str:
    if found["mean_cosine"] is None:
        return f"found again in none of {found['others']} other orders of the stream"
    times = round(found["found"] * found["others"])
    return (
        f"found again in {times} of {found['others']} other orders of the stream: cosine of the "
        f"means {_number(found['mean_cosine'])}, of the exemplars "
        f"{_number(found['exemplar_cosine'])}"
    )


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _excerpt(context: Context | None, before: int, after: int) -> str:
    if context is None or context.document < 0:
        return "" if context is None else f"row {context.row}"
    left, right = visible(context.before)[-before:], visible(context.after)[:after]
    return f"{left}»{visible(context.text)}«{right}"


def _reads_as(lens: Any, region: int, column: str, n: int) -> str:
    if lens is None:
        return ""
    return " ".join(f"‹{visible(token)}›" for token in lens[column][region].as_py()[:n])
