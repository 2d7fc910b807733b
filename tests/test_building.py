"""A build is a function of its stream and settings: however it is cut up, stopped, or fed."""

import dataclasses
import json
import os
import random
import shutil
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
from exemplars import building, clustering
from exemplars import tokenization as tokenization_module
from exemplars.activations import ActivationShards, read_activations
from exemplars.building import tokenization_of
from exemplars.calibration import as_vectors
from exemplars.dictionary import partition
from exemplars.errors import (
    ActivationError,
    FormatError,
    MismatchError,
    SourceError,
)
from exemplars.nearest import dense, vnni
from exemplars.streaming import ShardStream
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


def interrupt_in(stage, at=200):
    def interrupt(progress):
        if progress.stage == stage and progress.rows >= at:
            os.kill(os.getpid(), signal.SIGINT)

    return interrupt


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
    assert growth["document"] == np.unique(document).tolist()
    ends = [int((document <= n).sum()) for n in growth["document"]]
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
    monkeypatch.setattr(dense, "_TILE", (max(1, chunk_rows // 2), max(1, chunk_rows // 2)))
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
    assert sorted(one.growth["document"].to_pylist()) == plain.growth["document"].to_pylist()
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
    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, rows=None, out=tmp_path / "d",
            on_progress=interrupt_in("build", 0),
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
    folder = tmp_path / "d"
    shutil.copytree(built, folder)
    with pytest.raises(SourceError, match="no rows"):
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
    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, rows=None, out=tmp_path / "d",
            on_progress=interrupt_in("build", 0),
            **SETTINGS,
        )  # fmt: skip
    checkpoint = tmp_path / "d.partial" / "checkpoint.safetensors"
    checkpoint.write_bytes(checkpoint.read_bytes()[:-100])
    with pytest.raises(FormatError, match=r"checkpoint\.safetensors"):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)


def test_a_text_without_rows_is_refused(model, built):
    nothing, shared = ex.texts(["", ""]), ex.load(built).calibration
    with pytest.raises(SourceError, match="no rows"):
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


def test_extraction_touches_no_files_but_its_own(model, texts, tmp_path):
    stream = {"rows": 100, "tokenization": TOKENIZATION, "window_tokens": 256}
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=r"holds thesis\.txt and no activations\.json"):
        ex.extract(model, SITE, texts, tmp_path, **stream)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    (tmp_path / "thesis.txt").rename(tmp_path / "other.txt")
    folder = tmp_path / "shards"
    whole = ex.extract(model, SITE, texts, folder, **stream)
    index = json.loads((folder / "activations.json").read_text())
    (folder / "activations.json").write_text(json.dumps({**index, "mark": None, "complete": False}))
    mine = ["thesis.txt", "shard-1.safetensors.old", "documents.parquet"]
    for name in mine:
        (folder / name).write_text("years of work")
    (folder / "shard-000007.safetensors.partial").write_text("")
    again = ex.extract(model, SITE, texts, folder, **stream)
    assert again.index["shards"] == whole.index["shards"]
    written = [entry["file"] for k in ("shards", "documents") for entry in again.index[k]]
    assert {p.name for p in folder.iterdir()} == {*mine, *written, "activations.json"}
    killed = tmp_path / "killed"
    killed.mkdir()
    (killed / "activations.json.partial").write_text("{")
    assert ex.extract(model, SITE, texts, killed, **stream).rows == whole.rows


def test_extraction_stops_at_tokens_or_rows(model, texts, tmp_path):
    stream = {"tokenization": TOKENIZATION, "batch_tokens": 96, "window_tokens": 256}
    whole = ex.extract(model, SITE, texts, tmp_path / "whole", **stream)
    few = ex.extract(model, SITE, texts, tmp_path / "few", tokens=300, **stream)
    assert 300 <= few.cursor["tokens"] < 300 + 256 + 24
    assert not few.exhausted
    before = (tmp_path / "few" / "activations.json").stat().st_mtime_ns
    ex.extract(model, SITE, texts, tmp_path / "few", tokens=300, rows=10**6, **stream)
    ex.extract(model, SITE, texts, tmp_path / "few", tokens=10**6, rows=100, **stream)
    assert (tmp_path / "few" / "activations.json").stat().st_mtime_ns == before
    more = ex.extract(model, SITE, texts, tmp_path / "few", tokens=10**6, **stream)
    assert (more.rows, more.exhausted) == (whole.rows, True)
    with pytest.raises(ValueError, match="tokens is 0"):
        ex.extract(model, SITE, texts, tmp_path / "none", tokens=0, **stream)


def test_a_build_of_few_tokens_reads_few_for_its_calibration(model, texts):
    stages = []
    ex.build(
        model, SITE, texts, 20, rows=None, tokens=300, on_progress=stages.append,
        **{**SETTINGS, "calibration_rows": 100_000},
    )  # fmt: skip
    assert 0 < max(p.rows for p in stages if p.stage == "calibration") < 600


def test_shards_cannot_be_extracted_again(model, kept, tmp_path):
    with pytest.raises(ValueError, match="texts are activation shards, expected"):
        ex.extract(model, SITE, kept, tmp_path / "s")


def test_shards_that_do_not_say_what_they_are_of_are_refused(kept, tmp_path):
    for k, change in enumerate([{}, {**kept.describe, "sites": [{"name": SITE}]}]):
        folder = tmp_path / str(k)
        shutil.copytree(kept.folder, folder)
        path = folder / "activations.json"
        path.write_text(json.dumps({**kept.index, "describe": change}))
        with pytest.raises(FormatError, match=r"activations\.json does not say which model"):
            ex.build(None, SITE, ActivationShards.open(folder), 20)


def test_a_place_to_go_on_from_that_is_none_is_named(model, texts, tmp_path):
    stream = {"rows": 100, "tokenization": TOKENIZATION, "window_tokens": 256}
    shards = ex.extract(model, SITE, texts, tmp_path / "s", **stream)
    shards.index["mark"]["cursor"] = {"ordinal": "three"}
    (tmp_path / "s" / "activations.json").write_text(json.dumps(shards.index))
    with pytest.raises(FormatError, match=r"activations\.json has .*ordinal"):
        ex.extract(model, SITE, texts, tmp_path / "s", **{**stream, "rows": 400})


def test_the_last_window_of_shards_alone_carries_masks_and_cursor(kept, monkeypatch):
    shards = ActivationShards.open(kept.folder)
    first = shards.index["shards"][0]
    later = {**first, "first_row": first["rows"]}  # the same rows again
    shards.index["shards"] += [{**first, "first_row": first["rows"], "rows": 0}, later]
    shards.index["shards"].append({**first, "first_row": 2 * first["rows"], "rows": 0})
    windows = list(ShardStream(shards, [SITE]).windows())
    assert [w.cursor for w in windows] == [None, shards.cursor]
    assert [bool(w.masks) for w in windows] == [False, True]


@pytest.mark.parametrize("seed", [None, 3])
@pytest.mark.parametrize("long_documents", ["split", "truncate"])
def test_every_text_is_kept_once_in_the_order_of_the_rows(
    model, tmp_path, monkeypatch, seed, long_documents
):
    contents = [*documents(20), " ".join(documents(60)), *documents(20, 1)]
    tokenized = []
    encode = tokenization_module._DocumentTokenizer._masked
    monkeypatch.setattr(
        tokenization_module._DocumentTokenizer,
        "_masked",
        lambda self, document, *rest: (
            tokenized.append(document.number) or encode(self, document, *rest)
        ),
    )
    settings_ = ex.Tokenization(context_length=24, long_documents=long_documents)
    shards = ex.extract(
        model, SITE, ex.texts(contents), tmp_path / "s", seed=seed, tokenization=settings_,
        window_tokens=64,
    )  # fmt: skip
    order = [d.number for d in (ex.texts(contents).shuffled(seed) if seed else ex.texts(contents))]
    assert tokenized == order
    with_rows = list(dict.fromkeys(n for w in shards.windows() for n in w[0][0].document.tolist()))
    kept_texts = list(shards.texts())
    numbers = [number for number, _, _ in kept_texts]
    assert [n for n in numbers if n in set(with_rows)] == with_rows
    assert len(set(numbers)) == len(numbers)
    assert [text for _, _, text in kept_texts] == [contents[n] for n in numbers]
    assert [d.number for d in shards.locate(with_rows)] == with_rows


def test_a_site_of_another_width_is_extracted_past_windows_without_tokens(tmp_path):
    contents = [""] * 40 + documents(10) + [""] * 40
    model = ex.load_model(tiny_module(), tiny_tokenizer(bos=False))
    site = "model.layers.0.mlp.up_proj"
    shards = ex.extract(
        model, site, ex.texts(contents), tmp_path / "s", window_tokens=1, tokenization=TOKENIZATION
    )
    assert shards.width(shards.sites[0]) != model.width
    nothing = ex.texts(["", ""])
    with pytest.raises(SourceError, match="gave no rows: every document"):
        ex.extract(model, site, nothing, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_plan_counts_what_a_build_takes(model, texts):
    plan = ex.plan(
        model, [SITE, "mlp_out.0"], texts, [10, 20], rows=1000, tokenization=TOKENIZATION
    )
    assert plan.rows_per_s > 0
    assert plan.working_disk_bytes == 1000 * 2 * 32 * 4
    assert plan.percentiles == (10.0, 20.0)


# --- found in review -----------------------------------------------------------------------------


def test_a_build_from_shards_is_not_resumed_live(model, texts, tmp_path):
    stream = {k: SETTINGS[k] for k in ("tokenization", "batch_tokens", "window_tokens")}
    shards = ex.extract(model, SITE, texts, tmp_path / "s", **stream)
    options = {**SETTINGS, "rows": None, "out": tmp_path / "d"}
    with pytest.raises(KeyboardInterrupt):
        ex.build(None, SITE, shards, 20, on_progress=interrupt_in("build"), **options)
    with pytest.raises(MismatchError, match="stream 'ShardStream'"):
        ex.build(model, SITE, texts, 20, resume=True, **options)


def test_ctrl_c_while_overwriting_leaves_the_finished_dictionary(model, texts, built, tmp_path):
    folder = tmp_path / "d"
    shutil.copytree(built, folder)
    options = {**SETTINGS, "rows": None, "out": folder}
    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 30, overwrite=True, on_progress=interrupt_in("build"), **options
        )
    assert promised(folder) == promised(built)
    ex.build(model, SITE, texts, 30, resume=True, overwrite=True, **options)
    assert ex.load(folder).percentile == 30


def test_a_token_budget_that_ended_stays_ended_when_resumed(model, texts, tmp_path):
    options = {**SETTINGS, "rows": None, "tokens": 700, "calibration_rows": 100}
    whole = ex.build(model, SITE, texts, 20, out=tmp_path / "whole", **options)
    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, out=tmp_path / "d",
            on_progress=interrupt_in("build", whole.rows), **options,
        )  # fmt: skip
    found = ex.build(model, SITE, texts, 20, out=tmp_path / "d", resume=True, **options)
    assert found.rows == whole.rows
    assert promised(tmp_path / "d") == promised(tmp_path / "whole")


def test_a_token_budget_is_all_that_is_read(model, texts):
    calls = []
    handle = model.layers[0].register_forward_hook(lambda *_: calls.append(1))
    try:
        ex.build(model, SITE, texts, 20, rows=None, tokens=300, **SETTINGS)
    finally:
        handle.remove()
    assert len(calls) < 20


def test_a_census_with_other_masks_marks_no_exemplars(model, texts, built):
    other = ex.Tokenization(context_length=24, keep_first=True)
    counted = ex.census(ex.load(built), model, texts, tokenization=other)
    contexts = counted.census_contexts.table()
    assert not any(contexts["exemplar"].to_pylist())


def test_a_census_over_shards_of_another_model_is_refused(texts, built, tmp_path):
    other = tiny_model(seed=4)
    shards = ex.extract(other, SITE, texts, tmp_path / "s", tokenization=TOKENIZATION)
    with pytest.raises(MismatchError):
        ex.census(ex.load(built), None, shards)


def test_ctrl_c_while_calibrating_is_an_interruption(model, texts, tmp_path, monkeypatch):
    calibrate = building.calibrate

    def interrupted(vectors, *args, **kwargs):
        os.kill(os.getpid(), signal.SIGINT)
        return calibrate(vectors, *args, **kwargs)

    monkeypatch.setattr(building, "calibrate", interrupted)
    with pytest.raises(KeyboardInterrupt):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", **SETTINGS)
    monkeypatch.undo()
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", resume=True, **SETTINGS)


def test_a_place_that_holds_something_else_is_refused_at_once(model, texts, built, tmp_path):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("mine")
    options = {**SETTINGS, "overwrite": True}
    with pytest.raises(FormatError, match="other files, not one dictionary"):
        ex.build(model, SITE, texts, 20, out=tmp_path / "notes", **options)
    with pytest.raises(FormatError, match="one dictionary, not several"):
        ex.build(model, SITE, texts, [20, 30], out=built, **options)
    assert not (tmp_path / "notes.partial").exists()
    assert (tmp_path / "notes" / "a.txt").read_text() == "mine"


def test_several_over_several_leaves_none_of_the_old(model, texts, tmp_path):
    options = {**SETTINGS, "rows": 300, "out": tmp_path / "d", "overwrite": True}
    ex.build(model, SITE, texts, [20, 40], **options)
    ex.build(model, SITE, texts, [30, 40], **options)
    assert sorted(p.name for p in (tmp_path / "d").iterdir()) == [
        "resid_post.1-p30", "resid_post.1-p40",
    ]  # fmt: skip


def test_percentiles_too_close_for_folders_are_refused(model, texts):
    with pytest.raises(ValueError, match="too close"):
        ex.build(model, SITE, texts, [20.0000001, 20.0000002], **SETTINGS)


def test_resuming_with_another_calibration_is_refused(model, texts, built, tmp_path):
    one = ex.load(built).calibration
    other = dataclasses.replace(one, center=one.center + np.float32(0.1))
    options = {**SETTINGS, "rows": None, "out": tmp_path / "d"}
    with pytest.raises(KeyboardInterrupt):
        ex.build(
            model, SITE, texts, 20, calibration=one, on_progress=interrupt_in("build"), **options
        )
    with pytest.raises(MismatchError, match="calibration"):
        ex.build(model, SITE, texts, 20, calibration=other, resume=True, **options)


def test_a_kill_before_the_settings_are_written_leaves_no_dead_end(model, texts, built, tmp_path):
    (tmp_path / "d.partial").mkdir()
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", **SETTINGS)
    assert promised(tmp_path / "d") == promised(built)


def test_contexts_are_bounded_in_bytes_whatever_the_script(model, tmp_path):
    rng = np.random.default_rng(0)
    texts = ex.texts(["".join(map(chr, rng.integers(0x4E00, 0x9FA5, 60))) for _ in range(200)])
    dictionary = ex.build(model, SITE, texts, 60, rows=None, out=tmp_path / "d", **SETTINGS)
    size = (tmp_path / "d" / "contexts.parquet").stat().st_size
    assert max(dictionary.counts) > 50
    assert size / len(dictionary) < 6000
    for context in dictionary.region(0).contexts:
        assert len((context.before + context.text + context.after).encode()) <= 210


def test_a_full_disk_at_a_checkpoint_is_a_sentence(model, texts, tmp_path, monkeypatch):
    import safetensors.numpy
    from safetensors import SafetensorError

    def full(*_args, **_kwargs):
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr(safetensors.numpy, "save_file", full)
    with pytest.raises(OSError, match=r"needs .* bytes: make room, then go on with --resume"):
        ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", **SETTINGS)


@pytest.mark.parametrize("screen", ["dense", "float32", "int8", "cpu"])
def test_how_regions_are_searched_for_does_not_show(model, texts, built, tmp_path, screen):
    if screen == "int8" and not vnni.available():
        pytest.skip("this processor has no products of bytes")
    audit = ex.Audit()
    out = tmp_path / "dictionary"
    ex.build(model, SITE, texts, 20, rows=None, out=out, screen=screen, audit=audit, **SETTINGS)
    assert promised(out) == promised(built)
    (entry,) = [json.loads(line) for line in (out / "run.jsonl").read_text().splitlines()]
    assert entry["audit"] == audit.summary()
    assert entry["audit"]["pairs"] > 0


def test_a_census_is_the_same_however_it_searches(model, texts, built):
    dictionary = ex.load(built)
    audit = ex.Audit()
    plain = ex.census(dictionary, model, texts)
    searched = ex.census(dictionary, model, texts, screen="cpu", audit=audit)
    np.testing.assert_array_equal(plain.census.counts, searched.census.counts)
    assert plain.census_contexts.table().equals(searched.census_contexts.table())
    assert audit.pairs > 0


def test_an_unknown_screen_is_refused_before_anything_is_read(model):
    class Unread(ex.Texts):
        def __init__(self):
            pass

    with pytest.raises(ValueError, match='screen is "fast", which is none of auto, dense'):
        ex.build(model, SITE, Unread(), 20, screen="fast")
