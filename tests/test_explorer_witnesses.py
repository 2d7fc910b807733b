"""Members at the walls of a region: read again, and no others than those that read as they did."""

import json
import threading

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars.activations import read_activations
from exemplars.explorer.pages import nearest_to
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View
from exemplars.explorer.witnesses import MOST, build_texts, read_again
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
def texts(tmp_path_factory):
    """Documents in a file, some longer than a piece and than what is kept round a token."""
    place = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    several = documents(40) + [" ".join(documents(12, seed=s)) for s in range(1, 6)]
    place.write_text("".join(json.dumps({"text": t}) + "\n" for t in several if t.strip()))
    return place


@pytest.fixture(autouse=True)
def beside_the_texts(texts, monkeypatch):
    """Manifests name files as they were named: from the folder that the build ran in."""
    monkeypatch.chdir(texts.parent)


@pytest.fixture(scope="module")
def folder(model, texts, tmp_path_factory):
    return _built(model, texts, tmp_path_factory.mktemp("witnesses") / "built")


@pytest.fixture(scope="module")
def dictionary(folder):
    return ex.load(folder)


def _built(model, texts, out):
    ex.build(model, SITE, ex.texts(texts), 10.0, out=out, **SETTINGS)
    return out


@pytest.fixture(scope="module")
def directions(model, texts, dictionary):
    """Of every row of the stream, its direction, from a pass over all texts."""
    read = read_activations(model, [SITE], ex.texts(texts), SETTINGS["tokenization"])
    vectors = np.concatenate([batch.vectors.numpy() for (batch,) in read]).astype(np.float64)
    moved = vectors - dictionary.center
    return moved / np.linalg.norm(moved, axis=1, keepdims=True)


def test_members_are_read_again_as_they_were(dictionary, model, directions):
    texts = build_texts(dictionary)
    assert texts is not None
    for region in np.argsort(-dictionary.counts)[:6].tolist():
        steps = []
        found = read_again(dictionary, model, region, texts, lambda *at, to=steps: to.append(at))
        kept = dictionary.contexts.region(region)
        assert found.asked == min(len(kept), MOST)
        assert len(found.members) == found.asked  # all of them, from the texts themselves
        assert steps[0] == (0, found.asked)
        assert steps[-1] == (found.asked, found.asked)
        for member, direction in zip(found.members, found.directions, strict=True):
            assert np.allclose(direction, directions[member.row], atol=1e-4)
        ranks = {"nearest_rank", "farthest_rank", "sample_rank"}
        assert all(any(getattr(c, r) >= 0 for c in found.members) for r in ranks)
        for other in range(len(dictionary)):
            witness, distance = found.nearest_to(dictionary.exemplars[other])
            every = [1 - directions[c.row] @ dictionary.exemplars[other] for c in found.members]
            assert distance == pytest.approx(min(every), abs=1e-4)
            mine = 1 - directions[witness.row] @ dictionary.exemplars[other]
            assert mine == pytest.approx(min(every), abs=1e-4)


def test_without_the_texts_those_members_count_that_read_as_they_did(dictionary, model, directions):
    sure = lost = 0
    for region in np.argsort(-dictionary.counts)[:6].tolist():
        found = read_again(dictionary, model, region, None)
        assert found.source == "the text kept round them"
        assert len(found.members) <= found.asked
        lost += found.asked - len(found.members)
        sure += len(found.members)
        own = dictionary.exemplars[region]
        for member, direction in zip(found.members, found.directions, strict=True):
            assert abs(1 - direction @ own - member.distance) <= 1e-3
            if member.position < 10:  # all that stands before it is kept
                assert np.allclose(direction, directions[member.row], atol=1e-4)
    assert sure > 0
    assert lost > 0


def test_what_cannot_be_read_again_says_why(dictionary, model, tmp_path):
    with pytest.raises(ex.MismatchError):
        read_again(dictionary, tiny_model(seed=7), 0, None)
    bare = ex.load(ex.save(synthetic(20, 8, contexts=0), tmp_path / "bare"))
    with pytest.raises(ValueError, match="keeps no members"):
        read_again(bare, model, 0, None)
    cancel = threading.Event()
    cancel.set()
    assert read_again(dictionary, model, 0, None, cancel=cancel).members == ()
    assert read_again(dictionary, model, 0, None, cancel=cancel).nearest_to(None) is None


def test_texts_that_have_changed_are_not_read(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "texts.jsonl"
    place.write_text("".join(json.dumps({"text": t}) + "\n" for t in documents(30) if t.strip()))
    made = ex.load(_built(model, place, tmp_path / "built"))
    assert build_texts(made) is not None
    place.write_text(place.read_text() + json.dumps({"text": "one more"}) + "\n")
    assert build_texts(made) is None
    place.unlink()
    assert build_texts(made) is None


def test_the_server_names_the_member_nearest_to_each_neighbour(
    folder, dictionary, model, directions
):
    view = View(folder, "d", None)
    explorer = Explorer({"d": view}, load=lambda name: model, model="tiny")
    view.prepare()
    http = TestClient(application.create_app(explorer))
    region = int(np.argmax(dictionary.counts))
    path = f"/api/v1/d/d/regions/{region}/witnesses"
    answer = http.post(path, json={"k": 5})
    messages = [json.loads(line) for line in answer.text.splitlines()]
    end = messages[-1]
    assert {m["type"] for m in messages[:-1]} <= {"loading", "progress"}
    assert end["type"] == "end"
    assert end["source"] == "the texts of the build"
    near = nearest_to(view.distances_from(region), region, 5).tolist()
    assert [row["id"] for row in end["rows"]] == near
    kept = dictionary.contexts.region(region)[:MOST] if end["asked"] < MOST else None
    for row in end["rows"]:
        exemplar = dictionary.exemplars[row["id"]]
        mine = 1 - directions[row["row"]] @ exemplar
        assert row["to_neighbour_theta"] == pytest.approx(mine / dictionary.threshold, abs=1e-3)
        for c in kept or []:
            assert mine <= 1 - directions[c.row] @ exemplar + 1e-4
    assert http.post("/api/v1/d/d/regions/99999/witnesses", json={}).status_code == 404
    assert http.post(path, json={"k": 0}).status_code == 422
    explorer.close()
    bare = Explorer({"d": view})
    http = TestClient(application.create_app(bare))
    assert "--no-model" in http.post(path, json={}).json()["error"]
    bare.close()
