"""Tokens reach the model once, in order, unmasked: windows against a one-document oracle."""

import itertools
import json
from dataclasses import fields, replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import KINDS, make_tokenizer
from exemplars import tokenization as tokenization_module
from exemplars.corpora import texts
from exemplars.errors import SourceError
from exemplars.tokenization import (
    Tokenization,
    TokenWindow,
    chat_prefix,
    document_texts,
    excerpt,
    locate,
    token_windows,
    tokenize_prompts,
)

TOKENIZERS = {kind: make_tokenizer(kind) for kind in KINDS}
HOSTILE = [
    "", " ", "a", "\0", "a\0b", "lone \ud800 surrogate", "\udfff", "שלום עולם", "مرحبا the",
    "👩‍👩‍👧 family 😀", "zero\u200bwidth\ufeff", "e\u0301" * 9, "the the<|endoftext|> the",
    "<|endoftext|>", "<|im_start|>user\n", " " * 300, "\n\n\n\nthe", "\r\n", "in the inner " * 40,
]  # fmt: skip
document = st.one_of(
    st.sampled_from(HOSTILE), st.text(max_size=30), st.text(alphabet="the in\n", max_size=120)
)


# --- an oracle: one document at a time, one token at a time ------------------------------------


def oracle(tokenizer, tokenization, number, text):
    """A text's rows (document, position, id), and its attended tokens (position, id) by piece."""
    length = tokenization.context_length
    text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    ids = tokenizer.backend_tokenizer.from_str(plain(tokenizer)).encode(text).ids
    bos = ids[:1] if tokenizer in (TOKENIZERS["bos"], TOKENIZERS["chat"]) else []
    pieces, rest = [list(enumerate(ids))[:length]], list(enumerate(ids))[length:]
    while rest and tokenization.long_documents == "split":
        take = length - len(bos)
        pieces.append([(-1, b) for b in bos] + rest[:take])
        rest = rest[take:]
    kept = [
        (number, position, token)
        for piece in pieces
        for i, (position, token) in enumerate(piece)
        if position >= 0 and (tokenization.keep_first or (i > 0 and token not in bos))
    ]
    last = sum(len([p for p, _ in piece if p >= 0]) for piece in pieces) - 1
    if tokenization.rows == "final":
        kept = [row for row in kept if row[1] == last]
    elif isinstance(tokenization.rows, tuple):
        kept = [row for row in kept if row[2] in tokenization.rows]
    elif callable(tokenization.rows):
        kept = [row for row in kept if row[1] % 3 == 0]
    return kept, [piece for piece in pieces if piece]


def plain(tokenizer):
    """The tokenizer's own file, without truncation and padding."""
    state = json.loads(tokenizer.backend_tokenizer.to_str())
    return json.dumps({**state, "truncation": None, "padding": None})


def every_third(ids, positions):
    return positions % 3 == 0


def window_rows(windows):
    return [
        row
        for w in windows
        for row in zip(*map(list, (w.document, w.position, w.token)), strict=True)
    ]


def batch_rows(window):
    """The window's rows, gathered from its batches by `destination`."""
    rows = {}
    for batch, where in zip(window.batches, window.destination, strict=True):
        kept = (batch.document[batch.rows], batch.position[batch.rows], batch.ids[batch.rows])
        rows.update(zip(where.tolist(), zip(*map(list, kept), strict=True), strict=True))
    return [rows[i] for i in range(len(window.document))]


def same(a, b):
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b)
    if isinstance(a, tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if hasattr(a, "__dataclass_fields__"):
        return all(same(getattr(a, f.name), getattr(b, f.name)) for f in fields(a))
    return a == b


tokenizations = st.builds(
    Tokenization,
    context_length=st.integers(2, 40),
    long_documents=st.sampled_from(["split", "truncate"]),
    packing=st.sampled_from(["none", "documents"]),
    rows=st.sampled_from(["all", "final", (5, 7, 80, 262), every_third]),
    keep_first=st.booleans(),
)
relaxed = settings(deadline=None, max_examples=60, suppress_health_check=list(HealthCheck))


@relaxed
@given(
    st.lists(document, max_size=12),
    st.sampled_from(KINDS),
    tokenizations,
    st.integers(1, 200),
    st.integers(1, 400),
)
def test_windows_hold_what_tokenising_each_document_alone_gives(
    contents, kind, tokenization, batch_tokens, window_tokens
):
    tokenizer = TOKENIZERS[kind]
    made = list(
        token_windows(
            texts(contents),
            tokenizer,
            tokenization,
            batch_tokens=batch_tokens,
            window_tokens=window_tokens,
        )
    )
    expected = [oracle(tokenizer, tokenization, i, text) for i, text in enumerate(contents)]
    rows = [row for kept, _ in expected for row in kept]
    pieces = [piece for _, split in expected for piece in split]
    assert window_rows(made) == rows
    assert sum(w.n_tokens for w in made) == sum(map(len, pieces))
    assert list(dict.fromkeys(n for w in made for n in w.documents)) == list(range(len(contents)))

    order = [
        (n, p) for (_, s), n in zip(expected, itertools.count()) for piece in s for p, _ in piece
    ]
    first_row = n_tokens = 0
    for window in made:
        assert batch_rows(window) == window_rows([window])
        assert (window.first_row, window.document_rows.sum()) == (first_row, len(window.document))
        assert [order[t] for t in window.tokens_before] == [r[:2] for r in window_rows([window])]
        counts = window.mask_counts
        attended = sum(int(batch.attention.sum()) for batch in window.batches)
        assert counts["attention"] == window.n_tokens == attended
        assert counts["rows"] == len(window.document)
        assert sum(counts.values()) == 2 * attended
        first_row, n_tokens = first_row + counts["rows"], n_tokens + attended
        assert (window.cursor["rows"], window.cursor["tokens"]) == (first_row, n_tokens)
    assert all(window.n_tokens >= window_tokens for window in made[:-1])
    assert all(w.n_tokens < window_tokens + tokenization.context_length for w in made)

    for batch in (batch for window in made for batch in window.batches):
        assert batch.ids.size <= batch_tokens or len(batch.ids) == 1
        assert batch.ids.shape[1] <= tokenization.context_length
        assert not (batch.rows & ~batch.attention).any()
        assert (batch.document >= 0).tolist() == batch.attention.tolist()
        lengths = batch.attention.sum(1)
        assert (batch.attention == (np.arange(batch.ids.shape[1]) < lengths[:, None])).all()
        if not batch.packed:
            assert (batch.position_ids == np.arange(batch.ids.shape[1])).all()
    got = sorted(piece for w in made for b in w.batches for piece in batch_pieces(b))
    assert got == sorted([(p, t, i) for i, (p, t) in enumerate(piece)] for piece in pieces)


def batch_pieces(batch):
    """The (position, id, position id) triples of each piece of a batch."""
    for b, length in enumerate(batch.attention.sum(1)):
        starts = [*np.flatnonzero(batch.position_ids[b, :length] == 0), length]
        for start, stop in itertools.pairwise(starts):
            columns = (batch.position[b], batch.ids[b], batch.position_ids[b])
            yield list(zip(*(c[start:stop].tolist() for c in columns), strict=True))


@relaxed
@given(st.lists(document, max_size=8), st.sampled_from(KINDS), tokenizations, st.integers(1, 120))
def test_any_cursor_goes_on_as_if_never_interrupted(contents, kind, tokenization, window_tokens):
    options = {"batch_tokens": 64, "window_tokens": window_tokens}
    source = texts(contents).shuffled(3)
    whole = list(token_windows(source, TOKENIZERS[kind], tokenization, **options))
    for i, window in enumerate(whole):
        cursor = json.loads(json.dumps(window.cursor))
        rest = list(token_windows(source, TOKENIZERS[kind], tokenization, cursor=cursor, **options))
        assert same(tuple(rest), tuple(whole[i + 1 :]))


@relaxed
@given(st.lists(document, max_size=8), st.sampled_from(KINDS), tokenizations, st.booleans())
def test_locating_gives_the_same_rows_and_their_places(contents, kind, tokenization, chat):
    tokenizer = TOKENIZERS["chat" if chat else kind]
    tokenization = replace(tokenization, chat=chat)
    windows = list(token_windows(texts(contents), tokenizer, tokenization, window_tokens=50))
    located = list(locate(texts(contents), tokenizer, tokenization, range(len(contents))))
    for name in ("token", "position", "start", "end"):
        joined = np.concatenate([np.zeros(0), *(getattr(x, name) for x in located)])
        assert joined.tolist() == [v for w in windows for v in getattr(w, name).tolist()]
    rendered = document_texts(texts(contents), tokenizer, tokenization, range(len(contents)))
    assert list(rendered) == [(one.number, one.name, one.text) for one in located]
    for one in located:
        for start, end, token in zip(one.start, one.end, one.token, strict=True):
            surface = "" if token == 0 and end == 0 else tokenizer.decode([int(token)])  # BOS
            assert "\ufffd" in surface or one.text[start:end] == surface


@relaxed
@given(st.lists(document, max_size=10), st.sampled_from(KINDS), tokenizations)
def test_packed_and_unpacked_windows_have_the_same_rows(contents, kind, tokenization):
    one, other = (
        list(token_windows(texts(contents), TOKENIZERS[kind], replace(tokenization, packing=p)))
        for p in ("none", "documents")
    )
    skip = {"batches", "destination"}
    names = [f.name for f in fields(TokenWindow) if f.name not in skip]
    assert all(
        same(getattr(a, n), getattr(b, n)) for a, b in zip(one, other, strict=True) for n in names
    )


def test_positions_restart_in_every_packed_piece_and_in_the_padding(gpt2_tokenizer):
    settings_ = Tokenization(context_length=8, packing="documents")
    (window,) = token_windows(texts(["xyz", "wv", "klmnop"]), gpt2_tokenizer, settings_)
    (batch,) = window.batches
    assert batch.packed
    assert sorted(batch.position_ids.tolist()) == [[0, 1, 2, 0, 1, 0], [0, 1, 2, 3, 4, 5]]
    assert sorted(batch.attention.sum(1).tolist()) == [5, 6]


def test_sorting_by_length_leaves_little_padding(gpt2_tokenizer):
    rng = np.random.default_rng(0)
    contents = ["x" * int(n) for n in rng.integers(1, 128, 2000)]
    size = attended = 0
    for window in token_windows(texts(contents), gpt2_tokenizer, Tokenization()):
        size += sum(batch.ids.size for batch in window.batches)
        attended += window.n_tokens
    assert 1 - attended / size < 0.2  # in order of arrival it is 0.5


def test_no_token_is_lost_when_pad_is_bos(gpt2_tokenizer):
    (window,) = token_windows(texts(["ab<|endoftext|>", "a"]), gpt2_tokenizer, Tokenization())
    assert window.n_tokens == 4
    assert window.token.tolist() == [*gpt2_tokenizer("b").input_ids, 0]
    assert window.batches[0].attention.tolist() == [[True] * 3, [True, False, False]]


def test_a_left_padding_tokenizer_is_padded_right_and_left_as_it_was(left_tokenizer):
    before = left_tokenizer.backend_tokenizer.to_str()
    contents = ["x" * 20, "yz"]
    (window,) = token_windows(texts(contents), left_tokenizer, Tokenization())
    assert window.batches[0].attention[:, :2].all()
    assert window.n_tokens == 22
    assert left_tokenizer.backend_tokenizer.to_str() == before
    assert left_tokenizer.padding_side == "left"


@pytest.mark.parametrize("kind", ["gpt2", "bos", "bare"])
def test_bos_is_there_once_where_the_tokenizer_adds_it(kind):
    settings_ = Tokenization(context_length=4, keep_first=True)
    windows = list(token_windows(texts(["xyzwvu"]), TOKENIZERS[kind], settings_))
    lines = [line[mask].tolist() for b in windows[0].batches
             for line, mask in zip(b.ids, b.attention, strict=True)]  # fmt: skip
    n_bos = 1 if kind == "bos" else 0
    assert [line.count(0) for line in lines] == [n_bos] * 2
    assert all(line[0] == 0 for line in lines) == bool(n_bos)
    assert windows[0].position.tolist() == list(range(6 + n_bos))


@pytest.mark.parametrize(("kind", "kept"), [("bos", [1, 3]), ("gpt2", [1, 2]), ("bare", [1, 2])])
def test_bos_written_in_a_text_is_no_row_where_the_tokenizer_adds_bos(kind, kept):
    (window,) = token_windows(texts(["x<|endoftext|>y"]), TOKENIZERS[kind], Tokenization())
    assert window.position.tolist() == kept


# --- chat --------------------------------------------------------------------------------------


def test_the_chat_template_gives_one_bos_and_its_prefix_is_masked(chat_tokenizer):
    (window,) = token_windows(texts(["hello"]), chat_tokenizer, Tokenization(chat=True))
    batch = window.batches[0]
    assert (batch.ids == 0).sum() == 1
    rendered = (
        "<|im_start|>system\nBe kind.<|im_end|>\n<|im_start|>user\nhello<|im_end|>\n"
        "<|im_start|>assistant\n"
    )
    assert chat_tokenizer.decode(batch.ids[0]) == "<|endoftext|>" + rendered
    assert chat_tokenizer.decode(window.token) == "hello<|im_end|>\n<|im_start|>assistant\n"
    assert window.mask_counts["first"] == 1
    (whole,) = token_windows(
        texts(["hello"]), chat_tokenizer, Tokenization(chat=True, keep_prefix=True)
    )
    assert chat_tokenizer.decode(whole.token) == rendered
    assert whole.mask_counts["prefix"] == 0


def test_a_system_message_belongs_to_the_prefix_and_an_answer_ends_the_prompt(chat_tokenizer):
    talk = [("system", "Rhyme."), ("user", "hi"), ("assistant", "sky")]
    messages = [{"role": role, "content": content} for role, content in talk]
    (window,) = token_windows(texts([messages]), chat_tokenizer, Tokenization(chat=True))
    kept = chat_tokenizer.decode(window.token)
    assert kept == "hi<|im_end|>\n<|im_start|>assistant\nsky<|im_end|>\n"


def test_a_message_that_merges_with_the_prefix_keeps_its_merged_token(chat_tokenizer):
    (window,) = token_windows(texts(["\n\nhi"]), chat_tokenizer, Tokenization(chat=True))
    assert chat_tokenizer.decode(window.token).startswith("\n\n\nhi")


def test_chat_needs_a_template_and_plain_text_needs_a_text(gpt2_tokenizer, chat_tokenizer):
    with pytest.raises(SourceError, match="no chat template"):
        next(token_windows(texts(["a"]), gpt2_tokenizer, Tokenization(chat=True)))
    talk = texts([[{"role": "user", "content": "a"}]])
    with pytest.raises(SourceError, match="set chat=True"):
        next(token_windows(talk, chat_tokenizer, Tokenization()))
    chat_tokenizer.chat_template = "{{ raise_exception('no system role') }}"
    with pytest.raises(SourceError, match="no system role"):
        next(token_windows(talk, chat_tokenizer, Tokenization(chat=True)))


# --- long, empty and strange documents ---------------------------------------------------------


@pytest.mark.parametrize("phrase", ["in the inner town, ", "<|endoftext|>"])
@pytest.mark.parametrize("kind", ["gpt2", "bos"])
def test_truncating_five_million_characters_reads_only_the_first(kind, phrase, monkeypatch):
    text = phrase * 390_000
    assert len(text) > 5_000_000
    tokenizer = TOKENIZERS[kind]
    settings_ = Tokenization(long_documents="truncate", keep_first=True)
    given, call = [], tokenization_module._DocumentTokenizer._call
    monkeypatch.setattr(
        tokenization_module._DocumentTokenizer,
        "_call",
        lambda self, some, **options: given.extend(map(len, some)) or call(self, some, **options),
    )
    (window,) = token_windows(texts([text]), tokenizer, settings_)
    assert sum(given) < 5000  # characters that the tokenizer saw
    assert window.token.tolist() == tokenizer(text[:5000]).input_ids[:128]


def test_truncating_keeps_reading_while_tokens_are_few(gpt2_tokenizer):
    text = ("<|endoftext|>" * 100 + " the end") * 3
    settings_ = Tokenization(context_length=290, long_documents="truncate", keep_first=True)
    (window,) = token_windows(texts([text]), gpt2_tokenizer, settings_)
    assert window.token.tolist() == gpt2_tokenizer(text).input_ids[:290]


def test_a_text_longer_than_a_segment_loses_nothing_at_the_cuts(bos_tokenizer, monkeypatch):
    text = "  the inner\n\ntown in and out  " * 200
    whole = list(token_windows(texts([text]), bos_tokenizer, Tokenization()))
    monkeypatch.setattr(tokenization_module, "_SEGMENT", 500)
    cut = list(token_windows(texts([text]), bos_tokenizer, Tokenization()))
    assert "".join(text[a:b] for w in cut for a, b in zip(w.start, w.end, strict=True))
    located = next(iter(locate(texts([text]), bos_tokenizer, Tokenization(keep_first=True), [0])))
    assert "".join(text[a:b] for a, b in zip(located.start, located.end, strict=True)) == text
    assert sum(w.n_tokens for w in cut) >= sum(w.n_tokens for w in whole)


def test_a_million_spaces_are_tokens_like_any_other(gpt2_tokenizer):
    n_rows = n_tokens = 0
    for window in token_windows(texts([" " * 1_000_001]), gpt2_tokenizer, Tokenization()):
        n_rows, n_tokens = n_rows + len(window.token), n_tokens + window.n_tokens
    assert n_tokens == 250_001
    assert n_rows == n_tokens - -(-n_tokens // 128)


@pytest.mark.parametrize("rows", ["all", "final"])
def test_empty_and_one_token_documents_count_without_rows(gpt2_tokenizer, rows):
    contents = ["", "a", "ab", ""]
    (window,) = token_windows(texts(contents), gpt2_tokenizer, Tokenization(rows=rows))
    assert window.documents.tolist() == [0, 1, 2, 3]
    assert window.document_rows.tolist() == [0, 0, 1, 0]
    assert not list(token_windows(texts([]), gpt2_tokenizer, Tokenization()))
    (empty,) = token_windows(texts([""]), gpt2_tokenizer, Tokenization())
    assert (empty.batches, empty.n_tokens, empty.documents.tolist()) == ((), 0, [0])


def test_a_tokenizer_without_offsets_is_placed_by_decoding():
    from transformers import ByT5Tokenizer

    tokenizer = ByT5Tokenizer()
    assert not tokenizer.is_fast
    text = "naïve  words\n the 😀 end"
    (window,) = token_windows(texts([text]), tokenizer, Tokenization(keep_first=True))
    assert window.token.tolist() == tokenizer(text).input_ids
    placed = "".join(text[a:b] for a, b in zip(window.start, window.end, strict=True))
    assert placed == text.replace("ï", "").replace("😀", "")
    assert (window.start[-1], window.end[-1]) == (len(text), len(text))


@pytest.mark.parametrize("selector", [lambda i, p: p, lambda i, p: (p > 0)[:-1], lambda i, p: True])
def test_a_row_selector_of_the_wrong_kind_is_refused(gpt2_tokenizer, selector):
    with pytest.raises(ValueError, match="must return bool of shape"):
        next(token_windows(texts(["abc"]), gpt2_tokenizer, Tokenization(rows=selector)))


@pytest.mark.parametrize(
    "wrong",
    [{"context_length": 1}, {"long_documents": "cut"}, {"packing": "all"}, {"rows": "last"}],
)
def test_settings_outside_their_choices_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Tokenization(**wrong)


def test_wrong_window_arguments_are_refused(gpt2_tokenizer):
    with pytest.raises(ValueError, match="must be positive"):
        token_windows(texts(["a"]), gpt2_tokenizer, Tokenization(), batch_tokens=0)
    with pytest.raises(ValueError, match="cursor"):
        token_windows(texts(["a"]), gpt2_tokenizer, Tokenization(), cursor={"row": 1})


# --- excerpts ----------------------------------------------------------------------------------


def test_an_excerpt_is_the_token_with_what_surrounds_it():
    assert excerpt("one two three", 4, 7) == ("one ", "two", " three")
    assert excerpt("one two three", 4, 7, before=2, after=3) == ("e ", "two", " th")
    assert excerpt("", 0, 0) == ("", "", "")
    assert excerpt("ab", 5, 9) == ("ab", "", "")


def test_an_excerpt_does_not_part_a_mark_from_its_letter():
    text = "e\u0301 x o\u0308"
    assert excerpt(text, 3, 4, before=2, after=2) == (" ", "x", " ")
    family = "👩\u200d👧 x"
    assert excerpt(family, 4, 5, before=3) == (" ", "x", "")


@relaxed
@given(st.lists(document, min_size=1, max_size=6), st.sampled_from(KINDS))
def test_prompts_are_tokenised_as_documents_are_and_never_cut(contents, kind):
    tokenizer = TOKENIZERS[kind]
    contents = [document.content for document in texts(contents)]
    whole = Tokenization(context_length=100_000)
    expected = [oracle(tokenizer, whole, 0, text)[1] for text in contents]
    if not all(expected):
        with pytest.raises(ValueError, match=r"prompt \d+ has no tokens; give a text"):
            tokenize_prompts(contents, tokenizer, chat=False)
        return
    found = tokenize_prompts(contents, tokenizer, chat=False)
    assert [list(enumerate(prompt.ids)) for prompt in found] == [piece for (piece,) in expected]
    for text, prompt in zip(contents, found, strict=True):
        assert prompt.text == text
        rows, _ = oracle(tokenizer, whole, 0, text)
        assert prompt.first_row == (rows[0][1] if rows else len(prompt.ids))


@relaxed
@given(st.lists(document, min_size=1, max_size=4))
def test_every_users_message_begins_with_the_chat_prefix(contents):
    tokenizer = TOKENIZERS["chat"]
    contents = [document.content for document in texts(contents)]
    prefix = chat_prefix(tokenizer)
    text = tokenizer.decode(prefix)
    assert text.endswith("Be kind.<|im_end|>\n<|im_start|>user\n")
    for content, prompt in zip(
        contents, tokenize_prompts(contents, tokenizer, chat=True), strict=True
    ):
        assert prompt.text.endswith("<|im_end|>\n<|im_start|>assistant\n")
        if not content.startswith("\n"):  # which merges with the prefix's last token
            assert prompt.ids[: len(prefix)].tolist() == prefix.tolist()
            assert prompt.first_row == len(prefix) or "<|endoftext|>" in content
        messages = [{"role": "user", "content": content}]
        (same_prompt,) = tokenize_prompts([messages], tokenizer, chat=True)
        assert same(same_prompt, prompt)


def test_there_is_no_chat_prefix_without_a_template(gpt2_tokenizer):
    assert chat_prefix(gpt2_tokenizer).shape == (0,)
    assert chat_prefix(gpt2_tokenizer).dtype == np.int64
    with pytest.raises(SourceError, match="no chat template"):
        tokenize_prompts(["a"], gpt2_tokenizer, chat=True)
    with pytest.raises(SourceError, match="prompt 1 is a conversation"):
        tokenize_prompts(["a", [{"role": "user", "content": "a"}]], gpt2_tokenizer, chat=False)


def test_a_long_prompt_is_kept_whole(bos_tokenizer):
    (prompt,) = tokenize_prompts(["the " * 300_000], bos_tokenizer, chat=False)
    assert len(prompt.ids) > 300_000
    assert prompt.ids[:2].tolist() == [0, bos_tokenizer.convert_tokens_to_ids("the")]
    assert prompt.first_row == 1


def test_an_answers_beginning_is_gone_on_from(chat_tokenizer):
    talk = [{"role": "user", "content": "a"}, {"role": "assistant", "content": "Sure"}]
    (prompt,) = tokenize_prompts([talk], chat_tokenizer, chat=True)
    assert not prompt.text.endswith("assistant\n")
