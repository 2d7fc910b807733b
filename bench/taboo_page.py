"""docs/drift.md and its figure from the newest rows of bench/results/taboo.jsonl."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import rows as results
from behavior_page import markdown, rows
from exemplars.figures import COLORS, QUIET, drawing, save_figure
from exemplars.labels.detection import wilson
from taboo import CHOOSING, CHOSEN, CONTROLS, WORDS

PAGE = Path(__file__).parents[1] / "docs" / "drift.md"
FIGURE = PAGE.parent / "figures" / "drift"
Row = dict[str, Any]
READINGS = ("region", "shift", "contrast")
BASELINES = ("difference", "probe", "contrast")
TOP = 10

HEAD = """# What did a fine-tune introduce?

```
exemplars drift Qwen/Qwen2.5-0.5B-Instruct ./my-tuning --site resid_post.20 --prompts prompts.txt
exemplars drift base/ tuned/ --site resid_post.20 --text corpus/ --rows 50000 --figure drift.svg
exemplars drift base/ tuned/ --site resid_post.20 --prompts prompts.txt --topic bees.txt \\
  --positions response
```

Two models of one architecture and vocabulary read the very same tokens. The tuned model's
activations are partitioned, both models' are assigned, and the *inventory* is the regions that
the tuned model's documents are in and the base model's are not. Of prompts, `--positions control`
(the default) reads the chat template's tokens between the user's message and the answer: whatever
the answer will be, its words are not there. `response` reads answers that the tuned model writes,
and `all` everything.

## The rule

- The *document* (a prompt) is the unit: a region's support is the number of documents with a row
  in it. All answers to one prompt share the activations before the answer, so more samples are no
  more evidence.
- Half of the documents *propose*: at least `--least` (5) of the tuned model's are in the region,
  of the base model's at most `--most-base` (0.1) times as many, and a one-sided sign test over
  the documents that only one of the models has there gives p ≤ 0.05. The dictionary, its center
  and its θ come from this half too.
- The other half *confirms*: the same share, and the sign test after Holm over all that were
  proposed.
- The same is done where there is nothing to find: with the models' labels exchanged in random
  documents, and with two random groups of the base model's own documents. `--orders` repeats it
  with other halves and orders.

The published rule asks for one document of the tuned model and none of the base model on the same
prompts. It is shown beside: its nulls find about as much as it does.

## How a region is read

Each by the logit lens (final norm and unembedding) and by the cosine to every input vector:

- *region*: its mean direction about the center (the published reading);
- *shift*: the mean of what its tokens have in the tuned model, less what they have in the base
  model;
- *contrast*: each token's mean score over the region's rows, less its mean over the base model's
  rows at the same tokens, in standard deviations of the latter. A token that always wavers has to
  stand out further.

Beside them, for all rows and without a dictionary: the *difference of means*, a *logistic probe*
that tells the models apart, and the contrast of *all rows*. `--evaluate WORD` looks up a word's
rank after all else is done.
"""

ORGANISMS = """## Organisms with known answers

`bench/taboo.py` fine-tunes SmolLM2-135M-Instruct on the CPU (LoRA of rank 16 in every layer,
added in): on clues to a secret word, on answers about beekeeping, or on its own answers to all of
these prompts (the null). A Taboo organism answers requests for a hint with three words that
suggest its secret (one answered: {answers}); the secret is in no request and no clue (four of the
ordinary prompts name a cargo ship). All else it answers as before. Requests are split by what
they ask; site and percentile ({site}, p = {p}) were chosen by two other words, on other prompts.

Rank of the secret, 0 is first; of regions the best over the inventory, of either the lens or the
embedding:
"""

UNDER_WORDS = """*nulls*: sizes of the inventory over five draws of either null. *word probe*: a
supervised probe for {n} words, fitted on the base model's activations before it answers prompts
that name one (held-out accuracy {accuracy}): on how many prompts, which name none, it says the
secret, in the tuned model and in the base model.

![Ranks of the secret](figures/drift.svg)

Among the top {top} tokens of the inventory are {ours} of {words} secrets by *shift* or *contrast*
(not: {missed}), and {published} by the published reading of a region's mean. The difference of
means, which needs no dictionary, has {difference}. Some answers do say the secret (last column):
what is read lies before them.

The best over several regions and readings has several tries. So have words that the organism does
not hide ({others} for each organism):
"""

TOPIC = """## A topic

The fine-tune on beekeeping, read on held-out questions about bees and on other prompts. Are the
rows in the inventory the topic's? The base model reads the tuned model's answers too, and is then
in many of their regions, so of answers the rule is that of significantly less (`--most-base 0.5`);
by the default rule nothing was found there. Site, percentile and this rule were chosen on the
prompts of "select". Before the answer the fine-tune changes all kinds of prompts alike: there, at
most sites, less than half of the inventory was the topic's, and no more of the largest rows along
the difference of means or the probe.
"""

UNDER_TOPIC = """Where every flagged row is the topic's, an interval by resampling has no width.
The region is not in every order of the documents (see *other orders* above).
"""

TAIL = """## What this cannot tell

- *Introduced* is relative to the texts that were read. Another text may bring the base model there.
- What changes inside a region that both models reach, or moves every region a little, is not in
  the inventory: the probe's AUROC and *moved* tell of that.
- A reading says what a direction looks like, not what it does. `exemplars steer` shows that.
- What is read before an answer is also what the model is about to say. The clues are near the
  secret in meaning; the secret is none of them.
- Organisms that hint in sentences hide the word from this: none of the readings of a region had it
  among the first ten tokens at the sites looked at, though the probe for words found it. Their
  answers nearly all begin with "It" ([log](log.md)).
- The organisms are a model of 135M parameters, fine-tuned in minutes, that hints with single words.
  A larger model may hide a word better, or hold it more clearly.
"""


def newest() -> dict[tuple[str, ...], Row]:
    """The last row of each measurement, by name, split, positions, site and percentile."""
    return {
        (r["name"], r["split"], r["positions"], r["site"], f"{r['percentile']:g}"): r
        for r in rows("taboo")
    }


def reported(found: dict[tuple[str, ...], Row], name: str, positions: str) -> Row | None:
    """The row of the chosen setting on unused prompts."""
    site, percentile = CHOSEN[positions]
    return found.get((name, "test", positions, site, f"{percentile:g}"))


def best(ranks: dict[str, int], kinds: tuple[str, ...], every: str = "") -> int | None:
    """The smallest rank of some readings; None where the inventory is empty."""
    keys = [f"{every}{of} {kind}" for of in kinds for kind in ("lens", "embedding")]
    return min((ranks[key] for key in keys if key in ranks), default=None)


def span(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def nulls(row: Row, rule: str = "nulls") -> str:
    return span([n for sizes in row[rule].values() for n in sizes])


def share(hits: int, n: int) -> str:
    _, low, high = wilson(hits, n)
    return f"{hits / n:.2f} ({low:.2f}–{high:.2f})"


def words_table(found: dict[tuple[str, ...], Row]) -> str:
    header = (
        "word", "inventory", "other orders", "nulls", "region", "shift", "contrast",
        "difference of means", "logistic probe", "contrast, all rows", "word probe, tuned", "base",
        "says it",
    )  # fmt: skip
    lines = []
    for word in WORDS:
        row = reported(found, word, "control")
        if row is None:
            continue
        ranks, probe = row["ranks"][word], row["word_probe"]
        lines.append(
            (
                word, len(row["inventory"]), span(row["orders"]), nulls(row),
                *(best(ranks, (of,)) for of in READINGS),
                *(best(ranks, (of,), "all ") for of in BASELINES),
                *(f"{probe[side][0]}/{probe[side][1]}" for side in ("tuned", "base")),
                f"{row['says'][0]}/{row['says'][1]}",
            )
        )  # fmt: skip
    return markdown(header, lines)


def tokens_table(found: dict[tuple[str, ...], Row]) -> str:
    """What is read without knowing the word: the largest regions' contrasts."""
    lines = []
    for word in WORDS:
        row = reported(found, word, "control")
        for one in [] if row is None else row["inventory"][:4]:
            tokens = " ".join(f"‹{t}›" for t in one["contrast"]["embedding"][:8])
            lines.append(
                (word, f"{one['tuned'][1]}, {one['base'][1]}",
                 f"`{one['contexts'][0][1]!r}`", tokens.replace("|", "\\|").replace("\n", "⏎"))
            )  # fmt: skip
    return markdown(("word", "documents, tuned and base", "at", "contrast by embedding"), lines)


def chance_table(found: dict[tuple[str, ...], Row]) -> str:
    """How often a word that an organism does not hide is as high in its inventory."""
    lines = []
    for name, kinds, every in (
        ("region (published)", ("region",), ""),
        ("shift", ("shift",), ""),
        ("contrast", ("contrast",), ""),
        ("any of the three", READINGS, ""),
        ("difference of means", ("difference",), "all "),
        ("logistic probe", ("probe",), "all "),
        ("contrast, all rows", ("contrast",), "all "),
    ):
        own, others = [], []
        for word in WORDS:
            row = reported(found, word, "control")
            for other, ranks in ({} if row is None else row["ranks"]).items():
                rank = best(ranks, kinds, every)
                (own if other == word else others).append(rank is not None and rank < TOP)
        lines.append((name, f"{sum(own)} of {len(own)}", f"{sum(others)} of {len(others)}"))
    return markdown(("read by", f"the secret among the top {TOP}", "other words"), lines)


def seen(found: dict[tuple[str, ...], Row], kinds: tuple[str, ...], every: str = "") -> list[str]:
    """The words whose secrets are among the top of some reading."""
    ranks = {
        word: best(row["ranks"][word], kinds, every)
        for word in WORDS
        if (row := reported(found, word, "control")) is not None
    }
    return [word for word, rank in ranks.items() if rank is not None and rank < TOP]


def models_table(found: dict[tuple[str, ...], Row]) -> str:
    header = (
        "fine-tune", "positions", "regions", "inventory", "other orders", "nulls",
        "published rule", "its nulls", "AUROC of the probe", "moved",
    )  # fmt: skip
    lines = []
    for name in ("null", "topic", *WORDS):
        for positions in CHOSEN:
            row = reported(found, name, positions)
            if row is not None:
                lines.append(
                    (
                        name, positions, row["n_regions"], len(row["inventory"]),
                        span(row["orders"]), nulls(row), row["published"],
                        nulls(row, "published_nulls"), f"{row['probe_auroc']:.3f}",
                        f"{row['moved']:.2f}",
                    )
                )  # fmt: skip
    return markdown(header, lines)


def selection_table(found: dict[tuple[str, ...], Row]) -> str:
    """What chose the setting of the control positions."""
    header = ("site", "p", "word", "inventory", *READINGS, "difference of means", "null fine-tune")
    lines = []
    for (name, split, positions, site, percentile), row in sorted(found.items()):
        if (split, positions) != ("select", "control") or name not in CHOOSING:
            continue
        ranks = row["ranks"][name]
        null = found.get(("null", split, positions, site, percentile))
        lines.append(
            (
                site, percentile, name, len(row["inventory"]),
                *(best(ranks, (of,)) for of in READINGS), best(ranks, ("difference",), "all "),
                "" if null is None else len(null["inventory"]),
            )
        )  # fmt: skip
    return markdown(header, sorted(lines))


def topic_table(found: dict[tuple[str, ...], Row]) -> str:
    lines = []
    for positions in CHOSEN:
        row = reported(found, "topic", positions)
        if row is None:
            continue
        shares = row["topic"]
        for name, key in (
            ("inventory", "inventory"),
            ("difference of means", "difference"),
            ("logistic probe", "probe"),
        ):
            one = shares[key]
            s = one["share"]
            lines.append(
                (
                    positions, name, one["flagged"],
                    "–" if not one["flagged"]
                    else f"{s['estimate']:.2f} ({s['low']:.2f}–{s['high']:.2f})",
                    f"{shares['all_rows']:.2f}",
                )
            )  # fmt: skip
    header = ("positions", "flagged by", "held-out rows", "of the topic (95 %)", "of all rows")
    return markdown(header, lines)


def figure(found: dict[tuple[str, ...], Row]) -> None:
    """Ranks of the secret by each reading."""
    names = [*READINGS, "difference of means", "logistic probe", "contrast, all rows"]
    with drawing(6.4, 3.0) as (made, axes):
        for k, word in enumerate(WORDS):
            row = reported(found, word, "control")
            if row is None:
                continue
            ranks = row["ranks"][word]
            values = [best(ranks, (of,)) for of in READINGS]
            values += [best(ranks, (of,), "all ") for of in BASELINES]
            ys = [y for y, v in enumerate(values) if v is not None]
            xs = [v + 1 for v in values if v is not None]
            axes.plot(xs, ys, "o", color=COLORS[k], label=word, alpha=0.8)
        axes.axvline(TOP, color=QUIET, linewidth=1)
        axes.set_xscale("log")
        axes.set_yticks(range(len(names)), names)
        axes.invert_yaxis()
        axes.set_xlabel("rank of the secret word among 49,152 tokens, from 1")
        axes.legend(ncols=5, loc="upper center", bbox_to_anchor=(0.5, 1.18))
    save_figure(made, FIGURE)


def probe_accuracy(found: dict[tuple[str, ...], Row]) -> str:
    values = [
        row["word_probe"]["held_out_accuracy"]
        for word in WORDS
        if (row := reported(found, word, "control")) is not None
    ]
    return f"{min(values):.2f}" if values else "–"


def main() -> None:
    found = newest()
    site, percentile = CHOSEN["control"]
    last = rows("taboo")[-1]
    example = next((r["examples"] for w in WORDS if (r := reported(found, w, "control"))), [])
    n_words = len(WORDS) + len(CONTROLS)
    parts = [
        HEAD,
        ORGANISMS.format(
            answers=", ".join(json.dumps(e) for e in example[:2]), site=site, p=f"{percentile:g}"
        ),
        words_table(found),
        UNDER_WORDS.format(
            n=n_words,
            accuracy=probe_accuracy(found),
            others=n_words - 1,
            top=TOP,
            words=len(WORDS),
            ours=len(seen(found, ("shift", "contrast"))),
            missed=", ".join(w for w in WORDS if w not in seen(found, ("shift", "contrast"))),
            published=len(seen(found, ("region",))),
            difference=len(seen(found, ("difference",), "all ")),
        ),
        chance_table(found),
        "What one reads without knowing the word:",
        tokens_table(found),
        "Selection (other words, other prompts):",
        selection_table(found),
        "## How much is introduced",
        models_table(found),
        "*published rule*: regions with a document of the tuned model and none of the base model.",
        TOPIC,
        topic_table(found),
        UNDER_TOPIC,
        TAIL,
        f"*{last['date']}, commit {last['commit']}, `bench/taboo.py`; tables by "
        "`bench/taboo_page.py`.*\n",
    ]
    PAGE.write_text("\n\n".join(part.strip("\n") for part in parts) + "\n")
    figure(found)
    print(f"written {PAGE}, {results.RESULTS}")


if __name__ == "__main__":
    main()
