"""Text that changes while one types: what is kept of it gives what a full run gives."""

import numpy as np
import pytest

import exemplars as ex
from builds import SETTINGS, documents
from exemplars.explorer import live, prefixes
from exemplars.explorer.prefixes import TOLERANCE, Prefixes, goes_on, in_doubt
from exemplars.explorer.worker import Job
from exemplars.tokenization import window_of_ids
from synthetic import dictionary_of, exemplars
from tiny_models import ARCHITECTURES, tiny_model

SITE = "resid_post.1"
TYPED = [
    "the sea and",
    "the sea and then",
    "the sea and then naïve 🌊 there",
    "the sea and then naïve 🌊 there, the other way round",
    "the sea and then naive 🌊 there, the other way round",  # a change in the middle
    "the sea and then naive 🌊 there",  # the end taken away
    "the sea and then naive 🌊 there",  # nothing changed
    "The sea",  # nothing in common
    "the " * 60,  # longer than a piece
    "the " * 59 + "sea and more",
    "the " * 10 + "sea " + "the " * 50,
]


@pytest.fixture(scope="module")
def model():
    return tiny_model()


@pytest.fixture(scope="module")
def dictionaries(model, tmp_path_factory):
    out = tmp_path_factory.mktemp("prefixes") / "built"
    settings = SETTINGS | {"tokenization": ex.Tokenization(context_length=40)}
    ex.build(model, SITE, ex.texts(documents()), [10.0, 40.0], out=out, **settings)
    return [ex.load(folder) for folder in sorted(out.glob("resid*"))]


def said(dictionary, model, text, memory=None, slug="d", **options):
    """Rows and the end of a trace."""

    def work(job):
        live.trace_text(dictionary, model, text, job, slug, prefixes=memory, **options)

    job = Job("trace", "", work)
    job.run()
    messages = job.messages()
    assert messages[-1]["type"] == "end", messages[-1]
    return [r for m in messages if m["type"] == "tokens" for r in m["rows"]], messages[-1]


def full(model, ids, site=SITE):
    """One pass over all tokens, as texts are read elsewhere."""
    from exemplars.activations import window_activations

    (batch,) = window_activations(model, [site], window_of_ids(ids, 0))
    return batch.vectors.double().numpy()


def test_what_is_typed_gives_the_rows_of_a_full_run(dictionaries, model, monkeypatch):
    ran = []
    own = prefixes.continued_activations

    def counted(model, site, ids, past):
        ran.append(len(ids))
        return own(model, site, ids, past)

    goes_on(model, SITE)
    memory = Prefixes()
    memory._goes_on(model, SITE)
    monkeypatch.setattr(prefixes, "continued_activations", counted)
    reused = []
    for text in TYPED:
        ran.clear()
        rows, end = said(dictionaries[0], model, text, memory)
        n_run = sum(ran)
        reused.append(end["reused"])
        expected, _ = said(dictionaries[0], model, text)
        assert [r["region"] for r in rows] == [r["region"] for r in expected]
        assert [r["i"] for r in rows] == list(range(len(rows)))
        for mine, theirs in zip(rows, expected, strict=True):
            assert {k: mine[k] for k in ("id", "start", "end", "text", "special")} == {
                k: theirs[k] for k in ("id", "start", "end", "text", "special")
            }
            if mine["region"] is not None:
                assert abs(mine["distance"] - theirs["distance"]) <= TOLERANCE
                assert [k for k, _ in mine["top"]] == [k for k, _ in theirs["top"]]
        assert n_run + end["reused"] >= len(rows)
        if end["reused"]:
            assert n_run < len(rows) + 2 * len(expected) // 40 + 1
    assert reused[0] == 0
    assert reused[7] == 0
    lengths = [len(said(dictionaries[0], model, text)[0]) for text in TYPED]
    assert reused[1] > 0
    assert reused[2] == lengths[1]
    assert reused[5] > lengths[4] // 2
    assert reused[6] == lengths[6]  # nothing was run
    assert reused[9] > 40  # the first piece whole, and the beginning of the second
    assert all(n > 0 for n in reused[2:7])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("site", ["resid_post.1", "attn_out.2", "resid_pre.0"])
def test_a_model_that_goes_on_gives_the_vectors_of_one_pass(architecture, site):
    model = tiny_model(architecture)
    rng = np.random.default_rng(3)
    whole = rng.integers(1, 200, 40)
    memory = Prefixes()
    for ids in (whole[:30], np.append(whole[:12], whole[20:40]), whole, whole[:17]):
        before = memory.begin(site)
        read = memory.read(model, site, ids, before)
        expected = full(model, ids, site)
        change = np.linalg.norm(read.vectors.double().numpy() - expected, axis=1)
        assert (change <= 1e-4 * np.linalg.norm(expected, axis=1)).all()
        assert len(read.vectors) == len(ids)
        # As after the search for regions, which the next reading takes a beginning of.
        read.regions = np.zeros((len(ids), 1), np.int64)
        read.distances = np.zeros((len(ids), 1))
        memory.keep(read)
    going = goes_on(model, site)
    assert going == (site != "resid_pre.0"), architecture
    assert read.same == (17 if going else 0)


class Uncroppable:
    """A cache that cannot be cut, as that of a model with a running state."""

    def __new__(cls):
        import transformers

        class Cache(transformers.DynamicCache):
            def crop(self, *_):
                raise RuntimeError("a running state cannot be cut")

        return Cache()


def test_a_cache_that_cannot_be_cut_means_full_runs(dictionaries, model, monkeypatch):
    monkeypatch.setattr(prefixes, "_new_cache", Uncroppable)
    assert not goes_on(model, SITE)
    memory = Prefixes()
    for text in TYPED[:4]:
        rows, end = said(dictionaries[0], model, text, memory)
        assert end["reused"] == 0
        expected, _ = said(dictionaries[0], model, text)
        assert rows == expected
    _, end = said(dictionaries[0], model, TYPED[3], memory)
    assert end["reused"] == len(rows)  # the same text is the same text all the same


def test_a_model_that_forgets_what_it_kept_is_found_out(model, monkeypatch):
    own = prefixes.continued_activations

    def forgetful(model, site, ids, past):
        import transformers

        return own(model, site, ids, transformers.DynamicCache())

    assert goes_on(model, SITE)
    monkeypatch.setattr(prefixes, "continued_activations", forgetful)
    assert not goes_on(model, SITE)


def test_models_of_16_bits_are_run_in_full(dictionaries):
    half = tiny_model()
    half.module.bfloat16()
    assert not goes_on(half, SITE)


def test_where_rounding_could_show_the_text_is_read_in_full(dictionaries, model, monkeypatch):
    memory = Prefixes()
    said(dictionaries[0], model, TYPED[1], memory)
    monkeypatch.setattr(live, "in_doubt", lambda *_: True)
    rows, end = said(dictionaries[0], model, TYPED[2], memory)
    assert end["reused"] == 0
    assert rows == said(dictionaries[0], model, TYPED[2])[0]


def test_doubt_is_nearness_to_a_wall_or_to_theta():
    made = dictionary_of(exemplars(5, 8), theta=0.5)
    sure = np.array([[0.2, 0.4], [np.nan, np.nan], [0.6, 0.7]])
    assert not in_doubt(made, sure)
    assert in_doubt(made, np.vstack([sure, [0.3, 0.3 + TOLERANCE]]))
    assert in_doubt(made, np.vstack([sure, [0.5 + TOLERANCE / 2, 0.9]]))
    assert not in_doubt(made, sure[:, :1])
    assert in_doubt(made, np.array([[0.5 - TOLERANCE / 2]]))


def test_another_dictionary_or_number_of_regions_begins_anew(dictionaries, model):
    memory = Prefixes()
    said(dictionaries[0], model, TYPED[2], memory)
    for dictionary, slug, topk in ((dictionaries[1], "e", 3), (dictionaries[1], "e", 5)):
        rows, end = said(dictionary, model, TYPED[2], memory, slug, topk=topk)
        assert end["reused"] == 0
        assert rows == said(dictionary, model, TYPED[2], None, slug, topk=topk)[0]
    assert said(dictionaries[1], model, TYPED[2], memory, "e", topk=5)[1]["reused"] == len(rows)


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_cancelled_text_is_gone_on_from_all_the_same(dictionaries, model, after, monkeypatch):
    memory = Prefixes()
    said(dictionaries[0], model, TYPED[8], memory)
    own, left = live._say_rows, [after]

    def work(job):
        def cancelling(*parts):
            found = own(*parts)
            left[0] -= 1
            if left[0] <= 0:
                job.cancel.set()
            return found

        if not after:
            job.cancel.set()
        with monkeypatch.context() as patched:
            patched.setattr(live, "_say_rows", cancelling)
            live.trace_text(dictionaries[0], model, TYPED[9], job, "d", prefixes=memory)

    job = Job("trace", "", lambda job: None)
    work(job)
    assert job.cancel.is_set()
    for text in (TYPED[9], TYPED[8]):
        rows, end = said(dictionaries[0], model, text, memory)
        assert end["reused"] > len(rows) // 2
        expected, _ = said(dictionaries[0], model, text)
        assert [r["region"] for r in rows] == [r["region"] for r in expected]


def test_no_more_is_kept_than_two_of_the_longest_texts():
    memory = Prefixes()
    for n in range(40):
        ids = np.full(500, n)
        memory.keep(prefixes.Reading(ids, None, None))
    kept = memory.begin()
    assert [int(piece.ids[0]) for piece in kept] == list(range(32, 40))
