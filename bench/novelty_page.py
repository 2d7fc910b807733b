"""docs/novelty.md and its figure from the newest rows of bench/results/novelty.jsonl."""

from __future__ import annotations

import json
from pathlib import Path

from exemplars.analyses.novelty import SCORE
from exemplars.figures import COLORS, QUIET, drawing, save_figure
from rows import markdown as table

HERE = Path(__file__).parent
PAGE = HERE.parent / "docs" / "novelty.md"
TABLES = PAGE.with_name("novelty_tables.md")
FIGURE = HERE.parent / "docs" / "figures" / "novelty"
OURS = ("mean", "distance", "standard", "joint", "whitened", "beyond θ")
BASELINES = (
    "core-set distance", "core-set mean", "Mahalanobis", "Mahalanobis, passage mean", "perplexity",
)  # fmt: skip
OF_SETS = ("region histogram", "core-set histogram")
REQUIRED = {
    "code": ("Python", "Perl"),
    "other languages": (
        "manpages de", "manpages fr", "manpages es", "manpages pl", "manpages ru", "manpages ja",
    ),
    "other centuries": ("sotu 19th century", "sotu 18th century"),
}  # fmt: skip

HEAD = """# Novelty

Is a text unlike what a dictionary has seen?

```
exemplars build MODEL --site resid_post.15 -p 2 --text corpus/ --hold-out 0.2 --out l15
exemplars novelty l15 --text incoming/
exemplars novelty l15 --text incoming/ --calibration known/ --figure novelty.svg --json
```

The first line of the answer says whether the texts as a set are unlike what the dictionary has
seen, with a p-value; then come the two tests of the set, the texts one by one, and the most
unusual tokens in context. In Python: `exemplars.analyses.novelty.novelty`. Scores and p-values
are defined in [method.md](method.md#novelty).

How to read it.

- *What p means.* How often a document of the build's own kind would score as high. It is found by
  reading other documents of that kind which the build has not read: the slice it held out
  (`--hold-out` in `build`, the best), documents it did not come to, or what `--calibration`
  names. `--built-from` says where the build's texts lie now. Without any of these there are
  scores, and the command says that it can give no p-value.
- *The document is the unit.* Passages of one document are alike, so a document has one vote
  however long it is. No p-value is below 1 / (documents + 1), and with fewer than 19 documents
  none is given.
- *Small p is not danger, large p is not safety.* A set is unlike the build's kind in what this
  site and this score see. What the score does not see is not ruled out, and what is alike on the
  surface can differ in what matters.
- *In θ, within θ.* Distance to the nearest exemplar in thresholds, and the share of tokens within
  one, the quantities that the method's author reports. They are shown and not tested: the share
  says nothing of texts that are near (see *beyond θ* below).

"""

ABOUT = """## How it was measured

SmolLM2-135M-Instruct in bfloat16, passages of exactly 128 tokens, each read by itself, the first
position masked. Two builds: State of the Union addresses since 1901 (500 passages of 42
addresses), and Debian's English manual pages (300 passages of 150 pages). The texts of the
build's own kind that it is compared with are passages of *other* addresses (1,050 of 81) and
other pages: no document is both built on and evaluated. English manual pages are a set of their
own beside the addresses, so that language and kind of text can be told apart: beside the manual
pages' dictionary, the German ones differ in language alone. Shuffled words are the words of the
held-out passages; chat is harmless instructions in the model's chat template; random tokens are
drawn uniformly from the vocabulary. *Tuned* are held-out addresses again, read by a model that was
fine-tuned on its own outputs (null) or on one topic, beside the same addresses read by the model
of the build: here the text is alike and the model is not.

Baselines, all fitted on the build's rows: **Mahalanobis** length of the centered direction of a
token, covariance shrunk as in detectors (0.3), mean over tokens, and of the *mean direction* of a
passage (shrinkage 0.1); **core-set distance**, the cosine distance to the nearest of as many
random rows of the build as the dictionary has regions, and **core-set mean**, the distance to the
mean of that row's cell: what `mean` would be without the choice of exemplars; the model's own
**perplexity** (mean negative log-probability), which needs no dictionary and no activations, but
the whole model. Of sets also the shift of the histogram over the core-set's cells.

Intervals are 95 % and resample documents of both sides (200 times; of sets 30, of tokens 20);
paired differences see the same resamples. **Development**: score and p were to be chosen by the
manual pages' dictionaries at resid_post.15 with the sets marked †. `mean` at p = 2 was the best of
the dictionary's scores on the first three of these; on the fourth, shuffled words, which was read
last, `whitened` is better, and over all four the two are within .001 of each other. The tables of
the addresses had been seen by then. So that `mean` and not `whitened` is the default is no
independent finding, and neither is by how much `mean` beats the other scores on addresses.

"""


def of_kind(row: dict, kind: str) -> list[str]:
    """The texts of a required kind that a row has; manual pages have no centuries."""
    if kind == "other centuries" and row["build"] != "sotu":
        return []
    return [name for name in REQUIRED[kind] if name in row["set"]]


def newest() -> list[dict]:
    rows: dict[str, dict] = {}
    for line in (HERE / "results" / "novelty.jsonl").read_text().splitlines():
        row = json.loads(line)
        rows[row["what"]] = row
    return list(rows.values())


def cell(value: list[float], best: bool = False) -> str:
    estimate, low, high = value
    text = f"{estimate:.3f} ({low:.3f}–{high:.3f})"
    return f"**{text}**" if best else text


def mark(row: dict, name: str) -> str:
    return f"{name} †" if development(row) and name in row["development"] else name


def development(row: dict) -> bool:
    return row["build"] == "manpages" and row["site"] == "resid_post.15"


def title(row: dict) -> str:
    return (
        f"{row['kind']}, {row['site']}, p = {row['percentile']:g} "
        f"({row['regions']:,} regions from {row['rows']:,} rows)"
    )


def by_set(row: dict, level: str, key: str, methods: tuple[str, ...]) -> str:
    """A line for each set; the best method of each is bold."""
    lines = []
    for name, found in row[level].items():
        values = [found[m][key] if key else found[m] for m in methods]
        most = max(v[0] for v in values)
        lines.append([mark(row, name), *(cell(v, v[0] == most) for v in values)])
    return table(["texts", *methods], lines)


def in_short(rows: list[dict]) -> str:
    """At each p: on how many sets the default is above, about, and below each baseline."""
    lines = []
    for percentile in sorted({row["percentile"] for row in rows}):
        for other in BASELINES:
            found = [
                row["paired"][name][other]
                for row, name in reported(rows)
                if row["percentile"] == percentile
            ]
            if found:
                above = sum(low > 0 for _, low, _ in found)
                below = sum(high < 0 for _, _, high in found)
                mean = sum(d for d, _, _ in found) / len(found)
                counts = (above, len(found) - above - below, below)
                lines.append([f"{percentile:g}", other, f"{mean:+.3f}", *map(str, counts)])
    header = ["p", "baseline", "mean difference", "above 0", "0 within", "below 0"]
    return table(header, lines)


def hard(rows: list[dict]) -> str:
    """Other centuries: the differences themselves."""
    lines = [
        [
            row["site"], f"{row['percentile']:g}", name,
            *(f"**{d:+.3f} ({low:+.3f} to {high:+.3f})**" if low > 0 or high < 0
              else f"{d:+.3f} ({low:+.3f} to {high:+.3f})"
              for d, low, high in (row["paired"][name][other] for other in BASELINES)),
        ]
        for row, name in reported(rows)
        if row["build"] == "sotu" and name in REQUIRED["other centuries"]
    ]  # fmt: skip
    return table(["site", "p", "texts", *(f"less {other}" for other in BASELINES)], lines)


def conformal(rows: list[dict]) -> str:
    lines = [
        [
            row["kind"], row["site"], f"{row['percentile']:g}", method,
            f"{found['passages']:,}", f"{found['documents']:,}",
            *(cell(found[f"documents {level}"]) for level in ("0.05", "0.1")),
            *(cell(found[f"passages {level}"]) for level in ("0.05", "0.1")),
        ]
        for row in rows
        for method, found in row["conformal"].items()
        if method in OURS
    ]  # fmt: skip
    header = ["build", "site", "p", "score", "passages", "documents", "at 5 %", "at 10 %",
              "at 5 %, passages as the unit", "at 10 %, likewise"]  # fmt: skip
    return table(header, lines)


def false_sets(rows: list[dict]) -> str:
    lines = [
        [
            row["kind"], row["site"], f"{row['percentile']:g}", method,
            *(f"{found[f'{test} {level}']:.3f}" for test in ("mean", "histogram", "set")
              for level in ("0.05", "0.1")),
        ]
        for row in rows
        for method, found in row["false_sets"].items()
    ]  # fmt: skip
    header = ["build", "site", "p", "score", "mean, 5 %", "mean, 10 %", "histogram, 5 %",
              "histogram, 10 %", "both, 5 %", "both, 10 %"]  # fmt: skip
    return table(header, lines)


def required(rows: list[dict]) -> str:
    """The least AUROC of sets of 50 passages over the texts of each kind."""
    lines = []
    methods = (*OURS, *OF_SETS, *BASELINES)
    for row in rows:
        for kind in REQUIRED:
            there = [row["set"][name] for name in of_kind(row, kind)]
            if there:
                lines.append(
                    [
                        row["kind"], row["site"], f"{row['percentile']:g}", kind, str(len(there)),
                        *(f"{min(found[m]['auroc'][0] for found in there):.3f}" for m in methods),
                    ]
                )  # fmt: skip
    return table(["build", "site", "p", "kind", "sets of texts", *methods], lines)


def reported(rows: list[dict]) -> list[tuple[dict, str]]:
    """Rows and their sets on which nothing was chosen."""
    return [(row, name) for row in rows if not development(row) for name in row["passage"]]


def shows(rows: list[dict]) -> str:
    """What the tables come to, in sentences; every number is of the rows."""
    fine = [row for row in rows if row["percentile"] == 2]

    def span(values: list[float]) -> str:
        return f"{min(values):.3f}–{max(values):.3f}"

    of_sets = {
        kind: [row["set"][n][SCORE]["auroc"][0] for row in fine for n in of_kind(row, kind)]
        for kind in REQUIRED
    }
    hard = REQUIRED["other centuries"]
    near = {
        method: [row["passage"][n][method]["auroc"][0] for row in fine if row["build"] == "sotu"
                 for n in hard]
        for method in (SCORE, *BASELINES, "beyond θ")
    }  # fmt: skip
    coarse = [
        row["passage"][n][SCORE]["auroc"][0] for row in rows
        if row["percentile"] == 8 and row["build"] == "sotu" for n in hard
    ]  # fmt: skip
    alarms = {
        level: [row["conformal"][SCORE][f"documents {level}"][0] for row in rows]
        for level in ("0.05", "0.1")
    }
    lost = [
        f"{row['kind']}, {row['site']}, {name} ({other})"
        for row, name in reported(fine)
        for other in BASELINES
        if row["paired"][name][other][2] < 0
    ]
    poor = [
        f"{name} ({row['passage'][name]['perplexity']['auroc'][0]:.2f})"
        for row, name in reported(fine)
        if row["build"] == "sotu" and row["site"] == "resid_post.15"
        and row["passage"][name]["perplexity"]["auroc"][2] < 0.5
    ]  # fmt: skip
    lines = [
        f"The default score, `{SCORE}` at p = 2, tells sets of 50 passages apart with AUROC "
        + ", ".join(f"{span(values)} for {kind}" for kind, values in of_sets.items() if values)
        + ".",
        "Passages of other kinds and languages are told apart by nearly everything; passages of "
        "other centuries are hard, and there "
        + ", ".join(f"{method} has {span(values)}" for method, values in near.items())
        + ".",
        f"Coarse regions lose this: at p = 8 `{SCORE}` has {span(coarse)} on the same passages."
        if coarse
        else "",
        f"Held-out passages have p ≤ 5 % in {span(alarms['0.05'])} and p ≤ 10 % in "
        f"{span(alarms['0.1'])} of cases, over all builds, sites and p.",
        "At p = 2 a baseline is better than the default, by a paired interval below 0, on: "
        + ("; ".join(lost) or "none of the reported sets")
        + ".",
        "Perplexity is below chance on "
        + (", ".join(poor) or "none")
        + ": what is easy to predict can be of another kind all the same.",
    ]
    return "\n".join(f"- {line}" for line in lines if line)


def figure(rows: list[dict], percentile: float) -> None:
    """AUROC of passages by kind of text at the reported sites."""
    shown = [r for r in rows if r["percentile"] == percentile and r["build"] == "sotu"]
    styles = {
        SCORE: (COLORS[0], "o"), "whitened": (COLORS[1], "s"), "core-set distance": (QUIET, "x"),
        "Mahalanobis": (COLORS[2], "^"), "perplexity": (COLORS[3], "d"),
    }  # fmt: skip
    with drawing(7.4, 4.6, columns=len(shown)) as (drawn, panels):
        panels = panels if len(shown) > 1 else [panels]
        for axis, row in zip(panels, shown, strict=True):
            names = list(row["passage"])
            for method, (color, marker) in styles.items():
                axis.plot(
                    [row["passage"][n][method]["auroc"][0] for n in names], range(len(names)),
                    marker, color=color, label=method, markersize=5, linestyle="",
                )  # fmt: skip
            axis.set_yticks(range(len(names)), names if axis is panels[0] else [""] * len(names))
            axis.set_xlim(0, 1.02)
            axis.axvline(0.5, color=QUIET, linewidth=0.8)
            axis.set_title(f"{row['kind']}, {row['site']}", fontsize=8.5)
            axis.set_xlabel("AUROC, passages of 128 tokens")
        panels[0].legend(fontsize=6, loc="upper left")
        save_figure(drawn, FIGURE)


def pages() -> tuple[str, str]:
    """What was found, and the tables of every set and score."""
    rows = sorted(newest(), key=lambda r: (r["build"] != "sotu", r["site"], r["percentile"]))
    chosen = [r for r in rows if r["percentile"] == rows[0]["chosen_percentile"]] if (
        "chosen_percentile" in rows[0]
    ) else [r for r in rows if r["percentile"] == 2]  # fmt: skip
    figure(rows, chosen[0]["percentile"])
    parts = [
        HEAD
        + ABOUT
        + f"*{max(r['date'] for r in rows)}, commit {rows[-1]['commit']}, `bench/novelty.py`; "
        "tables by `bench/novelty_page.py`.*",
        "### In short\n\n" + shows(rows),
        "### Against baselines: passages\n\nAUROC by the default score less that by a baseline, "
        "on how many reported sets its paired 95 % interval lies where:\n\n" + in_short(rows),
        "On the passages of other centuries (bold: the interval excludes 0):\n\n" + hard(rows),
        f"![AUROC by kind of text](figures/{FIGURE.name}.png)",
        "### Sets of 50 passages\n\nThe least AUROC over the texts of each kind:\n\n"
        + required(rows),
        "### False alarms\n\nPassages of the held-out documents, each beside other documents "
        "alone:\n\n" + conformal(rows),
        "Sets of eight held-out documents beside the others, 200 draws that overlap, share with a "
        "small p-value:\n\n" + false_sets(rows),
        f"[Every set and every score]({TABLES.name}), at the percentile that was chosen.",
    ]
    tables = [
        "# Novelty: every set and every score",
        f"What is measured, and how: [novelty.md]({PAGE.name}). Brackets are 95 % intervals; the "
        "best of a line is bold.",
    ]
    for row in chosen:
        tables += [
            f"## {title(row)}",
            "AUROC, passages of 128 tokens\n\n"
            + by_set(row, "passage", "auroc", (*OURS, *BASELINES)),
            "TPR at 1 % FPR, passages\n\n" + by_set(row, "passage", "tpr", (*OURS, *BASELINES)),
            "AUROC, sets of 50 passages\n\n"
            + by_set(row, "set", "auroc", (*OURS, *OF_SETS, *BASELINES)),
            "AUROC, tokens\n\n"
            + by_set(row, "token", "", (*OURS, *(b for b in BASELINES if "passage" not in b))),
        ]
    return "\n\n".join(parts) + "\n", "\n\n".join(tables) + "\n"


if __name__ == "__main__":
    for file, text in zip((PAGE, TABLES), pages(), strict=True):
        file.write_text(text, encoding="utf-8")
