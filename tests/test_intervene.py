"""Edits do what their formulas say, where they say, and are gone afterwards, however it ended."""

import dataclasses
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from torch import nn
from transformers.modeling_outputs import BaseModelOutput

import exemplars as ex
from conftest import make_tokenizer
from exemplars.activations import window_activations
from exemplars.errors import ActivationError, MismatchError
from exemplars.intervene import POSITIONS, Edit, ablate, add, cap, edited, patch, swap
from exemplars.models import KINDS, load_model
from exemplars.tokenization import chat_prefix, tokenize_prompts
from tiny_models import (
    ARCHITECTURES,
    WIDTH,
    batch_of,
    tiny_model,
    tiny_module,
    tiny_tokenizer,
    token_lists,
    window_of,
)

SITE = "resid_post.1"
SOME = ("gpt2", "llama", "gemma2", "glm4", "opt")
IDS = torch.tensor([[0, 5, 6, 7, 8, 9], [0, 19, 18, 17, 16, 15]])


def rng(seed=0):
    return np.random.default_rng(seed)


def vector(seed=0, n=None):
    return rng(seed).normal(size=WIDTH if n is None else (n, WIDTH)).astype(np.float32)


def strong(positions="edited", site=SITE, seed=0):
    return Edit.add(vector(seed), 20.0, site=site, positions=positions)


def logits(model, ids=IDS, **inputs):
    with torch.no_grad():
        return model.module(ids, **inputs).logits


def hooks(module):
    return [
        (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()), m.training,
         list(m._backward_hooks), sorted(vars(m)))
        for m in module.modules()
    ]  # fmt: skip


def first(output):
    return output if isinstance(output, torch.Tensor) else output[0]


def before_and_after(model, edits, run, site=SITE):
    """What a site gives while edits are on it, before them and after, as lists of arrays."""
    place = model.site(site)
    module = model.module.get_submodule(place.module_path)
    found = [[], []]

    def keep(number):
        def out(_, args, output):
            found[number].append(first(output).detach().clone())

        def into(_, args, kwargs):
            value = args[0] if args else kwargs["hidden_states"]
            found[number].append(value.detach().clone())

        if place.io == "in":
            return module.register_forward_pre_hook(into, with_kwargs=True)
        return module.register_forward_hook(out)

    one = keep(0)
    with edited(model, edits):
        two = keep(1)
        run()
    one.remove()
    two.remove()
    return found


def changed_at(model, edits, run, site=SITE):
    """(passes) of (B, T): where the vectors of a site are others than they would be."""
    before, after = before_and_after(model, edits, run, site)
    return [
        (b != a).reshape(b.shape).any(dim=-1).numpy() for b, a in zip(before, after, strict=True)
    ]


# --- the formulas, slowly -----------------------------------------------------------------------


def span_part(rows, x):
    """The part of x inside the span of rows, by least squares."""
    return rows.T @ np.linalg.lstsq(rows.T, x, rcond=1e-5)[0]


def formulas(rows, center, target, site, positions="all"):
    """(name, edit, x -> expected) of every operation, one vector at a time in float64."""
    rows, center, target = (a.astype(np.float64) for a in (rows, center, target))
    units = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    u = units.sum(axis=0) / np.linalg.norm(units.sum(axis=0))
    where = {"site": site, "positions": positions}
    around = {**where, "center": center}

    def held(x, limit, strength):
        excess = u @ (x - center) - limit
        return x - strength * excess * u if excess > 0 else x

    return [
        ("add", Edit.add(rows, 1.5, unit=2.0, **where), lambda x: x + 3.0 * u),
        ("subtract", Edit.add(rows, -0.5, **where), lambda x: x - 0.5 * u),
        ("ablate", Edit.ablate(rows, **around), lambda x: x - span_part(rows, x - center)),
        ("mirror", Edit.ablate(rows, 2.0, **around), lambda x: x - 2 * span_part(rows, x - center)),
        ("half", Edit.ablate(rows, 0.5, **where), lambda x: x - 0.5 * span_part(rows, x)),
        ("swap", Edit.swap(rows, target, **where), lambda x: x - span_part(rows, x - target)),
        ("patch", Edit.patch(rows, **around),
         lambda x: center + np.linalg.norm(x - center) * u),
        ("some", Edit.patch(rows, 0.25, **around),
         lambda x: 0.75 * x + 0.25 * (center + np.linalg.norm(x - center) * u)),
        ("cap", Edit.cap(rows, -0.25, unit=2.0, **around), lambda x: held(x, -0.5, 1.0)),
        ("part", Edit.cap(rows, 0.25, 0.5, **around), lambda x: held(x, 0.25, 0.5)),
    ]  # fmt: skip


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_operation_is_its_formula_and_other_positions_keep_their_bits(architecture):
    model = tiny_model(architecture)
    kinds = [f"{kind}.{layer}" for layer in (0, 1) for kind in KINDS]
    cases = formulas(vector(1, 2), vector(2), vector(3), SITE, "edited")
    acted = 0
    for number, (name, edit, expected) in enumerate(cases):
        site = kinds[number % len(kinds)]
        edit = dataclasses.replace(edit, site=site)
        found = before_and_after(model, edit, lambda: logits(model), site)
        before, after = (one.reshape(2, 6, WIDTH) for (one,) in found)  # flat in some modules
        assert torch.equal(before[:, 0], after[:, 0]), name
        wanted = np.apply_along_axis(expected, -1, before[:, 1:].double().numpy())
        scale = np.abs(wanted).max()
        np.testing.assert_allclose(after[:, 1:].numpy(), wanted, atol=3e-6 * scale, err_msg=name)
        acted += bool((before != after).any())
    assert acted >= len(cases) - 2  # a cap may hold already


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_vectors_are_changed_in_float32_or_wider_and_rounded_once(dtype):
    model = load_model(tiny_module().to(dtype), tiny_tokenizer())
    # Directions that float32 holds exactly, so that float64 can be checked to its own precision.
    rows = np.zeros((2, WIDTH), np.float32)
    rows[0, 3], rows[1, 7] = 2, -1
    for name, edit, expected in formulas(rows[:1], vector(2), vector(3), SITE):
        (before,), (after,) = before_and_after(model, edit, lambda: logits(model))
        assert after.dtype == dtype
        wanted = np.apply_along_axis(expected, -1, before.double().numpy())
        if dtype == torch.float64:
            np.testing.assert_allclose(after.numpy(), wanted, rtol=1e-13, atol=1e-13, err_msg=name)
        else:
            error = np.abs(after.double().numpy() - wanted)
            half_ulp = torch.finfo(dtype).eps / 2 * np.abs(wanted)
            slack = 1e-6 * np.abs(wanted).max()
            assert (error <= half_ulp + slack).all(), name


@pytest.mark.parametrize("rows", [
    vector(1, 5),
    np.concatenate([vector(1, 2), vector(1, 2) * 3, -vector(1, 1)]),
    np.stack([vector(1), vector(1) + 1e-3 * vector(2)]),
    np.concatenate([np.eye(WIDTH, dtype=np.float32), vector(4, 2)]),
])  # fmt: skip
def test_a_span_is_ablated_whatever_rows_give_it(rows):
    edit = Edit.ablate(rows, site=SITE, positions="all")
    basis = edit.directions
    assert len(basis) == np.linalg.matrix_rank(rows)
    np.testing.assert_allclose(basis @ basis.T, np.eye(len(basis)), atol=1e-6)
    x = torch.from_numpy(vector(9, 4))
    after = (x + edit.change(x)).double().numpy()
    for row, left in zip(x.double().numpy(), after, strict=True):
        np.testing.assert_allclose(
            left,
            row - span_part(rows.astype(np.float64), row),
            atol=3e-4 if len(rows) == 2 else 5e-6,
        )
    again = torch.from_numpy(after.astype(np.float32))
    assert edit.change(again).abs().max() < 1e-5


def test_mixed_precision_around_the_model_does_not_round_the_edit():
    edit, x = Edit.ablate(vector(1, 2), site=SITE), torch.from_numpy(vector(5, 3))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = edit.change(x)
    assert inside.dtype == torch.float32
    assert torch.equal(inside, edit.change(x))


def test_a_direction_counts_by_its_angle_only_and_may_be_a_tensor():
    one = Edit.patch(vector(1, 2) * [[3.0], [1e-3]], site=SITE)
    assert np.abs(one.directions - Edit.patch(vector(1, 2), site=SITE).directions).max() < 1e-6
    given = torch.tensor(vector(1)).bfloat16().requires_grad_()
    assert Edit.add(given, 1.0, site=SITE).width == WIDTH


# --- regions ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def dictionary():
    x = rng(3).normal(size=(400, WIDTH)) * 3 + rng(4).normal(size=WIDTH)
    built = ex.partition(x, ex.calibrate(x, percentiles=[20]), percentile=20)
    return dataclasses.replace(built, provenance={"site": {"name": SITE}})


def test_a_region_lends_its_site_center_and_units(dictionary):
    region = dictionary.region(2)
    x = torch.from_numpy(vector(5, 3))
    u, c = region.exemplar.astype(np.float64), region.center
    added = Edit.add(region, 0.5)
    assert (added.site, added.unit) == (SITE, region.median_norm)
    np.testing.assert_allclose(added.change(x), np.tile(0.5 * region.median_norm * u, (3, 1)), 1e-5)
    np.testing.assert_allclose(
        x + Edit.ablate(region).change(x), x - ((x - c) @ u)[:, None] * u, atol=1e-5
    )
    by_mean = (x + Edit.patch(region).change(x)).numpy() - c
    np.testing.assert_allclose(by_mean @ region.mean, np.linalg.norm(x - c, axis=1), rtol=1e-5)
    limit = Edit.cap(region, 0.1)
    held = ((x + limit.change(x)).numpy() - c) @ u
    assert (held <= 0.1 * region.median_norm + 1e-5).all()
    assert np.abs(Edit.add(region, 1, basis="mean").directions[0] - region.mean).max() < 1e-6
    assert Edit.add(region, 1.0, site="resid_post.0", unit=7.0).site == "resid_post.0"
    assert Edit.add(region, 1.0, unit=7.0).unit == 7.0


def test_a_region_and_its_dictionary_say_their_site_and_norms(dictionary):
    x = rng(3).normal(size=(400, WIDTH)) * 3 + rng(4).normal(size=WIDTH)
    region = dictionary.region(0)
    assert dictionary.site == region.site == SITE
    assert region.median_norm == pytest.approx(np.median(np.linalg.norm(x, axis=1)), 1e-5)
    away = np.linalg.norm(x - dictionary.center, axis=1)
    assert region.median_centered_norm == pytest.approx(np.median(away), 1e-5)
    for provenance in ({}, {"site": {}}, {"site": None}, {"site": "resid_post.1"}):
        silent = dataclasses.replace(dictionary, provenance=provenance)
        assert silent.site is None
        assert silent.region(0).site is None


def test_a_swap_moves_to_where_the_target_region_typically_lies(dictionary):
    source, target = dictionary.region(1), dictionary.region(2)
    x = torch.from_numpy(vector(5, 3))
    both = np.stack([source.exemplar, target.exemplar])
    after = (x + Edit.swap([source, target], target).change(x)).double().numpy()
    point = target.center + target.median_centered_norm * target.mean
    for left, row in zip(after, x.numpy(), strict=True):
        np.testing.assert_allclose(span_part(both, left), span_part(both, point), atol=1e-5)
        outside = row - span_part(both, row)
        np.testing.assert_allclose(left - span_part(both, left), outside, atol=1e-5)


# --- they go ------------------------------------------------------------------------------------

MANAGERS = [
    lambda model: add(model, vector(), 20.0, site=SITE),
    lambda model: ablate(model, vector(1, 3), site="attn_out.0"),
    lambda model: swap(model, vector(), vector(7), site="resid_pre.1"),
    lambda model: patch(model, vector(), site="mlp_out.2"),
    lambda model: cap(model, vector(), -1.0, site=SITE),
    lambda model: edited(model, [strong(), strong("all", "resid_pre.0"), strong("all", SITE)]),
]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_are_what_they_were_to_the_bit_after_every_manager(architecture):
    model = tiny_model(architecture)
    model.module.train(False)
    plain, there = logits(model), hooks(model.module)
    for manager in MANAGERS:
        with manager(model) as given:
            assert given is model
            assert not torch.equal(logits(model), plain)
        assert hooks(model.module) == there
        assert torch.equal(logits(model), plain)


class Stopped(BaseException):
    pass


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, StopIteration, Stopped])
def test_edits_go_when_the_block_raises(error):
    model = tiny_model()
    plain, there = logits(model), hooks(model.module)
    for manager in MANAGERS:
        with pytest.raises((error, RuntimeError)), manager(model):
            raise error
        assert hooks(model.module) == there
    assert torch.equal(logits(model), plain)


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_edits_go_when_the_model_raises_in_its_pass(error):
    model = tiny_model()

    def fail(*_):
        raise error("in the pass")

    handle = model.layers[2].register_forward_hook(fail)
    there = hooks(model.module)
    for manager in MANAGERS:
        with pytest.raises(error, match="in the pass"), manager(model):
            logits(model)
        assert hooks(model.module) == there
    handle.remove()
    assert torch.isfinite(logits(model)).all()


def test_edits_go_when_the_function_of_positions_raises():
    model = tiny_model()
    there = hooks(model.module)

    def fail(positions):
        raise KeyError("nothing here")

    with pytest.raises(KeyError, match="nothing here"), edited(model, strong(fail)):
        logits(model)
    assert hooks(model.module) == there


def test_edits_go_when_one_of_several_cannot_be_put_on():
    model = tiny_model()
    there = hooks(model.module)
    for wrong in (strong(site="resid_post.9"), Edit.add(np.ones(8), 1.0, site=SITE)):
        with pytest.raises((ValueError, MismatchError)), edited(model, [strong(), wrong]):
            pass
        assert hooks(model.module) == there


def test_an_abandoned_generator_inside_a_manager_leaves_nothing():
    model = tiny_model()
    there = hooks(model.module)

    def passes():
        with edited(model, strong()):
            while True:
                yield logits(model)

    running = passes()
    next(running)
    assert hooks(model.module) != there
    running.close()
    assert hooks(model.module) == there


@pytest.mark.parametrize("architecture", SOME)
def test_strength_zero_changes_no_bit_and_hooks_nothing(architecture):
    model = tiny_model(architecture)
    plain, there = logits(model), hooks(model.module)
    written = model.module.generate(IDS, max_new_tokens=5, do_sample=False)
    for manager in [
        lambda: add(model, vector(), 0.0, site=SITE),
        lambda: ablate(model, vector(), 0.0, site=SITE),
        lambda: swap(model, vector(), vector(1), 0, site=SITE),
        lambda: patch(model, vector(), 0.0, site=SITE),
        lambda: cap(model, vector(), -9.0, -0.0, site=SITE),
        lambda: edited(model, []),
    ]:
        with manager():
            assert hooks(model.module) == there
            assert torch.equal(logits(model), plain)
            again = model.module.generate(IDS, max_new_tokens=5, do_sample=False)
            assert torch.equal(again, written)


# --- where -------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("side", ["left", "right", "none"])
def test_positions_are_counted_in_the_text_and_padding_is_left_alone(architecture, side):
    model = tiny_model(architecture)
    mask = torch.ones(2, 6, dtype=torch.long)
    if side != "none":
        mask[0, : 2 if side == "left" else None] = 0
    if side == "right":
        mask[0] = torch.tensor([1, 1, 1, 1, 0, 0])
    position = np.where(mask == 1, mask.cumsum(1) - 1, -1)

    def run():
        logits(model, attention_mask=mask)

    seen = []

    def odd(positions):
        seen.append(positions)
        return positions % 2 == 1  # of -1 too

    chosen = rng().random((2, 6)) < 0.5
    for positions, expected in {
        "edited": position >= 1,
        "all": position >= 0,
        "generated": position >= 99,
        3: position >= 3,
        np.int64(2): position >= 2,
        0: position >= 0,
    }.items():
        (found,) = changed_at(model, strong(positions), run)
        assert np.array_equal(found, expected), positions
    (found,) = changed_at(model, strong(chosen), run)
    assert np.array_equal(found, chosen & (position >= 0))
    (found,) = changed_at(model, strong(odd), run)
    assert np.array_equal(found, (position >= 0) & (position % 2 == 1))
    assert np.array_equal(seen[0], position)
    assert seen[0].dtype == np.int64


def test_a_mask_may_be_given_by_place_or_be_of_floats():
    model = tiny_model()
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    expected = np.where(mask == 1, mask.cumsum(1) - 1, -1) >= 1
    for run in (
        lambda: model.base(IDS, mask),
        lambda: model.module(IDS, mask),
        lambda: model.base(IDS, attention_mask=mask.bool()),
        lambda: model.base(inputs_embeds=model.base.embed_tokens(IDS), attention_mask=mask),
    ):
        (found,) = changed_at(model, strong(), run)
        assert np.array_equal(found, expected)
    plain = nn.Module()
    plain.embed, plain.out = nn.Embedding(512, WIDTH), nn.Linear(WIDTH, WIDTH)
    plain.forward = lambda ids, attention_mask=None: plain.out(plain.embed(ids))
    own = load_model(plain, tiny_tokenizer())
    (found,) = changed_at(own, strong(site="out"), lambda: plain(IDS), "out")
    assert np.array_equal(found, np.arange(6)[None] + np.zeros((2, 1)) >= 1)
    half = mask.to(torch.bfloat16)
    (found,) = changed_at(own, strong(site="out"), lambda: plain(IDS, half), "out")
    assert np.array_equal(found, expected)


def test_packed_positions_start_anew():
    model = tiny_model()
    position_ids = torch.tensor([[0, 1, 2, 0, 1, 2]])
    (found,) = changed_at(
        model, strong(), lambda: logits(model, IDS[:1], position_ids=position_ids)
    )
    assert np.array_equal(found, position_ids.numpy() >= 1)


@pytest.mark.parametrize("architecture", SOME)
def test_the_edited_positions_come_after_the_chat_templates_prefix(architecture):
    tokenizer = make_tokenizer("chat")
    model = load_model(tiny_module(architecture), tokenizer)
    prompts = tokenize_prompts(["the sea", "in the inner sea"], tokenizer, chat=True)
    n_prefix = len(chat_prefix(tokenizer))
    assert all(prompt.first_row == n_prefix > 5 for prompt in prompts)
    width = max(len(prompt.ids) for prompt in prompts)
    for side in ("left", "right"):
        # Padding by a token of the template's own: it must not be taken for it.
        ids, mask = np.full((3, width), prompts[0].ids[0]), np.zeros((3, width), np.int64)
        for row, prompt in enumerate(prompts):
            where = (
                slice(width - len(prompt.ids), None) if side == "left" else slice(len(prompt.ids))
            )
            ids[row, where], mask[row, where] = prompt.ids, 1
        ids[2], mask[2] = np.arange(width) + 40, 1  # a text without the template
        position = np.where(mask == 1, mask.cumsum(1) - 1, -1)
        expected = position >= np.array([[n_prefix], [n_prefix], [1]])
        inputs = {"attention_mask": torch.from_numpy(mask)}
        (found,) = changed_at(
            model,
            strong(),
            lambda: logits(model, torch.from_numpy(ids), **inputs),  # noqa: B023
        )
        assert np.array_equal(found, expected)
        passes = changed_at(
            model,
            strong(),
            lambda ids=ids, inputs=inputs: model.module.generate(
                torch.from_numpy(ids),
                **inputs,
                max_new_tokens=3,
                do_sample=False,
                eos_token_id=None,
            ),
        )
        assert np.array_equal(passes[0], expected)
        assert [p.shape for p in passes[1:]] == [(3, 1)] * 2
        assert all(p.all() for p in passes[1:])


def generating(model, ids, **options):
    return model.module.generate(
        ids, max_new_tokens=4, do_sample=False, eos_token_id=None, pad_token_id=0, **options
    )


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("cache", [None, "static"])
def test_positions_go_on_through_the_cache(architecture, cache):
    model = tiny_model(architecture)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    start = np.where(mask == 1, mask.cumsum(1) - 1, -1)
    later = [start[:, -1:] + i for i in (1, 2, 3)]
    seen = []

    def recorded(positions):
        seen.append(positions)
        return positions == 5

    def run():
        generating(model, IDS, attention_mask=mask, cache_implementation=cache)

    passes = changed_at(model, strong("generated"), run)
    assert [p.all() for p in passes] == [False, True, True, True]
    assert not passes[0].any()
    passes = changed_at(model, strong(5), run)
    assert [p.tolist() for p in passes] == [(p >= 5).tolist() for p in [start, *later]]
    passes = changed_at(model, strong(recorded), run)
    assert [p.tolist() for p in seen] == [p.tolist() for p in [start, *later]]
    assert [p.tolist() for p in passes] == [(p == 5).tolist() for p in seen]
    passes = changed_at(model, strong(start == 2), run)
    assert [p.tolist() for p in passes] == [(start == 2).tolist(), *[[[False]] * 2] * 3]


@pytest.mark.parametrize("architecture", ["gpt2", "qwen2", "gemma2", "gemma3_text", "opt"])
def test_a_static_cache_writes_what_a_dynamic_one_writes(architecture):
    model = tiny_model(architecture)
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    plain = generating(model, IDS, attention_mask=mask)
    with edited(model, Edit.add(vector(), 20.0, site=SITE)):
        dynamic = generating(model, IDS, attention_mask=mask)
        static = generating(model, IDS, attention_mask=mask, cache_implementation="static")
    assert torch.equal(dynamic, static)
    assert not torch.equal(dynamic, plain)


def by_hand(model, delta, positions_from=1):
    """A hook that adds a vector from a position on, without a cache and without padding."""

    def hook(_, args, output):
        x = first(output).clone()
        x[:, positions_from:] += delta
        return x if isinstance(output, torch.Tensor) else (x, *output[1:])

    return model.module.get_submodule(model.site(SITE).module_path).register_forward_hook(hook)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma2"])
@pytest.mark.parametrize(
    "how", [{"num_beams": 2}, {"num_beams": 3, "num_return_sequences": 2}, {"assistant": True}]
)
def test_beams_and_assisted_writing_see_the_edits(architecture, how):
    model, how = tiny_model(architecture), dict(how)
    edit = Edit.add(vector(), 20.0, site=SITE)
    ids, slow = IDS, {**how, "use_cache": False}
    if how.pop("assistant", False):
        ids, slow = IDS[:1], {"use_cache": False}
        draft = tiny_module("llama", seed=4)
        draft.generation_config.num_assistant_tokens = 3
        how = {"assistant_model": draft}
    ids = ids.clone()
    inputs = {"attention_mask": torch.ones_like(ids)}
    plain = generating(model, ids, **inputs, **slow)
    handle = by_hand(model, edit.change(torch.zeros(WIDTH)))
    expected = generating(model, ids, **inputs, **slow)
    handle.remove()
    with edited(model, edit):
        found = generating(model, ids, **inputs, **how)
    assert torch.equal(found, expected)
    assert not torch.equal(plain, expected)


# --- several, nested, read, and learned from -----------------------------------------------------


@pytest.mark.parametrize("architecture", SOME)
def test_edits_apply_in_the_order_given_and_inner_ones_after_outer_ones(architecture):
    model = tiny_model(architecture)
    one = Edit.add(vector(1), 5.0, site=SITE, positions="all")
    two = Edit.patch(vector(2), 0.5, site=SITE, positions="all")
    path = model.site(SITE).module_path
    by_path = dataclasses.replace(two, site=path)
    results = {}
    orders = {
        "12": (one, two),
        "21": (two, one),
        "path": (one, by_path),
        "three": (one, by_path, dataclasses.replace(one, strength=-3.0)),
    }
    for name, order in orders.items():
        (before,), (after,) = before_and_after(model, order, lambda: logits(model))
        x = before
        for edit in order:
            x = x + edit.change(x)
        assert torch.equal(after, x)
        with edited(model, order[:1]), edited(model, order[1:]):
            nested = logits(model)
        with edited(model, order):
            assert torch.equal(logits(model), nested)
        results[name] = nested
    assert not torch.equal(results["12"], results["21"])
    assert torch.equal(results["12"], results["path"])


def test_edits_at_several_sites_each_act_at_their_own():
    model = tiny_model()
    sites = ["resid_pre.0", "attn_out.1", "mlp_out.1", SITE]
    edits = [strong("all", site, seed) for seed, site in enumerate(sites)]
    for site, edit in zip(sites, edits, strict=True):
        (before,), (after,) = before_and_after(model, edits, lambda: logits(model), site)
        torch.testing.assert_close(after - before, edit.change(before), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", SOME)
def test_readings_inside_see_edited_vectors(architecture):
    model = tiny_model(architecture)
    window = window_of(batch_of(token_lists()))
    sites = ["resid_pre.1", "attn_out.1", SITE]
    (plain,) = window_activations(model, "resid_pre.1", window)
    edit = strong("edited", "resid_pre.1")
    with edited(model, edit):
        found = {b.site: b.vectors for b in window_activations(model, sites, window)}
    expected = plain.vectors + edit.change(plain.vectors)
    assert torch.equal(found["resid_pre.1"], expected)
    again = {b.site: b.vectors for b in window_activations(model, sites, window)}
    assert torch.equal(again["resid_pre.1"], plain.vectors)
    assert not torch.equal(again[SITE], found[SITE])


def test_reading_packed_documents_inside_edits_each_from_its_second_token():
    model = tiny_model()
    apart, packed = (window_of(batch_of(token_lists(), packed=p)) for p in (False, True))
    with edited(model, strong("edited", "resid_pre.1")):
        (one,), (two,) = (window_activations(model, SITE, window) for window in (apart, packed))
    torch.testing.assert_close(one.vectors, two.vectors, rtol=1e-4, atol=1e-4)


def test_texts_are_read_inside_in_one_call():
    model = tiny_model()
    texts = ex.texts(["the other sea", "salt"])
    ((plain,),) = ex.read_activations(model, SITE, texts)
    with ex.ablate(model, vector(), site=SITE):
        ((found,),) = ex.read_activations(model, SITE, texts)
    u = vector() / np.linalg.norm(vector())
    assert np.abs(found.vectors.numpy() @ u).max() < 1e-5 < np.abs(plain.vectors.numpy() @ u).max()


@pytest.mark.parametrize("architecture", SOME)
def test_gradients_flow_through_every_operation(architecture):
    model = tiny_model(architecture)
    embeds = model.module.get_input_embeddings()(IDS).detach().requires_grad_()
    cases = formulas(vector(1, 2), vector(2), vector(3), SITE, "edited")
    for name, edit, _ in cases:
        with edited(model, edit):
            out = model.module(inputs_embeds=embeds).logits
        (gradient,) = torch.autograd.grad(out.square().sum(), embeds)
        assert torch.isfinite(gradient).all(), name
        assert gradient.abs().sum() > 0, name
    with edited(model, Edit.ablate(np.eye(WIDTH), site="resid_post.2", positions="all")):
        out = model.module(inputs_embeds=embeds).logits
    (gradient,) = torch.autograd.grad(out.square().sum(), embeds)
    assert gradient.abs().max() < 1e-3  # nothing is left that depends on the input


# --- modules of every kind -----------------------------------------------------------------------

Pair = namedtuple("Pair", ["label", "states"])
SHAPES = {
    "tensor": lambda x: x,
    "tuple": lambda x: (None, x, x[..., 0]),
    "list": lambda x: ["label", x],
    "named": lambda x: Pair("label", x),
    "mapping": lambda x: OrderedDict(label=3, states=x, other=x * 2),
    "output": lambda x: BaseModelOutput(last_hidden_state=x, hidden_states=(x,)),
    "flat": lambda x: x.reshape(-1, x.shape[-1]),
}


class Shaped(nn.Module):
    """A module that gives its vectors in one of SHAPES, and what it was called with."""

    def __init__(self, form):
        super().__init__()
        self.form, self.config = form, None
        self.embed, self.inner, self.head = nn.Embedding(512, WIDTH), Inner(form), nn.Identity()
        self.inner_by_name = Inner(form)

    def forward(self, input_ids, attention_mask=None):
        x = self.embed(input_ids)
        self.inner_by_name(hidden_states=x)
        return self.inner(x)


class Inner(nn.Module):
    def __init__(self, form):
        super().__init__()
        self.form, self.seen = form, None

    def forward(self, hidden_states, more=None):
        self.seen = hidden_states
        return SHAPES[self.form](hidden_states)


@pytest.mark.parametrize("form", SHAPES)
def test_vectors_are_changed_in_whatever_a_module_gives(form):
    module = Shaped(form)
    model = load_model(module, tiny_tokenizer())
    edit = strong("all", "inner")
    plain = module(IDS)
    with edited(model, edit):
        found = module(IDS)
    assert type(found) is type(plain)
    x = module.embed(IDS)
    expected = x + edit.change(x)
    if form == "flat":
        assert torch.equal(found, expected.reshape(-1, WIDTH))
        return
    if form == "tensor":
        assert torch.equal(found, expected)
        return
    mapping = form in ("mapping", "output")
    parts, old = (list(p.values()) if mapping else list(p) for p in (found, plain))
    at = next(i for i, part in enumerate(old) if isinstance(part, torch.Tensor))
    assert torch.equal(parts[at], expected)
    for i, (one, two) in enumerate(zip(parts, old, strict=True)):
        assert (
            i == at or one is two or torch.equal(torch.as_tensor(one[0]), torch.as_tensor(two[0]))
        )
    if form == "output":
        assert torch.equal(found.last_hidden_state, expected)


def test_inputs_are_changed_by_place_and_by_name():
    module = Shaped("tensor")
    model = load_model(module, tiny_tokenizer())
    x = module.embed(IDS)
    for name in ("inner", "inner_by_name"):
        edit = strong("all", f"{name}:in")
        with edited(model, edit):
            module(IDS)
        assert torch.equal(module.get_submodule(name).seen, x + edit.change(x))
        module(IDS)
        assert torch.equal(module.get_submodule(name).seen, x)


def test_flat_vectors_are_edited_at_their_own_positions():
    module = Shaped("flat")
    model = load_model(module, tiny_tokenizer())
    mask = torch.tensor([[0, 0, 1, 1, 1, 1], [1] * 6])
    (found,) = changed_at(model, strong(site="inner"), lambda: module(IDS, mask), "inner")
    position = np.where(mask == 1, mask.cumsum(1) - 1, -1)
    assert np.array_equal(found, (position >= 1).reshape(-1))


def test_inside_a_layer_a_site_may_be_wider_than_the_model():
    model = tiny_model()
    edit = Edit.add(np.ones(64), 5.0, site="model.layers.1.mlp.act_fn")
    plain = logits(model)
    with edited(model, edit):
        assert not torch.equal(logits(model), plain)


def test_tied_embeddings_are_left_as_they_are():
    model = tiny_model("llama", tie_word_embeddings=True)
    assert model.unembedding.weight is model.module.get_input_embeddings().weight
    weights = {name: p.clone() for name, p in model.module.state_dict().items()}
    edit = strong("all", "model.embed_tokens")
    (before,), (after,) = before_and_after(model, edit, lambda: logits(model), "model.embed_tokens")
    assert torch.equal(after, before + edit.change(before))
    assert all(torch.equal(p, weights[name]) for name, p in model.module.state_dict().items())


# --- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(("make", "sentence"), [
    (lambda: Edit.add(vector(), np.nan, site=SITE), "strength is nan, expected a finite number"),
    (lambda: Edit.ablate(vector(), np.inf, site=SITE), "strength is inf, expected a finite number"),
    (lambda: Edit.add(vector(), 1.0), "site to edit is not known; pass site="),
    (lambda: Edit.add(vector(), 1.0, site=SITE, unit=np.nan), "does not say its median activation"),
    (lambda: Edit.add(np.zeros(4), 1.0, site=SITE), r"shape \(1, 4\), expected \(k, D\) of finite"),
    (lambda: Edit.add([1.0, np.nan], 1.0, site=SITE), r"expected \(k, D\) of finite rows"),
    (lambda: Edit.add(np.ones((2, 2, 2)), 1.0, site=SITE), r"shape \(2, 2, 2\), expected \(k, D\)"),
    (lambda: Edit.add(np.ones((0, 4)), 1.0, site=SITE), r"shape \(0, 4\), expected \(k, D\)"),
    (lambda: Edit.add("north", 1.0, site=SITE), "a str is no direction; give a region"),
    (lambda: Edit.add(None, 1.0, site=SITE), "expected|no direction"),
    (lambda: Edit.add([], 1.0, site=SITE), "no region was given; give at least one"),
    (lambda: Edit.add([vector(), -vector()], 1.0, site=SITE), "cancel each other; give fewer"),
    (lambda: Edit.cap(vector(), np.inf, site=SITE), "limit is inf, expected a finite number"),
    (lambda: Edit.ablate(vector(), site=SITE, center=np.ones(3)), r"center has shape \(3,\), exp"),
    (lambda: Edit.patch(vector(), site=SITE, center=np.full(WIDTH, np.nan)), "finite values"),
    (lambda: Edit.swap(vector(), np.ones(3), site=SITE), r"target has shape \(3,\), expected"),
    (lambda: Edit.swap(vector(), np.full(WIDTH, np.inf), site=SITE), "finite values"),
    (lambda: strong("some"), 'positions is "some"; choose edited, all, generated'),
    (lambda: strong(-1), "positions is -1; give the first position, from 0 on"),
    (lambda: strong(None), "positions is a NoneType; choose edited"),
    (lambda: strong(1.5), "positions is a float; choose edited"),
    (lambda: strong(True), "positions is a bool; choose edited"),
    (lambda: strong([1, 2]), "positions is a list; choose edited"),
    (lambda: strong(np.ones(3, bool)), "bool of 1 dimensions; give bool of two"),
    (lambda: strong(np.ones((2, 3))), "float64 of 2 dimensions; give bool of two"),
])  # fmt: skip
def test_a_wrong_edit_is_one_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_wrong_edit_of_regions_is_one_sentence(dictionary):
    region = dictionary.region(0)
    other = dataclasses.replace(region, site="resid_post.2")
    nowhere = dataclasses.replace(region, site=None)
    empty = dataclasses.replace(region, mean=np.full(WIDTH, np.nan, np.float32), index=7)
    unknown = dataclasses.replace(region, median_norm=float("nan"), median_centered_norm=np.nan)
    for make, sentence in [
        (lambda: Edit.add([region, other], 1.0), "resid_post.1 and resid_post.2; edit each site"),
        (lambda: Edit.swap(region, other), "resid_post.1 and resid_post.2; edit each site"),
        (lambda: Edit.ablate(nowhere), "site to edit is not known"),
        (lambda: Edit.patch(empty), "region 7 has no mean direction; use basis exemplar"),
        (lambda: Edit.add(unknown, 1.0), "does not say its median activation norm; pass unit="),
        (lambda: Edit.cap(unknown, 1.0), "does not say its median activation norm; pass unit="),
        (lambda: Edit.swap(region, unknown), "finite values"),
        (lambda: Edit.add([region, vector()], 1.0), "a list is no direction"),
        (lambda: Edit.add(region, 1.0, basis="median"), "basis"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            make()
    assert Edit.ablate(unknown).unit is not None  # which needs no norm


@pytest.mark.parametrize(("edits", "error", "sentence"), [
    (strong(site="resid_post.3"), ValueError, "no site 'resid_post.3'"),
    (Edit.add(np.ones(8), 1.0, site=SITE), MismatchError, "width 8 and LlamaForCausalLM has 32"),
    (Edit.add(np.ones(8), 1.0, site="model.layers.1.mlp"), MismatchError, "width 8 and Llama"),
    (vector(), ValueError, "edits are a ndarray, expected an Edit or a list"),
    ([strong(), "add"], ValueError, "edits are a list, expected an Edit or a list"),
    (None, ValueError, "edits are a NoneType, expected an Edit or a list"),
    (Edit.add(np.ones(8), 1.0, site="lm_head"), MismatchError, "width 8 and the site gives 512"),
    (strong(site="model.rotary_emb"), ActivationError, "not a vector for each; edit another site"),
    (strong(site="model.embed_tokens:in"), ActivationError, "gave no vectors but a Tensor"),
    (strong(site="model:in"), ActivationError, "gave no vectors but a NoneType"),
    (strong(np.ones((2, 5), bool)), ValueError, r"mask of positions has shape \(2, 5\) and the"),
    (strong(lambda p: p), ValueError, r"returned int64 of shape \(2, 6\); it must return bool"),
    (strong(lambda p: p[:1] > 0), ValueError, r"returned bool of shape \(1, 6\); it must return"),
])  # fmt: skip
def test_an_edit_that_does_not_fit_the_model_is_one_sentence(edits, error, sentence):
    model = tiny_model()
    there = hooks(model.module)
    with pytest.raises(error, match=sentence) as caught, edited(model, edits):
        logits(model)
    assert "\n" not in str(caught.value)
    assert hooks(model.module) == there


@pytest.mark.parametrize("output", [None, 3, {"a": 1}, ("a", 2)])
def test_a_module_without_vectors_is_one_sentence(output):
    class Silent(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.inner = nn.Embedding(512, WIDTH), nn.Module()
            self.inner.forward = lambda x: output

        def forward(self, input_ids):
            return self.inner(self.embed(input_ids))

    model = load_model(Silent(), tiny_tokenizer())
    with (
        edited(model, strong(site="inner")),
        pytest.raises(ActivationError, match="inner gave no vectors but a"),
    ):
        model.module(IDS)


def test_a_pass_whose_positions_cannot_be_told_is_one_sentence():
    class Any4D(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.inner = nn.Embedding(512, WIDTH), nn.Identity()

        def forward(self, input_ids=None, attention_mask=None, position_ids=None, other=None):
            return self.inner(self.embed(IDS))

    model = load_model(Any4D(), tiny_tokenizer())
    square = torch.ones(6, 6).tril().bool().repeat(2, 1, 1, 1)
    padded = square.clone()
    padded[0, :, :, :2] = False
    floats = torch.where(padded, 0.0, torch.finfo(torch.float32).min)
    with edited(model, strong(site="inner")):
        with pytest.raises(ActivationError, match="without input_ids or inputs_embeds"):
            model.module(other=1)
        for mask in (padded, floats, {"full_attention": padded}):
            with pytest.raises(ActivationError, match="positions cannot be told; pass one of"):
                model.module(IDS, attention_mask=mask)
        for mask in (object(), square[:, 0]):
            with pytest.raises(ActivationError, match=r"mask that is a .*pass one of shape"):
                model.module(IDS, attention_mask=mask)
    expected = np.arange(6)[None] + np.zeros((2, 1)) >= 1
    for mask in (square, {"sliding_attention": square}, {"full_attention": None}, {}):
        run = lambda: model.module(IDS, attention_mask=mask)  # noqa: E731, B023
        (found,) = changed_at(model, strong(site="inner"), run, "inner")
        assert np.array_equal(found, expected)
    own = torch.tensor([[0, 0, 0, 1, 2, 3], [0, 1, 2, 3, 4, 5]])
    run = lambda: model.module(IDS, attention_mask=floats, position_ids=own)  # noqa: E731
    (found,) = changed_at(model, strong(site="inner"), run, "inner")
    assert found.tolist() == [[False, False, False, True, True, True], expected[1].tolist()]


def test_names_of_positions_are_the_ones_that_work():
    assert POSITIONS == ("edited", "all", "generated")
    assert [strong(name).positions for name in POSITIONS] == list(POSITIONS)
