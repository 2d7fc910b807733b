"""What prompts do at a site, partitions of that in several orders, and answers kept on disk."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars import corpora
from exemplars.activations import read_activations
from exemplars.calibration import as_vectors, calibrate
from exemplars.dictionary import Dictionary, partition
from exemplars.generation import Answer, generate
from exemplars.geometry import Float32, Int64
from exemplars.intervene import Edit
from exemplars.tokenization import Tokenization, tokenize_prompts

if TYPE_CHECKING:
    from exemplars.analyses.labelled import OnStep
    from exemplars.analyses.scorers import Scorer
    from exemplars.models import Model

_NORM_MULTIPLE = 10.0
_LONGEST = 4096
"""Tokens of a prompt that are read, at most."""


@dataclass(frozen=True, eq=False)
class PromptRows:
    """Rows of prompts at one site, those of a prompt together, in the order of the prompts."""

    site: str
    prompts: tuple[str, ...]
    vectors: Float32
    """(N, D) raw."""
    prompt: Int64
    """(N,) number of each row's prompt, ascending."""

    @property
    def final(self) -> Int64:
        """(P,) the last row of each prompt."""
        return np.searchsorted(self.prompt, np.arange(len(self.prompts)), side="right") - 1

    def some(self, prompts: Sequence[int] | Int64) -> PromptRows:
        """Of these prompts, in this order."""
        spans = [np.flatnonzero(self.prompt == number) for number in prompts]
        return PromptRows(
            self.site,
            tuple(self.prompts[number] for number in prompts),
            self.vectors[np.concatenate(spans)],
            np.repeat(np.arange(len(spans)), [len(span) for span in spans]),
        )

    def final_only(self) -> PromptRows:
        """The last row of each prompt alone."""
        n = len(self.prompts)
        return PromptRows(self.site, self.prompts, self.vectors[self.final], np.arange(n))


def read_prompts(
    model: Model,
    sites: Sequence[str],
    prompts: Sequence[str],
    tokenization: Tokenization,
    on_step: OnStep | None = None,
    window_tokens: int = 16384,
) -> dict[str, PromptRows]:
    """Rows of prompts at several sites, from one pass; by the site's name.

    Args:
        model: From `load_model`.
        sites: In any spelling.
        prompts: Texts, each with one row at least.
        tokenization: Which tokens are rows; its context length does not cut.
        on_step: Told how many prompts were read, at every window.
        window_tokens: Tokens read before prompts are sorted by length, about.

    Raises:
        ValueError: A prompt has no rows, or is too long for the model; or there is no such site.
    """
    limit = prompt_limit(model, prompts, tokenization.chat)
    whole = replace(tokenization, context_length=limit, long_documents="truncate")
    found: dict[str, list[Float32]] = {}
    numbers: list[Int64] = []
    told = on_step or (lambda what, done, total: None)
    told("prompts", 0, len(prompts))
    texts = corpora.texts(list(prompts))
    for batches in read_activations(model, sites, texts, whole, window_tokens=window_tokens):
        numbers.append(batches[0].document)
        if len(batches[0].document):
            told("prompts", int(batches[0].document[-1]) + 1, len(prompts))
        for batch in batches:
            found.setdefault(batch.site, []).append(as_vectors(batch.vectors))
    prompt = np.concatenate(numbers) if numbers else np.empty(0, np.int64)
    missing = np.setdiff1d(np.arange(len(prompts)), prompt)
    if not len(prompts):
        raise ValueError("no prompt was given; give at least one")
    if len(missing):
        raise ValueError(f"prompt {missing[0] + 1} has no rows at {sites[0]}; give a longer text")
    return {
        site: PromptRows(site, tuple(prompts), np.concatenate(parts), prompt)
        for site, parts in found.items()
    }


def prompt_limit(model: Model, prompts: Sequence[str], chat: bool) -> int:
    """Tokens that are read of a prompt, at most: none of these has more.

    Raises:
        ValueError: One has.
    """
    limit = min(model.max_positions or _LONGEST, _LONGEST)
    for number, one in enumerate(tokenize_prompts(prompts, model.tokenizer, chat=chat), 1):
        if len(one.ids) > limit:
            raise ValueError(
                f"prompt {number} has {len(one.ids)} tokens and {limit} are read at most; shorten "
                "it, or leave it out"
            )
    return limit


def stream_order(n: int, seed: int) -> Int64:
    """(n,) the order that a seed puts n prompts in; seed 0 leaves them as they are given."""
    return np.random.default_rng([seed, 1]).permutation(n) if seed else np.arange(n)


def partitions(rows: PromptRows, percentile: float, seeds: Sequence[int]) -> list[Dictionary]:
    """Dictionaries of the prompts' rows, each with the prompts in another order.

    They share one calibration: that of the rows in the order given. Seed 0 is that order.
    """
    calibration = calibrate(rows.vectors, percentile, norm_multiple=_NORM_MULTIPLE)
    n = len(rows.prompts)
    found = []
    for seed in seeds:
        stream = rows.some(stream_order(n, seed)).vectors if seed else rows.vectors
        dictionary = partition(stream, calibration, seed=seed)
        found.append(replace(dictionary, provenance={"site": {"name": rows.site}, "seed": seed}))
    return found


class KeptAnswers:
    """Answers of one model, kept in a folder, so that work that was interrupted goes on.

    An answer is found again for the same weights, dtype, prompts, edits and settings.
    """

    def __init__(
        self,
        model: Model,
        folder: str | os.PathLike[str] | None,
        *,
        chat: bool,
        batch_size: int,
        progress: Callable[[int], None] | None = None,
    ) -> None:
        """Answers in `folder`; with None nothing is kept beyond this object."""
        self.model, self.folder = model, None if folder is None else Path(folder)
        self._chat, self._batch_size, self._progress = chat, batch_size, progress
        self._held: dict[str, list[Answer]] = {}

    def __call__(
        self, prompts: Sequence[str], edits: Sequence[Edit] = (), max_new_tokens: int = 32
    ) -> list[Answer]:
        """Greedy answers, generated or found."""
        key = self._key(prompts, edits, max_new_tokens)
        if key not in self._held:
            found = self._read(key, prompts)
            if found is None:
                found = generate(
                    self.model, prompts, edits, chat=self._chat, max_new_tokens=max_new_tokens,
                    batch_size=self._batch_size, progress=self._progress,
                )  # fmt: skip
                self._write(key, found)
            elif self._progress is not None:
                self._progress(len(prompts))
            self._held[key] = found
        return self._held[key]

    def _key(self, prompts: Sequence[str], edits: Sequence[Edit], max_new_tokens: int) -> str:
        digest = hashlib.sha256()
        about = [self.model.fingerprint, str(self.model.dtype), self.model.tokenizer_fingerprint]
        settings = [self._chat, self._batch_size, max_new_tokens]
        digest.update(json.dumps([about, settings, list(prompts)]).encode())
        for edit in edits:
            if not isinstance(edit.positions, str | int | np.integer):
                raise ValueError(
                    "answers under a mask or a function of positions cannot be kept; name the "
                    "positions, or call generate"
                )
            where = edit.positions if isinstance(edit.positions, str) else int(edit.positions)
            numbers = [float(n) for n in (edit.strength, edit.unit, edit.limit)]
            digest.update(json.dumps([edit.site, edit.operation, *numbers, where]).encode())
            digest.update(edit.directions.tobytes() + edit.point.tobytes())
        return digest.hexdigest()

    def _read(self, key: str, prompts: Sequence[str]) -> list[Answer] | None:
        file = None if self.folder is None else self.folder / f"{key}.json"
        if file is None or not file.exists():
            return None
        try:
            kept = json.loads(file.read_text(encoding="utf-8"))
            ids, finished = kept["ids"], [bool(value) for value in kept["finished"]]
        except (ValueError, KeyError, TypeError, RecursionError):
            return None  # cut short, or not ours: written again
        if not self._are_answers(ids, len(prompts)) or len(finished) != len(prompts):
            return None
        asked = tokenize_prompts(prompts, self.model.tokenizer, chat=self._chat)
        return [
            Answer(p, self._text(a), q.ids, np.array(a, np.int64), f)
            for p, q, a, f in zip(prompts, asked, ids, finished, strict=True)
        ]

    def _are_answers(self, ids: Any, n: int) -> bool:
        """Whether what a file holds is n lists of tokens that the model has."""
        if not isinstance(ids, list) or len(ids) != n:
            return False
        size = int(self.model.unembedding.weight.shape[0])
        return all(
            isinstance(line, list) and all(type(i) is int and 0 <= i < size for i in line)
            for line in ids
        )

    def _text(self, ids: list[int]) -> str:
        """As `generate` makes it."""
        text: str = self.model.tokenizer.decode(
            ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text

    def _write(self, key: str, answers: Sequence[Answer]) -> None:
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        kept = {"ids": [a.ids.tolist() for a in answers], "finished": [a.finished for a in answers]}
        aside = self.folder / f"{key}.{os.getpid()}.partial"
        aside.write_text(json.dumps(kept | {"text": [a.text for a in answers]}), encoding="utf-8")
        aside.replace(self.folder / f"{key}.json")


def behaves_by_answers(
    answers: KeptAnswers, scorer: Scorer, prompts: Sequence[str], max_new_tokens: int
) -> NDArray[np.bool_]:
    """(P,) which prompts the unedited model answers with the behaviour."""
    written = answers(prompts, (), max_new_tokens)
    return scorer(prompts, [a.text for a in written])
