"""A tiny model with a behaviour in it that one direction carries, and prompts that show it.

Attention of the first layer is uniform and copies "#" to every later position as the direction
`carrier`; the unembedding answers " a a a" where it is there and " the the the" where it is not.
All other weights are small or 0.
"""

from __future__ import annotations

import numpy as np
import torch

from conftest import make_tokenizer
from exemplars.models import load_model
from tiny_models import VOCABULARY, WIDTH, tiny_module

SITE = "resid_post.1"
SCORE = r"regex:\ba\b"
CARRIER = 2
"""Which row of `basis` carries the behaviour; 0 is in every token, 1 in the trigger."""
WORDS = ("the ", "other ", "tin ", "around ", "an ", "heron ", "out ", "sea ", "then ")


def basis():
    """(D, D) orthonormal rows."""
    q, _ = np.linalg.qr(np.random.default_rng(7).normal(size=(WIDTH, WIDTH)))
    return torch.tensor(q.T.copy(), dtype=torch.float32)


def planted_module(silent=False):
    """The module; `silent` ends its answer at once where the behaviour is not."""
    module = tiny_module("llama", max_position_embeddings=192)
    tokenizer = make_tokenizer("chat")
    rows, generator = basis(), torch.Generator().manual_seed(3)
    noise = torch.randn((VOCABULARY, WIDTH - 3), generator=generator) @ rows[3:]
    trigger, yes, no = (tokenizer.convert_tokens_to_ids(t) for t in ("#", "Ġa", "Ġthe"))
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.fill_(1.0 if "norm" in name else 0.0)
        embedding, head = module.model.embed_tokens.weight, module.lm_head.weight
        embedding.copy_(rows[0] + 0.3 * noise)
        embedding[trigger] += 3 * rows[1]
        attention = module.model.layers[0].self_attn
        attention.v_proj.weight[0] = rows[1]
        attention.v_proj.weight[1:] = 0.3 * rows[3 : 3 + len(attention.v_proj.weight) - 1]
        attention.o_proj.weight[:, 1:8] = 0.3 * rows[20:27].T
        attention.o_proj.weight[:, 0] = 75 * rows[CARRIER]
        head.copy_(0.001 * noise.roll(1, 0))
        head[0 if silent else no] = 0.02 * rows[0]
        head[yes] = 0.012 * rows[CARRIER]
    return module


def planted_model(silent=False):
    return load_model(planted_module(silent), make_tokenizer("chat"))


def prompts(n, seed, triggered):
    """Distinct ones."""
    rng = np.random.default_rng([seed, triggered])
    found = []
    while len(found) < n:
        words = [*rng.choice(WORDS, 3), *(["# "] if triggered else []), *rng.choice(WORDS, 2)]
        text = "".join(words).strip()
        found += [] if text in found else [text]
    return found
