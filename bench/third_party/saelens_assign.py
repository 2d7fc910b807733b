"""What SAELens makes of an export: python saelens_assign.py EXPORT WORK. Needs sae-lens.

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
from sae_lens import SAE

BLOCK = 512


def latents(sae, rows) -> np.ndarray:
    found = []
    for start in range(0, len(rows), BLOCK):
        value, index = sae.encode(rows[start : start + BLOCK]).max(dim=-1)
        found.append(torch.where(value > 0, index, -1))
    return torch.cat(found).numpy()


@torch.no_grad()
def main(folder: Path, work: Path) -> None:
    rows = torch.from_numpy(np.load(work / "rows.npy"))
    exemplars = torch.from_numpy(np.load(work / "exemplars.npy"))
    sae = SAE.load_from_disk(str(folder))
    found = latents(sae, rows)
    np.save(work / "latents.npy", found)
    center = sae.b_dec.float()
    length = (rows - center).norm(dim=1).median()
    points = exemplars * length + center
    own = latents(sae, points)
    decoded = torch.cat([sae(points[s : s + BLOCK]).float() for s in range(0, len(points), BLOCK)])
    error = ((decoded - points).norm(dim=1) / length).max()
    sae.fold_W_dec_norm()
    folded = latents(sae, rows)
    said = {
        "sae_lens": version("sae-lens"),
        "hook_name": sae.cfg.metadata.hook_name,
        "exemplars_that_are_their_own_latent": int((own == np.arange(len(own))).sum()),
        "largest_relative_error_of_decoded_exemplars": float(error),
        "same_after_fold_W_dec_norm": int((folded == found).sum()),
    }
    print(json.dumps(said))


main(*map(Path, sys.argv[1:]))
