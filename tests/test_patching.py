"""Activation patching: every condition equals a slow oracle, and pairs are what they should be."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

import exemplars as ex
from exemplars.analyses import patching
from exemplars.analyses.patching import (
    CATEGORIES,
    CONDITIONS,
    EXACT,
    ITEMS,
    NO_FILL,
    NO_ROW,
    NO_TARGET,
    OWN,
    RANDOM,
    REGION,
    SHARED_TARGET,
    UNPATCHED,
    Cloze,
    items_of,
    patch_pairs,
    read_items,
)
from exemplars.errors import SourceError
from exemplars.labels.detection import wilson
from exemplars.report import to_json
from exemplars.report.patching import patching_sentence, patching_summary, patching_text
from labelled_build import labelled_build

TARGETS = ("the", "a", "x")
"""All that begin with another token in the tests' tokenizer."""
FILLS = ("tin", "heron", "around", "ßß", "other", "out")
SMALL = (
    *(Cloze("one", f"the {f} out", f, t) for f, t in zip(FILLS[:3], TARGETS, strict=True)),
    *(Cloze("two", f"an {f}", f, t) for f, t in zip(FILLS[3:], TARGETS, strict=True)),
    *(Cloze("three", f"{f} an {f} tin", f, t) for f, t in zip(FILLS[1:4], TARGETS, strict=True)),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return labelled_build(tmp_path_factory.mktemp("patching"))


@pytest.fixture(scope="module")
def dictionary(built):
    return ex.load(built / "d")


@pytest.fixture(scope="module")
def model(built):
    return ex.load_model(str(built / "model"))


@pytest.fixture(scope="module")
def report(dictionary, model):
    return patch_pairs(model, dictionary, SMALL)


def ids_of(model, text):
    return model.tokenizer(text)["input_ids"]


def fill_of(model, item):
    """The last token of the fill word, by decoding ever longer beginnings."""
    ids = ids_of(model, item.prompt)
    end = len(item.prompt[: item.prompt.rindex(item.fill) + len(item.fill)].encode())
    for n in range(1, len(ids) + 1):
        said = model.tokenizer.decode(ids[:n], skip_special_tokens=True)
        if len(said.encode("utf-8", "ignore")) >= end and "\ufffd" not in said:
            return n - 1
    raise AssertionError


def run(model, site, ids, place=None, vector_of=None):
    """Log-probabilities at the final position, and the vector at `place` before a change."""
    seen = {}

    def hook(module, inputs, output):
        x = output[0] if isinstance(output, tuple) else output
        if place is None:
            return output
        seen["x"] = x[0, place].double().numpy().copy()
        if vector_of is None:
            return output
        changed = x.clone()
        changed[0, place] = torch.from_numpy(vector_of(seen["x"])).to(x.dtype)
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    handle = model.module.get_submodule(model.site(site).module_path).register_forward_hook(hook)
    try:
        with torch.no_grad():
            logits = model.module(torch.tensor([ids])).logits[0, -1].double().numpy()
    finally:
        handle.remove()
    return logits - np.log(np.exp(logits).sum()), seen.get("x")


def test_every_condition_is_that_of_a_slow_oracle(dictionary, model, report):
    site, c = dictionary.site, dictionary.center.astype(float)
    read = [(ids_of(model, i.prompt), fill_of(model, i)) for i in report.items]
    plain, vectors = zip(*(run(model, site, *r) for r in read), strict=True)
    targets = [ids_of(model, f"{i.prompt} {i.target}")[len(ids_of(model, i.prompt))]
               for i in report.items]  # fmt: skip
    assert report.regions.tolist() == dictionary.assign(np.array(vectors, np.float32))[0].tolist()
    assert report.known.tolist() == [p.argmax() == t for p, t in zip(plain, targets, strict=True)]

    def at_region(region):
        unit = dictionary.means[region].astype(float)
        return lambda x: np.linalg.norm(x - c) * unit / np.linalg.norm(unit) + c

    for k, (a, b) in enumerate(report.pairs.tolist()):
        ways = {
            UNPATCHED: lambda x: x,
            OWN: at_region(report.regions[a]),
            REGION: at_region(report.regions[b]),
            EXACT: lambda x, b=b: vectors[b],
        }
        for condition, way in ways.items():
            row, _ = run(model, site, *read[a], way)
            found = report.outcomes[condition]
            shift = (row[targets[b]] - row[targets[a]]) - (
                plain[a][targets[b]] - plain[a][targets[a]]
            )
            kl = np.sum(np.exp(row) * (row - plain[b]))
            assert found.shifts[k] == pytest.approx(shift, abs=2e-3), condition
            assert found.divergences[k] == pytest.approx(kl, abs=2e-3), condition
            assert found.flips[k] == (row.argmax() == targets[b]), condition


def test_unpatched_prompts_do_not_shift(report):
    assert not report.outcomes[UNPATCHED].shifts.any()
    assert set(report.outcomes) == set(CONDITIONS)
    for name in CONDITIONS[1:]:
        assert np.abs(report.outcomes[name].shifts).max() > 0


def test_pairs_are_ordered_of_one_category_and_of_two_regions(dictionary, model, report):
    n = [sum(i.category == c for i in report.items) for c in report.categories]
    assert report.possible + report.same_region == sum(k * (k - 1) for k in n)
    assert len(report.pairs) == report.possible
    assert len({tuple(p) for p in report.pairs.tolist()}) == len(report.pairs)
    for a, b in report.pairs.tolist():
        assert a != b
        assert report.items[a].category == report.items[b].category
        assert report.regions[a] != report.regions[b]
    one, two, other = (patch_pairs(model, dictionary, SMALL, pairs=6, seed=s) for s in (0, 0, 1))
    assert np.array_equal(one.pairs, two.pairs)
    assert not np.array_equal(one.pairs, other.pairs)
    assert len(one.pairs) == 6
    everything = {tuple(p) for p in report.pairs.tolist()}
    assert {tuple(p) for p in one.pairs.tolist()} < everything
    for name in CONDITIONS:
        assert np.array_equal(one.outcomes[name].shifts, two.outcomes[name].shifts)


def test_the_random_region_is_another(dictionary, model, monkeypatch):
    seen = []
    draw = patching._other_region

    def spied(usable, not_these, random):
        found = draw(usable, not_these, random)
        seen.append((tuple(not_these), found))
        return found

    monkeypatch.setattr(patching, "_other_region", spied)
    report = patch_pairs(model, dictionary, SMALL)
    assert [pair for pair, _ in seen] == [
        (report.regions[a], report.regions[b]) for a, b in report.pairs
    ]
    assert all(found not in pair for pair, found in seen)
    assert len({found for _, found in seen}) > 1
    random = np.random.default_rng(0)
    assert {draw(np.arange(4), (1, 3), random) for _ in range(50)} == {0, 2}
    # and it is what is patched
    k, c = 0, dictionary.center.astype(float)
    a = report.items[report.pairs[k, 0]]
    unit = dictionary.means[seen[k][1]].astype(float)
    row, _ = run(
        model, dictionary.site, ids_of(model, a.prompt), fill_of(model, a),
        lambda x: np.linalg.norm(x - c) * unit + c,
    )  # fmt: skip
    other = report.items[report.pairs[k, 1]]
    b, _ = run(model, dictionary.site, ids_of(model, other.prompt))
    kl = np.sum(np.exp(row) * (row - b))
    assert report.outcomes[RANDOM].divergences[k] == pytest.approx(kl, abs=2e-3)


@pytest.mark.parametrize("batch_size", [1, 3])
def test_pairs_in_a_batch_leave_each_other_alone(dictionary, model, report, batch_size):
    alone = patch_pairs(model, dictionary, SMALL, batch_size=batch_size)
    for name in CONDITIONS:
        one, two = report.outcomes[name], alone.outcomes[name]
        np.testing.assert_allclose(one.shifts, two.shifts, atol=2e-3)
        np.testing.assert_allclose(one.divergences, two.divergences, atol=2e-3)


def test_what_cannot_be_used_is_left_out_and_counted(dictionary, model):
    odd = (
        Cloze("one", "the tin out", "tan", "the"),  # no such word
        Cloze("one", "the tin out", "tin", "xyz"),  # begins as another's of the category
        Cloze("four", "the tin out", "tin", "xyz"),
    )
    found = patch_pairs(model, dictionary, (*SMALL, *odd))
    assert found.dropped == {NO_FILL: 1, SHARED_TARGET: 1}
    assert found.items == (*SMALL, odd[2])
    said = patching_text(found)
    assert f"1 items were left out: {NO_FILL}." in said


def test_a_target_that_merges_with_the_prompt_is_left_out(dictionary, model, monkeypatch):
    real = patching.tokenize_prompts

    def merging(texts, tokenizer, chat):
        return real([t.replace("tin out the", "tin outhe") for t in texts], tokenizer, chat=chat)

    monkeypatch.setattr(patching, "tokenize_prompts", merging)
    found = patch_pairs(model, dictionary, SMALL)
    assert found.dropped == {NO_TARGET: 1}
    assert found.items == SMALL[1:]


def test_a_fill_word_without_a_row_is_left_out(dictionary, model, monkeypatch):
    monkeypatch.setattr(
        patching, "_fill_rows",
        lambda m, s, items, real=patching._fill_rows: [None, *real(m, s, items)[1:]],
    )  # fmt: skip
    found = patch_pairs(model, dictionary, SMALL)
    assert found.dropped == {NO_ROW: 1}


def test_of_several_places_the_last_is_patched(dictionary, model):
    item = Cloze("one", "tin the tin out", "tin", "z")
    place, vector = patching._fill_rows(model, dictionary.site, [item])[0]
    ids = ids_of(model, item.prompt)
    assert place == fill_of(model, item)
    _, seen = run(model, dictionary.site, ids, place)
    np.testing.assert_allclose(vector, seen, atol=1e-5)


def test_intervals_are_of_the_chosen_pairs(report):
    for category in (None, *report.categories):
        chosen = report.of(category)
        for name in CONDITIONS:
            effect, found = report.effect(name, category), report.outcomes[name]
            flips = found.flips[chosen]
            assert effect.n == len(flips)
            assert (effect.flip.estimate, effect.flip.low, effect.flip.high) == wilson(
                int(flips.sum()), len(flips)
            )
            assert effect.shift.estimate == pytest.approx(found.shifts[chosen].mean())
            assert effect.kl.estimate == pytest.approx(found.divergences[chosen].mean())
            assert effect.kl.low <= effect.kl.estimate <= effect.kl.high
    assert report.effect(REGION, "four") is None


def test_the_bootstrap_draws_whole_prompts():
    values, clusters = np.array([0.0, 0.0, 1.0, 1.0]), np.array([7, 7, 9, 9])
    found = patching._clustered(values, clusters)
    assert (found.estimate, found.low, found.high) == (0.5, 0, 1)
    one = patching._clustered(values, np.zeros(4, int))
    assert (one.low, one.high) == (0.5, 0.5)
    rng = np.random.default_rng(0)
    many = rng.normal(size=400)
    wide = patching._clustered(many, np.arange(400))
    assert wide.high - wide.low == pytest.approx(2 * 1.96 * many.std() / 20, rel=0.15)


def test_more_flips_is_paired(report):
    made = replace(
        report, outcomes={
            name: replace(report.outcomes[name], flips=np.full(len(report.pairs), name == REGION))
            for name in CONDITIONS
        }
    )  # fmt: skip
    found = made.more_flips(REGION, RANDOM)
    assert (found.estimate, found.low, found.high) == (1, 1, 1)
    assert "more than the random region by +1.00" in patching_sentence(made)
    none = replace(made, outcomes=dict.fromkeys(CONDITIONS, made.outcomes[RANDOM]))
    assert "not told apart from the random region" in patching_sentence(none)


def test_the_built_in_items():
    counts = {c: len(items_of([c])) for c in CATEGORIES}
    assert counts == {"capitals": 20, "languages": 15, "colours": 12, "months": 11, "days": 7}
    assert items_of([]) == ITEMS
    for category in CATEGORIES:
        mine = items_of([category])
        assert len({i.target for i in mine}) == len({i.fill for i in mine}) == len(mine)
        assert len({i.prompt.replace(i.fill, "") for i in mine}) == 1
    for item in ITEMS:
        assert item.prompt.count(item.fill) == 1
        assert not item.prompt.startswith(item.fill)
        assert not item.prompt.endswith(item.fill)
        assert item.target not in item.prompt.split()


def test_items_go_through_a_file(tmp_path):
    path = tmp_path / "items.jsonl"
    path.write_text("\n".join(json.dumps(vars(item)) for item in ITEMS) + "\n\n", encoding="utf-8")
    assert read_items(path) == ITEMS


@pytest.mark.parametrize(
    "line", ["{", "[]", "3", '{"category": "a"}', '{"category":"a","prompt":"b","fill":"","target":'
             '"c"}', '{"category":"a","prompt":"b","fill":1,"target":"c"}', "null"]
)  # fmt: skip
def test_a_line_that_is_no_item_is_one_sentence(tmp_path, line):
    path = tmp_path / "items.jsonl"
    path.write_text(f"{json.dumps(vars(ITEMS[0]))}\n{line}\n", encoding="utf-8")
    with pytest.raises(SourceError, match=r"line 2 of .* is no item"):
        read_items(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SourceError, match="cannot be read"):
        read_items(path)
    path.write_text("\n")
    with pytest.raises(SourceError, match="holds no items"):
        read_items(path)
    with pytest.raises(SourceError, match="cannot be read"):
        read_items(tmp_path / "none.jsonl")


def test_wrong_arguments_are_one_sentence(dictionary, model):
    same = [replace(SMALL[0], target=t) for t in "ab"]
    for call, sentence in (
        (lambda: patch_pairs(model, dictionary, SMALL, pairs=0), "pairs and batch_size are 0"),
        (lambda: patch_pairs(model, dictionary, []), "no item was given"),
        (lambda: patch_pairs(model, dictionary, same), "are in different regions; give other"),
        (lambda: patch_pairs(model, dictionary, [same[0], replace(same[0], fill="q")]), "1 items"),
        (lambda: patch_pairs(model, replace(dictionary, provenance={}), SMALL), "which site"),
        (lambda: patch_pairs(model, dictionary, SMALL, basis="x"), "basis"),
        (lambda: items_of(["poems"]), "no category 'poems'; choose 'capitals'"),
    ):
        with pytest.raises(ValueError, match=sentence):
            call()


def test_progress_ends_at_its_total(dictionary, model, report):
    steps = []
    patch_pairs(model, dictionary, SMALL, batch_size=3, on_step=lambda *step: steps.append(step))
    assert {what for what, *_ in steps} == {"passes"}
    assert steps[-1][1] == steps[-1][2] == len(steps)


def test_the_model_is_as_before(dictionary, model, report):
    ids = torch.tensor([ids_of(model, "the tin")])
    with torch.no_grad():
        one = model.module(ids).logits
        patch_pairs(model, dictionary, SMALL[:5], pairs=3)
        assert torch.equal(model.module(ids).logits, one)


def test_text_and_summary_agree_and_hostile_items_are_shown_safely(report):
    said, plain = patching_text(report), json.loads(to_json(patching_summary(report)))
    for name in CONDITIONS:
        effect = plain["conditions"][name]
        line = next(line for line in said.splitlines() if line.startswith(name + "  "))
        assert f"{effect['flip']['estimate']:.2f}" in line
        assert f"{effect['shift']['estimate']:+.2f}" in line
        assert f"{effect['kl']['estimate']:.2f}" in line
    assert plain["sentence"] in said
    assert len(plain["pairs"]) == len(report.pairs)
    bad = "\x1b[31m\u202e\n"
    hostile = replace(
        report, items=tuple(replace(i, category=bad + i.category) for i in report.items),
        about={"site": bad, "n_regions": 3},
    )  # fmt: skip
    text = patching_text(hostile)
    assert "\x1b" not in text
    assert "\u202e" not in text
