"""From texts to dictionaries: all sites and all percentiles in one pass, resumable.

    texts ─► token windows ─► activations ─► calibration ─► clustering + members ─► store

Calibration reads the first rows of the stream and keeps their activations on disk; the build
starts again at the first row, reads those back, and goes on with the model. A checkpoint lies
between two windows, so an interrupted build that is resumed sees the same windows, the same
rows, and ends in the same bytes.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from exemplars import store
from exemplars.activations import ActivationShards
from exemplars.calibration import Calibration, as_vectors, calibrate, check_arguments
from exemplars.clustering import LeaderClustering, batch_rows
from exemplars.contexts import TableContexts, contexts_table, kept_row_numbers
from exemplars.corpora import Texts
from exemplars.dictionary import Dictionary, count_members, usable_directions
from exemplars.errors import ExemplarsError, FormatError, MismatchError, SourceError
from exemplars.geometry import Float32, Int64
from exemplars.members import Members, fixed_point
from exemplars.nearest import THREADS, Audit, check_screen
from exemplars.store import folders
from exemplars.streaming import (
    Budget,
    DocumentIndex,
    Interrupts,
    LiveStream,
    OnProgress,
    Progress,
    ShardStream,
    Stream,
    Window,
    added,
    difference,
)
from exemplars.tokenization import Tokenization

if TYPE_CHECKING:
    from exemplars.models import Model

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")

CALIBRATION_ROWS = 200_000
"""Rows of the stream that calibration reads, unless the budget is smaller."""
NORM_MULTIPLE = 10.0
"""Rows whose norm is above this multiple of the site's median are attention sinks: dropped."""
_PROBE_TOKENS = 1024
"""Tokens of each of the two forward passes that a plan times."""


@dataclass(frozen=True)
class BuildPlan:
    """What a build is going to do, before it does it."""

    sites: tuple[str, ...]
    percentiles: tuple[float, ...]
    rows: int
    calibration_rows: int
    rows_per_s: float
    """Measured by one forward pass to the deepest site, over the stream's first tokens."""
    forward_s: float
    """Time in forward passes for `rows` rows at that rate; clustering comes on top."""
    window_bytes: int
    """Memory of one window's activations at all sites, with the model's weights on top."""
    region_bytes: int
    """Memory of one region of one dictionary while building."""
    working_disk_bytes: int
    """Activations kept on disk until calibration and the first part of the build are done."""
    region_disk_bytes: int
    """Disk of one region in a finished dictionary, at most."""


def build(
    model: Model | None,
    sites: str | Sequence[str],
    texts: Texts | ActivationShards,
    percentile: float | Sequence[float] = 10.0,
    *,
    rows: int | None = 1_000_000,
    tokens: int | None = None,
    patience: int | None = None,
    out: str | os.PathLike[str] | None = None,
    tokenization: Tokenization | None = None,
    membership: str = "online",
    seed: int | None = None,
    calibration: Calibration | Mapping[str, Calibration] | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    block_rows: int = 2048,
    norm_multiple: float | None = NORM_MULTIPLE,
    batch_tokens: int = 2048,
    window_tokens: int = 16384,
    checkpoint_s: float = 60.0,
    resume: bool = False,
    overwrite: bool = False,
    screen: str = "auto",
    audit: Audit | None = None,
    on_progress: OnProgress | None = None,
) -> Any:
    """Build dictionaries of a model's activations on texts.

    Args:
        model: From `load_model`; None if `texts` are activation shards.
        sites: One site or several; one forward pass serves all.
        texts: From `texts(...)`, or `ActivationShards` of an earlier `extract`.
        percentile: One or several; each site gets a dictionary for each.
        rows: Stop after so many rows; None for all of the text.
        tokens: Stop after so many attended tokens, BOS included.
        patience: A dictionary stops after so many rows in a row that founded no region.
        out: Folder. With one site and one percentile it becomes the dictionary; with more, it
            holds one folder `SITE-pPERCENTILE` for each. While building, `OUT.partial` holds the
            checkpoint. None: nothing is kept on disk.
        tokenization: Context length, packing, chat template, masks.
        membership: "online" or "batch:B" (rows).
        seed: Permute the documents by it; None keeps their order. Also of the sample of members.
        calibration: Use this one (of a site, or by site) instead of calibrating.
        calibration_rows: Rows of the stream to calibrate on.
        block_rows: See `calibrate`.
        norm_multiple: See `calibrate`; None drops no row.
        batch_tokens: Tokens of a forward pass at most. Part of what fixes the activations' last
            bits, so it is in the manifest.
        window_tokens: Tokens that are sorted by length together.
        checkpoint_s: Seconds between checkpoints, at the ends of windows.
        resume: Go on from `OUT.partial`.
        overwrite: Replace what lies at `out`, once the new is complete.
        screen: How nearest exemplars are searched for, never what is found; see
            `Dictionary.assign`.
        audit: Checks a share of the searches as they go.
        on_progress: Called at every window.

    Returns:
        A `Dictionary`, or a dict of them by (site, percentile) if several were asked for.

    Raises:
        ValueError: A bad argument, or a site that does not exist.
        SourceError: The text has no rows.
        FormatError: `out` exists and `overwrite` is False, or an unfinished build lies there.
        MismatchError: `resume` of a build with other settings.
        ActivationError: A NaN or infinite activation.
        AuditError: A search answered wrongly.
        KeyboardInterrupt: After Ctrl-C; what was built so far has been saved, loadable, at `out`.
    """
    percentiles = check_arguments(percentile, block_rows, norm_multiple)
    batch_rows(membership)  # refuses an unknown one before anything is computed
    check_screen(screen)
    budget = Budget(rows, tokens, patience)
    stream = Stream.of(
        model, sites, texts, tokenization or Tokenization(), seed, batch_tokens, window_tokens
    )
    given = None if calibration is None else _given(calibration, stream.sites, percentiles)
    several = len(stream.sites) * len(percentiles) > 1
    names = [folder_name(site, p) for site in stream.sites for p in percentiles]
    if len(set(names)) < len(names):
        raise ValueError(
            f"percentiles {', '.join(map(repr, percentiles))} are too close to have folders of "
            "their own; leave some out"
        )
    settings = {
        **stream.describe(),
        "stream": type(stream).__name__,
        "asked": list(stream.sites),
        "percentiles": list(percentiles),
        "budget": asdict(budget),
        "membership": membership,
        "seed": seed,
        "calibration_rows": calibration_rows,
        "block_rows": block_rows,
        "norm_multiple": norm_multiple,
        "calibration": None if given is None else {s: _digest(c) for s, c in given.items()},
    }
    timer = _Timer()
    with (
        _working_folder(out, settings, resume, overwrite, several) as folder,
        Interrupts() as interrupts,
    ):
        job = _Job(stream, budget, folder if out is not None else None, interrupts, on_progress)
        state = _Checkpoint.read(folder) if resume else None
        spool = None
        if state is not None:
            calibrations = state.calibrations
            spool = job.spooled(folder / "calibration")
        elif given is not None:
            calibrations = given
        else:
            sample = min(calibration_rows, rows or calibration_rows)
            spool = job.spool(folder / "calibration", sample)
            calibrations = job.calibrate(
                spool, replace(budget, rows=sample), percentiles, block_rows, norm_multiple
            )
        timer.lap("calibration_s")
        runs = [
            _Run(site, p, calibrations[site], membership, seed or 0, patience, screen, audit)
            for site in stream.sites
            for p in percentiles
        ]
        position = _Position()
        if state is not None:
            position = state.restore(runs)
        elif out is not None:
            _Checkpoint.write(folder, calibrations, runs, position)
        position, interrupted = job.cluster(runs, calibrations, spool, position, checkpoint_s)
        timer.lap("build_s")
        if max(run.rows for run in runs) == 0:
            if interrupted:
                raise KeyboardInterrupt
            raise SourceError(
                "the text gave no rows: every document is empty or masked; give longer documents, "
                "or keep more rows"
            )
        on_disk = spool or (stream if isinstance(stream, ShardStream) else None)
        if not position.masks and on_disk is not None:  # shards know their masks as a whole
            position = replace(position, masks=on_disk.shards.masks)
        found = _finish(stream, runs, position, seed, budget, complete=not interrupted)
        timer.lap("contexts_s")
        if out is not None:
            targets = {
                key: Path(out) / folder_name(*key) if several else Path(out) for key in found
            }

            def save(key: tuple[str, float]) -> None:
                if not interrupted or not _is_complete(targets[key]):
                    log = timer.entry(found[key].rows, audit)
                    store.save(found[key], targets[key], overwrite=True, run=[log])

            _in_parallel(save, list(found))
            if not interrupted:
                if several:
                    _remove_others(Path(out), targets.values())
                (folder / _SETTINGS).unlink()  # from here on there is nothing to resume
                shutil.rmtree(folder)
    if interrupted:
        raise KeyboardInterrupt
    return found if several else next(iter(found.values()))


def census(
    dictionary: Dictionary,
    model: Model | None,
    texts: Texts | ActivationShards,
    *,
    rows: int | None = None,
    tokenization: Tokenization | None = None,
    seed: int | None = None,
    batch_tokens: int | None = None,
    window_tokens: int | None = None,
    folder: str | os.PathLike[str] | None = None,
    allow_mismatch: bool = False,
    screen: str = "auto",
    audit: Audit | None = None,
    on_progress: OnProgress | None = None,
) -> Dictionary:
    """Assign every row of a text to the nearest exemplar of the finished dictionary.

    Args:
        dictionary: Whose exemplars.
        model: The model it is of; None if `texts` are shards.
        texts: The build's own, or any other; documents are numbered in it.
        rows: So many rows at most; None for all.
        tokenization: Default: the dictionary's.
        seed: Permute the documents by it.
        batch_tokens: Default: the dictionary's.
        window_tokens: Default: the dictionary's.
        folder: A saved dictionary to add the census to.
        allow_mismatch: Go on although the activations are another model's.
        screen: See `Dictionary.assign`.
        audit: Checks a share of the searches as they go.
        on_progress: Called at every window.

    Returns:
        The dictionary with `census` (counts, means, coherence, distances of the Voronoi regions;
        a region that nothing falls in has count 0 and a mean of NaN) and the census's contexts.

    Raises:
        MismatchError: Another model than the dictionary's.
    """
    about = dictionary.provenance
    if not about.get("site"):
        raise ValueError(
            "the dictionary does not say which site it is of, so no text can be read for it; "
            "build it from text, or assign vectors"
        )
    check_screen(screen)
    stream = Stream.of(
        model,
        about["site"]["name"],
        texts,
        tokenization or tokenization_of(dictionary),
        seed,
        batch_tokens or about["batch_tokens"],
        window_tokens or about["window_tokens"],
    )
    source = model if model is not None else SimpleNamespace(**stream.describe()["model"])
    store.check_model(dictionary, source, allow_mismatch=allow_mismatch)
    members = Members(dictionary.width, dictionary.threshold, seed or 0)
    members.grow(dictionary.n_regions)
    index = DocumentIndex()
    budget = Budget(rows, None, None)
    name = run_name(stream.sites[0], dictionary.percentile)
    started = time.monotonic()
    n_rows = 0
    for window in stream.windows():
        keep, last = budget.cut(window)
        batch = window.batches[0]
        if keep:
            directions, numbers, _ = usable_directions(
                as_vectors(batch.vectors[:keep]), batch.first_row, dictionary.calibration
            )
            count_members(members, dictionary, directions, numbers, screen, audit)
        n_rows = batch.first_row + keep
        index.extend(window, n_rows)
        if on_progress is not None:
            elapsed = time.monotonic() - started
            on_progress(Progress("census", n_rows, rows, {name: len(dictionary)}, elapsed))
        if last:
            break
    kept = members.kept_rows()
    now = stream.describe()
    same_stream = seed == about.get("seed") and all(
        now[part] == about.get(part) for part in ("texts", "tokenization")
    )
    table = contexts_table(
        kept,
        dictionary.exemplar_rows if same_stream else None,
        stream.sightings(kept_row_numbers(kept), index),
    )
    statistics = members.statistics()
    if folder is not None:
        store.save_census(folder, statistics, table)
    return dictionary.with_census(statistics, TableContexts(table))


def plan(
    model: Model,
    sites: str | Sequence[str],
    texts: Texts,
    percentile: float | Sequence[float] = 10.0,
    *,
    rows: int | None = 1_000_000,
    tokenization: Tokenization | None = None,
    calibration_rows: int = CALIBRATION_ROWS,
    seed: int | None = None,
    batch_tokens: int = 2048,
    window_tokens: int = 16384,
) -> BuildPlan:
    """What `build` with these arguments will take, from two timed forward passes.

    With `rows` None the plan is for the calibration rows: the length of the text is not known.
    """
    probe = min(batch_tokens, _PROBE_TOKENS)
    stream = Stream.of(model, sites, texts, tokenization or Tokenization(), seed, probe, probe)
    windows = stream.windows()
    rate, row_bytes, largest = float("nan"), 0, 0
    for _ in range(2):  # the first pass also warms up; the second counts if there is one
        started = time.monotonic()
        window = next(windows, None)
        if window is None:
            break
        rate = len(window.tokens_before) / max(time.monotonic() - started, 1e-9)
        vectors = [batch.vectors for batch in window.batches]
        row_bytes = sum(v.shape[1] * v.element_size() for v in vectors)
        largest = max(v.shape[1] for v in vectors)
    wanted = rows if rows is not None else calibration_rows
    calibrated = min(wanted, calibration_rows)
    return BuildPlan(
        sites=stream.sites,
        percentiles=tuple(check_arguments(percentile, 2, None)),
        rows=wanted,
        calibration_rows=calibrated,
        rows_per_s=rate,
        forward_s=wanted / rate if rate else float("nan"),
        window_bytes=2 * window_tokens * row_bytes,
        region_bytes=30 * largest + 3600,
        working_disk_bytes=calibrated * row_bytes,
        region_disk_bytes=8 * largest + 6000,
    )


def is_unfinished(out: str | os.PathLike[str]) -> bool:
    """Whether a build of this folder, or in this `OUT.partial`, runs or was interrupted."""
    return (_partial(out) / _SETTINGS).is_file()


def _partial(out: str | os.PathLike[str]) -> Path:
    return Path(out) if Path(out).name.endswith(".partial") else partial_of(out)


@dataclass(frozen=True)
class UnfinishedRun:
    """One dictionary of a build that runs or was interrupted, as its last checkpoint has it."""

    site: str
    percentile: float
    calibration: Calibration
    growth: Mapping[str, Int64]
    """document, rows, regions, singletons: (M,), one entry where a document ends."""
    rows: int
    stopped: bool
    """Its patience has run out."""
    settings: Mapping[str, Any]
    """What the build was asked for: model, texts, tokenization, seed, budget."""


def unfinished(out: str | os.PathLike[str]) -> list[UnfinishedRun]:
    """What a build that runs or was interrupted has so far; it may go on meanwhile.

    Args:
        out: The folder that the build writes to, or its `OUT.partial`.

    Returns:
        One for each site and percentile; none as long as the build calibrates.

    Raises:
        FormatError: There is no unfinished build.
    """
    folder = _partial(out)
    about = folder / _SETTINGS
    if not is_unfinished(out):
        raise FormatError(f"{folder} holds no unfinished build; give the folder that it writes to")
    try:
        settings = json.loads(about.read_bytes())
        places = [(site, float(p)) for site in settings["asked"] for p in settings["percentiles"]]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{about} is not the settings of a build ({error})") from error
    state = _Checkpoint.read(folder)
    if state is None:
        return []
    calibrations = state.calibrations
    columns = ("document", "rows", "regions", "singletons")
    return [
        UnfinishedRun(
            site,
            percentile,
            calibrations[site],
            {name: state.arrays[f"{k}/growth/{name}"] for name in columns},
            int(run["rows"]),
            bool(run["stopped"]),
            settings,
        )
        for k, ((site, percentile), run) in enumerate(zip(places, state.about["runs"], strict=True))
    ]


def tokenization_of(dictionary: Dictionary) -> Tokenization:
    """The tokenization a dictionary was built with, from its provenance."""
    about = dict(dictionary.provenance.get("tokenization", {}))
    if isinstance(about.get("rows"), list):
        about["rows"] = tuple(about["rows"])
    elif str(about.get("rows", "all")).startswith("function "):
        raise ValueError(
            f"the dictionary's rows were chosen by a {about['rows']}; pass a tokenization with it"
        )
    known = {field.name for field in fields(Tokenization)}
    if not set(about) <= known:
        raise FormatError(
            f"the dictionary's tokenization has {', '.join(sorted(set(about) - known))}, which "
            "this version does not know; upgrade exemplars, or pass a tokenization"
        )
    return Tokenization(**about)


def folder_name(site: str, percentile: float) -> str:
    """The folder of one dictionary among several: "resid_post.15-p2"."""
    return f"{site.replace(':', '-').replace('/', '-')}-p{percentile:g}"


def run_name(site: str, percentile: float) -> str:
    """How progress names one dictionary among several: "resid_post.15 p2"."""
    return f"{site} p{percentile:g}"


@dataclass(frozen=True)
class _Position:
    """Where in the stream a checkpoint lies: after a window."""

    rows: int = 0
    cursor: Any = None
    masks: Mapping[str, int] | None = None
    """Tokens each mask removed, over the windows that were read."""
    last: bool = False
    """The budget ended in this window."""

    def after(self, window: Window, last: bool) -> _Position:
        rows = window.batches[0].first_row + len(window.tokens_before)
        return _Position(rows, window.cursor, added(self.masks or {}, window.masks), last)


class _Run:
    """One dictionary in the making: a site at a percentile."""

    def __init__(
        self,
        site: str,
        percentile: float,
        calibration: Calibration,
        membership: str,
        seed: int,
        patience: int | None,
        screen: str,
        audit: Audit | None,
    ) -> None:
        self.site, self.percentile, self.calibration = site, percentile, calibration
        self.patience = patience
        threshold = calibration.threshold(percentile)
        width = len(calibration.center)
        self.clustering = LeaderClustering(width, threshold, membership, screen, audit)
        self.members = Members(width, threshold, seed)
        self.growth = DocumentIndex("regions", "singletons")
        self.rows = 0
        self.stopped = False
        self.dropped = {"norm outlier": 0, "no direction": 0}

    def add(self, window: Window, end: int, part: _Part) -> None:
        """Take the window's rows up to number `end`, or until patience runs out."""
        numbers, changes = [np.array([-1])], [np.array([self.members.singletons])]
        position = 0
        while not self.stopped and self.rows < end:
            self.rows = end
            if self.patience is not None:
                self.rows = min(end, self._last_founded() + 1 + self.patience)
            stop = int(np.searchsorted(part.rows, self.rows))
            chosen = slice(position, stop)
            joined = self.clustering.add(part.directions[chosen], part.rows[chosen])
            changes.append(
                self.members.add(
                    part.fixed[chosen], joined.region, joined.distance, part.rows[chosen],
                    self.clustering.n_regions,
                )
            )  # fmt: skip
            numbers.append(part.rows[chosen])
            position = stop
            if self.patience is not None:
                self.stopped = self._last_founded() + 1 + self.patience <= self.rows
        for reason, rows in part.dropped.items():
            self.dropped[reason] += int(np.searchsorted(rows, self.rows))
        ends = np.minimum(window.batches[0].first_row + np.cumsum(window.document_rows), self.rows)
        last = np.searchsorted(np.concatenate(numbers), ends) - 1
        self.growth.extend(
            window,
            self.rows,
            regions=np.searchsorted(self.clustering.exemplar_rows, ends),
            singletons=np.concatenate(changes)[last],
        )

    def _last_founded(self) -> int:
        rows = self.clustering.exemplar_rows
        return int(rows[-1]) if len(rows) else -1

    def state(self) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
        arrays = {
            **{f"clustering/{k}": v for k, v in self.clustering.state().items()},
            **{f"members/{k}": v for k, v in self.members.state().items()},
            **{f"growth/{k}": v for k, v in self.growth.arrays().items()},
        }
        return arrays, {"rows": self.rows, "stopped": self.stopped, "dropped": self.dropped}

    def restore(self, arrays: Mapping[str, NDArray[Any]], about: Mapping[str, Any]) -> None:
        def part(prefix: str) -> dict[str, NDArray[Any]]:
            return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}

        self.clustering.restore(part("clustering/"))
        self.members.restore(part("members/"))
        self.growth.restore(part("growth/"))
        self.rows, self.stopped = int(about["rows"]), bool(about["stopped"])
        self.dropped = dict(about["dropped"])

    def dictionary(self, provenance: Mapping[str, Any], sightings: Any) -> Dictionary:
        import pyarrow as pa

        kept = self.members.kept_rows()
        return Dictionary(
            exemplars=self.clustering.exemplars.copy(),
            exemplar_rows=self.clustering.exemplar_rows.copy(),
            members=self.members.statistics(),
            calibration=self.calibration,
            percentile=self.percentile,
            membership=self.clustering.membership,
            rows=self.rows,
            dropped=self.dropped,
            contexts=TableContexts(contexts_table(kept, self.clustering.exemplar_rows, sightings)),
            growth=pa.table(self.growth.arrays()),
            provenance=provenance,
        )


@dataclass(frozen=True)
class _Part:
    """A window's rows at one site, once for all percentiles."""

    directions: Float32
    fixed: NDArray[np.int32]
    rows: Int64
    dropped: Mapping[str, Int64]
    """The numbers of the rows that do not take part, by reason."""


@dataclass(frozen=True)
class _Job:
    """What the stages of one build share."""

    stream: Stream
    budget: Budget
    folder: Path | None
    """Where checkpoints go; None for a build that keeps nothing."""
    interrupts: Interrupts
    on_progress: OnProgress | None

    def spool(self, folder: Path, rows: int) -> ShardStream | None:
        """The first rows of a live stream, kept on disk; None if the stream is on disk already."""
        if not isinstance(self.stream, LiveStream):
            return None
        shards = self.stream.write_shards(
            folder,
            rows,
            "calibration",
            self.interrupts,
            self.on_progress,
            keep_texts=False,
            tokens=self.budget.tokens,
        )
        return ShardStream(shards, list(self.stream.sites))

    def spooled(self, folder: Path) -> ShardStream | None:
        """The spool of a build that is resumed, if it had one."""
        if not isinstance(self.stream, LiveStream) or not folder.exists():
            return None
        return ShardStream(ActivationShards.open(folder), list(self.stream.sites))

    def calibrate(
        self,
        spool: ShardStream | None,
        budget: Budget,
        percentiles: Sequence[float],
        block_rows: int,
        norm_multiple: float | None,
    ) -> dict[str, Calibration]:
        """The calibration of each site, from the first rows on disk."""
        source = spool or self.stream
        assert isinstance(source, ShardStream)

        def of_site(site: str) -> Calibration:
            alone = ShardStream(source.shards, [site])
            found = calibrate(
                _SiteVectors(alone, budget, self.interrupts),
                percentiles,
                block_rows,
                norm_multiple=norm_multiple,
            )
            rows = found.rows + sum(found.dropped.values())
            return replace(found, source={"first_row": 0, "rows": rows})

        sites = self.stream.sites
        return dict(zip(sites, _in_parallel(of_site, sites), strict=True))

    def windows(self, spool: ShardStream | None, position: _Position) -> Iterator[Window]:
        """The stream from a position on: from the spool as far as that goes, then live."""
        rows, cursor = position.rows, position.cursor
        if spool is not None and rows < spool.shards.rows:
            yield from spool.windows(rows)
            if spool.shards.exhausted:
                return
            rows, cursor = spool.shards.rows, spool.shards.cursor
        yield from self.stream.windows(rows, cursor)

    def cluster(
        self,
        runs: Sequence[_Run],
        calibrations: Mapping[str, Calibration],
        spool: ShardStream | None,
        position: _Position,
        checkpoint_s: float,
    ) -> tuple[_Position, bool]:
        """Feed the runs to the end of the budget; whether they were interrupted."""
        started = saved = time.monotonic()
        windows = self.windows(spool, position)
        while not position.last and not all(run.stopped for run in runs):
            try:
                with self.interrupts.allowed():
                    window = next(windows, None)
            except KeyboardInterrupt:
                self._save(calibrations, runs, position)
                return position, True
            if window is None:
                break
            keep, last = self.budget.cut(window)
            for site, batch in zip(self.stream.sites, window.batches, strict=True):
                if not len(window.tokens_before):
                    continue
                part = _part(batch.vectors[:keep], batch.first_row, calibrations[site])
                end = batch.first_row + keep
                going = [run for run in runs if run.site == site and not run.stopped]
                _in_parallel(partial(_Run.add, window=window, end=end, part=part), going)
            position = position.after(window, last)
            if self.on_progress is not None:
                regions = {run_name(r.site, r.percentile): r.clustering.n_regions for r in runs}
                rows = max(run.rows for run in runs)
                elapsed = time.monotonic() - started
                self.on_progress(Progress("build", rows, self.budget.rows, regions, elapsed))
            if self.interrupts.requested or time.monotonic() - saved > checkpoint_s:
                self._save(calibrations, runs, position)
                saved = time.monotonic()
                if self.interrupts.requested:
                    return position, True
        return position, False

    def _save(
        self, calibrations: Mapping[str, Calibration], runs: Sequence[_Run], position: _Position
    ) -> None:
        if self.folder is not None:
            _Checkpoint.write(self.folder, calibrations, runs, position)


@dataclass(frozen=True)
class _Checkpoint:
    """One file, replaced whole: arrays, and what belongs to them as JSON."""

    arrays: Mapping[str, NDArray[Any]]
    about: Mapping[str, Any]

    NAME = "checkpoint.safetensors"

    @staticmethod
    def write(
        folder: Path,
        calibrations: Mapping[str, Calibration],
        runs: Sequence[_Run],
        position: _Position,
    ) -> None:
        from safetensors import SafetensorError
        from safetensors.numpy import save_file

        arrays: dict[str, NDArray[Any]] = {}
        states = []
        for k, run in enumerate(runs):
            of_run, state = run.state()
            arrays |= {f"{k}/{name}": array for name, array in of_run.items()}
            states.append(state)
        about_calibrations = {}
        for site, calibration in calibrations.items():
            arrays[f"center/{site}"] = calibration.center
            fields = asdict(replace(calibration, center=np.empty(0, np.float32)))
            del fields["center"]
            fields["thresholds"] = list(calibration.thresholds.items())
            about_calibrations[site] = fields
        about = {"position": asdict(position), "runs": states, "calibrations": about_calibrations}
        arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
        aside = folder / f"{_Checkpoint.NAME}.new"
        try:
            save_file(arrays, aside, metadata={"about": json.dumps(about)})
        except SafetensorError as error:
            aside.unlink(missing_ok=True)
            needed = sum(array.nbytes for array in arrays.values())
            raise OSError(
                f"{aside} could not be written ({error}); it needs {needed:,} bytes: make room, "
                "then go on with --resume"
            ) from error
        with aside.open("rb") as stream:
            os.fsync(stream.fileno())
        aside.replace(folder / _Checkpoint.NAME)

    @staticmethod
    def read(folder: Path) -> _Checkpoint | None:
        """The checkpoint, or None where the build had not come that far."""
        from safetensors import SafetensorError, safe_open

        path = folder / _Checkpoint.NAME
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                return _Checkpoint(arrays, json.loads(file.metadata()["about"]))
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise FormatError(
                f"{path} cannot be read ({error}); it is truncated or altered: delete {folder} "
                "and build again"
            ) from error

    @property
    def calibrations(self) -> dict[str, Calibration]:
        found = {}
        for site, about in self.about["calibrations"].items():
            fields = {
                **about,
                "thresholds": {float(p): float(value) for p, value in about["thresholds"]},
                "vector_norms": tuple(about["vector_norms"]),
                "centered_norms": tuple(about["centered_norms"]),
            }
            found[site] = Calibration(center=self.arrays[f"center/{site}"], **fields)
        return found

    def restore(self, runs: Sequence[_Run]) -> _Position:
        for k, (run, about) in enumerate(zip(runs, self.about["runs"], strict=True)):
            prefix = f"{k}/"
            arrays = {n[len(prefix) :]: a for n, a in self.arrays.items() if n.startswith(prefix)}
            run.restore(arrays, about)
        return _Position(**self.about["position"])


def check_out(
    out: str | os.PathLike[str],
    *,
    resume: bool = False,
    overwrite: bool = False,
    several: bool = False,
) -> None:
    """Raise `FormatError` if `build` would refuse to write at `out`.

    Args:
        out: The folder.
        resume: Go on from `OUT.partial`.
        overwrite: Replace what is there.
        several: More than one dictionary will be written.
    """
    target, folder = Path(out), partial_of(out)
    if target.name in ("", ".."):
        raise ValueError(f'out is "{target}", expected the name of a folder to write')
    unfinished = (folder / _SETTINGS).exists()
    if resume and not unfinished:
        raise FormatError(f"{folder} holds no unfinished build; leave out --resume to start one")
    if unfinished and not resume and not overwrite:
        raise FormatError(
            f"{folder} holds an unfinished build; continue it with --resume, or start again with "
            "--overwrite"
        )
    if not target.exists():
        return
    if not target.is_dir():
        raise FormatError(f"{target} is a file, expected a folder or nothing; choose another name")
    inside = sorted(entry for entry in target.iterdir() if not folders.is_view(entry))
    if not inside:
        return
    is_one = folders.looks_like_a_dictionary(target)
    are_several = all(folders.looks_like_a_dictionary(entry) for entry in inside)
    if not resume and not overwrite:
        raise FormatError(f"{target} exists already; give another folder, or --overwrite")
    if not (are_several if several else is_one):
        found = "one dictionary" if is_one else "dictionaries" if are_several else "other files"
        wanted = "several dictionaries" if several else "one dictionary"
        raise FormatError(f"{target} holds {found}, not {wanted} to replace; give another folder")


def _is_complete(folder: Path) -> bool:
    """Whether a finished dictionary lies there, which an interrupted build leaves alone."""
    if not folders.looks_like_a_dictionary(folder):
        return False
    return bool(store.manifest_of(folder).provenance.get("complete", True))


def _remove_others(out: Path, kept: Iterable[Path]) -> None:
    """Dictionaries of an earlier build that this one has replaced."""
    for entry in set(out.iterdir()) - set(kept):
        if folders.looks_like_a_dictionary(entry):
            shutil.rmtree(entry)


def _digest(calibration: Calibration) -> str:
    """What tells one calibration from another."""
    digest = hashlib.sha256(calibration.center.tobytes())
    digest.update(repr((sorted(calibration.thresholds.items()), calibration.norm_limit)).encode())
    return digest.hexdigest()


_SETTINGS = "build.json"


def partial_of(out: str | os.PathLike[str]) -> Path:
    """Where a build keeps what is unfinished: `OUT.partial`."""
    return Path(out).with_name(f"{Path(out).name}.partial")


@contextlib.contextmanager
def _working_folder(
    out: str | os.PathLike[str] | None,
    settings: Mapping[str, Any],
    resume: bool,
    overwrite: bool,
    several: bool,
) -> Iterator[Path]:
    """`OUT.partial`, checked against what is asked for; a temporary folder if `out` is None."""
    if out is None:
        if resume:
            raise ValueError("resume needs the `out` of the build to resume")
        with tempfile.TemporaryDirectory(prefix="exemplars-") as temporary:
            yield Path(temporary)
        return
    check_out(out, resume=resume, overwrite=overwrite, several=several)
    folder = partial_of(out)
    about = folder / _SETTINGS
    wanted = json.loads(json.dumps(settings))
    if resume:
        try:
            found = json.loads(about.read_bytes())
        except ValueError as error:
            raise FormatError(
                f"{about} is not JSON ({error}); delete {folder} and build again"
            ) from error
        differs = difference(found, wanted)
        if differs:
            raise MismatchError(
                f"the build in {folder} has {differs}; resume it with its own settings, or give "
                "another folder"
            )
    else:
        if folder.exists():
            shutil.rmtree(folder)
        folder.mkdir(parents=True)
        aside = about.with_suffix(".new")
        aside.write_text(json.dumps(wanted, indent=1))
        aside.replace(about)
    try:
        yield folder
    except (ExemplarsError, ValueError):
        if not (folder / _Checkpoint.NAME).exists():
            shutil.rmtree(folder)  # it would fail again: there is nothing to resume
        raise


@dataclass(frozen=True)
class _SiteVectors:
    """The vectors of one site on disk, within a budget, as often as one iterates."""

    stream: ShardStream
    budget: Budget
    interrupts: Interrupts

    def __iter__(self) -> Iterator[Float32]:
        for window in self.stream.windows():
            if self.interrupts.requested:
                raise KeyboardInterrupt
            keep, last = self.budget.cut(window)
            if keep:
                yield as_vectors(window.batches[0].vectors[:keep])
            if last:
                break


def _part(vectors: Any, first_row: int, calibration: Calibration) -> _Part:
    directions, rows, dropped = usable_directions(as_vectors(vectors), first_row, calibration)
    return _Part(directions, fixed_point(directions), rows, dropped)


def _in_parallel(function: Callable[[_Item], _Result], items: Sequence[_Item]) -> list[_Result]:
    """The function of each item, in their order, on as many threads as torch uses.

    What is compiled, and numpy's products, run outside Python's lock. Several small products at
    once are faster than one after the other on all cores, so each then has one thread.
    """
    import torch
    from threadpoolctl import threadpool_limits

    threads = min(torch.get_num_threads(), len(items))
    if threads < 2:
        return [function(item) for item in items]
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads, initializer=THREADS.set, initargs=(1,)) as pool,
    ):
        return list(pool.map(function, items))


def _given(
    calibration: Calibration | Mapping[str, Calibration],
    sites: Sequence[str],
    percentiles: Sequence[float],
) -> dict[str, Calibration]:
    """The calibration of each site, checked to have every percentile."""
    if isinstance(calibration, Calibration):
        if len(sites) > 1:
            raise ValueError(
                f"one calibration was given for {len(sites)} sites; give one for each, by site"
            )
        calibration = {sites[0]: calibration}
    missing = [site for site in sites if site not in calibration]
    if missing:
        raise ValueError(f"no calibration was given for {', '.join(missing)}; give one by site")
    for site in sites:
        for percentile in percentiles:
            calibration[site].threshold(percentile)
    return {site: calibration[site] for site in sites}


def _finish(
    stream: Stream,
    runs: Sequence[_Run],
    position: _Position,
    seed: int | None,
    budget: Budget,
    complete: bool,
) -> dict[tuple[str, float], Dictionary]:
    """The dictionaries, with their contexts looked up in one reading of the text."""
    longest = max(runs, key=lambda run: run.rows)
    kept = np.unique(np.concatenate([kept_row_numbers(run.members.kept_rows()) for run in runs]))
    sightings = stream.sightings(kept, longest.growth)
    shared = {
        "seed": seed,
        "stream": {"cursor": position.cursor, "budget": asdict(budget)},
        "masks": dict(position.masks or {}),
        "complete": complete,
    }
    return {
        (run.site, run.percentile): run.dictionary(
            {**stream.provenance(run.site), **shared}, sightings
        )
        for run in runs
    }


class _Timer:
    """Times and machine facts of a build, for run.jsonl: outside the promise of equal bytes."""

    def __init__(self) -> None:
        self._last = time.monotonic()
        self._seconds: dict[str, float] = {}

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self._seconds[name] = round(now - self._last, 3)
        self._last = now

    def entry(self, rows: int, audit: Audit | None) -> dict[str, Any]:
        import numba
        import torch
        import transformers

        return {
            "rows": rows,
            **self._seconds,
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "peak_memory_bytes": _peak_memory(),
            "threads": torch.get_num_threads(),
            "machine": platform.machine(),
            "python": platform.python_version(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
            "numpy": np.__version__,
            "numba": numba.__version__,
            **({} if audit is None else {"audit": audit.summary()}),
        }


def _peak_memory() -> int | None:
    """Largest resident size of this process so far, in bytes; None where it cannot be told."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
