"""The pages say what the code does: help, links, names, examples."""

import ast
import doctest
import importlib
import importlib.util
import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest
import typer

import exemplars
from exemplars import cli
from exemplars.report import dictionaries as report

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")])
GROUP = typer.main.get_command(cli.app)
COMMANDS = GROUP.commands

pytestmark = pytest.mark.skipif(
    not (ROOT / "README.md").exists(), reason="the pages are not here; run this from a checkout"
)


def generator():
    spec = importlib.util.spec_from_file_location("generate_cli", ROOT / "docs/generate_cli.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def code_blocks(page, language=""):
    text = page.read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def command_lines(text):
    """`exemplars ...` lines as lists of words, continued lines joined, comments left out."""
    for line in text.replace("\\\n", " ").splitlines():
        if re.match(r"\s*(\S*/)?exemplars ", line):
            yield shlex.split(line, comments=True)[1:]


def parse(words):
    """Let the real options read a command line, without running it."""
    name, command, rest = GROUP.resolve_command(GROUP.make_context("exemplars", [*words]), words)
    with command.make_context(name, rest):
        pass


def examples_of(command):
    return list(command_lines(command.get_help(type(command).context_class(command))))


def test_the_page_of_commands_is_what_the_help_says():
    pinned = re.search(r"^typer==(.+)$", (ROOT / "constraints.txt").read_text(), re.MULTILINE)[1]
    if typer.__version__ != pinned:
        pytest.skip(f"typer {typer.__version__} lays help out otherwise than {pinned} does")
    made = generator()
    assert made.PAGE.read_text(encoding="utf-8") == made.page(), (
        "run python docs/generate_cli.py --write"
    )


def test_the_page_of_commands_does_not_depend_on_the_terminal(monkeypatch):
    made = generator()
    monkeypatch.setenv("COLUMNS", "40")
    narrow = made.page()
    monkeypatch.setenv("COLUMNS", "200")
    assert made.page() == narrow


def test_the_page_of_commands_has_every_command():
    text = (ROOT / "docs/cli.md").read_text(encoding="utf-8")
    assert re.findall(r"^## (.+)$", text, re.MULTILINE) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_an_example_that_parses(name):
    examples = examples_of(COMMANDS[name])
    assert examples
    assert {words[0] for words in examples} == {name}
    for words in examples:
        parse(words)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_command_lines_on_the_pages_parse(page):
    for block in code_blocks(page):
        if block.startswith("Usage:"):
            continue
        for words in command_lines(block):
            parse(words)


def test_the_readme_shows_command_lines():
    found = [words for b in code_blocks(ROOT / "README.md") for words in command_lines(b)]
    assert len(found) >= 5


def test_a_wrong_command_line_does_not_parse():
    with pytest.raises(cli._UsageError):
        parse(["show", "folder", "--no-such-option"])
    with pytest.raises(cli._UsageError):
        parse(["build", "model"])


def test_the_text_of_the_demo_shows_command_lines_that_parse(monkeypatch):
    source = ast.get_source_segment(
        Path(report.__file__).read_text(encoding="utf-8"),
        next(
            node
            for node in ast.parse(Path(report.__file__).read_text(encoding="utf-8")).body
            if getattr(node, "name", "") == "demo_text"
        ),
    )
    found = re.findall(r"""f['"]  (exemplars .*)['"],""", source)
    assert len(found) == 2
    for words in command_lines("\n".join(found)):
        parse(words)


def test_the_readme_runs():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"<!-- doctest -->\n```python\n(.*?)```", text, re.DOTALL)
    assert blocks
    for block in blocks:
        test = doctest.DocTestParser().get_doctest(block, {}, "README.md", "README.md", 0)
        assert test.examples
        said = []
        doctest.DocTestRunner().run(test, out=said.append)
        assert said == [], "".join(said)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files(page):
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    links = [link for link in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in link]
    missing = [link for link in links if not (page.parent / link.split("#")[0]).exists()]
    assert missing == []


def test_what_the_method_names_is_in_the_code():
    text = (ROOT / "docs/method.md").read_text(encoding="utf-8")
    named = set(re.findall(r"`([A-Za-z_]+)\.([A-Za-z_]+)`", text))
    assert {("geometry", "to_directions"), ("Dictionary", "metrics")} <= named
    missing = []
    for owner, name in named:
        if owner in exemplars.__all__:
            holder = getattr(exemplars, owner)
        elif name != "parquet" and importlib.util.find_spec(f"exemplars.{owner}"):
            holder = importlib.import_module(f"exemplars.{owner}")
        else:
            continue  # a file such as `regions.safetensors`, `contexts.parquet`
        missing += [] if hasattr(holder, name) else [f"{owner}.{name}"]
    assert missing == []


def test_the_glossary_is_in_alphabetical_order():
    text = (ROOT / "docs/glossary.md").read_text(encoding="utf-8")
    words = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", text, re.MULTILINE)
    words = [word for word in words if word != "word" and not word.startswith("-")]
    assert len(words) > 30
    assert words == sorted(words, key=str.casefold)
    assert len(set(words)) == len(words)


def test_records_and_public_names_use_the_words_of_the_glossary():
    forbidden = re.compile(
        r"cluster_id|centroid|prototype|partition_id|cell_id|leader(?!_)|codebook|neuron|"
        r"feature|latent|n_tokens|hook_point|hookpoint|layer_name|radius|epsilon"
    )
    found = []
    for name in exemplars.__all__:
        thing = getattr(exemplars, name)
        own = [n for n in vars(thing) if not n.startswith("_")] if isinstance(thing, type) else []
        fields = getattr(thing, "__dataclass_fields__", {})
        found += [f"{name}.{word}" for word in {*own, *fields} if forbidden.search(word)]
        found += [name] if forbidden.search(name) else []
    assert found == []


def test_the_example_of_arrays_runs(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["01_arrays.py"])
    runpy.run_path(str(ROOT / "examples/01_arrays.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert said.startswith("5 regions of")
    assert "region 4: founded by row 5, holds cloud [1]\n" in said


def test_the_examples_of_a_model_run_in_order(monkeypatch, capsys, tmp_path):
    from conftest import make_tokenizer
    from tiny_models import tiny_module

    tiny_module(max_position_embeddings=128).save_pretrained(tmp_path / "model")
    make_tokenizer("gpt2").save_pretrained(tmp_path / "model")
    texts = tmp_path / "texts"
    texts.mkdir()
    for k in range(4):
        (texts / f"{k}.txt").write_text(f"the {k}th of the texts, " * 9)
    arguments = [tmp_path / "model", texts, "resid_post.1", tmp_path / "out", 300]
    monkeypatch.setattr(sys, "argv", ["02_build.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "examples/02_build.py"), run_name="__main__")
    assert f"in {tmp_path / 'out'}" in capsys.readouterr().out
    monkeypatch.setattr(sys, "argv", ["03_read.py", str(tmp_path / "out"), "the other text"])
    runpy.run_path(str(ROOT / "examples/03_read.py"), run_name="__main__")
    said = capsys.readouterr().out
    assert "region 0 promotes" in said
    assert said.rstrip().endswith("θ")


def test_examples_are_short_and_named_in_order():
    files = sorted((ROOT / "examples").glob("*.py"))
    assert [file.name[:3] for file in files] == [f"{k + 1:02}_" for k in range(len(files))]
    assert max(len(file.read_text(encoding="utf-8").splitlines()) for file in files) < 40
