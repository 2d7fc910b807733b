"""Answers in batches are answers alone; streams are answers piece by piece; nothing is left."""

import contextlib
import dataclasses
import threading

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models
from torch import nn
from transformers import GenerationConfig, PreTrainedTokenizerFast

import exemplars as ex
from conftest import make_tokenizer
from exemplars.errors import SourceError
from exemplars.generation import generate, stream
from exemplars.intervene import Edit, edited
from exemplars.models import load_model
from exemplars.tokenization import chat_prefix, tokenize_prompts
from tiny_models import (
    ARCHITECTURES,
    VOCABULARY,
    WIDTH,
    tiny_model,
    tiny_module,
    tiny_tokenizer,
)

SITE = "resid_post.1"
PROMPTS = ["the cat", "a longer prompt is here", "xyz", "the sea", "m"]
SOME = ("gpt2", "llama", "gemma3_text")


def direction(seed=0):
    return np.random.default_rng(seed).normal(size=WIDTH).astype(np.float32)


def strong(positions="edited", site=SITE):
    return Edit.add(direction(), 12.0, site=site, positions=positions)


def ids_of(answers):
    return [answer.ids.tolist() for answer in answers]


def hooks(module):
    return [
        (list(m._forward_hooks.values()), list(m._forward_pre_hooks.values()), m.training,
         sorted(vars(m)))
        for m in module.modules()
    ]  # fmt: skip


def slow_answer(model, ids, n, edit=None, first=0, ends=(0,)):
    """Greedy, token by token, without a cache, one prompt; the edit by a hook of the test's own.

    The hook adds the edit's raw vector at positions from `first` on.
    """
    ids = list(ids)
    written = []

    def hook(_, args, output):
        x = (output if isinstance(output, torch.Tensor) else output[0]).clone()
        x[:, first:] += edit.strength * edit.unit * torch.from_numpy(edit.directions[0])
        return x if isinstance(output, torch.Tensor) else (x, *output[1:])

    handle = None
    if edit is not None:
        path = model.site(edit.site).module_path
        handle = model.module.get_submodule(path).register_forward_hook(hook)
    with torch.no_grad():
        for _ in range(n):
            scores = model.module(torch.tensor([ids]), use_cache=False).logits[0, -1]
            token = int(scores.argmax())
            if token in ends:
                break
            ids.append(token)
            written.append(token)
    if handle is not None:
        handle.remove()
    return written


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batches_answer_as_a_slow_loop_does_alone(architecture):
    model = tiny_model(architecture)
    prompts = tokenize_prompts(PROMPTS, model.tokenizer, chat=False)
    plain = [slow_answer(model, prompt.ids, 6) for prompt in prompts]
    assert ids_of(generate(model, PROMPTS, max_new_tokens=6)) == plain
    assert ids_of(generate(model, PROMPTS, max_new_tokens=6, padding="left")) == plain
    together = generate(model, PROMPTS, max_new_tokens=6, padding="none", batch_size=2)
    assert ids_of(together) == plain
    assert [answer.prompt for answer in together] == PROMPTS
    assert [a.prompt_ids.tolist() for a in together] == [p.ids.tolist() for p in prompts]
    edit = strong()
    changed = [slow_answer(model, prompt.ids, 6, edit, first=1) for prompt in prompts]
    assert ids_of(generate(model, PROMPTS, edit, max_new_tokens=6)) == changed
    assert changed != plain


@pytest.mark.parametrize("architecture", SOME)
@pytest.mark.parametrize("positions", ["all", "generated", 3])
def test_edits_act_through_the_cache_where_they_say(architecture, positions):
    model = tiny_model(architecture)
    prompts = tokenize_prompts(PROMPTS, model.tokenizer, chat=False)
    edit = strong(positions)
    expected = [
        slow_answer(model, p.ids, 6, edit, {"all": 0, "generated": len(p.ids), 3: 3}[positions])
        for p in prompts
    ]
    for batch_size in (1, 3, 16):
        found = generate(model, PROMPTS, edit, max_new_tokens=6, batch_size=batch_size)
        assert ids_of(found) == expected


def chatting(architecture="llama", **config):
    return load_model(tiny_module(architecture, **{"max_position_embeddings": 128, **config}),
                      make_tokenizer("chat"))  # fmt: skip


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
def test_a_chats_prefix_is_spared_and_a_system_message_belongs_to_it(architecture):
    model = chatting(architecture)
    edit = strong()
    system = {"role": "system", "content": "the inner"}
    asked = [
        "the sea",
        [{"role": "user", "content": "in the end"}],
        [system, {"role": "user", "content": "a"}],
        [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"},
         {"role": "user", "content": "the last"}],
    ]  # fmt: skip
    prompts = tokenize_prompts(asked, model.tokenizer, chat=True)
    n_prefix = len(chat_prefix(model.tokenizer))
    firsts = [prompt.first_row for prompt in prompts]
    assert firsts[0] == firsts[1] == firsts[3] == n_prefix != firsts[2]
    expected = [slow_answer(model, p.ids, 6, edit, p.first_row) for p in prompts]
    answers = generate(model, asked, edit, max_new_tokens=6)
    assert ids_of(answers) == expected
    assert expected != [slow_answer(model, p.ids, 6) for p in prompts]
    assert expected != [slow_answer(model, p.ids, 6, edit, 1) for p in prompts]
    assert [a.prompt for a in answers] == ["the sea", "in the end", "a", "the last"]
    for i, question in enumerate(asked):  # streams spare what batches spare
        pieces = list(stream(model, question, edit, max_new_tokens=6))
        assert [piece.token for piece in pieces] == expected[i]
        with edited(model, edit):  # and so do edits of a `with` around
            assert ids_of(generate(model, [question], max_new_tokens=6)) == [expected[i]]


def test_texts_go_through_the_template_where_there_is_one():
    model = chatting()
    chat, bare, told = (
        generate(model, ["the sea"], max_new_tokens=2, chat=chat)[0] for chat in (None, False, True)
    )
    assert chat.prompt_ids.tolist() == told.prompt_ids.tolist() != bare.prompt_ids.tolist()
    assert len(bare.prompt_ids) < 10
    plain = tiny_model()
    assert generate(plain, ["the sea"], max_new_tokens=2)[0].prompt_ids[0] == 0


# --- a model that writes what it is told --------------------------------------------------------


def scripted(tokens, tokenizer, start):
    """A model that after token `start` writes these, each at most once, and then the end (0)."""
    module = tiny_module("llama", tie_word_embeddings=False, max_position_embeddings=320)
    chain = [start, *tokens, 0]
    assert len(set(chain)) == len(chain)
    with torch.no_grad():
        for layer in module.model.layers:  # what a layer adds is nothing
            layer.self_attn.o_proj.weight.zero_()
            layer.mlp.down_proj.weight.zero_()
        module.model.norm.weight.fill_(1)
        directions = nn.functional.normalize(torch.randn(VOCABULARY, WIDTH), dim=1)
        module.model.embed_tokens.weight.copy_(directions)
        module.lm_head.weight.zero_()
        for before, after in zip(chain, chain[1:], strict=False):
            module.lm_head.weight[after] = directions[before]
    return load_model(module, tokenizer)


def written_by(text, **options):
    """(pieces, answer) of a byte-level model that writes the bytes of a text."""
    raw = text if isinstance(text, bytes) else text.encode()
    tokenizer = tiny_tokenizer()
    alphabet = {v: k for k, v in decoders_alphabet().items()}
    tokens = [tokenizer.convert_tokens_to_ids(alphabet[byte]) for byte in raw]
    model = scripted(tokens, tokenizer, tokenizer.convert_tokens_to_ids("x"))
    (answer,) = generate(model, ["x"], **options)
    assert answer.ids.tolist() == tokens[: options.get("max_new_tokens", 64)]
    return list(stream(model, "x", **options)), answer


def decoders_alphabet():
    """Character of the byte-level alphabet -> byte."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {
        **{chr(byte): byte for byte in printable},
        **{chr(256 + i): byte for i, byte in enumerate(others)},
    }


def test_characters_come_whole():
    text = "aé€𐍈!"
    pieces, answer = written_by(text)
    assert answer.text == text
    assert answer.finished
    assert [p.text for p in pieces] == ["a", "", "é", "", "", "€", "", "", "", "𐍈", "!"]
    assert [p.token for p in pieces] == answer.ids.tolist()


@pytest.mark.parametrize(
    "raw", [b"a\xc3b", b"a\xe2\x82", b"\xff\xfe\xfd", b"\xf0\x90\x8d", b"a\x80b\xc3\xa9", b"\xc3"]
)
def test_bytes_that_are_no_character_are_streamed_as_they_are_answered(raw):
    pieces, answer = written_by(raw)
    assert "".join(p.text for p in pieces) == answer.text == raw.decode(errors="replace")
    assert len(pieces) == len(raw)


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5])
def test_an_answer_that_is_cut_inside_a_character_is_streamed_to_its_end(n):
    pieces, answer = written_by("aé€!", max_new_tokens=n)
    assert "".join(p.text for p in pieces) == answer.text
    assert len(pieces) == n
    assert not answer.finished


def test_a_stream_goes_on_where_bytes_are_read_again():
    # SentencePiece decodes a run of bytes at once: one bad byte undoes the characters before it.
    vocabulary = {"<|end|>": 0, "x": 1, "b": 2, "c": 3, "<0xC3>": 4, "<0xA9>": 5, "<0xE2>": 6}
    backend = Tokenizer(models.BPE(vocabulary, [], byte_fallback=True))
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|end|>")
    model = scripted([4, 5, 6, 2, 3], tokenizer, 1)
    pieces = [piece.text for piece in stream(model, "x")]
    assert pieces == ["", "é", "", "��b", "c"]
    assert generate(model, ["x"])[0].text == "���bc"


def test_spaces_before_marks_are_kept():
    tokenizer = tiny_tokenizer()
    tokenizer.clean_up_tokenization_spaces = True
    # What makes newer versions do so for this kind of tokenizer, as older ones did.
    tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
    tokens = [tokenizer.convert_tokens_to_ids(c) for c in ("a", "Ġ", ".", "b")]
    model = scripted(tokens, tokenizer, tokenizer.convert_tokens_to_ids("x"))
    assert generate(model, ["x"])[0].text == "a .b"
    assert [p.text for p in stream(model, "x")] == ["a", " ", ".", "b"]


def test_an_answer_ends_at_the_models_and_the_tokenizers_end():
    tokenizer = tiny_tokenizer()
    a, b, c, x = (tokenizer.convert_tokens_to_ids(t) for t in "abcx")
    model = scripted([a, b, c], tokenizer, x)
    (answer,) = generate(model, ["x"])
    assert (answer.text, answer.finished, answer.ids.tolist()) == ("abc", True, [a, b, c])
    (cut,) = generate(model, ["x"], max_new_tokens=3)
    assert (cut.text, cut.finished) == ("abc", False)
    for ends in (b, [b, 0], [c, b]):
        model.module.generation_config.eos_token_id = ends
        answers = generate(model, ["x", "ax", "yyx"], padding="left")
        assert [(n.text, n.finished) for n in answers] == [("a", True)] * 3
        assert [piece.text for piece in stream(model, "x")] == ["a"]
    model.module.generation_config.eos_token_id = None
    assert generate(model, ["x"])[0].text == "abc"


# --- order, batches, settings -------------------------------------------------------------------


def test_answers_keep_the_order_of_the_prompts_whatever_the_batches():
    model = tiny_model()
    prompts = ["a" * n for n in (9, 1, 5, 1, 7, 3, 5)]
    alone = [generate(model, [prompt], max_new_tokens=4)[0] for prompt in prompts]
    for batch_size in (1, 3, 100):
        for padding in ("auto", "left", "none"):
            said = []
            found = generate(
                model, prompts, max_new_tokens=4, batch_size=batch_size, padding=padding,
                progress=said.append,
            )  # fmt: skip
            assert ids_of(found) == ids_of(alone)
            assert [a.prompt for a in found] == prompts
            assert sum(said) == len(prompts)
            assert max(said) <= batch_size
            if padding == "none":
                assert max(said) <= 2  # of one length
    assert generate(model, []) == []


def test_prompts_are_not_padded_together_where_padding_changes_answers(monkeypatch):
    model = tiny_model()
    sizes = []
    handle = model.base.register_forward_pre_hook(
        lambda _, args, kwargs: sizes.append(tuple(kwargs["input_ids"].shape)), with_kwargs=True
    )
    vars(model)["pads_left_cleanly"] = False
    generate(model, ["aa", "b", "cc"], max_new_tokens=1)
    assert sizes == [(1, 2), (2, 3)]
    sizes.clear()
    vars(model)["pads_left_cleanly"] = True
    generate(model, ["aa", "b", "cc"], max_new_tokens=1)
    assert sizes == [(3, 3)]
    handle.remove()


CHECKPOINT = [
    {"repetition_penalty": 9.0},
    {"no_repeat_ngram_size": 1},
    {"min_new_tokens": 6},
    {"suppress_tokens": list(range(1, 400))},
    {"begin_suppress_tokens": list(range(400))},
    {"forced_eos_token_id": 7},
    {"forced_bos_token_id": 9},
    {"do_sample": True, "temperature": 3.0},
    {"do_sample": True, "top_k": 1},
    {"do_sample": True, "top_p": 1e-6},
    {"do_sample": True, "min_p": 0.99},
    {"do_sample": True, "typical_p": 0.01},
    {"num_beams": 3, "length_penalty": -3.0},
    {"do_sample": True, "num_return_sequences": 2},
    {"max_length": 5},
    {"bad_words_ids": [[token] for token in range(1, 400)]},
    {"return_dict_in_generate": True},
    {"use_cache": False},
    {"exponential_decay_length_penalty": (0, 99.0)},
]


def test_what_the_checkpoint_says_of_generating_has_no_effect():
    plain, model = tiny_model(), tiny_model()
    settings = {"max_new_tokens": 5, "batch_size": 2}
    drawing = {**settings, "temperature": 2.0}
    expected = ids_of(generate(plain, PROMPTS[:2], **settings))
    drawn = ids_of(generate(plain, PROMPTS[:2], **drawing))
    for said in CHECKPOINT:
        own = GenerationConfig(**said, eos_token_id=0)
        model.module.generation_config, before = own, own.to_dict()
        assert ids_of(generate(model, PROMPTS[:2], **settings)) == expected, said
        assert ids_of(generate(model, PROMPTS[:2], **drawing)) == drawn, said
        assert model.module.generation_config is own
        assert own.to_dict() == before


def test_the_checkpoints_settings_are_back_after_an_error():
    model = tiny_model()
    own = model.module.generation_config
    handle = fail_at(model, 2, KeyboardInterrupt("stop"))
    with pytest.raises(KeyboardInterrupt):
        generate(model, PROMPTS, max_new_tokens=5)
    handle.remove()
    assert model.module.generation_config is own


def test_drawing_is_reproducible_by_its_seed_and_leaves_the_generator():
    model = tiny_model()
    prompts = ["the cat"] * 6
    torch.manual_seed(3)
    state = torch.random.get_rng_state()

    def drawn(seed, **options):
        return ids_of(generate(model, prompts, max_new_tokens=8, temperature=1.0, seed=seed,
                               **options))  # fmt: skip

    one = drawn(0)
    torch.manual_seed(9)
    other = torch.random.get_rng_state()
    assert drawn(0) == one
    assert torch.equal(torch.random.get_rng_state(), other)
    assert not torch.equal(state, other)
    assert drawn(1) != one
    assert len({tuple(ids) for ids in one}) > 1
    # Batches draw apart, also from those of the next seed.
    firsts = [drawn(seed, batch_size=2) for seed in (0, 1)]
    batches = {tuple(map(tuple, f[i : i + 2])) for f in firsts for i in (0, 2, 4)}
    assert len(batches) == 6
    pieces = [[p.token for p in stream(model, "the cat", max_new_tokens=8, temperature=1.0)]
              for _ in range(2)]  # fmt: skip
    assert pieces[0] == pieces[1]
    (alone,) = generate(model, ["the cat"], max_new_tokens=8, temperature=1.0)
    assert alone.ids.tolist() == pieces[0]
    assert torch.equal(torch.random.get_rng_state(), other)
    assert drawn(5) != ids_of(generate(model, prompts, max_new_tokens=8))


def test_little_temperature_is_nearly_greedy_and_much_is_not():
    model = tiny_model()
    greedy, cold, hot = (
        ids_of(generate(model, PROMPTS, max_new_tokens=5, temperature=t)) for t in (0, 1e-4, 50.0)
    )
    assert greedy == cold != hot
    drawn = generate(model, ["a"] * 150, max_new_tokens=1, batch_size=150, temperature=50.0)
    assert len({tuple(answer.ids) for answer in drawn}) > 60  # not the 50 likeliest, say


def test_training_mode_adds_no_dropout_and_is_kept():
    model = tiny_model("gpt2", attn_pdrop=0.9, resid_pdrop=0.9)
    expected = ids_of(generate(model, PROMPTS, max_new_tokens=4))
    model.module.train()
    assert ids_of(generate(model, PROMPTS, max_new_tokens=4)) == expected
    assert all(part.training for part in model.module.modules())


# --- exits --------------------------------------------------------------------------------------


def fail_at(model, number, error):
    """A hook on the last layer that raises in pass `number`."""
    seen = []

    def fail(*_):
        seen.append(1)
        if len(seen) == number:
            raise error

    return model.layers[-1].register_forward_hook(fail)


@pytest.mark.parametrize("error", [RuntimeError("out of memory"), KeyboardInterrupt("stop")])
@pytest.mark.parametrize("number", [1, 3])
def test_edits_and_threads_are_gone_when_the_model_raises(error, number):
    model = tiny_model()
    expected = ids_of(generate(model, PROMPTS, max_new_tokens=5))
    vars(model)["pads_left_cleanly"] = True
    before, threads = hooks(model.module), threading.active_count()
    handle = fail_at(model, number, error)
    with pytest.raises(type(error), match=str(error)):
        generate(model, PROMPTS, strong(), max_new_tokens=5)
    handle.remove()
    handle = fail_at(model, number, error)
    pieces = []
    with pytest.raises(type(error), match=str(error)):
        pieces.extend(stream(model, "the cat", strong(), max_new_tokens=5))
    handle.remove()
    assert hooks(model.module) == before
    assert threading.active_count() == threads
    assert ids_of(generate(model, PROMPTS, max_new_tokens=5)) == expected


@pytest.mark.parametrize("strength", [0.0, -0.0])
def test_strength_zero_answers_as_without(strength):
    model = tiny_model()
    edit = dataclasses.replace(strong(), strength=strength)
    expected = ids_of(generate(model, PROMPTS, max_new_tokens=8))
    assert ids_of(generate(model, PROMPTS, [edit], max_new_tokens=8)) == expected


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_stream_equals_the_answer(architecture):
    model = tiny_model(architecture)
    before, threads = hooks(model.module), threading.active_count()
    for prompt in PROMPTS[:2]:
        for edits in ((), strong()):
            (answer,) = generate(model, [prompt], edits, max_new_tokens=6)
            pieces = list(stream(model, prompt, edits, max_new_tokens=6))
            assert [piece.token for piece in pieces] == answer.ids.tolist()
            assert "".join(piece.text for piece in pieces) == answer.text
            assert hooks(model.module) == before
    assert threading.active_count() == threads


def counted_passes(model):
    passes = []
    model.base.register_forward_pre_hook(lambda *_: passes.append(1))
    return passes


def test_a_stream_that_is_closed_early_leaves_nothing_and_soon_stops():
    model = tiny_model(max_position_embeddings=4096)
    vars(model)["pads_left_cleanly"] = True
    passes = counted_passes(model)
    before, threads = hooks(model.module), threading.active_count()
    for close in (lambda pieces: pieces.close(), lambda pieces: None):
        pieces = stream(model, "the cat", strong(), max_new_tokens=3000)
        assert hooks(model.module) == before  # not before the first `next`
        assert threading.active_count() == threads
        next(pieces)
        assert threading.active_count() == threads + 1
        assert hooks(model.module) != before
        close(pieces)
        del pieces
        assert threading.active_count() == threads
        assert hooks(model.module) == before
        assert len(passes) < 2500
        passes.clear()


def test_a_consumer_that_raises_leaves_nothing():
    model = tiny_model(max_position_embeddings=4096)
    before, threads = hooks(model.module), threading.active_count()

    def consume():
        with contextlib.closing(stream(model, "the cat", strong(), max_new_tokens=3000)) as pieces:
            for _ in pieces:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        consume()
    assert threading.active_count() == threads
    assert hooks(model.module) == before


def test_cancelling_ends_a_stream_at_once():
    model = tiny_model(max_position_embeddings=4096)
    passes, threads = counted_passes(model), threading.active_count()
    gate, cancel = threading.Event(), threading.Event()
    # Pass 4 waits for the consumer, which by then has cancelled.
    model.layers[-1].register_forward_hook(lambda *_: gate.wait(20) if len(passes) == 4 else None)
    before = hooks(model.module)
    pieces = stream(model, "the cat", strong(), max_new_tokens=3000, cancel=cancel)
    found = [next(pieces)]
    cancel.set()
    gate.set()
    found += list(pieces)
    assert len(found) == 1  # what was written ahead is dropped
    assert len(passes) <= 5
    assert threading.active_count() == threads
    assert hooks(model.module) == before
    already = threading.Event()
    already.set()
    passes.clear()
    assert list(stream(model, "the cat", max_new_tokens=3000, cancel=already)) == []
    assert len(passes) <= 2


def test_closing_a_stream_does_not_cancel_what_shares_the_event():
    cancel = threading.Event()
    pieces = stream(tiny_model(), "the cat", max_new_tokens=20, cancel=cancel)
    next(pieces)
    pieces.close()
    assert not cancel.is_set()
    assert list(stream(tiny_model(), "the cat", max_new_tokens=3, cancel=cancel))


# --- what is refused ----------------------------------------------------------------------------


class Mute(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))


@pytest.mark.parametrize(("options", "sentence"), [
    ({"max_new_tokens": 0}, "max_new_tokens is 0, expected a positive number"),
    ({"temperature": -0.5}, "temperature is -0.5, expected a number from 0 on"),
    ({"temperature": float("nan")}, "temperature is nan, expected a number from 0 on"),
    ({"temperature": float("inf")}, "temperature is inf, expected a number from 0 on"),
    ({"seed": -1}, "seed is -1, expected a number from 0 on"),
    ({"max_new_tokens": 60}, "prompt of 8 tokens and an answer of 60 do not fit the 64 positions"),
    ({"model": load_model(Mute(), tiny_tokenizer())}, "Mute has no generate method; load a causal"),
])  # fmt: skip
def test_a_wrong_argument_is_one_sentence_of_both(options, sentence):
    options = dict(options)
    model = options.pop("model", None) or tiny_model()
    for call in (lambda: generate(model, ["m", "the cat!!"], **options),
                 lambda: stream(model, "the cat!!", **options)):  # fmt: skip
        with pytest.raises(ValueError, match=sentence) as caught:
            call()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("prompts", "options", "error", "sentence"), [
    (["a"], {"batch_size": 0}, ValueError, "batch_size is 0, expected a positive number"),
    (["a"], {"padding": "right"}, ValueError, 'padding is "right"; choose auto, left, none'),
    ("the cat", {}, ValueError, "prompts is one text, expected a list of them"),
    (["a"], {"chat": True}, SourceError, "tokenizer has no chat template"),
    (["a", 3], {}, SourceError, "holds int, but a text or a list of chat messages"),
    ([[]], {}, SourceError, "holds an empty list, but a text or a list of chat messages"),
    ([[{"role": "user"}]], {}, SourceError, "holds list, but a text or a list of chat messages"),
    ([[{"role": "user", "content": "a"}]], {}, SourceError, "prompt 0 is a conversation"),
    (["a"], {"edits": [Edit.add(direction(), 1.0, site="resid_post.7")]}, ValueError, "no site"),
    (["a"], {"edits": 3}, ValueError, "edits are a int, expected an Edit or a list"),
])  # fmt: skip
def test_a_wrong_argument_is_one_sentence(prompts, options, error, sentence):
    model = tiny_model()
    before = hooks(model.module)
    with pytest.raises(error, match=sentence) as caught:
        generate(model, prompts, **{"max_new_tokens": 2, **options})
    assert "\n" not in str(caught.value)
    assert hooks(model.module) == before


def test_a_prompt_without_tokens_is_named():
    model = load_model(tiny_module(), tiny_tokenizer(bos=False))
    with pytest.raises(ValueError, match="prompt 1 has no tokens; give a text"):
        generate(model, ["a", ""])
    assert generate(tiny_model(), [""], max_new_tokens=2)[0].prompt_ids.tolist() == [0]


def test_hostile_prompts_are_answered():
    model = tiny_model()
    hostile = ["lone \ud800 surrogate", "\0", "<|end|> in the text", "שלום 👩‍👩‍👧", "\n\n", " "]
    answers = generate(model, hostile, strong(), max_new_tokens=2)
    assert [a.prompt for a in answers] == hostile
    assert "".join(p.text for p in stream(model, hostile[0], strong(), max_new_tokens=2)) == (
        answers[0].text
    )


def test_as_many_tokens_as_the_model_has_positions_are_answered():
    model = tiny_model("gpt2")
    (answer,) = generate(model, ["a" * 33], max_new_tokens=30)  # with the BOS
    assert len(answer.prompt_ids) + 30 == 64
    with pytest.raises(ValueError, match="do not fit"):
        generate(model, ["a" * 34], max_new_tokens=30)


def test_public_names_answer():
    model = tiny_model()
    (answer,) = ex.generate(model, ["the cat"], ex.Edit.add(direction(), 1.0, site=SITE),
                            max_new_tokens=3)  # fmt: skip
    assert isinstance(answer, ex.Answer)
    with ex.add(model, direction(), 1.0, site=SITE):
        tokens = [piece.token for piece in ex.stream(model, "the cat", max_new_tokens=3)]
    assert tokens == answer.ids.tolist()
