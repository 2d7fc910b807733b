"""The finished partition: what it holds, and what one asks of it.

A `Dictionary` is frozen. It has the exemplars (which *are* the partition), the statistics of the
members as they joined while streaming, optionally a census of the finished regions, and the
contexts that members were seen in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np

from exemplars import readout as _readout
from exemplars.calibration import Calibration, as_vectors
from exemplars.clustering import LeaderClustering
from exemplars.contexts import Context, Contexts, TableContexts, contexts_table
from exemplars.geometry import (
    Float32,
    Float64,
    Int64,
    check_finite,
    cosine_distance,
    has_direction,
    to_directions,
    vector_norms,
)
from exemplars.members import Members, MemberStatistics, fixed_point
from exemplars.nearest import Audit, ExemplarIndex
from exemplars.notebook import region_card

_ROWS = 2048


@dataclass(frozen=True)
class Region:
    """One cell of the partition, by itself."""

    index: int
    exemplar: Float32
    """(D,) the direction that founded it."""
    mean: Float32
    """(D,) direction of the sum of its members; NaN where it has none."""
    count: int
    coherence: float
    exemplar_row: int
    mean_distance: float
    """Mean cosine distance of the members to the exemplar."""
    center: Float32
    """(D,) the dictionary's center."""
    threshold: float
    site: str | None
    """Where in the model; None for a dictionary that does not say."""
    median_norm: float
    """Of the site's activations, raw: the unit of steering strengths."""
    median_centered_norm: float
    """Of their distances from the center."""
    contexts: tuple[Context, ...]

    def _repr_html_(self) -> str:
        """The region as a notebook shows it."""
        facts = [
            ("members", f"{self.count:,}"),
            ("coherence", f"{self.coherence:.3f}"),
            ("mean distance", f"{self.mean_distance / self.threshold:.2f} θ"),
            ("θ", f"{self.threshold:.4f}"),
        ]
        title = f"region {self.index}" + (f" of {self.site}" if self.site else "")
        return region_card(title, facts, self.contexts, self.threshold)

    def direction(self, basis: str = "exemplar") -> Float32:
        """(D,) unit direction: the exemplar (what one injects) or the mean (to read with)."""
        return self.exemplar if _basis(basis) == "exemplar" else self.mean


@dataclass(frozen=True)
class Dictionary:
    """A saved partition of one site's activations. Arrays are row-aligned; row k is region k."""

    exemplars: Float32
    """(K, D) unit directions, each one observed activation, in the order they were founded."""
    exemplar_rows: Int64
    """(K,) the stream row that each is."""
    members: MemberStatistics
    """Of the rows as they joined (see `membership`)."""
    calibration: Calibration
    percentile: float
    membership: str
    """"online", "batch:B", or "census": what `members` describes."""
    rows: int
    """Rows of the stream this was built from, dropped ones included."""
    dropped: Mapping[str, int] = field(default_factory=dict)
    """Rows left out: "norm outlier", "no direction"."""
    census: MemberStatistics | None = None
    """Members when every row goes to the nearest exemplar of the finished dictionary."""
    census_contexts: Contexts | None = None
    """Contexts of the census's members; `contexts` are those of the members as they joined."""
    contexts: Contexts | None = None
    growth: Any = None
    """pyarrow table: document, rows, regions, singletons; one line where a document ends."""
    provenance: Mapping[str, Any] = field(default_factory=dict)
    """Model, site, text, masks, seed: what the manifest says."""

    @property
    def center(self) -> Float32:
        """(D,) float32, a point in raw activation space."""
        return self.calibration.center

    @property
    def threshold(self) -> float:
        """θ: the cosine distance up to which a row joined a region."""
        return self.calibration.threshold(self.percentile)

    @property
    def site(self) -> str | None:
        """The site's name; None where the provenance does not say."""
        about = self.provenance.get("site")
        name = about.get("name") if isinstance(about, Mapping) else None
        return None if name is None else str(name)

    @property
    def n_regions(self) -> int:
        """K."""
        return len(self.exemplars)

    @property
    def width(self) -> int:
        """D."""
        return int(self.exemplars.shape[1])

    @property
    def means(self) -> Float32:
        """(K, D) mean directions of the members; NaN where a region has none."""
        return self.members.means

    @property
    def counts(self) -> Int64:
        """(K,) members."""
        return self.members.counts

    @property
    def coherence(self) -> Float32:
        """(K,) length of the mean of member directions, in [0, 1]."""
        return self.members.coherence

    def __len__(self) -> int:
        return self.n_regions

    def __repr__(self) -> str:
        site = self.provenance.get("site", {})
        where = f"{site.get('name', site)}, " if site else ""
        return (
            f"Dictionary({where}{self.n_regions:,} regions from {self.rows:,} rows, "
            f"width {self.width}, p = {self.percentile:g}, θ = {self.threshold:.4f})"
        )

    def basis(self, basis: str = "exemplar") -> Float32:
        """(K, D) the exemplars or the mean directions."""
        return self.exemplars if _basis(basis) == "exemplar" else self.means

    def region(self, region: int) -> Region:
        """One region with its contexts; negative numbers count from the end.

        Raises:
            ValueError: There is no such region.
        """
        k = self._index(region)
        count = int(self.counts[k])
        return Region(
            index=k,
            exemplar=np.asarray(self.exemplars[k]),
            mean=np.asarray(self.means[k]),
            count=count,
            coherence=float(self.coherence[k]),
            exemplar_row=int(self.exemplar_rows[k]),
            mean_distance=float(self.members.distance_sums[k]) / count if count else float("nan"),
            center=self.center,
            threshold=self.threshold,
            site=self.site,
            median_norm=self.calibration.vector_norms[1],
            median_centered_norm=self.calibration.centered_norms[1],
            contexts=tuple(self.contexts.region(k)) if self.contexts is not None else (),
        )

    @cached_property
    def _indexes(self) -> dict[str, ExemplarIndex]:
        return {}

    def index(self, screen: str = "auto") -> ExemplarIndex:
        """What searches among the exemplars; it learns from one search for the next.

        Args:
            screen: See `assign`.
        """
        if screen not in self._indexes:
            self._indexes[screen] = ExemplarIndex(self.width, screen)
        return self._indexes[screen]

    def assign(
        self, vectors: Any, *, screen: str = "auto", audit: Audit | None = None
    ) -> tuple[Int64, Float32]:
        """The nearest region of each raw vector.

        Args:
            vectors: (..., D) raw activations, numpy or torch; leading dimensions are flattened.
            screen: How it is searched for, never what is found: "auto", one of
                `exemplars.nearest.SCREENS`, or a torch device ("cuda", "mps").
            audit: Checks a share of the search as it goes.

        Returns:
            regions: (N,) int64, of the largest canonical similarity, ties to the lower index;
                -1 for a row without a direction (equal to the center).
            distances: (N,) float32 cosine distance to its exemplar, in [0, 2]; NaN where the
                region is -1. Compare with `threshold` to tell what lies outside all regions.

        Raises:
            ValueError: Another width, or a screen that is not there.
            ActivationError: A NaN or infinite component.
            AuditError: A search answered wrongly.
        """
        x = self._vectors(vectors)
        regions = np.full(len(x), -1, np.int64)
        distances = np.full(len(x), np.nan, np.float32)
        index = self.index(screen)
        for start in range(0, len(x), _ROWS):
            directions, norms = to_directions(x[start : start + _ROWS], self.center)
            check_finite(norms, first_row=start)
            keep = np.flatnonzero(has_direction(norms, self.center))
            if len(keep) < len(directions):
                directions = directions[keep]
            to_come = len(x) - start - len(norms)
            region, similarity = index.nearest(directions, self.exemplars, to_come, audit)
            regions[start + keep] = region
            distances[start + keep] = np.where(region < 0, np.nan, cosine_distance(similarity))
        return regions, distances

    def distances(self, vectors: Any) -> Float32:
        """(N, K) float32 cosine distances of raw vectors to every exemplar, to float32 rounding."""
        directions, norms = to_directions(self._vectors(vectors), self.center)
        check_finite(norms)
        distances = np.clip(np.float32(1) - directions @ self.exemplars.T, 0, 2)
        distances[~has_direction(norms, self.center)] = np.nan
        return distances

    def encode(
        self, vectors: Any, readout: str = "topk", basis: str = "exemplar", k: int = 1
    ) -> Any:
        """Codes of raw vectors over regions; see `exemplars.readout.encode`."""
        return _readout.encode(self._vectors(vectors), self.center, self.basis(basis), readout, k)

    def decode(self, codes: Any, basis: str = "exemplar") -> Float32:
        """(N, K) codes -> (N, D) raw vectors: codes · basis + center."""
        if codes.shape[-1] != self.n_regions:
            raise ValueError(
                f"codes have {codes.shape[-1]} columns, expected {self.n_regions}, one a region"
            )
        return _readout.decode(codes, self.center, self.basis(basis))

    def neighbours(self, region: int, k: int = 5, basis: str = "exemplar") -> tuple[Int64, Float32]:
        """The k regions nearest to one: their indices and cosine distances, nearest first.

        A region without members has no mean, so by "mean" it neighbours none.
        """
        if k < 1:
            raise ValueError(f"k is {k}, expected a positive number of neighbours")
        distance = self.distance_matrix([region], basis=basis)[0]
        distance[region] = np.inf
        order = np.argsort(distance, kind="stable")
        order = order[np.isfinite(distance[order])][:k]
        return order.astype(np.int64), distance[order]

    def distance_matrix(
        self, regions: Iterable[int] | None = None, basis: str = "exemplar"
    ) -> Float32:
        """Cosine distances between regions, (len(regions) or K, K) float32, in [0, 2]."""
        rows = self.basis(basis)
        chosen = rows if regions is None else rows[[self._index(region) for region in regions]]
        return np.clip(np.float32(1) - chosen @ rows.T, 0, 2)

    def shared_neighbours(self, a: int, b: int, basis: str = "exemplar") -> tuple[Int64, Float32]:
        """Regions nearer to both a and b than these are to each other, by mean distance.

        Returns:
            regions: (M,) int64.
            distances: (M,) float32, the mean of the two distances.
        """
        i, j = self._index(a), self._index(b)
        to_a, to_b = self.distance_matrix([i, j], basis=basis)
        between = (to_a < to_a[j]) & (to_b < to_a[j])
        between[[i, j]] = False
        mean = (to_a + to_b) / 2
        found = np.flatnonzero(between)
        found = found[np.argsort(mean[found], kind="stable")]
        return found, mean[found]

    def metrics(self, members: str = "build") -> dict[str, float]:
        """Intrinsic metrics, over the regions of 2 members or more unless the name says otherwise.

        Args:
            members: "build" or "census": whose counts and distances.

        Returns:
            n_regions, singletons, empty; coverage (members in regions of >= 2, share of all);
            mean, median, max, std of their size; gini of the sizes; effective_regions =
            exp(entropy of the sizes) and utilisation (that over their number); mean and median
            distance of members to their exemplar; mean and median distance of exemplars to the
            nearest other exemplar; separation_ratio (that mean over θ); silhouette;
            max and mean similarity of exemplars.

        Source: Rumbelow 2026 (arXiv:2605.14347), intrinsic metrics.
        """
        if members not in ("build", "census"):
            raise ValueError(f'members is "{members}", expected "build" or "census"')
        statistics = self.members if members == "build" else self.census
        if statistics is None:
            raise ValueError("this dictionary has no census; run `exemplars census` first")
        return _metrics(self.exemplars, statistics, self.threshold)

    def with_census(self, census: MemberStatistics, contexts: Contexts | None = None) -> Dictionary:
        """A copy with the statistics and the contexts of a census."""
        return replace(self, census=census, census_contexts=contexts)

    def _index(self, region: int) -> int:
        """A region's number; negative ones count from the end."""
        n = self.n_regions
        if not -n <= region < n:
            there_are = f"this dictionary has 0 to {n - 1}" if n else "this dictionary has none"
            raise ValueError(f"region {region} does not exist; {there_are}")
        return int(region) % n

    def _vectors(self, vectors: Any) -> Float32:
        x = as_vectors(vectors)
        if x.shape[1] != self.width:
            raise ValueError(
                f"vectors have width {x.shape[1]}, this dictionary {self.width}; "
                "read them at the dictionary's site"
            )
        return x


def partition(
    vectors: Any,
    calibration: Calibration,
    percentile: float | None = None,
    *,
    membership: str = "online",
    seed: int = 0,
) -> Dictionary:
    """Exemplar Partitioning of arrays of any origin: the same method, no model.

    Args:
        vectors: Raw activations: (N, D) numpy or torch, or an iterable of (n, D), in stream
            order. With "census" it is read twice; an iterator is then held whole.
        calibration: From `calibrate`.
        percentile: Which of its thresholds; may be left out if it has one.
        membership: "online" (the nearest exemplar founded up to the row), "batch:B" (as the
            published implementation with batches of B rows), or "census" (a second pass over the
            finished exemplars).
        seed: Of the sample of members.

    Returns:
        A `Dictionary` without texts or provenance; its contexts name rows only.

    Raises:
        ValueError: Another width than the calibration's, or an unknown membership or percentile.
        ActivationError: A NaN or infinite component.
    """
    if percentile is None:
        if len(calibration.thresholds) != 1:
            known = ", ".join(f"{p:g}" for p in calibration.thresholds)
            raise ValueError(f"the calibration has percentiles {known}; say which")
        percentile = float(next(iter(calibration.thresholds)))
    threshold = calibration.threshold(percentile)
    twice = membership == "census"
    if twice and not hasattr(vectors, "shape") and iter(vectors) is vectors:
        vectors = list(vectors)
    width = len(calibration.center)
    clustering = LeaderClustering(width, threshold, "online" if twice else membership)
    members = Members(width, threshold, seed)
    dropped = {"norm outlier": 0, "no direction": 0}
    n_rows = 0
    for batch in _batches(vectors):
        directions, rows, lost = usable_directions(batch, n_rows, calibration)
        n_rows += len(batch)
        for reason, lost_rows in lost.items():
            dropped[reason] += len(lost_rows)
        joined = clustering.add(directions, rows)
        if not twice:
            members.add(
                fixed_point(directions), joined.region, joined.distance, rows, clustering.n_regions
            )
    dictionary = Dictionary(
        exemplars=clustering.exemplars.copy(),
        exemplar_rows=clustering.exemplar_rows.copy(),
        members=members.statistics(),
        calibration=calibration,
        percentile=float(percentile),
        membership=membership,
        rows=n_rows,
        dropped=dropped,
    )
    if twice:
        members = take_census(dictionary, _batches(vectors), seed)
        counted = members.statistics()
        dictionary = replace(dictionary, members=counted, census=counted)
    table = contexts_table(members.kept_rows(), dictionary.exemplar_rows)
    return replace(dictionary, contexts=TableContexts(table))


def take_census(dictionary: Dictionary, batches: Iterable[Any], seed: int = 0) -> Members:
    """Assign every row to the nearest exemplar of the finished dictionary.

    Args:
        dictionary: Whose exemplars.
        batches: (n, D) raw activations, in stream order.
        seed: Of the sample of members.

    Returns:
        The members of the Voronoi regions; one that nothing falls in has count 0 and a mean of
        NaN. Rows the build would drop are dropped here.
    """
    members = Members(dictionary.width, dictionary.threshold, seed)
    members.grow(dictionary.n_regions)
    n_rows = 0
    for batch in batches:
        x = as_vectors(batch)
        directions, rows, _ = usable_directions(x, n_rows, dictionary.calibration)
        n_rows += len(x)
        count_members(members, dictionary, directions, rows)
    return members


def count_members(
    members: Members,
    dictionary: Dictionary,
    directions: Float32,
    rows: Int64,
    screen: str = "auto",
    audit: Audit | None = None,
) -> None:
    """Add rows to `members` of the finished regions: one step of a census."""
    if not len(dictionary):
        return
    region, similarity = dictionary.index(screen).nearest(
        directions, dictionary.exemplars, audit=audit
    )
    distance = cosine_distance(similarity)
    members.add(fixed_point(directions), region, distance, rows, len(dictionary))


def usable_directions(
    vectors: Float32, first_row: int, calibration: Calibration
) -> tuple[Float32, Int64, dict[str, Int64]]:
    """Directions of the rows that take part, their numbers, and the numbers of those that do not.

    Rows are numbered before any is dropped.

    Args:
        vectors: (N, D) raw.
        first_row: Global number of the first.
        calibration: Its center, and its `norm_limit` if it has one.

    Raises:
        ValueError: Another width than the calibration's.
        ActivationError: A NaN or infinite component.
    """
    center = calibration.center
    if vectors.shape[1] != len(center):
        raise ValueError(
            f"vectors have width {vectors.shape[1]}, the calibration {len(center)}; "
            "use rows of one site"
        )
    directions, norms = to_directions(vectors, center)
    check_finite(norms, first_row=first_row)
    keep = has_direction(norms, center)
    outlier = np.zeros(len(vectors), np.bool_)
    if calibration.norm_limit is not None:
        outlier = vector_norms(vectors) > calibration.norm_limit
    rows = np.arange(first_row, first_row + len(vectors), dtype=np.int64)
    dropped = {"norm outlier": rows[outlier], "no direction": rows[~keep & ~outlier]}
    keep &= ~outlier
    if keep.all():
        return directions, rows, dropped
    return directions[keep], rows[keep], dropped


def _batches(vectors: Any) -> Iterable[Float32]:
    if hasattr(vectors, "shape"):
        x = as_vectors(vectors)
        return (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))
    return (as_vectors(batch) for batch in vectors)


def _basis(basis: str) -> str:
    if basis not in ("exemplar", "mean"):
        raise ValueError(f'basis is "{basis}", expected "exemplar" or "mean"')
    return basis


def _metrics(exemplars: Float32, members: MemberStatistics, threshold: float) -> dict[str, float]:
    counts = members.counts
    many = counts >= 2
    size = np.sort(counts[many]).astype(np.float64)
    n = len(size)
    result = {
        "n_regions": float(len(counts)),
        "singletons": float((counts == 1).sum()),
        "empty": float((counts == 0).sum()),
        "coverage": float(size.sum() / counts.sum()) if counts.sum() else float("nan"),
    }
    if n == 0 or len(counts) < 2:
        return result
    share = size / size.sum()
    effective = float(np.exp(-(share * np.log(share)).sum()))
    inner = members.distance_sums[many] / counts[many]
    between = _nearest_other(exemplars)
    outer = between[many]
    total = exemplars.astype(np.float64).sum(axis=0)
    pairs = len(exemplars) * (len(exemplars) - 1)
    own = (exemplars.astype(np.float64) ** 2).sum()
    result |= {
        "mean_size": float(size.mean()),
        "median_size": float(np.median(size)),
        "max_size": float(size.max()),
        "std_size": float(size.std()),
        "gini": float(2 * (np.arange(1, n + 1) * size).sum() / (n * size.sum()) - (n + 1) / n),
        "effective_regions": effective,
        "utilisation": effective / n,
        "mean_distance": float(inner.mean()),
        "median_distance": float(np.median(inner)),
        "mean_nearest_exemplar": float(outer.mean()),
        "median_nearest_exemplar": float(np.median(outer)),
        "separation_ratio": float(outer.mean() / threshold),
        "silhouette": float(((outer - inner) / np.maximum(outer, inner)).mean()),
        "max_exemplar_similarity": float(1 - between.min()),
        "mean_exemplar_similarity": float((total @ total - own) / pairs),
    }
    return result


def _nearest_other(exemplars: Float32) -> Float64:
    """(K,) cosine distance of each exemplar to the nearest other one, in blocks."""
    distance = np.empty(len(exemplars))
    for start in range(0, len(exemplars), 1024):
        product = exemplars[start : start + 1024] @ exemplars.T
        rows = np.arange(len(product))
        product[rows, start + rows] = -np.inf
        distance[start : start + 1024] = 1.0 - product.max(axis=1)
    return distance
