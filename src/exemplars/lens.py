"""What a direction reads as: the tokens it promotes and suppresses through the unembedding."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from exemplars.errors import MismatchError

if TYPE_CHECKING:
    import torch

    from exemplars.dictionary import Dictionary
    from exemplars.models import Model

_BLOCK_BYTES = 1 << 30


@dataclass(frozen=True, eq=False)
class Lens:
    """Of each direction, the k tokens of largest and of smallest logit. Row i is direction i."""

    promoted_tokens: list[list[str]]  # (K, k), largest logit first
    promoted_logits: NDArray[np.float32]  # (K, k)
    suppressed_tokens: list[list[str]]  # (K, k), smallest logit first
    suppressed_logits: NDArray[np.float32]  # (K, k)


def logit_lens(model: Model, directions: NDArray[np.float32], k: int = 8, chunk: int = 256) -> Lens:
    """The tokens that directions promote and suppress, through the final norm and the unembedding.

    A direction passes the final norm as if it were the whole residual stream, and is multiplied
    with the unembedding's weight, its bias left out, all in float32. Scaling and capping of the
    logits, which some architectures add, would not change the order and are left out too.

    Args:
        model: With a language-model head.
        directions: (K, D), D the width of the residual stream.
        k: Tokens of each kind; all the tokenizer has, if fewer.
        chunk: Directions at a time: `chunk` times the vocabulary float32 are in memory at once,
            and 1 GiB of the unembedding.

    Raises:
        MismatchError: If the directions do not have the model's width.
        ValueError: If a direction is not finite, or the model has no final norm or unembedding.
    """
    import torch

    weight = model.unembedding.weight
    directions = _checked(model, directions, weight.shape[1])
    # An unembedding may be padded beyond the tokens that there are.
    vocabulary = min(len(weight), len(model.tokenizer))
    block_rows = _BLOCK_BYTES // (4 * weight.shape[1])
    norm = _in_float32(model.final_norm)
    promoted: list[_Best] = []
    suppressed: list[_Best] = []
    with torch.no_grad():
        parts = [
            norm.forward(torch.from_numpy(directions[i : i + chunk]).to(weight.device).float())
            for i in range(0, len(directions), chunk)
        ]
        for first in range(0, vocabulary, block_rows):
            block = weight[first : min(first + block_rows, vocabulary)].float()
            for i, part in enumerate(parts):
                logits = part @ block.T
                for best, largest in ((promoted, True), (suppressed, False)):
                    values, ids = logits.topk(min(k, len(block)), dim=1, largest=largest)
                    if first == 0:
                        best.append((values, ids))
                    else:
                        best[i] = _merged(best[i], (values, ids + first), k, largest)
    return Lens(*_read(model, promoted), *_read(model, suppressed))


def lens_probabilities(
    model: Model, directions: NDArray[np.float32], chunk: int = 64
) -> NDArray[np.float32]:
    """The distribution over tokens that each direction reads as: the softmax of its logits.

    The logits are those of `logit_lens`. A norm that rescales gives one distribution for a
    direction of any length; the model's own scaling and capping of logits is left out.

    Args:
        model: With a language-model head.
        directions: (K, D), D the width of the residual stream.
        chunk: Directions at a time.

    Returns:
        (K, V) float32, V the tokens that there are; each row sums to 1.

    Raises:
        MismatchError, ValueError: As of `logit_lens`.
    """
    vocabulary = min(len(model.unembedding.weight), len(model.tokenizer))
    scores = _token_scores(model, directions, "lens", chunk)
    found = [logits.softmax(dim=1).cpu().numpy() for logits in scores]
    return np.concatenate([np.empty((0, vocabulary), np.float32), *found])


def lens_entropies(
    model: Model, directions: NDArray[np.float32], chunk: int = 64
) -> NDArray[np.float32]:
    """How undecided each direction is about tokens: the entropy of `lens_probabilities`, in nats.

    0 where one token takes all, ln V where all V are alike.

    Args:
        model: With a language-model head.
        directions: (K, D), D the width of the residual stream.
        chunk: Directions at a time.

    Returns:
        (K,) float32.

    Raises:
        MismatchError, ValueError: As of `logit_lens`.
    """
    found = [np.empty(0, np.float32)]
    for logits in _token_scores(model, directions, "lens", chunk):
        logarithms = logits.log_softmax(dim=1)
        found.append(-(logarithms.exp() * logarithms).sum(dim=1).cpu().numpy())
    return np.concatenate(found)


def embedding_lens(
    model: Model, directions: NDArray[np.float32], k: int = 8
) -> tuple[list[list[str]], NDArray[np.float32]]:
    """The tokens whose input vectors point most along directions.

    Args:
        model: Any with an input embedding.
        directions: (K, D) in the space of the residual stream.
        k: Tokens of each; all the tokenizer has, if fewer.

    Returns:
        tokens: Of each direction, largest cosine first.
        cosines: (K, k) in [-1, 1].

    Raises:
        MismatchError, ValueError: As of `logit_lens`.
    """
    found = [
        scores.topk(min(k, scores.shape[1]), dim=1)
        for scores in _token_scores(model, directions, "embedding")
    ]
    tokens, cosines = _read(model, [(values, ids) for values, ids in found])
    return tokens, cosines


def contrast_lens(
    model: Model,
    vectors: NDArray[np.float32],
    reference: NDArray[np.float32],
    reading: str = "lens",
) -> NDArray[np.float32]:
    """How far each token's score lies above what reference vectors give it.

    A token's score of a vector is its logit through the final norm and the unembedding, or the
    cosine to its input vector. What comes back is the mean score over the vectors, less the mean
    over the reference, in standard deviations over the reference: a token whose score differs much
    from one vector to the next has to stand out further.

    Args:
        model: With a language-model head.
        vectors: (N, D) raw.
        reference: (M, D) raw, as of another model at the same positions.
        reading: "lens" or "embedding".

    Returns:
        (V,) one for each token that the tokenizer has.

    Raises:
        MismatchError, ValueError: As of `logit_lens`; or there are no vectors.
    """
    if not len(vectors) or not len(reference):
        raise ValueError("there are no vectors, or none to compare with; give some of both")
    mean, _ = _moments(model, vectors, reading)
    usual, spread = _moments(model, reference, reading)
    # Without a floor, tokens that hardly vary would stand out by rounding.
    return ((mean - usual) / (spread + 0.01 * usual.std())).astype(np.float32)


def top_tokens(model: Model, scores: NDArray[np.float32], k: int = 8) -> list[str]:
    """The k tokens of the largest scores (V,), largest first."""
    return token_texts(model.tokenizer, np.argsort(-scores, kind="stable")[:k])


def rank_of(model: Model, scores: NDArray[np.float32], word: str) -> int:
    """How many tokens have a larger score (V,) than the best form of a word; see `word_ranks`."""
    return int((scores > scores[word_tokens(model.tokenizer, word)].max()).sum())


def word_ranks(
    model: Model, directions: NDArray[np.float32], word: str
) -> dict[str, NDArray[np.int64]]:
    """Where a word stands among all tokens that directions read as.

    Of the word as it is, capitalised, and in capitals, each with and without a space before it,
    those count that are one token; a word that is none in any form counts by the first tokens.

    Args:
        model: With a language-model head.
        directions: (K, D).
        word: Any text.

    Returns:
        "lens" (as of `logit_lens`) and "embedding" (as of `embedding_lens`): (K,) the number of
        tokens that stand before the best of these forms, from 0.

    Raises:
        MismatchError, ValueError: As of `logit_lens`; or the word is empty.
    """
    ids = word_tokens(model.tokenizer, word)
    found = {}
    for reading in ("lens", "embedding"):
        ranks = [
            (scores > scores[:, ids].amax(1, keepdim=True)).sum(1).cpu().numpy()
            for scores in _token_scores(model, directions, reading)
        ]
        found[reading] = np.concatenate([np.empty(0, np.int64), *ranks])
    return found


def word_tokens(tokenizer: Any, word: str) -> list[int]:
    """Ids of the forms of a word that are one token; where none is, of the forms' first tokens."""
    if not word.strip():
        raise ValueError("the word is empty; give one")
    cases = dict.fromkeys((word, word.lower(), word.capitalize(), word.upper()))
    forms = [
        tokenizer(space + case, add_special_tokens=False)["input_ids"]
        for case in cases
        for space in ("", " ")
    ]
    whole = [form for form in forms if len(form) == 1]
    return sorted({form[0] for form in whole or forms})


def token_texts(tokenizer: Any, ids: Iterable[int]) -> list[str]:
    """Tokens as one reads them: " the", not "Ġthe"; bytes that are no character as "<0xE2>"."""
    ids = [int(i) for i in ids]
    backend = getattr(tokenizer, "backend_tokenizer", None)
    byte_level = hasattr(tokenizer, "byte_decoder") or (
        backend is not None and "ByteLevel" in json.dumps(json.loads(backend.to_str())["decoder"])
    )
    added = set(getattr(tokenizer, "added_tokens_decoder", {}))
    tokens = tokenizer.convert_ids_to_tokens(ids)
    return [
        f"<{i}>" if token is None else _text(token, byte_level and i not in added)
        for i, token in zip(ids, tokens, strict=True)
    ]


def _token_scores(
    model: Model, directions: NDArray[np.float32], reading: str, chunk: int = 64
) -> Iterator[torch.Tensor]:
    """(n, V) float32 for n directions at a time: logits, or cosines to input vectors."""
    import torch

    table = (model.unembedding if reading == "lens" else model.embedding).weight
    directions = _checked(model, directions, table.shape[1])
    with torch.no_grad():
        table = table[: min(len(table), len(model.tokenizer))].float()
        if reading == "embedding":
            table = table / table.norm(dim=1, keepdim=True).clamp_min(1e-12)
        norm = _in_float32(model.final_norm) if reading == "lens" else None
        for first in range(0, len(directions), chunk):
            part = torch.from_numpy(directions[first : first + chunk]).to(table.device)
            part = part / part.norm(dim=1, keepdim=True) if norm is None else norm.forward(part)
            yield part @ table.T


def _moments(
    model: Model, vectors: NDArray[np.float32], reading: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean and standard deviation of every token's score over vectors, each (V,)."""
    total = squares = np.zeros(1)
    for scores in _token_scores(model, vectors, reading):
        found = scores.double()
        total = total + found.sum(0).cpu().numpy()
        squares = squares + (found * found).sum(0).cpu().numpy()
    mean = total / len(vectors)
    return mean, np.sqrt(np.maximum(squares / len(vectors) - mean * mean, 0))


def _checked(model: Model, directions: NDArray[np.float32], width: int) -> NDArray[np.float32]:
    """A copy in float32 (torch takes no read-only memory).

    Raises:
        MismatchError: Another width.
        ValueError: A direction is not finite.
    """
    directions = np.array(directions, np.float32)
    if directions.ndim != 2 or directions.shape[1] != width:
        raise MismatchError(
            f"the directions have shape {tuple(directions.shape)} and the unembedding of "
            f"{model.name} reads width {width}; use the model they came from"
        )
    if not np.isfinite(directions).all():
        raise ValueError("a direction is not finite; leave out the regions that have no members")
    return directions


_Best = tuple["torch.Tensor", "torch.Tensor"]  # logits (n, k) and token ids (n, k)


def _in_float32(norm: Any) -> Any:
    """A copy of a norm that computes in float32; the module itself, and its hooks, stay out."""
    shadow = copy.copy(norm)
    for kind in ("_parameters", "_buffers"):
        tensors = getattr(norm, kind).items()
        shadow.__dict__[kind] = {
            name: tensor.float() if tensor is not None and tensor.is_floating_point() else tensor
            for name, tensor in tensors
        }
    return shadow


def _merged(one: _Best, two: _Best, k: int, largest: bool) -> _Best:
    import torch

    values, ids = torch.cat([one[0], two[0]], dim=1), torch.cat([one[1], two[1]], dim=1)
    values, order = values.topk(min(k, values.shape[1]), dim=1, largest=largest)
    return values, ids.gather(1, order)


def _read(model: Model, best: list[_Best]) -> tuple[list[list[str]], NDArray[np.float32]]:
    if not best:
        return [], np.empty((0, 0), np.float32)
    logits = np.concatenate([values.cpu().numpy() for values, _ in best])
    ids = np.concatenate([ids.cpu().numpy() for _, ids in best])
    texts = token_texts(model.tokenizer, ids.reshape(-1))
    k = ids.shape[1]
    return [texts[i : i + k] for i in range(0, len(texts), k)], logits


def _text(token: str, byte_level: bool) -> str:
    if not byte_level:
        return token.replace("▁", " ")
    alphabet = _byte_of()
    if not all(character in alphabet for character in token):
        return token
    raw = bytes(alphabet[character] for character in token)
    # Lone bytes come out of the decoder as surrogates U+DC80 to U+DCFF.
    text = raw.decode("utf-8", "surrogateescape")
    return "".join(f"<0x{ord(c) - 0xDC00:02X}>" if "\udc80" <= c <= "\udcff" else c for c in text)


@cache
def _byte_of() -> dict[str, int]:
    """The byte that each character of a byte-level vocabulary stands for (Radford et al. 2019)."""
    shown = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in shown]
    return {
        **{chr(byte): byte for byte in shown},
        **{chr(256 + i): byte for i, byte in enumerate(others)},
    }


def lens_table(model: Model, dictionary: Dictionary, k: int = 8) -> Any:
    """What every region of a dictionary reads as, to be stored beside it.

    Args:
        model: The model the dictionary is of.
        dictionary: At a site as wide as the residual stream.
        k: Tokens of each kind.

    Returns:
        A pyarrow table, row i for region i, with the list columns exemplar_promoted,
        exemplar_suppressed, mean_promoted, and mean_suppressed; the last two are empty where a
        region has no members.

    Raises:
        MismatchError: Another width than the model's.
    """
    import pyarrow as pa

    columns: dict[str, list[list[str]]] = {}
    for basis in ("exemplar", "mean"):
        rows = dictionary.basis(basis)
        usable = np.flatnonzero(np.isfinite(rows).all(axis=1))
        lens = logit_lens(model, rows[usable], k)
        for kind in ("promoted", "suppressed"):
            tokens: list[list[str]] = [[] for _ in range(len(rows))]
            for region, found in zip(usable, getattr(lens, f"{kind}_tokens"), strict=True):
                tokens[region] = found
            columns[f"{basis}_{kind}"] = tokens
    return pa.table({name: pa.array(v, pa.list_(pa.string())) for name, v in columns.items()})
