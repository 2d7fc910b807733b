"""A build is a function of its stream and settings: however it is cut up, stopped, or fed."""

import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

import exemplars as ex
from builds import SETTINGS, TOKENIZATION, documents, promised
from exemplars import clustering
from exemplars.activations import ActivationShards, read_activations
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.dictionary import partition
from exemplars.errors import (
    ActivationError,
    CalibrationError,
    FormatError,
    MismatchError,
    SourceError,
)
from exemplars.nearest import dense
from tiny_models import tiny_model, tiny_module, tiny_tokenizer

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def texts():
    return ex.texts(documents())


@pytest.fixture(scope="module")
def built(model, texts, tmp_path_factory):
    """The build that others are compared with: its folder."""
    out = tmp_path_factory.mktemp("built") / "dictionary"
    ex.build(model, SITE, texts, 20, rows=None, out=out, **SETTINGS)
    return out


def all_rows(model, texts, site=SITE, tokenization=TOKENIZATION):
    """Vectors of the whole stream, with document, position and token of each."""
    windows = [
        batch
        for (batch,) in read_activations(
            model, [site], texts, tokenization, batch_tokens=96, window_tokens=256
        )
    ]
    return (
        np.concatenate([as_vectors(w.vectors) for w in windows]),
        *(
            np.concatenate([getattr(w, field) for w in windows])
            for field in ("document", "position", "token")
        ),
    )


# --- what a build is -----------------------------------------------------------------------------


def test_a_build_is_calibrate_and_partition_over_the_rows_of_the_text(model, texts, built):
    vectors, *_ = all_rows(model, texts)
    calibration = ex.calibrate(vectors[:500], [20], 128, norm_multiple=10)
    dictionary = partition(vectors, calibration)
    saved = ex.load(built)
    assert len(saved) > 20
    for name in ("exemplars", "exemplar_rows", "means", "counts", "coherence"):
        np.testing.assert_array_equal(getattr(saved, name), getattr(dictionary, name))
    assert saved.calibration.thresholds == calibration.thresholds
    assert saved.rows == dictionary.rows == len(vectors)


def test_every_context_is_a_real_token_at_its_place(model, texts, built):
    dictionary = ex.load(built)
    vectors, document, position, token = all_rows(model, texts)
    contents = documents()
    seen = 0
    for region in range(len(dictionary)):
        founders = 0
        for context in dictionary.region(region).contexts:
            seen += 1
            assert context.document == document[context.row]
            assert context.position == position[context.row]
            assert context.token == token[context.row]
            assert context.name == f"texts[{context.document}]"
            assert context.before + context.text + context.after in contents[context.document]
            founders += context.exemplar
            if context.exemplar:
                assert context.row == dictionary.exemplar_rows[region]
                (nearest,), _ = dictionary.assign(vectors[context.row : context.row + 1])
                assert nearest == region
        assert founders == 1
    assert seen > len(dictionary)


def test_several_sites_and_percentiles_are_each_what_they_are_alone(model, texts, built, tmp_path):
    sites = ["resid_pre.0", SITE, "mlp_out.2"]
    found = ex.build(
        model, sites, texts, [10, 20], rows=None, out=tmp_path / "all", **SETTINGS
    )  # fmt: skip
    assert set(found) == {(s, p) for s in sites for p in (10.0, 20.0)}
    assert promised(tmp_path / "all" / "resid_post.1-p20") == promised(built)
    alone = ex.build(
        model, "mlp_out.2", texts, 10, rows=None, out=tmp_path / "one", **SETTINGS
    )  # fmt: skip
    assert promised(tmp_path / "all" / "mlp_out.2-p10") == promised(tmp_path / "one")
    assert len(alone) == len(found["mlp_out.2", 10.0])


def test_the_manifest_says_what_was_read_and_left_out(texts, built):
    manifest = json.loads((built / "manifest.json").read_text())
    about = manifest["provenance"]
    assert about["site"]["spellings"] == {
        "exemplars": "resid_post.1",
        "transformer_lens": "blocks.1.hook_resid_post",
        "module": "model.layers.1",
    }
    masks = about["masks"]
    assert masks["attention"] == masks["rows"] + masks["first"] + masks["prefix"]
    assert masks["rows"] == manifest["rows"]
    assert about["texts"] == texts.describe()
    assert about["complete"] is True
    assert tokenization_of(ex.load(built)) == TOKENIZATION


def test_growth_has_a_line_where_each_document_ends(model, texts, built):
    dictionary = ex.load(built)
    _, document, *_ = all_rows(model, texts)
    growth = dictionary.growth.to_pydict()
    assert growth["document"] == list(range(60))
    ends = [int((document <= n).sum()) for n in range(60)]
    assert growth["rows"] == ends
    founded = np.searchsorted(dictionary.exemplar_rows, ends)
    assert growth["regions"] == founded.tolist()
    assert growth["singletons"][-1] == int((dictionary.counts == 1).sum())


# --- equal bytes ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def kept(model, texts, tmp_path_factory):
    """The activations of the build, on disk."""
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    return ex.extract(model, SITE, texts, tmp_path_factory.mktemp("kept") / "shards", **stream)


@pytest.mark.parametrize("chunk_rows", [1, 7, 512, 4096])
@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("source", ["live", "shards"])
def test_chunks_and_threads_do_not_enter(
    model, texts, kept, built, tmp_path, monkeypatch, chunk_rows, threads, source
):
    monkeypatch.setattr(clustering, "_CHUNK_ROWS", chunk_rows)
    monkeypatch.setattr(clustering, "_RESOLVED_AT_ONCE", max(1, chunk_rows // 3))
    monkeypatch.setattr(dense, "_ROWS", max(1, chunk_rows // 2))
    monkeypatch.setattr(dense, "_EXEMPLARS", max(1, chunk_rows // 2))
    options = {**SETTINGS, "rows": None, "out": tmp_path / "d"}
    before = torch.get_num_threads()
    with threadpool_limits(threads):
        # A model's own threads may change its last bits: what it gave is held fixed.
        torch.set_num_threads(threads if source == "shards" else before)
        try:
            if source == "live":
                ex.build(model, SITE, texts, 20, **options)
            else:
                ex.build(None, SITE, kept, 20, **options)
        finally:
            torch.set_num_threads(before)
    assert promised(tmp_path / "d") == promised(built)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_live_and_from_shards_give_equal_bytes(texts, tmp_path, dtype):
    module = tiny_module()
    if dtype == "bfloat16":
        module = module.bfloat16()
    model = ex.load_model(module, tiny_tokenizer())
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "live", **SETTINGS)
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    shards = ex.extract(model, [SITE, "mlp_out.0"], texts, tmp_path / "shards", **stream)
    assert str(shards.dtype) == f"torch.{dtype}"
    kept = {k: SETTINGS[k] for k in ("calibration_rows", "block_rows")}
    found = ex.build(None, SITE, shards, 20, rows=None, out=tmp_path / "kept", **kept)
    assert promised(tmp_path / "kept") == promised(tmp_path / "live")
    assert found.provenance["masks"] == ex.load(tmp_path / "live").provenance["masks"]


def test_cold_and_warm_builds_give_equal_bytes(model, texts, built, tmp_path):
    shared = ex.load(built).calibration
    ex.build(model, SITE, texts, 20, rows=None, calibration=shared, out=tmp_path / "d", **SETTINGS)
    assert promised(tmp_path / "d") == promised(built)


BUILD = textwrap.dedent(
    """
    import os, random, signal, sys, threading, time
    sys.path.insert(0, {tests!r})
    import exemplars as ex
    from builds import SETTINGS, documents
    from tiny_models import tiny_model

    model, texts = tiny_model(), ex.texts(documents(600))
    ex.build(model, "resid_post.1", ex.texts(documents(5)), 20, rows=None, **SETTINGS)  # warm up
    out, delay, resume = sys.argv[1], float(sys.argv[2]), sys.argv[3] == "resume"
    if delay:
        kill = lambda: (time.sleep(delay), os.kill(os.getpid(), signal.SIGKILL))
        threading.Thread(target=kill, daemon=True).start()
    started = time.monotonic()
    ex.build(
        model, "resid_post.1", texts, [10, 20], rows=None, out=out, resume=resume,
        checkpoint_s=0.0, **SETTINGS,
    )
    print(time.monotonic() - started)
    """
).format(tests=str(Path(__file__).parent))


def run_build(out, delay, resume):
    command = [sys.executable, "-c", BUILD, str(out), str(delay), "resume" if resume else "begin"]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_a_build_killed_at_five_random_moments_ends_in_the_same_bytes(tmp_path):
    whole = run_build(tmp_path / "whole", 0, False)
    assert whole.returncode == 0, whole.stderr
    seconds = float(whole.stdout.split()[-1])
    rng = random.Random(0)
    out, partial = tmp_path / "killed", tmp_path / "killed.partial"
    kills = 0
    for _ in range(40):
        resume = (partial / "build.json").exists()
        done = run_build(out, rng.uniform(0.02, 0.15) * seconds if kills < 5 else 0, resume)
        if done.returncode == 0:
            break
        assert done.returncode == -signal.SIGKILL, done.stderr
        kills += 1
    assert kills == 5
    assert not partial.exists()
    for name in ("resid_post.1-p10", "resid_post.1-p20"):
        assert promised(out / name) == promised(tmp_path / "whole" / name)


@pytest.mark.parametrize("stage", ["calibration", "build"])
def test_ctrl_c_leaves_a_dictionary_and_resuming_ends_in_the_same_bytes(
    model, texts, built, tmp_path, stage
):
    out = tmp_path / "d"

    def interrupt(progress):
        if progress.stage == stage and progress.rows >= 200:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ex.build(model, SITE, texts, 20, rows=None, out=out, on_progress=interrupt, **SETTINGS)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if stage == "build":
        partial = ex.load(out)
        assert 0 < partial.rows < ex.load(built).rows
        assert partial.provenance["complete"] is False
        assert partial.region(0).contexts
    ex.build(model, SITE, texts, 20, rows=None, out=out, resume=True, **SETTINGS)
    assert promised(out) == promised(built)
    assert ex.load(out).provenance["complete"] is True
    assert not (tmp_path / "d.partial").exists()


def test_a_ctrl_c_inside_the_model_is_met_at_once_and_loses_nothing(texts, built, tmp_path):
    model = tiny_model()
    calls = []

    def interrupt(*_):
        calls.append(1)
        if len(calls) == 40:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(5)

    handle = model.layers[0].register_forward_hook(interrupt)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", **SETTINGS)
    assert time.monotonic() - started < 5
    handle.remove()
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)
    assert promised(tmp_path / "d") == promised(built)


def test_a_build_outside_the_main_thread_works(model, texts, built, tmp_path):
    options = {**SETTINGS, "rows": None, "out": tmp_path / "d"}
    thread = threading.Thread(target=ex.build, args=(model, SITE, texts, 20), kwargs=options)
    thread.start()
    thread.join()
    assert promised(tmp_path / "d") == promised(built)


# --- when it stops -------------------------------------------------------------------------------


def test_a_row_budget_is_met_to_the_row(model, texts, built):
    dictionary = ex.build(model, SITE, texts, 20, rows=777, **SETTINGS)
    whole = ex.load(built)
    assert dictionary.rows == 777
    assert int(dictionary.counts.sum()) == 777 - sum(dictionary.dropped.values())
    np.testing.assert_array_equal(
        dictionary.exemplar_rows, whole.exemplar_rows[whole.exemplar_rows < 777]
    )
    assert dictionary.growth["rows"].to_pylist()[-1] == 777


def test_a_token_budget_counts_attended_tokens(model, texts):
    dictionary = ex.build(model, SITE, texts, 20, rows=None, tokens=500, **SETTINGS)
    vectors, document, *_ = all_rows(model, texts)
    pieces = [
        piece
        for n in range(60)
        for piece in [int((document == n).sum())]
    ]  # fmt: skip
    assert 0 < dictionary.rows < 500
    # every piece has one first position beside its rows
    window = next(
        iter(
            ex.tokenization.token_windows(
                texts, model.tokenizer, TOKENIZATION, batch_tokens=96, window_tokens=10**6
            )
        )
    )
    assert dictionary.rows == int((window.tokens_before < 500).sum())
    assert sum(pieces) == len(vectors)


@pytest.mark.parametrize("patience", [40, 150])
def test_patience_stops_each_dictionary_at_its_own_row(model, texts, patience):
    found = ex.build(
        model, SITE, texts, [20, 60], rows=None, patience=patience, **SETTINGS
    )  # fmt: skip
    for (_, p), dictionary in found.items():
        free = ex.build(model, SITE, texts, p, rows=None, **SETTINGS)
        founding = free.exemplar_rows
        gaps = np.flatnonzero(np.diff(np.append(founding, free.rows)) > patience)
        stop = int(founding[gaps[0]]) + 1 + patience if len(gaps) else free.rows
        assert dictionary.rows == stop
        np.testing.assert_array_equal(dictionary.exemplar_rows, founding[founding < stop])
        assert int(dictionary.counts.sum()) + sum(dictionary.dropped.values()) == stop
    rows = {dictionary.rows for dictionary in found.values()}
    assert len(rows) == 2 or patience == 150


def test_a_seed_permutes_the_documents(model, texts):
    plain = ex.build(model, SITE, texts, 20, rows=None, **SETTINGS)
    one = ex.build(model, SITE, texts, 20, rows=None, seed=1, **SETTINGS)
    same = ex.build(model, SITE, texts.shuffled(1), 20, rows=None, **SETTINGS)
    np.testing.assert_array_equal(one.exemplars, same.exemplars)
    assert sorted(one.growth["document"].to_pylist()) == list(range(60))
    assert one.growth["document"].to_pylist() != plain.growth["document"].to_pylist()
    assert one.provenance["seed"] == 1


def test_attention_sinks_are_dropped_and_counted(texts):
    model = tiny_model()

    def swell(_module, _inputs, output):
        scaled = output.clone()
        scaled[0, -1] *= 1000
        return scaled

    model.layers[1].register_forward_hook(swell)
    dictionary = ex.build(model, SITE, texts, 20, rows=None, **SETTINGS)
    kept = ex.build(model, SITE, texts, 20, rows=None, norm_multiple=None, **SETTINGS)
    assert dictionary.dropped["norm outlier"] > 3
    assert kept.dropped["norm outlier"] == 0
    assert int(dictionary.counts.sum()) == dictionary.rows - dictionary.dropped["norm outlier"]


# --- census --------------------------------------------------------------------------------------


def test_a_census_over_the_build_texts_gives_the_voronoi_regions(model, texts, built, tmp_path):
    import shutil

    folder = tmp_path / "d"
    shutil.copytree(built, folder)
    dictionary = ex.load(folder)
    counted = ex.census(dictionary, model, texts, folder=folder)
    vectors, *_ = all_rows(model, texts)
    regions, _ = dictionary.assign(vectors)
    np.testing.assert_array_equal(
        counted.census.counts, np.bincount(regions[regions >= 0], minlength=len(dictionary))
    )
    loaded = ex.load(folder)
    np.testing.assert_array_equal(loaded.census.counts, counted.census.counts)
    nearest = [c for c in loaded.census_contexts.region(3) if c.nearest_rank >= 0]
    assert any(c.exemplar for c in nearest)
    assert promised(folder) == promised(built)


def test_a_census_of_other_texts_leaves_regions_empty(model, built):
    dictionary = ex.load(built)
    counted = ex.census(dictionary, model, ex.texts(["the the the there", "moon " * 9]))
    empty = counted.census.counts == 0
    assert empty.any()
    assert np.isnan(counted.census.means[empty]).all()
    assert not any(c.exemplar for c in counted.census_contexts.region(0))


def test_a_census_with_another_model_is_refused(texts, built):
    with pytest.raises(MismatchError):
        ex.census(ex.load(built), tiny_model(seed=5), texts)


# --- what goes wrong -----------------------------------------------------------------------------


def test_resuming_with_other_settings_names_the_difference(model, texts, tmp_path):
    def interrupt(progress):
        if progress.stage == "build":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, rows=None, out=tmp_path / "d", on_progress=interrupt,
            **SETTINGS,
        )  # fmt: skip
    with pytest.raises(MismatchError, match=r"percentiles \[20.0\] where \[10.0\]"):
        ex.build(model, SITE, texts, 10, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)
    with pytest.raises(MismatchError, match="fingerprint"):
        ex.build(
            tiny_model(seed=3), SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True,
            **SETTINGS,
        )  # fmt: skip
    with pytest.raises(FormatError, match="--resume"):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", **SETTINGS)


def test_what_lies_at_the_place_is_kept_without_overwrite(model, texts, built):
    before = promised(built)
    with pytest.raises(FormatError, match="exists already"):
        ex.build(model, SITE, texts, 20, rows=None, out=built, **SETTINGS)
    assert promised(built) == before


def test_a_failed_overwrite_keeps_the_old_dictionary(model, built, tmp_path):
    import shutil

    folder = tmp_path / "d"
    shutil.copytree(built, folder)
    with pytest.raises(CalibrationError, match="has 0 rows"):
        ex.build(model, SITE, ex.texts(["", ""]), 20, out=folder, overwrite=True, **SETTINGS)
    assert promised(folder) == promised(built)
    assert not (tmp_path / "d.partial").exists()


def test_a_full_disk_loses_nothing(model, texts, built, tmp_path, monkeypatch):
    import errno

    import safetensors.numpy

    calls = []
    save_file = safetensors.numpy.save_file

    def full(*args, **kwargs):
        calls.append(1)
        if len(calls) == 4:
            raise OSError(errno.ENOSPC, "No space left on device")
        return save_file(*args, **kwargs)

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match="No space left"):
        ex.build(
            model, SITE, texts, 20, rows=None, out=tmp_path / "d", checkpoint_s=0.0, **SETTINGS
        )
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)
    assert promised(tmp_path / "d") == promised(built)


def test_a_broken_checkpoint_is_named(model, texts, tmp_path):
    def interrupt(progress):
        if progress.stage == "build":
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, rows=None, out=tmp_path / "d", on_progress=interrupt,
            **SETTINGS,
        )  # fmt: skip
    checkpoint = tmp_path / "d.partial" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"checkpoint\.safetensors"):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)


def test_a_text_without_rows_is_refused(model, built):
    nothing, shared = ex.texts(["", ""]), ex.load(built).calibration
    with pytest.raises(CalibrationError, match="has 0 rows, at least 2"):
        ex.build(model, SITE, nothing, 20, **SETTINGS)
    with pytest.raises(SourceError, match="no rows"):
        ex.build(model, SITE, nothing, 20, calibration=shared, **SETTINGS)
    with pytest.raises(SourceError, match="no documents"):
        ex.build(model, SITE, ex.texts([]), 20, **SETTINGS)


def test_nan_activations_are_named(texts):
    model = tiny_model()
    with torch.no_grad():
        model.layers[1].mlp.down_proj.weight.fill_(float("nan"))
    with pytest.raises(ActivationError, match=r"resid_post\.1 .* document 0, position 1"):
        ex.build(model, SITE, texts, 20, **SETTINGS)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows is 0"),
        ({"patience": -1}, "patience is -1"),
        ({"membership": "batch:x"}, "membership"),
        ({"resume": True}, "resume needs"),
    ],
)
def test_wrong_arguments_are_refused(model, texts, change, message):
    with pytest.raises(ValueError, match=message):
        ex.build(model, SITE, texts, 20, **{**SETTINGS, **change})


def test_wrong_sites_and_percentiles_are_refused(model, texts):
    for sites, percentile, message in (
        ("resid_post.9", 20, "from 0 to 2"),
        ([SITE, "model.layers.1"], 20, "twice"),
        ([], 20, "no site"),
        (SITE, [], "no percentile"),
        (SITE, 100, "percentile is 100"),
    ):
        with pytest.raises(ValueError, match=message):
            ex.build(model, sites, texts, percentile, **SETTINGS)


# --- shards --------------------------------------------------------------------------------------


def test_interrupted_extraction_goes_on_and_ends_in_the_same_rows(model, texts, tmp_path):
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    whole = ex.extract(model, SITE, texts, tmp_path / "whole", **stream)
    for at in (300, 700):

        def interrupt(progress, at=at):
            if progress.rows >= at:
                os.kill(os.getpid(), signal.SIGINT)

        with pytest.raises(KeyboardInterrupt):
            ex.extract(model, SITE, texts, tmp_path / "parts", on_progress=interrupt, **stream)
    parts = ex.extract(model, SITE, texts, tmp_path / "parts", **stream)
    assert parts.rows == whole.rows
    for field in ("vectors", "document", "position", "token", "start", "end"):
        one, two = (
            np.concatenate([np.asarray(w[0][0].__dict__[field]) for w in shards.windows()])
            for shards in (whole, parts)
        )
        np.testing.assert_array_equal(one, two)
    numbers = [int(n) for n, _, _ in parts.texts()]
    assert numbers == [int(n) for n, _, _ in whole.texts()]
    assert len(numbers) == len(set(numbers)) == 60


def test_shards_of_another_model_are_not_continued(model, texts, tmp_path):
    ex.extract(model, SITE, texts, tmp_path / "s", rows=100, tokenization=TOKENIZATION)
    with pytest.raises(MismatchError, match="fingerprint"):
        ex.extract(tiny_model(seed=2), SITE, texts, tmp_path / "s", tokenization=TOKENIZATION)
    with pytest.raises(ValueError, match="no site"):
        ex.build(None, "mlp_out.1", ActivationShards.open(tmp_path / "s"), 20)


def test_a_plan_counts_what_a_build_takes(model, texts):
    plan = ex.plan(
        model, [SITE, "mlp_out.0"], texts, [10, 20], rows=1000, tokenization=TOKENIZATION
    )
    assert plan.rows_per_s > 0
    assert plan.working_disk_bytes == 1000 * 2 * 32 * 4
    assert plan.percentiles == (10.0, 20.0)
