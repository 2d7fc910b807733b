"""How long `import exemplars` and `exemplars --help` take, as whole processes."""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from pathlib import Path

import rows as results


def main() -> None:
    commands = {
        "python -c pass": [sys.executable, "-c", "pass"],
        "import exemplars": [sys.executable, "-c", "import exemplars"],
        "exemplars --help": [str(Path(sys.executable).with_name("exemplars")), "--help"],
    }
    times: dict[str, list[float]] = {name: [] for name in commands}
    for round_ in range(16):
        for name, command in commands.items():
            started = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            if round_:
                times[name].append(time.perf_counter() - started)
    medians = {name: statistics.median(values) for name, values in times.items()}
    results.write("startup", what="whole processes", runs=15, median_s=medians)


if __name__ == "__main__":
    main()
