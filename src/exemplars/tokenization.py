"""From documents to token batches with explicit masks, and back to places in the text.

A document is tokenised as the model's tokenizer does it (one BOS where the tokenizer adds one),
cut or split to `context_length`, and becomes one or more *pieces*: what the model attends to at
once. Everything downstream is in *rows*: the tokens that the row mask keeps, numbered through the
stream in document order.
"""

from __future__ import annotations

import itertools
import json
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from exemplars.corpora import Document, Texts
from exemplars.errors import SourceError

Ints = NDArray[np.int64]
RowSelector = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.bool_]]


@dataclass(frozen=True)
class Tokenization:
    """How documents become token batches. The manifest stores it whole."""

    context_length: int = 128
    """Tokens in a piece at most, BOS and template included."""
    long_documents: str = "split"
    """"split": consecutive pieces, each with its own BOS; "truncate": the first piece only."""
    packing: str = "none"
    """"none": one piece in a batch row; "documents": several, each with its own positions and
    attending to itself alone."""
    chat: bool = False
    """Each document is a user's message (or a list of messages), put through the chat template."""
    rows: str | tuple[int, ...] | RowSelector = "all"
    """Which tokens become rows, of those the masks leave: "all", "final" (the last token of each
    document), token ids, or a callable (ids, positions) -> bool array over a document's tokens."""
    keep_first: bool = False
    """Keep the first position of each piece (an attention sink in most models), and BOS."""
    keep_prefix: bool = False
    """Keep the chat template's fixed prefix."""

    def __post_init__(self) -> None:
        """Raise ValueError for a setting outside its choices."""
        if self.context_length < 2:
            raise ValueError(f"context_length is {self.context_length}; it must be at least 2")
        if self.long_documents not in ("split", "truncate"):
            raise ValueError(
                f'long_documents is {self.long_documents!r}, not "split" or "truncate"'
            )
        if self.packing not in ("none", "documents"):
            raise ValueError(f'packing is {self.packing!r}, not "none" or "documents"')
        if isinstance(self.rows, str) and self.rows not in ("all", "final"):
            raise ValueError(f'rows is {self.rows!r}, not "all", "final", token ids, or a function')


@dataclass(frozen=True)
class TokenBatch:
    """Right-padded tokens for one forward pass. All arrays are (B, T)."""

    ids: NDArray[np.int64]
    attention: NDArray[np.bool_]  # False is padding
    rows: NDArray[np.bool_]  # True where the token is a row
    document: NDArray[np.int64]  # document number; -1 in padding
    position: NDArray[np.int64]  # index in the document's tokens; -1: padding, or a repeated BOS
    position_ids: NDArray[np.int64]  # the model's own: from 0 in each piece
    packed: bool = False  # several pieces in a row: pass position_ids and no attention mask


@dataclass(frozen=True)
class TokenWindow:
    """A run of consecutive documents, batched by length. Row arrays are in document order."""

    batches: tuple[TokenBatch, ...]
    destination: tuple[NDArray[np.int64], ...]
    """For each batch, where its kept tokens (in C order of its `rows` mask) go: window rows."""
    document: NDArray[np.int64]  # (N,) document number of each row
    position: NDArray[np.int64]  # (N,) index in the document's tokens
    token: NDArray[np.int64]  # (N,) token id
    start: NDArray[np.int64]  # (N,) where the token starts in the document's text, in characters
    end: NDArray[np.int64]  # (N,) where it ends
    documents: NDArray[np.int64]  # (M,) numbers of the window's documents, in order
    document_rows: NDArray[np.int64]  # (M,) rows of each; sums to N
    tokens_before: NDArray[np.int64]  # (N,) attended tokens of the stream before this row's token
    first_row: int  # global number of the window's first row
    n_tokens: int  # attended tokens in the window
    cursor: dict[str, Any]  # hand it to `token_windows(..., cursor=)` to go on after this window
    mask_counts: dict[str, int] = field(default_factory=dict)
    """"attention": attended tokens; of these "rows" were kept, and removed were "first" (first
    positions and BOS), "prefix" (of the chat template), and "selected_out" (by `rows`)."""


@dataclass(frozen=True)
class LocatedDocument:
    """One document's rows placed in its text: arrays (n,), with the values of `token_windows`."""

    number: int
    name: str
    text: str  # what start and end refer to: the document, or the rendered chat
    token: Ints
    position: Ints
    start: Ints
    end: Ints


_SEGMENT = 1_000_000  # characters tokenised at once
_LOOK_BACK = 4096  # characters searched for whitespace to cut at
_MARGIN = 32  # tokens beyond a truncation, so that the cut text does not change those before it
_GROUP_DOCUMENTS, _GROUP_CHARACTERS = 64, 500_000  # tokenised in one call
_PREFIXES = 256  # chat prefixes remembered

_ROW, _FIRST, _PREFIX, _SELECTED_OUT = range(4)  # why a token is no row


@dataclass(frozen=True)
class _Tokens:
    """A document's tokens (n,), and the spans of them that are its pieces."""

    number: int
    name: str
    text: str
    ids: Ints
    start: Ints
    end: Ints
    reason: NDArray[np.uint8]  # _ROW where the token is a row, else why not
    spans: list[tuple[int, int]]
    repeated: tuple[int, ...]  # tokens put before every piece but the first

    def piece(self, k: int) -> _Piece:
        a, b = self.spans[k]
        again = self.repeated if k else ()
        reason = np.concatenate([np.full(len(again), _FIRST, np.uint8), self.reason[a:b]])
        return _Piece(
            self.number,
            np.concatenate([np.array(again, np.int64), self.ids[a:b]]),
            np.concatenate([np.full(len(again), -1, np.int64), np.arange(a, b)]),
            reason,
            self.start[a:b][self.reason[a:b] == _ROW],
            self.end[a:b][self.reason[a:b] == _ROW],
        )


@dataclass(frozen=True)
class _Piece:
    """What the model attends to at once: (t,) tokens, of them n rows."""

    document: int
    ids: Ints
    position: Ints
    reason: NDArray[np.uint8]
    start: Ints  # (n,)
    end: Ints  # (n,)

    @property
    def rows(self) -> NDArray[np.bool_]:
        return np.equal(self.reason, _ROW)


class _DocumentTokenizer:
    """A tokenizer under one `Tokenization`: documents in, tokens with their masks out."""

    def __init__(self, tokenizer: Any, tokenization: Tokenization) -> None:
        self._tokenizer, self._settings = tokenizer, tokenization
        self._fast = bool(getattr(tokenizer, "is_fast", False))
        if tokenization.chat and not getattr(tokenizer, "chat_template", None):
            raise SourceError(
                "the tokenizer has no chat template, and chat=True needs one; "
                "use an instruction-tuned model's tokenizer, or chat=False"
            )
        self._leading, self._trailing = self._special_tokens()
        if len(self._leading) >= tokenization.context_length:
            raise ValueError(
                f"context_length is {tokenization.context_length}, but the tokenizer puts "
                f"{len(self._leading)} tokens before every text"
            )
        self._prefixes: dict[str, Ints] = {}

    def tokens(self, documents: Iterable[Document]) -> Iterator[_Tokens]:
        """Tokenise documents a group at a time, each as if it were alone."""
        group: list[tuple[Document, str]] = []
        n_characters = 0
        for document in documents:
            text = self.text(document)
            group.append((document, text))
            n_characters += len(text)
            if len(group) == _GROUP_DOCUMENTS or n_characters >= _GROUP_CHARACTERS:
                yield from self._group_tokens(group)
                group, n_characters = [], 0
        yield from self._group_tokens(group)

    def _group_tokens(self, group: list[tuple[Document, str]]) -> Iterator[_Tokens]:
        short = [text for _, text in group if not self._is_long(text)]
        whole = iter(self._encode(short))
        for document, text in group:
            body = self._encode_long(text) if self._is_long(text) else next(whole)
            yield self._masked(document, text, *body)

    def _is_long(self, text: str) -> bool:
        truncating = self._settings.long_documents == "truncate"
        return len(text) > (self._first_guess() if truncating else _SEGMENT)

    def _first_guess(self) -> int:
        return 8 * (self._settings.context_length + _MARGIN)

    def _encode_long(self, text: str) -> tuple[Ints, Ints, Ints]:
        """The tokens of a long text; when truncating, only as many as needed, and no BOS yet."""
        if self._settings.long_documents == "split":
            return self._encode_segments(text)
        size = self._first_guess()
        while True:
            stop = _cut(text, 0, size)
            ids, start, end = self._encode_segments(text[:stop])
            if stop == len(text):
                return ids, start, end
            if len(ids) >= self._settings.context_length + _MARGIN:
                return ids[:-_MARGIN], start[:-_MARGIN], end[:-_MARGIN]
            size *= 2

    def _encode_segments(self, text: str) -> tuple[Ints, Ints, Ints]:
        """Tokenise in segments cut before whitespace, which bounds what the tokenizer holds.

        The ids and spans of all segments are held together, until the document's last window:
        memory grows with the text, by up to some 80 bytes a character.
        """
        parts, at = [], 0
        while at < len(text):
            stop = _cut(text, at, _SEGMENT)
            ids, start, end = self._encode([text[at:stop]])[0]
            parts.append((ids, start + at, end + at))
            at = stop
        ids, start, end = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
        return ids, start, end

    def _encode(self, texts: list[str]) -> list[tuple[Ints, Ints, Ints]]:
        """Ids, starts and ends of each text, with no special tokens added."""
        if not texts:
            return []
        encoded = self._call(texts, add_special_tokens=False, return_offsets_mapping=self._fast)
        ids = [np.array(row, np.int64) for row in encoded["input_ids"]]
        if self._fast:
            spans = [np.array(o, np.int64).reshape(-1, 2) for o in encoded["offset_mapping"]]
        else:
            spans = [self._decoded_spans(*pair) for pair in zip(texts, ids, strict=True)]
        return [(row, span[:, 0], span[:, 1]) for row, span in zip(ids, spans, strict=True)]

    def _call(self, texts: list[str], **options: Any) -> Any:
        """Call the tokenizer and leave it as it was: the call resets its backend's settings."""
        backend = getattr(self._tokenizer, "backend_tokenizer", None) if self._fast else None
        truncation, padding = (
            getattr(backend, "truncation", None),
            getattr(backend, "padding", None),
        )
        try:
            return self._tokenizer(
                texts,
                padding=False,
                truncation=False,
                return_attention_mask=False,
                return_token_type_ids=False,
                verbose=False,
                **options,
            )
        finally:
            if backend is not None and truncation is not None:
                backend.enable_truncation(**truncation)
            if backend is not None and padding is not None:
                backend.enable_padding(**padding)

    def _decoded_spans(self, text: str, ids: Ints) -> Ints:
        """Offsets for a tokenizer that gives none: each token's string, looked for in turn.

        A token that cannot be found near where the last one ended (part of a character, a
        replaced character) gets an empty span there.
        """
        spans, at = np.zeros((len(ids), 2), np.int64), 0
        for i, token in enumerate(ids.tolist()):
            surface = self._tokenizer.decode([token])
            for string in (surface, surface.strip()):
                found = text.find(string, at, at + len(string) + 16) if string else -1
                if found >= 0:
                    break
            spans[i] = (found, found + len(string)) if found >= 0 else (at, at)
            at = int(spans[i, 1])
        return spans

    def _special_tokens(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """What the tokenizer puts before and after a plain text."""
        bare, dressed = (
            list(self._call(["a"], add_special_tokens=added)["input_ids"][0])
            for added in (False, True)
        )
        if bare:
            places = range(len(dressed) - len(bare) + 1)
            at = next((i for i in places if dressed[i : i + len(bare)] == bare), 0)
        else:  # a vocabulary without "a"
            at = int(dressed[:1] == [self._tokenizer.bos_token_id])
        return tuple(dressed[:at]), tuple(dressed[at + len(bare) :])

    def text(self, document: Document) -> str:
        """What is tokenised: the document, or the rendered chat."""
        if self._settings.chat:
            return self._render(_messages(document), document.name)
        if isinstance(document.content, str):
            return document.content
        raise SourceError(
            f"{document.name} is a conversation, and the tokenization is for plain text; "
            f"set chat=True"
        )

    def _render(self, messages: list[dict[str, Any]], name: str) -> str:
        from jinja2 import TemplateError

        try:
            rendered = self._tokenizer.apply_chat_template(
                messages,
                tokenize=False,
                add_generation_prompt=messages[-1]["role"] != "assistant",
            )
        except TemplateError as error:
            raise SourceError(
                f"the chat template refuses {name} ({' '.join(str(error).split())}); "
                f"give messages with the roles it knows"
            ) from error
        return str(rendered)

    def _prefix_length(self, document: Document, ids: Ints) -> int:
        """Tokens of the template before the first message that is not the system's.

        By position: two conversations with other words in that message, after the same system
        message, agree up to where the words begin. The document itself is a third, as its first
        character may merge with the template's last.
        """
        messages = _messages(document)
        system = list(itertools.takewhile(lambda m: m["role"] == "system", messages))
        role = messages[len(system)]["role"] if len(system) < len(messages) else "user"
        key = json.dumps([system, role], sort_keys=True, default=str)
        if key not in self._prefixes:
            probes = [[*system, {"role": role, "content": words}] for words in ("A", "0 0")]
            (one, *_), (two, *_) = self._encode([self._render(p, document.name) for p in probes])
            if len(self._prefixes) >= _PREFIXES:
                self._prefixes.clear()
            self._prefixes[key] = one[: common_prefix(one, two)]
        return common_prefix(self._prefixes[key], ids)

    def _masked(self, document: Document, text: str, body: Ints, start: Ints, end: Ints) -> _Tokens:
        """Put special tokens round the body, cut it into pieces, and say which tokens are rows."""
        settings, leading = self._settings, self._leading
        if not settings.chat:
            body = np.concatenate([leading, body, self._trailing]).astype(np.int64)
            before, after = len(leading), len(self._trailing)
            start = np.pad(start, (before, after), constant_values=((0, len(text)),))
            end = np.pad(end, (before, after), constant_values=((0, len(text)),))
        if settings.long_documents == "truncate":
            body, start, end = (x[: settings.context_length] for x in (body, start, end))
        repeated = leading if tuple(body[: len(leading)].tolist()) == leading else ()
        spans = _spans(len(body), settings.context_length, len(repeated))

        reason = np.full(len(body), _ROW, np.uint8)
        if settings.chat and not settings.keep_prefix:
            reason[: self._prefix_length(document, body)] = _PREFIX
        if not settings.keep_first:
            reason[np.isin(body, leading)] = _FIRST
            reason[[a for a, _ in (spans[:1] if repeated else spans)]] = _FIRST
        reason[(reason == _ROW) & ~self._selected(body)] = _SELECTED_OUT
        return _Tokens(
            document.number, document.name, text, body, start, end, reason, spans, repeated
        )

    def _selected(self, ids: Ints) -> NDArray[np.bool_]:
        rows, position = self._settings.rows, np.arange(len(ids))
        if rows == "all":
            return np.ones(len(ids), bool)
        if rows == "final":
            return np.equal(position, len(ids) - 1)
        if not callable(rows):
            return np.isin(ids, np.array(rows, np.int64))
        chosen = np.asarray(rows(ids.copy(), position))
        if chosen.dtype != np.bool_ or chosen.shape != ids.shape:
            raise ValueError(
                f"the row selector returned {chosen.dtype} of shape {chosen.shape}; "
                f"it must return bool of shape {ids.shape}, one for each token"
            )
        return chosen.astype(bool, copy=False)


def _messages(document: Document) -> list[dict[str, Any]]:
    if isinstance(document.content, str):
        return [{"role": "user", "content": document.content}]
    return document.content


def common_prefix(a: Ints, b: Ints) -> int:
    """How many leading numbers two arrays share."""
    n = min(len(a), len(b))
    differ = np.flatnonzero(a[:n] != b[:n])
    return int(differ[0]) if len(differ) else n


def _cut(text: str, start: int, size: int) -> int:
    """Where to end a part of about `size` characters: before whitespace, if any is near."""
    stop = start + size
    if stop >= len(text):
        return len(text)
    places = range(stop, max(start, stop - _LOOK_BACK), -1)
    return next((place for place in places if text[place].isspace()), stop)


def _spans(n: int, context_length: int, n_repeated: int) -> list[tuple[int, int]]:
    """Cut n tokens into consecutive pieces, of which all but the first begin with repeated ones."""
    later = range(context_length, n, context_length - n_repeated)
    edges = [0, *later, n] if n else [0]
    return list(itertools.pairwise(edges))


def token_windows(
    texts: Texts,
    tokenizer: Any,
    tokenization: Tokenization,
    *,
    batch_tokens: int = 2048,
    window_tokens: int = 16384,
    cursor: dict[str, Any] | None = None,
) -> Iterator[TokenWindow]:
    """Tokenise texts into windows of batches, in the order of the documents.

    A window is closed as soon as it attends to `window_tokens` tokens, at the end of a piece and
    so perhaps inside a document, which then goes on in the next window. Inside a window pieces
    are sorted by length, longest first, and cut into batches. A document without tokens or rows
    counts in `documents` all the same; so does one of a single token, whose only position is its
    first, under rows="final". Splitting tokenises texts above 1,000,000 characters in segments
    cut before whitespace, and holds the document's tokens whole, up to some 80 bytes a character;
    truncating reads no further than it must.

    Args:
        texts: The documents.
        tokenizer: A Hugging Face tokenizer. It is left as it was; its padding side and the length
            limit it states are not followed. Slow ones give offsets found by decoding.
        tokenization: How.
        batch_tokens: Largest B * T of a batch, padding included, unless one piece is longer.
        window_tokens: Attended tokens after which a window is closed.
        cursor: Of the window to go on after; None begins. The same texts, tokenizer and settings
            then give the windows that an uninterrupted run gives.

    Raises:
        SourceError: If a document is a conversation without chat=True, or there is no template.
        ValueError: If a setting is out of range, or a row selector does not return (n,) bools.
    """
    if batch_tokens < 1 or window_tokens < 1:
        raise ValueError(
            f"batch_tokens and window_tokens must be positive, got {batch_tokens}, {window_tokens}"
        )
    at = {"ordinal": 0, "piece": 0, "rows": 0, "tokens": 0} if cursor is None else cursor
    if not {"ordinal", "piece", "rows", "tokens"} <= set(at):
        raise ValueError(f"the cursor has the keys {sorted(at)}; give a window's own cursor")
    return _windows(
        texts,
        _DocumentTokenizer(tokenizer, tokenization),
        lambda pieces: _batches(pieces, tokenization, batch_tokens, _filler(tokenizer)),
        window_tokens,
        at,
    )


def _windows(
    texts: Texts,
    tokenizer: _DocumentTokenizer,
    batched: Callable[[list[_Piece]], tuple[list[TokenBatch], list[Ints]]],
    window_tokens: int,
    at: dict[str, Any],
) -> Iterator[TokenWindow]:
    n_rows, n_tokens, skip = at["rows"], at["tokens"], at["piece"]
    pieces: list[_Piece] = []
    documents: list[int] = []
    n_open = 0

    def close(ordinal: int, piece: int) -> TokenWindow:
        nonlocal n_rows, n_tokens, n_open, pieces, documents
        end = {
            "ordinal": ordinal,
            "piece": piece,
            "rows": n_rows + sum(len(p.start) for p in pieces),
            "tokens": n_tokens + n_open,
        }
        window = _window(pieces, documents, *batched(pieces), n_rows, n_tokens, end)
        n_rows, n_tokens, n_open, pieces, documents = end["rows"], end["tokens"], 0, [], []
        return window

    ordinal = at["ordinal"]
    for tokens in tokenizer.tokens(texts.documents(ordinal)):
        documents.append(tokens.number)
        for k in range(skip, len(tokens.spans)):
            if not documents:
                documents.append(tokens.number)
            pieces.append(tokens.piece(k))
            n_open += len(pieces[-1].ids)
            if n_open >= window_tokens:
                last = k + 1 == len(tokens.spans)
                yield close(ordinal + 1, 0) if last else close(ordinal, k + 1)
        skip = 0
        ordinal += 1
    if documents:
        yield close(ordinal, 0)


def _window(
    pieces: list[_Piece],
    documents: list[int],
    batches: list[TokenBatch],
    destination: list[Ints],
    first_row: int,
    tokens_before: int,
    cursor: dict[str, Any],
) -> TokenWindow:
    rows = _joined([piece.rows for piece in pieces], np.bool_)
    document = _joined([np.full(len(p.ids), p.document) for p in pieces])[rows]
    # A number occurs once in a window: a document's pieces are consecutive.
    counts = dict(zip(*(x.tolist() for x in np.unique(document, return_counts=True)), strict=True))
    reasons = np.bincount(_joined([piece.reason for piece in pieces]), minlength=4)
    names = ("rows", "first", "prefix", "selected_out")
    return TokenWindow(
        batches=tuple(batches),
        destination=tuple(destination),
        document=document,
        position=_joined([piece.position for piece in pieces])[rows],
        token=_joined([piece.ids for piece in pieces])[rows],
        start=_joined([piece.start for piece in pieces]),
        end=_joined([piece.end for piece in pieces]),
        documents=np.array(documents, np.int64),
        document_rows=np.array([counts.get(number, 0) for number in documents], np.int64),
        tokens_before=tokens_before + np.flatnonzero(rows),
        first_row=first_row,
        n_tokens=len(rows),
        cursor=cursor,
        mask_counts={"attention": len(rows), **dict(zip(names, reasons.tolist(), strict=True))},
    )


def window_of_ids(ids: Ints, first: int = 0) -> TokenWindow:
    """A window of one text, given as tokens, whose rows begin at `first`."""
    n = len(ids)
    line = np.arange(n)[None]
    rows = line >= first
    positions = np.arange(first, n)
    zeros = np.zeros(n - first, np.int64)
    batch = TokenBatch(
        ids=np.asarray(ids, np.int64)[None],
        attention=np.ones((1, n), np.bool_),
        rows=rows,
        document=np.zeros((1, n), np.int64),
        position=line,
        position_ids=line,
    )
    return TokenWindow(
        batches=(batch,),
        destination=(np.arange(n - first),),
        document=zeros,
        position=positions,
        token=np.asarray(ids[first:], np.int64),
        start=zeros,
        end=zeros,
        documents=np.zeros(1, np.int64),
        document_rows=np.array([n - first]),
        tokens_before=positions,
        first_row=0,
        n_tokens=n,
        cursor={},
    )


def _joined(arrays: list[Any], dtype: Any = np.int64) -> Any:
    return np.concatenate([np.zeros(0, dtype), *arrays]).astype(dtype, copy=False)


def _filler(tokenizer: Any) -> int:
    """An id to pad with. Which one does not matter: the masks come from lengths."""
    for token in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if isinstance(token, int):
            return token
    return 0


def _batches(
    pieces: list[_Piece], tokenization: Tokenization, batch_tokens: int, filler: int
) -> tuple[list[TokenBatch], list[Ints]]:
    """Cut a window's pieces into batches, and say which window rows each batch's rows are."""
    packed = tokenization.packing == "documents"
    counts = [len(piece.start) for piece in pieces]
    first_row = np.cumsum([0, *counts])
    lines = (
        _packed(pieces, tokenization.context_length)
        if packed
        else [[i] for i in range(len(pieces))]
    )
    lengths = [sum(len(pieces[i].ids) for i in line) for line in lines]
    order = sorted(range(len(lines)), key=lambda i: -lengths[i])
    batches, destination = [], []
    while order:
        n = max(1, batch_tokens // lengths[order[0]])
        taken, order = [lines[i] for i in order[:n]], order[n:]
        batches.append(_batch([[pieces[i] for i in line] for line in taken], packed, filler))
        flat = [i for line in taken for i in line]
        destination.append(_joined([np.arange(first_row[i], first_row[i + 1]) for i in flat]))
    return batches, destination


def _packed(pieces: list[_Piece], width: int) -> list[list[int]]:
    """First fit: each piece goes to the first line with room for it."""
    lines: list[list[int]] = []
    room: list[int] = []
    for i, piece in enumerate(pieces):
        length = len(piece.ids)
        line = next((k for k, free in enumerate(room) if free >= length), len(lines))
        if line == len(lines):
            lines.append([])
            room.append(width)
        lines[line].append(i)
        room[line] -= length
    return lines


def _batch(lines: list[list[_Piece]], packed: bool, filler: int) -> TokenBatch:
    width = max(sum(len(piece.ids) for piece in line) for line in lines)
    shape = (len(lines), width)
    ids = np.full(shape, filler, np.int64)
    document, position = np.full(shape, -1, np.int64), np.full(shape, -1, np.int64)
    attention, rows = np.zeros(shape, bool), np.zeros(shape, bool)
    position_ids = np.broadcast_to(np.arange(width), shape).copy()
    for b, line in enumerate(lines):
        at = 0
        for piece in line:
            here = (b, slice(at, at + len(piece.ids)))
            ids[here], position[here], rows[here] = piece.ids, piece.position, piece.rows
            document[here], attention[here] = piece.document, True
            position_ids[here] = np.arange(len(piece.ids))
            at += len(piece.ids)
        if packed:  # padding is a piece of its own, or it would continue the last one
            position_ids[b, at:] = np.arange(width - at)
    return TokenBatch(ids, attention, rows, document, position, position_ids, packed)


def locate(
    texts: Texts, tokenizer: Any, tokenization: Tokenization, numbers: Iterable[int]
) -> Iterator[LocatedDocument]:
    """Read and tokenise documents again, by source number, to place their rows in their texts.

    Ascending, each once; rows in the order and with the values that `token_windows` gives.
    """
    found = _DocumentTokenizer(tokenizer, tokenization).tokens(texts.fetch(numbers))
    for tokens in found:
        rows = np.flatnonzero(tokens.reason == _ROW)
        yield LocatedDocument(
            tokens.number,
            tokens.name,
            tokens.text,
            tokens.ids[rows],
            rows,
            tokens.start[rows],
            tokens.end[rows],
        )


@dataclass(frozen=True)
class Prompt:
    """What a model is asked to go on from."""

    text: str  # the prompt, or the rendered conversation
    ids: Ints  # (n,) its tokens
    first_row: int  # tokens before the first that the row mask keeps: BOS, first, fixed prefix


_NO_LIMIT = 1 << 30


def tokenize_prompts(contents: Sequence[Any], tokenizer: Any, *, chat: bool) -> list[Prompt]:
    """Prompts (texts, or lists of messages) as tokens, none of them cut.

    Raises:
        SourceError: If one is a conversation and `chat` is False, or there is no template.
        ValueError: If one has no tokens.
    """
    settings = Tokenization(context_length=_NO_LIMIT, chat=chat)
    documents = [Document(i, content, f"prompt {i}") for i, content in enumerate(contents)]
    found = []
    for tokens in _DocumentTokenizer(tokenizer, settings).tokens(documents):
        rows = np.flatnonzero(tokens.reason == _ROW)
        if not len(tokens.ids):
            raise ValueError(f"{tokens.name} has no tokens; give a text")
        first = int(rows[0]) if len(rows) else len(tokens.ids)
        found.append(Prompt(tokens.text, tokens.ids, first))
    return found


def chat_prefix(tokenizer: Any) -> Ints:
    """(n,) tokens that the chat template puts before every user's message; none without one."""
    if not getattr(tokenizer, "chat_template", None):
        return np.empty(0, np.int64)
    first, second = tokenize_prompts(["A", "0 0"], tokenizer, chat=True)
    return first.ids[: common_prefix(first.ids, second.ids)]


def document_texts(
    texts: Texts, tokenizer: Any, tokenization: Tokenization, numbers: Iterable[int]
) -> Iterator[tuple[int, str, str]]:
    """(number, name, text) of documents by source number, ascending, each once: as `locate` gives
    them, without tokenising.
    """
    rendering = _DocumentTokenizer(tokenizer, tokenization)
    for document in texts.fetch(numbers):
        yield document.number, document.name, rendering.text(document)


def excerpt(
    text: str, start: int, end: int, before: int = 120, after: int = 60
) -> tuple[str, str, str]:
    """A token (characters `start` to `end`) with the text before and after it.

    At most `before` and `after` characters; fewer where the cut would part a combining mark or a
    joined emoji from what it belongs to.
    """
    start = min(max(start, 0), len(text))
    end = min(max(end, start), len(text))
    left, right = max(start - before, 0), min(end + after, len(text))
    while 0 < left < start and _joins(text[left - 1], text[left]):
        left += 1
    while end < right < len(text) and _joins(text[right - 1], text[right]):
        right -= 1
    return text[left:start], text[start:end], text[end:right]


def _joins(one: str, two: str) -> bool:
    joiner = "\u200d"
    return joiner in (one, two) or unicodedata.category(two).startswith("M")
