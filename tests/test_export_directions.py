"""Directions as llama.cpp, steering-vectors and lm-eval read them, and where they are added."""

import csv
import importlib.util
import json
import sys
import types
from dataclasses import replace

import gguf
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

import exemplars as ex
from exemplars import export
from exemplars.cli.export import layers_of
from exemplars.errors import FormatError, MismatchError
from exemplars.export import directions
from exemplars.export.directions import (
    COLUMNS,
    DIRECTION_FORMATS,
    export_direction,
    to_control_vector,
    to_lm_eval,
    to_steering_file,
    to_steering_vector,
)
from tiny_models import tiny_model

D = 20
HOSTILE = '../../etc\x1b[31m"}\u202e\n\ud800'
NAMES = {"gguf": "v.gguf", "steering-vectors": "v.safetensors", "lm-eval": "v.csv"}


def about(site="resid_post.3", model_class="LlamaForCausalLM"):
    kind, _, layer = site.partition(".")
    names = {"exemplars": site, "transformer_lens": f"blocks.{layer}.hook_{kind}"}
    module = {"resid_post": f"model.layers.{layer}", "resid_pre": f"model.layers.{layer}:in"}
    names["module"] = module.get(kind, f"model.layers.{layer}.{kind}")
    model = {"name": HOSTILE, "class": model_class, "n_layers": 9, "fingerprint": "f" * 64}
    return {"site": {"name": site, "spellings": names}, "model": model}


def at(dictionary, *args):
    return replace(dictionary, provenance=about(*args))


def members_of(dictionary, regions):
    members = dictionary.members
    names = ("counts", "means", "coherence", "distance_sums", "distance_square_sums", "histogram")
    return replace(members, **{name: getattr(members, name)[regions] for name in names})


@pytest.fixture(scope="module")
def dictionary():
    rng = np.random.default_rng(0)
    clouds = rng.normal(size=(25, D)) * 4
    vectors = (clouds[rng.integers(0, 25, 600)] + rng.normal(size=(600, D)) + 5).astype(np.float32)
    made = at(ex.partition(vectors, ex.calibrate(vectors, percentiles=[3])))
    assert len(made) > 20
    norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    assert made.calibration.vector_norms[1] == pytest.approx(np.median(norms))
    return made


def slow_direction(dictionary, regions, basis="exemplar"):
    """The direction of the sum of unit directions, number by number."""
    total = [0.0] * dictionary.width
    for k in regions:
        row = [float(x) for x in dictionary.basis(basis)[k]]
        length = sum(x * x for x in row) ** 0.5
        total = [a + b / length for a, b in zip(total, row, strict=True)]
    length = sum(x * x for x in total) ** 0.5
    return np.array([x / length for x in total])


def read_gguf(path):
    """Everything in a control vector."""
    reader = gguf.GGUFReader(path)
    text = {
        name: bytes(reader.fields[name].parts[-1]).decode()
        for name in ("general.architecture", "controlvector.model_hint", "exemplars")
    }
    count = int(reader.fields["controlvector.layer_count"].parts[-1][0])
    types_ = {tensor.tensor_type for tensor in reader.tensors}
    assert types_ == {gguf.GGMLQuantizationType.F32}
    return text, count, {tensor.name: np.array(tensor.data) for tensor in reader.tensors}


def read_csv(path):
    with path.open(newline="", encoding="utf-8") as file:
        header, row = csv.reader(file)
    assert tuple(header) == COLUMNS
    return dict(zip(header, row, strict=True))


def steered(path, x):
    """What lm-evaluation-harness 0.4.13 makes of the output x of the CSV's hookpoint."""
    row = read_csv(path)
    assert row["loader"] == "sparsify"
    weights = load_file(f"{row['sparse_model']}/{row['hookpoint']}/sae.safetensors")
    vector = weights["W_dec"][int(row["feature_index"])]
    value = float(row["steering_coefficient"])
    if row["action"] == "add":
        return x + vector * value
    assert row["action"] == "clamp"
    unit = vector / np.linalg.norm(vector)
    centered = x - weights["b_dec"]
    projection = (centered * unit).sum(axis=-1, keepdims=True)
    return centered + unit * (value - projection) + weights["b_dec"]


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


# Control vectors


@given(
    st.lists(st.integers(0, 19), min_size=1, max_size=5, unique=True),
    st.sampled_from(["exemplar", "mean"]),
    st.floats(-8, 8).filter(lambda s: abs(s) > 1e-3),
    st.sets(st.integers(1, 8), max_size=4),
)
@settings(max_examples=25, deadline=None)
def test_a_control_vector_is_the_strength_times_the_norm_times_the_direction(
    dictionary, tmp_path_factory, regions, basis, strength, layers
):
    path = tmp_path_factory.mktemp("v") / "v.gguf"
    done = to_control_vector(
        dictionary, path, regions, strength=strength, basis=basis, layers=layers or None
    )
    text, count, tensors = read_gguf(path)
    chosen = sorted(layers) or [3]
    assert list(tensors) == [f"direction.{layer}" for layer in chosen]
    assert count == len(chosen)
    assert (text["general.architecture"], text["controlvector.model_hint"]) == (
        "controlvector",
        "llama",
    )
    norm = dictionary.calibration.vector_norms[1]
    wanted = strength * norm * slow_direction(dictionary, regions, basis)
    added = sum(tensors.values())
    np.testing.assert_allclose(added, wanted, rtol=1e-5, atol=1e-5 * norm)
    assert all((np.array_equal(t, next(iter(tensors.values())))) for t in tensors.values())
    record = json.loads(text["exemplars"])
    assert (record["regions"], record["basis"], record["strength"]) == (regions, basis, strength)
    assert (done.layers, done.regions) == (tuple(chosen), tuple(regions))
    assert done.length == pytest.approx(abs(strength) * norm / len(chosen), rel=1e-5)
    assert done.bytes == path.stat().st_size


def test_the_vector_of_one_region_is_its_exemplar(dictionary, tmp_path):
    to_control_vector(dictionary, tmp_path / "v", [4], unit=1.0)
    vector = read_gguf(tmp_path / "v")[2]["direction.3"]
    assert vector.dtype == np.float32
    assert vector.shape == (D,)
    np.testing.assert_allclose(vector, dictionary.exemplars[4], atol=1e-7)
    to_control_vector(dictionary, tmp_path / "w", [4 - len(dictionary)], unit=2.5, strength=-2)
    np.testing.assert_allclose(read_gguf(tmp_path / "w")[2]["direction.3"], -5 * vector, rtol=1e-6)


def test_rows_count_alike_whatever_their_length(dictionary, tmp_path):
    rows = np.array(dictionary.exemplars)
    rows[1] *= 3
    to_steering_file(replace(dictionary, exemplars=rows), tmp_path / "v", [0, 1], unit=1.0)
    wanted = slow_direction(dictionary, [0, 1])
    np.testing.assert_allclose(load_file(tmp_path / "v")["3"], wanted, atol=1e-6)


def test_the_same_direction_is_the_same_bytes(dictionary, tmp_path):
    for format_, name in NAMES.items():
        export_direction(dictionary, format_, tmp_path / name, [1])
    first = bytes_of(tmp_path)
    for format_, name in NAMES.items():
        export_direction(dictionary, format_, tmp_path / name, [1], overwrite=True)
    assert bytes_of(tmp_path) == first


@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox"])
def test_the_layer_is_the_one_whose_output_the_site_is(dictionary, tmp_path, architecture):
    """A reader adds `direction.L` to the output of layer L, from 0: the site itself."""
    model = tiny_model(architecture)
    site = model.site("resid_post.1")
    named = {"site": {"name": site.name, "spellings": site.spellings}, "model": model.describe()}
    here = replace(dictionary, provenance=named)
    done = to_control_vector(here, tmp_path / "v", [0])
    assert done.layers == (1,)
    assert model.module.get_submodule(site.module_path) is model.layers[1]
    hint = read_gguf(tmp_path / "v")[0]["controlvector.model_hint"]
    assert hint == architecture.replace("_", "")
    assert to_steering_file(here, tmp_path / "s", [0]).layers == (1,)
    with pytest.raises(ValueError, match="no layer 3; expected 0 to 2"):
        to_control_vector(here, tmp_path / "w", [0], layers=[1, 3])


@pytest.mark.parametrize(
    ("model_class", "hint"),
    [
        ("LlamaForCausalLM", "llama"),
        ("MistralForCausalLM", "llama"),
        ("Qwen2ForCausalLM", "qwen2"),
        ("Qwen3MoeForCausalLM", "qwen3moe"),
        ("Gemma2ForCausalLM", "gemma2"),
        ("Gemma3ForConditionalGeneration", "gemma3"),
        ("GPT2LMHeadModel", "gpt2"),
        ("GPTNeoXForCausalLM", "gptneox"),
        ("PhiForCausalLM", "phi2"),
        ("CohereForCausalLM", "command-r"),
        ("GptOssForCausalLM", "gpt-oss"),
    ],
)
def test_the_hint_is_an_architecture_that_gguf_has(dictionary, tmp_path, model_class, hint):
    done = to_control_vector(at(dictionary, "resid_post.3", model_class), tmp_path / "v", [0])
    assert read_gguf(tmp_path / "v")[0]["controlvector.model_hint"] == hint
    assert hint in gguf.MODEL_ARCH_NAMES.values()
    assert done.warnings == ()


@pytest.mark.parametrize("model_class", [None, 3, HOSTILE, "MyModel", "ForCausalLM"])
def test_a_class_without_an_architecture_is_a_warning(dictionary, tmp_path, model_class):
    other = at(dictionary, "resid_post.3", model_class)
    done = to_control_vector(other, tmp_path / "v", [0])
    assert "--model-hint" in done.warnings[0]
    assert read_gguf(tmp_path / "v")[0]["controlvector.model_hint"] == "unknown"
    done = to_control_vector(other, tmp_path / "w", [0], model_hint="olmo2")
    assert done.warnings == ()
    assert read_gguf(tmp_path / "w")[0]["controlvector.model_hint"] == "olmo2"


def test_the_first_layer_has_no_control_vector(dictionary, tmp_path):
    first = at(dictionary, "resid_post.0")
    with pytest.raises(ValueError, match="no control vector for layer 0"):
        to_control_vector(first, tmp_path / "v", [0])
    with pytest.raises(ValueError, match="no control vector for layer 0"):
        to_control_vector(dictionary, tmp_path / "v", [0], layers=[2, 0])
    assert list(tmp_path.iterdir()) == []
    assert to_steering_file(first, tmp_path / "v", [0]).layers == (0,)


# What cannot be exported


@pytest.mark.parametrize("format_", NAMES)
@pytest.mark.parametrize(
    ("regions", "sentence"),
    [
        ([], "no region was given; name one with --region"),
        ([10**6], "region 1000000 does not exist"),
        ([-(10**6)], "does not exist"),
        ([10**30], "does not exist"),
        ([True], "a region is True, expected its number"),
        ([1.0], "a region is 1.0"),
        (["1"], "a region is '1'"),
        ([None], "a region is None"),
        ([2, 5, 2], "region 2 was given twice"),
    ],
)
def test_a_region_that_there_is_not_is_a_sentence(dictionary, tmp_path, format_, regions, sentence):
    with pytest.raises(ValueError, match=sentence):
        export_direction(dictionary, format_, tmp_path / NAMES[format_], regions)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", NAMES)
def test_a_region_is_given_once_by_whichever_number(dictionary, tmp_path, format_):
    with pytest.raises(ValueError, match="region 2 was given twice"):
        export_direction(dictionary, format_, tmp_path / "v.csv", [2, 2 - len(dictionary)])


@pytest.mark.parametrize("format_", NAMES)
def test_a_region_without_members_has_no_mean(dictionary, tmp_path, format_):
    means = dictionary.means.copy()
    means[4] = np.nan
    some = replace(dictionary, members=replace(dictionary.members, means=means))
    out = tmp_path / NAMES[format_]
    with pytest.raises(ValueError, match="region 4 has no members, so it has no mean"):
        export_direction(some, format_, out, [4], basis="mean")
    assert list(tmp_path.iterdir()) == []
    assert export_direction(some, format_, out, [4]).regions == (4,)
    with pytest.raises(ValueError, match="basis is"):
        export_direction(some, format_, out, [4], basis="median", overwrite=True)


@pytest.mark.parametrize("format_", NAMES)
def test_a_dictionary_of_one_region_has_a_direction(dictionary, tmp_path, format_):
    one = replace(
        dictionary, exemplars=dictionary.exemplars[:1], exemplar_rows=dictionary.exemplar_rows[:1],
        members=members_of(dictionary, [0]),
    )  # fmt: skip
    assert export_direction(one, format_, tmp_path / NAMES[format_], [0]).regions == (0,)
    with pytest.raises(ValueError, match="region 1 does not exist"):
        export_direction(one, format_, tmp_path / "other.csv", [1])


@pytest.mark.parametrize("format_", ["gguf", "steering-vectors", "lm-eval"])
def test_directions_that_cancel_are_a_sentence(dictionary, tmp_path, format_):
    rows = np.array(dictionary.exemplars)
    rows[1] = -rows[0]
    with pytest.raises(ValueError, match="cancel each other"):
        export_direction(replace(dictionary, exemplars=rows), format_, tmp_path / "v.csv", [0, 1])


@pytest.mark.parametrize("format_", ["gguf", "steering-vectors"])
@pytest.mark.parametrize("site", ["attn_out.3", "mlp_out.3", "resid_pre.3"])
def test_a_site_that_is_no_layers_output_is_a_sentence(dictionary, tmp_path, format_, site):
    for layers in (None, [2]):
        with pytest.raises(ValueError, match=rf"is of {site}, and.*resid_post\.N"):
            export_direction(at(dictionary, site), format_, tmp_path / "v", [0], layers=layers)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", ["gguf", "steering-vectors"])
@pytest.mark.parametrize("site", [{}, "resid_post.3", None, {"name": 3}])
def test_without_a_site_the_layers_must_be_named(dictionary, tmp_path, format_, site):
    bare = replace(dictionary, provenance={"site": site})
    with pytest.raises(ValueError, match=r"does not say which site.*--layers"):
        export_direction(bare, format_, tmp_path / "v", [0])
    assert export_direction(bare, format_, tmp_path / "v", [0], layers=[7]).layers == (7,)
    with pytest.raises(ValueError, match="no layer -1; expected numbers from 0"):
        export_direction(bare, format_, tmp_path / "w", [0], layers=[-1])
    with pytest.raises(ValueError, match="no layer was given"):
        export_direction(bare, format_, tmp_path / "w", [0], layers=[])


def test_another_spelling_of_the_site_is_a_layer_too(dictionary, tmp_path):
    names = {"spellings": {"transformer_lens": "blocks.5.hook_resid_post"}}
    named = replace(dictionary, provenance={"site": names})
    assert to_steering_file(named, tmp_path / "v", [0]).layers == (5,)
    hostile = replace(dictionary, provenance={"site": {"name": "resid_post.3\n"}})
    with pytest.raises(ValueError, match="added to the output of a whole layer"):
        to_steering_file(hostile, tmp_path / "w", [0])


@pytest.mark.parametrize("format_", NAMES)
@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"strength": 0.0}, "the strength is 0"),
        ({"strength": float("nan")}, "the strength is nan"),
        ({"strength": float("inf")}, "the strength is inf"),
        ({"strength": 1e38}, "too large for float32"),
        ({"unit": 0.0}, "the unit of strengths is 0"),
        ({"unit": -1.0}, "the unit of strengths is -1"),
        ({"unit": float("nan")}, "the unit of strengths is nan, expected a positive"),
    ],
)
def test_a_strength_that_is_none_is_a_sentence(dictionary, tmp_path, format_, options, sentence):
    more = {"action": "add"} if format_ == "lm-eval" else {}
    with pytest.raises(ValueError, match=sentence):
        export_direction(dictionary, format_, tmp_path / "v.csv", [0], **options, **more)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format_", NAMES)
def test_without_norms_the_unit_must_be_given(dictionary, tmp_path, format_):
    nan = (float("nan"),) * 3
    bare = replace(dictionary, calibration=replace(dictionary.calibration, vector_norms=nan))
    more = {"action": "add"} if format_ == "lm-eval" else {}
    out = tmp_path / NAMES[format_]
    with pytest.raises(ValueError, match=r"median activation norm.*--unit"):
        export_direction(bare, format_, out, [0], **more)
    done = export_direction(bare, format_, out, [0], unit=7.0, strength=0.5, **more)
    assert done.length == pytest.approx(3.5)


def test_an_unknown_option_or_format_is_a_sentence(dictionary, tmp_path):
    with pytest.raises(ValueError, match="gguf has no option action"):
        export_direction(dictionary, "gguf", tmp_path / "v", [0], action="add")
    with pytest.raises(ValueError, match=r'no format "onnx".*gguf, steering-vectors, lm-eval'):
        export_direction(dictionary, "onnx", tmp_path / "v", [0])
    assert not set(DIRECTION_FORMATS) & set(export.FORMATS)
    assert set(DIRECTION_FORMATS) == set(NAMES)


# Files that are there


@pytest.mark.parametrize("format_", NAMES)
def test_only_a_file_of_its_kind_is_replaced(dictionary, tmp_path, format_):
    out = tmp_path / NAMES[format_]
    for theirs in (b"mine", b"", b"GGUF" + b"\0" * 5000 + b"controlvector", b"loader,action\n"):
        out.write_bytes(theirs)
        for overwrite in (False, True):
            with pytest.raises(FormatError, match="is a file that is not"):
                export_direction(dictionary, format_, out, [0], overwrite=overwrite)
        assert bytes_of(tmp_path) == {out.name: theirs}
    save_file({"W": np.zeros(2, np.float32)}, out)
    with pytest.raises(FormatError, match="is a file that is not"):
        export_direction(dictionary, format_, out, [0], overwrite=True)
    out.unlink()
    out.mkdir()
    with pytest.raises(FormatError, match="is not a file"):
        export_direction(dictionary, format_, out, [0], overwrite=True)
    out.rmdir()
    export_direction(dictionary, format_, out, [0])
    before = bytes_of(tmp_path)
    with pytest.raises(FormatError, match=r"already.*--overwrite"):
        export_direction(dictionary, format_, out, [1])
    assert bytes_of(tmp_path) == before
    export_direction(dictionary, format_, out, [1], overwrite=True)
    assert bytes_of(tmp_path) != before


def test_a_model_is_no_control_vector(dictionary, tmp_path):
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_tensor("direction.1", np.zeros(4, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    before = bytes_of(tmp_path)
    with pytest.raises(FormatError, match="is not a control vector"):
        to_control_vector(dictionary, tmp_path / "model.gguf", [0], overwrite=True)
    assert bytes_of(tmp_path) == before


@pytest.mark.parametrize("before", [False, True])
@pytest.mark.parametrize("format_", NAMES)
def test_a_failed_export_leaves_what_was_there(dictionary, tmp_path, monkeypatch, format_, before):
    out = tmp_path / NAMES[format_]
    if before:
        export_direction(dictionary, format_, out, [0])
    there = bytes_of(tmp_path)

    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(gguf.GGUFWriter, "write_tensors_to_file", full)
    monkeypatch.setattr(directions, "to_sparsify", full)
    if format_ == "steering-vectors":
        monkeypatch.setattr(directions, "write_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        export_direction(dictionary, format_, out, [1], overwrite=True)
    assert bytes_of(tmp_path) == there


def test_without_the_package_gguf_is_a_sentence(dictionary, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(ImportError, match=r"pip install 'exemplars\[gguf\]'") as found:
        to_control_vector(dictionary, tmp_path / "v", [0])
    assert found.value.name is None
    assert list(tmp_path.iterdir()) == []


# steering-vectors


def test_a_steering_file_holds_a_tensor_of_each_layer(dictionary, tmp_path):
    done = to_steering_file(dictionary, tmp_path / "v", [2, 7], strength=-3, layers=[2, 3, 4])
    found = load_file(tmp_path / "v")
    assert sorted(found) == ["2", "3", "4"]
    assert done.layers == (2, 3, 4)
    norm = dictionary.calibration.vector_norms[1]
    wanted = -3 * norm * slow_direction(dictionary, [2, 7]) / 3
    for vector in found.values():
        assert vector.dtype == np.float32
        np.testing.assert_allclose(vector, wanted, rtol=1e-5, atol=1e-4)
    with safe_open(tmp_path / "v", "numpy") as file:
        record = json.loads(file.metadata()["exemplars"])
    assert (record["regions"], record["format"]) == ([2, 7], "steering-vectors")
    assert record["model"] == HOSTILE


def test_the_object_of_steering_vectors_holds_the_same(dictionary, tmp_path, monkeypatch):
    class SteeringVector(types.SimpleNamespace):
        pass

    module = types.ModuleType("steering_vectors")
    module.SteeringVector = SteeringVector
    monkeypatch.setitem(sys.modules, "steering_vectors", module)
    made = to_steering_vector(dictionary, [5], strength=2, layers=[3, 1])
    assert made.layer_type == "decoder_block"
    to_steering_file(dictionary, tmp_path / "v", [5], strength=2, layers=[1, 3])
    saved = load_file(tmp_path / "v")
    assert sorted(made.layer_activations) == [1, 3]
    for layer, vector in made.layer_activations.items():
        assert torch.equal(vector, torch.from_numpy(saved[str(layer)]))


def test_without_steering_vectors_is_a_sentence(dictionary):
    if importlib.util.find_spec("steering_vectors") is not None:
        pytest.skip("steering_vectors is installed here")
    with pytest.raises(ImportError, match="pip install steering-vectors") as found:
        to_steering_vector(dictionary, [0])
    assert found.value.name is None


# lm-evaluation-harness


@given(st.integers(0, 19), st.sampled_from(["exemplar", "mean"]), st.integers(0, 99))
@settings(max_examples=15, deadline=None)
def test_lm_eval_ablates_about_the_center(dictionary, tmp_path_factory, region, basis, seed):
    out = tmp_path_factory.mktemp("v") / "v.csv"
    done = to_lm_eval(dictionary, out, [region], basis=basis)
    rng = np.random.default_rng(seed)
    x = (rng.normal(size=(2, 3, D)) * 10).astype(np.float32)
    u, c = slow_direction(dictionary, [region], basis), dictionary.center.astype(np.float64)
    wanted = x - ((x - c) @ u)[..., None] * u
    np.testing.assert_allclose(steered(out, x), wanted, atol=1e-4)
    row = read_csv(out)
    assert (row["action"], row["hookpoint"], row["feature_index"]) == ("clamp", "layers.3", "0")
    assert row["steering_coefficient"] == "0.0"
    assert (done.strength, done.length, done.action) == (None, None, "ablate")
    assert done.warnings == ()
    record = json.loads((done.sparsify / "layers.3" / "regions.json").read_text())
    assert (record["regions"], record["n_regions"]) == ([region], len(dictionary))
    assert (record["basis"], record["format"]) == (basis, "sparsify")


@pytest.mark.parametrize("regions", [[3], [3, 1, 8]])
def test_lm_eval_adds_the_sum(dictionary, tmp_path, regions):
    done = to_lm_eval(dictionary, tmp_path / "v.csv", regions, action="add", strength=-0.5)
    x = np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)
    norm = dictionary.calibration.vector_norms[1]
    wanted = x - 0.5 * norm * slow_direction(dictionary, regions)
    np.testing.assert_allclose(steered(tmp_path / "v.csv", x), wanted, rtol=1e-5, atol=1e-4)
    assert (done.strength, done.length) == (-0.5, pytest.approx(norm / 2))
    assert "python -O -m lm_eval" in done.warnings[0]
    record = json.loads((done.sparsify / "layers.3" / "regions.json").read_text())
    assert record["regions"] == (regions if len(regions) == 1 else [regions])


def test_a_coder_of_one_latent_opens_as_one(dictionary, tmp_path):
    done = to_lm_eval(dictionary, tmp_path / "a.b.csv", [6])
    assert done.sparsify == tmp_path / "a.b-sparsify"
    weights = load_file(done.sparsify / "layers.3" / "sae.safetensors")
    assert weights["W_dec"].shape == weights["encoder.weight"].shape == (1, D)
    np.testing.assert_array_equal(weights["b_dec"], dictionary.center)
    config = json.loads((done.sparsify / "layers.3" / "cfg.json").read_text())
    assert (config["num_latents"], config["d_in"]) == (1, D)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_sparsify_export_that_is_there_is_referred_to(dictionary, tmp_path, dtype):
    export.to_sparsify(dictionary, tmp_path / "coders", top=8, dtype=dtype)
    kept = export.select_regions(dictionary, top=8).tolist()
    assert kept != list(range(8))
    for latent, region in enumerate(kept):
        done = to_lm_eval(
            dictionary, tmp_path / "v.csv", [region], sparsify=tmp_path / "coders", overwrite=True
        )
        row = read_csv(tmp_path / "v.csv")
        assert int(row["feature_index"]) == latent
        assert row["sparse_model"] == str(tmp_path / "coders")
        assert done.sparsify == tmp_path / "coders"
    assert {p.name for p in tmp_path.iterdir()} == {"coders", "v.csv"}
    left = next(k for k in range(len(dictionary)) if k not in kept)
    with pytest.raises(MismatchError, match=f"has 8 regions, and region {left} is not among"):
        to_lm_eval(dictionary, tmp_path / "w.csv", [left], sparsify=tmp_path / "coders")


def test_a_sparsify_export_of_something_else_is_a_sentence(dictionary, tmp_path):
    coders, out = tmp_path / "coders", tmp_path / "v.csv"

    def refused(error, words, given=dictionary, **options):
        with pytest.raises(error, match=words):
            to_lm_eval(given, out, [0], **{"sparsify": coders, **options})
        assert not out.exists()

    refused(FormatError, "holds no sparsify export")
    export.to_sparsify(dictionary, coders)
    refused(FormatError, "holds no sparsify export", hookpoint="layers.4")
    refused(MismatchError, "with basis exemplar, and the dictionary has mean", basis="mean")
    other = replace(dictionary, provenance={**about(), "model": {"fingerprint": "e" * 64}})
    refused(MismatchError, "with model_fingerprint ffff", other)
    turned = replace(dictionary, exemplars=np.array(dictionary.exemplars[::-1]))
    refused(MismatchError, "latent 0 of .* is not the direction of region 0", turned)
    with pytest.raises(ValueError, match="their sum is no latent"):
        to_lm_eval(dictionary, out, [0, 1], action="add", sparsify=coders)
    (coders / "layers.3" / "sae.safetensors").write_bytes(b"x")
    refused(FormatError, "cannot be read.*export it again")
    for text in ("[]", "{}", "null", '{"regions": 3}', "[" * 100_000):
        (coders / "layers.3" / "regions.json").write_text(text)
        refused(FormatError, "holds no sparsify export")


def test_what_lm_eval_cannot_do_is_a_sentence(dictionary, tmp_path):
    for words, regions, options in [
        ("changes one direction at a hookpoint, and 2 regions", [0, 1], {}),
        ("has no strength", [0], {"strength": 1.0}),
        ("has no strength", [0], {"unit": 1.0}),
        ('the action is "clamp", expected one of ablate, add', [0], {"action": "clamp"}),
        ("expected the path of a module", [0], {"hookpoint": "../up"}),
    ]:
        with pytest.raises(ValueError, match=words):
            to_lm_eval(dictionary, tmp_path / "v.csv", regions, **options)
    with pytest.raises(
        ValueError, match=r'the file is "v\.tsv", expected a name that ends in \.csv'
    ):
        to_lm_eval(dictionary, tmp_path / "v.tsv", [0])
    with pytest.raises(ValueError, match=r"does not say which site.*--hookpoint"):
        to_lm_eval(replace(dictionary, provenance={}), tmp_path / "v.csv", [0])
    with pytest.raises(ValueError, match=r"of the input of model\.layers\.3"):
        to_lm_eval(at(dictionary, "resid_pre.3"), tmp_path / "v.csv", [0])
    assert list(tmp_path.iterdir()) == []
    assert to_lm_eval(at(dictionary, "mlp_out.3"), tmp_path / "v.csv", [0]).hookpoint == (
        "layers.3.mlp_out"
    )


def test_someones_own_folder_beside_the_csv_is_kept(dictionary, tmp_path):
    (tmp_path / "v-sparsify" / "layers.3").mkdir(parents=True)
    (tmp_path / "v-sparsify" / "layers.3" / "notes").write_text("mine")
    with pytest.raises(FormatError, match="not an export"):
        to_lm_eval(dictionary, tmp_path / "v.csv", [0], overwrite=True)
    assert bytes_of(tmp_path) == {"v-sparsify/layers.3/notes": b"mine"}


def test_a_path_with_commas_is_one_field(dictionary, tmp_path):
    folder = tmp_path / 'a,"b'
    to_lm_eval(dictionary, folder / "v.csv", [0])
    assert read_csv(folder / "v.csv")["sparse_model"] == str(folder / "v-sparsify")


# The command


def test_the_command_exports_directions(run, dictionary, tmp_path):
    ex.save(at(dictionary), tmp_path / "d")
    status, said, _ = run(
        "export", "gguf", tmp_path / "d", tmp_path / "v.gguf", "--region", 3, "--region", 5,
        "--strength", "-0.5", "--layers", "2-4,7",
    )  # fmt: skip
    assert status == 0
    assert "3 + 5" in said
    assert "layer 2, layer 3, layer 4, layer 7" in said
    assert f"written to {tmp_path / 'v.gguf'}" in said
    wanted = -0.5 * dictionary.calibration.vector_norms[1] * slow_direction(dictionary, [3, 5])
    found = sum(read_gguf(tmp_path / "v.gguf")[2].values())
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-3)
    status, said, _ = run(
        "export", "lm-eval", tmp_path / "d", tmp_path / "v.csv", "--region", 3, "--json"
    )
    assert (status, json.loads(said)["sparsify"]) == (0, str(tmp_path / "v-sparsify"))
    status, said, err = run(
        "export", "lm-eval", tmp_path / "d", tmp_path / "w.csv", "--region", 3, "--action", "add"
    )
    assert (status, "warning: lm-eval 0.4.9.2" in err) == (0, True)
    assert "which refers to" in said
    out = tmp_path / "v.safetensors"
    assert run("export", "steering-vectors", tmp_path / "d", out, "--region", 0)[0] == 0
    assert list(load_file(out)) == ["3"]


def test_the_command_refuses_options_of_other_formats(run, dictionary, tmp_path):
    ex.save(at(dictionary), tmp_path / "d")
    for format_, words, option in [
        ("gguf", ["--top", 3], "--top"),
        ("gguf", ["--dtype", "float32"], "--dtype"),
        ("gguf", ["--hookpoint", "layers.3"], "--hookpoint"),
        ("gguf", ["--action", "add"], "--action"),
        ("steering-vectors", ["--model-hint", "llama"], "--model-hint"),
        ("steering-vectors", ["--min-members", 2], "--min-members"),
        ("lm-eval", ["--layers", "3"], "--layers"),
        ("saelens", [], "--region"),
        ("sparsify", ["--strength", 1], "--region"),
    ]:
        out = tmp_path / "out.csv"
        status, said, err = run("export", format_, tmp_path / "d", out, "--region", 1, *words)
        assert (status, said) == (2, "")
        assert err.startswith(f"error: the format {format_} has no option {option}; see")
    for words, sentence in [
        (["gguf"], "no region was given; name one with --region"),
        (["gguf", "--region", 999], "region 999 does not exist"),
        (["gguf", "--region", 0, "--layers", "4-2"], 'the layers are "4-2"'),
        (["gguf", "--region", 0, "--layers", "9"], "no layer 9; expected 0 to 8"),
        (["lm-eval", "--region", 0, "--region", 1], "2 regions were given to ablate"),
    ]:
        format_, *more = words
        status, _, err = run("export", format_, tmp_path / "d", tmp_path / "out.csv", *more)
        assert (status, err.count("\n")) == (2, 1)
        assert sentence in err
    assert {p.name for p in tmp_path.iterdir()} == {"d"}


def test_layers_are_numbers_and_ranges():
    assert layers_of("14") == [14]
    assert layers_of("14-16,3") == [14, 15, 16, 3]
    for text in ("", "-1", "3-", "a", "1,,2", "1.5", "٣", "9999999", "1\n", "5-3"):
        with pytest.raises(ValueError, match="expected numbers from 0"):
            layers_of(text)
