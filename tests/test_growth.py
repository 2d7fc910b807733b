"""Growth: laws known in advance, slow oracles, and texts of a tiny model."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import exemplars as ex
from builds import SETTINGS, documents
from conftest import make_tokenizer
from exemplars import building
from exemplars.analyses import growth as module
from exemplars.analyses.domains import read_domain, share, singletons
from exemplars.analyses.growth import (
    GrowthFit,
    backtest,
    binned,
    by_source_of,
    curve_of,
    curve_of_unfinished,
    curves_in,
    growth,
    incomparable,
    plain_heaps,
    quiet_batch,
    source_of,
)
from exemplars.errors import FormatError, MismatchError, SourceError
from exemplars.report.growth import growth_figure, growth_text, watch_line
from tiny_models import tiny_module

SITE = "resid_post.1"


def curve(rows, founded, singles=None, **fields):
    """A curve of documents with so many rows that founded so many regions."""
    rows, founded = np.asarray(rows), np.asarray(founded)
    values = {
        "name": "a", "document": np.arange(len(rows)), "rows": np.cumsum(rows),
        "regions": np.cumsum(founded),
        "singletons": np.zeros(len(rows), np.int64) if singles is None else np.asarray(singles),
        "threshold": 0.3, "percentile": 2.0, "frame": {"site": SITE, "θ": "0.3"},
        "ending": "all documents were read", "shuffled": True,
    }  # fmt: skip
    return module.Curve(**{**values, **fields})


def law(rows, amplitude, exponent, offset):
    return amplitude * ((rows + offset) ** exponent - offset**exponent) / exponent


def drawn(seed, exponent=0.5, offset=2_000.0, amplitude=30.0, n=400, mean=150, spread=0.5):
    """Documents whose new regions are counts about a law, more variable than Poisson."""
    random = np.random.default_rng(seed)
    rows = 1 + random.poisson(mean * random.gamma(2, 0.5, n))
    expected = np.diff(law(np.cumsum(rows).astype(float), amplitude, exponent, offset), prepend=0)
    return curve(rows, random.poisson(expected * random.gamma(1 / spread, spread, n)))


def test_the_interval_holds_the_chance_and_the_regions_to_come():
    held = told = 0
    widths = []
    for seed in range(40):
        made = drawn(seed)
        n, found = int(made.rows[-1]), growth(made, more_rows=[200_000])
        truth = 30.0 * (n + 2_000.0) ** -0.5
        held += found.chance.low <= truth <= found.chance.high
        widths.append((found.chance.high - found.chance.low) / truth)
        more = law(np.array([n, n + 200_000.0]), 30.0, 0.5, 2_000.0)
        regions = found.forecasts[0].regions
        told += regions.low <= more[1] - more[0] <= regions.high
    assert held >= 36
    assert told >= 36
    assert np.median(widths) < 0.5


def test_heaps_law_is_found_where_it_holds():
    made = drawn(3, offset=1e-6, exponent=0.6, amplitude=20.0, n=3000, spread=0.05)
    found = growth(made)
    assert found.exponent.low <= 0.6 <= found.exponent.high
    heaps = plain_heaps(made)
    n = float(made.rows[-1])
    assert heaps(n) == pytest.approx(made.regions[-1])
    assert heaps(4 * n) == pytest.approx(made.regions[-1] * 4**0.6, rel=0.05)


def test_steady_growth_never_comes_to_the_target():
    made = curve(np.full(300, 50), np.full(300, 5))
    found = growth(made, more_rows=[15_000])
    assert found.verdict == "not covered"
    assert found.chance.estimate == pytest.approx(0.1, rel=0.1)
    assert found.rows_to_target.high == np.inf
    assert found.forecasts[0].as_now == pytest.approx(1500, rel=0.1)
    assert found.forecasts[0].regions.estimate == pytest.approx(1500, rel=0.1)
    assert found.quiet is None
    assert "never" in growth_text([found])


def test_growth_that_ends_is_covered_and_says_with_what_confidence():
    founded = np.concatenate([np.full(20, 5), np.zeros(480, int)])
    found = growth(curve(np.full(500, 50), founded), target=0.01)
    assert found.verdict == "covered"
    assert 0 < found.chance.high < 0.01
    assert found.rows_to_target.estimate == 25_000
    text = growth_text([found])
    assert text.startswith("a: covered: with 97.5 % confidence fewer than ")
    assert found.quiet.regions == 100
    assert found.quiet.later_regions == 0


def test_a_chance_about_the_target_is_undecided():
    made = drawn(1, n=40)
    chance = growth(made).chance
    found = growth(made, target=chance.estimate)
    assert found.verdict == "undecided"
    assert "not yet decided" in growth_text([found])


def test_one_region_in_all():
    found = growth(curve(np.full(200, 30), np.eye(1, 200, dtype=int)[0]))
    assert found.verdict == "covered"
    assert 0 <= found.chance.low <= found.chance.estimate < 0.001


@pytest.mark.parametrize("n", [1, 2, module.FEWEST_DOCUMENTS - 1])
def test_few_documents_tell_nothing(n):
    found = growth(curve(np.full(n, 1000), np.full(n, 10)))
    assert (found.chance, found.forecasts, found.backtest) == (None, (), None)
    assert found.verdict == "undecided"
    assert "cannot be told" in growth_text([found])
    assert "too few" in watch_line(found)
    growth_figure([found])


def test_the_answer_is_of_the_counts_alone():
    made = drawn(5)
    again = replace(made, document=made.document[::-1], name="b", percentile=7.0)
    one, two = growth(made), growth(again)
    assert one.chance == two.chance
    assert one.forecasts == two.forecasts
    fit = GrowthFit(made)
    assert fit.added(1000) == fit.added(1000)  # not of what was asked before
    assert fit.chance() == GrowthFit(made).chance()


def test_an_interval_among_few_rows_is_wider_and_among_many_the_same():
    fit = GrowthFit(drawn(2))
    few, many, expected = fit.chance(rows=200), fit.chance(rows=10**8), fit.chance()
    assert few.low <= many.low <= many.high <= few.high
    assert many.low == pytest.approx(expected.low, rel=0.01)
    assert many.high == pytest.approx(expected.high, rel=0.01)


def test_more_rows_add_more_regions_and_never_more_than_rows():
    fit = GrowthFit(curve(np.full(100, 2), np.full(100, 2)))
    added = [fit.added(rows) for rows in (1, 10, 1000)]
    assert all(a.estimate <= b.estimate for a, b in zip(added, added[1:], strict=False))
    assert fit.chance().high <= 1
    assert added[2].estimate <= 1000


def test_dispersion_is_that_of_documents():
    calm = growth(drawn(0, spread=0.01)).dispersion
    wild = growth(drawn(0, spread=2.0)).dispersion
    assert 1 <= calm < 0.7 * wild
    wide, narrow = growth(drawn(0, spread=2.0)).chance, growth(drawn(0, spread=0.01)).chance
    assert wide.high - wide.low > narrow.high - narrow.low


def test_the_backtest_is_the_forecast_of_its_first_rows():
    made = drawn(8)
    test = backtest(made, 0.3)
    early = made.first(int((made.rows < 0.3 * made.rows[-1]).sum()))
    assert test.from_rows == early.rows[-1]
    n = int(made.rows[-1] - early.rows[-1])
    assert test.foretold.low == early.regions[-1] + GrowthFit(early).added(n).low
    assert test.found == made.regions[-1]
    assert test.error == pytest.approx(test.foretold.estimate / test.found - 1)
    assert test.held


def test_a_stream_that_changes_is_told_by_the_backtest():
    first, second = drawn(1, n=200), drawn(2, n=400)
    rows = np.concatenate([np.diff(c.rows, prepend=0) for c in (first, second)])
    founded = np.concatenate([np.diff(c.regions, prepend=0) for c in (first, second)])
    late = np.concatenate([founded[:200], founded[200:] * 4])
    found = growth(curve(rows, late, shuffled=False))
    assert not found.backtest.held
    text = growth_text([found])
    assert "missed what came" in text
    assert "--seed" in text


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 9), st.integers(0, 3)), min_size=1, max_size=60),
    st.integers(1, 7),
)
def test_bins_and_quiet_batches_are_those_of_a_loop(pairs, size):
    made = curve([r for r, _ in pairs], [f for _, f in pairs])
    ends, found = binned(made, bins=size)
    assert found.sum() == made.regions[-1]
    assert ends[-1] == made.rows[-1]
    assert set(ends) <= set(made.rows.tolist())
    assert len(ends) <= size
    quiet = quiet_batch(made, size)
    for start in range(0, len(pairs) - size + 1, size):
        if sum(f for _, f in pairs[start : start + size]) == 0:
            assert quiet.rows == sum(r for r, _ in pairs[: start + size])
            assert quiet.regions + quiet.later_regions == made.regions[-1]
            assert quiet.rows + quiet.later_rows == made.rows[-1]
            break
    else:
        assert quiet is None


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=40), st.integers(0, 3))
def test_singletons_are_those_of_a_loop(regions, gap):
    rows = np.arange(len(regions)) * (gap + 1) + gap  # some rows were dropped
    ends = np.arange(0, rows[-1] + 2)
    counted = singletons(np.array(regions), rows, ends)
    for end, found in zip(ends, counted, strict=True):
        seen = [region for region, row in zip(regions, rows, strict=True) if row < end]
        assert found == sum(seen.count(region) == 1 for region in set(seen))


def test_a_share_has_the_interval_of_its_documents():
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        rows = random.integers(1, 60, 80)
        hits = random.binomial(rows, random.beta(6, 2, 80))
        found = share(hits, rows)
        covered += found.low <= 0.75 <= found.high
    assert covered >= 180
    assert share(np.array([3]), np.array([4])).estimate == 0.75
    assert np.isnan(share(np.array([3]), np.array([4])).low)
    assert share(np.array([4, 4]), np.array([4, 4])).high == 1


def test_sources_share_the_regions_of_one_curve():
    made = drawn(4, n=90)
    sources = [("code", "prose", "code")[k % 3] for k in range(90)]
    parts = by_source_of(made, sources)
    assert list(parts) == ["code", "prose"]
    assert sum(part.regions[-1] for part in parts.values()) == made.regions[-1]
    assert sum(part.rows[-1] for part in parts.values()) == made.rows[-1]
    assert parts["prose"].document.tolist() == list(range(1, 90, 3))
    assert np.isnan(growth(parts["code"]).singleton_share)
    with pytest.raises(ValueError, match="2 sources were given for 90 documents"):
        by_source_of(made, ["a", "b"])


def test_a_source_is_the_first_folder_or_the_file():
    assert source_of("code/a/b.txt") == "code"
    assert source_of("code/lines.jsonl:12") == "code"
    assert source_of("lines.jsonl:12") == "lines.jsonl"
    assert source_of("a.txt") == "a.txt"


def test_curves_of_other_frames_are_told():
    one = curve([10] * 20, [1] * 20)
    two = replace(one, name="b", frame={**one.frame, "θ": "0.2"})
    assert incomparable([one, one]) == ()
    assert incomparable([one, two]) == ("θ",)
    assert incomparable([]) == ()
    text = growth_text([growth(one), growth(two)], incomparable([one, two]))
    assert "Warning: the curves differ in θ" in text


def test_bad_arguments_are_told():
    made = drawn(0)
    with pytest.raises(ValueError, match="the target is 1, expected a chance between 0 and 1"):
        growth(made, target=1)
    with pytest.raises(ValueError, match="a forecast was asked for 0 rows"):
        growth(made, more_rows=[0])


def test_names_of_curves_cannot_write_to_the_terminal():
    found = growth(curve([10] * 20, [1] * 20, name="a\x1b[2J\u202e"))
    assert "\x1b" not in growth_text([found]) + watch_line(found)


def test_a_patient_build_is_told_to_look_quiet():
    found = growth(curve([10] * 50, [1] * 50, ending="500 rows without a region, or no more"))
    assert "its end looks quieter" in growth_text([found])


@pytest.fixture(scope="module")
def model():
    return ex.load_model(tiny_module(), make_tokenizer("bos"))


@pytest.fixture(scope="module")
def dictionary(model):
    return ex.build(model, SITE, ex.texts(documents(80)), 20, rows=None, seed=3, **SETTINGS)


def test_a_domain_grows_as_a_build_with_the_same_calibration(model, dictionary):
    texts = ex.texts(documents(70, seed=9))
    built = ex.build(
        model, SITE, texts, 20, rows=None, seed=5, calibration=dictionary.calibration, **SETTINGS
    )
    domain = read_domain(dictionary, model, texts, "new", seed=5)
    expected = curve_of(built)
    for name in ("document", "rows", "regions", "singletons"):
        assert getattr(domain.curve, name).tolist() == getattr(expected, name).tolist()
    assert incomparable([domain.curve, curve_of(dictionary)]) == ()
    assert domain.curve.ending == "all documents were read"
    short = read_domain(dictionary, model, texts, rows=101, seed=5).curve
    assert short.rows[-1] == 101
    assert short.ending == "the rows asked for were read"
    assert short.regions[:-1].tolist() == domain.curve.regions[: short.documents - 1].tolist()


def test_the_share_inside_is_that_of_assign(model, dictionary):
    texts = ex.texts(documents(30, seed=4))
    domain = read_domain(dictionary, model, texts)
    traces = ex.trace(dictionary, model, texts)
    kept = np.concatenate([t.distance[~t.norm_outlier & (t.region >= 0)] for t in traces])
    assert domain.inside.estimate == pytest.approx((kept <= dictionary.threshold).mean())
    own = read_domain(dictionary, model, ex.texts(documents(80)))
    assert own.inside.estimate == 1


def test_a_domain_without_rows_or_of_another_model_is_refused(model, dictionary):
    with pytest.raises(SourceError, match="empty gave no rows"):
        read_domain(dictionary, model, ex.texts([""]), "empty")
    other = ex.load_model(tiny_module("llama", seed=9), make_tokenizer("bos"))
    with pytest.raises(MismatchError):
        read_domain(dictionary, other, ex.texts(documents(3)))
    nameless = replace(dictionary, provenance={})
    with pytest.raises(ValueError, match="does not say which site"):
        read_domain(nameless, model, ex.texts(documents(3)))
    with pytest.raises(ValueError, match="no growth table"):
        curve_of(replace(dictionary, growth=None))


def test_an_unfinished_build_is_read_while_it_runs(model, tmp_path):
    out, seen, halfway = tmp_path / "d", [], []

    def look(progress):
        if progress.stage == "build":
            assert building.is_unfinished(out)
            seen.append([curve.rows[-1] for curve in curves_in(out)])
            halfway[:] = curves_in(tmp_path / "d.partial")
            if len(seen) == 3:
                raise KeyboardInterrupt

    texts = ex.texts(documents(80))
    asked = {"rows": None, "out": out, "checkpoint_s": 0.0, **SETTINGS}
    with pytest.raises(KeyboardInterrupt):
        ex.build(model, SITE, texts, [20, 40], on_progress=look, **asked)
    assert seen[0] == []  # no document has ended at the first checkpoint
    assert seen[2] > seen[1]
    assert [c.name for c in halfway] == [f"{SITE} p20", f"{SITE} p40"]
    ex.build(model, SITE, texts, [20, 40], resume=True, **asked)
    assert not building.is_unfinished(out)
    whole = curves_in(out)
    assert [c.name for c in whole] == [f"{SITE}-p20", f"{SITE}-p40"]
    for part, full in zip(halfway, whole, strict=True):
        n = part.documents - 1  # the last may go on
        assert n > 3
        assert part.regions[:n].tolist() == full.regions[:n].tolist()
        assert part.singletons[:n].tolist() == full.singletons[:n].tolist()
        assert incomparable([part, full]) == ()
    assert not whole[0].shuffled


def test_a_build_that_calibrates_has_no_curve_yet(tmp_path):
    folder = tmp_path / "d.partial"
    folder.mkdir()
    with pytest.raises(FormatError, match="holds no unfinished build"):
        building.unfinished(tmp_path / "d")
    (folder / "build.json").write_text('{"asked": ["resid_post.1"], "percentiles": [20]}')
    assert building.unfinished(tmp_path / "d") == []
    assert curves_in(tmp_path / "d") == []
    (folder / "build.json").write_text("{}")
    with pytest.raises(FormatError, match="is not the settings of a build"):
        building.unfinished(folder)


def test_curves_by_source_need_the_texts(model, tmp_path, monkeypatch):
    for source, seed in (("code", 1), ("prose", 2)):
        (tmp_path / "texts" / source).mkdir(parents=True)
        for k, text in enumerate(documents(30, seed=seed)):
            (tmp_path / "texts" / source / f"{k}.txt").write_text(text)
    texts = ex.texts(tmp_path / "texts")
    ex.build(model, SITE, texts, 20, rows=None, out=tmp_path / "d", seed=1, **SETTINGS)
    with pytest.raises(SourceError, match="the texts texts are not here"):
        curves_in(tmp_path / "d", by_source=True)
    with pytest.raises(SourceError, match="are not those that d was built from"):
        curves_in(tmp_path / "d", by_source=True, texts=ex.texts(["other"]))
    given = curves_in(tmp_path / "d", by_source=True, texts=texts)
    monkeypatch.chdir(tmp_path)
    whole, parts = curves_in(tmp_path / "d")[0], curves_in(tmp_path / "d", by_source=True)
    assert [g.regions.tolist() for g in given] == [p.regions.tolist() for p in parts]
    assert {part.name for part in parts} == {"d code", "d prose"}
    assert sum(part.regions[-1] for part in parts) == whole.regions[-1]
    (tmp_path / "texts" / "code" / "0.txt").write_text("changed")
    with pytest.raises(SourceError, match="have changed"):
        curves_in(tmp_path / "d", by_source=True)
    alone = ex.texts(flat(tmp_path))
    with pytest.raises(ValueError, match="each of the 60 documents is a file of its own"):
        module.sources_of(curve([3] * 60, [1] * 60), alone.describe(), alone)
    with pytest.raises(SourceError, match="does not say what texts"):
        module.sources_of(whole, None)


def flat(folder):
    (folder / "flat").mkdir()
    for k in range(60):
        (folder / "flat" / f"{k}.txt").write_text("the")
    return folder / "flat"


def test_the_curve_of_an_unfinished_run_says_where_it_is_from():
    calibration = ex.calibrate(np.random.default_rng(0).normal(size=(500, 8)), [20])
    columns = {k: np.arange(1, 4) for k in ("document", "rows", "regions", "singletons")}
    about = {"seed": 3, "sites": [{"name": SITE, "spellings": {}}], "model": {"name": "m"}}
    run = building.UnfinishedRun(SITE, 20.0, calibration, columns, 3, False, about)
    made = curve_of_unfinished(run, "x")
    assert made.shuffled
    assert made.frame["site"] == SITE
    assert made.threshold == calibration.threshold(20.0)
