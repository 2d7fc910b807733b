"""Classification tasks of texts: read from a file of texts and labels, or made of a concept."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from exemplars.analyses.labelled import Concept, TextRows, quoted
from exemplars.errors import SourceError

_LEAST = 2


@dataclass(frozen=True)
class ProbeTask:
    """Texts of two or more classes, in two parts that share none."""

    name: str
    classes: tuple[str, ...]
    train_texts: tuple[str, ...]
    train_labels: tuple[int, ...]
    """Numbers of classes; of two, 1 is the one that the AUROC is of."""
    test_texts: tuple[str, ...]
    test_labels: tuple[int, ...]

    def texts(self) -> list[str]:
        """All of them, each once."""
        return list(dict.fromkeys([*self.train_texts, *self.test_texts]))


def task_of_concept(concept: Concept) -> ProbeTask:
    """Positive against negative texts; hard negatives take no part."""
    parts = (
        (concept.negative, concept.positive),
        (concept.test_negative, concept.test_positive),
    )
    (train, train_labels), (test, test_labels) = (_labelled(part) for part in parts)
    return ProbeTask(concept.name, ("negative", "positive"), train, train_labels, test, test_labels)


def read_task(
    path: str | Path,
    test: str | Path | None = None,
    *,
    column: str = "text",
    label_column: str = "label",
    test_share: float = 0.5,
    seed: int = 0,
) -> ProbeTask:
    """A task from a file with a text and a label in each row.

    Args:
        path: .jsonl, .ndjson, .parquet, .csv, or .tsv.
        test: A file of test texts; without it `test_share` of each class is set aside, by a
            permutation of `seed`.
        column: Of the texts.
        label_column: Of the labels; classes are their distinct values, in order.
        test_share: In (0, 1).
        seed: Of the permutation.

    Raises:
        SourceError: A file or a column is missing, or a file cannot be read.
        ValueError: One class alone, a class with too few texts, or one text in two classes or in
            both parts.
    """
    if not 0 < test_share < 1:
        raise ValueError(f"test_share is {test_share}, expected a share in (0, 1)")
    train = _read_labels(Path(path), column, label_column)
    classes = tuple(sorted(set(train.values())))
    if len(classes) < 2:
        raise ValueError(
            f"{path} has the one class {classes[0]!r}, expected two or more; give texts of others"
        )
    if test is not None:
        held = _read_labels(Path(test), column, label_column)
        unknown = sorted(set(held.values()) - set(classes))
        if unknown:
            raise ValueError(
                f"{test} has texts of the class {unknown[0]!r}, which {path} has none of; "
                "give training texts of it"
            )
        shared = next((text for text in held if text in train), None)
        if shared is not None:
            raise ValueError(
                f"{quoted(shared)} is both a training and a test text; give each text once"
            )
    else:
        train, held = _set_aside(train, classes, test_share, seed, path)
    number = {name: k for k, name in enumerate(classes)}
    task = ProbeTask(
        Path(path).stem,
        classes,
        tuple(train),
        tuple(number[label] for label in train.values()),
        tuple(held),
        tuple(number[label] for label in held.values()),
    )
    check_task(task)
    return task


def read_label_columns(
    path: str | Path, label_columns: Sequence[str], column: str = "text"
) -> tuple[list[str], dict[str, list[str]]]:
    """The distinct texts of a file, in its order, and their labels by column.

    Args:
        path: As `read_task`.
        label_columns: One or several.
        column: Of the texts.

    Raises:
        SourceError: A file or a column is missing, or a text is blank or without a label.
        ValueError: A text has two labels in one column.
    """
    read = [_read_labels(Path(path), column, name) for name in dict.fromkeys(label_columns)]
    if not read:
        raise ValueError("no label column was given; name one of the file's columns")
    texts = list(read[0])
    names = dict.fromkeys(label_columns)
    return texts, {
        name: [labels[text] for text in texts] for name, labels in zip(names, read, strict=True)
    }


def without_empty_texts(rows: TextRows, task: ProbeTask) -> tuple[ProbeTask, int]:
    """A task without the texts that have no row, and how many those are.

    Raises:
        ValueError: A class has too few texts left.
    """
    lengths = rows.lengths()
    kept: dict[str, Any] = {}
    for part in ("train", "test"):
        texts, labels = getattr(task, f"{part}_texts"), getattr(task, f"{part}_labels")
        full = np.flatnonzero(lengths[rows.of(texts)])
        kept[f"{part}_texts"] = tuple(texts[k] for k in full)
        kept[f"{part}_labels"] = tuple(labels[k] for k in full)
    left = replace(task, **kept)
    check_task(left)
    lost = len(task.train_texts) + len(task.test_texts)
    return left, lost - len(left.train_texts) - len(left.test_texts)


def check_task(task: ProbeTask) -> None:
    """Refuse a task that cannot be probed.

    Raises:
        ValueError: Fewer than two classes, one with too few texts, or a text given twice.
    """
    n_classes = len(task.classes)
    if n_classes < 2:
        raise ValueError(f"{task.name!r} has {n_classes} class, expected two or more")
    for part, what, least in (("train", "training", _LEAST), ("test", "test", 1)):
        texts, labels = getattr(task, f"{part}_texts"), getattr(task, f"{part}_labels")
        if len(texts) != len(labels):
            raise ValueError(f"{len(texts)} texts have {len(labels)} labels; give one for each")
        counts = np.array([labels.count(k) for k in range(n_classes)])
        few = np.flatnonzero(counts < least)
        if len(few):
            raise ValueError(
                f"the class {task.classes[few[0]]!r} of {task.name!r} has {counts[few[0]]} {what} "
                f"texts, expected at least {least}; give more"
            )
        if counts.sum() < len(labels):
            raise ValueError(f"a label is not one of 0 to {n_classes - 1}, the classes' numbers")
    seen: set[str] = set()
    for text in (*task.train_texts, *task.test_texts):
        if text in seen:
            raise ValueError(f"{quoted(text)} is given twice; give each text once, in one part")
        seen.add(text)


def _labelled(parts: Sequence[Sequence[str]]) -> tuple[tuple[str, ...], tuple[int, ...]]:
    texts = [(text, label) for label, part in enumerate(parts) for text in part]
    return tuple(text for text, _ in texts), tuple(label for _, label in texts)


def _set_aside(
    labels: Mapping[str, str], classes: Sequence[str], share: float, seed: int, path: str | Path
) -> tuple[dict[str, str], dict[str, str]]:
    """Texts and labels to train with, and those set aside of each class."""
    random = np.random.default_rng(seed)
    held: set[str] = set()
    for name in classes:
        mine = sorted(text for text, label in labels.items() if label == name)
        if len(mine) < _LEAST + 1:
            raise ValueError(
                f"{path} has {len(mine)} texts of the class {name!r}, expected at least "
                f"{_LEAST + 1}: {_LEAST} to train with and 1 to test on"
            )
        n = min(max(round(len(mine) * share), 1), len(mine) - _LEAST)
        held.update(mine[k] for k in random.permutation(len(mine))[:n])
    train = {text: label for text, label in labels.items() if text not in held}
    return train, {text: label for text, label in labels.items() if text in held}


def _read_labels(path: Path, column: str, label_column: str) -> dict[str, str]:
    """The label of each distinct text of a file, blank texts left out."""
    if not path.is_file():
        raise SourceError(f"there is no file {path}; check the path")
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SourceError(
            f"{path} is not a table of texts and labels; expected one of {', '.join(_READERS)}"
        )
    labels: dict[str, str] = {}
    for row in reader(path):
        for name in (column, label_column):
            if name not in row:
                raise SourceError(
                    f"{path} has no column {name!r}; it has {', '.join(map(str, row))}"
                )
        text, label = row[column], row[label_column]
        if not isinstance(text, str) or label is None or label == "":
            raise SourceError(f"{path} has a row without a text or without a label; give both")
        text = text.strip()
        if text and labels.setdefault(text, str(label)) != str(label):
            raise ValueError(
                f"{quoted(text)} is of the class {labels[text]!r} and of {str(label)!r}; give each "
                "text one label"
            )
    if not labels:
        raise SourceError(f"{path} holds no text; give a file with a text and a label in each row")
    return labels


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise SourceError(f"{path}, line {number}, is not JSON ({error})") from None
            if not isinstance(row, dict):
                raise SourceError(f"{path}, line {number}, is not an object; give one on each line")
            yield row


def _parquet(path: Path) -> Iterator[Mapping[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise SourceError(f"{path} is not a Parquet file ({error})") from error
    yield from table.to_pylist()


def _separated(path: Path) -> Iterator[Mapping[str, Any]]:
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            for row in csv.DictReader(file, delimiter=delimiter):
                yield {str(name): value for name, value in row.items() if name is not None}
        except csv.Error as error:
            raise SourceError(f"{path} is not a table of separated values ({error})") from error


_READERS: dict[str, Callable[[Path], Iterator[Mapping[str, Any]]]] = {
    ".jsonl": _json_lines,
    ".ndjson": _json_lines,
    ".parquet": _parquet,
    ".csv": _separated,
    ".tsv": _separated,
}
