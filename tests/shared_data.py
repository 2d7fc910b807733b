"""Where the shared data lies: `EXEMPLARS_SHARED`, else a folder `shared` beside the repository."""

import os
from pathlib import Path

import pytest


def shared_folder():
    """The folder, or None where there is none."""
    named = os.environ.get("EXEMPLARS_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    return folder if (folder / "data").is_dir() else None


def shared_file(*parts):
    """A file under data/; the test is skipped, saying so, where it is absent."""
    folder = shared_folder()
    if folder is None:
        pytest.skip("the shared data is absent; set EXEMPLARS_SHARED to its folder to run this")
    path = folder.joinpath("data", *parts)
    if not path.is_file():
        pytest.skip(f"the shared data has no {path.relative_to(folder)}, which this test needs")
    return path
