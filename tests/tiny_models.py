"""Random models of a few architectures, small enough to run in milliseconds, from config alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing

from exemplars.models import Model, load_model
from exemplars.tokenization import TokenBatch, TokenWindow

torch.set_num_threads(1)  # models this small only wait for a second thread

VOCABULARY = 512
WIDTH = 32
N_LAYERS = 3

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": N_LAYERS,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
}
_GATED = {"intermediate_size": 64, "num_key_value_heads": 2, "head_dim": 8}
_GEMMA = {"query_pre_attn_scalar": 8, "sliding_window": 8}

ARCHITECTURES: dict[str, dict[str, Any]] = {
    "gpt2": {},
    "gpt_neox": {"intermediate_size": 64},
    "llama": _GATED,
    "qwen2": {key: _GATED[key] for key in ("intermediate_size", "num_key_value_heads")},
    "gemma2": {**_GATED, **_GEMMA},
    "gemma3_text": {**_GATED, **_GEMMA},
    "olmo2": {key: _GATED[key] for key in ("intermediate_size", "num_key_value_heads")},
    "phi": {"intermediate_size": 64},
    "glm4": _GATED,
    "opt": {"ffn_dim": 64, "word_embed_proj_dim": WIDTH},
    "falcon": {"new_decoder_architecture": True, "num_kv_heads": 2},
    "mixtral": {**_GATED, "num_local_experts": 4},
}
"""Model type -> what its config needs beyond the sizes that all share."""


def tiny_module(architecture: str = "llama", seed: int = 0, **config: Any) -> Any:
    """A random causal language model of the architecture, in eval mode, in float32."""
    torch.manual_seed(seed)
    settings = transformers.AutoConfig.for_model(
        architecture, **{**_COMMON, **ARCHITECTURES.get(architecture, {}), **config}
    )
    module = transformers.AutoModelForCausalLM.from_config(settings)
    # As initialised, biases are 0, norms 1 and weights so small that attention hardly matters: what
    # is forgotten would not show.
    generator = torch.Generator().manual_seed(seed + 1)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = 0.2 * torch.randn(parameter.shape, generator=generator)
            parameter.copy_(parameter + noise if parameter.ndim == 1 else noise)
    return module.eval()


def tiny_tokenizer(bos: bool = True) -> Any:
    """A byte-level tokenizer with a merge or two; pad is BOS is EOS, as in GPT-2 and Pythia."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {"<|end|>": 0, **{character: i + 1 for i, character in enumerate(alphabet)}}
    merges = [("t", "h"), ("th", "e"), ("Ġ", "the")]
    for left, right in merges:
        vocabulary[left + right] = len(vocabulary)
    backend = Tokenizer(models.BPE(vocabulary, merges))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    if bos:
        backend.post_processor = TemplateProcessing(
            single="<|end|> $A", special_tokens=[("<|end|>", 0)]
        )
    backend.decoder = decoders.ByteLevel()
    return transformers.PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>", pad_token="<|end|>"
    )


def tiny_model(architecture: str = "llama", seed: int = 0, **config: Any) -> Model:
    """The random module of the architecture, with the byte-level tokenizer."""
    return load_model(tiny_module(architecture, seed, **config), tiny_tokenizer())


def batch_of(documents: list[list[int]], packed: bool = False) -> TokenBatch:
    """Token lists, numbered from 0, one in a batch row or all in one; the first token no row."""
    lines = [list(range(len(documents)))] if packed else [[i] for i in range(len(documents))]
    shape = (len(lines), max(sum(len(documents[i]) for i in line) for line in lines))
    ids, position_ids = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    document, position = np.full(shape, -1), np.full(shape, -1)
    for row, line in enumerate(lines):
        start = 0
        for i in line:
            part = (row, slice(start, start + len(documents[i])))
            ids[part], document[part] = documents[i], i
            position[part] = position_ids[part] = np.arange(len(documents[i]))
            start += len(documents[i])
    attention = document >= 0
    return TokenBatch(ids, attention, position > 0, document, position, position_ids, packed)


def window_of(*batches: TokenBatch) -> TokenWindow:
    """A window of batches of whole documents, rows in document order."""
    document = np.concatenate([batch.document[batch.rows] for batch in batches])
    position = np.concatenate([batch.position[batch.rows] for batch in batches])
    token = np.concatenate([batch.ids[batch.rows] for batch in batches])
    order = np.lexsort((position, document))
    destination = np.empty(len(order), np.int64)
    destination[order] = np.arange(len(order))
    sizes = np.cumsum([batch.rows.sum() for batch in batches])[:-1]
    numbers, counts = np.unique(document, return_counts=True)
    return TokenWindow(
        batches=batches,
        destination=tuple(np.split(destination, sizes)),
        document=document[order],
        position=position[order],
        token=token[order],
        start=position[order] * 3,
        end=position[order] * 3 + 3,
        documents=numbers.astype(np.int64),
        document_rows=counts.astype(np.int64),
        tokens_before=np.arange(len(order)),
        first_row=0,
        n_tokens=int(sum(batch.attention.sum() for batch in batches)),
        cursor={},
    )


def token_lists(sizes: tuple[int, ...] = (7, 12, 3, 9), seed: int = 0) -> list[list[int]]:
    """Random token ids: a document of each size, BOS first."""
    rng = np.random.default_rng(seed)
    return [[0, *ids_of(rng, size - 1).tolist()] for size in sizes]


def ids_of(rng: np.random.Generator, size: int) -> NDArray[np.int64]:
    """Token ids that the byte-level tokenizer has, BOS not among them."""
    return rng.integers(1, 250, size)
