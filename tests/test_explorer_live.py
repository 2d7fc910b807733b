"""Text and edits through a tiny model, as the explorer streams them."""

import asyncio
import json
import socket
import threading
import time

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars.analyses.correspondence import SPACES, by_direction
from exemplars.building import check_out
from exemplars.explorer import live
from exemplars.explorer.live import edits_of, nearest_regions
from exemplars.explorer.state import Explorer
from exemplars.explorer.views import View
from exemplars.explorer.worker import WAITING, BusyError, Worker
from exemplars.store.folders import view_of
from explorer_server import NEEDED, TOKEN, Served
from synthetic import HOSTILE, dictionary_of, exemplars
from tiny_models import tiny_model

application = pytest.importorskip("exemplars.explorer.application", reason=NEEDED)
TestClient = pytest.importorskip("starlette.testclient", reason=NEEDED).TestClient

SITE = "resid_post.1"
TEXT = "the sea 🌊 then naïve there"


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def folders(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("live") / "built"
    ex.build(model, SITE, ex.texts(documents()), [10.0, 40.0], out=out, **SETTINGS)
    return sorted(out.glob("resid*"))


@pytest.fixture(scope="module")
def opened(folders, model):
    found = {}
    for folder in folders:
        slug = "fine" if folder.name.endswith("p10") else "coarse"
        found[slug] = View(folder, slug, view_of(folder))
    explorer = Explorer(found, load=lambda name: model, model="tiny")
    for view in found.values():
        view.prepare()
    yield explorer
    explorer.close()


@pytest.fixture(scope="module")
def http(opened):
    return TestClient(application.create_app(opened), raise_server_exceptions=False)


def lines(http, path, body, status=200):
    answer = http.post(f"/api/v1/{path}", json=body)
    assert answer.status_code == status, answer.text[:300]
    if status != 200:
        return answer.json()
    found = [json.loads(line) for line in answer.text.splitlines()]
    return [message for message in found if message["type"] != "loading"]


def rows_of(messages):
    return [row for message in messages if message["type"] == "tokens" for row in message["rows"]]


def test_a_trace_says_what_the_library_finds(http, opened, model):
    dictionary = opened.views["fine"].dictionary
    messages = lines(http, "d/fine/trace", {"text": TEXT})
    assert [messages[0]["type"], messages[-1]["type"]] == ["start", "end"]
    start, rows = messages[0], rows_of(messages)
    assert len(rows) == start["n"]
    (found,) = ex.trace(dictionary, model, ex.texts([TEXT]))
    ordinary = [row for row in rows if not row["special"]]
    assert [row["region"] for row in ordinary] == found.region.tolist()
    assert np.allclose([row["distance"] for row in ordinary], found.distance, atol=1e-6)
    ratio = [row["theta_ratio"] for row in ordinary]
    assert np.allclose(ratio, found.distance_in_thresholds, atol=1e-5)
    assert [row["id"] for row in ordinary] == found.token.tolist()
    special = [row for row in rows if row["special"]]
    assert special
    assert all(row["region"] is None for row in special)
    units = start["text"].encode("utf-16-le")
    for row in rows:
        here = units[2 * row["start"] : 2 * row["end"]].decode("utf-16-le")
        assert here == row["text"] or row["start"] == row["end"]
    assert "🌊" in {row["text"] for row in rows}  # each of its bytes lies in the whole character


def test_special_tokens_are_traced_when_they_are_asked_for(http):
    rows = rows_of(lines(http, "d/fine/trace", {"text": TEXT, "skip_special": False, "topk": 5}))
    assert all(row["region"] is not None for row in rows)
    assert all(len(row["top"]) == 5 for row in rows)
    for row in rows:
        distances = [d for _, d in row["top"]]
        assert distances == sorted(distances)
        assert row["margin"] == pytest.approx(distances[1] - distances[0])


@pytest.mark.parametrize("text", [*HOSTILE, " ", "a" * 200, "\n\n", "\ufffd"])
def test_any_text_is_traced(http, text):
    messages = lines(http, "d/fine/trace", {"text": text})
    assert messages[-1]["type"] == "end", messages[-1]


def test_an_empty_text_has_no_tokens_or_says_so(http):
    assert lines(http, "d/fine/trace", {"text": ""})[-1]["type"] in ("end", "error")


def test_a_long_text_is_refused_and_a_longer_one_not_read(http):
    messages = lines(http, "d/fine/trace", {"text": "a " * 2500})
    assert messages[-1]["type"] == "error"
    assert "at most" in messages[-1]["error"]
    lines(http, "d/fine/trace", {"text": "a" * 30_000}, 422)


def test_text_and_messages_exclude_each_other(http):
    lines(http, "d/fine/trace", {}, 400)
    lines(http, "d/fine/trace", {"text": "a", "messages": []}, 400)
    lines(http, "d/fine/trace", {"text": "a", "topk": 99}, 422)
    said = lines(http, "d/fine/trace", {"messages": [{"role": "user", "content": "hi"}]})
    assert said[-1]["type"] == "error"  # this tokenizer has no chat template
    assert "chat template" in said[-1]["error"]


def test_a_slice_goes_through_tokens_of_a_traced_text(http):
    messages = lines(http, "d/fine/trace", {"text": TEXT})
    places = [row["i"] for row in rows_of(messages) if not row["special"]][:3]
    basis = {"kind": "run", "run": messages[0]["run"], "positions": places}
    found = http.post("/api/v1/d/fine/slice", json={"basis": basis}).json()
    assert found["ok"], found
    assert len(found["marks"]) == 3
    assert found["gram"][0][0] == pytest.approx(1, abs=1e-5)
    wrong = http.post("/api/v1/d/coarse/slice", json={"basis": basis})
    assert wrong.status_code == 400
    missing = basis | {"positions": [0, 1, 999]}
    assert http.post("/api/v1/d/fine/slice", json={"basis": missing}).status_code == 400


def test_the_tokens_of_a_text_lie_where_the_exemplars_projection_puts_them(http, opened):
    messages = lines(http, "d/fine/trace", {"text": TEXT})
    run = messages[0]["run"]
    found = http.post("/api/v1/d/fine/passage", json={"run": run}).json()["points"]
    view = opened.views["fine"]
    kept = opened.run(run).directions
    assert [p["i"] for p in found] == sorted(kept)
    sphere = view.sphere
    for point in found:
        flat = sphere.axes[:3].astype(float) @ (kept[point["i"]] - sphere.mean).astype(float)
        assert np.allclose(point["y"], flat / np.linalg.norm(flat), atol=1e-4)
    exemplars_ = {k: view.dictionary.exemplars[k] for k in range(len(view.dictionary))}
    own = live.sphere_points(sphere, live.Run("fine", exemplars_, {}))
    assert np.allclose([p["y"] for p in own], sphere.points, atol=1e-4)  # 24-bit codes
    assert http.post("/api/v1/d/coarse/passage", json={"run": run}).status_code == 400
    assert http.post("/api/v1/d/fine/passage", json={"run": "gone"}).status_code == 404


def test_a_slice_through_a_text_says_how_far_each_token_lies_in_it(http, opened):
    messages = lines(http, "d/fine/trace", {"text": TEXT})
    places = [row["i"] for row in rows_of(messages) if not row["special"]][:3]
    basis = {"kind": "run", "run": messages[0]["run"], "positions": places}
    found = http.post("/api/v1/d/fine/slice", json={"basis": basis}).json()
    kept = opened.run(messages[0]["run"]).directions
    within = {p["i"]: p["within"] for p in found["passage"]}
    three = np.stack([kept[i] for i in places]).astype(float)
    span = np.linalg.qr(three.T)[0]
    assert sorted(within) == sorted(kept)
    for i, direction in kept.items():
        assert within[i] == pytest.approx(np.linalg.norm(span.T @ direction), abs=1e-4)
    marks = {tuple(np.round(m["y"], 4)) for m in found["marks"]}
    assert {tuple(np.round(p["y"], 4)) for p in found["passage"] if p["i"] in places} == marks


def steered(region=0, op="add", strength=3.0, **more):
    item = {"region": region, "op": op, "strength": strength, "positions": "generated"} | more
    return {"name": "more of it", "items": [item]}


def test_steering_says_the_baseline_and_each_variant(http, opened, model):
    dictionary = opened.views["fine"].dictionary
    body = {"prompt": "the sea ", "variants": [steered(2)], "max_new_tokens": 6}
    messages = lines(http, "d/fine/steer", body)
    assert messages[0]["type"] == "start"
    assert messages[-1]["type"] == "done"
    assert [v["name"] for v in messages[0]["variants"]] == ["baseline", "more of it"]
    assert messages[0]["model"]["dtype"] == "float32"
    assert messages[0]["model"]["site"] == SITE
    edit = ex.Edit.add(dictionary.region(2), 3.0, positions="generated")
    for v, edits in enumerate([[], [edit]]):
        (answer,) = ex.generate(model, ["the sea "], edits, chat=False, max_new_tokens=6)
        mine = [m for m in messages if m.get("v") == v]
        tokens = [m for m in mine if m["type"] == "token"]
        assert [t["id"] for t in tokens] == answer.ids.tolist()
        assert "".join(t["text"] for t in tokens) == answer.text
        (end,) = [m for m in mine if m["type"] == "end"]
        (scores,) = [m for m in mine if m["type"] == "scores"]
        assert len(scores["rows"]) == len(tokens) == end["stats"]["tokens"]
        assert end["reason"] == ("limit" if len(answer.ids) == 6 else "finished")
        kl = [row["kl"] for row in scores["rows"]]
        if v == 0:
            assert max(map(abs, kl)) < 1e-9
            assert end["stats"]["target_hit"] is None
        else:
            assert abs(kl[0]) < 1e-9  # the first token is predicted by the prompt, unedited
            assert max(kl[1:]) > 1e-3
            assert 0 <= end["stats"]["target_hit"] <= 1


def test_a_seed_draws_the_same_answer_again(http):
    body = {"prompt": "the", "max_new_tokens": 8, "temperature": 1.5, "seed": 5}
    texts = []
    for seed in (5, 5, 6):
        messages = lines(http, "d/fine/steer", body | {"seed": seed})
        texts.append(next(m["text"] for m in messages if m["type"] == "end"))
    assert texts[0] == texts[1] != texts[2]


@pytest.mark.parametrize("op", ["add", "project_out", "ablate", "cap", "patch"])
def test_every_operation_runs(http, op):
    body = {"prompt": "the ", "variants": [steered(1, op, 0.5)], "max_new_tokens": 2}
    assert lines(http, "d/fine/steer", body)[-1]["type"] == "done"


@pytest.mark.parametrize(
    ("variant", "status"),
    [
        (steered(10**6), 400), (steered(op="explode"), 400), (steered(strength=1e9), 422),
        (steered(region=-1), 422), (steered(unit="raw"), 400),
        (steered(positions="everywhere"), 400),
        ({"name": "x", "items": [steered()["items"][0]] * 9}, 422),
    ],
)  # fmt: skip
def test_an_edit_that_cannot_be_made_is_said(http, variant, status):
    body = {"prompt": "the ", "variants": [variant]}
    assert lines(http, "d/fine/steer", body, status)["ok"] is False


def test_drift_growth_and_resolution_are_those_of_the_library(http, opened):
    fine, coarse = (opened.views[s].dictionary for s in ("fine", "coarse"))
    deadline = time.monotonic() + 30
    while (answer := http.get("/api/v1/drift?a=fine&b=coarse")).status_code == 202:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    found = answer.json()
    counts = found["counts"]
    pairs = by_direction(SPACES[0], fine, coarse, (fine.means, coarse.means))
    better = pairs.score > pairs.chance
    assert counts["kept"] == (better & (pairs.score >= found["cutoff"])).sum() > 0
    assert counts["moved"] == (better & (pairs.score < found["cutoff"])).sum()
    assert counts["kept"] + counts["moved"] + counts["dropped"] == len(fine)
    assert counts["kept"] + counts["moved"] + counts["introduced"] == len(coarse)
    assert any("thresholds differ" in said for said in found["comparable"]["warnings"])
    for kind, n in counts.items():
        page = http.get(f"/api/v1/drift/pairs?a=fine&b=coarse&kind={kind}&_size=200").json()
        assert page["count"] == n
        assert len(page["rows"]) == n
    assert http.get("/api/v1/drift/pairs?a=fine&b=coarse&kind=x").status_code == 400
    assert http.get("/api/v1/drift?a=fine&b=nothing").status_code == 404
    assert http.get("/api/v1/drift?a=fine&b=coarse&cutoff=7").status_code == 400
    body = {"a": "fine", "b": "coarse", "text": TEXT}
    rows = rows_of(lines(http, "drift/trace", body))
    assert [row["a"]["region"] for row in rows] == [
        row["region"] for row in rows_of(lines(http, "d/fine/trace", {"text": TEXT}))
        if not row["special"]
    ]  # fmt: skip
    page = http.get("/api/v1/d/fine/growth").json()
    assert page["series"][0]["k"][-1] == len(fine)
    assert page["series"][0]["dict"] == "fine"
    assert {s["dict"] for s in page["series"]} == {"fine", "coarse"}
    relatives = http.get("/api/v1/d/fine/regions/3/resolution").json()
    holder = [r for r in relatives["parents"] if r["holds_exemplar"]]
    nearest = int((coarse.exemplars @ fine.exemplars[3]).argmax())
    assert [r["id"] for r in holder] == [nearest]
    assert all(r["dict"] == "coarse" for r in relatives["parents"])
    assert relatives["children"] == []
    assert http.get("/api/v1/d/fine").json()["relations"]["coarser"] == ["coarse"]


def test_the_lens_is_the_models_where_it_is_loaded(http, opened, model):
    opened.worker.submit("load", "", lambda job: opened.worker.load("tiny")).messages()
    found = http.get("/api/v1/d/fine/regions/0/lens?k=4").json()
    assert found["source"] == "model"
    lens = ex.logit_lens(model, opened.views["fine"].dictionary.exemplars[[0]], 4)
    assert [t["text"] for t in found["promoted"]] == lens.promoted_tokens[0]
    assert np.allclose([t["value"] for t in found["promoted"]], lens.promoted_logits[0], rtol=1e-4)


def test_another_model_than_the_dictionarys_is_an_error_in_the_stream(folders):
    view = View(folders[0], "d", None)
    explorer = Explorer({"d": view}, load=lambda name: tiny_model(seed=9), model="other")
    view.prepare()
    http = TestClient(application.create_app(explorer))
    for path, body in (("trace", {"text": "a"}), ("steer", {"prompt": "a"})):
        said = lines(http, f"d/d/{path}", body)
        assert said[-1]["type"] == "error"
        assert "was built with" in said[-1]["error"]
    explorer.close()


def test_without_a_model_the_reason_is_said(folders):
    view = View(folders[0], "d", None)
    failing = Explorer({"d": view}, load=lambda name: tiny_model().nothing, model="m")
    bare = Explorer({"d": view})
    for explorer, status in ((bare, 400),):
        http = TestClient(application.create_app(explorer))
        assert "--no-model" in lines(http, "d/d/trace", {"text": "a"}, status)["error"]
    http = TestClient(application.create_app(failing))
    assert lines(http, "d/d/trace", {"text": "a"})[-1]["type"] == "error"

    def absent(name):
        raise OSError(f"{name} is not here")

    third = Explorer({"d": view}, load=absent, model="m")
    http = TestClient(application.create_app(third))
    assert "m is not here" in lines(http, "d/d/trace", {"text": "a"})[-1]["error"]
    assert http.get("/api/v1/app").json()["models"][0]["status"] == "failed"
    for explorer in (bare, failing, third):
        explorer.close()


def test_nearest_regions_are_those_of_assign_also_among_near_ties():
    rng = np.random.default_rng(0)
    rows = exemplars(3000, 24, seed=1)
    rows[1500:1510] = rows[:10]  # exact ties: the lower index wins
    copies = np.sort(rng.permutation(np.arange(20, 1400))[:600].reshape(10, 60), axis=1)
    rows[copies] = rows[copies[:, :1]]  # more of them than there are candidates
    made = dictionary_of(rows)
    vectors = np.concatenate(
        [rng.standard_normal((200, 24)).astype(np.float32),
         made.center + 5 * rows[[3, 1503, 1509, *copies[:, 5]]], made.center[None]]
    )  # fmt: skip
    regions, distances = nearest_regions(made, vectors, 3)
    first, distance = made.assign(vectors)
    assert np.array_equal(regions[:, 0], first)
    assert np.allclose(distances[:, 0], distance, atol=1e-6, equal_nan=True)
    assert (regions[-1] == -1).all()
    assert np.isnan(distances[-1]).all()
    product = made.distances(vectors)[:-1]
    assert np.allclose(distances[:-1], np.sort(product, axis=1)[:, :3], atol=1e-5)
    few, _ = nearest_regions(dictionary_of(rows[:2]), vectors, 3)
    assert few.shape == (len(vectors), 2)


def test_edits_know_their_regions(opened):
    dictionary = opened.views["fine"].dictionary
    edits, regions = edits_of(dictionary, [{"region": 1, "op": "project_out"}])
    assert regions == (1,)
    assert edits[0].operation == "ablate"
    with pytest.raises(ValueError, match="at most"):
        edits_of(dictionary, [{"region": 1, "op": "add"}] * (live.ITEMS + 1))


def slow(started=None, steps=400):
    def work(job):
        if started is not None:
            started.set()
        for k in range(steps):
            if job.cancel.is_set():
                return
            job.put("token", i=k)
            time.sleep(0.005)

    return work


def test_a_stream_that_waits_for_its_model_begins_with_that():
    loads = threading.Event()

    def load(name):
        assert loads.wait(5)
        return "a model"

    worker = Worker(load)
    worker.submit("load", "", lambda job: worker.load("m"))
    waiting = worker.submit("trace", "", lambda job: job.put("got", it=worker.model("m")), "m")
    loads.set()
    assert [m["type"] for m in waiting.messages()] == ["loading", "got"]
    later = worker.submit("trace", "", lambda job: job.put("got", it=worker.model("m")), "m")
    assert [m["type"] for m in later.messages()] == ["got"]
    worker.close()


def test_a_newer_job_of_a_client_takes_the_place_of_an_older_one():
    worker = Worker(lambda name: None)
    started = threading.Event()
    first = worker.submit("trace", "tab", slow(started))
    assert started.wait(5)
    other_tab = worker.submit("trace", "other", slow(steps=1))
    second = worker.submit("trace", "tab", slow(steps=1))
    assert first.messages()[-1]["type"] == "cancelled"
    assert [m["type"] for m in second.messages()] == ["token"]
    assert [m["type"] for m in other_tab.messages()] == ["token"]
    assert worker.running == 0
    worker.close()


def test_fifty_cancelled_jobs_leave_nothing_running():
    worker = Worker(lambda name: None)
    jobs = [worker.submit("trace", "tab", slow()) for _ in range(50)]
    assert worker.cancel(jobs[-1].id)
    for job in jobs:
        assert job.done.wait(5)
    assert worker.running == 0
    assert not worker.cancel(jobs[0].id)
    assert not worker.cancel("nothing")
    worker.close()


def test_too_many_waiting_jobs_are_refused():
    worker = Worker(lambda name: None)
    for k in range(WAITING):
        worker.submit("trace", f"tab {k}", slow())
    with pytest.raises(BusyError):
        worker.submit("trace", "one more", slow())
    worker.close()


def test_a_defect_in_a_job_is_said_and_the_next_job_runs(caplog):
    worker = Worker(lambda name: None)
    said = worker.submit("trace", "", lambda job: 1 / 0).messages()
    assert said[-1]["type"] == "error"
    assert "ZeroDivisionError" in said[-1]["error"]
    assert [m["type"] for m in worker.submit("trace", "", slow(steps=1)).messages()] == ["token"]
    worker.close()


def test_whoever_leaves_a_stream_cancels_its_job():
    worker = Worker(lambda name: None)
    job = worker.submit("trace", "tab", slow(steps=100_000))

    async def read_a_little():
        stream = job.lines()
        first = json.loads(await anext(stream))
        await stream.aclose()
        return first

    assert asyncio.run(read_a_little())["type"] == "token"
    assert job.done.wait(10)
    assert worker.running == 0
    worker.close()


def test_leaving_a_stream_stops_the_model(folders, model):
    found = {"d": View(folders[0], "d", None)}
    with Served(found, load=lambda name: model, model="tiny") as served:
        body = json.dumps({"prompt": "the ", "max_new_tokens": 50, "temperature": 2}).encode()
        head = (
            f"POST /api/v1/d/d/steer HTTP/1.1\r\nHost: 127.0.0.1:{served.port}\r\n"
            "Authorization: Bearer a-token-of-the-test\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", served.port), timeout=20) as s:
                s.sendall(head.encode() + body)
                assert s.recv(200).startswith(b"HTTP/1.1 200")
        deadline = time.monotonic() + 20
        while served.explorer.worker.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert served.explorer.worker.running == 0
        assert model.module.training is False
        assert served.explorer.views["d"].dictionary is not None


def test_fifty_traces_that_are_left_leave_no_job(folders, model):
    """Of a real model, over the wire: some hang up, the others ask anew before the answer."""
    held, read = threading.Event(), []

    def hold(*_):
        read.append(1)
        held.wait(30)

    hook = model.module.register_forward_pre_hook(hold)
    found = {"d": View(folders[0], "d", view_of(folders[0]))}
    with Served(found, load=lambda name: model, model="tiny") as served:
        head = [
            ("Host", f"127.0.0.1:{served.port}"), ("Authorization", f"Bearer {TOKEN}"),
            ("Content-Type", "application/json"),
        ]  # fmt: skip
        sockets = []
        for k in range(50):
            text = "the sea and the moon " * (1 + k % 2)
            body = json.dumps({"text": text, "client": f"tab {k if k % 2 else 0}"}).encode()
            lines = [f"{name}: {value}" for name, value in [*head, ("Content-Length", len(body))]]
            s = socket.create_connection(("127.0.0.1", served.port), timeout=20)
            s.sendall(
                "\r\n".join(["POST /api/v1/d/d/trace HTTP/1.1", *lines, "", ""]).encode() + body
            )
            if k % 2:
                s.close()  # perhaps before it is read
            else:
                sockets.append(s)
        for s in sockets[:-1]:
            assert s.recv(12) == b"HTTP/1.1 200"
            s.close()
        held.set()
        said = b""
        while b'"type":"end"' not in said.replace(b" ", b""):  # the last is answered to its end
            said += sockets[-1].recv(65536)
        sockets[-1].close()
        deadline = time.monotonic() + 30
        while served.explorer.worker.running and time.monotonic() < deadline:
            time.sleep(0.02)
        assert served.explorer.worker.running == 0
        hook.remove()
        assert len(read) <= 5  # the first, the last, and whose leaving was not yet seen


def test_a_folder_that_was_explored_can_be_built_anew(folders, opened):
    out = folders[0].parent
    assert {p.name for p in out.iterdir() if p.name.startswith(".")} == {
        f".{folder.name}.explorer" for folder in folders
    }
    check_out(out, overwrite=True, several=True)
    (out / "someone's own").mkdir()
    with pytest.raises(ex.FormatError, match="other files"):
        check_out(out, overwrite=True, several=True)
    (out / "someone's own").rmdir()
