"""A dictionary on disk: a folder of plain files that any language can read.

`save` writes the folder aside and renames it into place, `load` checks it and maps its arrays
into memory. docs/format.md describes every file; `exemplars.hub` carries the folder to and from
the Hugging Face Hub.

    folders ─► manifest ─► tensors, tables ─► save and load

Each of these modules imports only those before it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from exemplars.dictionary import Dictionary
from exemplars.errors import FormatError, MismatchError
from exemplars.members import MemberStatistics
from exemplars.store.folders import (
    CENSUS,
    CENSUS_CONTEXTS,
    CONTEXTS,
    GROWTH,
    LABELS,
    LENS,
    MANIFEST,
    PARTS,
    REGIONS,
    RUN,
    STABILITY,
    link,
    place_of,
    restore,
    write_bytes,
    written_aside,
)
from exemplars.store.manifest import (
    FORMAT_VERSION,
    FileEntry,
    Manifest,
    calibration_of,
    check_files,
    manifest_for,
    manifest_of,
    run_lines,
    write_manifest,
)
from exemplars.store.tables import (
    GROWTH_COLUMNS,
    ParquetContexts,
    check_contexts,
    check_stability,
    fit_growth,
    growth_schema,
    read_table,
    stability_schema,
    write_contexts,
    write_table,
)
from exemplars.store.tensors import (
    map_members,
    map_regions,
    member_arrays,
    region_arrays,
    write_tensors,
)

__all__ = [
    "CENSUS",
    "CENSUS_CONTEXTS",
    "CONTEXTS",
    "FORMAT_VERSION",
    "GROWTH",
    "GROWTH_COLUMNS",
    "LABELS",
    "LENS",
    "MANIFEST",
    "PARTS",
    "REGIONS",
    "RUN",
    "STABILITY",
    "Manifest",
    "ParquetContexts",
    "check_model",
    "load",
    "load_labels",
    "load_lens",
    "load_stability",
    "manifest_of",
    "save",
    "save_census",
    "save_labels",
    "save_lens",
    "save_stability",
]


def save(
    dictionary: Dictionary,
    folder: str | os.PathLike[str],
    *,
    overwrite: bool = False,
    run: Mapping[str, Any] | Iterable[Mapping[str, Any]] | None = None,
) -> Path:
    """Write a dictionary to a folder: all of it, or nothing.

    The folder is written beside its place, flushed to disk, and renamed. A kill leaves the old
    dictionary or the new one. With `overwrite`, files in the folder that are not a
    dictionary's are kept.

    Args:
        dictionary: What to write. Its provenance must be plain JSON values; a float that is not
            finite is written as null.
        folder: Where. It may exist if it is empty.
        overwrite: Replace the dictionary that is there.
        run: Times and machine facts, one record or several: the lines of run.jsonl.

    Returns:
        The folder.

    Raises:
        FormatError: The folder exists and holds something, or, with `overwrite`, holds something
            that is not a dictionary.
        ValueError: Arrays, contexts, or provenance that do not fit the format.
        OSError: The disk is full, or cannot be written.
    """
    k, d = dictionary.exemplars.shape
    regions = region_arrays(dictionary)
    census = {} if dictionary.census is None else member_arrays(dictionary.census, k, d)
    contexts = None if dictionary.contexts is None else dictionary.contexts.table()
    of_census = None if dictionary.census_contexts is None else dictionary.census_contexts.table()
    growth = None if dictionary.growth is None else fit_growth(dictionary.growth)
    lines = run_lines(run)
    manifest = manifest_for(dictionary)
    for table in (contexts, of_census):
        if table is not None:
            check_contexts(table, k)
    needed = sum(a.nbytes for a in (*regions.values(), *census.values())) + sum(
        t.nbytes for t in (contexts, of_census, growth) if t is not None
    )
    place = place_of(folder)
    with written_aside(place, overwrite, needed) as new:
        files = {REGIONS: write_tensors(new / REGIONS, regions)}
        if contexts is not None:
            files[CONTEXTS] = write_contexts(new / CONTEXTS, contexts)
        if growth is not None:
            files[GROWTH] = write_table(new / GROWTH, growth)
        if census:
            files[CENSUS] = write_tensors(new / CENSUS, census)
        if of_census is not None:
            files[CENSUS_CONTEXTS] = write_contexts(new / CENSUS_CONTEXTS, of_census)
        if lines:
            write_bytes(new / RUN, "".join(line + "\n" for line in lines).encode())
        write_manifest(new, manifest, files)
    return place


def load(folder: str | os.PathLike[str], *, verify: bool = True) -> Dictionary:
    """Open a saved dictionary. Its arrays are read-only maps of the file, its contexts are read
    when they are asked for.

    Args:
        folder: That `save` wrote.
        verify: Also compare the SHA-256 of each file and look at every exemplar, which reads
            all files once. Sizes, types and shapes are checked in any case.

    Raises:
        FormatError: A file is missing, truncated, altered, of a newer version, or not what the
            format says.
    """
    place = Path(folder)
    restore(place)
    manifest = manifest_of(place)
    check_files(place, manifest, verify)
    k, d = manifest.n_regions, manifest.width
    arrays = map_regions(place / REGIONS, k, d, verify)
    census = map_members(place / CENSUS, k, d) if CENSUS in manifest.files else None

    def contexts_in(name: str) -> ParquetContexts | None:
        return ParquetContexts(place / name, k) if name in manifest.files else None

    center, exemplars, exemplar_rows = (
        arrays.pop(name) for name in ("center", "exemplars", "exemplar_rows")
    )
    growth = read_table(place / GROWTH, growth_schema()) if GROWTH in manifest.files else None
    return Dictionary(
        exemplars=exemplars,
        exemplar_rows=exemplar_rows,
        members=MemberStatistics(**arrays),
        calibration=calibration_of(place, manifest, center),
        percentile=manifest.percentile,
        membership=manifest.membership,
        rows=manifest.rows,
        dropped=dict(manifest.dropped),
        census=census,
        census_contexts=contexts_in(CENSUS_CONTEXTS),
        contexts=contexts_in(CONTEXTS),
        growth=growth,
        provenance=dict(manifest.provenance),
    )


def save_census(
    folder: str | os.PathLike[str], statistics: MemberStatistics, contexts_table: Any = None
) -> None:
    """Add a census to a saved dictionary, or replace the one it has.

    Args:
        folder: That `save` wrote.
        statistics: Of the dictionary's own regions, in their order.
        contexts_table: A pyarrow table as `exemplars.contexts.contexts_table` makes; None for
            a census without contexts.

    Raises:
        FormatError: The folder is not a dictionary.
        ValueError: Another number of regions or another width.
        OSError: The disk is full, or cannot be written.
    """
    manifest = manifest_of(folder)
    arrays = member_arrays(statistics, manifest.n_regions, manifest.width)
    if contexts_table is not None:
        check_contexts(contexts_table, manifest.n_regions)

    def write(new: Path) -> dict[str, FileEntry]:
        files = {CENSUS: write_tensors(new / CENSUS, arrays)}
        if contexts_table is not None:
            files[CENSUS_CONTEXTS] = write_contexts(new / CENSUS_CONTEXTS, contexts_table)
        return files

    needed = sum(a.nbytes for a in arrays.values()) + getattr(contexts_table, "nbytes", 0)
    _amend(folder, (CENSUS, CENSUS_CONTEXTS), write, needed)


def save_lens(folder: str | os.PathLike[str], table: Any) -> None:
    """Add a table of what the regions read as to a saved dictionary, or replace the one it has.

    Args:
        folder: That `save` wrote.
        table: pyarrow, any columns; stored as it is.

    Raises:
        FormatError: The folder is not a dictionary.
        OSError: The disk is full, or cannot be written.
    """
    _amend(folder, (LENS,), lambda new: {LENS: write_table(new / LENS, table, True)}, table.nbytes)


def load_lens(folder: str | os.PathLike[str]) -> Any:
    """The table that `save_lens` wrote; None if there is none.

    Raises:
        FormatError: The folder is not a dictionary, or the file is not what it should be.
    """
    return _load_table(folder, LENS)


def save_labels(folder: str | os.PathLike[str], table: Any) -> None:
    """Add labels of the regions to a saved dictionary, or replace those it has.

    Args:
        folder: That `save` wrote.
        table: pyarrow, as `exemplars.labels.labels_table` makes.

    Raises:
        FormatError: The folder is not a dictionary.
        OSError: The disk is full, or cannot be written.
    """
    _amend(folder, (LABELS,), lambda new: {LABELS: write_table(new / LABELS, table)}, table.nbytes)


def load_labels(folder: str | os.PathLike[str]) -> Any:
    """The table that `save_labels` wrote; None if there is none.

    Raises:
        FormatError: The folder is not a dictionary, or the file is not what it should be.
    """
    return _load_table(folder, LABELS)


def save_stability(folder: str | os.PathLike[str], table: Any) -> None:
    """Add how well each region is found again in other orders, or replace what there is.

    The folder is then of format version 2.

    Args:
        folder: That `save` wrote.
        table: pyarrow, as `exemplars.analyses.stability.stability_table` makes.

    Raises:
        FormatError: The folder is not a dictionary.
        ValueError: Another number of regions, or other columns.
        OSError: The disk is full, or cannot be written.
    """
    fitted = check_stability(table, manifest_of(folder).n_regions)
    _amend(
        folder, (STABILITY,), lambda new: {STABILITY: write_table(new / STABILITY, fitted)},
        fitted.nbytes,
    )  # fmt: skip


def load_stability(folder: str | os.PathLike[str]) -> Any:
    """The table that `save_stability` wrote, a line for each region in order; None if there is
    none.

    Raises:
        FormatError: The folder is not a dictionary, or the file is not what it should be.
    """
    table = _load_table(folder, STABILITY, stability_schema())
    if table is not None:
        try:
            check_stability(table, manifest_of(folder).n_regions)
        except ValueError as error:
            raise FormatError(f"{Path(folder) / STABILITY}: {error}") from error
    return table


def _load_table(folder: str | os.PathLike[str], name: str, schema: Any = None) -> Any:
    place = Path(folder)
    manifest = manifest_of(place)
    if name not in manifest.files:
        return None
    check_files(place, manifest, verify=True)
    return read_table(place / name, schema)


def check_model(dictionary: Dictionary, model: Any, *, allow_mismatch: bool = False) -> str | None:
    """Whether a model is the one a dictionary was built from.

    Args:
        dictionary: Its provenance["model"] names the weights' "fingerprint" and the
            "tokenizer_fingerprint".
        model: With attributes of the same names.
        allow_mismatch: Return the sentence instead of raising it.

    Returns:
        None where both are equal; otherwise what a caller should show as a warning: that they
        differ, or that the dictionary does not say what it was built from.

    Raises:
        MismatchError: They differ.
    """
    known = dictionary.provenance.get("model") or {}
    known = known if isinstance(known, Mapping) else {}
    silent = []
    for key, what, advice in (
        ("fingerprint", "model", "load the model it was built from"),
        ("tokenizer_fingerprint", "tokenizer", "use the tokenizer it was built with"),
    ):
        wanted = known.get(key)
        found = None if wanted is None else getattr(model, key, None)
        if wanted is None or found is None:
            silent.append(what)
        elif wanted != found:
            name = known.get("name")
            built = f"{what} {wanted}" + (f" ({name})" if name else "")
            sentence = (
                f"this dictionary was built with {built}, but the {what} given is {found}; "
                f"{advice}, or allow the mismatch"
            )
            if not allow_mismatch:
                raise MismatchError(sentence)
            return sentence
    if silent:
        return (
            f"no fingerprint of the {' and the '.join(silent)} could be compared, so whether "
            "this dictionary belongs to the model given is not known"
        )
    return None


def _amend(
    folder: str | os.PathLike[str],
    names: tuple[str, ...],
    write: Callable[[Path], dict[str, FileEntry]],
    needed: int,
) -> None:
    """Replace the files `names` of a saved dictionary: its folder is swapped as a whole, the
    other files are linked.
    """
    place = place_of(folder)
    restore(place)
    manifest = manifest_of(place)
    kept = {name: entry for name, entry in manifest.files.items() if name not in names}
    with written_aside(place, True, needed) as new:
        for name in (*kept, RUN):
            if (place / name).exists():
                link(place / name, new / name)
        write_manifest(new, manifest, {**kept, **write(new)})
