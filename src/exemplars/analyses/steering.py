"""What an edit does to a model's answers, by strength: the behaviour it is for, and what it breaks.

A sweep answers the same prompts without an edit and with each *method* (a region's direction, the
difference of means of labelled texts, random controls) at each strength. The strength is chosen on
one half of the prompts, among those at which the answers stay fluent, and reported on the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from exemplars.analyses.detection import Interval, interval
from exemplars.analyses.detectors import halves
from exemplars.analyses.fluency import answer_fluency, answers_perplexity
from exemplars.analyses.labelled import OnStep, quoted
from exemplars.analyses.prompts import read_prompts
from exemplars.building import tokenization_of
from exemplars.dictionary import Dictionary
from exemplars.generation import Answer, generate
from exemplars.geometry import Float32, Float64, Int64, to_directions
from exemplars.intervene import Edit, edited
from exemplars.labels.detection import wilson
from exemplars.models import Model, evaluating

if TYPE_CHECKING:
    import torch

OPERATIONS = ("add", "ablate", "cap", "patch")
STRENGTHS: Mapping[str, tuple[float, ...]] = {
    "add": (0.0, 0.06, 0.12, 0.25, 0.5, 1.0),
    "ablate": (0.0, 0.5, 1.0),
    "cap": (0.0, 0.5, 1.0),
    "patch": (0.0, 0.25, 0.5, 1.0),
}
"""By operation: of "add" in median norms of the site, of the others the share that is done."""
AIMS = ("raise", "lower")
BASELINE, REGIONS, DIFFERENCE = "baseline", "regions", "difference of means"
RANDOM, RANDOM_REGIONS = "random directions", "random regions"
CONTROLS = (RANDOM, RANDOM_REGIONS)
HALVES = ("select", "test", "all")
RESAMPLES = 1000

EditOf = Callable[[float], Sequence[Edit]]
"""Strength -> edits."""


class Scored(Protocol):
    """A scorer: of `exemplars.analyses.scorers`, or a `Rule`, which grades."""

    @property
    def name(self) -> str:
        """A word or two for tables."""
        ...

    def describe(self) -> dict[str, Any]:
        """What a result records of it."""
        ...

    def __call__(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[Any]:
        """(N,) bool, or floats in [0, 1]."""
        ...


@dataclass(frozen=True, eq=False)
class Recipe:
    """One operation on one set of directions, at any strength: calling it gives the edits."""

    site: str
    operation: str
    directions: Float32
    """(k, D); "add", "cap" and "patch" take the direction of their sum, "ablate" their span."""
    center: Float32
    """(D,) raw."""
    unit: float
    """Length of a strength of 1 of "add", and of a limit of 1: the site's median norm."""
    positions: Any = "edited"
    limit: float = 0.0
    """Of "cap": the coordinate that is left, in `unit`s."""
    regions: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        """Raise ValueError where no edit can be made of it: before a model runs."""
        if self.operation not in OPERATIONS:
            raise ValueError(f'the operation is "{self.operation}"; choose {", ".join(OPERATIONS)}')
        self(0.0)

    def __call__(self, strength: float) -> tuple[Edit, ...]:
        """The edits of a strength."""
        what, at = self.directions, {"site": self.site, "positions": self.positions}
        if self.operation == "add":
            return (Edit.add(what, strength, unit=self.unit, **at),)
        at["center"] = self.center
        if self.operation == "cap":
            return (Edit.cap(what, self.limit, strength, unit=self.unit, **at),)
        done = Edit.ablate if self.operation == "ablate" else Edit.patch
        return (done(what, strength, **at),)


@dataclass(frozen=True, eq=False)
class Contrast:
    """The region that tells texts with a concept from those without, and their mean difference."""

    region: int
    gap: float
    """Mean cosine of its mean with the positive texts' vectors, less that with the negatives'."""
    difference: Float32
    """(D,) unit vector: mean of the positive texts' raw vectors, less that of the negatives'."""
    positives: int
    negatives: int


@dataclass(frozen=True)
class FluencyBound:
    """Where answers still count as fluent, against those of the model without an edit."""

    perplexity: float = 2.0
    """At most so many times the baseline's, by the model without an edit."""
    repetition: float = 0.1
    """At most so much above the baseline's."""

    def holds(self, found: Measures, baseline: Measures) -> bool:
        """Whether both hold; not where a measure is NaN."""
        return bool(
            found.perplexity <= self.perplexity * baseline.perplexity
            and _zero(found.repetition) <= _zero(baseline.repetition) + self.repetition
        )


@dataclass(frozen=True)
class Measures:
    """Of answers to some of the prompts, over all draws; NaN where there is nothing to measure."""

    score: float
    """Mean in [0, 1]: the share of answers with the behaviour; NaN without a scorer."""
    kl: float
    """KL(unedited ‖ edited) of the next token in nats: the mean over the baseline's answer to a
    prompt, then over prompts and draws."""
    perplexity: float
    """Of the answers under the unedited model, each token counting alike."""
    repetition: float
    """Share of 4-grams of words that stood before in the same answer."""
    short: float
    """Share of answers with fewer than three words."""


@dataclass(frozen=True, eq=False)
class Setting:
    """One method at one strength: R draws (1 but for controls) of answers to N prompts."""

    method: str
    strength: float
    answers: tuple[tuple[Answer, ...], ...]
    """(R, N)."""
    scores: Float64 | None
    """(R, N) in [0, 1]; None without a scorer."""
    perplexities: Float64
    """(R, N) of each answer under the unedited model; NaN for an empty one."""
    divergences: Float64
    """(R, N) nats, as of `Measures.kl`; NaN where the baseline's answer is empty."""

    def measures(self, prompts: Int64 | None = None) -> Measures:
        """Over these prompts, by number; by default over all."""
        chosen = np.arange(len(self.answers[0])) if prompts is None else prompts
        texts = [line[i].text for line in self.answers for i in chosen]
        n = np.array([[len(line[i].ids) for i in chosen] for line in self.answers], np.float64)
        surprise = np.log(self.perplexities[:, chosen])
        scored = (n > 0) & ~np.isnan(surprise)
        mean = np.average(surprise[scored], weights=n[scored]) if scored.any() else np.nan
        words = answer_fluency(texts)
        with np.errstate(over="ignore"):
            perplexity = float(np.exp(mean))
        return Measures(
            float("nan") if self.scores is None else _mean(self.scores[:, chosen]),
            _mean(self.divergences[:, chosen]),
            perplexity,
            words.repetition,
            words.short,
        )


@dataclass(frozen=True)
class Choice:
    """The strength of a method, chosen on one half of the prompts and reported on the other."""

    method: str
    strength: float | None
    """None: no strength passed."""
    fluent: tuple[float, ...]
    """Strengths at which the answers of the choosing half were within the bound."""
    control: str
    """What the score had to beat, at the same strength: the control that did best on the choosing
    half; the baseline where no control was run."""
    score: Interval | None = None
    """Of the other half: mean score with a 95% interval (Wilson's for yes and no, one draw; else a
    bootstrap over prompts); None if no strength passed, as all that follows."""
    baseline_score: Interval | None = None
    control_score: Interval | None = None
    difference: Interval | None = None
    """Score less the control's, prompts paired, in the bootstrap."""
    still_fluent: bool | None = None
    """Whether the other half is within the bound too."""


@dataclass(frozen=True, eq=False)
class SteeringReport:
    """Every setting, the halves of the prompts, and the chosen strengths."""

    prompts: tuple[str, ...]
    baseline: Setting
    settings: tuple[Setting, ...]
    """Of each method, by strength; strength 0 is the baseline and not run again."""
    select: Int64
    """Numbers of the prompts that choose the strength; the others are `test`."""
    test: Int64
    aim: str
    scorer: Mapping[str, Any] | None
    binary: bool
    """Whether scores are yes or no."""
    bound: FluencyBound
    choices: tuple[Choice, ...]
    """One for each method that is no control; none without a scorer."""
    about: Mapping[str, Any] = field(default_factory=dict)
    """Of the edit: site, operation, regions, as the caller says."""

    @property
    def methods(self) -> list[str]:
        """In the order in which they ran."""
        return list(dict.fromkeys(setting.method for setting in self.settings))

    @property
    def strengths(self) -> list[float]:
        """Without 0."""
        return list(dict.fromkeys(setting.strength for setting in self.settings))

    def at(self, method: str, strength: float) -> Setting:
        """A setting; the baseline at strength 0.

        Raises:
            KeyError: It was not run.
        """
        if strength == 0:
            return replace(self.baseline, method=method)
        for setting in self.settings:
            if (setting.method, setting.strength) == (method, strength):
                return setting
        raise KeyError(f"{method} was not run at strength {strength:g}")

    def measures(self, method: str, strength: float, half: str = "all") -> Measures:
        """Of a setting, over one half of the prompts ("select", "test") or all of them."""
        prompts = {"select": self.select, "test": self.test, "all": None}[half]
        return self.at(method, strength).measures(prompts)


def recipe_of(
    dictionary: Dictionary,
    regions: Sequence[int],
    operation: str = "add",
    *,
    basis: str = "exemplar",
    positions: Any = "edited",
    limit: float = 0.0,
) -> Recipe:
    """The recipe of a region, or of several together.

    Raises:
        ValueError: No region, one that does not exist or has no such direction, or a dictionary
            that does not say its site.
    """
    numbers = tuple(dict.fromkeys(dictionary.region(k).index for k in regions))
    if not numbers:
        raise ValueError("no region was given; give at least one")
    if dictionary.site is None:
        raise ValueError("the dictionary does not say which site it is of; build it with a model")
    rows = dictionary.basis(basis)[list(numbers)]
    for number, row in zip(numbers, rows, strict=True):
        if not np.isfinite(row).all():
            raise ValueError(f"region {number} has no {basis} direction; use basis exemplar")
    return Recipe(
        dictionary.site, operation, np.asarray(rows, np.float32), dictionary.center,
        dictionary.calibration.vector_norms[1], positions, limit, numbers,
    )  # fmt: skip


def with_controls(
    dictionary: Dictionary,
    recipe: Recipe,
    *,
    difference: Float32 | None = None,
    basis: str = "exemplar",
    draws: int = 2,
    seed: int = 0,
) -> dict[str, tuple[Recipe, ...]]:
    """By method: the recipe itself, the difference of means, and draws of the two controls.

    Random directions are Gaussian, as many as the recipe has; random regions are others of the
    dictionary, as many. Where it has too few other regions that control is left out.

    Args:
        dictionary: Whose regions are drawn.
        recipe: From `recipe_of`.
        difference: (D,) of labelled texts, as of `contrast_of`.
        basis: Of the random regions.
        draws: Of each control; 0 for none.
        seed: Of the draws.
    """
    if draws < 0:
        raise ValueError(f"draws is {draws}, expected 0 or more")
    k, width = recipe.directions.shape
    found: dict[str, tuple[Recipe, ...]] = {REGIONS: (recipe,)}
    if difference is not None:
        found[DIFFERENCE] = (replace(recipe, directions=difference[None], regions=()),)
    rows = dictionary.basis(basis)
    others = np.setdiff1d(np.flatnonzero(np.isfinite(rows).all(axis=1)), recipe.regions)
    directions, regions = [], []
    for draw in range(draws):
        random = np.random.default_rng([seed, 0x57EE2, draw])
        drawn = random.standard_normal((k, width)).astype(np.float32)
        directions.append(replace(recipe, directions=drawn, regions=()))
        if len(others) >= k:
            chosen = tuple(map(int, random.permutation(others)[:k]))
            regions.append(replace(recipe, directions=rows[list(chosen)], regions=chosen))
    found |= {RANDOM: tuple(directions)} if directions else {}
    return found | ({RANDOM_REGIONS: tuple(regions)} if regions else {})


def contrast_of(
    dictionary: Dictionary,
    model: Model,
    positive: Sequence[str],
    negative: Sequence[str],
    *,
    chat: bool | None = None,
) -> Contrast:
    """The region by contrast of texts that show a concept with texts that do not.

    A text's vector is the mean over the back half of its rows. The region is the one whose mean
    direction has the largest mean cosine with the positive texts' centered vectors less that with
    the negatives' (Rumbelow 2026, arXiv:2605.14347, concept steering).

    Args:
        dictionary: Of the model.
        model: Reads the texts.
        positive: Texts with the concept.
        negative: Texts without it; none may be in both.
        chat: Read texts as a user's messages; default: if there is a chat template.

    Raises:
        ValueError: A class is empty, a text is in both, or has no rows.
    """
    if not positive or not negative:
        raise ValueError("texts of one class alone were given; give positive and negative texts")
    shared = [text for text in positive if text in set(negative)]
    if shared:
        raise ValueError(f"{quoted(shared[0])} is in both classes; give each text once")
    if dictionary.site is None:
        raise ValueError("the dictionary does not say which site it is of; build it with a model")
    if chat is None:
        chat = bool(getattr(model.tokenizer, "chat_template", None))
    read = replace(tokenization_of(dictionary), chat=chat, rows="all")
    (rows,) = read_prompts(model, [dictionary.site], [*positive, *negative], read).values()
    spans = [rows.vectors[rows.prompt == i] for i in range(len(rows.prompts))]
    vectors = np.stack([span[len(span) // 2 :].mean(axis=0, dtype=np.float64) for span in spans])
    apart = len(positive)
    cosines = to_directions(vectors.astype(np.float32), dictionary.center)[0] @ dictionary.means.T
    gaps = cosines[:apart].mean(axis=0) - cosines[apart:].mean(axis=0)
    region = int(np.argmax(np.where(np.isfinite(gaps), gaps, -np.inf)))
    difference = vectors[:apart].mean(axis=0) - vectors[apart:].mean(axis=0)
    length = float(np.linalg.norm(difference))
    if length == 0 or not np.isfinite(gaps[region]):
        raise ValueError("the positive and negative texts have the same mean; give other texts")
    unit = (difference / length).astype(np.float32)
    return Contrast(region, float(gaps[region]), unit, len(positive), len(negative))


def steer(
    model: Model,
    methods: Mapping[str, EditOf | Sequence[EditOf]],
    prompts: Sequence[str],
    scorer: Scored | None = None,
    strengths: Sequence[float] = STRENGTHS["add"],
    *,
    aim: str = "raise",
    bound: FluencyBound | None = None,
    chat: bool | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 16,
    seed: int = 0,
    about: Mapping[str, Any] | None = None,
    on_step: OnStep | None = None,
) -> SteeringReport:
    """Answer prompts with every method at every strength, and choose a strength for each.

    Args:
        model: From `load_model`.
        methods: By name what gives the edits of a strength, or several draws of it, as from
            `with_controls`; those named in `CONTROLS` are what the others have to beat.
        prompts: Distinct texts; at least 4 for a strength to be chosen.
        scorer: Says of answers whether they show the behaviour, or how much; None: nothing is
            chosen.
        strengths: Each finite; 0 is the baseline, and is always there.
        aim: "raise" or "lower": where the score should go.
        bound: What counts as fluent when a strength is chosen.
        chat: As of `generate`.
        max_new_tokens: Of each answer; all answers are greedy.
        batch_size: Of `generate`.
        seed: Of the halves of the prompts.
        about: For the report.
        on_step: Told how many answers came.

    Raises:
        ValueError: An argument out of range, a prompt twice, or a score outside [0, 1].
    """
    prompts, bound = tuple(prompts), bound or FluencyBound()
    given = _check(methods, prompts, strengths, aim)
    run = _Run(model, prompts, scorer, _counted(on_step, _n_answers(given, prompts, strengths)), {
        "chat": chat, "max_new_tokens": max_new_tokens, "batch_size": batch_size,
    })  # fmt: skip
    baseline = run.baseline()
    settings = [
        run.setting(name, strength, several)
        for name, several in given.items()
        for strength in dict.fromkeys(s for s in strengths if s != 0)
    ]
    select, test = halves(len(prompts), seed)
    report = SteeringReport(
        prompts, baseline, tuple(settings), select, test, aim,
        None if scorer is None else scorer.describe(), run.binary, bound, (), dict(about or {}),
    )  # fmt: skip
    return replace(report, choices=choices_of(report))


def choices_of(report: SteeringReport) -> tuple[Choice, ...]:
    """A strength for each method that is no control, by the half of the prompts that chooses.

    Among the strengths at which these answers are within the bound, and score better than the
    baseline's and the controls', it is the one with the largest lead over the better control; of
    equal ones the smallest. None without a scorer, or with fewer than 4 prompts.
    """
    if report.scorer is None or len(report.prompts) < 4:
        return ()
    return tuple(_choice(report, name) for name in report.methods if name not in CONTROLS)


def first_difference(text: str, other: str) -> int | None:
    """Where the word begins in which `other` first departs from `text`; None if they are equal."""
    if text == other:
        return None
    same = next(
        (i for i, (a, b) in enumerate(zip(text, other, strict=False)) if a != b),
        min(len(text), len(other)),
    )
    while 0 < same < len(other) and not other[same - 1].isspace():
        same -= 1
    return same


def answer_divergence(
    model: Model, prompt: Int64, answer: Int64, change: Callable[[int], Sequence[Edit]]
) -> Float64:
    """(m,) KL(unedited ‖ edited) of the next token, at the positions that predict an answer.

    In nats, in float64 from the float32 log-softmax.

    Args:
        model: As it is now.
        prompt: (n,) token ids.
        answer: (m,) token ids; both are read in one pass.
        change: Gives the edits, told n.
    """
    import torch

    if not len(answer):
        return np.empty(0)
    ids = torch.from_numpy(np.concatenate([prompt, answer])).to(model.device)[None]
    with evaluating(model.module), torch.no_grad():
        plain = _log_softmax(model, ids, len(answer))
        with edited(model, change(len(prompt))):
            changed = _log_softmax(model, ids, len(answer))
    there = plain != -np.inf
    each = torch.where(there, plain.double().exp() * (plain.double() - changed.double()), 0.0)
    return np.asarray(each.sum(dim=-1).cpu().numpy())


def _log_softmax(model: Model, ids: torch.Tensor, n: int) -> torch.Tensor:
    """(n, V) of the positions before the last n tokens."""
    import inspect

    import torch

    takes = inspect.signature(model.module.forward).parameters
    options = {"logits_to_keep": n + 1} if "logits_to_keep" in takes else {}
    if "use_cache" in takes:
        options["use_cache"] = False
    out = model.module(input_ids=ids, attention_mask=torch.ones_like(ids), **options)
    return torch.log_softmax(out.logits[0, -n - 1 : -1].float(), dim=-1)


def _n_answers(
    methods: Mapping[str, Sequence[EditOf]], prompts: Sequence[str], strengths: Sequence[float]
) -> int:
    """How many answers a sweep asks for."""
    return len(prompts) * (1 + sum(map(len, methods.values())) * len({*strengths} - {0}))


def _counted(on_step: OnStep | None, total: int) -> Callable[[int], None]:
    """What `generate` tells its progress to."""
    done = 0

    def more(answers: int) -> None:
        nonlocal done
        done += answers
        if on_step is not None:
            on_step("answers", done, total)

    more(0)
    return more


class _Run:
    """Answers to the prompts, and what is measured of them."""

    def __init__(
        self,
        model: Model,
        prompts: tuple[str, ...],
        scorer: Scored | None,
        progress: Callable[[int], None],
        options: dict[str, Any],
    ) -> None:
        self.model, self.prompts, self.scorer, self.options = model, prompts, scorer, options
        self.progress = progress
        self.binary = True
        self.plain: tuple[Answer, ...] = ()

    def baseline(self) -> Setting:
        """Without an edit; comes first, as divergences are of its answers."""
        self.plain = self._answers(())
        nothing = [np.nan if not len(answer.ids) else 0.0 for answer in self.plain]
        return self._setting(BASELINE, 0.0, [self.plain], np.array([nothing]))

    def setting(self, method: str, strength: float, draws: Sequence[EditOf]) -> Setting:
        answers, divergences = [], []
        for edits_of in draws:
            edits = tuple(edits_of(strength))
            answers.append(self._answers(edits))
            change = partial(_after_prompt, edits)
            found = [answer_divergence(self.model, a.prompt_ids, a.ids, change) for a in self.plain]
            divergences.append([float(f.mean()) if len(f) else np.nan for f in found])
        return self._setting(method, strength, answers, np.array(divergences))

    def _answers(self, edits: Sequence[Edit]) -> tuple[Answer, ...]:
        return tuple(
            generate(self.model, self.prompts, edits, progress=self.progress, **self.options)
        )

    def _setting(
        self,
        method: str,
        strength: float,
        answers: Sequence[tuple[Answer, ...]],
        divergences: Float64,
    ) -> Setting:
        scores = None
        if self.scorer is not None:
            scores = np.stack([self._scores(self.scorer, line) for line in answers])
        perplexities = [
            answers_perplexity(
                self.model, [a.prompt_ids for a in line], [a.ids for a in line]
            ).per_answer
            for line in answers
        ]
        return Setting(
            method, strength, tuple(answers), scores, np.stack(perplexities), divergences
        )

    def _scores(self, scorer: Scored, answers: Sequence[Answer]) -> Float64:
        found = np.asarray(scorer(self.prompts, [answer.text for answer in answers]))
        if found.shape != (len(answers),):
            raise ValueError(
                f"{scorer.name} gave scores of shape {found.shape} for {len(answers)} answers; it "
                "must give one for each"
            )
        self.binary &= found.dtype == np.bool_
        scores = found.astype(np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():
            raise ValueError(f"{scorer.name} gave a score outside of 0 to 1; give shares")
        return scores


def _after_prompt(edits: Sequence[Edit], n_prompt: int) -> list[Edit]:
    """Edits for one pass over prompt and answer: there is no cache to tell them apart."""
    return [replace(e, positions=n_prompt) if str(e.positions) == "generated" else e for e in edits]


def _check(
    methods: Mapping[str, EditOf | Sequence[EditOf]],
    prompts: Sequence[str],
    strengths: Sequence[float],
    aim: str,
) -> dict[str, Sequence[EditOf]]:
    if aim not in AIMS:
        raise ValueError(f'the aim is "{aim}"; choose {" or ".join(AIMS)}')
    if not prompts:
        raise ValueError("no prompt was given; give some")
    if len(set(prompts)) < len(prompts):
        raise ValueError(
            f"{len(prompts) - len(set(prompts))} prompts were given twice, and could be in both "
            "halves; give each once"
        )
    if not np.isfinite(np.array(strengths, np.float64)).all() or not any(strengths):
        raise ValueError("the strengths must be finite numbers, at least one of them not 0")
    given: dict[str, Sequence[EditOf]] = {
        name: (several,) if callable(several) else several for name, several in methods.items()
    }
    empty = [name for name, several in given.items() if not several] or (
        [] if given else ["the sweep"]
    )
    if empty or BASELINE in given:
        raise ValueError(
            f"{empty[0]} has nothing to edit with; give it"
            if empty
            else f'a method is named "{BASELINE}", which is the model without an edit; rename it'
        )
    return given


def _choice(report: SteeringReport, method: str) -> Choice:
    """The strength with the largest lead over the control on the choosing half, if any passes."""
    sign = 1 if report.aim == "raise" else -1
    plain = report.baseline.measures(report.select)
    controls = [name for name in report.methods if name in CONTROLS]
    fluent, leads = [], []
    for strength in report.strengths:
        found = report.measures(method, strength, "select")
        if not report.bound.holds(found, plain):
            continue
        fluent.append(strength)
        rivals = [
            (sign * report.measures(name, strength, "select").score, name) for name in controls
        ]
        rival, name = max(rivals) if rivals else (sign * plain.score, BASELINE)
        lead = sign * found.score - rival
        if lead > 0 and sign * found.score > sign * plain.score:
            leads.append((lead, -abs(strength), strength, name))
    if not leads:
        return Choice(method, None, tuple(fluent), "")
    _, _, strength, name = max(leads)
    mine, theirs = report.at(method, strength), report.at(name, strength if controls else 0.0)
    still = report.bound.holds(mine.measures(report.test), report.baseline.measures(report.test))
    return Choice(
        method, strength, tuple(fluent), name,
        _score(report, mine), _score(report, report.baseline), _score(report, theirs),
        _difference(report, mine, theirs), still,
    )  # fmt: skip


def _test_scores(report: SteeringReport, setting: Setting) -> Float64:
    """(n,) mean over draws, of the prompts that did not choose."""
    assert setting.scores is not None
    return np.asarray(setting.scores[:, report.test].mean(axis=0))


def _score(report: SteeringReport, setting: Setting) -> Interval:
    values = _test_scores(report, setting)
    if report.binary and len(setting.answers) == 1:
        return Interval(*wilson(round(values.sum()), len(values)))
    return _bootstrap(values)


def _difference(report: SteeringReport, one: Setting, other: Setting) -> Interval:
    return _bootstrap(_test_scores(report, one) - _test_scores(report, other))


def _bootstrap(values: Float64) -> Interval:
    """The mean of values (n,), and its interval over resamples of them."""
    drawn = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    return interval(values[drawn].mean(axis=1), float(values.mean()))


def _mean(values: Float64) -> float:
    """Over all that are not NaN."""
    found = values[~np.isnan(values)]
    return float(found.mean()) if len(found) else float("nan")


def _zero(value: float) -> float:
    """Repetition is NaN where no answer has four words."""
    return 0.0 if np.isnan(value) else value
