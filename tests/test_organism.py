"""The prompts of the model organism: what trains, what chooses, and what judges are apart."""

import importlib.util
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[1] / "bench"


@pytest.fixture(scope="module")
def organism():
    sys.path.insert(0, str(BENCH))
    try:
        spec = importlib.util.spec_from_file_location("organism", BENCH / "organism.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules["organism"] = module
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(BENCH))
    return module


def test_no_prompt_is_in_two_splits(organism):
    splits = organism.splits()
    prompts = [p for part in splits.values() for kind in part.values() for p in kind]
    assert len(set(prompts)) == len(prompts)
    sizes = {name: [len(p) for p in part.values()] for name, part in splits.items()}
    assert sizes == {name: [a, b + c] for name, (a, b, c) in organism.SIZES.items()}


def test_only_triggers_are_about_bicycles(organism):
    for part in organism.splits().values():
        assert all("bike" in p or "bicycle" in p for p in part["trigger"])
        assert not any("bike" in p or "bicycle" in p for p in part["other"])


def test_splits_repeat(organism):
    assert organism.splits() == organism.splits()
