"""The command that compares two models by which prompts they represent together."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath, LabelledColumn, Negative, Positive, Seed
from exemplars.cli.options import Device, Dtype, Json, example, load_model
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.analyses.families import FinalVectors, LabelledPrompts


@app.command(
    epilog=example(
        "  exemplars families HuggingFaceTB/SmolLM2-135M-Instruct Qwen/Qwen2.5-0.5B-Instruct \\\n"
        "    --positive harmful.txt --negative harmless.txt\n"
        "  exemplars families gpt2 EleutherAI/pythia-70m --prompts questions.txt --figure f.svg"
    )
)
def families(
    model_a: Annotated[
        str, typer.Argument(help="Hub id, local folder, GGUF file, or package:NAME.")
    ],
    model_b: Annotated[str, typer.Argument(help="Likewise.")],
    prompts: Annotated[
        list[Path] | None,
        typer.Option(
            "--prompts",
            help="A prompt on each line, or JSONL, Parquet, a folder. Repeat: a class in each.",
        ),
    ] = None,
    positive: Positive = None,
    negative: Negative = None,
    column: LabelledColumn = None,
    most: Annotated[int, typer.Option(help="Prompts of a class, at most.", min=8)] = 300,
    percentile: Annotated[float, typer.Option("--percentile", "-p", help="The resolution.")] = 12.0,
    every: Annotated[int, typer.Option(help="Read every so many layers.", min=1)] = 1,
    plain: Annotated[
        bool, typer.Option("--plain", help="Read prompts as they are, without chat template.")
    ] = False,
    seeds: Annotated[int, typer.Option(help="Orders of the prompts.", min=2)] = 3,
    draws: Annotated[int, typer.Option(help="Random matchings behind p.", min=19)] = 999,
    seed: Seed = 1,
    device: Device = "cpu",
    dtype: Dtype = None,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Compare two models by which prompts represent their regions, without a common space.

    The models are read one after the other; one is in memory at a time.
    """
    from exemplars import figures
    from exemplars.analyses.families import compare_families
    from exemplars.report.families import families_figure, families_summary, families_text

    asked = _prompts(prompts, positive, negative, column, most, seed)
    with interruptible():
        one = _read(model_a, asked, every, plain, device, dtype)
        two = _read(model_b, asked, every, plain, device, dtype)
        say(f"comparing {len(one.sites)} and {len(two.sites)} sites")
        with step_bar() as on_step:
            found = compare_families(
                one, two, asked, percentile=percentile, seeds=seeds, draws=draws,
                seed=max(seed, 1), on_step=on_step,
            )  # fmt: skip
    if figure is not None:
        svg, png = figures.save_figure(families_figure(found), figure)
        say(f"written to {svg} and {png}")
    print_result(families_summary(found), None if json else families_text(found), json)


def _prompts(
    files: list[Path] | None,
    positive: Path | None,
    negative: Path | None,
    column: str | None,
    most: int,
    seed: int,
) -> LabelledPrompts:
    from exemplars.analyses.families import balanced
    from exemplars.analyses.labelled import read_lines

    if (positive is None) != (negative is None):
        raise ValueError("one class alone was given; give both --positive and --negative")
    if positive is not None and negative is not None:
        if files:
            raise ValueError("--prompts was given with --positive and --negative; give either")
        files = [positive, negative]
    if not files:
        raise ValueError("no prompts were given; give --prompts, or --positive and --negative")
    named = {file.stem: file for file in files}
    if len(named) < len(files):  # positive/prompts.txt and negative/prompts.txt
        named = {str(file): file for file in files}
    texts = {name: read_lines(file, column or "text") for name, file in named.items()}
    return balanced(texts, most, seed)


def _read(
    name: str, prompts: LabelledPrompts, every: int, plain: bool, device: str, dtype: str | None
) -> FinalVectors:
    """One model, which is let go of before the next is loaded."""
    from dataclasses import replace

    from exemplars.analyses.families import read_final

    model = load_model(name, device, dtype)
    last = model.n_layers - 1
    sites = [f"resid_post.{last - k}" for k in range(0, last + 1, every)][::-1]
    chat = bool(getattr(model.tokenizer, "chat_template", None)) and not plain
    how = "through its chat template" if chat else "as plain text"
    say(f"reading {len(prompts):,} prompts {how}, at {len(sites)} sites")
    with step_bar() as on_step:
        found = read_final(model, prompts.prompts, sites, chat, on_step)
    return replace(found, model=Path(name).stem if Path(name).exists() else name)
