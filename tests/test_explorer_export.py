"""The explorer in one file: what it holds, what it lets in, and what it leaves out."""

import base64
import hashlib
import html.parser
import json
import re
import zlib

import numpy as np
import pytest

import exemplars as ex
from exemplars.explorer.assets import INSTALLED, Assets
from exemplars.explorer.single_file import EXTRAS, export_html
from synthetic import HOSTILE, synthetic

EXTRA = ",".join(EXTRAS)


class Elements(html.parser.HTMLParser):
    """The scripts and styles of a page, as a browser sees them."""

    def __init__(self, text):
        super().__init__(convert_charrefs=True)
        self.scripts, self.styles, self.policy, self.links = [], [], "", []
        self.current = None
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        if tag == "script":
            self.scripts.append([attrs, ""])
            self.current = self.scripts[-1]
        elif tag == "style":
            self.styles.append([attrs, ""])
            self.current = self.styles[-1]
        elif attrs.get("http-equiv") == "Content-Security-Policy":
            self.policy = attrs["content"]
        for name in ("src", "href"):
            if name in attrs:
                self.links.append(attrs[name])

    def handle_endtag(self, tag):
        self.current = None

    def handle_data(self, data):
        if self.current is not None:
            self.current[1] += data


def written(folder, out, **options):
    done = export_html(folder, out, created="then", **options)
    page = Elements(out.read_text(encoding="utf-8"))
    (data,) = [text for attrs, text in page.scripts if attrs.get("id") == "export-data"]
    return done, page, json.loads(data)


@pytest.fixture(scope="module")
def made():
    return synthetic(80, 8, hostile=True)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    return ex.save(made, tmp_path_factory.mktemp("export") / "made")


@pytest.fixture(scope="module")
def exported(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("a b ü") / "naïve file.html"
    return (*written(folder, out, top=20), out)


def test_the_policy_lets_in_the_files_own_code_and_nothing_else(exported):
    _, page, _, _ = exported
    directives = dict(part.split(" ", 1) for part in page.policy.split("; "))
    assert directives["default-src"] == "'none'"
    assert directives["require-trusted-types-for"] == "'script'"
    assert directives["trusted-types"] == "'none'"
    allowed = set(re.findall("'(sha256-[^']+)'", page.policy))

    def digest(text):
        found = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        return f"sha256-{found}"

    running = [(a, t) for a, t in page.scripts if a.get("type") != "application/json"]
    assert [a.get("type") for a, _ in running] == ["importmap", "module"]
    assert all("src" not in a for a, _ in running)
    assert {digest(text) for _, text in [*running, *page.styles]} == allowed
    assert all(link.startswith("data:") for link in page.links)
    for name in ("connect-src", "frame-src", "worker-src"):
        assert name not in directives  # so default-src 'none' holds


def test_every_module_is_inside_and_imports_only_modules_that_are(exported):
    _, page, _, _ = exported
    modules = json.loads(page.scripts[0][1])["imports"]
    for name in INSTALLED.modules:
        assert name in modules or name.endswith("/")
    for address in modules.values():
        head, _, code = address.partition(",")
        assert head == "data:text/javascript;base64"
        source = base64.b64decode(code).decode()
        for used in re.findall(
            r'^\s*(?:import|export)[^;"\']*?from\s*["\']([^"\']+)', source, re.M
        ):
            assert used in modules, used


def test_hostile_texts_are_in_it_and_end_no_element(exported):
    _, _, data, out = exported
    text = out.read_text(encoding="utf-8")
    start = text.index('id="export-data">') + len('id="export-data">')
    inside = text[start : text.index("</script>", start)]
    assert not set("<>&") & set(inside)
    assert inside.isascii()
    rows = data["rows"]["main"]
    assert {row["token"]["text"] for row in rows} <= set(HOSTILE)


def test_the_answers_are_those_of_the_server(exported, made, folder):
    done, _, data, _ = exported
    app = data["json"]["app"]
    assert [d["slug"] for d in app["dictionaries"]] == ["main"]
    assert not any(app["capabilities"][name] for name in ("trace", "steer", "write", "drift"))
    assert app["export"]["regions"] == done.regions == 20
    assert app["export"]["of"] == done.of == 80
    largest = np.argsort(-made.counts, kind="stable")[:20]
    assert [row["id"] for row in data["rows"]["main"]] == largest.tolist()
    for k in largest:
        page = data["json"][f"d/main/regions/{k}?_extra={EXTRA}"]
        assert page["member_count"] == made.counts[k]
        shown = [member["text"] for member in page["members"]["rows"]]
        assert shown == [c.before + c.text + c.after for c in made.contexts.region(int(k))]
        assert data["json"][f"d/main/slice:local:{k}"]["exact"]
    assert data["json"]["d/main/slice:pca"]["exact"]
    fingerprint = data["json"]["d/main"]["fingerprint"]
    for path in ("columns", "sphere", "layout/unrolled"):
        packed = base64.b64decode(data["binary"][f"d/main/{path}/{fingerprint}"])
        assert b"__metadata__" in zlib.decompress(packed, -zlib.MAX_WBITS)[:200]


def test_without_corpus_text_tokens_alone_are_in_it(folder, made, tmp_path):
    done, _, data = written(folder, tmp_path / "x.html", top=5, corpus_text=False)
    for row in data["rows"]["main"]:
        assert row["context"]["text"] == row["token"]["text"]
    assert done.documents == 0
    names = json.dumps(data)
    assert '"name": "<img' not in names
    assert "round the tokens" in " ".join(done.left_out)
    assert not list(tmp_path.glob(".*"))


def test_the_file_stays_below_the_size_and_says_what_it_left_out(folder, tmp_path):
    whole, _, _ = written(folder, tmp_path / "whole.html")
    small, _, data = written(folder, tmp_path / "small.html", max_mb=whole.bytes / 1e6 - 0.1)
    assert small.bytes <= whole.bytes - 0.1e6
    assert 0 < small.regions < whole.regions == 80
    assert "did not fit" in " ".join(small.left_out)
    assert len(data["rows"]["main"]) == small.regions
    with pytest.raises(ValueError, match="--max-mb"):
        export_html(folder, tmp_path / "none.html", max_mb=0.1)
    assert not (tmp_path / "none.html").exists()


def test_the_same_is_written_twice(folder, tmp_path):
    one, _, _ = written(folder, tmp_path / "one.html", regions=[3, 1, 3])
    two, _, _ = written(folder, tmp_path / "two.html", regions=[3, 1])
    assert one.sha256 == two.sha256
    assert one.sha256 == hashlib.sha256((tmp_path / "one.html").read_bytes()).hexdigest()


def test_a_file_that_is_there_stays(folder, tmp_path):
    out = tmp_path / "x.html"
    out.write_text("mine")
    with pytest.raises(FileExistsError, match="is already there"):
        export_html(folder, out)
    with pytest.raises(FileExistsError, match="is a folder"):
        export_html(folder, tmp_path, overwrite=True)
    assert out.read_text() == "mine"
    with pytest.raises(ValueError, match="does not exist"):
        export_html(folder, out, regions=[80], overwrite=True)
    assert out.read_text() == "mine"


def test_a_dictionary_without_a_sphere_or_texts_is_exported_too(tmp_path):
    folder = ex.save(synthetic(3, 6, contexts=0), tmp_path / "small")
    done, _, data = written(folder, tmp_path / "small.html")
    assert done.regions == 3
    assert "d/main/slice:pca" not in data["json"]
    assert data["json"]["d/main"]["sphere"]["status"] == "unavailable"


def test_the_command_writes_it_and_says_what_is_in_it(run, folder, tmp_path):
    out = tmp_path / "new" / "x.html"
    status, text, _ = run("export", "html", folder, out, "--top", 3)
    assert status == 0
    assert text.startswith("3 of 80 regions are in")
    assert "characters of" in text
    status, _, err = run("export", "html", folder, out)
    assert status == 2
    assert "overwrite" in err
    status, text, _ = run("export", "html", folder, out, "--region", 7, "--overwrite", "--json")
    assert status == 0
    assert json.loads(text)["regions"] == 1
    status, _, err = run("export", "html", folder, out, "--dtype", "float16")
    assert status == 2
    assert "--dtype" in err
    status, _, err = run("export", "saelens", folder, out, "--max-mb", 3)
    assert status == 2
    assert "--max-mb" in err
    status, _, err = run("export", "htm", folder, out)
    assert status == 2
    assert "lm-eval, html; did you mean html" in err


def test_a_package_without_its_pages_says_so(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="install it again"):
        export_html(folder, tmp_path / "x.html", assets=Assets(tmp_path / "nothing"))
