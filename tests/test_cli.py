"""The command: text and JSON of every verb, one sentence and status 2 for every error."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import exemplars as ex
from conftest import make_tokenizer
from exemplars import cli, lens, store
from exemplars.cli import dictionaries
from shared_data import shared_file
from tiny_models import tiny_module

SAME = ("regions.safetensors", "contexts.parquet", "growth.parquet")
WORDS = ("the ", "other ", "tin ", "around ", "an ", "heron ", "out ", "\x1b[31m ", "\u202e ")
SIZES = (
    *("--context-length", "32", "--batch-tokens", "128", "--window-tokens", "256"),
    *("--calibration-rows", "300", "--block-rows", "64", "--checkpoint", "0"),
)


def save_model(folder, seed=0):
    tiny_module(seed=seed).save_pretrained(folder)
    make_tokenizer("bos").save_pretrained(folder)
    return str(folder)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model(tmp_path_factory.mktemp("models") / "tiny")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    for k in range(12):
        words = np.random.default_rng(k).choice(WORDS, 40)
        (folder / f"{k:02}.txt").write_text("".join(words), encoding="utf-8")
    return str(folder)


def arguments_of_build(model, corpus, out, *more):
    fixed = ["build", model, "--site", "resid_post.1", "-p", "20", "--text", corpus, *SIZES]
    return [*fixed, "--out", str(out), *more]


@pytest.fixture(scope="module")
def built(model, corpus, tmp_path_factory):
    """The folder of a dictionary that the command built."""
    out = tmp_path_factory.mktemp("built") / "dictionary"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["exemplars", *arguments_of_build(model, corpus, out)])
        with pytest.raises(SystemExit) as done:
            cli.main()
    assert done.value.code == 0
    return out


@pytest.fixture
def fails(run):
    """Run a command line that must fail: its one sentence."""

    def call(*words):
        status, out, err = run(*words)
        assert status == 2
        assert out == ""
        assert "Traceback" not in err
        *before, last = err.rstrip("\n").split("\n")
        assert not any(line.startswith("error") for line in before)
        assert last.startswith("error: ")
        return last

    return call


def parts_of(folder):
    return {name: (folder / name).read_bytes() for name in SAME}


def test_build_writes_a_dictionary_and_prints_it(run, model, corpus, tmp_path):
    out = tmp_path / "one"
    status, said, progress = run(*arguments_of_build(model, corpus, out))
    assert status == 0
    assert said.startswith("site ")
    assert f"written to {out}" in said
    assert "memory" in progress
    assert "build:" in progress
    assert len(ex.load(out)) > 3
    assert store.load_lens(out).num_rows == len(ex.load(out))
    assert not (tmp_path / "one.partial").exists()


def test_build_as_json_names_each_folder(run, model, corpus, tmp_path):
    out = tmp_path / "several"
    more = ("-p", "40", "--site", "attn_out.1", "--no-lens", "--json")
    status, said, _ = run(*arguments_of_build(model, corpus, out, *more))
    assert status == 0
    found = json.loads(said)
    assert len(found) == 4
    for folder, about in found.items():
        dictionary = ex.load(folder)
        assert about["regions"] == len(dictionary)
        assert about["threshold"] == dictionary.threshold
        assert about["metrics"]["n_regions"] == len(dictionary)
        assert about["site"] in ("resid_post.1", "attn_out.1")
        assert about["complete"] is True
        assert store.load_lens(folder) is None


def test_all_settings_of_a_build_reach_it(run, model, corpus, tmp_path):
    more = (
        *("--rows", 150, "--patience", 140, "--seed", 3, "--hold-out", 0.3, "--keep-first"),
        *("--long-documents", "truncate", "--packing", "documents", "--norm-multiple", 0),
        *("--membership", "batch:32", "--dtype", "float32"),
    )
    status, _, _ = run(*arguments_of_build(model, corpus, tmp_path / "d", *more))
    assert status == 0
    dictionary = ex.load(tmp_path / "d")
    about = dictionary.provenance
    assert dictionary.rows <= 150
    assert dictionary.membership == "batch:32"
    assert dictionary.calibration.norm_limit is None
    assert about["seed"] == 3
    assert about["stream"]["budget"] == {"rows": 150, "tokens": None, "patience": 140}
    asked = {
        "context_length": 32, "long_documents": "truncate", "packing": "documents",
        "keep_first": True,
    }  # fmt: skip
    assert asked.items() <= about["tokenization"].items()
    assert about["batch_tokens"] == 128
    assert about["window_tokens"] == 256


def test_build_from_kept_activations_gives_the_same_bytes(run, built, model, corpus, tmp_path):
    more = ("--activations", str(tmp_path / "shards"), "--no-lens")
    status, _, _ = run(*arguments_of_build(model, corpus, tmp_path / "d", *more))
    assert status == 0
    assert parts_of(tmp_path / "d") == parts_of(built)


def test_a_folder_that_holds_something_is_left_unless_overwritten(
    run, fails, built, model, corpus, tmp_path
):
    out = tmp_path / "d"
    ex.save(ex.load(built), out)
    before = parts_of(out)
    words = arguments_of_build(model, corpus, out, "--keep-first", "--no-lens")
    assert "--overwrite" in fails(*words)
    assert parts_of(out) == before
    assert run(*words, "--overwrite")[0] == 0
    assert parts_of(out) != before


@pytest.mark.parametrize("stage", ["calibration", "build"])
def test_an_interrupted_build_is_resumed_to_the_same_bytes(
    run, monkeypatch, built, model, corpus, tmp_path, stage
):
    from tqdm import tqdm

    out = tmp_path / "d"
    update, calls = tqdm.update, []

    def interrupting(bar, n=1):
        calls.append(bar.desc)
        if calls.count(stage) == 2:
            signal.raise_signal(signal.SIGINT)
        return update(bar, n)

    with monkeypatch.context() as patch:
        patch.setattr(tqdm, "update", interrupting)
        status, said, err = run(*arguments_of_build(model, corpus, out, "--no-lens"))
    assert (status, said) == (130, "")
    assert "Traceback" not in err
    assert err.rstrip().split("\n")[-1].startswith("interrupted; ")
    assert "--resume" in err
    if stage == "build":
        unfinished = ex.load(out)
        assert 0 < unfinished.rows < ex.load(built).rows
        assert json.loads(run("show", out, "--json")[1])["complete"] is False
        assert "interrupted" in run("show", out)[1]
    status, _, _ = run(*arguments_of_build(model, corpus, out, "--no-lens", "--resume"))
    assert status == 0
    assert parts_of(out) == parts_of(built)
    assert ex.load(out).provenance["complete"] is True


@pytest.mark.parametrize("name", ["load_model", "plan"])
def test_ctrl_c_before_anything_was_written_says_so(
    run, monkeypatch, model, corpus, tmp_path, name
):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(ex, name, interrupted)
    status, out, err = run(*arguments_of_build(model, corpus, tmp_path / "d"))
    assert (status, out) == (130, "")
    assert err.rstrip().split("\n")[-1] == "interrupted"
    assert not (tmp_path / "d").exists()


def test_ctrl_c_while_activations_are_kept_says_where_they_are(
    run, monkeypatch, model, corpus, tmp_path
):
    from tqdm import tqdm

    shards, n_calls, update = tmp_path / "shards", 0, tqdm.update

    def interrupting(bar, n=1):
        nonlocal n_calls
        n_calls += 1
        if n_calls == 2:
            signal.raise_signal(signal.SIGINT)
        return update(bar, n)

    words = (
        *arguments_of_build(model, corpus, tmp_path / "d", "--no-lens"),
        "--activations",
        str(shards),
    )
    with monkeypatch.context() as patch:
        patch.setattr(tqdm, "update", interrupting)
        status, _, err = run(*words)
    last = err.rstrip().split("\n")[-1]
    assert status == 130
    assert last == f"interrupted; {shards} holds activations: run it again to go on from there"
    assert not (tmp_path / "d").exists()
    status, _, _ = run(*words)
    assert status == 0


def test_a_build_of_few_tokens_keeps_few_activations(run, model, corpus, tmp_path):
    more = ("--activations", str(tmp_path / "shards"), "--tokens", "600", "--no-lens")
    assert run(*arguments_of_build(model, corpus, tmp_path / "d", *more))[0] == 0
    assert not ex.ActivationShards.open(tmp_path / "shards").exhausted


def test_ctrl_c_while_regions_are_read_leaves_complete_dictionaries(
    run, monkeypatch, built, model, corpus, tmp_path
):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(lens, "lens_table", interrupted)
    status, _, err = run(*arguments_of_build(model, corpus, tmp_path / "d"))
    assert status == 130
    assert "is complete" in err.rstrip().split("\n")[-1]
    assert parts_of(tmp_path / "d") == parts_of(built)


def test_a_real_ctrl_c_ends_with_status_130(model, corpus, tmp_path):
    words = arguments_of_build(model, corpus, tmp_path / "d")
    process = subprocess.Popen(
        [sys.executable, "-c", "from exemplars.cli import main; main()", *words],
        stderr=subprocess.PIPE, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    seen = b""
    while b"loading" not in seen:
        seen += os.read(process.stderr.fileno(), 1000)
        assert process.poll() is None
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    rest = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert b"Traceback" not in rest
    assert b"interrupted" in rest


def test_ctrl_c_inside_the_import_of_torch_ends_at_once():
    code = """if True:
        import os, signal, sys, time
        signal.signal(signal.SIGINT, signal.default_int_handler)
        class Finder:
            def find_spec(self, name, *_):
                if name != "torch":
                    return None
                try:
                    os.kill(os.getpid(), signal.SIGINT)
                    time.sleep(1)
                except BaseException:  # where C++ would abort
                    os.abort()
        sys.meta_path.insert(0, Finder())
        from exemplars.cli.options import load_model
        load_model("x")
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (130, "loading x\ninterrupted\n")


def test_census_counts_every_row(run, built, corpus, tmp_path):
    folder = ex.save(ex.load(built), tmp_path / "d")
    status, said, _ = run("census", folder, "--text", corpus, "--json")
    assert status == 0
    found = json.loads(said)
    assert set(found) == {"build", "census"}
    counted = ex.load(folder)
    assert counted.census.counts.sum() == counted.counts.sum()
    assert found["census"]["singletons"] == (counted.census.counts == 1).sum()
    assert "census" in run("show", folder)[1]
    status, said, _ = run("census", folder, "--text", corpus, "--rows", 100)
    assert status == 0
    assert "while streaming" in said


def test_census_reads_the_slice_that_is_asked_for(run, fails, built, corpus, tmp_path):
    folder = ex.save(ex.load(built), tmp_path / "d")
    counts = []
    for more in ((), ("--held-out",)):
        words = ("census", folder, "--text", corpus, "--hold-out", 0.4, *more, "--json")
        assert run(*words)[0] == 0
        counts.append(int(ex.load(folder).census.counts.sum()))
    assert sum(counts) == ex.load(built).counts.sum()
    assert min(counts) > 0
    assert "--hold-out" in fails("census", folder, "--text", corpus, "--held-out")


def test_show_is_the_report(run, built):
    status, said, err = run("show", built, "--regions", 3)
    assert (status, err) == (0, "")
    assert "separation_ratio" in said
    assert len(said.rstrip().split("\n\n")[-1].split("\n")) == 2 + 3
    found = json.loads(run("show", built, "--json")[1])
    assert {
        "site", "model", "regions", "rows", "width", "percentile", "threshold", "membership",
        "complete", "dropped", "center_norm", "metrics", "census",
    } == set(found)  # fmt: skip


def test_show_of_a_region_is_its_card(run, fails, built):
    status, said, _ = run("show", built, 1, "--contexts", 2)
    assert status == 0
    assert said.startswith("region 1 of ")
    assert "reads as" in said
    found = json.loads(run("show", built, 1, "--json")[1])
    assert {
        "region", "members", "coherence", "mean_distance", "threshold", "exemplar_row",
        "exemplar", "nearest", "farthest", "lens", "label", "neighbours", "stability",
    } == set(found)  # fmt: skip
    assert found["exemplar"]["row"] == found["exemplar_row"]
    n = len(ex.load(built))
    assert f"this dictionary has 0 to {n - 1}" in fails("show", built, 999999)
    assert json.loads(run("show", built, "--json", "--", "-1")[1])["region"] == n - 1
    assert 'put "--" before' in fails("show", built, "-1")


def test_assign_is_a_trace(run, built):
    status, said, _ = run("assign", built, "the other heron", "--examples", 2)
    assert status == 0
    assert "distance/θ" in said
    assert "members)" in said
    (found,) = json.loads(run("assign", built, "the other heron", "--json")[1])
    assert {
        "document", "name", "text", "token", "position", "start", "end", "region", "distance",
        "threshold", "norm_outlier", "texts",
    } == set(found)  # fmt: skip
    assert "".join(found["texts"]) == "the other heron"


def test_assign_reads_standard_input_and_files(run, monkeypatch, built, tmp_path):
    (tmp_path / "a.txt").write_text("the other heron")
    direct = json.loads(run("assign", built, "the other heron", "--json")[1])[0]["region"]
    from_file = json.loads(run("assign", built, "--file", tmp_path / "a.txt", "--json")[1])
    assert from_file[0]["region"] == direct
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"the other heron")))
    assert json.loads(run("assign", built, "-", "--json")[1])[0]["region"] == direct
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe other")))
    assert run("assign", built, "-")[0] == 0


def test_assign_with_nothing_to_assign_says_so(fails, built):
    assert "no text was given" in fails("assign", built)
    assert "both texts and --file" in fails("assign", built, "a", "--file", "b.txt")
    assert "no token of the text is a row" in fails("assign", built, "")


def test_another_model_is_refused_unless_allowed(run, fails, built, corpus, tmp_path):
    other = save_model(tmp_path / "other", seed=9)
    words = ("assign", built, "the other heron", "--model", other)
    assert "built with model" in fails(*words)
    status, said, err = run(*words, "--allow-mismatch")
    assert status == 0
    assert "warning: this dictionary was built with" in err
    assert "warning" not in said
    assert "built with model" in fails("census", built, "--text", corpus, "--model", other)


def test_a_dictionary_without_fingerprints_is_used_with_a_warning(run, built, model, tmp_path):
    from dataclasses import replace

    dictionary = ex.load(built)
    about = {**dictionary.provenance, "model": {}}
    folder = ex.save(replace(dictionary, provenance=about), tmp_path / "d")
    status, _, err = run("assign", folder, "the other heron", "--model", model)
    assert status == 0
    assert "warning: no fingerprint of the model and the tokenizer could be compared" in err


def test_a_dictionary_without_model_or_site_says_what_is_missing(
    fails, built, model, corpus, tmp_path
):
    from dataclasses import replace

    dictionary = ex.load(built)
    about = {**dictionary.provenance, "model": None}
    folder = ex.save(replace(dictionary, provenance=about), tmp_path / "a")
    assert "give one with --model" in fails("assign", folder, "the other heron")
    folder = ex.save(replace(dictionary, provenance={}), tmp_path / "b")
    assert "which site" in fails("assign", folder, "the other heron", "--model", model)
    assert "which site" in fails("census", folder, "--text", corpus, "--model", model)


def test_import_reference_makes_a_folder(run, fails, tmp_path):
    assert "nothing.pkl" in fails("import-reference", tmp_path / "nothing.pkl", tmp_path / "a")
    (tmp_path / "x_p10.pkl").write_bytes(b"not a pickle")
    assert "x_p10.pkl" in fails("import-reference", tmp_path / "x_p10.pkl", tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_published_dictionary_is_imported(run, tmp_path):
    file = shared_file("reference", "published_tiny.pkl")
    out = tmp_path / "d"
    status, said, _ = run("import-reference", file, out, "-p", 10, "--json")
    assert status == 0
    assert json.loads(said)["regions"] == len(ex.load(out))


def test_doctor_prints_a_line_for_each_check(run, monkeypatch, model):
    status, said, _ = run("doctor", model, "--site", "resid_post.1")
    assert status == 0
    assert "✓ padding" in said
    assert "memory plan" in said
    status, said, _ = run("doctor", model, "--site", "resid_post.1", "--json")
    assert set(json.loads(said)) == {"checks", "plan"}


def test_doctor_ends_with_1_when_a_check_failed(run, monkeypatch, model):
    from exemplars.diagnosis import Check, Diagnosis, Plan

    found = Diagnosis((Check("padding", "failed", "it leaks"),), Plan(1, 2, 3, 4))
    monkeypatch.setattr(ex, "diagnose", lambda *_, **__: found)
    status, said, _ = run("doctor", model)
    assert status == 1
    assert "✗ padding: it leaks" in said


def test_errors_are_one_sentence_and_status_2(fails, built, model, corpus, tmp_path):
    file = tmp_path / "file"
    file.write_text("x")
    (tmp_path / "empty.txt").write_text("")
    out = tmp_path / "d"

    def build(**changes):
        given = {"model": model, "site": "resid_post.1", "text": corpus, "out": out, **changes}
        name = given.pop("model")
        options = [word for key, value in given.items() for word in (f"--{key}", value)]
        return fails("build", name, *options, "--context-length", 32)

    assert "resid_post.N with N from 0 to 2" in build(site="resid_post.9")
    assert "nowhere" in build(text=tmp_path / "nowhere")
    assert "empty name" in build(text="")
    assert "give longer documents" in build(text=tmp_path / "empty.txt", out=tmp_path / "e")
    assert "nowhere" in build(model=tmp_path / "nowhere")
    assert "no-such-package" in build(model="package:no-such-package")
    assert "(0, 100)" in build(percentile=0)
    assert "expected all, final, or token ids" in build(keep="some")
    assert "the name of a folder" in build(out="..")
    assert "is a file" in build(out=file)
    assert "no unfinished build" in fails(*arguments_of_build(model, corpus, out, "--resume"))
    assert not out.exists()
    for place, said in ((tmp_path / "nowhere", "does not exist"), (file, "not a folder")):
        assert said in fails("show", place)
        assert said in fails("assign", place, "text")
    ex.save(ex.load(built), tmp_path / "several" / "first")
    assert "several dictionaries (first)" in fails("show", tmp_path / "several")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["nonsense"], "no such command 'nonsense'; see exemplars --help"),
        (["build"], "missing argument 'MODEL'; see exemplars build --help"),
        (["show", "d", "--jsno"], "no such option: --jsno"),
        (["show", "d", "x"], "see exemplars show --help"),
        (["show", "d", "--contexts", "-3"], "invalid value for '--contexts'"),
        (["doctor"], "missing argument 'MODEL'"),
        (["build", "m", "--text", "t", "--out", "o"], "missing option '--site'"),
    ],
)
def test_wrong_usage_is_one_sentence_and_status_2(fails, words, said):
    assert said in fails(*words)


def test_without_arguments_there_is_help(run):
    status, said, err = run()
    assert (status, err) == (0, "")
    assert said == run("--help")[1]
    for name in ("demo", "build", "census", "show", "assign", "import-reference", "doctor"):
        assert name in said
        assert run(name, "--help")[1].startswith(f"Usage: exemplars {name}")


def test_the_version_is_the_packages(run):
    assert run("--version") == (0, f"exemplars {ex.__version__}\n", "")


def test_messages_cannot_write_to_the_terminal(fails, run, built, tmp_path):
    from dataclasses import replace

    dictionary = ex.load(built)
    about = {**dictionary.provenance, "model": {"name": "evil\x1b[2J\u202e\x9b"}}
    folder = ex.save(replace(dictionary, provenance=about), tmp_path / "d")
    status, out, err = run("assign", folder, "the other heron")
    assert status == 2
    assert not {"\x1b", "\u202e", "\x9b"} & set(out + err)
    status, said, _ = run("show", folder)
    assert not {"\x1b", "\u202e", "\x9b"} & set(said)


def test_unexpected_errors_are_not_hidden(monkeypatch, built):
    def broken(*_):
        raise RuntimeError("a defect")

    monkeypatch.setattr(store, "load_lens", broken)
    monkeypatch.setattr(sys, "argv", ["exemplars", "show", str(built)])
    with pytest.raises(RuntimeError, match="a defect"):
        cli.main()


def test_memory_and_permission_errors_are_sentences(fails, monkeypatch, built):
    def raising(error):
        def broken(*_):
            raise error

        return broken

    monkeypatch.setattr(store, "load_lens", raising(MemoryError()))
    assert "out of memory" in fails("show", built)
    refused = PermissionError(13, "Permission denied", "some/file")
    monkeypatch.setattr(store, "load_lens", raising(refused))
    assert fails("show", built) == "error: some/file: Permission denied"


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGPIPE and no head")
def test_a_closed_pipe_ends_quietly(built):
    command = f'{sys.executable} -c "from exemplars.cli import main; main()" show {built}'
    process = subprocess.Popen(
        f"{command} | true", shell=True, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.communicate(timeout=60) == (b"", b"")


def test_an_output_without_greek_gets_question_marks(built):
    found = subprocess.run(
        [sys.executable, "-c", "from exemplars.cli import main; main()", "show", str(built)],
        env={**os.environ, "PYTHONIOENCODING": "latin-1"}, capture_output=True, timeout=60,
        check=True,
    )  # fmt: skip
    header, _, line, *_ = found.stdout.decode("latin-1").split("\n")
    assert "?" in header
    assert line.startswith("resid_post.1")


def test_help_is_quick():
    started = time.monotonic()
    subprocess.run(
        [sys.executable, "-c", "from exemplars.cli import main; main()", "--help"],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    assert time.monotonic() - started < 5  # 0.15 s; test_shape.py says why it stays so


def test_the_demo_builds_shows_and_goes_on(run, monkeypatch, model, corpus, tmp_path):
    monkeypatch.setattr(dictionaries, "DEMO_MODEL", model)
    monkeypatch.setattr(dictionaries, "DEMO_TEXT", corpus)
    monkeypatch.setattr(dictionaries, "DEMO_SITES", ("resid_post.0", "resid_post.1"))
    monkeypatch.setattr(dictionaries, "DEMO_PERCENTILES", (5.0, 20.0))
    short = ex.Tokenization(context_length=32)
    build, plan = ex.build, ex.plan
    monkeypatch.setattr(ex, "build", lambda *a, **k: build(*a, **k, tokenization=short))
    monkeypatch.setattr(ex, "plan", lambda *a, **k: plan(*a, **k, tokenization=short))
    out = tmp_path / "demo"
    status, said, _ = run("demo", "--out", out, "--rows", 400)
    assert status == 0
    assert "largest regions of resid_post.1 at p = 5" in said
    assert f"exemplars show {out / 'resid_post.1-p5'} 5" in said
    assert sorted(path.name for path in Path(out).iterdir()) == [
        "resid_post.0-p20", "resid_post.0-p5", "resid_post.1-p20", "resid_post.1-p5",
    ]  # fmt: skip
    assert run("demo", "--out", out, "--rows", 400)[0] == 2
    assert run("demo", "--out", out, "--rows", 400, "--overwrite")[0] == 0


def test_an_audit_says_what_it_compared(run, model, corpus, built, tmp_path):
    out = tmp_path / "audited"
    words = arguments_of_build(model, corpus, out, "--audit", "--no-lens", "--screen", "dense")
    status, _, err = run(*words)
    assert status == 0
    assert "pairs compared, none nearer than what was found" in err
    assert all((out / name).read_bytes() == (built / name).read_bytes() for name in SAME)
    status, _, err = run("census", out, "--text", corpus, "--audit", "--screen", "cpu")
    assert status == 0
    assert "bounds, none too low" in err


def test_an_unknown_screen_is_one_sentence_before_anything_is_loaded(
    fails, model, corpus, built, tmp_path, monkeypatch
):
    monkeypatch.setattr(dictionaries, "load_model", lambda *_: pytest.fail("a model was loaded"))
    monkeypatch.setattr(dictionaries, "model_of", lambda *_: pytest.fail("a model was loaded"))
    build = arguments_of_build(model, corpus, tmp_path / "x", "--screen", "quantum")
    for words in (build, ["census", built, "--text", corpus, "--screen", "quantum"]):
        assert 'screen is "quantum", which is none of auto, dense, float32, int8' in fails(*words)
