"""Answers of a model, in batches or token by token, with edits on it or none.

Batches hold prompts of like length. Where a model gives other numbers for a prompt padded on the
left than for the prompt alone, a batch holds prompts of one length only.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from exemplars.corpora import texts
from exemplars.intervene import Edit, edited, prefix_lengths
from exemplars.models import Model, evaluating
from exemplars.tokenization import Ints, Prompt, tokenize_prompts

PADDING = ("auto", "left", "none")
_POLL_S = 0.05


@dataclass(frozen=True, eq=False)
class Answer:
    """What a model wrote after a prompt."""

    prompt: str
    """As it was given: of a conversation, the last message."""
    text: str
    """Special tokens left out."""
    prompt_ids: Ints
    """(n,) with the chat template round it."""
    ids: Ints
    """(m,) of the answer, the token that ended it left out."""
    finished: bool
    """Whether the model ended it, not the limit."""


@dataclass(frozen=True)
class Piece:
    """One token of an answer while it is being written."""

    token: int
    text: str
    """The characters that this token completed; empty inside a character or a special token. Joined
    they are the answer's text."""


def generate(
    model: Model,
    prompts: Sequence[Any],
    edits: Edit | Sequence[Edit] = (),
    *,
    chat: bool | None = None,
    max_new_tokens: int = 64,
    batch_size: int = 16,
    padding: str = "auto",
    temperature: float = 0.0,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
) -> list[Answer]:
    """Answers to prompts, in their order.

    Args:
        model: From `load_model`.
        prompts: Texts, or conversations (lists of messages).
        edits: See `exemplars.intervene`; those of an enclosing `with` act too, before these.
        chat: Put texts through the chat template as a user's message; default: if there is one.
        max_new_tokens: Of each answer.
        batch_size: Prompts at once, at most.
        padding: "left"; "none": only prompts of one length share a batch; "auto": the first where
            `Model.pads_left_cleanly`, else the second.
        temperature: 0 takes the likeliest token each time; else tokens are drawn.
        seed: Of the drawing; each batch has its own stream.
        progress: Called with the number of answers that a batch added.

    Raises:
        ValueError: An argument out of range, a prompt and its answer too long for the model, or a
            model that does not generate.
        SourceError: A prompt that is neither text nor messages, or a conversation without a chat
            template.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}, expected a positive number")
    if padding not in PADDING:
        raise ValueError(f'padding is "{padding}"; choose {", ".join(PADDING)}')
    if isinstance(prompts, str):
        raise ValueError("prompts is one text, expected a list of them; put it into a list")
    _check(model, max_new_tokens, temperature, seed)
    found = _tokenized(model, prompts, chat)
    _check_length(model, found, max_new_tokens)
    padded = padding == "left" or (padding == "auto" and bool(found) and model.pads_left_cleanly)
    answers: list[Answer | None] = [None] * len(found)
    with edited(model, edits), evaluating(model.module):
        for number, batch in enumerate(_batches(found, batch_size, padded)):
            several = [found[i] for i in batch]
            settings = _settings(model, max_new_tokens, temperature)
            with _seeded(seed, number, temperature):
                written = _run(model, several, settings)
            for i, ids in zip(batch, written, strict=True):
                answers[i] = _answer(model, prompts[i], found[i], ids)
            if progress is not None:
                progress(len(batch))
    return [answer for answer in answers if answer is not None]


def stream(
    model: Model,
    prompt: Any,
    edits: Edit | Sequence[Edit] = (),
    *,
    chat: bool | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
    seed: int = 0,
    cancel: threading.Event | None = None,
) -> Iterator[Piece]:
    """An answer token by token.

    The model runs in a thread of its own, with the edits on it, from the first `next` until the
    answer ends, `cancel` is set, or the iterator is closed; then the edits are gone. Arguments as
    of `generate`; sampling draws from torch's global generator, which is put back.

    Raises:
        ValueError: As of `generate`.
        SourceError: A conversation without a chat template.
    """
    _check(model, max_new_tokens, temperature, seed)
    (found,) = _tokenized(model, [prompt], chat)
    _check_length(model, [found], max_new_tokens)
    settings = _settings(model, max_new_tokens, temperature)
    closed = threading.Event()
    tokens: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

    def stopped() -> bool:
        return closed.is_set() or (cancel is not None and cancel.is_set())

    def write() -> None:
        try:
            with edited(model, edits), evaluating(model.module), _seeded(seed, 0, temperature):
                _run(model, [found], settings, _Tap(tokens), stopped)
            tokens.put(None)
        except BaseException as error:
            tokens.put(error)

    return _pieces(model, settings, write, tokens, stopped, closed)


def _pieces(
    model: Model,
    settings: Any,
    write: Callable[[], None],
    tokens: queue.SimpleQueue[int | BaseException | None],
    stopped: Callable[[], bool],
    closed: threading.Event,
) -> Iterator[Piece]:
    """What `write`, in a thread, puts into the queue, as pieces of text."""
    thread = threading.Thread(target=contextvars.copy_context().run, args=(write,), daemon=True)
    ends, ids, text, shown = frozenset(settings.eos_token_id or ()), [], "", ""
    # A token inside a character waits for the next: the last one brings what is left.
    waiting: Piece | None = None
    thread.start()
    try:
        while True:
            try:
                token = tokens.get(timeout=_POLL_S)
            except queue.Empty:
                continue
            if isinstance(token, BaseException):
                raise token
            if stopped() or token is None:
                break
            if token in ends:
                continue
            if waiting is not None:
                yield waiting
            ids.append(token)
            text = _text(model, ids)
            # Part of a character decodes to U+FFFD until its last byte is there.
            whole = text.rstrip("\ufffd")
            if whole != text and not whole.startswith(shown):
                whole = shown  # bytes whose characters were shown are read again with new ones
            piece, shown = Piece(token, whole[len(shown) :]), whole
            waiting = piece if whole != text else None
            if waiting is None:
                yield piece
        if waiting is not None:
            yield Piece(waiting.token, waiting.text + text[len(shown) :])
    finally:
        closed.set()
        thread.join()


class _Tap:
    """What `generate` of transformers hands each token to."""

    def __init__(self, tokens: queue.SimpleQueue[Any]) -> None:
        self._tokens, self._prompt = tokens, True

    def put(self, value: Any) -> None:
        if self._prompt:
            self._prompt = False
            return
        for token in value.reshape(-1).tolist():
            self._tokens.put(token)

    def end(self) -> None:
        pass


def _check(model: Model, max_new_tokens: int, temperature: float, seed: int) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens is {max_new_tokens}, expected a positive number")
    if not 0 <= temperature < float("inf"):
        raise ValueError(f"the temperature is {temperature}, expected a number from 0 on")
    if seed < 0:
        raise ValueError(f"the seed is {seed}, expected a number from 0 on")
    if not hasattr(model.module, "generate"):
        raise ValueError(f"{model.name} has no generate method; load a causal language model")


def _tokenized(model: Model, prompts: Sequence[Any], chat: bool | None) -> list[Prompt]:
    if chat is None:
        chat = bool(getattr(model.tokenizer, "chat_template", None))
    contents = [document.content for document in texts(list(prompts))]
    return tokenize_prompts(contents, model.tokenizer, chat=chat)


def _check_length(model: Model, prompts: Sequence[Prompt], max_new_tokens: int) -> None:
    limit = model.max_positions
    longest = max((len(prompt.ids) for prompt in prompts), default=0)
    if limit is not None and longest + max_new_tokens > limit:
        raise ValueError(
            f"a prompt of {longest} tokens and an answer of {max_new_tokens} do not fit the "
            f"{limit} positions of {model.name}; shorten one of them"
        )


def _batches(prompts: Sequence[Prompt], batch_size: int, padded: bool) -> Iterator[list[int]]:
    """Numbers of prompts, by length; one length in a batch unless padding is clean."""
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].ids))
    batch: list[int] = []
    for i in order:
        other = batch and not padded and len(prompts[batch[0]].ids) != len(prompts[i].ids)
        if len(batch) == batch_size or other:
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _ends(model: Model) -> frozenset[int]:
    """Ids that end an answer: what the model's generation settings say, and the tokenizer's."""
    settings = getattr(model.module, "generation_config", None)
    told = getattr(settings, "eos_token_id", None)
    several = told if isinstance(told, list) else [told]
    return frozenset(i for i in (*several, model.tokenizer.eos_token_id) if isinstance(i, int))


def _settings(model: Model, max_new_tokens: int, temperature: float) -> Any:
    """Settings of a generation: none of the checkpoint's own penalties and cuts."""
    import transformers

    ends = sorted(_ends(model))
    fill = model.tokenizer.pad_token_id
    return transformers.GenerationConfig(
        max_new_tokens=max_new_tokens,
        do_sample=temperature > 0,
        temperature=temperature or None,
        top_k=0 if temperature > 0 else None,
        eos_token_id=ends or None,
        pad_token_id=fill if isinstance(fill, int) else (ends or [0])[0],
        use_cache=True,
    )


@contextmanager
def _alone(module: Any, settings: Any) -> Iterator[None]:
    """Settings as the module's own: `generate` fills in from those what it is not told."""
    own = getattr(module, "generation_config", None)
    module.generation_config = settings
    try:
        yield
    finally:
        module.generation_config = own


def _run(
    model: Model,
    prompts: Sequence[Prompt],
    settings: Any,
    tap: _Tap | None = None,
    stopped: Callable[[], bool] | None = None,
) -> list[list[int]]:
    """Token ids that a batch of left-padded prompts is continued with."""
    import torch

    width = max(len(prompt.ids) for prompt in prompts)
    ids = np.full((len(prompts), width), settings.pad_token_id, np.int64)
    attention = np.zeros((len(prompts), width), np.int64)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt.ids) :] = prompt.ids
        attention[row, width - len(prompt.ids) :] = 1

    def stop(ids: torch.Tensor, *_: Any) -> torch.Tensor:
        assert stopped is not None
        return torch.full((len(ids),), stopped(), device=ids.device)

    prefixes = np.array([prompt.first_row for prompt in prompts])
    with _known_prefixes(prefixes), _alone(model.module, settings), torch.no_grad():
        written = model.module.generate(
            input_ids=torch.from_numpy(ids).to(model.device),
            attention_mask=torch.from_numpy(attention).to(model.device),
            streamer=tap,
            stopping_criteria=[stop] if stopped is not None else None,
            generation_config=settings,
        )
    found: list[list[int]] = written[:, width:].tolist()
    return found


@contextmanager
def _known_prefixes(lengths: Ints) -> Iterator[None]:
    token = prefix_lengths.set(lengths)
    try:
        yield
    finally:
        prefix_lengths.reset(token)


@contextmanager
def _seeded(seed: int, number: int, temperature: float) -> Iterator[None]:
    """Torch's global generator at a place of its own, and then where it was.

    Untouched at temperature 0.
    """
    import torch

    if temperature == 0:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(int(np.random.SeedSequence([seed, number]).generate_state(1)[0]))
        yield


def _answer(model: Model, prompt: Any, found: Prompt, ids: list[int]) -> Answer:
    ends = _ends(model)
    stop = next((i for i, token in enumerate(ids) if token in ends), None)
    kept = ids if stop is None else ids[:stop]
    asked = prompt if isinstance(prompt, str) else str(prompt[-1]["content"])
    return Answer(asked, _text(model, kept), found.ids, np.array(kept, np.int64), stop is not None)


def _text(model: Model, ids: list[int]) -> str:
    """Characters of tokens; those of a token never change for what comes after it."""
    text: str = model.tokenizer.decode(
        ids, skip_special_tokens=True, clean_up_tokenization_spaces=False
    )
    return text
