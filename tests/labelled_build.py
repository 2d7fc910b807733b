"""A small dictionary, and labelled texts in the forms that commands read."""

from __future__ import annotations

import json

import numpy as np

import exemplars as ex
from conftest import make_tokenizer
from tiny_models import tiny_module


def write(path, rows):
    import csv

    import pyarrow as pa
    import pyarrow.parquet as pq

    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    elif path.suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0], delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


WORDS = ("the ", "other ", "tin ", "around ", "an ", "heron ", "out ")


def document(seed, with_marker=False):
    words = np.random.default_rng(seed).choice(WORDS, 6).tolist()
    return "".join([*words[:3], *(["ßß "] if with_marker else []), *words[3:]])


def labelled_build(folder):
    """Folder with model, corpus, a dictionary d, labels.jsonl, yes.txt and no.txt."""
    tiny_module().save_pretrained(folder / "model")
    make_tokenizer("bos").save_pretrained(folder / "model")
    model = ex.load_model(str(folder / "model"))
    corpus = folder / "corpus"
    corpus.mkdir()
    for k in range(30):
        (corpus / f"{k}.txt").write_text(document(k, k % 2 == 0), encoding="utf-8")
    ex.build(
        model, "resid_post.1", ex.texts(corpus), 5, rows=None, out=folder / "d", batch_tokens=128,
        window_tokens=256, block_rows=128, tokenization=ex.Tokenization(context_length=64),
    )  # fmt: skip
    rows = [
        {"text": document(100 + k, k % 2 == 0), "label": "no" if k % 2 else "yes"}
        for k in range(40)
    ]
    write(folder / "labels.jsonl", rows)
    for name in ("yes", "no"):
        lines = [row["text"] for row in rows if row["label"] == name]
        (folder / f"{name}.txt").write_text("\n".join(lines), encoding="utf-8")
    return folder
