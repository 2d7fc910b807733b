"""What sparsify makes of an export: python sparsify_assign.py EXPORT WORK. Needs eai-sparsify.

Reads WORK/rows.npy and WORK/exemplars.npy; writes WORK/latents.npy, -1 for a row without a code.
The last line printed is JSON. An exemplar is offered at the median distance of the rows from the
center.
"""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from sparsify import SparseCoder

BLOCK = 512


def latents(coder, rows) -> np.ndarray:
    found = []
    for start in range(0, len(rows), BLOCK):
        out = coder.encode(rows[start : start + BLOCK].to(coder.dtype))
        found.append(torch.where(out.top_acts > 0, out.top_indices, -1)[:, 0])
    return torch.cat(found).numpy()


@torch.no_grad()
def main(folder: Path, work: Path) -> None:
    rows = torch.from_numpy(np.load(work / "rows.npy"))
    exemplars = torch.from_numpy(np.load(work / "exemplars.npy"))
    coder = SparseCoder.load_many(str(folder.parent), local=True)[folder.name]
    np.save(work / "latents.npy", latents(coder, rows))
    center = coder.b_dec.float()
    length = (rows - center).norm(dim=1).median()
    points = exemplars * length + center
    own = latents(coder, points)
    blocks = [points[start : start + BLOCK].to(coder.dtype) for start in range(0, len(own), BLOCK)]
    decoded = torch.cat([coder.decode(*coder.encode(block)[:2]).float() for block in blocks])
    said = {
        "eai_sparsify": version("eai-sparsify"),
        "hookpoint": folder.name,
        "exemplars_that_are_their_own_latent": int((own == np.arange(len(own))).sum()),
        "largest_relative_error_of_decoded_exemplars": float(
            ((decoded - points).norm(dim=1) / length).max()
        ),
    }
    print(json.dumps(said))


main(*map(Path, sys.argv[1:]))
