"""Eight clients read a dictionary through the explorer: explorer_load.py FOLDER [READS].

Reads as a page makes them, over loopback: lists, facets, search, regions, pictures. Beside the
latencies: a reference workload, timed in the same run, and the machine's load.
"""

from __future__ import annotations

import http.client
import json
import os
import sys
import threading
import time
from pathlib import Path

import numpy as np

import rows as results

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from explorer_server import TOKEN, Served

CLIENTS = 8
READS = int(sys.argv[2]) if len(sys.argv) > 2 else 200
SEED = 0


def reference_s() -> float:
    """A matrix product that takes about 0.1 s on one idle core."""
    a = np.random.default_rng(0).standard_normal((1200, 1200)).astype(np.float32)
    begun = time.perf_counter()
    for _ in range(3):
        a @ a
    return time.perf_counter() - begun


def questions(about: dict, rng: np.random.Generator):
    """Endless reads: (kind, path)."""
    slug, fingerprint, k = about["slug"], about["fingerprint"], about["k"]
    base = f"/api/v1/d/{slug}"
    words = ("ba", "nislemgor", "kalemka", "tovpu", "denra", "sil")
    while True:
        kind = rng.choice(
            [
                "list",
                "filter",
                "facets",
                "ids",
                "search",
                "region",
                "sections",
                "columns",
                "sphere",
            ],
            p=[0.2, 0.15, 0.08, 0.05, 0.12, 0.2, 0.1, 0.05, 0.05],
        )
        region = int(rng.integers(k))
        yield (
            kind,
            {
                "list": f"{base}/regions?_sort_desc=member_count&_next=r{int(rng.integers(900))}",
                "filter": f"{base}/regions?coherence__gte={rng.random():.3f}&_sort_desc=first_seen",
                "facets": f"{base}/regions?_size=1&_facet=member_count&_facet=coherence",
                "ids": f"{base}/regions?view=ids&member_count__gte={int(rng.integers(1, 50))}",
                "search": f"{base}/search?q={rng.choice(words)}",
                "region": f"{base}/regions/{region}",
                "sections": f"{base}/regions/{region}?_extra=members,neighbours,tokens,histogram",
                "columns": f"{base}/columns/{fingerprint}?names=coherence",
                "sphere": f"{base}/sphere/{fingerprint}",
            }[str(kind)],
        )


def ask(connection, path: str) -> tuple[int, int]:
    connection.request("GET", path, headers={"Authorization": f"Bearer {TOKEN}"})
    answer = connection.getresponse()
    return answer.status, len(answer.read())


def memory_mb() -> float:
    """Resident memory that is the process's own: maps of files are not."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


def read_all(served, about: dict) -> tuple[dict[str, list[float]], int, list[float]]:
    times: dict[str, list[float]] = {}
    memory: list[float] = []
    errors = 0
    lock = threading.Lock()

    def client(number: int) -> None:
        nonlocal errors
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=300)
        asked = questions(about, np.random.default_rng([SEED, number]))
        for _ in range(READS):
            kind, path = next(asked)
            begun = time.perf_counter()
            status, _ = ask(connection, path)
            took = time.perf_counter() - begun
            with lock:
                times.setdefault(str(kind), []).append(took)
                errors += status != 200
                memory.append(memory_mb())
        connection.close()

    threads = [threading.Thread(target=client, args=(n,)) for n in range(CLIENTS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return times, errors, memory


def main() -> None:
    from exemplars.explorer import serving

    folder = Path(sys.argv[1])
    views = serving.open_views([folder])
    with Served(views) as served:
        served.prepared()
        connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=300)
        (slug,) = views
        connection.request("GET", f"/api/v1/d/{slug}", headers={"Authorization": f"Bearer {TOKEN}"})
        about = json.loads(connection.getresponse().read())
        reference = reference_s()
        cpu, begun = time.process_time(), time.perf_counter()
        times, errors, memory = read_all(served, about)
        wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    quarter = len(memory) // 4
    results.write(
        "explorer",
        what="load: clients that read a dictionary at once",
        regions=about["k"],
        width=about["dim"],
        clients=CLIENTS,
        reads=READS,
        errors=errors,
        wall_s=wall,
        cpu_s=cpu,
        load=os.getloadavg(),
        reference_s=reference,
        p50_ms={k: 1e3 * float(np.quantile(v, 0.5)) for k, v in sorted(times.items())},
        p95_ms={k: 1e3 * float(np.quantile(v, 0.95)) for k, v in sorted(times.items())},
        own_memory_mb=[
            float(np.median(memory[quarter : 2 * quarter])),
            float(np.median(memory[-quarter:])),
        ],
    )


if __name__ == "__main__":
    main()
