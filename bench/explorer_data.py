"""Write a synthetic dictionary for the explorer: python bench/explorer_data.py K WIDTH FOLDER."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import exemplars as ex
from synthetic import synthetic


def main() -> None:
    regions, width, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    made = synthetic(regions, width, contexts=2)
    print(ex.save(made, folder, overwrite=True))


if __name__ == "__main__":
    main()
