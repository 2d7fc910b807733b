"""What changed between two dictionaries: as a sentence, tables, and a figure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from exemplars.analyses.changes import KINDS, Change
from exemplars.analyses.comparison import Comparison, RowAgreement, Side
from exemplars.analyses.correspondence import SPACES, Correspondence
from exemplars.figures import COLORS, QUIET, drawing
from exemplars.report.text import table, visible

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_IN = {
    SPACES[0]: "by direction, each in its own frame",
    SPACES[1]: "by direction, seen from A's center",
    SPACES[2]: "by shared rows",
}


def comparison_text(result: Comparison) -> str:
    """What changed, how sure that is, and the largest changes with their texts."""
    parts = [
        comparison_sentence(result),
        "\n".join(_side(name, side) for name, side in (("A", result.a), ("B", result.b))),
        _spaces_table(result),
        *([] if result.agreement is None else [_agreement_text(result.agreement)]),
        *([_texts_sentence(result)] if np.isfinite(result.text_overlap) else []),
        *([_changes_text(result.changes)] if result.changes else []),
        "\n".join(f"! {sentence}" for sentence in result.differences),
        "\n".join(_cannot_conclude(result)),
    ]
    return "\n\n".join(part for part in parts if part)


def comparison_sentence(result: Comparison) -> str:
    """The answer to "what changed between A and B?"."""
    found = result.decisive
    dropped, introduced = found.dropped, found.introduced
    ends = f"{dropped:,} were dropped, and {introduced:,} of B's {found.n_regions[1]:,} are new"
    if found.cutoff is None and _the_same(found):
        return (
            f"B is A, as far as can be told: each of A's {found.n_regions[0]:,} regions has a "
            f"partner in B that does not differ from it ({_IN[found.space]})."
        )
    if found.cutoff is None:
        return (
            f"Of A's {found.n_regions[0]:,} regions, {found.count('paired'):,} have a partner in B "
            f"that is better than chance ({_IN[found.space]}), {ends}; without a baseline of seed "
            "noise nothing says which of the partners moved."
        )
    unclear = found.count("unclear")
    said = f", {unclear:,} are too small to tell" if unclear else ""
    return (
        f"{_verdict(result)}: of A's {found.n_regions[0]:,} regions, "
        f"{found.count('persisted'):,} persisted, {found.count('moved'):,} moved{said}, {ends} "
        f"({_IN[found.space]})."
    )


def _verdict(result: Comparison) -> str:
    found = result.decisive
    noise = found.exceeded_of_noise
    assert noise is not None
    if found.beyond_noise:
        said = "B differs from A by more than seed noise"
    elif _the_same(found):
        said = "B is A, as far as can be told"
    else:
        said = "B does not differ from A by more than seed noise"
    return (
        f"{said} (of like pairs of random {_pairs_of(result)}, {found.exceeded:.0%} agree more "
        f"than A's and B's do; by noise alone {noise[0]:.0%} to {noise[2]:.0%})"
    )


def _the_same(found: Correspondence) -> bool:
    return found.drift < 1e-6 and not found.dropped and not found.introduced


def _pairs_of(result: Comparison) -> str:
    return "halves" if result.noise is None else result.noise.pairs_of


def _side(name: str, side: Side) -> str:
    where = " ".join(visible(part) for part in (side.model, side.site) if part)
    return (
        f"{name}: {where + ', ' if where else ''}{side.n_regions:,} regions from {side.rows:,} "
        f"rows, p = {side.percentile:g}, θ = {side.threshold:.4f}"
    )


def _spaces_table(result: Comparison) -> str:
    lines = []
    for space, found in result.correspondences.items():
        noise, exceeded = found.drift_of_noise, found.exceeded_of_noise
        lines.append(
            (
                f"{'→ ' if space == result.space else '  '}{space}",
                len(found.pairs),
                "F1" if space == SPACES[2] else "cosine",
                _number(found.score.mean() if len(found.score) else np.nan),
                _number(np.median(found.score) if len(found.score) else np.nan),
                "–" if noise is None else f"{1 - noise[2]:.3f} to {1 - noise[0]:.3f}",
                *(_draws(found.nulls.get(name)) for name in _null_names(result)),
                "–" if np.isnan(found.below_cutoff) else f"{found.below_cutoff:.1%}",
                "–" if np.isnan(found.exceeded) else f"{found.exceeded:.0%}",
                "–" if exceeded is None else f"{exceeded[0]:.0%} to {exceeded[2]:.0%}",
                found.method,
            )
        )
    header = (
        *("in", "pairs", "score", "mean", "median", f"mean of {_pairs_of(result)}"),
        *_null_names(result),
        *("below cutoff", f"{_pairs_of(result)} agree more", "by noise", "matched by"),
    )
    return table(header, lines)


def _null_names(result: Comparison) -> list[str]:
    every = [name for found in result.correspondences.values() for name in found.nulls]
    return list(dict.fromkeys(every))


def _agreement_text(found: RowAgreement) -> str:
    error = "" if np.isnan(found.nmi_error) else f" ± {found.nmi_error:.3f}"
    noise = ""
    if found.noise:
        low, high = np.quantile(found.noise, [0.025, 0.975])
        noise = f"; by seed noise {low:.3f} to {high:.3f}"
    same = ""
    if np.isfinite(found.same_partner):
        same = f" {found.same_partner:.0%} of the pairs by rows are pairs by direction too."
    tokens = _draws(found.nulls["permuted within tokens"])
    return (
        f"On {found.rows:,} shared rows the regions have normalised mutual information "
        f"{found.nmi:.3f}{error}{noise}; with rows permuted {_draws(found.nulls['permuted rows'])},"
        f" permuted among rows of one token {tokens} (what the tokens alone explain). The mean F1 "
        f"of partners is {found.mean_f1:.3f}.{same}"
    )


def _texts_sentence(result: Comparison) -> str:
    return (
        f"The kept contexts of partners have {result.text_overlap:.0%} of their distinct tokens in "
        f"common, those of random partners {result.text_overlap_null:.0%}."
    )


def _changes_text(changes: Iterable[Change]) -> str:
    blocks = []
    for change in sorted(changes, key=lambda c: KINDS.index(c.kind)):
        lines = [_change_line(change)]
        for name, texts in (("A", change.texts_a), ("B", change.texts_b)):
            lines += [f"  {name}  {visible(text)}" for text in texts]
        blocks.append("\n".join(lines))
    return "\n".join(blocks)


def _change_line(change: Change) -> str:
    said = []
    if change.region_a is not None:
        said.append(f"A's region {change.region_a} ({change.share_a:.2%} of A's rows)")
    if change.region_b is not None:
        said.append(f"B's region {change.region_b} ({change.share_b:.2%} of B's rows)")
    line = f"{change.kind}: {' → '.join(said)}"
    if np.isfinite(change.score):
        line += f", {change.score:.3f}"
    if np.isfinite(change.cutoff):
        line += f" (seed noise: {change.cutoff:.3f} or more)"
    if change.rows_with is not None:
        region, share = change.rows_with
        other = "A" if change.kind == "introduced" else "B"
        line += f"; {share:.0%} of its rows are in {other}'s region {region}"
    return line


def _cannot_conclude(result: Comparison) -> Iterator[str]:
    """What these numbers do not say."""
    if result.noise is None:
        yield (
            "Not concluded: whether a low cosine is a change. Dictionaries of the same model "
            "differ too; give --text or --activations for a baseline, or --baseline."
        )
    elif result.noise.pairs_of == "halves" and result.noise.rows < result.a.rows:
        yield (
            f"The baseline's halves have about {result.noise.rows // 2:,} rows each and A was "
            f"built from {result.a.rows:,}: its noise is that of dictionaries of fewer rows, "
            "compared share by share."
        )
    if result.agreement is None:
        yield (
            "Not concluded: whether the same tokens fall into corresponding regions; that needs "
            "--text or --activations."
        )
    if result.norm_span is not None and "one frame" in result.correspondences:
        low, high = sorted(result.norm_span)
        yield (
            "In one frame B's directions are moved with typical norms, as a dictionary does not "
            f"keep those of its exemplars; with small or large ones the mean cosine is {low:.3f} "
            f"or {high:.3f}."
        )
    if result.noise is not None and result.noise.pairs_of == "halves":
        yield (
            "Within seed noise is not unchanged: dictionaries of the same rows in the same order "
            "are nearer to each other than two orders are, and a model can change by less than "
            "another order changes its dictionary."
        )
        yield (
            f"Of pairs that did not change, {result.quantile:.0%} lie below the cutoff; a single "
            "region that moved or was dropped may be one of them."
        )


def comparison_figure(result: Comparison) -> Figure:
    """Scores of the pairs beside those of chance and of random halves; score against share.

    Raises:
        ImportError: matplotlib is not installed.
    """
    found = result.decisive
    with drawing(7.2, 3.2, columns=2) as (figure, (left, right)):
        _curve(left, found.score, label="partners", color=COLORS[0], linewidth=1.8)
        for number, (name, values) in enumerate(found.nulls.items()):
            style = (":", "--", "-.")[number % 3]
            left.axvline(float(np.mean(values)), color=QUIET, linestyle=style, label=name)
        if found.drift_of_noise is not None:
            low, _, high = found.drift_of_noise
            left.axvspan(
                1 - high, 1 - low, color=COLORS[2], alpha=0.4, label=f"random {_pairs_of(result)}"
            )
        name = "F1 of the rows" if result.space == SPACES[2] else "cosine"
        left.set_xlabel(f"{name} of partners ({result.space})")
        left.set_ylabel("share of pairs below")
        left.set_ylim(0, 1)
        left.legend(loc="upper left")
        _by_size(right, found)
        right.set_xlabel("share of the rows of the smaller region")
        right.set_ylabel(name)
    return figure


def _curve(axes: Any, scores: Any, **style: Any) -> None:
    values = np.sort(scores)
    axes.step(values, np.arange(1, len(values) + 1) / max(len(values), 1), where="post", **style)


def _by_size(axes: Any, found: Correspondence) -> None:
    status = found.status
    colors = {"persisted": QUIET, "paired": QUIET, "moved": COLORS[1], "apart": COLORS[4]}
    for name in dict.fromkeys(status.tolist()):
        mine = status == name
        color = colors.get(name, COLORS[5])
        axes.plot(found.share[mine], found.score[mine], ".", color=color, markersize=3, label=name)
    order = np.argsort(found.share, kind="stable")
    if found.cutoff is not None:
        axes.plot(found.share[order], found.cutoff[order], color=COLORS[2], label="cutoff")
    axes.plot(found.share[order], found.chance[order], color=QUIET, linestyle=":", label="chance")
    if len(found.share):
        axes.set_xscale("log")
        axes.legend(loc="lower right")


def _draws(values: tuple[float, ...] | None) -> str:
    if values is None:
        return "–"
    return f"{np.mean(values):.3f} ± {np.std(values):.3f}"


def _number(value: float) -> str:
    return "–" if np.isnan(value) else f"{value:.3f}"
