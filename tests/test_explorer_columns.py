"""Columns that take a model, other resolutions or another checkpoint: their numbers, and when."""

import threading
import time

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars import store
from exemplars.analyses.relatives import KeptMembers, relatives
from exemplars.explorer import entropies
from exemplars.explorer.preparing import prepare_view
from exemplars.explorer.shares import LEAST, largest_parents, shared_members
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View, place_of
from exemplars.explorer.worker import Worker
from exemplars.lens import lens_entropies, lens_probabilities
from explorer_server import NEEDED
from synthetic import synthetic
from tiny_models import tiny_model

application = pytest.importorskip("exemplars.explorer.application", reason=NEEDED)
TestClient = pytest.importorskip("starlette.testclient", reason=NEEDED).TestClient

SITE = "resid_post.1"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    """By name: a fine and a coarse dictionary, and one of another checkpoint."""
    place = tmp_path_factory.mktemp("columns")
    texts = ex.texts(documents())
    ex.build(model, SITE, texts, [10.0, 40.0], out=place / "built", **SETTINGS)
    ex.build(tiny_model(seed=4), SITE, texts, 10.0, out=place / "tuned", **SETTINGS)
    fine, coarse = sorted((place / "built").glob("resid*"))
    return {"fine": fine, "coarse": coarse, "tuned": place / "tuned"}


def opened(folders, names, cache=None, **options):
    """An explorer whose parts are prepared, and a client of it."""
    views = {n: View(folders[n], n, place_of(folders[n], cache, cache is None)) for n in names}
    explorer = Explorer(views, **options)
    explorer.prepare()
    for view in views.values():
        view.prepare()
    for thread in explorer._threads:
        thread.join()
    return explorer, TestClient(application.create_app(explorer), raise_server_exceptions=False)


def in_the_end(ask):
    """The answer once it is no more 202, and all of them."""
    found = [ask()]
    deadline = time.monotonic() + 60
    while found[-1].status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.01)
        found.append(ask())
    return found


def test_entropies_are_those_of_the_lens(model, folders):
    rows = ex.load(folders["fine"]).exemplars
    p = lens_probabilities(model, rows).astype(np.float64)
    expected = -(p * np.log(np.maximum(p, 1e-300))).sum(axis=1)
    found = lens_entropies(model, rows, chunk=7)
    assert np.allclose(found, expected, atol=1e-5)
    assert found.max() <= np.log(p.shape[1])
    assert lens_entropies(model, rows[:0]).shape == (0,)


def test_lens_entropy_is_made_when_it_is_asked_for_and_then_kept(folders, model, tmp_path):
    explorer, http = opened(folders, ["fine"], tmp_path, load=lambda name: model, model="tiny")
    try:
        page = http.get("/api/v1/d/fine").json()
        assert page["later"] == ["lens_entropy"]
        assert "lens_entropy" not in {c["name"] for c in page["columns"]}
        assert "crisp" in {s["name"] for s in page["shelves"]}
        ask = "/api/v1/d/fine/regions?_sort=lens_entropy&_size=200"
        answers = in_the_end(lambda: http.get(ask))
        assert answers[0].status_code == 202
        waits = [a.json() for a in answers[:-1]]
        assert {w["stage"] for w in waits} == {"lenses of all regions"}
        progress = [w["progress"] for w in waits]
        assert progress[0] == 0
        assert progress == sorted(progress)
        expected = lens_entropies(model, explorer.views["fine"].dictionary.exemplars)
        rows = answers[-1].json()["rows"]
        assert [r["id"] for r in rows] == np.argsort(expected, kind="stable").tolist()
        assert np.allclose([r["lens_entropy"] for r in rows], np.sort(expected), rtol=1e-5)
        page = http.get("/api/v1/d/fine").json()
        (column,) = (c for c in page["columns"] if c["name"] == "lens_entropy")
        assert column["unit"] == "nats"
        middle = float(np.median(expected))
        query = f"lens_entropy__lte={middle}&_facet=lens_entropy"
        found = http.get(f"/api/v1/d/fine/regions?{query}").json()
        assert found["count"] == (expected <= np.float32(middle)).sum()
        assert sum(b["count"] for b in found["facets"][0]["bins"]) == found["count"]
        lens = http.get("/api/v1/d/fine/regions/3/lens").json()
        assert lens["entropy"] == pytest.approx(expected[3], rel=1e-5)
        mean = http.get("/api/v1/d/fine/regions/3/lens?direction=mean").json()
        own = lens_entropies(model, explorer.views["fine"].dictionary.means[[3]])
        assert mean["entropy"] == pytest.approx(own[0], rel=1e-5)
    finally:
        explorer.close()
    bare, http = opened(folders, ["fine"], tmp_path)
    rows = http.get(ask).json()["rows"]
    assert np.allclose([r["lens_entropy"] for r in rows], np.sort(expected), rtol=1e-5)
    place = bare.views["fine"].place / bare.views["fine"].fingerprint / "lens.safetensors"
    bare.close()
    whole = place.read_bytes()
    place.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    again, http = opened(folders, ["fine"], tmp_path)
    assert "lens_entropy is not known" in http.get(ask).json()["error"]
    again.close()


def test_the_arrays_of_a_column_that_is_made_later_are_awaited(folders, model):
    explorer, http = opened(folders, ["fine"], load=lambda name: model, model="tiny")
    view = explorer.views["fine"]
    path = f"/api/v1/d/fine/columns/{view.fingerprint}"
    assert b"lens_entropy" not in http.get(path).content
    answers = in_the_end(lambda: http.get(f"{path}?names=lens_entropy"))
    assert answers[0].status_code == 202
    from safetensors.numpy import load

    found = load(answers[-1].content)
    assert list(found) == ["lens_entropy"]
    assert np.allclose(found["lens_entropy"], lens_entropies(model, view.dictionary.exemplars))
    explorer.close()


def test_what_cannot_be_read_says_why_and_is_offered_no_more(folders, model, monkeypatch):
    ask = "/api/v1/d/fine/regions?_sort=lens_entropy"

    def absent(name):
        raise OSError("not here")

    for load, said in (
        (lambda name: tiny_model(seed=9), "was built with"),
        (lambda name: model.nothing, "has no attribute"),
        (absent, "could not be loaded: not here"),
    ):
        explorer, http = opened(folders, ["fine"], load=load, model="tiny")
        made = explorer.views["fine"].later["lens_entropy"]
        answers = in_the_end(lambda http=http: http.get(ask))
        assert answers[-1].status_code == 400
        with pytest.raises(ValueError, match=said):
            made()
        later = http.get("/api/v1/d/fine").json()
        explorer.close()
        assert later["later"] == []
        assert "crisp" not in {s["name"] for s in later["shelves"]}
    monkeypatch.setattr(entropies, "MOST_WORK", 10.0)
    view = View(folders["fine"], "fine", None)
    with pytest.raises(ValueError, match="exemplars prepare --lens"):
        next(entropies.entropy_steps(view, model, entropies.MOST_WORK))
    view.close()
    bare, http = opened(folders, ["fine"])
    assert "lens_entropy is not known" in http.get(ask).json()["error"]
    bare.close()


def test_prepare_reads_the_lenses_once(folders, model, tmp_path):
    asked = []

    def load(dictionary):
        asked.append(dictionary)
        return model

    first = prepare_view(folders["fine"], tmp_path, model_of=load)
    again = prepare_view(folders["fine"], tmp_path, model_of=load)
    assert "lens.safetensors" in first.made
    assert "lens.safetensors" in again.kept
    assert len(asked) == 1
    with pytest.raises(ex.MismatchError):
        prepare_view(folders["coarse"], tmp_path, model_of=lambda d: tiny_model(seed=9))


def test_the_models_thread_works_in_its_idle_time_and_jobs_come_first():
    worker = Worker(lambda name: None)
    said, held = [], threading.Event()

    def step():
        said.append("step")
        held.wait(10)
        return len([s for s in said if s == "step"]) < 5

    worker.when_idle(step)
    job = worker.submit("trace", "", lambda job: said.append("job"))
    held.set()
    assert job.done.wait(10)
    deadline = time.monotonic() + 10
    while said.count("step") < 5 and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    assert said.count("step") == 5
    assert said.index("job") <= 2
    worker.when_idle(lambda: True)  # never done: closing ends it all the same
    worker.close()
    assert not worker._thread.is_alive()


def test_shares_are_those_that_relatives_finds_region_by_region(folders):
    fine, coarse = (ex.load(folders[name]) for name in ("fine", "coarse"))
    kept = KeptMembers.of(coarse), KeptMembers.of(fine)
    table = shared_members(coarse, fine, kept)
    dense = table.toarray()
    explorer, http = opened(folders, ["fine", "coarse"])
    rows = {
        name: {r["id"]: r for r in http.get(f"/api/v1/d/{name}/regions?_size=200").json()["rows"]}
        for name in ("fine", "coarse")
    }
    estimated = np.zeros((len(coarse), len(fine)))
    for c in range(len(coarse)):
        found = relatives(coarse, c, fine, kept=kept, most=len(fine))
        for one in found.relatives:
            if found.rows:
                assert dense[c, one.region] / dense[c].sum() == pytest.approx(one.share)
                estimated[c, one.region] = one.share * coarse.counts[c]
        shown = rows["coarse"][c]["pieces"]
        if found.rows >= LEAST:
            assert shown == pytest.approx(found.pieces, rel=1e-5)
        else:
            assert shown is None
    holder = (fine.exemplars @ coarse.exemplars.T).argmax(axis=1)
    known = 0
    for f in range(len(fine)):
        row = rows["fine"][f]
        if dense[:, f].sum() < LEAST:
            assert row["parent"] == holder[f]
            assert row["parent_share"] is None
            continue
        known += 1
        assert row["parent"] == estimated[:, f].argmax()
        share = estimated[:, f].max() / estimated[:, f].sum()
        assert row["parent_share"] == pytest.approx(share, rel=1e-5)
    assert known > 5
    page = http.get("/api/v1/d/fine").json()
    about = {c["name"]: c["description"] for c in page["columns"]}
    assert "estimated" in about["parent_share"]
    assert "the one that holds its exemplar" in about["parent"]
    assert "splitting" in {s["name"] for s in http.get("/api/v1/d/coarse").json()["shelves"]}
    assert "splitting" not in {s["name"] for s in page["shelves"]}
    values = http.get("/api/v1/d/fine/regions?_facet=parent").json()["facets"][0]["values"]
    assert sum(v["count"] for v in values) <= len(fine)
    explorer.close()


def test_the_largest_parent_is_by_members_and_not_by_samples():
    from scipy.sparse import csr_array

    # Region 0 has 10 of 30 sampled members in the finer region, of 30 in all: 10. Region 1 has 3
    # of 30, of 3,000: 300.
    table = csr_array(np.array([[10, 20, 0], [3, 26, 1]]))
    parents, shares = largest_parents(table, np.array([30, 3000]))
    assert parents.tolist() == [1, 1, -1]
    assert shares[0] == pytest.approx(300 / 310)
    assert np.isnan(shares[2])
    nothing, _ = largest_parents(csr_array((2, 3)), np.array([1, 1]))
    assert nothing.tolist() == [-1, -1, -1]


def test_dictionaries_of_other_streams_have_no_shares(tmp_path):
    made = {name: ex.save(synthetic(40, 8, seed=s), tmp_path / name) for s, name in enumerate("ab")}
    explorer, http = opened(made, ["a", "b"])
    for name in "ab":
        names = {c["name"] for c in http.get(f"/api/v1/d/{name}").json()["columns"]}
        assert not {"pieces", "parent_share"} & names
    explorer.close()


def test_what_changed_most_is_known_when_checkpoints_are_compared(folders):
    explorer, http = opened(folders, ["fine", "tuned"])
    page = in_the_end(lambda: http.get("/api/v1/drift?a=fine&b=tuned"))[-1]
    assert page.status_code == 200
    fine, tuned = (ex.load(folders[name]) for name in ("fine", "tuned"))
    for name, one, two in (("fine", fine, tuned), ("tuned", tuned, fine)):
        about = http.get(f"/api/v1/d/{name}").json()
        assert "changed" in {s["name"] for s in about["shelves"]}
        rows = http.get(f"/api/v1/d/{name}/regions?_sort=change_cosine&_size=200").json()["rows"]
        best = np.nanmax(one.means @ two.means.T, axis=1)
        order = [r["id"] for r in rows]
        assert np.allclose([r["change_cosine"] for r in rows], best[order], atol=1e-5)
        assert (np.diff(best[order]) >= -1e-5).all()
    explorer.close()
    alone, http = opened(folders, ["fine", "coarse"])
    assert "changed" not in {s["name"] for s in http.get("/api/v1/d/fine").json()["shelves"]}
    alone.close()


def test_a_stored_lens_entropy_belongs_to_its_dictionary(folders, model, tmp_path):
    done = prepare_view(folders["fine"], tmp_path, model_of=lambda d: model)
    other = prepare_view(folders["coarse"], tmp_path, model_of=lambda d: model)
    assert done.place.name != other.place.name
    assert store.manifest_of(folders["fine"])
