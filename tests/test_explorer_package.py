"""The pages are in the wheel: built from the sdist, installed and served outside the repository."""

import hashlib
import json
import os
import re
import signal
import subprocess
import sys
import sysconfig
import tarfile
import urllib.request
import venv
import zipfile
from pathlib import Path

import pytest

import exemplars as ex
from exemplars.explorer.assets import INSTALLED, STATIC, Assets
from synthetic import synthetic

ROOT = Path(__file__).parents[1]
PAGES = "exemplars/explorer/static/"
AT_LEAST = 20
SMOKE = """
import sys
from exemplars.explorer.assets import INSTALLED
from exemplars.explorer.single_file import export_html
assert str(INSTALLED.folder).startswith(sys.argv[1]), INSTALLED.folder
done = export_html(sys.argv[2], sys.argv[3])
print(done.regions, len(INSTALLED.names()))
"""


def build(*arguments, cwd):
    pytest.importorskip(
        "hatchling", reason="the wheel is built with hatchling: pip install hatchling"
    )
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", *arguments], cwd=cwd, check=True,
        capture_output=True, timeout=120,
    )  # fmt: skip


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """A wheel made from the sdist, as `python -m build` makes it."""
    if not (ROOT / "pyproject.toml").exists():
        pytest.skip("pyproject.toml is not here; run this from a checkout")
    out = tmp_path_factory.mktemp("dist")
    build("-t", "sdist", "-d", str(out), cwd=ROOT)
    (sdist,) = out.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(out / "unpacked", filter="data")
    (source,) = (out / "unpacked").iterdir()
    build("-t", "wheel", "-d", str(out), cwd=source)
    (found,) = out.glob("*.whl")
    return found


def test_the_wheel_has_every_file_of_the_pages(wheel):
    with zipfile.ZipFile(wheel) as archive:
        inside = {
            name.removeprefix(PAGES): hashlib.sha256(archive.read(name)).hexdigest()
            for name in archive.namelist()
            if name.startswith(PAGES)
        }
    here = {
        name: hashlib.sha256((STATIC / name).read_bytes()).hexdigest() for name in INSTALLED.names()
    }
    assert len(here) >= AT_LEAST
    assert {name: inside.get(name) for name in here} == here


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory):
    """The commands of an environment in which the wheel is installed, and nothing else is new."""
    pytest.importorskip("pip", reason="the wheel is installed with pip: python -m ensurepip")
    place = tmp_path_factory.mktemp("environment")
    venv.create(place, symlinks=True)
    commands = place / "bin"
    (site,) = place.glob("lib/python*/site-packages")
    (site / "others.pth").write_text(sysconfig.get_path("purelib"), encoding="utf-8")
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", str(commands / "python"), "install", "--quiet",
         "--no-index", "--no-deps", "--ignore-installed", "--no-compile", str(wheel)],
        check=True, capture_output=True, timeout=120,
    )  # fmt: skip
    return commands, site


def outside():
    """An environment without the repository in it."""
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"PYTHONUNBUFFERED": "1"}


def test_the_wheel_works_outside_of_the_repository(installed, tmp_path):
    commands, site = installed
    folder = ex.save(synthetic(30, 6), tmp_path / "made")
    ran = subprocess.run(
        [commands / "python", "-c", SMOKE, str(site), str(folder), str(tmp_path / "x.html")],
        cwd=tmp_path, env=outside(), capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-2000:]
    regions, files = map(int, ran.stdout.split())
    assert regions == 30
    assert files >= AT_LEAST


def test_the_installed_command_serves_the_page_and_all_that_it_names(installed, tmp_path):
    commands, _ = installed
    folder = ex.save(synthetic(30, 6), tmp_path / "made")
    with subprocess.Popen(
        [commands / "exemplars", "explore", folder, "--no-open", "--no-model", "--port", "0"],
        cwd=tmp_path, env=outside(), stderr=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            line = process.stderr.readline()
            origin, token = re.search(r"(http://127\.0\.0\.1:\d+)/#t=(\S+)", line).groups()

            def fetched(path, **headers):
                asked = urllib.request.Request(f"{origin}/{path}", headers=headers)
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    return answer.read()

            shell = fetched("").decode()
            assert shell == INSTALLED.shell
            for name in INSTALLED.names():
                assert fetched(f"static/{name}") == (STATIC / name).read_bytes(), name
            about = json.loads(fetched("api/v1/app", Authorization=f"Bearer {token}"))
            assert [(d["slug"], d["k"]) for d in about["dictionaries"]] == [("made", 30)]
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130


def test_files_are_read_by_name_and_nothing_else(tmp_path):
    (tmp_path / "index.html").write_text("<p>")
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.js").write_text("1")
    (tmp_path / ".hidden").write_text("1")
    assets = Assets(tmp_path)
    assert assets.names() == ["a/x.js", "index.html"]
    assert assets.read("a/x.js") == (b"1", "text/javascript; charset=utf-8")
    for name in ("../secret", "/etc/passwd", "a/../index.html", ".hidden", "", "a", "a/x.js/"):
        assert assets.read(name) is None
