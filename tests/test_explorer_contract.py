"""The API as it is written down, and that nothing that is asked of it makes the server fail."""

import json
import math
import os
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import exemplars as ex
from exemplars.explorer.queries import OPERATIONS
from exemplars.explorer.state import Explorer
from explorer_browser import opened
from explorer_server import NEEDED
from synthetic import HOSTILE, dictionary_of, exemplars
from tiny_models import WIDTH, tiny_model

application = pytest.importorskip("exemplars.explorer.application", reason=NEEDED)
TestClient = pytest.importorskip("starlette.testclient", reason=NEEDED).TestClient

WRITTEN = Path(__file__).parent / "data" / "explorer-openapi.json"
RENEW = "EXEMPLARS_RENEW"
ENDS = ("end", "done", "error", "cancelled")
TRACES = ("Traceback", 'File "', "site-packages", ".py")


@pytest.fixture(scope="module")
def http(tmp_path_factory):
    folder = tmp_path_factory.mktemp("contract")
    made = {"a": exemplars(30, WIDTH), "b": exemplars(12, WIDTH, seed=1)}
    views = {
        slug: opened(ex.save(dictionary_of(rows, hostile=slug == "b"), folder / slug), slug)
        for slug, rows in made.items()
    }
    model = tiny_model()
    explorer = Explorer(views, load=lambda name: model, model="tiny")
    client = TestClient(application.create_app(explorer), raise_server_exceptions=False)
    client.views = views
    yield client
    explorer.close()


def document():
    return application.create_app(Explorer({})).openapi()


def test_the_api_is_as_it_is_written_down():
    """A change of the API is a change of this file: EXEMPLARS_RENEW=1 pytest -k written_down."""
    found = document()
    found["info"]["version"] = "any"
    found = json.dumps(found, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    if os.environ.get(RENEW):
        WRITTEN.write_text(found, encoding="utf-8")
    assert found == WRITTEN.read_text(encoding="utf-8"), (
        f"the API has changed; if that is meant, set {RENEW}=1 and run this test again"
    )


OPERATIONS_OF_API = [
    (method, path, operation)
    for path, operations in document()["paths"].items()
    for method, operation in operations.items()
]
SCHEMAS = document()["components"]["schemas"]
COLUMNS = ["member_count", "coherence", "token", "label", "id", "parent", "nn1_cos", "nothing"]
WORDS = st.one_of(
    st.sampled_from([*HOSTILE, *COLUMNS, *OPERATIONS, "", "0", "1", "-1", "0.5", "1e999", "nan"]),
    st.sampled_from(["a", "b", "nearest", "band", "0.2-0.4", "ids", "rows", "r7", "3,1,2", "mean"]),
    st.integers(-(2**70), 2**70).map(str),
    st.text(max_size=20),
)
"""What an address may hold."""
IN_PATHS = {
    "slug": st.one_of(st.sampled_from(["a", "b"]), WORDS),
    "region": st.one_of(st.integers(0, 31).map(str), WORDS),
    "section": st.one_of(
        st.sampled_from(["members", "lens", "neighbours", "tokens", "histogram", "drift"]), WORDS
    ),
}
BASES = st.fixed_dictionaries(
    {"kind": st.sampled_from(["pca", "regions", "local", "run", "random", "x"])},
    optional={
        "components": st.lists(st.integers(-2, 40), max_size=4),
        "ids": st.lists(st.integers(-2, 40), max_size=4),
        "id": st.integers(-2, 40) | WORDS,
        "seed": st.integers(-(2**70), 2**70),
        "run": WORDS,
        "positions": st.lists(st.integers(-2, 40), max_size=4),
    },
)
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | WORDS,
    lambda some: st.lists(some, max_size=3) | st.dictionaries(WORDS, some, max_size=3),
    max_leaves=6,
)
"""Any JSON."""


def values(schema, name=""):
    """JSON that a schema allows."""
    if "$ref" in schema:
        return values(SCHEMAS[schema["$ref"].rpartition("/")[2]])
    if "anyOf" in schema:
        return st.one_of([values(one, name) for one in schema["anyOf"]])
    if name == "basis":
        return BASES
    if name == "op":
        return st.sampled_from(["add", "project_out", "ablate", "cap", "patch"]) | WORDS
    if name in ("a", "b", "dict"):
        return st.sampled_from(["a", "b"]) | WORDS
    least, most = schema.get("minimum", -5), schema.get("maximum", 40)
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            asked = {k: values(v, k) for k, v in named.items()}
            needed = {k: asked.pop(k) for k in schema.get("required", [])}
            more = schema.get("additionalProperties")
            if not named and more is not False:
                return st.dictionaries(
                    WORDS, values(more) if type(more) is dict else ANYTHING, max_size=3
                )
            return st.fixed_dictionaries(needed, optional=asked)
        case "array":
            most = min(3, schema.get("maxItems", 3))
            return st.lists(values(schema["items"]), max_size=most)
        case "integer":  # the first ones: a model writes so many tokens
            return st.integers(least, min(most, least + 4 if name == "max_new_tokens" else most))
        case "number":
            return st.floats(least, most)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string":
            return WORDS.filter(lambda s: len(s) <= schema.get("maxLength", 100))
        case _:
            return ANYTHING


@st.composite
def requests(draw, method, path, operation):
    """Address, query and body of a request that is mostly what the document allows."""
    query = []
    for p in operation.get("parameters", []):
        if p["in"] == "path":
            asked = draw(IN_PATHS.get(p["name"], WORDS))
            path = path.replace(f"{{{p['name']}}}", quote(asked, safe="") or "-")
        elif p["name"] == "filters":
            column, sign = draw(st.sampled_from(COLUMNS)), draw(st.sampled_from(OPERATIONS))
            query += [(f"{column}__{sign}", draw(WORDS))] * draw(st.integers(0, 1))
        elif draw(st.integers(0, 2)) == 0:
            schema = p["schema"]
            likely = st.sampled_from(schema["enum"]) if "enum" in schema else WORDS
            query.append((p["name"], draw(st.one_of(likely, WORDS))))
    if draw(st.integers(0, 19)) == 0:
        query.append((draw(WORDS), draw(WORDS)))
    body = None
    if "requestBody" in operation:
        (content,) = operation["requestBody"]["content"].values()
        body = draw(st.one_of(*[values(content["schema"])] * 4, ANYTHING))
    return path, query, body


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS_OF_API, ids=lambda v: v if type(v) is str else ""
)
def test_whatever_is_asked_the_answer_is_an_answer_or_one_sentence(http, method, path, operation):
    @settings(
        max_examples=60 if method == 'get' else 25, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(requests(method, path, operation))
    def ask(request):
        address, query, body = request
        fingerprint = http.views["a"].fingerprint
        found = http.request(
            method, address.replace("{fingerprint}", fingerprint), params=query, json=body
        )
        assert found.status_code < 500, found.text[:300]
        kind = found.headers["content-type"].partition(";")[0]
        if found.status_code >= 400:
            assert kind == "application/json"
            said = found.json()
            assert set(said) == {"ok", "error", "errors", "status"}
            assert (said["ok"], said["status"]) == (False, found.status_code)
            for sentence in [said["error"], *said["errors"]]:
                assert 0 < len(sentence) < 1000
                assert not any(mark in sentence for mark in TRACES)
        elif kind == "application/json":
            assert found.json()["ok"] is True
            assert all(map(math.isfinite, numbers(found.json())))
        elif kind == "application/x-ndjson":
            lines = [json.loads(line) for line in found.text.splitlines()]
            assert lines[-1]["type"] in ENDS
            assert not any(mark in found.text for mark in TRACES)

    ask()


def numbers(found):
    """All numbers of some JSON."""
    if isinstance(found, dict):
        found = list(found.values())
    if isinstance(found, list):
        for one in found:
            yield from numbers(one)
    elif isinstance(found, float):
        yield found


@pytest.mark.parametrize(
    ("path", "operation"),
    [(path, operation) for method, path, operation in OPERATIONS_OF_API if method == "get"],
    ids=lambda v: v if type(v) is str else "",
)
def test_a_parameter_is_known_if_it_is_written_down(http, path, operation):
    named = [p["name"] for p in operation.get("parameters", []) if p["in"] == "query"]
    view = http.views["a"]
    for key, value in (("slug", "a"), ("fingerprint", view.fingerprint), ("region", "3")):
        path = path.replace(f"{{{key}}}", value)
    path = path.replace("{name}", "unrolled").replace("{job}", "none")
    pair = {"a": "a", "b": "b"} if "/drift" in path else {}
    sections = ["members", "lens", "neighbours"] if "{section}" in path else [""]
    refused = http.get(path.replace("{section}", sections[0]), params={**pair, "unheard": "1"})
    assert "'unheard' is not known" in refused.json()["error"]
    for name in set(named) - {"filters"}:
        answers = [
            http.get(path.replace("{section}", section), params={**pair, name: "1"})
            for section in sections
        ]
        known = [a for a in answers if a.status_code < 300 or f"parameter '{name}'" not in a.text]
        assert known, f"{path} does not know {name}"
