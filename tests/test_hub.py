import os
import subprocess
import sys
from pathlib import Path

import pytest

import hub_stand_in
from exemplars import hub, store
from exemplars.dictionary import Dictionary
from exemplars.errors import ExemplarsError, SourceError
from test_store import BYTES_PROMISED, contents, example


@pytest.fixture(scope="module")
def dictionary() -> Dictionary:
    return example()


@pytest.fixture
def saved(dictionary: Dictionary, tmp_path: Path) -> Path:
    return store.save(dictionary, tmp_path / "saved", run={"seconds": 1.5})


def in_a_subprocess(code: str, endpoint: str, home: Path, **environment: str) -> str:
    """The Hub's client reads its address when it is imported."""
    settings = {
        "HF_ENDPOINT": endpoint, "HF_HUB_DISABLE_XET": "1", "HF_HOME": str(home),
        "HF_TOKEN": "token", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_OFFLINE": "0", "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1",
        **environment,
    }  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", "from exemplars import errors, hub, store\n" + code],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_what_is_pushed_is_what_is_pulled(saved, dictionary, tmp_path):
    with hub_stand_in.serve() as server:
        out = in_a_subprocess(
            f"""
print(hub.push({str(saved)!r}, "me/dictionaries", path_in_repo="layer-1", private=True))
hub.push(store.load({str(saved)!r}), "me/dictionaries", path_in_repo="layer-2")
hub.push({str(saved)!r}, "me/one")
a = hub.pull("me/dictionaries", {str(tmp_path / "pulled")!r}, path_in_repo="layer-1")
b = hub.pull("me/dictionaries", path_in_repo="layer-2")
c = hub.pull("me/one")
print(len(a), len(b), len(c), len(a.contexts.region(1)))
""",
            server.url,
            tmp_path / "home",
        )
        files = server.files("me/dictionaries")
    n = dictionary.n_regions
    assert out.splitlines()[-1] == f"{n} {n} {n} {len(dictionary.contexts.region(1))}"
    assert set(files) == {"README.md"} | {
        f"layer-{k}/{name}" for k in (1, 2) for name in (*BYTES_PROMISED, "manifest.json")
    }
    pulled = contents(tmp_path / "pulled")
    assert pulled == {name: b for name, b in contents(saved).items() if name != store.RUN}
    card = files["README.md"].decode()
    assert "library_name: exemplars" in card
    assert 'path_in_repo="layer-1"' in card
    assert "license" not in card


def test_pushing_again_removes_files_of_the_older_dictionary_and_keeps_the_card(saved, tmp_path):
    with hub_stand_in.serve() as server:
        server.put("me/d", {"README.md": b"mine", "lens.parquet": b"old", "other.txt": b"kept"})
        in_a_subprocess(f"hub.push({str(saved)!r}, 'me/d')", server.url, tmp_path / "home")
        files = server.files("me/d")
    assert files["README.md"] == b"mine"
    assert "lens.parquet" not in files
    assert files["other.txt"] == b"kept"


def test_errors_of_the_hub_are_one_sentence(saved, tmp_path):
    code = f"""
def attempt(function, *args, **options):
    try:
        function(*args, **options)
    except (errors.SourceError, errors.FormatError) as error:
        assert "\\n" not in str(error)
        print(type(error).__name__, error)
attempt(hub.pull, "me/nothing")
attempt(hub.pull, "not a name")
attempt(hub.pull, "me/empty")
attempt(hub.pull, "me/d", revision="nowhere")
attempt(hub.pull, "me/d", {str(tmp_path / "broken")!r})
attempt(hub.push, {str(saved)!r}, "forbidden/d")
"""
    with hub_stand_in.serve() as server:
        server.put("me/empty", {"README.md": b""})
        broken = contents(saved)
        broken["regions.safetensors"] = broken["regions.safetensors"][:-4] + b"\0\1\2\3"
        server.put("me/d", broken)
        lines = in_a_subprocess(code, server.url, tmp_path / "home").splitlines()
        url = server.url
    assert "me/nothing does not exist on the Hub" in lines[0]
    assert '"not a name" is not a name on the Hub' in lines[1]
    assert "me/empty on the Hub has no manifest.json" in lines[2]
    assert "no such revision" in lines[3]
    assert "FormatError" in lines[4]
    assert "it was altered" in lines[4]
    assert "the Hub answered 403" in lines[5]
    assert len(lines) == 6
    assert not (tmp_path / "broken").exists()
    offline = in_a_subprocess(
        "try: hub.pull('me/d')\nexcept errors.SourceError as e: print(e)",
        url,
        tmp_path / "other home",
    )
    assert "could not be reached on the Hub" in offline
    told = in_a_subprocess(
        "try: hub.pull('me/d')\nexcept errors.SourceError as e: print(e)",
        url,
        tmp_path / "other home",
        HF_HUB_OFFLINE="1",
    )
    assert "could not be reached on the Hub" in told


def test_a_place_in_a_repository_is_a_plain_folder(dictionary):
    for place in ("../x", "a/../b", "a\\b"):
        with pytest.raises(ValueError, match="path_in_repo"):
            hub.push(dictionary, "me/d", path_in_repo=place)


def test_errors_are_of_the_packages_own_kind():
    assert issubclass(SourceError, ExemplarsError)
