"""Who gets in, over raw sockets: the guard's table, the headers, and the server's start."""

import asyncio
import json
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest

import exemplars as ex
from exemplars.cli import explore, options
from exemplars.errors import SourceError
from exemplars.explorer.guard import BODY_BYTES, LoopbackGuard
from explorer_server import NEEDED, TOKEN, Served
from synthetic import synthetic

serving = pytest.importorskip("exemplars.explorer.serving", reason=NEEDED)
pytest.importorskip("uvicorn", reason=NEEDED)

HEADERS = {
    "content-security-policy", "x-content-type-options", "referrer-policy", "x-frame-options",
    "cross-origin-resource-policy", "cross-origin-opener-policy", "permissions-policy",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return ex.save(synthetic(60, 8), tmp_path_factory.mktemp("guard") / "made")


@pytest.fixture(scope="module")
def served(folder):
    with Served(serving.open_views([folder])) as found:
        yield found


def host(served):
    return ("Host", f"127.0.0.1:{served.port}")


AUTH = ("Authorization", f"Bearer {TOKEN}")
JSON = ("Content-Type", "application/json")
APP, SLICE = "/api/v1/app", "/api/v1/d/made/slice"
BODY = b'{"basis":{"kind":"random","seed":1}}'
LENGTH = ("Content-Length", str(len(BODY)))


def own(port):
    return ("Origin", f"http://127.0.0.1:{port}")


TABLE = [
    ("token", 200, "GET", APP, [AUTH]),
    ("no token", 401, "GET", APP, []),
    ("another token", 401, "GET", APP, [("Authorization", "Bearer nope")]),
    ("token as a cookie", 401, "GET", APP, [("Cookie", f"token={TOKEN}")]),
    ("token in the query", 401, "GET", f"{APP}?token={TOKEN}", []),
    ("another host", 403, "GET", APP, [("Host", "evil.test:{port}"), AUTH]),
    ("host without its port", 403, "GET", APP, [("Host", "127.0.0.1"), AUTH]),
    ("another port", 403, "GET", APP, [("Host", "127.0.0.1:1"), AUTH]),
    ("host with a tail", 403, "GET", APP, [("Host", "127.0.0.1:{port}.evil.test"), AUTH]),
    ("localhost", 200, "GET", APP, [("Host", "localhost:{port}"), AUTH]),
    ("IPv6", 200, "GET", APP, [("Host", "[::1]:{port}"), AUTH]),
    ("IPv6 with a tail", 403, "GET", APP, [("Host", "[::1]evil:{port}"), AUTH]),
    ("two hosts", 400, "GET", APP, [("Host", "127.0.0.1:{port}"), ("Host", "evil.test"), AUTH]),
    ("two tokens", 400, "GET", APP, [AUTH, AUTH]),
    ("cross-site read", 403, "GET", APP, [AUTH, ("Sec-Fetch-Site", "cross-site")]),
    ("another port's page", 403, "GET", APP, [AUTH, ("Sec-Fetch-Site", "same-site")]),
    ("own page", 200, "GET", APP, [AUTH, ("Sec-Fetch-Site", "same-origin")]),
    ("typed address", 200, "GET", APP, [AUTH, ("Sec-Fetch-Site", "none")]),
    ("foreign origin", 403, "GET", APP, [AUTH, ("Origin", "http://127.0.0.1:3000")]),
    ("null origin", 403, "POST", SLICE, [AUTH, JSON, LENGTH, ("Origin", "null")]),
    ("own origin", 200, "POST", SLICE, [AUTH, JSON, LENGTH, ("Origin", "http://127.0.0.1:{port}")]),
    ("form", 415, "POST", SLICE,
     [AUTH, LENGTH, ("Content-Type", "application/x-www-form-urlencoded")]),
    ("plain text", 415, "POST", SLICE, [AUTH, LENGTH, ("Content-Type", "text/plain")]),
    ("JSON in name only", 415, "POST", SLICE,
     [AUTH, LENGTH, ("Content-Type", "application/json-evil")]),
    ("no type", 415, "DELETE", "/api/v1/notes", [AUTH]),
    ("no length", 411, "POST", SLICE, [AUTH, JSON]),
    ("too long", 413, "POST", SLICE, [AUTH, JSON, ("Content-Length", str(BODY_BYTES + 1))]),
    ("preflight", 405, "OPTIONS", SLICE, [("Origin", "http://127.0.0.1:{port}")]),
    ("trace", 405, "TRACE", APP, [AUTH]),
    ("schema without token", 401, "GET", "/api/v1/openapi.json", []),
    ("documentation page", 404, "GET", "/docs", [AUTH]),
    ("shell", 200, "GET", "/", []),
    ("shell by a link elsewhere", 200, "GET", "/",
     [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
      ("Sec-Fetch-Dest", "document")]),
    ("shell in a frame elsewhere", 403, "GET", "/",
     [("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
      ("Sec-Fetch-Dest", "iframe")]),
    ("script elsewhere", 403, "GET", "/static/app/main.js", [("Sec-Fetch-Site", "cross-site")]),
    ("data by a link elsewhere", 403, "GET", APP,
     [AUTH, ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"),
      ("Sec-Fetch-Dest", "document")]),
    ("path upwards", 404, "GET", "/static/../guard.py", []),
    ("encoded path upwards", 404, "GET", "/static/%2e%2e/guard.py", []),
    ("absolute path", 404, "GET", "/static//etc/passwd", []),
    ("dictionary by path", 404, "GET", "/api/v1/d/..%2f..%2fetc", [AUTH]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "status", "method", "path", "headers"), TABLE)
def test_the_guard_lets_in_what_the_table_says(served, name, status, method, path, headers):
    sent = [(k, v.replace("{port}", str(served.port))) for k, v in headers]
    if not any(k == "Host" for k, _ in sent):
        sent.insert(0, host(served))
    body = BODY if LENGTH in headers else b""
    found, answered, content = served.raw(method, path, sent, body)
    assert found == status, content[:300]
    if name == "two hosts":  # refused by the parser of HTTP already
        return
    assert set(answered) >= HEADERS
    if (status >= 400 and status not in (404,)) or (status == 404 and path.startswith("/api")):
        about = json.loads(content)
        assert about["ok"] is False
        assert about["status"] == status
        assert "Traceback" not in content.decode()


def test_two_hosts_are_refused_also_behind_another_server():
    said = []

    async def inside(scope, receive, send):
        said.append("in")

    async def send(message):
        said.append(message.get("status"))

    guard = LoopbackGuard(inside, token="t", port=1, policy="default-src 'none'")
    hosts = [(b"host", b"127.0.0.1:1"), (b"host", b"evil.test")]
    scope = {"type": "http", "method": "GET", "path": "/", "headers": hosts}
    asyncio.run(guard(scope, None, send))
    assert said[0] == 400
    assert "in" not in said


def test_the_policy_forbids_what_the_page_does_not_need(served):
    _, headers, body = served.raw("GET", "/", [host(served)])
    policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
    assert policy["default-src"] == "'none'"
    assert policy["require-trusted-types-for"] == "'script'"
    assert policy["frame-ancestors"] == policy["base-uri"] == policy["form-action"] == "'none'"
    assert "unsafe" not in headers["content-security-policy"]
    inline = re.findall(rb"<script(?![^>]*src=)[^>]*>", body)
    assert len(re.findall("'sha256-", policy["script-src"])) == len(inline)


def test_a_websocket_is_closed(served):
    upgrade = [
        host(served), AUTH, ("Upgrade", "websocket"), ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "AAAAAAAAAAAAAAAAAAAAAA=="),
    ]  # fmt: skip
    status, _, _ = served.raw("GET", APP, [*upgrade])
    assert status != 101


def test_a_proxy_may_come_by_its_name_and_path(folder):
    with Served(serving.open_views([folder]), ["hub.test:80"], "/proxy/1") as served:
        by_name = ("Host", "hub.test:80")
        assert served.raw("GET", "/proxy/1/api/v1/app", [by_name, AUTH])[0] == 200
        assert served.raw("GET", "/proxy/1/", [by_name])[0] == 200
        assert served.raw("GET", "/proxy/12/api/v1/app", [by_name, AUTH])[0] == 404
        assert served.raw("GET", "/api/v1/app", [("Host", "hub.test:81"), AUTH])[0] == 403


def test_a_busy_port_is_passed_over():
    with serving.free_socket("127.0.0.1", 0) as first:
        port = first.getsockname()[1]
        with serving.free_socket("127.0.0.1", port) as second:
            assert second.getsockname()[1] > port


def test_the_browser_gets_a_file_that_only_its_owner_can_read(tmp_path):
    link = 'http://127.0.0.1:1/#t=secret"<x>'
    seen = {}

    def browse(uri):
        path = Path(uri.removeprefix("file://"))
        seen.update(uri=uri, mode=stat.S_IMODE(path.stat().st_mode), text=path.read_text())
        seen["folder"] = stat.S_IMODE(path.parent.stat().st_mode)
        done.set()

    done = threading.Event()
    with serving.browser_opened(link, browse):
        assert done.wait(5)
        place = Path(seen["uri"].removeprefix("file://"))
        assert place.exists()
    assert not place.exists()
    assert "secret" not in seen["uri"]
    assert seen["mode"] == 0o600
    assert seen["folder"] == 0o700
    assert "secret&quot;&lt;x&gt;" in seen["text"]
    assert "<script" not in seen["text"]


def test_two_tokens_differ_and_are_long():
    assert serving.new_token() != serving.new_token()
    assert len(serving.new_token()) >= 32


def test_a_host_that_others_reach_needs_its_name(run):
    status, _, err = run("explore", "nowhere", "--host", "0.0.0.0")
    assert status == 2
    assert "--allow-host" in err


def test_a_folder_that_is_no_dictionary_is_one_sentence(run, tmp_path):
    status, _, err = run("explore", tmp_path)
    assert status == 2
    assert err.count("\n") == 1


def test_a_pickle_is_no_dictionary(run, tmp_path):
    path = tmp_path / "dictionary.pkl"
    path.write_bytes(b"cos\nsystem\n(S'touch pwned'\ntR.")
    status, _, err = run("explore", path)
    assert status == 2
    assert "is not a folder" in err
    assert not (tmp_path / "pwned").exists()


def test_without_the_extra_one_sentence_says_what_to_install(run, folder, monkeypatch):
    for name in [m for m in sys.modules if m.startswith(("exemplars.explorer", "fastapi"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "fastapi", None)
    status, _, err = run("explore", folder)
    assert status == 2
    assert "pip install 'exemplars[explore]'" in err


def test_a_folder_of_several_opens_them_all(tmp_path):
    for name in ("one", "two"):
        ex.save(synthetic(5, 4), tmp_path / name)
    assert [p.name for p in options.dictionaries_in([tmp_path])] == ["one", "two"]
    assert options.dictionaries_in([tmp_path / "two"]) == [tmp_path / "two"]


def test_the_start_says_the_link_and_the_tunnel():
    address = serving.Address("127.0.0.1", 8765, "tok")
    assert "http://127.0.0.1:8765/#t=tok" in explore.start_text(address, 1, {})
    assert "ssh -L 8765:127.0.0.1:8765" in explore.start_text(address, 2, {"SSH_CONNECTION": "x"})


def test_control_c_ends_the_server_and_the_token_is_in_no_process_list(folder):
    code = "from exemplars.cli import main; main()"
    arguments = ["explore", str(folder), "--no-open", "--no-model", "--port", "0"]
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        try:
            line = process.stderr.readline()
            token = re.search("#t=(.+)$", line)[1]
            port = int(re.search(r"127\.0\.0\.1:(\d+)", line)[1])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=60) as page:
                assert page.status == 200
            listed = Path(f"/proc/{process.pid}/cmdline")
            if listed.exists():
                assert token.encode() not in listed.read_bytes()
            process.send_signal(signal.SIGINT)
            err = process.communicate(timeout=60)[1]
        finally:
            process.kill()
    assert process.returncode == 130
    assert err.splitlines()[-1] == "interrupted"
    assert "Traceback" not in err


def test_a_model_that_cannot_be_had_is_said_in_the_terminal(capsys, tmp_path):
    with pytest.raises(SourceError, match="no-model"):
        explore._loaded(str(tmp_path / "no-model"), "cpu")
    said = capsys.readouterr().err
    assert "no-model could not be loaded, so texts are not read" in said
