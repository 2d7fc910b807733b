"""Through which regions of SmolLM2-135M-Instruct do prompts of known kinds pass?

    python bench/trajectories.py                 all of it
    python bench/trajectories.py --study words   one study

Four studies, each at three sites and two percentiles:

- words: "The <word>", words of five categories, final position the word; and *before*: prompts that
  end where a number, a colour, a country or an animal would follow. Dictionaries of AxBench's
  outputs.
- instructions: harmful, harmless, code and math instructions, through the chat template.
  Dictionaries of other instructions through the template.
- ends: the same, dictionaries of the final positions of those other instructions alone.
- layers: the centering diagnostic of *words* at every layer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

import activations
import exemplars as ex
import families
import rows as results
from exemplars.activations import read_activations
from exemplars.analyses import alignment, trajectories
from exemplars.analyses.alignment import CategoryDistances, Centering, LensAlignment
from exemplars.analyses.families import read_final
from exemplars.analyses.trajectories import Chance, TokenPaths, read_paths
from exemplars.figures import save_figure
from exemplars.report.trajectories import TrajectoryReport, exemplar_texts, trajectories_figure

LAYERS = (9, 15, 24)
PERCENTILES = (2.0, 8.0)
ROWS = {"outputs": 12_000, "instructions": 8_000, "ends": 600}
"""Of each dictionary."""
SEEDS = {"outputs": 2, "instructions": 1, "ends": 1}
"""Orders of the documents."""
DRAWS = 999
FIGURE = Path(__file__).parents[1] / "docs/figures/trajectories"

WORDS = {
    "animals": "cat horse tiger rabbit eagle shark mouse whale goat spider",
    "foods": "bread cheese apple rice soup butter salad honey pasta onion",
    "vehicles": "car truck bicycle train boat airplane bus tractor ship taxi",
    "body": "hand knee shoulder nose finger heart stomach elbow ankle throat",
    "colours": "red blue green yellow purple orange black white brown pink",
}
BEFORE = {
    "numbers": """The total number of students in the room is
The sum of four and five equals
She counted the coins and found exactly
The answer to the multiplication problem was
There are days in a week, namely
He turned his age this year, which is
The bus that goes to the station is route number
The temperature outside has dropped to minus
The recipe calls for this many eggs:
In binary, the digits are zero and
A triangle has a number of sides equal to
The final score of the match was two to
Half of twenty is
Please dial the following number:
The year in which the war ended was
The train leaves from platform number
The price of the ticket is exactly
The square root of eighty-one is
He ran a distance in miles of
The population of the village is about""",
    "colours": """The clear sky at noon looks
She painted the walls of her bedroom a bright
Fresh grass in spring is
Ripe bananas are usually
The fire engine was painted
Snow on the mountain is brilliantly
When blue and yellow paint are mixed, one gets
At night the sky turns completely
Her favourite colour has always been
The traffic light changed from green to
An emerald is a gem whose colour is
The bride wore a long dress that was
His eyes are a deep shade of
Blood is
Autumn leaves turn a warm shade of
The crow's feathers are shiny and
A ripe tomato is
He dyed his hair an unusual shade of
The ink in this pen is
Lavender flowers are""",
    "countries": """Paris is the capital of
The Great Wall was built in
Sushi is a dish that comes from
The pyramids are found in
Kangaroos live in the wild in
The Eiffel Tower is a monument of
She flew from Rome, the capital of
Samba is danced at the carnival of
The Kremlin is the seat of government of
He was born in Berlin, in
The maple leaf is on the flag of
Bollywood films are made in
Tulips and windmills are typical of
The fjords attract tourists to
Tango music was born in
The ambassador was sent to the republic of
Mount Fuji is the highest mountain in
Tacos and mariachi music come from
Their passports were issued by the government of
Athens is a very old city in""",
    "animals": """The farmer milked his
The loudest roar in the jungle came from the
She keeps a bowl of water for her
A baby sheep grows up to become a
The children at the zoo fed the
The hunter followed the tracks of a
The fastest runner of the savanna is the
Honey is made by the
The spotted beast with a long neck is the
He rode across the prairie on his
A shepherd is helped by his loyal
The web in the corner was spun by a
The hen laid eggs beside the
The largest creature in the ocean is the
At midnight we heard the howl of a
The bird that hunts at night is the
Ivory comes from the tusks of the
In the desert they travelled on the back of a
The mouse ran away from the
The pond was full of croaking""",
}


def lines(
    sets: Mapping[str, str], frame: str = "{}", by: str | None = "\n"
) -> dict[str, list[str]]:
    return {name: [frame.format(t) for t in text.split(by)] for name, text in sets.items()}


def words() -> dict[str, list[str]]:
    return lines(WORDS, "The {}", None)


def before() -> dict[str, list[str]]:
    return lines(BEFORE)


def instructions() -> dict[str, list[str]]:
    """60 of each kind; no dictionary is built from them."""
    found = {}
    for make, names in (
        (families.refusal, ("harmful", "harmless")),
        (families.benign, ("code", "math")),
    ):
        prompts = make()
        for name in names:
            of = np.flatnonzero(prompts.label == prompts.classes.index(name))
            found[name] = [prompts.prompts[k] for k in of[:60]]
    return found


def other_instructions(left_out: Mapping[str, Sequence[str]]) -> list[str]:
    """Of AxBench and of the harmless file, none of those left out."""
    known = {text for several in left_out.values() for text in several}
    prompts = families.benign()
    axbench = [p for p in prompts.prompts if p not in known]
    file = results.SHARED / "data/refusal/harmless_val.json"
    harmless = [p["instruction"] for p in json.loads(file.read_text())][-300:]
    harmful = results.SHARED / "data/refusal/harmful_train.json"
    bad = [p["instruction"] for p in json.loads(harmful.read_text())]
    return [p for p in [*axbench, *harmless, *bad] if p not in known]


class Studies:
    """The model and dictionaries of it, built once and kept in the cache."""

    def __init__(self, models: Path, cache: Path) -> None:
        self.model = activations.load_model(activations.SMOLLM2, models)
        self.cache = cache

    def dictionaries(
        self, name: str, texts: list[str], chat: bool
    ) -> list[dict[str, ex.Dictionary]]:
        """For each order of the documents, dictionaries by folder name, one calibration each."""
        found = []
        for seed in range(SEEDS[name]):
            out = self.cache / f"{name}-{seed}"
            if not out.exists():
                settings = {"context_length": 256} if chat else {}
                settings |= {"rows": "final"} if name == "ends" else {}
                ex.build(
                    self.model, [f"resid_post.{k}" for k in LAYERS], ex.texts(texts),
                    percentile=list(PERCENTILES), rows=ROWS[name], seed=seed + 1, out=out,
                    tokenization=ex.Tokenization(chat=chat, **settings),
                )  # fmt: skip
            found.append({p.name: ex.load(p) for p in sorted(out.iterdir()) if p.is_dir()})
        return found

    def sets(self, name: str, prompts: dict[str, list[str]], texts: list[str], chat: bool) -> None:
        kind = name if chat else "outputs"
        built = self.dictionaries(kind, texts, chat)
        for percentile in PERCENTILES:
            for seed, several in enumerate(built):
                chosen = [several[f"resid_post.{k}-p{percentile:g}"] for k in LAYERS]
                paths = read_paths(self.model, chosen, prompts, chat=chat)
                report = report_of(paths, chosen)
                lens: list[LensAlignment] = []
                if name == "words" and seed == 0:
                    lens = [alignment.lens_alignment(self.model, d, draws=DRAWS) for d in chosen]
                results.write(
                    "trajectories",
                    what=f"trajectories {name} p{percentile:g} order {seed}",
                    study=name, percentile=percentile, order=seed, chat=chat,
                    model=activations.SMOLLM2.title, stream_rows=ROWS[kind],
                    **row(report), lens=[lens_row(found) for found in lens],
                )  # fmt: skip
                if name == "before" and seed == 0 and percentile == PERCENTILES[-1]:
                    save_figure(trajectories_figure(report), FIGURE)

    def layers(self) -> None:
        """Centering of *words* at every layer; the calibration center is of AxBench's outputs."""
        prompts = words()
        texts = [text for several in prompts.values() for text in several]
        label = np.repeat(np.arange(len(prompts)), [len(s) for s in prompts.values()])
        found = read_final(self.model, texts, chat=False)
        sample = ex.texts(activations.documents()[:60])
        parts: dict[str, list[np.ndarray]] = {}
        for batches in read_activations(self.model, list(found.sites), sample):
            for batch in batches:
                parts.setdefault(batch.site, []).append(batch.vectors.float().numpy())
        centering = []
        for site, vectors in zip(found.sites, found.vectors, strict=True):
            calibration = ex.calibrate(np.concatenate(parts[site]), 10, norm_multiple=10.0)
            centering.append(
                alignment.centering(site, vectors, calibration.center, label, draws=1999)
            )
        results.write(
            "trajectories", what="trajectories layers", study="layers",
            model=activations.SMOLLM2.title, prompts=len(texts),
            centering=[centering_row(c) for c in centering],
        )  # fmt: skip


def report_of(paths: TokenPaths, dictionaries: Sequence[ex.Dictionary]) -> TrajectoryReport:
    sites = list(zip(paths.sites, dictionaries, strict=True))
    categories = [
        alignment.category_distances(
            site, paths.final_regions[:, s], d.exemplars, paths.label, paths.sets, 1999
        )
        for s, (site, d) in enumerate(sites)
    ]
    centering = [
        alignment.centering(site, paths.final_vectors[s], d.center, paths.label)
        for s, (site, d) in enumerate(sites)
    ]
    return TrajectoryReport(
        paths, tuple(trajectories.flows(paths, 99)), tuple(trajectories.set_paths(paths, DRAWS)),
        tuple(trajectories.set_overlaps(paths, DRAWS)), tuple(categories), tuple(centering), (),
        exemplar_texts(dictionaries, paths),
    )  # fmt: skip


def row(report: TrajectoryReport) -> dict[str, object]:
    paths = report.paths
    return {
        "sites": list(paths.sites),
        "regions": list(paths.n_regions),
        "sets": dict(zip(paths.sets, np.bincount(paths.label).tolist(), strict=True)),
        "tokens": len(paths.prompt),
        "outside": [r(float((paths.distance[:, s] > 1).mean())) for s in range(len(paths.sites))],
        "final_outside": [
            r(float((paths.distance[paths.final, s] > 1).mean())) for s in range(len(paths.sites))
        ],
        "flows": [
            {
                "sites": list(f.sites), "different": len(f.count),
                "entropy": r(f.target_entropy_bits), "conditional": r(f.conditional_entropy_bits),
                "information": r(f.mutual_information_bits), "chance": chance(f.chance),
                "given_token": chance(f.chance_given_token),
            }
            for f in report.flows
        ],
        "paths": [
            {
                "set": s.name, "prompts": s.prompts, "different": len(s.counts),
                "chance": chance(s.chance),
                "top": [
                    {
                        "path": s.paths[k].tolist(), "share": r(float(s.shares[k])),
                        "independent": r(float(s.independent[k])),
                        "exemplars": [t.get(int(x), "?") for t, x in
                                      zip(report.exemplars, s.paths[k], strict=True)],
                    }
                    for k in range(min(3, len(s.counts)))
                ],
            }
            for s in report.sets
        ],
        "overlaps": [
            {
                "site": o.site, "sets": list(o.sets), "regions": list(o.regions),
                "jaccard": r(o.jaccard), "jaccard_chance": chance(o.jaccard_chance),
                "shared": r(o.shared), "shared_chance": chance(o.shared_chance),
            }
            for o in report.overlaps
        ],
        "categories": [category_row(c) for c in report.categories],
        "centering": [centering_row(c) for c in report.centering],
    }  # fmt: skip


def category_row(found: CategoryDistances) -> dict[str, object]:
    return {
        "site": found.site, "regions": found.regions.tolist(), "cohesion": r(found.cohesion),
        "separation": r(found.separation), "chance": chance(found.chance),
        "cohesion_apart": r(found.cohesion_apart), "chance_apart": chance(found.chance_apart),
    }  # fmt: skip


def centering_row(found: Centering) -> dict[str, object]:
    return {
        "site": found.site, "neighbours": list(found.neighbours),
        "purity": [[r(v) for v in line] for line in found.purity], "chance": r(found.chance),
        "gains": [[r(v) for v in line] for line in found.gains],
        "p_gains": [[r(v) for v in line] for line in found.p_gains],
        "gap": [r(v) for v in found.gap], "same_order": [r(v) for v in found.same_order],
    }  # fmt: skip


def lens_row(found: LensAlignment) -> dict[str, object]:
    return {
        "site": found.site, "regions": found.regions, "correlation": r(found.correlation),
        "chance": chance(found.chance), "rotated": [r(v) for v in found.rotated],
    }  # fmt: skip


def chance(found: Chance) -> list[float | None]:
    """Mean, 2.5th and 97.5th percentile, p."""
    return [r(v) for v in (found.mean, found.low, found.high, found.p_value)]


def r(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = Path.home() / ".cache/exemplars"
    parser.add_argument("--models", type=Path, default=home / "models")
    parser.add_argument("--cache", type=Path, default=home / "bench/trajectories")
    names = ("words", "before", "instructions", "ends", "layers")
    parser.add_argument("--study", action="append", choices=names)
    options = parser.parse_args()
    studies = Studies(options.models, options.cache)
    for name in options.study or names:
        print(name, flush=True)
        if name == "layers":
            studies.layers()
        elif name in ("instructions", "ends"):
            asked = instructions()
            studies.sets(name, asked, other_instructions(asked), chat=True)
        else:
            asked = words() if name == "words" else before()
            studies.sets(name, asked, activations.documents(), chat=False)


if __name__ == "__main__":
    main()
