"""The page's files: no way to make markup of text, nothing from elsewhere, all that is needed."""

import hashlib
import json
import re

import pytest

from exemplars.explorer.assets import INSTALLED

STATIC = INSTALLED.folder
OWN = sorted((STATIC / "app").glob("*.js"))
BANNED = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|dangerouslySetInnerHTML|document\.write|\beval\(|"
    r"new Function|setAttribute\(\s*['\"](?:style|on)|createContextualFragment|DOMParser|srcdoc"
)


def imports(path):
    """Specifiers of the static imports of a module."""
    text = path.read_text(encoding="utf-8")
    found = re.findall(
        r"^import\b[^;]*?\"([^\"]+)\";|^export\b[^;(]*? from \"([^\"]+)\";", text, re.MULTILINE
    )
    return [one or other for one, other in found]


def import_map():
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'<script type="importmap">(.*?)</script>', text).group(1))


@pytest.mark.parametrize("path", OWN, ids=lambda p: p.name)
def test_text_never_becomes_markup(path):
    assert not BANNED.findall(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("path", [*OWN, STATIC / "index.html", STATIC / "css/app.css"])
def test_nothing_is_fetched_from_elsewhere(path):
    text = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|//cdn|@import|url\((?!#)", text)


def test_the_import_map_lists_every_module_and_no_other():
    listed = import_map()["imports"]
    vendored = {e["file"] for e in json.loads((STATIC / "vendor/VENDOR.json").read_text())}
    there = {f"./static/app/{p.name}" for p in OWN} | {f"./static/vendor/{f}" for f in vendored}
    assert set(listed.values()) == there
    for path in OWN:
        assert listed[f"app/{path.stem}"] == f"./static/app/{path.name}"
        assert set(imports(path)) <= set(listed), path.name


def test_every_module_is_reached_from_main():
    seen, to_see = set(), ["app/main"]
    while to_see:
        name = to_see.pop()
        if name in seen or not name.startswith("app/"):
            continue
        seen.add(name)
        to_see += imports(STATIC / f"{name}.js")
    assert seen == {f"app/{p.stem}" for p in OWN}


def test_the_vendored_files_are_the_pinned_ones():
    entries = json.loads((STATIC / "vendor/VENDOR.json").read_text())
    assert {e["package"] for e in entries} == {
        "preact", "@preact/signals", "@preact/signals-core", "htm",
    }  # fmt: skip
    for entry in entries:
        data = (STATIC / "vendor" / entry["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == entry["sha256"], entry["file"]
        assert entry["licence"] in ("MIT", "Apache-2.0")
        licences = (STATIC / "vendor/LICENSES.txt").read_text()
        assert f"{entry['package']} {entry['version']}" in licences


def test_the_shell_has_one_inline_script_and_no_inline_style():
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    assert len(re.findall(r"<script(?![^>]*src)", text)) == 1
    assert "style=" not in text
    assert "<style" not in text
    assert not re.search(r"\son\w+=", text)
