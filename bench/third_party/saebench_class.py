"""Is `exemplars.export.saebench_sae` an SAE that SAEBench takes? Needs sae-bench and exemplars.

Prints JSON: the largest difference to the readouts of the dictionary, by readout, on random rows;
whether SAEBench's own check of the decoder's norms passes; and its config as the evaluations get
it.
"""

import json
from dataclasses import replace
from importlib.metadata import version

import numpy as np
import torch
from sae_bench.custom_saes.base_sae import BaseSAE
from sae_bench.sae_bench_utils import general_utils

import exemplars as ex
from exemplars.export import saebench_sae
from exemplars.readout import READOUTS

NAMES = ("hook_name", "hook_layer", "dtype", "architecture")
SITE = {"name": "resid_post.3", "spellings": {"transformer_lens": "blocks.3.hook_resid_post"}}


def main() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(2_000, 64)).astype(np.float32) + 3
    dictionary = ex.partition(vectors, ex.calibrate(vectors, percentiles=[5]))
    dictionary = replace(dictionary, provenance={"site": SITE, "model": {"name": "gpt2"}})
    largest = {}
    for readout in READOUTS:
        sae = saebench_sae(dictionary, readout)
        expected = dictionary.encode(vectors, readout)
        expected = expected.toarray() if hasattr(expected, "toarray") else expected
        with torch.no_grad():
            codes = sae.encode(torch.from_numpy(vectors).reshape(20, 100, -1))
        found = codes.reshape(len(vectors), -1).numpy()
        largest[readout] = float(np.abs(found - expected).max())
    _, formatted, _ = general_utils.load_and_format_sae("exemplars", sae, "cpu")
    said = {
        "sae_bench": version("sae-bench"),
        "is_a_BaseSAE": isinstance(sae, BaseSAE),
        "regions": len(dictionary),
        "largest_difference": largest,
        "decoder_norms_pass": sae.check_decoder_norms(),
        "formatted": formatted is sae,
        "config": {name: str(getattr(sae.cfg, name)) for name in NAMES},
    }
    print(json.dumps(said))


if __name__ == "__main__":
    main()
