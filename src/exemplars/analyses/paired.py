"""The same tokens read by two models of one architecture, as a model and its fine-tune.

The texts are tokenised once, and both models read the very same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.activations import window_activations
from exemplars.analyses.labelled import OnStep
from exemplars.calibration import as_vectors
from exemplars.corpora import Texts
from exemplars.errors import MismatchError, SourceError
from exemplars.geometry import Float32, Int64
from exemplars.tokenization import Ints, Tokenization, document_texts, excerpt, token_windows

if TYPE_CHECKING:
    from exemplars.models import Model

POSITIONS = ("all", "control", "response")
"""Tokens that are read: all that the masks leave; of chats only those of the template between the
user's last message and the answer, where every answer to a prompt still has one activation; or
only those after these."""

_WINDOW_TOKENS = 4096


@dataclass(frozen=True, eq=False)
class PairedRows:
    """Tokens at one site of two models; those of a document together, in order."""

    site: str
    documents: tuple[str, ...]
    """Their texts, chats with their template."""
    number: Int64
    """(documents,) what the source numbers them."""
    base: Float32
    """(N, D) raw."""
    tuned: Float32
    """(N, D) raw."""
    document: Int64
    """(N,) ascending index into `documents`."""
    token: Int64
    """(N,) ids."""
    start: Int64
    """(N,) where the token starts in the document's text, in characters."""
    end: Int64

    def __len__(self) -> int:
        return len(self.document)

    def some(self, keep: NDArray[np.bool_]) -> PairedRows:
        """The documents where `keep` is True, numbered anew."""
        rows = keep[self.document]
        return replace(
            self,
            documents=tuple(text for text, kept in zip(self.documents, keep, strict=True) if kept),
            number=self.number[keep],
            base=self.base[rows],
            tuned=self.tuned[rows],
            document=(np.cumsum(keep) - 1)[self.document[rows]],
            token=self.token[rows],
            start=self.start[rows],
            end=self.end[rows],
        )

    def excerpt(self, row: int, around: int = 60) -> tuple[str, str, str]:
        """A row's token with the text before and after it."""
        text = self.documents[self.document[row]]
        return excerpt(text, int(self.start[row]), int(self.end[row]), around, around)


def read_pairs(
    base: Model,
    tuned: Model,
    sites: str | Sequence[str],
    texts: Texts,
    tokenization: Tokenization | None = None,
    *,
    positions: str = "all",
    rows: int | None = None,
    on_step: OnStep | None = None,
) -> dict[str, PairedRows]:
    """What two models compute for the same tokens, by the site's name.

    Args:
        base: The model before.
        tuned: The model afterwards, of the same architecture; its tokenizer is used.
        sites: In any spelling.
        texts: Documents; those without a row are left out.
        tokenization: How documents become rows.
        positions: One of `POSITIONS`.
        rows: Whole documents are read until there are so many rows; None reads all.
        on_step: Told how many rows were read.

    Raises:
        MismatchError: The models differ in width, depth or vocabulary.
        ValueError: A site or position that is not there, or no document has a row.
        SourceError: Positions of chats of texts that are none, or of a model without a template.
    """
    check_pair(base, tuned)
    sites = [sites] if isinstance(sites, str) else list(sites)
    tokenization = replace(
        tokenization or Tokenization(), rows=row_selector(tuned, positions, tokenization)
    )
    told = on_step or (lambda what, done, total: None)
    parts: dict[str, list[Any]] = {}
    numbers, places = [], []
    n_rows = 0
    for window in token_windows(texts, tuned.tokenizer, tokenization, window_tokens=_WINDOW_TOKENS):
        read = [window_activations(model, sites, window) for model in (base, tuned)]
        for one, two in zip(*read, strict=True):
            parts.setdefault(one.site, []).append([as_vectors(b.vectors) for b in (one, two)])
        numbers.append(window.document)
        places.append([window.token, window.start, window.end])
        n_rows += len(window.document)
        told("rows", n_rows if rows is None else min(n_rows, rows), rows or n_rows)
        if rows is not None and n_rows >= rows:
            break
    if not n_rows:
        raise ValueError("no document has a row; give longer texts")
    number = np.concatenate(numbers)
    kept = _whole_documents(number, rows)
    found, document = np.unique(number[kept], return_inverse=True)
    named = document_texts(texts, tuned.tokenizer, tokenization, found.tolist())
    contents = tuple(text for _, _, text in named)
    token, start, end = (np.concatenate(column)[kept] for column in zip(*places, strict=True))
    paired = {}
    for site, several in parts.items():
        before, after = (np.concatenate(side)[kept] for side in zip(*several, strict=True))
        paired[site] = PairedRows(
            site, contents, found, before, after, document.astype(np.int64), token, start, end
        )
    return paired


def check_pair(base: Model, tuned: Model) -> None:
    """Refuse models that cannot read the same tokens, or whose sites have other shapes.

    Raises:
        MismatchError: With what differs.
    """
    for name in ("width", "n_layers"):
        one, two = getattr(base, name), getattr(tuned, name)
        if one != two:
            raise MismatchError(
                f"{base.name} has {name} {one} and {tuned.name} has {two}; give a model and its "
                "fine-tune"
            )
    known, used = base.tokenizer.get_vocab(), tuned.tokenizer.get_vocab()
    other = next((token for token, number in used.items() if known.get(token) != number), None)
    if other is not None:
        raise MismatchError(
            f"{other!r} is another token in {tuned.name} than in {base.name}; give a model and a "
            "fine-tune that kept its vocabulary"
        )


def row_selector(
    model: Model, positions: str, tokenization: Tokenization | None = None
) -> str | tuple[int, ...] | Callable[[Ints, Ints], NDArray[np.bool_]]:
    """The rows of one of `POSITIONS`, as a `Tokenization` takes them.

    Raises:
        ValueError: No such positions.
        SourceError: Positions of a chat, without one.
    """
    if positions not in POSITIONS:
        raise ValueError(f'positions is "{positions}"; choose {", ".join(POSITIONS)}')
    if positions == "all":
        return tokenization.rows if tokenization is not None else "all"
    if tokenization is None or not tokenization.chat:
        raise SourceError(
            f'"{positions}" positions are of chats, and these are texts; give prompts'
        )
    control = control_tokens(model)

    def chosen(ids: Ints, place: Ints) -> NDArray[np.bool_]:
        n = len(control)
        at = np.flatnonzero((np.lib.stride_tricks.sliding_window_view(ids, n) == control).all(1))
        if len(ids) < n or not len(at):
            return np.zeros(len(ids), np.bool_)
        first = at[-1]
        return (
            place >= first + n
            if positions == "response"
            else (place >= first) & (place < first + n)
        )

    return chosen


def control_tokens(model: Model) -> Ints:
    """(n,) ids that the chat template puts between a user's message and the answer.

    Raises:
        SourceError: The template puts nothing there, or there is none.
    """
    tokenizer = model.tokenizer
    if not getattr(tokenizer, "chat_template", None):
        raise SourceError(f"{model.name} has no chat template; read all positions of texts")
    message = [{"role": "user", "content": "A"}]
    without, full = (
        tokenizer.apply_chat_template(message, tokenize=False, add_generation_prompt=asked)
        for asked in (False, True)
    )
    if not full.startswith(without) or full == without:
        raise SourceError(
            f"the chat template of {model.name} puts nothing before an answer; read all positions"
        )
    ids = tokenizer(full[len(without) :], add_special_tokens=False)["input_ids"]
    return np.array(ids, np.int64)


def _whole_documents(number: Int64, rows: int | None) -> NDArray[np.bool_]:
    """(N,) True for the rows of as many whole documents as fit; of the first at least."""
    if rows is None or len(number) <= rows:
        return np.ones(len(number), np.bool_)
    fits = number < number[rows]
    return fits if fits.any() else number == number[0]
