"""Tokenizers built in memory, one for each way in which real ones differ; the command line."""

import contextlib
import sys
from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

END = "<|endoftext|>"
START_OF_TURN, END_OF_TURN = "<|im_start|>", "<|im_end|>"
MERGES = [
    ("t", "h"), ("th", "e"), ("Ġ", "the"), ("i", "n"), ("e", "r"), ("Ġ", "a"), ("a", "n"),
    ("Ġ", "Ġ"), ("ĠĠ", "ĠĠ"), ("o", "u"), ("Ċ", "Ċ"),
]  # fmt: skip
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|im_start|>system\nBe kind.<|im_end|>\n"
    "{% endif %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_level_bpe(adds_bos: bool = False) -> Tokenizer:
    """Byte-level BPE with a few merges, as GPT-2's; ids 0 to 2 are the special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    words = [END, START_OF_TURN, END_OF_TURN, *alphabet, *("".join(pair) for pair in MERGES)]
    tokenizer = Tokenizer(models.BPE({word: i for i, word in enumerate(words)}, MERGES))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END, START_OF_TURN, END_OF_TURN])
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{END} $A", pair=f"{END} $A $B", special_tokens=[(END, 0)]
        )
    return tokenizer


def make_tokenizer(kind: str) -> PreTrainedTokenizerFast:
    """One of KINDS."""
    ends = {"bos_token": END, "eos_token": END, "pad_token": END}
    if kind == "gpt2":  # pad = BOS = EOS, and no BOS added
        return PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(), **ends)
    if kind == "bos":
        return PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(adds_bos=True), **ends)
    if kind == "chat":  # adds BOS, and so does its template
        made = PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe(adds_bos=True), **ends)
        made.chat_template = "{{ bos_token }}" + CHAT_TEMPLATE
        return made
    if kind == "left":
        made = PreTrainedTokenizerFast(
            tokenizer_object=byte_level_bpe(), padding_side="left", truncation_side="left", **ends
        )
        made.backend_tokenizer.enable_truncation(7)
        made.backend_tokenizer.enable_padding(direction="left", length=9)
        return made
    assert kind == "bare"  # no special tokens at all
    return PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe())


KINDS = ("gpt2", "bos", "chat", "left", "bare")


@pytest.fixture
def gpt2_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("gpt2")


@pytest.fixture
def bos_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("bos")


@pytest.fixture
def chat_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("chat")


@pytest.fixture
def left_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("left")


@pytest.fixture
def bare_tokenizer() -> PreTrainedTokenizerFast:
    return make_tokenizer("bare")


@pytest.fixture
def run(monkeypatch, capsys):
    """Run a command line: its exit status, stdout and stderr."""
    from exemplars import cli

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["exemplars", *map(str, words)])
        with pytest.raises(SystemExit) as done:
            cli.main()
        captured = capsys.readouterr()
        return done.value.code, captured.out, captured.err

    return call


def pytest_configure() -> None:
    """Drop compiled code that is older than the sources: its cache does not see across files."""
    source = Path(__file__).parents[1] / "src" / "exemplars"
    newest = max(file.stat().st_mtime for file in source.rglob("*.py"))
    for compiled in source.rglob("*.nb[ci]"):
        with contextlib.suppress(FileNotFoundError):  # another run of the tests was faster
            if compiled.stat().st_mtime < newest:
                compiled.unlink()


@pytest.fixture(scope="module")
def browser():
    """Debian's Chromium."""
    from explorer_browser import chromium

    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def page_open(browser, served):
    """A window on the module's own server, `served`."""
    from explorer_browser import Visit

    found = Visit(browser, served)
    yield found
    found.close()


@pytest.fixture
def visit(page_open):
    """The window, as a new visitor finds it."""
    page_open.anew()
    return page_open
