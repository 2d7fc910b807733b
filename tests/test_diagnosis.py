"""The doctor finds each fault that was planted, and none in a sound model."""

import pytest
import torch

from exemplars.diagnosis import diagnose
from exemplars.models import load_model
from tiny_models import N_LAYERS, WIDTH, tiny_model, tiny_module, tiny_tokenizer

TEMPLATE = "{{ bos_token }}{% for m in messages %}{{ m['content'] }}{% endfor %}"


def statuses(diagnosis):
    return {check.name: check.status for check in diagnosis.checks}


def found(diagnosis, name):
    return next(check.found for check in diagnosis.checks if check.name == name)


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3_text", "phi"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_sound_model_is_healthy(architecture, dtype):
    diagnosis = diagnose(load_model(tiny_module(architecture).to(dtype), tiny_tokenizer()))
    assert set(statuses(diagnosis).values()) == {"ok"}
    assert diagnosis.healthy
    assert all("\n" not in check.found for check in diagnosis.checks)


def test_the_default_sites_are_spread_over_the_layers():
    assert "layers 0, 1, 2" in found(diagnose(tiny_model()), "sites add up")
    assert "layers 1 " in found(diagnose(tiny_model(), ["mlp_out.1"]), "sites add up")
    with pytest.raises(ValueError, match="has no site"):
        diagnose(tiny_model(), ["resid_post.9"])


def test_padding_that_leaks_fails():
    model = tiny_model()
    model.layers[1].register_forward_hook(lambda m, args, out: out + 0.1 * out.mean(1, True))
    diagnosis = diagnose(model)
    assert statuses(diagnosis)["padding"] == "failed"
    assert not diagnosis.healthy


def test_an_architecture_that_cannot_pack_is_a_warning():
    diagnosis = diagnose(tiny_model("opt"))
    assert statuses(diagnosis)["packing"] == "warning"
    assert "attend to each other" in found(diagnosis, "packing")
    assert diagnosis.healthy


def test_overflow_fails_and_names_the_dtype():
    module = tiny_module().half()
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight.fill_(60000)
    diagnosis = diagnose(load_model(module, tiny_tokenizer()))
    assert statuses(diagnosis)["finite values"] == "failed"
    assert "float16 ends at 65504" in found(diagnosis, "finite values")


def test_a_layer_that_does_more_than_add_its_parts_is_a_warning():
    model = tiny_model()
    model.layers[1].register_forward_hook(lambda m, args, out: out * 1.5)
    assert statuses(diagnose(model))["sites add up"] == "warning"
    assert statuses(diagnose(tiny_model("bloom")))["sites add up"] == "warning"


def test_bos_is_counted_in_plain_text_and_in_the_template():
    model = tiny_model()
    model.tokenizer.chat_template = TEMPLATE
    assert found(diagnose(model), "BOS") == (
        "plain text begins with 1 BOS and a message in the chat template with 1"
    )
    model.tokenizer.chat_template = "{{ bos_token }}" + TEMPLATE
    diagnosis = diagnose(model)
    assert statuses(diagnosis)["BOS"] == "failed"
    assert "with 2; one is what" in found(diagnosis, "BOS")
    without = diagnose(load_model(tiny_module(), tiny_tokenizer(bos=False)))
    assert found(without, "BOS") == "plain text begins with 0 BOS"


def test_a_model_that_is_never_the_same_twice_is_a_warning():
    model = tiny_model()
    model.layers[0].register_forward_hook(lambda m, args, out: out + 1e-7 * torch.rand_like(out))
    assert statuses(diagnose(model))["left as it was"] == "warning"


def test_the_plan_counts_bytes():
    model = load_model(tiny_module().bfloat16(), tiny_tokenizer())
    plan = diagnose(
        model, ["resid_post.0", "resid_post.1"], rows=5_000, percentiles=(1, 2, 10), n_regions=900
    ).plan
    assert plan.weights_bytes == 2 * sum(p.numel() for p in model.module.parameters())
    assert plan.window_bytes == 2 * 5_000 * WIDTH * 2
    assert plan.regions_bytes == 2 * 3 * 900 * (12 * WIDTH + 1_600)
    assert plan.disk_bytes == 2 * 3 * 900 * (8 * WIDTH + 6_000)
    few = diagnose(model, ["resid_post.0"], rows=100).plan
    assert few.disk_bytes == 100 * (8 * WIDTH + 6_000)
    assert model.n_layers == N_LAYERS
