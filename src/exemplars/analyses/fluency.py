"""Whether answers are still fluent, and what a change does to texts it should leave alone.

Two kinds of measures: of the answers' words (short, empty, repeating, varied), and of the model's
own probabilities (perplexity of answers; perplexity and divergence on neutral texts).
"""

from __future__ import annotations

import inspect
import math
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.geometry import Float32, Int64
from exemplars.models import Model, evaluating

if TYPE_CHECKING:
    import torch

Float64 = NDArray[np.float64]
GRAM = 4
"""Words in a row that count as repeated where they stood before in the same answer."""
LOGIT_BYTES = 256 << 20
"""Most bytes of one array of logits or log-probabilities: positions times vocabulary."""
BATCH_TOKENS = 2048
"""Most tokens in a forward pass of several texts, padding included."""

_UNSPACED = (
    (0x0E01, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17DC), (0x3005, 0x3007), (0x3041, 0x312F),
    (0x31A0, 0x31BF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0xFF66, 0xFF9D), (0x1B000, 0x1B16F), (0x20000, 0x323AF),
)  # fmt: skip
"""Code points of scripts that put no space between words: Thai, Lao, Burmese, Khmer, kana,
Bopomofo, and Chinese characters."""


@dataclass(frozen=True)
class AnswerFluency:
    """Of a set of answers: shares in [0, 1], NaN where no answer has what they are of."""

    short: float
    """Share of answers with fewer than three words; the empty ones are among them."""
    empty: float
    """Share without any word."""
    repetition: float
    """Mean over answers with four words or more of the share of their 4-grams that repeat."""
    distinct: float
    """Mean over answers with words of distinct words / words."""


@dataclass(frozen=True, eq=False)
class AnswersPerplexity:
    """How probable a model finds answers, given their prompts."""

    perplexity: float
    """Over all tokens of all answers together, each token counting alike; NaN without any."""
    per_answer: Float64
    """(N,) of each by itself; NaN where an answer has no tokens."""
    tokens: int
    """That were scored."""


@dataclass(frozen=True)
class NeutralEffect:
    """What a change of a model does to texts; NaN where no text has two tokens."""

    perplexity: float
    """Of the model as it is, over all tokens of all texts but the first of each."""
    changed_perplexity: float
    """Inside the change."""
    kl: float
    """Mean over the same tokens of KL(unchanged ‖ changed) of the next token, in nats."""
    tokens: int


class _Kinds(dict[int, str]):
    """What each code point is for `words`, found when it is first met."""

    def __missing__(self, code: int) -> str:
        category = unicodedata.category(chr(code))
        if chr(code) in "'’_":
            kind = "j"  # joins two parts of one word
        elif category[0] == "M" or code in (0x200C, 0x200D):
            kind = "m"  # belongs to the letter before it
        elif category[0] not in "LN":
            kind = " "
        else:
            kind = "c" if any(first <= code <= last for first, last in _UNSPACED) else "w"
        self[code] = kind
        return kind


_KINDS = _Kinds()


def words(answer: str) -> list[str]:
    """The words of a text, case-folded: runs of letters, digits and marks of any script.

    An apostrophe or an underscore between two of them does not part a word; all other punctuation
    and symbols do, and are no words. Scripts that put no space between words have no cheap words:
    there each letter with its marks is one, so in Chinese, Japanese, Thai, Lao, Burmese or Khmer
    "words" are characters, and values compare only with those of the same language.
    """
    kinds = answer.translate(_KINDS)
    found = re.finditer(r"cm*|w[wm]*(?:j+w[wm]*)*", kinds)
    return [answer[m.start() : m.end()].casefold().replace("’", "'") for m in found]


def is_short(answers: Sequence[str], at_least: int = 3) -> NDArray[np.bool_]:
    """(N,) whether an answer has fewer than so many words; with 1, whether it is empty."""
    return np.array([len(words(answer)) < at_least for answer in answers], np.bool_)


def repetition(answers: Sequence[str]) -> Float64:
    """(N,) the share in [0, 1) of an answer's 4-grams of words that stood before in it.

    1 - distinct / all 4-grams, the "rep-4" of Welleck et al. 2020 (arXiv:1908.04319) of one text
    by itself; 0 where there are fewer than four words.
    """
    return np.array([_repeated(words(answer)) for answer in answers], np.float64)


def distinct_words(answers: Sequence[str]) -> Float64:
    """(N,) distinct words / words (the type-token ratio) in (0, 1]; NaN where there are none.

    It falls as a text gets longer: compare answers of like length.
    """
    return np.array([_distinct(words(answer)) for answer in answers], np.float64)


def answer_fluency(answers: Sequence[str]) -> AnswerFluency:
    """The measures of words, over all answers; each NaN if there are no answers."""
    found = [words(answer) for answer in answers]
    return AnswerFluency(
        short=_mean([len(w) < 3 for w in found]),
        empty=_mean([not w for w in found]),
        repetition=_mean([_repeated(w) for w in found if len(w) >= GRAM]),
        distinct=_mean([_distinct(w) for w in found if w]),
    )


def token_log_probabilities(
    model: Model,
    ids_list: Sequence[Any],
    starts: Sequence[int],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Float32]:
    """Natural log-probabilities of tokens, each given all tokens of its text before it.

    Texts of like length share a forward pass, padded on the right. Of logits no more than
    `LOGIT_BYTES` are held at a time, where the model can compute them for some positions only;
    a text that needs more is passed over several times. The log-softmax is float32.

    Args:
        model: As it is now, hooks and all; in eval mode while this runs.
        ids_list: (N,) texts as token ids, special tokens included.
        starts: (N,) the first token of each that is scored; at least 1, as the first token of a
            text has nothing before it. With the text's length nothing of it is scored.
        batch_tokens: In one forward pass, padding included; one text may be longer.

    Returns:
        (N,) arrays float32 (n_i - starts[i],), at most 0.

    Raises:
        ValueError: A start out of range, ids that are none, or a text longer than the model reads.
    """
    import torch

    texts = _as_ids(model, ids_list)
    _check_starts(texts, starts)
    found = [np.empty(0, np.float32) for _ in texts]
    with _reading(model) as passes:
        for group in _groups(passes, texts, starts, batch_tokens):
            part = [texts[i] for i in group]
            first = min(starts[i] for i in group) - 1
            pieces: list[list[Float32]] = [[] for _ in group]
            for begin, end in passes.ranges(first, max(map(len, part)) - 1):
                logits = passes.logits(part, begin, end)
                targets = torch.from_numpy(passes.padded(part)[:, begin + 1 : end + 1])
                scored = _picked(logits, targets.to(logits.device))
                for row, i in enumerate(group):
                    mine = slice(max(starts[i] - 1 - begin, 0), len(texts[i]) - 1 - begin)
                    pieces[row].append(scored[row, mine])
            for i, several in zip(group, pieces, strict=True):
                found[i] = np.concatenate(several)
    return found


def perplexity(log_probabilities: Sequence[NDArray[Any]]) -> float:
    """exp(-mean) of natural log-probabilities over all tokens together; NaN if there are none.

    Args:
        log_probabilities: (N,) arrays (n_i,), as of `token_log_probabilities`.
    """
    tokens = sum(len(part) for part in log_probabilities)
    total = math.fsum(float(np.sum(part, dtype=np.float64)) for part in log_probabilities)
    return _exp(-total / tokens) if tokens else math.nan


def answers_perplexity(
    model: Model,
    prompt_ids: Sequence[Any],
    answer_ids: Sequence[Any],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> AnswersPerplexity:
    """How probable the model, as it is now, finds answers given their prompts.

    An answer ends before its first end token (the tokenizer's, or one that the model's generation
    settings name): neither that nor the padding after it is scored. Answers without tokens are
    left out.

    Args:
        model: The one that judges: unchanged, to see what a change did to answers.
        prompt_ids: (N,) token ids, each at least one.
        answer_ids: (N,) token ids, of any length.
        batch_tokens: Of `token_log_probabilities`.

    Raises:
        ValueError: A prompt without tokens, or another error of `token_log_probabilities`.
    """
    if len(prompt_ids) != len(answer_ids):
        raise ValueError(
            f"there are {len(prompt_ids)} prompts and {len(answer_ids)} answers; give one answer "
            "to each"
        )
    ends = _end_tokens(model)
    prompts = [_as_array(ids) for ids in prompt_ids]
    answers = [_before_end(_as_array(ids), ends) for ids in answer_ids]
    empty = [i for i, prompt in enumerate(prompts, 1) if not len(prompt)]
    if empty:
        raise ValueError(
            f"prompt {empty[0]} has no tokens, so the answer's first token has nothing before it; "
            "begin it with the BOS token"
        )
    scored = token_log_probabilities(
        model,
        [np.concatenate(pair) for pair in zip(prompts, answers, strict=True)],
        [len(prompt) for prompt in prompts],
        batch_tokens=batch_tokens,
    )
    return AnswersPerplexity(
        perplexity=perplexity(scored),
        per_answer=np.array([perplexity([part]) for part in scored], np.float64),
        tokens=sum(map(len, scored)),
    )


def neutral_effect(
    model: Model,
    ids_list: Sequence[Any],
    change: Callable[[], AbstractContextManager[Any]],
) -> NeutralEffect:
    """What a change of the model does to texts it should leave alone.

    Each text is read by itself, once as the model is and once inside `with change():`; texts whose
    logits are over `LOGIT_BYTES` in several parts. KL(p ‖ q) = Σ p (log p - log q) over the
    vocabulary, with p of the unchanged model and q of the changed one, in float64 from the float32
    log-softmax; rounding can bring it a little below 0, but of equal logits it is 0. A model that
    gives NaN gives NaN here.

    Args:
        model: As it is now.
        ids_list: Texts as token ids, special tokens included; those under two tokens are left out.
        change: Makes the context in which the model is changed, anew for each pass.

    Raises:
        ValueError: Ids that are none, or a text longer than the model reads.
    """
    import torch

    texts = _as_ids(model, ids_list)
    plain: list[Float32] = []
    changed: list[Float32] = []
    kl: list[Float64] = []
    with _reading(model) as passes:
        for ids in texts:
            for begin, end in passes.ranges(0, len(ids) - 1):
                one = passes.logits([ids], begin, end)
                with change():
                    two = passes.logits([ids], begin, end)
                targets = torch.from_numpy(ids[begin + 1 : end + 1]).to(one.device)[None]
                plain.append(_picked(one, targets)[0])
                changed.append(_picked(two, targets)[0])
                kl.append(_divergence(one[0], two[0]))
                del one, two
    divergence = np.concatenate(kl) if kl else np.empty(0)
    return NeutralEffect(
        perplexity=perplexity(plain),
        changed_perplexity=perplexity(changed),
        kl=float(divergence.mean()) if len(divergence) else math.nan,
        tokens=len(divergence),
    )


def _repeated(found: Sequence[str]) -> float:
    grams = list(zip(*(found[k:] for k in range(GRAM)), strict=False))
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def _distinct(found: Sequence[str]) -> float:
    return len(set(found)) / len(found) if found else math.nan


def _mean(values: Sequence[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _exp(value: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.exp(value))


class _Passes:
    """Forward passes of a model that hold a bounded number of logits."""

    def __init__(self, model: Model) -> None:
        self.model = model
        takes = inspect.signature(model.module.forward).parameters
        self.can_keep = "logits_to_keep" in takes
        self.fixed: dict[str, Any] = {"use_cache": False} if "use_cache" in takes else {}
        self.vocabulary = int(model.unembedding.weight.shape[0])

    def most_positions(self) -> int:
        """How many rows of float32 logits fit in `LOGIT_BYTES`; at least 1."""
        return max(LOGIT_BYTES // (4 * self.vocabulary), 1)

    def ranges(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Positions [first, last) of a text in parts whose logits fit; one if it cannot be cut.

        Several texts that share a pass fit in one part: see `_groups`.
        """
        step = self.most_positions() if self.can_keep else max(last - first, 1)
        for begin in range(first, last, step):
            yield begin, min(begin + step, last)

    def padded(self, texts: Sequence[Int64]) -> Int64:
        """(B, T) ids, 0 after the end of each text."""
        ids = np.zeros((len(texts), max(map(len, texts))), np.int64)
        for row, text in enumerate(texts):
            ids[row, : len(text)] = text
        return ids

    def logits(self, texts: Sequence[Int64], begin: int, end: int) -> torch.Tensor:
        """(B, end - begin, V) at the positions [begin, end) of right-padded texts."""
        import torch

        device = self.model.device
        ids = torch.from_numpy(self.padded(texts)).to(device)
        sizes = torch.tensor([len(text) for text in texts], device=device)
        attended = torch.arange(ids.shape[1], device=device) < sizes[:, None]
        kept = {"logits_to_keep": torch.arange(begin, end, device=device)} if self.can_keep else {}
        out = self.model.module(input_ids=ids, attention_mask=attended.long(), **self.fixed, **kept)
        found = out.logits if hasattr(out, "logits") else out[0]
        return found if found.shape[1] == end - begin else found[:, begin:end]


@contextmanager
def _reading(model: Model) -> Iterator[_Passes]:
    """Passes over a model in eval mode, without gradients."""
    import torch

    with evaluating(model.module), torch.no_grad():
        yield _Passes(model)


def _picked(logits: torch.Tensor, targets: torch.Tensor) -> Float32:
    """(B, T) log-softmax float32 of logits (B, T, V) at the targets (B, T), one text at a time."""
    import torch

    rows = [
        torch.log_softmax(part.float(), dim=-1).gather(-1, wanted[:, None])[:, 0]
        for part, wanted in zip(logits, targets, strict=True)
    ]
    return torch.stack(rows).cpu().numpy()


def _divergence(one: torch.Tensor, two: torch.Tensor) -> Float64:
    """(T,) KL(one ‖ two) in nats of two logits (T, V), in float64, some positions at a time."""
    import torch

    step = max(LOGIT_BYTES // 4 // (8 * one.shape[-1]), 1)
    parts = []
    for begin in range(0, len(one), step):
        p, q = (torch.log_softmax(x[begin : begin + step].float(), dim=-1) for x in (one, two))
        # A token of probability 0 adds 0, also where its logarithm is -inf in both.
        there = p != -math.inf
        each = torch.where(there, p.double().exp() * (p.double() - q.double()), 0.0)
        parts.append(each.sum(dim=-1).cpu().numpy())
    return np.concatenate(parts)


def _groups(
    passes: _Passes, texts: Sequence[Int64], starts: Sequence[int], batch_tokens: int
) -> Iterator[list[int]]:
    """Numbers of texts that share a pass, longest first; texts with nothing to score are in none.

    A group of several has logits that fit in one pass; one text alone may need several.
    """
    order = sorted(
        (i for i, text in enumerate(texts) if starts[i] < len(text)),
        key=lambda i: (-len(texts[i]), i),
    )
    group: list[int] = []
    first = 0
    for i in order:
        longest = len(texts[group[0]]) if group else len(texts[i])
        first_here = min([starts[i], *([first] if group else [])])
        rows = len(group) + 1
        held = rows * (longest - first_here if passes.can_keep else longest)
        if group and (rows * longest > batch_tokens or held > passes.most_positions()):
            yield group
            group, first_here = [], starts[i]
        group.append(i)
        first = first_here
    if group:
        yield group


def _as_array(ids: Any) -> Int64:
    """Token ids as int64 (n,)."""
    found = np.asarray(ids.cpu() if hasattr(ids, "cpu") else ids)
    if found.size == 0:
        return np.empty(0, np.int64)
    if found.ndim != 1 or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(
            f"token ids of shape {found.shape} and type {found.dtype} were given; give one list of "
            "whole numbers for each text"
        )
    return found.astype(np.int64)


def _as_ids(model: Model, ids_list: Sequence[Any]) -> list[Int64]:
    found = [_as_array(ids) for ids in ids_list]
    longest = max(map(len, found), default=0)
    limit = model.max_positions
    if limit is not None and longest > limit:
        raise ValueError(
            f"a text has {longest} tokens and {model.name} reads at most {limit}; shorten it"
        )
    return found


def _check_starts(texts: Sequence[Int64], starts: Sequence[int]) -> None:
    if len(texts) != len(starts):
        raise ValueError(
            f"there are {len(texts)} texts and {len(starts)} starts; give one start to each"
        )
    for number, (text, start) in enumerate(zip(texts, starts, strict=True), 1):
        if not 1 <= start <= max(len(text), 1):
            raise ValueError(
                f"text {number} has {len(text)} tokens and its start is {start}, expected 1 to its "
                "length"
            )


def _end_tokens(model: Model) -> list[int]:
    settings = getattr(model.module, "generation_config", None)
    named = getattr(settings, "eos_token_id", None)
    several = named if isinstance(named, (list, tuple)) else [named]
    own = getattr(model.tokenizer, "eos_token_id", None)
    return sorted({int(token) for token in (*several, own) if token is not None})


def _before_end(ids: Int64, ends: Sequence[int]) -> Int64:
    """The ids before the first end token."""
    at = np.flatnonzero(np.isin(ids, ends))
    return ids[: at[0]] if len(at) else ids
