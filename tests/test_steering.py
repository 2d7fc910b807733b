"""Steering sweeps: what is measured equals slow oracles, and test answers choose nothing."""

import json
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import exemplars as ex
from exemplars.analyses import steering
from exemplars.analyses.fluency import answers_perplexity
from exemplars.analyses.labelled import read_lines
from exemplars.analyses.rules import RULES, Rule
from exemplars.analyses.scorers import Pattern, from_callable
from exemplars.analyses.steering import (
    CONTROLS,
    DIFFERENCE,
    OPERATIONS,
    RANDOM,
    RANDOM_REGIONS,
    REGIONS,
    FluencyBound,
    Setting,
    SteeringReport,
    answer_divergence,
    choices_of,
    contrast_of,
    first_difference,
    recipe_of,
    steer,
    with_controls,
)
from exemplars.generation import Answer, generate
from exemplars.intervene import edited
from exemplars.labels.detection import wilson
from exemplars.report import to_json
from exemplars.report.steering import (
    MARK,
    choice_text,
    marked,
    steering_figure,
    steering_summary,
    steering_text,
)
from labelled_build import labelled_build

PROMPTS = ("the heron", "out ", "an other tin", "around", "heron the", "tin")
FEW = {"max_new_tokens": 5, "strengths": (0, 1)}
EVEN = from_callable(lambda prompt, answer: len(answer) % 2 == 0, "even")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return labelled_build(tmp_path_factory.mktemp("steering"))


@pytest.fixture(scope="module")
def dictionary(built):
    return ex.load(built / "d")


@pytest.fixture(scope="module")
def model(built):
    return ex.load_model(str(built / "model"))


@pytest.fixture(scope="module")
def report(dictionary, model):
    methods = with_controls(dictionary, recipe_of(dictionary, [3, 5]), draws=2)
    return steer(model, methods, PROMPTS, EVEN, (0, 0.5, 2), max_new_tokens=5)


def answer(text, ids):
    return Answer("", text, np.zeros(1, np.int64), np.arange(ids), True)


def made(rng, n=8, draws=2, strengths=(0.5, 1.0, 2.0)):
    """A report of random numbers."""

    def setting(method, strength, lines):
        texts = [[" ".join(rng.choice(list("ab"), 12)) for _ in range(n)] for _ in range(lines)]
        return Setting(
            method, strength, tuple(tuple(answer(t, 5) for t in line) for line in texts),
            (rng.random((lines, n)) < rng.random()).astype(float), 1 + 4 * rng.random((lines, n)),
            rng.random((lines, n)),
        )  # fmt: skip

    settings = [
        setting(method, strength, lines)
        for method, lines in ((REGIONS, 1), (DIFFERENCE, 1), *((c, draws) for c in CONTROLS))
        for strength in strengths
    ]
    order = rng.permutation(n)
    return SteeringReport(
        tuple(map(str, range(n))), setting("baseline", 0.0, 1), tuple(settings),
        order[: n // 2], order[n // 2 :], "raise", {"kind": "made"}, True, FluencyBound(), (),
    )  # fmt: skip


def altered(report, rng):
    """The same with other answers, scores and perplexities of the prompts that do not choose."""

    def alter(setting):
        scores, perplexities = setting.scores.copy(), setting.perplexities.copy()
        scores[:, report.test] = rng.random(scores[:, report.test].shape) < 0.5
        perplexities[:, report.test] *= 1 + 9 * rng.random()
        lines = [list(line) for line in setting.answers]
        for line in lines:
            for i in report.test:
                line[i] = answer("a a a a a a a a", 90)
        return replace(
            setting, scores=scores, perplexities=perplexities, answers=tuple(map(tuple, lines))
        )

    return replace(
        report, baseline=alter(report.baseline), settings=tuple(map(alter, report.settings))
    )


@pytest.mark.parametrize("operation", OPERATIONS)
def test_strength_0_is_the_baseline_to_the_bit(dictionary, model, report, operation):
    nothing = recipe_of(dictionary, [3], operation)(0.0)
    plain = report.baseline.answers[0]
    found = generate(model, PROMPTS, nothing, max_new_tokens=5)
    assert [a.ids.tolist() for a in found] == [a.ids.tolist() for a in plain]
    for a in plain:
        assert not answer_divergence(model, a.prompt_ids, a.ids, lambda n: nothing).any()
    for method in report.methods:
        assert report.measures(method, 0) == report.baseline.measures()
    assert report.baseline.measures().kl == 0


def test_answers_are_those_of_generate_under_the_edits(dictionary, model, report):
    plain = generate(model, PROMPTS, max_new_tokens=5)
    assert [a.text for a in report.baseline.answers[0]] == [a.text for a in plain]
    edits = recipe_of(dictionary, [3, 5])(2.0)
    found = generate(model, PROMPTS, edits, max_new_tokens=5)
    mine = report.at(REGIONS, 2).answers[0]
    assert [a.ids.tolist() for a in mine] == [a.ids.tolist() for a in found]
    assert [a.ids.tolist() for a in mine] != [a.ids.tolist() for a in plain]


def test_measures_are_those_of_a_slow_oracle(dictionary, model, report):
    edits = recipe_of(dictionary, [3, 5])(2.0)
    setting, plain = report.at(REGIONS, 2), report.baseline.answers[0]
    kl = []
    for a in plain:
        ids = torch.tensor([[*a.prompt_ids, *a.ids]])
        with torch.no_grad():
            one = model.module(ids).logits[0].double().numpy()
            with edited(model, edits):
                two = model.module(ids).logits[0].double().numpy()
        p, q = (x - np.log(np.exp(x).sum(1, keepdims=True)) for x in (one, two))
        each = (np.exp(p) * (p - q)).sum(1)[len(a.prompt_ids) - 1 : -1]
        assert len(each) == len(a.ids)
        kl.append(each.mean())
    np.testing.assert_allclose(setting.divergences[0], kl, rtol=1e-3)
    assert setting.measures().kl == pytest.approx(np.mean(kl), rel=1e-3)
    some = np.array([1, 4])
    mine = [setting.answers[0][i] for i in some]
    scored = answers_perplexity(model, [a.prompt_ids for a in mine], [a.ids for a in mine])
    assert setting.measures(some).perplexity == pytest.approx(scored.perplexity, rel=1e-5)
    assert setting.measures(some).score == np.mean([len(a.text) % 2 == 0 for a in mine])
    assert min(kl) > 0


def test_draws_count_alike(report):
    setting = report.at(RANDOM, 2)
    assert len(setting.answers) == 2
    each = [
        replace(setting, answers=(line,), scores=s[None], perplexities=p[None], divergences=d[None])
        for line, s, p, d in zip(
            setting.answers, setting.scores, setting.perplexities, setting.divergences, strict=True
        )
    ]
    one, two = (s.measures() for s in each)
    assert setting.measures().score == pytest.approx((one.score + two.score) / 2)
    assert setting.measures().kl == pytest.approx((one.kl + two.kl) / 2)
    assert one != two


def test_each_token_counts_alike_in_the_perplexity():
    long, short, empty = answer("a", 9), answer("b", 1), answer("", 0)
    setting = Setting(
        "made", 1.0, ((long, short, empty),), None, np.array([[8.0, 2.0, np.nan]]),
        np.array([[0.5, 1.5, np.nan]]),
    )  # fmt: skip
    assert setting.measures().perplexity == pytest.approx(2**2.8)
    assert setting.measures(np.array([1, 2])).perplexity == pytest.approx(2)
    assert np.isnan(setting.measures(np.array([2])).perplexity)
    assert setting.measures().kl == 1
    assert np.isnan(setting.measures().score)


def test_generated_positions_are_those_after_the_prompt(dictionary, model, report):
    recipe = recipe_of(dictionary, [3], positions="generated")
    found = steer(model, {REGIONS: recipe}, PROMPTS, None, (2,), max_new_tokens=5)
    for i, a in enumerate(found.baseline.answers[0]):
        each = answer_divergence(
            model, a.prompt_ids, a.ids,
            lambda n: [replace(e, positions=n) for e in recipe(2.0)],
        )  # fmt: skip
        assert each[0] == 0  # read off the prompt's last token, which is not edited
        assert (each[1:] > 0).all()
        assert found.settings[0].divergences[0, i] == each.mean()


@pytest.mark.parametrize("seed", range(40))
def test_test_answers_choose_nothing(seed):
    rng = np.random.default_rng(seed)
    report = made(rng)
    one, two = choices_of(report), choices_of(altered(report, rng))
    assert [(c.strength, c.fluent, c.control) for c in one] == [
        (c.strength, c.fluent, c.control) for c in two
    ]


def test_the_choice_is_that_of_a_slow_oracle():
    n_found, seen = 0, set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        report = replace(made(rng), aim=("raise", "lower")[seed % 2])
        sign = (1, -1)[seed % 2]
        for choice in choices_of(report):
            best, lead = None, 0.0
            plain = report.baseline.measures(report.select)
            for strength in report.strengths:
                mine = report.measures(choice.method, strength, "select")
                fluent = (
                    mine.perplexity <= 2 * plain.perplexity
                    and mine.repetition <= plain.repetition + 0.1
                )
                rivals = [report.measures(c, strength, "select").score for c in CONTROLS]
                ahead = min(sign * (mine.score - r) for r in rivals)
                better = sign * (mine.score - plain.score) > 0
                assert (strength in choice.fluent) == fluent
                if fluent and better and ahead > lead:
                    best, lead = strength, ahead
            assert choice.strength == best
            n_found += best is not None
            seen.add(choice.control)
            assert choice.method in (REGIONS, DIFFERENCE)
    assert n_found > 10
    assert seen == {"", RANDOM, RANDOM_REGIONS}


def test_what_is_reported_is_of_the_other_half():
    rng = np.random.default_rng(1)
    reports = [made(rng) for _ in range(20)]
    for report, choice in ((r, c) for r in reports for c in choices_of(r) if c.strength):
        scores = report.at(choice.method, choice.strength).scores[0, report.test]
        mean, low, high = wilson(int(scores.sum()), len(scores))
        assert (choice.score.estimate, choice.score.low, choice.score.high) == (mean, low, high)
        rival = report.at(choice.control, choice.strength).scores[:, report.test].mean()
        assert choice.control_score.estimate == pytest.approx(rival)
        assert choice.difference.estimate == pytest.approx(scores.mean() - rival)
        assert choice.difference.low <= choice.difference.estimate <= choice.difference.high
        assert set(report.test) | set(report.select) == set(range(len(report.prompts)))
        text = choice_text(report, choice)
        assert f"strength {choice.strength:g}, chosen on 4 prompts" in text
        assert ("not told apart" in text) == (choice.difference.low <= 0)
        assert ("less fluent" in text) == (not choice.still_fluent)


def test_of_equal_strengths_the_smallest_is_chosen():
    report = made(np.random.default_rng(0), strengths=(2.0, -0.5, 1.0))
    equal = tuple(
        replace(
            s, scores=np.full_like(s.scores, float(s.method == REGIONS)),
            perplexities=np.ones_like(s.perplexities),
            answers=report.baseline.answers * len(s.answers),
        )
        for s in report.settings
    )  # fmt: skip
    nothing = replace(report.baseline, scores=np.zeros_like(report.baseline.scores))
    found = choices_of(replace(report, settings=equal, baseline=nothing))
    assert found[0].strength == -0.5
    assert found[1].strength is None  # no better than the baseline


def test_no_strength_passes_where_answers_break(report):
    broken = replace(report, bound=FluencyBound(perplexity=0.0))
    found = choices_of(broken)
    assert [c.strength for c in found] == [None]
    assert "no strength passed: at none of them the answers" in choice_text(broken, found[0])
    useless = replace(
        report, settings=tuple(
            replace(s, scores=np.zeros_like(s.scores)) for s in report.settings
        ), bound=FluencyBound(perplexity=np.inf, repetition=1),
    )  # fmt: skip
    (one,) = choices_of(useless)
    assert one.strength is None
    assert "was not higher than both" in choice_text(useless, one)
    nan = made(np.random.default_rng(0))
    nan = replace(nan, baseline=replace(nan.baseline, perplexities=np.full((1, 8), np.nan)))
    assert {c.fluent for c in choices_of(nan)} == {()}


def test_controls_are_matched_in_number_and_reproducible(dictionary):
    recipe = recipe_of(dictionary, [3, 5, 3])
    assert recipe.regions == (3, 5)
    one, two, other = (with_controls(dictionary, recipe, draws=3, seed=s) for s in (0, 0, 1))
    assert list(one) == [REGIONS, RANDOM, RANDOM_REGIONS]
    for name in CONTROLS:
        pairs = zip(one[name], two[name], other[name], strict=True)
        for a, b, c in pairs:
            assert np.array_equal(a.directions, b.directions)
            assert not np.array_equal(a.directions, c.directions)
            assert a.directions.shape == recipe.directions.shape
        assert len({a.directions.tobytes() for a in one[name]}) == 3
    for a in one[RANDOM_REGIONS]:
        assert not {3, 5} & set(a.regions)
        assert np.array_equal(a.directions, dictionary.exemplars[list(a.regions)])
    assert list(with_controls(dictionary, recipe, draws=0)) == [REGIONS]
    most = recipe_of(dictionary, range(len(dictionary) - 1))
    assert RANDOM_REGIONS not in with_controls(dictionary, most)


def test_the_same_sweep_twice_is_the_same(dictionary, model, report):
    methods = with_controls(dictionary, recipe_of(dictionary, [3, 5]), draws=2)
    again = steer(model, methods, PROMPTS, EVEN, (0, 0.5, 2), max_new_tokens=5)
    assert to_json(steering_summary(again)) == to_json(steering_summary(report))


def test_the_contrast_is_that_of_a_slow_oracle(built, dictionary, model):
    yes, no = (read_lines(built / f"{name}.txt") for name in ("yes", "no"))
    found = contrast_of(dictionary, model, yes, no)
    vectors = []
    for text in [*yes, *no]:
        rows = next(iter(ex.read_activations(model, dictionary.site, ex.texts([text]))))[0].vectors
        vectors.append(rows.double().numpy()[len(rows) // 2 :].mean(0))
    vectors = np.array(vectors)
    unit = vectors - dictionary.center
    unit /= np.linalg.norm(unit, axis=1, keepdims=True)
    cosines = unit @ dictionary.means.T.astype(float)
    gaps = cosines[: len(yes)].mean(0) - cosines[len(yes) :].mean(0)
    assert found.region == gaps.argmax()
    assert found.gap == pytest.approx(gaps.max(), abs=1e-4)
    difference = vectors[: len(yes)].mean(0) - vectors[len(yes) :].mean(0)
    np.testing.assert_allclose(found.difference, difference / np.linalg.norm(difference), atol=1e-4)
    assert (found.positives, found.negatives) == (len(yes), len(no))
    assert contrast_of(dictionary, model, no, yes).gap == pytest.approx((-gaps).max(), abs=1e-4)


def test_wrong_arguments_are_one_sentence(dictionary, model):
    recipe = recipe_of(dictionary, [3])
    bare = replace(dictionary, provenance={})
    outside = from_callable(lambda p, a: True, "odd")
    for call, sentence in (
        (lambda: steer(model, {REGIONS: recipe}, PROMPTS, aim="up", **FEW), 'the aim is "up"'),
        (lambda: steer(model, {REGIONS: recipe}, [], **FEW), "no prompt was given"),
        (lambda: steer(model, {REGIONS: recipe}, ["a", "a"], **FEW), "1 prompts were given twice"),
        (lambda: steer(model, {REGIONS: recipe}, ["a"], None, (0,)), "at least one of them not 0"),
        (lambda: steer(model, {REGIONS: recipe}, ["a"], None, (np.nan,)), "must be finite"),
        (lambda: steer(model, {}, ["a"], **FEW), "the sweep has nothing to edit with"),
        (lambda: steer(model, {RANDOM: ()}, ["a"], **FEW), "random directions has nothing"),
        (lambda: steer(model, {"baseline": recipe}, ["a"], **FEW), "rename it"),
        (lambda: steer(model, {REGIONS: recipe}, ["a"], _Odd([2.0]), **FEW), "outside of 0 to 1"),
        (lambda: steer(model, {REGIONS: recipe}, ["a"], _Odd([np.nan]), **FEW), "outside of 0"),
        (lambda: steer(model, {REGIONS: recipe}, ["a"], _Odd([0, 1]), **FEW), "one for each"),
        (lambda: recipe_of(dictionary, []), "no region was given"),
        (lambda: recipe_of(dictionary, [10**6]), "region 1000000 does not exist"),
        (lambda: recipe_of(dictionary, [1], "swap"), 'the operation is "swap"'),
        (lambda: recipe_of(bare, [1]), "does not say which site"),
        (lambda: with_controls(dictionary, recipe, draws=-1), "draws is -1"),
        (lambda: contrast_of(dictionary, model, [], ["a"]), "texts of one class alone"),
        (lambda: contrast_of(dictionary, model, ["the"], ["a", "the"]), "'the' is in both classes"),
        (lambda: contrast_of(bare, model, ["the"], ["a"]), "does not say which site"),
        (lambda: Rule("verse"), 'there is no rule "verse"; choose spanish'),
    ):
        with pytest.raises(ValueError, match=sentence.replace("(", r"\(")):
            call()
    assert outside(["a"], ["b"]).all()


class _Odd:
    name = "odd"

    def __init__(self, values):
        self.values = values

    def describe(self):
        return {}

    def __call__(self, prompts, answers):
        return np.array(self.values)


def test_an_empty_mean_is_refused(dictionary):
    means = dictionary.means.copy()
    means[3] = np.nan
    empty = replace(dictionary, members=replace(dictionary.members, means=means))
    assert recipe_of(empty, [3]).regions == (3,)
    drawn = with_controls(empty, recipe_of(empty, [1], basis="mean"), basis="mean", draws=30)
    assert all(3 not in recipe.regions for recipe in drawn[RANDOM_REGIONS])
    with pytest.raises(ValueError, match="region 3 has no mean direction"):
        recipe_of(empty, [3], basis="mean")


def test_without_a_score_nothing_is_chosen(dictionary, model):
    recipe = recipe_of(dictionary, [3])
    found = steer(model, {REGIONS: recipe}, PROMPTS, **FEW)
    assert found.choices == ()
    said = steering_text(found)
    assert "Nothing was scored" in said
    assert "score" not in said.splitlines()[2]
    few = steer(model, {REGIONS: recipe}, PROMPTS[:3], EVEN, **FEW)
    assert few.choices == ()
    assert "3 prompts are too few" in steering_text(few)
    alone = steer(model, {"my own": recipe}, PROMPTS, EVEN, **FEW)
    assert [c.method for c in alone.choices] == ["my own"]


def test_progress_counts_every_answer(dictionary, model):
    steps = []
    methods = with_controls(dictionary, recipe_of(dictionary, [3]), draws=2)
    steer(
        model, methods, PROMPTS[:3], None, (0, 1, 1.0, 2), max_new_tokens=1, batch_size=2,
        on_step=lambda *step: steps.append(step),
    )  # fmt: skip
    total = 3 * (1 + 5 * 2)
    assert steps[0] == ("answers", 0, total)
    assert steps[-1] == ("answers", total, total)
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def test_the_first_difference_is_where_texts_part():
    rng = np.random.default_rng(0)
    for _ in range(300):
        a, b = ("".join(rng.choice(list("ab \n"), rng.integers(0, 9))) for _ in range(2))
        where = first_difference(a, b)
        if a == b:
            assert where is None
            continue
        assert a[:where] == b[:where]
        assert where == 0 or where == len(b) or b[where - 1].isspace()
        assert first_difference(a, a) is None
    assert first_difference("one two three", "one twice three") == 4
    assert marked("one two", "one two") == "(the same)"
    assert marked("one two", "one too") == f"one {MARK}too"
    long = "word " * 200
    assert marked(f"{long}a", f"{long}b").endswith(f"{MARK}b")
    assert len(marked(f"{long}a", f"{long}b")) < 310


def test_hostile_text_cannot_write_to_the_terminal(report):
    bad = "\x1b[31mred\u202e\r\n"
    hostile = replace(
        report, prompts=tuple(f"{bad}{p}" for p in report.prompts),
        settings=tuple(
            replace(s, answers=tuple(tuple(replace(a, text=bad) for a in r) for r in s.answers))
            for s in report.settings
        ), about={"operation": bad, "site": bad},
    )  # fmt: skip
    said = steering_text(hostile, show=6)
    for character in "\x1b\u202e\r":
        assert character not in said
    assert "\x1b" not in to_json(steering_summary(hostile))


def test_text_and_summary_agree(report):
    said, plain = steering_text(report), json.loads(to_json(steering_summary(report)))
    lines = said.splitlines()
    for setting in plain["settings"]:
        found = setting["all"]
        assert any(
            line.startswith(setting["method"])
            and f"{found['score']:.2f}" in line
            and f"{found['kl']:.3f}" in line
            and f"{found['perplexity']:.4g}" in line
            for line in lines
        ), setting["method"]
        assert len(setting["answers"][0]) == len(PROMPTS)
    assert plain["choices"][0]["sentence"] in said
    assert sorted(plain["select"] + plain["test"]) == list(range(len(PROMPTS)))
    assert said.count("prompt ") - said.count(" prompt ") >= 3


def test_the_figure_has_a_line_for_each_method(report):
    left, right = steering_figure(report).axes
    assert [line.get_label() for line in left.get_lines()] == report.methods
    for method, line in zip(report.methods, left.get_lines(), strict=True):
        assert line.get_xdata().tolist() == [0, 0.5, 2]
        assert line.get_ydata()[2] == report.measures(method, 2).score
    assert right.get_lines()[0].get_ydata()[0] == report.baseline.measures().perplexity


def test_a_pattern_is_binary_and_a_rule_is_graded(dictionary, model):
    recipe = recipe_of(dictionary, [3])
    yes = steer(model, {REGIONS: recipe}, PROMPTS, Pattern("[a-m]"), **FEW)
    graded = steer(model, {REGIONS: recipe}, PROMPTS, Rule("uppercase"), **FEW)
    assert (yes.binary, graded.binary) == (True, False)
    assert graded.scorer == {"kind": "rule", "name": "uppercase"}


SAMPLES = {
    "spanish": "¿Cómo está usted? El niño está en la casa con su perro, pero no quiere salir.",
    "french": "Où est la bibliothèque ? Nous sommes très contents d'être ici avec vous.",
    "code": "def area(radius):\n    return 3.14 * radius ** 2\n\nprint(area(2))\nx = 1\n",
    "uppercase": "THIS IS VERY LOUD INDEED",
    "cyrillic": "Привет, как дела сегодня?",
    "equations": "x^2 + y^2 = z^2, so 3 + 4 = 7 and $a = b$",
    "biomedical": "The patients received insulin therapy; plasma glucose and liver enzymes fell.",
    "": "This morning we walked along the river and talked about nothing in particular.",
}


@pytest.mark.parametrize("name", RULES)
def test_a_rule_likes_its_own_sample_best(name):
    scores = {kind: RULES[name](text) for kind, text in SAMPLES.items()}
    assert max(scores, key=scores.get) == name
    assert scores[name] > 0.4
    assert scores[""] < 0.1
    assert max(s for kind, s in scores.items() if kind != name) < scores[name] / 1.8


def test_rules_are_shares_of_any_text_and_quick():
    started = time.perf_counter()
    rng = np.random.default_rng(0)
    texts = ["", " ", "\x00\x1b", "🌊" * 50, "ñ", "a" * 4000, "1+" * 2000, " " * 4000, "\\(" * 2000]
    texts += ["x=" * 2000, "a.b(" * 1000, "^{" * 2000, "$" * 3999, "if " * 1500, "<a" * 2000]
    texts += ["".join(map(chr, rng.integers(1, 0x2500, 200))) for _ in range(40)]
    for text in texts:
        for rule in RULES.values():
            assert 0 <= rule(text) <= 1
    assert time.perf_counter() - started < 5
    found = Rule("uppercase")(["", ""], ["ABc", ""])
    np.testing.assert_allclose(found, [2 / 3, 0])


def test_the_halves_do_not_depend_on_answers(report, dictionary, model):
    one = steer(model, {REGIONS: recipe_of(dictionary, [7])}, PROMPTS, None, (1,), max_new_tokens=1)
    assert np.array_equal(one.select, report.select)
    other = steer(
        model, {REGIONS: recipe_of(dictionary, [7])}, PROMPTS, None, (1,), max_new_tokens=1, seed=3
    )
    assert not np.array_equal(other.select, report.select)
    assert len(one.select) + len(one.test) == len(PROMPTS)
    assert steering.HALVES == ("select", "test", "all")
