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
from builds import SETTINGS, documents
from exemplars.analyses.correspondence import SPACES, by_direction
from exemplars.cli import options
from exemplars.explorer.assets import INSTALLED, Assets
from exemplars.explorer.single_file import EXTRAS, export_html
from exemplars.explorer.views import View
from synthetic import HOSTILE, synthetic
from tiny_models import tiny_model

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


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def built(model, tmp_path_factory):
    """Two dictionaries of one model, and a text file."""
    out = tmp_path_factory.mktemp("frozen") / "built"
    ex.build(model, "resid_post.1", ex.texts(documents()), [10.0, 40.0], out=out, **SETTINGS)
    return sorted(out.glob("resid*"))


def session_of(folder, text="<img src=x onerror=__pwn()>", **more):
    """As the page saves what was steered."""
    stats = {"ppl_base": 12.5, "mean_kl": 0.5, "target_hit": 0.25, "ood": 0.0, "tokens": 1}
    view = View(folder, "x", None)
    view.close()
    token = {"type": "token", "v": 1, "i": 0, "id": 5, "text": text, "kl": 0.5, "logprob": -1.0}
    return {
        "dictionary": folder.name,
        "fingerprint": view.fingerprint,
        "model": {"name": "tiny", "revision": "abc", "site": "resid_post.1", "dtype": "float32"},
        "asked": {
            "prompt": "the sea", "client": "a client", "max_new_tokens": 4, "temperature": 0.5,
            "seed": 7,
            "variants": [{"name": "v", "items": [
                {"region": 3, "op": "add", "strength": 0.5, "positions": "generated"}]}],
        },
        "answers": [
            {"name": "baseline", "tokens": [], "end": {"reason": "limit", "stats": stats}},
            {"name": text, "text": text, "tokens": [token], "end": None},
        ],
    } | more  # fmt: skip


def test_texts_are_frozen_as_live_text_says_them(built, model, tmp_path):
    texts = ["the sea 🌊 then naïve there", HOSTILE[0]]
    done, _, data = written(built[0], tmp_path / "x.html", top=2, traces=texts, model=model)
    page = data["json"]["d/main"]
    assert page["frozen"] == {"traces": texts, "sessions": [], "drift": False}
    dictionary = ex.load(built[0])
    for i, text in enumerate(texts):
        found = data["json"][f"d/main/frozen/trace/{i}"]
        (expected,) = ex.trace(dictionary, model, ex.texts([text]))
        rows = [row for row in found["rows"] if not row["special"]]
        assert found["text"] == text
        assert [row["region"] for row in rows] == expected.region.tolist()
        assert np.allclose([row["distance"] for row in rows], expected.distance, atol=1e-5)
        about = found["about"]
        assert about["dtype"] == "float32"
        assert about["model"] == dictionary.provenance["model"]["name"]
        met = {row["region"] for row in rows}
        assert {r["id"] for r in found["regions"]} == met
        assert all(set(r) == {"id", "key", "label", "token", "member_count"}
                   for r in found["regions"])  # fmt: skip
        assert about["site"] == "resid_post.1"
        assert about["seed"] == dictionary.provenance.get("seed")
        assert "revision" in about
    assert done.parts["live text"] > 1000
    assert "live text" not in done.left_out[-1]
    assert done.left_out[-1] == "steering, drift, notes, which need the server"
    with pytest.raises(ValueError, match="no model to read them with"):
        export_html(built[0], tmp_path / "y.html", traces=texts)
    with pytest.raises(ValueError, match="at most 2,048"):
        export_html(built[0], tmp_path / "y.html", traces=["a " * 2500], model=model)
    with pytest.raises(ex.MismatchError):
        export_html(built[0], tmp_path / "y.html", traces=["a"], model=tiny_model(seed=3))
    assert not (tmp_path / "y.html").exists()


def test_a_session_is_frozen_with_what_is_shown_of_it_alone(built, tmp_path):
    (tmp_path / "s.json").write_text(json.dumps(session_of(built[0], secret="not shown")))
    files = [tmp_path / "s.json"]
    done, _, data = written(built[0], tmp_path / "x.html", top=1, sessions=files)
    found = data["json"]["d/main/frozen/session/0"]
    assert data["json"]["d/main"]["frozen"]["sessions"] == ["the sea"]
    assert found["about"] == {
        "model": "tiny", "name": "tiny", "revision": "abc", "site": "resid_post.1",
        "dtype": "float32", "seed": 7,
    }  # fmt: skip
    assert found["asked"]["variants"][0]["items"][0]["strength"] == 0.5
    assert found["answers"][1]["tokens"][0]["kl"] == 0.5
    assert found["answers"][1]["tokens"][0]["text"] == "<img src=x onerror=__pwn()>"
    for absent in ("not shown", "a client"):
        assert absent not in json.dumps(data)
    assert (
        done.parts["steering"] == len(json.dumps(found, separators=(",", ":"))) + 5 * 4
    )  # < and >, twice


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda s: s | {"fingerprint": "0" * 16}, "another dictionary"),
        (lambda s: s | {"answers": []}, "answers"),
        (lambda s: s | {"asked": {"prompt": 3}}, "asked"),
        (lambda s: [s], "saves as JSON"),
        (lambda s: s | {"answers": [{"name": "x", "tokens": [{"i": 0, "id": 1}]}]}, "text"),
    ],
)
def test_a_session_that_is_none_is_refused(built, tmp_path, change, said):
    (tmp_path / "s.json").write_text(json.dumps(change(session_of(built[0]))))
    with pytest.raises(ValueError, match=said):
        export_html(built[0], tmp_path / "x.html", sessions=[tmp_path / "s.json"])
    (tmp_path / "s.json").write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        export_html(built[0], tmp_path / "x.html", sessions=[tmp_path / "s.json"])
    assert not (tmp_path / "x.html").exists()


def test_drift_is_frozen_as_the_library_matches(built, tmp_path):
    done, _, data = written(built[0], tmp_path / "x.html", top=1, drift=built[1])
    found = data["json"]["frozen/drift"]
    one, two = (ex.load(folder) for folder in built)
    pairs = by_direction(SPACES[0], one, two, (one.means, two.means))
    better = pairs.score > pairs.chance
    counts = found["counts"]
    assert counts["kept"] == (better & (pairs.score >= found["cutoff"])).sum() > 0
    assert counts["kept"] + counts["moved"] + counts["dropped"] == len(one)
    assert counts["kept"] + counts["moved"] + counts["introduced"] == len(two)
    assert sum(found["cosines"]["counts"]) == len(pairs.score)
    assert {kind: page["count"] for kind, page in found["pairs"].items()} == counts
    kept = [row["cosine"] for row in found["pairs"]["kept"]["rows"]]
    assert kept == sorted(kept)
    assert data["json"]["app"]["export"]["drift"]
    assert done.parts["drift"] > 0
    assert done.left_out[-1] == "live text, steering, notes, which need the server"
    other = ex.save(synthetic(30, 8), tmp_path / "narrow")
    with pytest.raises(ValueError, match="widths differ"):
        export_html(built[0], tmp_path / "y.html", drift=other)


def test_what_was_asked_for_stays_and_regions_go_when_the_file_is_full(built, model, tmp_path):
    texts = ["the sea there " * 20] * 20
    options = {"traces": texts, "model": model, "drift": built[1]}
    whole, _, _ = written(built[0], tmp_path / "whole.html", top=40, **options)
    small, _, data = written(
        built[0], tmp_path / "small.html", top=40, max_mb=whole.bytes / 1e6 - 0.05, **options
    )
    assert 0 < small.regions < whole.regions
    assert "d/main/frozen/trace/19" in data["json"]
    assert "did not fit" in " ".join(small.left_out)
    with pytest.raises(
        ValueError, match=r"hold code .* MB, pictures .* MB, live text .* MB, drift"
    ):
        export_html(built[0], tmp_path / "none.html", max_mb=0.1, **options)


def test_the_command_freezes_what_is_named(run, built, model, tmp_path, monkeypatch):
    monkeypatch.setattr(options, "load_model", lambda name, *rest: model)
    (tmp_path / "texts.txt").write_text("the sea\n\n  \nthere 🌊\n", encoding="utf-8")
    (tmp_path / "texts.jsonl").write_text(json.dumps({"text": "two\nlines"}) + "\n")
    (tmp_path / "s.json").write_text(json.dumps(session_of(built[0])))
    out = tmp_path / "x.html"
    words = ("--trace", tmp_path / "texts.txt", "--steer", tmp_path / "s.json", "--model", "tiny")
    status, text, err = run(
        "export", "html", built[0], out, "--top", 2, "--drift", built[1], *words
    )
    assert status == 0, err
    for part in ("code", "pictures", "list", "pages", "live text", "steering", "drift"):
        assert part in text
    assert "Left out: " in text
    data = out.read_text()
    assert '"d/main/frozen/trace/1"' in data
    assert '"d/main/frozen/trace/2"' not in data
    command = ("export", "html", built[0], out, "--overwrite")
    status, _, err = run(*command, "--trace", tmp_path / "texts.jsonl", "--model", "tiny")
    assert status == 0, err
    assert "two\\nlines" in out.read_text()
    status, _, err = run(*command, "--model", "tiny")
    assert status == 2
    assert "--trace" in err
    (tmp_path / "empty.txt").write_text("\n")
    status, _, err = run(*command, "--trace", tmp_path / "empty.txt", "--model", "tiny")
    assert status == 2
    assert f"{tmp_path / 'empty.txt'} holds no text" in err
    (tmp_path / "bad.txt").write_bytes(b"\xff\xfe bad\n")
    status, _, err = run(*command, "--trace", tmp_path / "bad.txt", "--model", "tiny")
    assert status == 0, err
    assert r"\ufffd\ufffd bad" in out.read_text()
    status, _, err = run(*command, "--trace", tmp_path / "missing.txt", "--model", "tiny")
    assert status == 2
    assert "there is no file" in err
    (tmp_path / "many.txt").write_text("".join(f"text {n}\n" for n in range(51)))
    status, _, err = run(*command, "--trace", tmp_path / "many.txt", "--model", "tiny")
    assert status == 2
    assert "has 51 texts, expected at most 50" in err
    status, _, err = run("export", "saelens", built[0], tmp_path / "s", "--drift", built[1])
    assert status == 2
    assert "--drift" in err
