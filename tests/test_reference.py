"""What the published implementation (arXiv:2605.14347, May 2026) answered on real activations.

The numbers lie in the shared data (data/reference; its README says how they were made): two
models, the streamed rows, and the author's center, thresholds, exemplars, membership, statistics,
and held-out assignments on a CPU. Nothing here is a number of our own.
"""

import json

import numpy as np
import pytest

from exemplars.calibration import calibrate
from exemplars.clustering import LeaderClustering
from exemplars.dictionary import partition
from exemplars.geometry import to_directions
from shared_data import shared_file

pytestmark = pytest.mark.real_model
CASES = [
    *(("smollm2_l15", p) for p in (1, 2, 4, 8, 10)),
    *(("gemma3_l9", p) for p in (5, 10, 20)),
]  # fmt: skip
_loaded = {}


def reference(name):
    """The facts, the tensors, and our calibration on the same sample, read once."""
    if name not in _loaded:
        from safetensors.torch import load_file

        tensors = load_file(shared_file("reference", f"{name}.safetensors"))
        facts = json.loads(shared_file("reference", f"{name}.json").read_text())
        arrays = {key: tensor.float().numpy() if tensor.is_floating_point() else tensor.numpy()
                  for key, tensor in tensors.items()}  # fmt: skip
        sample = arrays["activations"][: facts["calibration_batches"] * facts["batch_size"]]
        percentiles = [float(key[1:]) for key in facts["percentiles"]]
        ours = calibrate(sample, percentiles, block_rows=facts["batch_size"])
        _loaded[name] = facts, arrays, ours
    return _loaded[name]


@pytest.mark.parametrize("name", ["smollm2_l15", "gemma3_l9"])
def test_the_center_and_all_thresholds_are_the_published_implementations(name):
    facts, arrays, ours = reference(name)
    published = arrays["center"].astype(np.float64)
    assert np.linalg.norm(ours.center - published) < 1e-6 * np.linalg.norm(published)
    assert {p for n, p in CASES if n == name} == set(ours.thresholds)
    for p, threshold in ours.thresholds.items():
        assert abs(threshold - facts["percentiles"][f"p{p:g}"]["threshold"]) < 1e-6


@pytest.mark.parametrize(("name", "p"), CASES)
def test_exemplars_and_membership_are_the_published_implementations(name, p):
    facts, arrays, ours = reference(name)
    stream = arrays["activations"][: facts["n_stream"]]
    directions, _ = to_directions(stream, ours.center)
    clustering = LeaderClustering(
        stream.shape[1], ours.threshold(p), f"batch:{facts['batch_size']}"
    )
    joined = clustering.add(directions, np.arange(len(stream)))
    np.testing.assert_array_equal(clustering.exemplar_rows, arrays[f"p{p}.exemplar_row"])
    np.testing.assert_array_equal(joined.region, arrays[f"p{p}.joined_region"])
    np.testing.assert_allclose(joined.distance, arrays[f"p{p}.joined_distance"], rtol=0, atol=1e-5)
    assert clustering.n_regions == facts["percentiles"][f"p{p}"]["regions"]


@pytest.mark.parametrize(("name", "p"), CASES)
def test_the_dictionary_counts_and_assigns_as_the_published_implementation(name, p):
    facts, arrays, ours = reference(name)
    n = facts["n_stream"]
    made = partition(arrays["activations"][:n], ours, p, membership=f"batch:{facts['batch_size']}")
    np.testing.assert_array_equal(made.exemplar_rows, arrays[f"p{p}.exemplar_row"])
    np.testing.assert_array_equal(made.counts, arrays[f"p{p}.member_count"])
    np.testing.assert_allclose(made.coherence, arrays[f"p{p}.coherence"], rtol=0, atol=1e-5)
    region, distance = made.assign(arrays["activations"][n:])
    assert len(region) == facts["n_heldout"]
    np.testing.assert_array_equal(region, arrays[f"p{p}.heldout_region"])
    np.testing.assert_allclose(distance, arrays[f"p{p}.heldout_distance"], rtol=0, atol=1e-5)


def test_online_membership_differs_from_that_of_batches():
    """Else the tests above could not tell one from the other."""
    facts, arrays, ours = reference("smollm2_l15")
    made = partition(arrays["activations"][: facts["n_stream"]], ours, 1)
    assert (made.counts != arrays["p1.member_count"]).any()
