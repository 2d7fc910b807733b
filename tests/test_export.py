"""Exports are what the other libraries read, and say of each latent which region it is."""

import importlib.util
import json
import sys
import types
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

import exemplars as ex
from exemplars import export
from exemplars.errors import ActivationError, FormatError
from exemplars.export import writing
from exemplars.export.axbench import auroc_of_columns, choose_region
from exemplars.export.sparsify import hookpoint_of

D = 24
SITE = {
    "name": "resid_post.3",
    "spellings": {
        "exemplars": "resid_post.3",
        "transformer_lens": "blocks.3.hook_resid_post",
        "module": "model.layers.3",
    },
}
HOSTILE = '../../etc\x1b[31m"}\u202e\n'


def stream(n=900, seed=0):
    rng = np.random.default_rng(seed)
    clouds = rng.normal(size=(40, D)) * 4
    return (clouds[rng.integers(0, 40, n)] + rng.normal(size=(n, D)) + 7).astype(np.float32)


@pytest.fixture(scope="module")
def dictionary():
    vectors = stream()
    made = ex.partition(vectors, ex.calibrate(vectors, percentiles=[3]))
    about = {
        "site": SITE,
        "model": {"name": HOSTILE, "fingerprint": "f" * 64},
        "tokenization": {"context_length": 128},
    }
    made = replace(made, provenance=about)
    assert len(made) > 30
    assert len(np.unique(made.counts)) > 5
    return made


def saelens_latents(folder, x):
    """TopK with k = 1 as SAELens has it; -1 for a row without a code."""
    config = json.loads((folder / "cfg.json").read_text())
    w = load_file(folder / "sae_weights.safetensors")
    assert (config["architecture"], config["k"], config["apply_b_dec_to_input"]) == (
        "topk",
        1,
        True,
    )
    assert w["W_enc"].shape == (config["d_in"], config["d_sae"])
    hidden = (x - w["b_dec"]) @ w["W_enc"] + w["b_enc"]
    if config["rescale_acts_by_decoder_norm"]:
        hidden = hidden * np.linalg.norm(w["W_dec"], axis=1)
    return np.where(hidden.max(axis=1) > 0, hidden.argmax(axis=1), -1)


def sparsify_latents(folder, x):
    """TopK with k = 1 as sparsify has it; -1 for a row without a code."""
    config = json.loads((folder / "cfg.json").read_text())
    w = load_file(folder / "sae.safetensors")
    assert (config["activation"], config["k"], config["transcode"]) == ("topk", 1, False)
    assert w["encoder.weight"].shape == (config["num_latents"], config["d_in"])
    hidden = np.maximum((x - w["b_dec"]) @ w["encoder.weight"].T + w["encoder.bias"], 0)
    return np.where(hidden.max(axis=1) > 0, hidden.argmax(axis=1), -1)


LATENTS = {"saelens": saelens_latents, "sparsify": sparsify_latents}
WEIGHTS = {"saelens": "sae_weights.safetensors", "sparsify": "sae.safetensors"}


def bytes_of(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_every_format_has_an_oracle_here():
    assert set(export.FORMATS) == set(LATENTS)


@pytest.mark.parametrize("format_", LATENTS)
def test_an_export_assigns_as_the_dictionary_does(dictionary, tmp_path, format_):
    done = export.export_as(dictionary, format_, tmp_path / "out")
    x = stream(seed=1)
    region, distance = dictionary.assign(x)
    expected = np.where(distance < 1, region, -1)
    np.testing.assert_array_equal(LATENTS[format_](done.folder, x), expected)
    assert len(np.unique(region)) > 20
    assert done.latents == len(dictionary)
    assert done.dropped == 0
    assert done.bytes == sum(map(len, bytes_of(done.folder).values()))
    assert set(done.files) == set(bytes_of(done.folder))


@pytest.mark.parametrize("format_", LATENTS)
def test_a_row_with_a_negative_best_projection_has_no_code(dictionary, tmp_path, format_):
    alone = replace(dictionary, exemplars=dictionary.exemplars[:1])
    alone = replace(alone, members=members_of(dictionary, [0]))
    done = export.export_as(alone, format_, tmp_path / "out")
    x = np.stack([dictionary.center + s * dictionary.exemplars[0] for s in (3, -3)])
    assert LATENTS[format_](done.folder, x.astype(np.float32)).tolist() == [0, -1]


@pytest.mark.parametrize("format_", LATENTS)
@pytest.mark.parametrize("basis", ["exemplar", "mean"])
def test_filters_keep_the_numbers_of_the_regions(dictionary, tmp_path, format_, basis):
    done = export.export_as(
        dictionary, format_, tmp_path / "out", top=9, min_members=3, basis=basis
    )
    regions = np.array(json.loads((done.folder / "regions.json").read_text())["regions"])
    weights = load_file(done.folder / WEIGHTS[format_])
    np.testing.assert_array_equal(weights["W_dec"], dictionary.basis(basis)[regions])
    encoder = weights["W_enc"].T if format_ == "saelens" else weights["encoder.weight"]
    np.testing.assert_array_equal(encoder, dictionary.basis(basis)[regions])
    assert done.latents == len(regions) == 9
    assert done.dropped == len(dictionary) - 9
    x = stream(seed=2)
    kept = dictionary.encode(x, "cosine", basis)[:, regions]
    found = LATENTS[format_](done.folder, x)
    clear = np.sort(kept, axis=1)[:, -1] - np.sort(kept, axis=1)[:, -2] > 1e-5
    assert clear.mean() > 0.9
    expected = np.where(kept.max(axis=1) > 0, kept.argmax(axis=1), -1)
    np.testing.assert_array_equal(found[clear], expected[clear])


def test_regions_are_chosen_by_members_and_keep_their_order(dictionary):
    counts = dictionary.counts
    by_hand = sorted(sorted(range(len(counts)), key=lambda k: (-counts[k], k))[:7])
    assert export.select_regions(dictionary, top=7).tolist() == by_hand
    least = int(np.median(counts))
    expected = np.flatnonzero(counts >= least)
    assert export.select_regions(dictionary, min_members=least).tolist() == expected.tolist()
    assert len(export.select_regions(dictionary, top=10_000)) == len(dictionary)


def test_a_census_counts_more_than_the_build(dictionary):
    turned = replace(dictionary.members, counts=dictionary.counts[::-1].copy())
    counted = dictionary.with_census(turned)
    largest = len(dictionary) - 1 - int(dictionary.counts[::-1].argmax())
    assert export.select_regions(counted, top=1).tolist() != [largest]
    assert turned.counts[export.select_regions(counted, top=1)[0]] == turned.counts.max()


def members_of(dictionary, regions):
    members = dictionary.members
    names = ("counts", "means", "coherence", "distance_sums", "distance_square_sums", "histogram")
    return replace(members, **{name: getattr(members, name)[regions] for name in names})


def test_regions_without_members_have_no_mean_to_export(dictionary):
    means = dictionary.means.copy()
    means[4] = np.nan
    some = replace(dictionary, members=replace(dictionary.members, means=means))
    assert 4 not in export.select_regions(some, basis="mean")
    assert len(export.select_regions(some)) == len(dictionary)


def test_the_config_for_saelens_is_exactly_this(dictionary, tmp_path):
    done = export.to_saelens(dictionary, tmp_path / "out")
    assert json.loads((done.folder / "cfg.json").read_text()) == {
        "architecture": "topk",
        "k": 1,
        "d_in": D,
        "d_sae": len(dictionary),
        "dtype": "float32",
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": True,
        "metadata": {
            "sae_lens_version": "6.54.12",
            "sae_lens_training_version": None,
            "model_name": HOSTILE,
            "hook_name": "blocks.3.hook_resid_post",
            "model_class_name": "HookedTransformer",
            "context_size": 128,
            "ep_exemplars_version": ex.__version__,
            "ep_format": "saelens",
            "ep_basis": "exemplar",
            "ep_percentile": 3.0,
            "ep_threshold": dictionary.threshold,
            "ep_n_regions": len(dictionary),
            "ep_model": HOSTILE,
            "ep_model_fingerprint": "f" * 64,
            "ep_site": "resid_post.3",
        },
    }
    shares = load_file(done.folder / "sparsity.safetensors")["sparsity"]
    np.testing.assert_allclose(10**shares, dictionary.counts / dictionary.counts.sum(), rtol=1e-5)
    fewer = export.to_saelens(dictionary, tmp_path / "fewer", top=5)
    assert "sparsity.safetensors" not in fewer.files


def test_the_config_for_sparsify_is_exactly_this(dictionary, tmp_path):
    done = export.to_sparsify(dictionary, tmp_path / "out")
    assert done.folder == tmp_path / "out" / "layers.3"
    assert json.loads((done.folder / "cfg.json").read_text()) == {
        "activation": "topk",
        "expansion_factor": 32,
        "normalize_decoder": True,
        "num_latents": len(dictionary),
        "k": 1,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": D,
    }
    names = set(load_file(done.folder / "sae.safetensors"))
    assert names == {"encoder.weight", "encoder.bias", "W_dec", "b_dec"}


@pytest.mark.parametrize("hook", ["model.layers.3", "blocks_of.my.hook"])
def test_a_hook_of_another_name_is_a_module(dictionary, tmp_path, hook):
    done = export.to_saelens(dictionary, tmp_path / "out", hookpoint=hook)
    metadata = json.loads((done.folder / "cfg.json").read_text())["metadata"]
    assert (metadata["hook_name"], metadata["model_class_name"]) == (hook, "AutoModelForCausalLM")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_narrow_weights_are_rounded_as_torch_rounds_them(dictionary, tmp_path, dtype):
    from safetensors.torch import load_file as load_tensors

    done = export.to_saelens(dictionary, tmp_path / "out", dtype=dtype)
    found = load_tensors(done.folder / "sae_weights.safetensors")
    wanted = torch.from_numpy(np.array(dictionary.exemplars)).to(getattr(torch, dtype))
    assert torch.equal(found["W_dec"], wanted)
    assert torch.equal(found["W_enc"], wanted.T)
    assert torch.equal(found["b_dec"], torch.from_numpy(dictionary.center).to(wanted.dtype))
    assert json.loads((done.folder / "cfg.json").read_text())["dtype"] == dtype
    assert "some rows go to another latent" in done.warnings[0]
    bound = export.weight_bytes(len(dictionary), D, dtype)
    assert (done.folder / "sae_weights.safetensors").stat().st_size - bound < 512


def test_weights_of_many_blocks_are_the_matrix(tmp_path, monkeypatch):
    monkeypatch.setattr(writing, "_BLOCK", 3)
    matrix = np.arange(70, dtype=np.float32).reshape(10, 7)
    rows = np.array([0, 2, 3, 5, 6, 7, 9])
    tensors = {
        "rows": writing.Tensor.rows(matrix, rows),
        "columns": writing.Tensor.columns(matrix, rows),
    }
    writing.write_weights(tmp_path / "file", tensors)
    found = load_file(tmp_path / "file")
    np.testing.assert_array_equal(found["rows"], matrix[rows])
    np.testing.assert_array_equal(found["columns"], matrix[rows].T)


def test_a_center_too_large_for_float16_is_a_sentence(dictionary, tmp_path):
    far = np.array(dictionary.center)
    far[0] = 70_000
    wide = replace(dictionary, calibration=replace(dictionary.calibration, center=far))
    with pytest.raises(ValueError, match=r"70000.*export bfloat16"):
        export.to_sparsify(wide, tmp_path / "out", dtype="float16")
    assert export.to_sparsify(wide, tmp_path / "out", dtype="bfloat16").latents


@pytest.mark.parametrize("format_", LATENTS)
@pytest.mark.parametrize("before", [False, True])
def test_a_failed_export_leaves_what_was_there(dictionary, tmp_path, monkeypatch, format_, before):
    out = tmp_path / "out"
    if before:
        done = export.export_as(dictionary, format_, out, top=3)
        (done.folder / "README.md").write_text("mine")
    there = bytes_of(tmp_path)

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(f"exemplars.export.{format_}.write_json", full)
    with pytest.raises(OSError, match="nothing was changed"):
        export.export_as(dictionary, format_, out, overwrite=True)
    assert bytes_of(tmp_path) == there
    assert [p.name for p in tmp_path.iterdir()] == (["out"] if before else [])
    monkeypatch.undo()
    export.export_as(dictionary, format_, out, overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["out"]
    found = json.loads(next(out.rglob("regions.json")).read_text())
    assert len(found["regions"]) == len(dictionary)
    assert bool(list(out.rglob("README.md"))) == before


def test_an_export_that_a_kill_left_aside_comes_back(dictionary, tmp_path):
    done = export.to_sparsify(dictionary, tmp_path / "out", top=3)
    there = bytes_of(done.folder)
    done.folder.rename(tmp_path / ".out-layers.3.old")
    with pytest.raises(FormatError, match="already holds an export"):
        export.to_sparsify(dictionary, tmp_path / "out")
    assert bytes_of(done.folder) == there


def test_too_little_room_is_said_before_anything_is_written(dictionary, tmp_path, monkeypatch):
    usage = types.SimpleNamespace(free=10)
    monkeypatch.setattr(writing.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(OSError, match="too full: the export needs about"):
        export.to_saelens(dictionary, tmp_path / "a" / "out")
    assert list(tmp_path.iterdir()) == []


def test_several_sites_share_a_folder(dictionary, tmp_path):
    export.to_sparsify(dictionary, tmp_path / "out", top=4)
    export.to_sparsify(dictionary, tmp_path / "out", hookpoint="layers.7.mlp")
    assert {p.name for p in (tmp_path / "out").iterdir()} == {"layers.3", "layers.7.mlp"}
    with pytest.raises(FormatError, match="already holds an export"):
        export.to_sparsify(dictionary, tmp_path / "out")


def test_someones_own_files_are_never_replaced(dictionary, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(FormatError, match="files that are not an export"):
            export.to_saelens(dictionary, tmp_path, overwrite=overwrite)
    with pytest.raises(FormatError, match="is a file"):
        export.to_saelens(dictionary, tmp_path / "notes.txt")
    assert bytes_of(tmp_path) == {"notes.txt": b"mine"}
    ex.save(dictionary, tmp_path / "d")
    with pytest.raises(FormatError, match="files that are not an export"):
        export.to_saelens(dictionary, tmp_path / "d", overwrite=True)


@pytest.mark.parametrize(
    ("module", "hookpoint"),
    [
        ("model.layers.12", "layers.12"),
        ("transformer.h.12", "h.12"),
        ("gpt_neox.layers.3.mlp", "layers.3.mlp"),
        ("model.decoder.layers.1", "decoder.layers.1"),
        ("layers.12", "layers.12"),
    ],
)
def test_hookpoints_are_modules_of_the_base_model(dictionary, module, hookpoint):
    about = {"site": {"name": "x", "spellings": {"module": module}}}
    assert hookpoint_of(replace(dictionary, provenance=about)) == hookpoint


@pytest.mark.parametrize(
    ("site", "sentence"),
    [
        ({}, "does not say which site.*--hookpoint"),
        ("resid_post.3", "does not say which site.*--hookpoint"),
        ({"name": "a", "module": "model.layers.3:in"}, "of the input of model.layers.3"),
        ({"name": "a", "module": "../../up"}, "expected the path of a module"),
        ({"name": "a", "module": "model./etc"}, "expected the path of a module"),
        ({"name": "a", "module": "model.layers.3\n"}, "expected the path of a module"),
    ],
)
def test_a_site_without_a_hookpoint_is_a_sentence(dictionary, tmp_path, site, sentence):
    other = replace(dictionary, provenance={"site": site})
    with pytest.raises(ValueError, match=sentence):
        export.to_sparsify(other, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
    done = export.to_sparsify(other, tmp_path / "out", hookpoint="layers.3")
    assert done.folder.name == "layers.3"


def test_without_a_site_saelens_encodes_and_says_so(dictionary, tmp_path):
    done = export.to_saelens(replace(dictionary, provenance={}), tmp_path / "out")
    assert "names no site" in done.warnings[0]
    assert saelens_latents(done.folder, stream()[:50]).tolist() == (
        dictionary.assign(stream()[:50])[0].tolist()
    )


def test_a_path_that_delphi_misreads_is_a_warning(dictionary, tmp_path):
    assert "delphi" in export.to_sparsify(dictionary, tmp_path / "a-gemma-b").warnings[0]
    assert export.to_sparsify(dictionary, tmp_path / "out").warnings == ()


def test_wide_codes_are_a_warning(dictionary):
    from exemplars.export.selection import weight_warnings

    assert weight_warnings(100_000, "float32") == []
    assert "9.8 GB for 4,096 tokens" in weight_warnings(600_000, "float32")[0]


def test_what_cannot_be_exported_is_a_sentence(dictionary, tmp_path):
    none = replace(
        dictionary, exemplars=dictionary.exemplars[:0], members=members_of(dictionary, [])
    )
    for words, options, given in [
        ("has no regions", {}, none),
        ("no region is left to export: the largest", {"min_members": 10**6}, dictionary),
        ("top is 0", {"top": 0}, dictionary),
        ("min_members is -1", {"min_members": -1}, dictionary),
        ("dtype is", {"dtype": "int8"}, dictionary),
        ("basis is", {"basis": "median"}, dictionary),
    ]:
        for format_ in export.FORMATS:
            with pytest.raises(ValueError, match=words):
                export.export_as(given, format_, tmp_path / "out", **options)
    with pytest.raises(ValueError, match=r'no format "saelen".*saelens, sparsify.*did you mean'):
        export.export_as(dictionary, "saelen", tmp_path / "out")
    with pytest.raises(ValueError, match="saelens has no option color"):
        export.export_as(dictionary, "saelens", tmp_path / "out", color="red")
    assert list(tmp_path.iterdir()) == []


def test_the_command_exports_and_says_what(run, dictionary, tmp_path):
    ex.save(dictionary, tmp_path / "d")
    out = tmp_path / "out"
    status, said, progress = run("export", "saelens", tmp_path / "d", out, "--top", 5)
    assert status == 0
    assert "saelens" in said
    assert f"written to {out}: cfg.json, regions.json, sae_weights.safetensors" in said
    assert progress.startswith("writing 5 latents, 1.1 kB, to ")
    status, said, _ = run(
        "export", "sparsify", tmp_path / "d", tmp_path / "gemma", "--min-members", 3, "--json"
    )
    found = json.loads(said)
    assert found["latents"] == int((dictionary.counts >= 3).sum())
    assert len(found["warnings"]) == 1
    status, said, progress = run(
        "export", "sparsify", tmp_path / "d", out, "--hookpoint", "h.1", "--dtype", "bfloat16"
    )
    assert (status, (out / "h.1" / "cfg.json").exists()) == (0, True)
    assert "warning: the weights are rounded to bfloat16" in progress


def test_the_command_fails_in_one_sentence(run, dictionary, tmp_path):
    ex.save(dictionary, tmp_path / "d")
    ex.save(replace(dictionary, provenance={}), tmp_path / "bare")
    for words, sentence in [
        (("onnx", "d", "out"), 'there is no format "onnx", expected one of saelens, sparsify'),
        (("sparsify", "bare", "out"), "does not say which site"),
        (("saelens", "d", "out", "--min-members", "99999"), "no region is left"),
        (("saelens", "d", "d", "--overwrite"), "files that are not an export"),
        (("saelens", "d", "out", "--dtype", "int4"), "expected one of float32"),
        (("saelens", "nothing", "out"), "does not exist"),
    ]:
        format_, folder, out, *more = words
        status, said, err = run("export", format_, tmp_path / folder, tmp_path / out, *more)
        assert (status, said) == (2, "")
        assert err.splitlines()[-1].startswith("error: ")
        assert sentence in err
    assert not (tmp_path / "out").exists()
    run("export", "saelens", tmp_path / "d", tmp_path / "out")
    status, _, err = run("export", "saelens", tmp_path / "d", tmp_path / "out")
    assert (status, "--overwrite" in err) == (2, True)
    assert run("export", "saelens", tmp_path / "d", tmp_path / "out", "--overwrite")[0] == 0


# The classes


@pytest.fixture
def sae_bench(monkeypatch):
    """What sae-bench 0.6.0's BaseSAE does before a subclass' own code; the package is not here."""

    class BaseSAE(torch.nn.Module):
        def __init__(self, d_in, d_sae, model_name, hook_layer, device, dtype, hook_name=None):
            super().__init__()
            self.W_enc = torch.nn.Parameter(torch.zeros(d_in, d_sae, dtype=dtype))
            self.W_dec = torch.nn.Parameter(torch.zeros(d_sae, d_in, dtype=dtype))
            self.b_enc = torch.nn.Parameter(torch.zeros(d_sae, dtype=dtype))
            self.b_dec = torch.nn.Parameter(torch.zeros(d_in, dtype=dtype))
            self.device, self.dtype = device, dtype
            self.cfg = types.SimpleNamespace(
                model_name=model_name, d_in=d_in, d_sae=d_sae, hook_layer=hook_layer,
                hook_name=hook_name, architecture="", dtype="",
            )  # fmt: skip

    stand_in(monkeypatch, "sae_bench.custom_saes.base_sae", BaseSAE=BaseSAE)
    yield
    sys.modules["exemplars.export.saebench"]._sae_class.cache_clear()


def stand_in(monkeypatch, path, **names):
    parts = path.split(".")
    for n in range(1, len(parts) + 1):
        module = types.ModuleType(".".join(parts[:n]))
        monkeypatch.setitem(sys.modules, module.__name__, module)
    vars(module).update(names)


@pytest.mark.parametrize("readout", ["topk", "signed", "cosine", "topk_norm", "binary"])
@pytest.mark.parametrize("basis", ["exemplar", "mean"])
def test_the_class_for_saebench_codes_as_the_readouts(sae_bench, dictionary, readout, basis):
    sae = export.saebench_sae(dictionary, readout, basis=basis, model_name="gpt2")
    x = stream(60, seed=3)
    expected = dictionary.encode(x, readout, basis)
    expected = expected.toarray() if hasattr(expected, "toarray") else expected
    with torch.no_grad():
        codes = sae.encode(torch.from_numpy(x).reshape(6, 10, D))
        decoded = sae(torch.from_numpy(x))
    np.testing.assert_allclose(codes.reshape(60, -1).numpy(), expected, atol=2e-4)
    np.testing.assert_allclose(
        decoded.numpy(), dictionary.decode(expected, basis), atol=1e-3, rtol=1e-4
    )
    assert (sae.cfg.hook_layer, sae.cfg.hook_name) == (3, "blocks.3.hook_resid_post")
    assert sae.cfg.dtype == "float32"
    assert sae.cfg.architecture


def test_the_class_for_saebench_takes_few_regions(sae_bench, dictionary):
    sae = export.saebench_sae(dictionary, "topk", top=6, k=2, dtype="bfloat16")
    assert sae.regions.tolist() == export.select_regions(dictionary, top=6).tolist()
    with torch.no_grad():
        codes = sae.encode(torch.from_numpy(stream(50)))
    assert codes.shape == (50, 6)
    assert codes.dtype == torch.bfloat16
    assert int((codes != 0).sum(dim=1).max()) == 2
    one = export.saebench_sae(dictionary, "topk", top=1)
    away = dictionary.center - 3 * dictionary.exemplars[one.regions]
    with torch.no_grad():
        assert one.encode(torch.from_numpy(away)).tolist() == [[0.0]]


def test_arguments_for_saebench_are_checked(sae_bench, dictionary):
    bare = replace(dictionary, provenance={})
    for words, given, options in [
        ("readout is", dictionary, {"readout": "top"}),
        ("k is 0", dictionary, {"k": 0}),
        ("marks exactly 1", dictionary, {"k": 2, "readout": "binary"}),
        ("pass model_name", bare, {"hook_layer": 1}),
        ("pass hook_layer", bare, {"model_name": "gpt2"}),
    ]:
        with pytest.raises(ValueError, match=words):
            export.saebench_sae(given, **options)


def test_missing_packages_are_a_sentence(dictionary):
    for make, package in ((export.saebench_sae, "sae_bench"), (export.axbench_model, "axbench")):
        if importlib.util.find_spec(package) is not None:
            pytest.skip(f"{package} is installed here")
        with pytest.raises(ImportError, match="cannot be imported") as found:
            make(dictionary)
        assert found.value.name is None


def labelled_texts(dictionary, region, n=12, seed=0):
    """Texts of random rows; the positive ones also have one row of the region."""
    rng = np.random.default_rng(seed)
    others = np.flatnonzero(np.arange(len(dictionary)) != region)
    texts, labels = [], []
    for k in range(2 * n):
        rows = dictionary.exemplars[rng.choice(others, 5)]
        if k % 2:
            rows = np.concatenate([rows, dictionary.exemplars[[region]]])
        texts.append((rows * 5 + dictionary.center).astype(np.float32))
        labels.append(k % 2)
    return texts, labels


@pytest.mark.parametrize("rule", ["auroc", "contrast"])
@pytest.mark.parametrize("basis", ["exemplar", "mean"])
def test_the_region_of_a_concept_is_found(dictionary, rule, basis):
    region = int(dictionary.counts.argmax())
    texts, labels = labelled_texts(dictionary, region)
    found = choose_region(dictionary, texts, labels, rule, basis=basis)
    assert found.region == region
    np.testing.assert_array_equal(found.direction, dictionary.basis(basis)[region])
    if rule == "auroc":
        assert found.score == 1.0
    turned = choose_region(dictionary, texts, [1 - y for y in labels], rule, basis=basis)
    assert turned.region != region


def test_the_choice_is_that_of_a_slow_oracle(dictionary):
    rng = np.random.default_rng(5)
    texts = [stream(n, seed=n) for n in rng.integers(1, 9, 20)]
    labels = rng.integers(0, 2, 20)
    cosines = [dictionary.encode(text, "cosine") for text in texts]
    largest = np.stack([c.max(axis=0) for c in cosines])
    wins = largest[labels == 1][:, None] - largest[labels == 0][None]
    auroc = ((wins > 0) + 0.5 * (wins == 0)).mean(axis=(0, 1))
    np.testing.assert_allclose(auroc_of_columns(largest, labels == 1), auroc, atol=1e-12)
    found = choose_region(dictionary, texts, labels)
    assert (found.region, found.score) == (int(auroc.argmax()), pytest.approx(auroc.max()))
    mean = {
        kind: np.concatenate([c for c, y in zip(cosines, labels, strict=True) if y == kind]).mean(0)
        for kind in (0, 1)
    }
    found = choose_region(dictionary, texts, labels, "contrast")
    assert found.region == int((mean[1] - mean[0]).argmax())
    assert found.score == pytest.approx((mean[1] - mean[0]).max(), abs=1e-6)


def test_tied_scores_count_half():
    scores = np.array([[0, 1], [0, 1], [0, 0], [0, 2]], np.float32)
    positive = np.array([True, True, False, False])
    assert auroc_of_columns(scores, positive).tolist() == [0.5, 0.5]


def test_what_no_region_can_be_chosen_from_is_a_sentence(dictionary):
    texts, labels = labelled_texts(dictionary, 0, n=2)
    with pytest.raises(ValueError, match="no positive text"):
        choose_region(dictionary, texts, [0] * 4)
    with pytest.raises(ValueError, match="no negative text"):
        choose_region(dictionary, [texts[0][:0], *texts[1:]], [0, 1, 1, 1])
    with pytest.raises(ValueError, match="rule is"):
        choose_region(dictionary, texts, labels, "best")
    with pytest.raises(ActivationError, match="row 0"):
        choose_region(dictionary, [texts[0] * np.nan, *texts[1:]], labels)


@pytest.fixture
def axbench(monkeypatch):
    """The parts of AxBench's LinearProbe that the class relies on; the package is not here."""

    class LinearProbe:
        def __init__(self, model, tokenizer, layer, training_args=None, **kwargs):
            self.model, self.tokenizer, self.layer = model, tokenizer, layer
            self.device = "cpu"

        def make_model(self, **kwargs):
            self.made = kwargs

    def gather(model, layer, inputs):
        return model.table[inputs["input_ids"]]

    stand_in(monkeypatch, "axbench.models.probe", LinearProbe=LinearProbe)
    model_utils = types.ModuleType("axbench.utils.model_utils")
    model_utils.gather_residual_activations = gather
    monkeypatch.setitem(sys.modules, "axbench.utils", types.ModuleType("axbench.utils"))
    monkeypatch.setitem(sys.modules, "axbench.utils.model_utils", model_utils)


class Batch(dict):
    def to(self, device):
        return self


class Tokenizer:
    """Ids are given as text: "3 17 4"; they are padded on the side asked for."""

    def __init__(self, side):
        self.side = side

    def __call__(self, texts, **kwargs):
        assert kwargs["add_special_tokens"]
        ids = [[int(word) for word in text.split()] for text in texts]
        longest = max(map(len, ids))
        pad = [[0] * (longest - len(row)) for row in ids]
        ones = [[1] * len(row) for row in ids]
        rows, masks = [], []
        for p, row, one in zip(pad, ids, ones, strict=True):
            rows.append(row + p if self.side == "right" else p + row)
            masks.append(one + p if self.side == "right" else p + one)
        return Batch(input_ids=torch.tensor(rows), attention_mask=torch.tensor(masks))


@pytest.mark.parametrize("side", ["right", "left"])
def test_the_class_for_axbench_learns_one_direction(axbench, dictionary, side):
    region = int(dictionary.counts.argmax())
    table = torch.from_numpy(np.array(dictionary.exemplars * 5 + dictionary.center))
    model = types.SimpleNamespace(table=table, config=types.SimpleNamespace(hidden_size=D))
    rng = np.random.default_rng(0)
    others = np.flatnonzero(np.arange(len(dictionary)) != region)
    texts = []
    for k in range(80):  # the region also comes first in all texts, where the prefix hides it
        words = [region, *rng.choice(others, rng.integers(3, 9)), *([region] if k % 2 else [])]
        texts.append(" ".join(map(str, words)))
    made = export.axbench_model(dictionary)(model, Tokenizer(side), layer=0)
    made.make_model(mode="train", low_rank_dimension=1)
    made.train({"input": texts, "labels": [k % 2 for k in range(80)]}, prefix_length=1)
    assert (made.choice.region, made.choice.score) == (region, 1.0)
    assert str(made) == "EPExemplar"
    assert "sae" not in str(made).lower(), "AxBench would look its concepts up by an SAE's ids"
    np.testing.assert_array_equal(made.ax.proj.weight.data.numpy()[0], dictionary.exemplars[region])
    assert made.ax.proj.bias.data.tolist() == [0.0]
    raw = torch.from_numpy(stream(4))
    with torch.no_grad():
        scores = made.ax(raw.to(torch.bfloat16)).float()
        exact = raw.to(torch.bfloat16).float() @ made.ax.proj.weight.data.T
    torch.testing.assert_close(scores, exact)
    made.make_model(mode="steering", low_rank_dimension=3)
    assert made.made == {"mode": "steering", "low_rank_dimension": 3}


def test_the_class_of_means_has_its_own_name(axbench, dictionary):
    made = export.axbench_model(dictionary, "contrast", basis="mean")
    assert str(made(None, None, 0)) == "EPMean"
    with pytest.raises(ValueError, match="rule is"):
        export.axbench_model(dictionary, "best")


def test_layers_that_axbench_misreads_are_a_sentence(axbench, dictionary, monkeypatch):
    misread = sys.modules["axbench.utils.model_utils"]
    monkeypatch.setattr(
        misread,
        "gather_residual_activations",
        lambda model, layer, ids: model.table[ids["input_ids"]][0],
    )
    table = torch.from_numpy(np.array(dictionary.exemplars))
    model = types.SimpleNamespace(table=table, config=types.SimpleNamespace(hidden_size=D))
    made = export.axbench_model(dictionary)(model, Tokenizer("right"), layer=0)
    with pytest.raises(ValueError, match="expects layers that return a tuple"):
        made.train({"input": ["1 2 3", "4 5 6"], "labels": [0, 1]})


# The packages themselves, where they are installed


def test_saelens_opens_its_export(dictionary, tmp_path):
    if importlib.util.find_spec("sae_lens") is None:
        pytest.skip("sae_lens is not installed; bench/export_check.py runs it where it is")
    from sae_lens import SAE

    done = export.to_saelens(dictionary, tmp_path / "out")
    sae = SAE.load_from_disk(str(done.folder))
    x = stream(seed=4)
    codes = sae.encode(torch.from_numpy(x))
    assert codes.argmax(dim=1).tolist() == dictionary.assign(x)[0].tolist()


def test_sparsify_opens_its_export(dictionary, tmp_path):
    if importlib.util.find_spec("sparsify") is None:
        pytest.skip("sparsify is not installed; bench/export_check.py runs it where it is")
    from sparsify import SparseCoder

    export.to_sparsify(dictionary, tmp_path / "out")
    coder = SparseCoder.load_many(str(tmp_path / "out"), local=True)["layers.3"]
    x = stream(seed=4)
    found = coder.encode(torch.from_numpy(x)).top_indices[:, 0]
    assert found.tolist() == dictionary.assign(x)[0].tolist()
