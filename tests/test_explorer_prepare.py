"""What the explorer needs, prepared ahead: whole files alone, and none that is trusted unseen."""

import json
from pathlib import Path

import pytest

import exemplars as ex
from exemplars.explorer import sphere, views
from exemplars.explorer.preparing import prepare_view
from exemplars.explorer.views import View, place_of
from synthetic import synthetic

FILES = (
    "cards.sqlite",
    "cells-unrolled.safetensors",
    "neighbours.safetensors",
    "sphere.safetensors",
)


@pytest.fixture
def folder(tmp_path):
    return ex.save(synthetic(60, 8), tmp_path / "made")


def explored(folder, cache=None):
    """What an explorer that opens the dictionary has to make."""
    view = View(folder, "made", place_of(folder, cache, False))
    view.prepare()
    view.close()
    return view.made


def test_what_was_prepared_is_not_made_again(folder):
    first = prepare_view(folder)
    assert (first.made, first.kept) == (FILES, ())
    assert first.place.parent == views.view_of(folder)
    assert first.bytes == sum(p.stat().st_size for p in first.place.iterdir())
    times = {name: (first.place / name).stat().st_mtime_ns for name in FILES}
    again = prepare_view(folder)
    assert (again.made, tuple(sorted(again.kept))) == ((), FILES)
    assert {name: (first.place / name).stat().st_mtime_ns for name in FILES} == times
    assert explored(folder) == ()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("damage", ["cut", "altered", "gone", "unlisted"])
def test_a_damaged_file_is_made_again_and_no_other(folder, name, damage):
    place = prepare_view(folder).place
    whole = (place / name).read_bytes()
    if damage == "cut":
        (place / name).write_bytes(whole[:-1])
    elif damage == "altered":
        (place / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    elif damage == "gone":
        (place / name).unlink()
    else:
        index = json.loads((place / "view.json").read_text())
        del index["files"][name]
        (place / "view.json").write_text(json.dumps(index))
    done = prepare_view(folder)
    assert done.made == (name,)
    assert (place / name).stat().st_size == len(whole)
    assert explored(folder) == ()


def test_files_of_another_dictionary_are_never_taken(folder, tmp_path):
    place = prepare_view(folder).place
    other = ex.save(synthetic(60, 8, seed=5), tmp_path / "other")
    theirs = prepare_view(other).place
    assert theirs.name != place.name
    for file in place.iterdir():  # as after copying a cache to where it does not belong
        (theirs / file.name).write_bytes(file.read_bytes())
    assert prepare_view(other).made == FILES
    (place / "view.json").write_text("[]")
    assert prepare_view(folder).made == FILES


def test_an_interruption_leaves_whole_files_and_the_next_call_makes_the_rest(
    folder, monkeypatch, run
):
    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sphere, "make_sphere", interrupted)
        status, text, err = run("prepare", folder)
    assert (status, text) == (130, "")
    assert "0 of 1 dictionaries are prepared: run it again" in err
    (place,) = (p for p in views.view_of(folder).iterdir() if p.is_dir())
    assert sorted(p.name for p in place.iterdir()) == ["cards.sqlite", "view.json"]
    done = prepare_view(folder)
    assert done.kept == ("cards.sqlite",)
    assert done.made == FILES[1:]


def test_the_command_prepares_several_and_says_what_it_did(run, folder, tmp_path):
    three = ex.save(synthetic(3, 6), tmp_path / "three")
    cache = tmp_path / "cache"
    status, text, err = run("prepare", tmp_path, "--cache-dir", cache, "--json")
    assert status == 0, err
    found = {Path(one["dictionary"]).name: one for one in json.loads(text)}
    assert sorted(found) == ["made", "three"]
    assert found["made"]["made"] == list(FILES)
    assert "needs 4 regions" in found["three"]["left_out"]["sphere"]
    assert "neighbours" in err
    assert not views.view_of(folder).exists()
    assert explored(folder, cache) == ()
    status, text, _ = run("prepare", folder, three, "--cache-dir", cache)
    assert status == 0
    assert "nothing" in text
    assert "no sphere: a sphere needs 4 regions" in text


def test_where_nothing_can_be_written_it_says_so(run, folder, tmp_path):
    (tmp_path / "file").write_text("in the way")
    status, _, err = run("prepare", folder, "--cache-dir", tmp_path / "file")
    assert status == 2
    assert "--cache-dir" in err
    status, _, err = run("prepare", tmp_path / "nothing")
    assert status == 2
