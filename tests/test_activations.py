"""Activations are the model's own, to the bit, and reading them leaves no trace."""

import dataclasses
import errno
import hashlib
import json
import os

import numpy as np
import pytest
import torch
from torch import nn

from exemplars.activations import (
    ActivationBatch,
    ActivationShards,
    ShardWriter,
    read_activations,
    window_activations,
)
from exemplars.corpora import texts
from exemplars.errors import ActivationError, FormatError
from exemplars.models import KINDS, load_model
from exemplars.tokenization import Tokenization, token_windows
from tiny_models import (
    ARCHITECTURES,
    N_LAYERS,
    WIDTH,
    batch_of,
    tiny_model,
    tiny_module,
    tiny_tokenizer,
    token_lists,
    window_of,
)

SITES = [f"{kind}.{layer}" for layer in range(N_LAYERS) for kind in KINDS]
PACKED_APART = [name for name in ARCHITECTURES if name not in ("opt", "falcon")]


@pytest.fixture
def window():
    return window_of(batch_of(token_lists()))


def read(model, sites, window):
    return {batch.site: batch.vectors for batch in window_activations(model, sites, window)}


def alone(documents):
    """A window of batches of one document each, numbered as in the list."""
    batches = []
    for number, ids in enumerate(documents):
        batch = batch_of([ids])
        batches.append(dataclasses.replace(batch, document=np.full_like(batch.document, number)))
    return window_of(*batches)


# --- values --------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_residual_stream_is_the_models_hidden_states(architecture, window):
    model = tiny_model(architecture)
    found = read(model, SITES, window)
    batch = window.batches[0]
    with torch.no_grad():
        hidden = model.module(
            torch.from_numpy(batch.ids),
            attention_mask=torch.from_numpy(batch.attention).long(),
            output_hidden_states=True,
        ).hidden_states
    rows = torch.from_numpy(batch.rows)
    for layer in range(N_LAYERS):
        assert torch.equal(found[f"resid_pre.{layer}"], hidden[layer][rows])
    for layer in range(N_LAYERS - 1):  # the last is normed in hidden_states
        assert torch.equal(found[f"resid_post.{layer}"], hidden[layer + 1][rows])


@pytest.mark.parametrize("architecture", ["llama", "gpt_neox", "gemma3_text"])
def test_many_sites_in_one_pass_equal_each_alone(architecture, window):
    model = tiny_model(architecture)
    together = read(model, SITES[::-1], window)
    assert list(together) == SITES[::-1]
    for site in SITES:
        assert torch.equal(read(model, [site], window)[site], together[site])


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_right_padding_does_not_matter(architecture, window):
    model = tiny_model(architecture)
    padded, apart = read(model, SITES, window), read(model, SITES, alone(token_lists()))
    for site in SITES:
        torch.testing.assert_close(padded[site], apart[site], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", PACKED_APART)
def test_packed_documents_equal_documents_apart(architecture, window):
    model = tiny_model(architecture)
    packed = read(model, SITES, window_of(batch_of(token_lists(), packed=True)))
    for site, vectors in read(model, SITES, window).items():
        torch.testing.assert_close(packed[site], vectors, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["opt", "falcon"])
def test_an_architecture_that_mixes_packed_documents_is_refused(architecture):
    with pytest.raises(ValueError, match="attend to each other; use packing"):
        read(tiny_model(architecture), SITES, window_of(batch_of(token_lists(), packed=True)))


def test_an_architecture_without_position_ids_packs_nothing():
    with pytest.raises(ValueError, match="takes no position_ids"):
        read(tiny_model("bloom"), ["resid_post.1"], window_of(batch_of(token_lists(), packed=True)))


def test_rows_arrive_in_document_order_whatever_the_batches():
    documents = token_lists()
    model = tiny_model("gpt2")
    one, batch = window_of(batch_of(documents)), batch_of(documents)
    arrays = {f.name: getattr(batch, f.name) for f in dataclasses.fields(batch)}
    arrays = {key: value[[2, 0, 3, 1]] for key, value in arrays.items() if key != "packed"}
    shuffled = window_of(type(batch)(**arrays))
    np.testing.assert_array_equal(shuffled.document, one.document)
    found = read(model, ["resid_pre.0"], shuffled)["resid_pre.0"]
    embedded = model.base.wte.weight[one.token] + model.base.wpe.weight[one.position]
    assert torch.equal(found, embedded)


def test_texts_become_activations_in_one_call():
    model = tiny_model()
    source = texts(["the cat sat on the mat", "here", "the other one and the last"])
    settings = Tokenization(context_length=16)
    found = list(
        read_activations(model, "blocks.1.hook_resid_post", source, settings, window_tokens=8)
    )
    windows = list(token_windows(source, model.tokenizer, settings, window_tokens=8))
    assert len(found) == len(windows) > 1
    for (batch,), window in zip(found, windows, strict=True):
        assert batch.site == "resid_post.1"
        assert batch.first_row == window.first_row
        assert batch.vectors.shape == (len(window.token), WIDTH)
        assert torch.equal(batch.vectors, read(model, ["resid_post.1"], window)["resid_post.1"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_vectors_keep_the_models_dtype(dtype, window):
    model = load_model(tiny_module().to(dtype), tiny_tokenizer())
    assert {v.dtype for v in read(model, ["resid_post.1", "mlp_out.0"], window).values()} == {dtype}


def test_a_window_without_rows_gives_no_vectors(window):
    batch = dataclasses.replace(window.batches[0], rows=np.zeros_like(window.batches[0].rows))
    empty = window_of(batch)
    assert read(tiny_model(), ["resid_post.1"], empty)["resid_post.1"].shape == (0, WIDTH)


# --- no further than asked, and no trace ---------------------------------------------------------


@pytest.mark.parametrize(
    ("sites", "layers_run"),
    [
        (["resid_pre.0"], 0),
        (["resid_post.0"], 1),
        (["resid_pre.2", "resid_post.0"], 2),
        (["resid_post.1", "resid_pre.0", "attn_out.0"], 2),
        (["mlp_out.1", "attn_out.1"], 1),
    ],
)
def test_no_layer_beyond_the_deepest_site_runs(sites, layers_run, window):
    model = tiny_model()
    finished = []
    for number, layer in enumerate(model.layers):
        layer.register_forward_hook(lambda *_, number=number: finished.append(number))
    model.unembedding.register_forward_hook(lambda *_: finished.append("unembedding"))
    read(model, sites, window)
    assert finished == list(range(layers_run))


def traces(module):
    return [
        (m.training, list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()))
        for m in module.modules()
    ]


@pytest.mark.parametrize("architecture", ["gpt2", "llama", "gemma3_text"])
def test_a_reading_leaves_the_model_as_it_was(architecture, window):
    model = tiny_model(architecture)
    ids = torch.from_numpy(window.batches[0].ids)
    model.module.train()
    model.layers[1].eval()
    users = []
    model.layers[0].register_forward_hook(lambda *_: users.append("ran"))
    with torch.no_grad():
        model.layers[1].eval()
        before = traces(model.module)
        model.module.eval()
        expected = model.module(ids).logits
        model.module.train()
        model.layers[1].eval()
    assert traces(model.module) == before
    read(model, SITES, window)
    assert traces(model.module) == before
    assert users == ["ran", "ran"]
    model.module.eval()
    with torch.no_grad():
        assert torch.equal(model.module(ids).logits, expected)


def test_a_forward_under_our_hooks_gives_equal_bits(window):
    # A site of the unembedding lets the whole model run under the hooks.
    model = tiny_model()
    batch = window.batches[0]
    with torch.no_grad():
        logits = model.module(
            torch.from_numpy(batch.ids), attention_mask=torch.from_numpy(batch.attention).long()
        ).logits
    found = read(model, [*SITES, "lm_head"], window)["lm_head"]
    assert torch.equal(found, logits[torch.from_numpy(batch.rows)])


def test_a_model_that_raises_is_left_as_it_was(window):
    model = tiny_model()
    model.module.train()

    def fail(*_):
        raise RuntimeError("out of memory")

    handle = model.layers[1].register_forward_hook(fail)
    before = traces(model.module)
    with pytest.raises(RuntimeError, match="out of memory"):
        read(model, SITES, window)
    assert traces(model.module) == before
    handle.remove()
    assert read(model, SITES, window)


def test_a_reading_leaves_nothing_that_stops_training():
    class Caching(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.out, self.table = nn.Embedding(512, 8), nn.Linear(8, 8), None

        def forward(self, ids):
            if self.table is None:
                self.table = torch.linspace(0.5, 1, 8) * 2
            return self.out(self.embed(ids) * self.table)

    module = Caching()
    read(load_model(module, tiny_tokenizer()), ["out"], window_of(batch_of(token_lists())))
    module(torch.tensor([[1, 2]])).sum().backward()
    assert module.embed.weight.grad is not None


def test_a_module_that_runs_twice_is_read_at_its_first_call(window):
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.shared, self.end = nn.Embedding(512, 8), nn.Linear(8, 8), nn.Identity()

        def forward(self, ids):
            return self.end(self.shared(self.shared(self.embed(ids))))

    model = load_model(Twice(), tiny_tokenizer())
    both = read(model, ["shared", "end"], window)
    assert torch.equal(both["shared"], read(model, ["shared"], window)["shared"])
    torch.testing.assert_close(both["end"], model.module.shared(both["shared"]))


def test_training_mode_adds_no_dropout(window):
    quiet = tiny_model("gpt2")
    noisy = tiny_model("gpt2", resid_pdrop=0.5, embd_pdrop=0.5)
    noisy.module.train()
    assert torch.equal(*(read(m, ["resid_post.1"], window)["resid_post.1"] for m in (quiet, noisy)))


# --- what cannot be used -----------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_value_that_is_not_finite_is_named(value, window):
    model = tiny_model()
    row = 12
    number, position = int(window.document[row]), int(window.position[row])

    def spoil(module, args, output):
        output = output.clone()
        output[number, position, 5] = value
        return output

    model.layers[1].register_forward_hook(spoil)
    assert read(model, ["resid_post.0"], window)
    with pytest.raises(
        ActivationError,
        match=rf"resid_post.1 .* document {number}, position {position}, in float32; check",
    ):
        read(model, ["resid_post.1"], window)


def test_float16_overflow_says_which_dtype_to_take(window):
    module = tiny_module().half()
    with torch.no_grad():
        module.model.layers[1].mlp.down_proj.weight.fill_(60000)
    with pytest.raises(ActivationError, match=r"in float16; .* --dtype bfloat16 or float32"):
        read(load_model(module, tiny_tokenizer()), ["resid_post.1"], window)


def test_large_finite_values_pass(window):
    module = tiny_module()
    with torch.no_grad():
        module.model.embed_tokens.weight.fill_(3e38)
    model = load_model(module, tiny_tokenizer())
    assert read(model, ["model.embed_tokens"], window)["model.embed_tokens"].isfinite().all()


def test_a_padded_or_masked_token_may_hold_anything(window):
    model = tiny_model()
    rows = torch.from_numpy(window.batches[0].rows)

    def spoil(module, args, output):
        return output.masked_fill(~rows[..., None], float("nan"))

    model.layers[2].register_forward_hook(spoil)
    assert read(model, ["resid_post.2"], window)["resid_post.2"].isfinite().all()


def test_a_site_without_a_vector_per_token_is_refused(window):
    with pytest.raises(ActivationError, match="not a vector for each; name another site"):
        read(tiny_model(), ["model.rotary_emb"], window)


def test_a_site_that_never_runs_is_refused(window):
    model = tiny_model()
    model.module.model.spare = nn.Linear(2, 2)
    with pytest.raises(ActivationError, match=r"model\.spare was not reached"):
        read(model, ["resid_post.1", "model.spare"], window)


def test_a_piece_longer_than_the_model_reads_is_refused():
    with pytest.raises(ValueError, match=r"has 65 tokens and .* at most 64; lower context_length"):
        read(tiny_model(), ["resid_post.1"], window_of(batch_of(token_lists((65,)))))


def test_a_place_named_twice_is_refused(window):
    with pytest.raises(ValueError, match="name one place twice"):
        read(tiny_model(), ["resid_post.1", "model.layers.1"], window)


# --- shards --------------------------------------------------------------------------------------

NUMBERS = [7, 3, 5, 4]
ROWS = [3, 0, 6, 2]


def batches(first_row, n, dtype=torch.float32, sites=("resid_post.1", "mlp_out.0")):
    generator = torch.Generator().manual_seed(first_row)
    fields = {
        key: np.arange(n) + 1000 * i + first_row
        for i, key in enumerate(("document", "position", "token", "start", "end"))
    }
    return tuple(
        ActivationBatch(
            site,
            torch.randn(n, WIDTH + i, generator=generator).to(dtype),
            **fields,
            first_row=first_row,
        )
        for i, site in enumerate(sites)
    )


def write(folder, n_windows=4, dtype=torch.float32, shard_bytes=3000, close=True):
    """Windows of 11 rows from row 100 on; documents 0-2 rows long or more; the last one goes on."""
    sites = {"resid_post.1": WIDTH, "mlp_out.0": WIDTH + 1}
    writer = ShardWriter(
        folder, list(sites), list(sites.values()), dtype, {"model": "tiny"}, shard_bytes=shard_bytes
    )
    windows = []
    for i in range(n_windows):
        numbers = np.array(NUMBERS) + 10 * i
        numbers[0] = (
            NUMBERS[-1] + 10 * (i - 1) if i else numbers[0]
        )  # goes on from the window before
        window = batches(100 + 11 * i, 11, dtype), numbers, np.array(ROWS), np.arange(11) + 50 * i
        writer.write_documents(
            (int(n), None if n % 2 else "even", f"text {n} ü\0") for n in numbers
        )
        writer.append(*window)
        windows.append(window)
    if close:
        writer.close()
    return windows


def joined(windows, column):
    """One array or tensor of all windows' rows: a site's vectors, or a row field."""
    parts = []
    for batches_, _, _, tokens_before in windows:
        by_site = {batch.site: batch.vectors for batch in batches_}
        if column == "tokens_before":
            parts.append(torch.from_numpy(tokens_before))
        elif column in by_site:
            parts.append(by_site[column])
        else:
            parts.append(torch.from_numpy(getattr(batches_[0], column)))
    return torch.cat(parts)


def counts(windows):
    """(document, rows), a document that goes on counted once."""
    found = []
    for _, documents, document_rows, _ in windows:
        for number, rows in zip(documents.tolist(), document_rows.tolist(), strict=True):
            if found and found[-1][0] == number:
                found[-1][1] += rows
            else:
                found.append([number, rows])
    return found


COLUMNS = ["resid_post.1", "mlp_out.0", "document", "position", "token", "start", "end"]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("shard_bytes", [200, 3000, 1 << 20])
def test_shards_give_back_what_was_written(dtype, shard_bytes, tmp_path):
    written = write(tmp_path, dtype=dtype, shard_bytes=shard_bytes)
    shards = ActivationShards.open(tmp_path)
    assert (shards.rows, shards.dtype, shards.complete) == (44, dtype, True)
    assert (shards.sites, shards.width("mlp_out.0")) == (("resid_post.1", "mlp_out.0"), WIDTH + 1)
    assert shards.describe == {"model": "tiny"}
    found = list(shards.windows())
    assert [w[0][0].first_row for w in found] == list(
        100 + np.cumsum([0, *(len(w[3]) for w in found)])[:-1]
    )
    for column in [*COLUMNS, "tokens_before"]:
        assert torch.equal(joined(found, column), joined(written, column))
    assert counts(found) == counts(written)
    for _, documents, document_rows, tokens_before in found:
        assert len(set(documents.tolist())) == len(documents)
        assert document_rows.sum() == len(tokens_before)
    assert {p.suffix for p in tmp_path.iterdir()} == {".json", ".safetensors", ".parquet"}
    largest = max(p.stat().st_size for p in tmp_path.glob("*.safetensors"))
    assert largest < shard_bytes + 2500  # a header, a row


@pytest.mark.parametrize("start_row", [0, 100, 101, 105, 111, 120, 143, 144, 999])
def test_shards_are_read_from_any_row(start_row, tmp_path):
    written = write(tmp_path)
    found = list(ActivationShards.open(tmp_path).windows(["mlp_out.0"], start_row))
    skipped = min(max(0, start_row - 100), 44)
    rows = sum(len(tokens_before) for *_, tokens_before in found)
    assert rows == 44 - skipped
    if rows:
        assert found[0][0][0].first_row == max(100, start_row)
        assert [b.site for b in found[0][0]] == ["mlp_out.0"]
        assert torch.equal(joined(found, "mlp_out.0"), joined(written, "mlp_out.0")[skipped:])
        assert sum(n for _, n in counts(found)) == rows


def test_shards_carry_their_texts(tmp_path):
    write(tmp_path, n_windows=2)
    shards = ActivationShards.open(tmp_path)
    numbers = [7, 3, 5, 4, 13, 15, 14]
    assert list(shards.texts()) == [
        (n, None if n % 2 else "even", f"text {n} ü\0") for n in numbers
    ]
    assert [n for n, _, _ in shards.texts([15, 7, 4])] == [7, 4, 15]
    with pytest.raises(ValueError, match="no text of document 99"):
        list(shards.texts([99]))


def test_a_killed_writer_leaves_the_shards_before(tmp_path):
    written = write(tmp_path, close=False)
    shards = ActivationShards.open(tmp_path)
    assert not shards.complete
    assert 0 < shards.rows < 44
    found = list(shards.windows())
    for column in COLUMNS:
        assert torch.equal(joined(found, column), joined(written, column)[: shards.rows])
    texts_kept = {number for number, _, _ in shards.texts()}
    assert {n for _, documents, _, _ in found for n in documents.tolist()} <= texts_kept


def test_a_full_disk_leaves_the_shards_before(tmp_path, monkeypatch):
    sync, calls = os.fsync, []

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > 6:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path)
    shards = ActivationShards.open(tmp_path)
    assert 0 < shards.rows < 44
    assert sum(len(w[3]) for w in shards.windows()) == shards.rows
    assert not list(tmp_path.glob("*.partial"))


@pytest.mark.parametrize("damage", ["truncate", "alter", "remove"])
@pytest.mark.parametrize("kind", ["shard-000001.safetensors", "documents-000001.parquet"])
def test_a_damaged_file_is_named(damage, kind, tmp_path):
    write(tmp_path)
    path = tmp_path / kind
    content = bytearray(path.read_bytes())
    if damage == "remove":
        path.unlink()
    elif damage == "truncate":
        path.write_bytes(content[: len(content) // 2])
    else:
        content[-3] ^= 1
        path.write_bytes(content)
    shards = ActivationShards.open(tmp_path)
    reading = shards.windows() if "shard" in kind else shards.texts()
    with pytest.raises(FormatError, match=kind):
        list(reading)


def test_what_is_not_an_index_is_named(tmp_path):
    with pytest.raises(FormatError, match=r"no activations\.json"):
        ActivationShards.open(tmp_path)
    (tmp_path / "activations.json").write_text("{")
    with pytest.raises(FormatError, match="not an index of shards"):
        ActivationShards.open(tmp_path)
    (tmp_path / "activations.json").write_text(json.dumps({"format_version": 99}))
    with pytest.raises(FormatError, match="format version 99"):
        ActivationShards.open(tmp_path)


def test_shards_of_equal_activations_are_equal_bytes(tmp_path):
    for name in ("one", "two"):
        write(tmp_path / name)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_writer_refuses_what_does_not_belong(tmp_path):
    write(tmp_path / "full")
    with pytest.raises(ValueError, match="holds activations already"):
        write(tmp_path / "full")
    writer = ShardWriter(tmp_path / "a", ["resid_post.1"], [WIDTH], "float32", {})
    rest = np.array([1]), np.array([4]), np.arange(4)
    sites = ("resid_post.1",)
    for wrong in (batches(0, 4, torch.float16, sites), batches(0, 4), batches(0, 3, sites=sites)):
        with pytest.raises(ValueError, match=r"write them apart|document_rows"):
            writer.append(wrong, *rest)
    writer.append(batches(0, 4, sites=sites), *rest)
    with pytest.raises(ValueError, match="start at row 5 and the shards end before row 4"):
        writer.append(batches(5, 4, sites=sites), *rest)
    with pytest.raises(ValueError, match=r"no site 'resid_post\.9'"):
        list(ActivationShards.open(tmp_path / "full").windows(["resid_post.9"]))


def test_a_window_without_rows_leaves_nothing_whatever_its_width(tmp_path):
    nothing = np.array([4, 5]), np.array([0, 0]), np.arange(0)
    empty = batches(4, 0, torch.float16, ("resid_post.1",))
    some = np.array([1, 2]), np.array([1, 3]), np.arange(4)
    with ShardWriter(tmp_path, ["resid_post.1"], [WIDTH], "float32", {}) as writer:
        writer.append(empty, *nothing)
        writer.append(batches(0, 4, sites=("resid_post.1",)), *some)
        writer.mark({"ordinal": 1}, {})
        writer.append(empty, *nothing)
        writer.mark({"ordinal": 2}, {})
    shards = ActivationShards.open(tmp_path)
    assert len(list(tmp_path.glob("*.safetensors"))) == 1
    assert shards.cursor == {"ordinal": 2}
    for start_row, n in ((0, 1), (3, 1), (4, 0)):
        windows = list(shards.windows(start_row=start_row))
        assert len(windows) == n
        assert all(len(tokens_before) for *_, tokens_before in windows)


def test_sites_of_several_dtypes_are_kept_each_in_its_own(tmp_path):
    sites = ["resid_post.1", "mlp_out.0"]
    dtypes = [torch.float32, torch.bfloat16]
    (one,) = batches(0, 5, dtypes[0], sites[:1])
    (two,) = batches(0, 5, dtypes[1], sites[1:])
    window = np.array([1]), np.array([5]), np.arange(5)
    writer = ShardWriter(tmp_path, sites, [one.vectors.shape[1]] * 2, dtypes, {})
    writer.mark(None, {})
    with pytest.raises(ValueError, match=r"mlp_out\.0 \(.*bfloat16\), resid.*write them apart"):
        writer.append((two, one), *window)
    with ShardWriter.resume(tmp_path) as writer:
        writer.append((one, two), *window)
    shards = ActivationShards.open(tmp_path)
    assert [shards.dtype_of(site) for site in sites] == dtypes
    with pytest.raises(ValueError, match=r"several dtypes \(bfloat16, float32\).*dtype_of"):
        _ = shards.dtype
    ((found, *_),) = shards.windows()
    for a, b in zip(found, (one, two), strict=True):
        assert a.vectors.dtype == b.vectors.dtype
        assert torch.equal(a.vectors, b.vectors)


def by_document(n_documents=40, seed=0):
    """Documents in stream order with their rows: (number, {field: (n,)}), some without rows."""
    rng = np.random.default_rng(seed)
    numbers = rng.permutation(3 * n_documents)[:n_documents]
    rows = rng.choice([0, 1, 2, 9], n_documents)
    edges = np.cumsum([0, *rows])
    fields = {key: rng.integers(0, 999, edges[-1]) for key in ("token", "position", "start", "end")}
    return [
        (int(n), {key: values[a:b] for key, values in fields.items()})
        for n, a, b in zip(numbers, edges, edges[1:], strict=False)
    ]


@pytest.mark.parametrize("shard_rows", [1, 4, 1000])
@pytest.mark.parametrize("wanted", ["all", "some", "two", "rowless"])
def test_documents_are_located_where_their_rows_are(shard_rows, wanted, tmp_path):
    documents = by_document()
    writer = ShardWriter(
        tmp_path, ["resid_post.1"], [1], "float32", {}, shard_bytes=52 * shard_rows
    )
    first = 0
    for k in range(0, len(documents), 7):  # seven documents a window
        part = documents[k : k + 7]
        counts_ = np.array([len(fields["token"]) for _, fields in part])
        joined_ = {key: np.concatenate([f[key] for _, f in part]) for key in part[0][1]}
        numbers = np.array([n for n, _ in part])
        n = int(counts_.sum())
        vectors = torch.zeros(n, 1)
        batch = ActivationBatch(
            "resid_post.1", vectors, np.repeat(numbers, counts_), first_row=first, **joined_
        )
        writer.write_documents((int(number), None, f"text {number}") for number in numbers)
        writer.append((batch,), numbers, counts_, np.arange(n) + first)
        first += n
    writer.close()
    sought = {
        "all": documents,
        "some": documents[3::5],
        "two": [documents[8], documents[-1]],
        "rowless": [d for d in documents if not len(d[1]["token"])],
    }[wanted]
    found = list(ActivationShards.open(tmp_path).locate([n for n, _ in sought][::-1]))
    assert [d.text for d in found] == [f"text {d.number}" for d in found]
    with_rows = [n for n, fields in sought if len(fields["token"])]
    assert [d.number for d in found if len(d.token)] == with_rows  # in stream order
    expected = dict(sought)
    assert {d.number for d in found} == set(expected)
    assert len(found) == len(expected)
    for document in found:
        for key, values in expected[document.number].items():
            np.testing.assert_array_equal(getattr(document, key), values)
    with pytest.raises(ValueError, match="no text of document 999"):
        list(ActivationShards.open(tmp_path).locate([999]))


def test_a_document_is_located_as_soon_as_its_rows_have_ended(tmp_path, monkeypatch):
    numbers, rows = np.arange(50), np.full(50, 4)
    with ShardWriter(tmp_path, ["s"], [1], "float32", {}, shard_bytes=52 * 8) as writer:
        fields = {key: np.repeat(numbers, 4) for key in ("document", "token", "position")}
        places = {key: np.arange(200) for key in ("start", "end")}
        writer.write_documents((n, None, "text") for n in numbers.tolist())
        batch = ActivationBatch("s", torch.zeros(200, 1), **fields, **places, first_row=0)
        writer.append((batch,), numbers, rows, np.arange(200))
    shards = ActivationShards.open(tmp_path)
    assert len(shards.index["shards"]) == 25
    located = shards.locate(range(50))
    assert next(located).token.tolist() == [0] * 4
    assert len([name for name in shards._verified if "shard" in name]) == 1
    assert [d.number for d in shards.locate([0, 1])] == [0, 1]
    assert len([name for name in shards._verified if "shard" in name]) <= 2


def test_rows_of_one_document_in_two_places_are_refused(tmp_path):
    with ShardWriter(tmp_path, ["s"], [1], "float32", {}) as writer:
        numbers = np.array([1, 2, 1])
        fields = {key: np.arange(3) for key in ("position", "token", "start", "end")}
        writer.write_documents([(1, None, "one"), (2, None, "two")])
        batch = ActivationBatch("s", torch.zeros(3, 1), numbers, **fields, first_row=0)
        writer.append((batch,), numbers, np.ones(3, np.int64), np.arange(3))
    with pytest.raises(FormatError, match="document 1 in two places"):
        list(ActivationShards.open(tmp_path).locate([1, 2]))


MANGLED = {
    "no shards": lambda index: index.pop("shards"),
    "shards is str": lambda index: index.update(shards="shard-000000.safetensors"),
    "a shard without rows": lambda index: index["shards"][0].pop("rows"),
    "negative rows": lambda index: index["shards"][-1].update(rows=-4),
    "another first row": lambda index: index["shards"][1].update(first_row=0),
    "a file elsewhere": lambda index: index["shards"][0].update(file="../../etc/passwd"),
    "no digest": lambda index: index["documents"][0].update(sha256=None),
    "sites are names": lambda index: index.update(sites=["resid_post.1"]),
    "no sites": lambda index: index.update(sites=[]),
    "width is str": lambda index: index["sites"][0].update(width="16"),
    "no such dtype": lambda index: index["sites"][0].update(dtype="nn"),
    "describe is None": lambda index: index.update(describe=None),
    "mark is a number": lambda index: index.update(mark=3),
    "mark lacks rows": lambda index: index["mark"].pop("rows"),
    "masks is a list": lambda index: index["mark"].update(masks=[1]),
    "masks of words": lambda index: index["mark"].update(masks={"first": "one"}),
    "complete is a word": lambda index: index.update(complete="no"),
}


def put_mark(folder):
    path = folder / "activations.json"
    index = json.loads(path.read_text())
    index["mark"] = {
        "cursor": None, "masks": {"first": 1}, "rows": 10, "last_document": 5, "shards": 1,
        "documents": 1,
    }  # fmt: skip
    path.write_text(json.dumps(index))


@pytest.mark.parametrize("how", MANGLED)
def test_an_index_that_lacks_something_is_named(how, tmp_path):
    write(tmp_path, close=False)
    put_mark(tmp_path)
    path = tmp_path / "activations.json"
    index = json.loads(path.read_text())
    MANGLED[how](index)
    path.write_text(json.dumps(index))
    with pytest.raises(FormatError, match=r"activations\.json is not an index of shards \(.+\)"):
        ActivationShards.open(tmp_path)


def test_a_shard_that_is_no_safetensors_is_named(tmp_path):
    write(tmp_path)
    path = tmp_path / "shard-000000.safetensors"
    path.write_bytes(b"\xff" * 100)
    index = json.loads((tmp_path / "activations.json").read_text())
    index["shards"][0]["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (tmp_path / "activations.json").write_text(json.dumps(index))
    shards = ActivationShards.open(tmp_path)
    for reading in (shards.windows(), shards.locate([3])):
        with pytest.raises(FormatError, match=r"shard-000000\.safetensors is not a shard"):
            list(reading)
