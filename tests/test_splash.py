"""The figure of a dictionary: what it shows is there, and any text is only text."""

import numpy as np
import pytest

import exemplars as ex
from exemplars import figures
from exemplars.explorer.sphere import NotDrawableError, make_sphere
from exemplars.explorer.splash import CARDS, in_front, splash_figure
from synthetic import dictionary_of, exemplars, synthetic

pytest.importorskip("matplotlib", reason="figures need matplotlib: pip install 'exemplars[plots]'")


def texts_of(figure):
    from matplotlib.text import Text

    return [found.get_text() for found in figure.findobj(Text)]


def test_eight_regions_are_chosen_that_one_side_shows():
    made = synthetic(600, 12)
    points = make_sphere(made.exemplars, made.counts).points
    chosen, sight = in_front(made, points)
    assert len(chosen) == len(set(chosen)) == CARDS
    assert (points[chosen] @ sight > 0).all()
    assert (made.counts[chosen] >= min(20, np.quantile(made.counts, 0.75) - 1)).all()


def test_the_figure_tells_of_them_in_words():
    made = synthetic(300, 12)
    chosen, _ = in_front(made, make_sphere(made.exemplars, made.counts).points)
    shown = texts_of(splash_figure(made))
    for letter, k in zip("ABCDEFGH", chosen, strict=False):
        assert shown.count(letter) == 2  # beside the words, and on the sphere
        assert any(text.startswith(f"region {k} ") for text in shown)
    assert any("of the variance" in text for text in shown)


def test_hostile_and_rare_characters_are_drawn_as_text(tmp_path):
    made = synthetic(60, 8, hostile=True)
    svg, png = figures.save_figure(splash_figure(made), tmp_path / "x")
    assert png.read_bytes()[:4] == b"\x89PNG"
    text = svg.read_text(encoding="utf-8")
    assert "<script" not in text
    assert "onerror=window" not in text or "&lt;img" in text


def test_the_command_writes_both_and_says_so(run, tmp_path):
    folder = ex.save(synthetic(40, 8), tmp_path / "made")
    status, _, err = run("show", folder, "--figure", tmp_path / "drawn.svg")
    assert status == 0
    assert (tmp_path / "drawn.svg").exists()
    assert (tmp_path / "drawn.png").exists()
    assert "drawn:" in err


def test_few_regions_have_no_figure_and_a_sentence():
    with pytest.raises(NotDrawableError, match="see the list"):
        splash_figure(dictionary_of(exemplars(3, 6)))


def test_fewer_regions_than_cards_are_all_shown():
    shown = texts_of(splash_figure(dictionary_of(exemplars(5, 6), contexts=0)))
    assert "A" in shown
