"""Paths through the regions of several sites: read rightly, counted rightly, and their nulls."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from exemplars.analyses import trajectories
from exemplars.analyses.trajectories import Chance, TokenPaths, read_paths
from exemplars.models import load_model
from tiny_models import tiny_module

SITES = ("resid_post.0", "resid_post.1", "resid_post.2")
PROMPTS = {"sea": ["the sea", "salt and the sea, the other sea"], "moon": ["a moon", "then"]}


@pytest.fixture(scope="module")
def model():
    return load_model(tiny_module(vocab_size=300), make_tokenizer("chat"))


@pytest.fixture(scope="module")
def dictionaries(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("sites") / "d"
    found = ex.build(
        model, list(SITES), ex.texts(documents()), percentile=20, rows=600, out=out, **SETTINGS
    )
    return [found[key] for key in found] if isinstance(found, dict) else list(found)


@pytest.fixture(scope="module")
def paths(model, dictionaries):
    return read_paths(model, dictionaries[::-1], PROMPTS)


def test_every_token_is_where_a_trace_of_each_site_says(model, dictionaries, paths):
    assert paths.sites == SITES
    assert paths.sets == ("sea", "moon")
    assert paths.label.tolist() == [0, 0, 1, 1]
    texts = ex.texts([text for several in PROMPTS.values() for text in several])
    for s, dictionary in enumerate(dictionaries):
        traces = ex.trace(dictionary, model, texts)
        region = np.concatenate([t.region for t in traces])
        outlier = np.concatenate([t.norm_outlier for t in traces])
        assert paths.region[:, s].tolist() == np.where(outlier, -1, region).tolist()
        distance = np.concatenate([t.distance_in_thresholds for t in traces])
        assert paths.distance[~outlier, s] == pytest.approx(distance[~outlier], abs=1e-4)
        assert paths.token.tolist() == np.concatenate([t.token for t in traces]).tolist()
        assert paths.n_regions[s] == len(dictionary)


def test_final_vectors_are_those_of_the_last_row_and_do_not_depend_on_padding(
    model, dictionaries, paths
):
    for k, text in enumerate(t for several in PROMPTS.values() for t in several):
        alone = read_paths(model, dictionaries, {"alone": [text]})
        for s in range(3):
            mine = paths.final_vectors[s][k]
            assert alone.final_vectors[s][0] == pytest.approx(mine, abs=1e-4)
        assert alone.final_regions[0].tolist() == paths.final_regions[k].tolist()


def test_the_chat_template_is_used_when_asked_for(model, dictionaries, paths):
    chat = read_paths(model, dictionaries, PROMPTS, chat=True)
    assert len(chat.prompt) > len(paths.prompt)
    assert len(set(chat.token[chat.final].tolist())) == 1  # that of the template's end


def test_sites_models_and_prompts_that_do_not_fit_are_refused(model, dictionaries):
    with pytest.raises(ValueError, match="1 dictionary was given, expected two sites"):
        read_paths(model, dictionaries[:1], PROMPTS)
    with pytest.raises(ValueError, match=r"two dictionaries are of resid_post\.0"):
        read_paths(model, [dictionaries[0]] * 2, PROMPTS)
    with pytest.raises(ValueError, match="'then' was given twice"):
        read_paths(model, dictionaries, {"a": ["then"], "b": ["then"]})
    with pytest.raises(ValueError, match="a set has no prompts"):
        read_paths(model, dictionaries, {"a": ["then"], "b": []})
    with pytest.raises(ValueError, match=r"prompt 2 has [0-9]+ tokens and 64 are read"):
        read_paths(model, dictionaries, {"a": ["then", "the " * 99]})
    with pytest.raises(ValueError, match="prompt 2 has no rows"):
        read_paths(model, dictionaries, {"a": ["then", ""]})
    other = load_model(tiny_module(seed=5, vocab_size=300), make_tokenizer("chat"))
    with pytest.raises(ex.MismatchError):
        read_paths(other, dictionaries, PROMPTS)
    nowhere = replace(dictionaries[1], provenance={})
    with pytest.raises((ValueError, ex.MismatchError), match="does not say"):
        read_paths(model, [dictionaries[0], nowhere], PROMPTS, allow_mismatch=True)


def made(region, label, prompt=None, token=None, sets=("a", "b")):
    region, label = np.array(region), np.array(label)
    prompt = np.arange(len(region)) if prompt is None else np.array(prompt)
    token = np.zeros(len(region), np.int64) if token is None else np.array(token)
    vectors = tuple(np.ones((len(label), 2), np.float32) for _ in range(region.shape[1]))
    return TokenPaths(
        tuple(f"s.{k}" for k in range(region.shape[1])),
        tuple(int(c.max()) + 1 for c in region.T), sets,
        tuple(f"p{k}" for k in range(len(label))), label, region,
        np.zeros(region.shape, np.float32), prompt, token, vectors,
    )  # fmt: skip


def random_paths(n=400, seed=0, k=(5, 4, 6)):
    rng = np.random.default_rng(seed)
    region = np.stack([rng.integers(-1, size, n) for size in k], axis=1)
    return made(region, rng.integers(0, 2, n), token=rng.integers(0, 3, n))


def test_flows_are_counts_of_pairs_and_information_is_that_of_sklearn():
    from sklearn.metrics import mutual_info_score

    paths = random_paths()
    for s, flow in enumerate(trajectories.flows(paths, 19)):
        kept = (paths.region[:, s] >= 0) & (paths.region[:, s + 1] >= 0)
        one, two = paths.region[kept, s], paths.region[kept, s + 1]
        counted = Counter(zip(one.tolist(), two.tolist(), strict=True))
        found = dict(zip(zip(flow.source, flow.target, strict=True), flow.count, strict=True))
        assert found == counted
        assert flow.count.tolist() == sorted(flow.count, reverse=True)
        assert flow.rows == kept.sum() == flow.count.sum()
        bits = mutual_info_score(one, two) / np.log(2)
        assert flow.mutual_information_bits == pytest.approx(bits)
        total = flow.conditional_entropy_bits + bits
        assert total == pytest.approx(flow.target_entropy_bits)


def test_independent_sites_have_information_within_chance_and_a_copy_has_all_of_it():
    paths = random_paths(600, 1)
    paths = replace(paths, region=np.maximum(paths.region, 0))
    flow = trajectories.flows(paths, 199)[0]
    assert flow.chance.low < flow.mutual_information_bits < flow.chance.high
    assert flow.chance.mean > 0  # biased upwards
    region = paths.region.copy()
    region[:, 1] = (region[:, 0] * 3 + 1) % 5
    flow = trajectories.flows(replace(paths, region=region), 19)[0]
    assert flow.conditional_entropy_bits == pytest.approx(0, abs=1e-12)
    assert flow.chance.p_value == flow.chance_given_token.p_value == 1 / 20


def test_what_the_token_alone_says_is_in_the_null_within_tokens():
    rng = np.random.default_rng(2)
    token = rng.integers(0, 6, 500)
    region = np.stack([(token + (rng.random(500) < 0.2)) % 6, (token + 2) % 6, token], axis=1)
    flow = trajectories.flows(made(region, [0] * 500, token=token), 99)[0]
    assert flow.mutual_information_bits > flow.chance.high + 0.5
    assert flow.chance_given_token.p_value > 0.05
    assert flow.chance_given_token.mean == pytest.approx(flow.mutual_information_bits, abs=1e-9)


def test_sites_of_one_region_have_no_entropy():
    flow = trajectories.flows(made([[0, 0]] * 6, [0] * 6), 19)[0]
    assert (flow.target_entropy_bits, flow.mutual_information_bits) == (0, 0)
    assert flow.chance.p_value == 1
    with pytest.raises(ValueError, match=r"no token has a region at both s\.0 and s\.1"):
        trajectories.flows(made([[0, -1], [-1, 0]], [0, 0]), 19)


def test_paths_of_sets_are_counted_and_compared_with_independent_sites():
    region = [[0, 1], [0, 1], [0, 2], [1, 2], [3, 3], [3, 3], [-1, 0]]
    one, two = trajectories.set_paths(made(region, [0, 0, 0, 0, 1, 1, 1]), 99)
    assert (one.prompts, two.prompts) == (4, 2)
    assert one.paths.tolist() == [[0, 1], [0, 2], [1, 2]]
    assert one.counts.tolist() == [2, 1, 1]
    assert one.shares.tolist() == [0.5, 0.25, 0.25]
    assert one.independent.tolist() == [0.75 * 0.5, 0.75 * 0.5, 0.25 * 0.5]
    assert two.paths.tolist() == [[3, 3]]
    assert two.chance.mean > 1  # of two random prompts, often of two sets
    (alone,) = trajectories.set_paths(made(region, [0] * 7, sets=("a",)), 99)
    assert np.isnan(alone.chance.mean)


def test_random_sets_have_as_many_prompts_as_the_set():
    apart = [[k, k] for k in range(40)]
    for found in trajectories.set_paths(made(apart, [0] * 11 + [1] * 29), 99):
        chance = found.chance
        assert chance.low == chance.high == found.prompts == len(found.counts)
        assert chance.p_value == 1


def test_a_set_without_whole_paths_is_empty():
    one, two = trajectories.set_paths(made([[0, -1], [1, 1]], [0, 1]), 19)
    assert (one.prompts, len(one.paths), two.prompts) == (0, 0, 1)
    assert one.shares.tolist() == []


def test_overlaps_are_those_of_python_sets():
    paths = random_paths(60, 3, (40, 30, 9))
    found = trajectories.set_overlaps(paths, 99)
    assert [f.site for f in found] == ["s.0", "s.1", "s.2"]
    for s, overlap in enumerate(found):
        final = paths.final_regions[:, s]
        a, b = (
            [r for r in final[paths.label == k].tolist() if r >= 0] for k in (0, 1)
        )  # fmt: skip
        assert overlap.jaccard == pytest.approx(len({*a} & {*b}) / len({*a} | {*b}))
        assert overlap.regions == (len({*a}), len({*b}))
        shares = sum(min(a.count(r) / len(a), b.count(r) / len(b)) for r in {*a, *b})
        assert overlap.shared == pytest.approx(shares, abs=1e-6)


def test_sets_that_part_lie_below_chance_and_alike_ones_within_it():
    rng = np.random.default_rng(4)
    label = np.repeat([0, 1], 40)
    region = rng.integers(0, 30, (80, 2))
    (alike, _) = trajectories.set_overlaps(made(region, label), 499)
    assert alike.jaccard_chance.p_value > 0.05
    assert alike.shared_chance.p_value > 0.05
    assert alike.jaccard < 0.9  # though nothing parts them: Jaccard alone says nothing
    region[:, 0] += 30 * label
    apart = trajectories.set_overlaps(made(region, label), 499)[0]
    assert apart.jaccard == 0 == apart.shared
    assert apart.jaccard_chance.p_value == apart.shared_chance.p_value == 1 / 500


def test_a_set_all_of_whose_finals_are_lost_is_left_out():
    assert trajectories.set_overlaps(made([[-1, 0], [0, 1]], [0, 1]), 19)[0].site == "s.1"


def test_chance_counts_the_observed_and_looks_at_the_sides_asked_for():
    draws = np.arange(-49.0, 50.0)
    assert Chance.of(100.0, draws).p_value == 1 / 100
    assert Chance.of(-100.0, draws).p_value == 1 / 100
    assert Chance.of(-100.0, draws, "upper").p_value == 1
    assert Chance.of(49.0, draws).p_value == 3 / 100
    assert Chance.of(0.0, draws).p_value == 1
    assert Chance.of(0.0, draws).mean == 0
