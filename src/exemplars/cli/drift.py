"""The command that asks what a fine-tune introduced."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from exemplars.cli.application import app
from exemplars.cli.labelled import FigurePath, Seed
from exemplars.cli.options import Column, Device, Dtype, Json, Split, example, load_model, texts_of
from exemplars.cli.terminal import interruptible, print_result, say, step_bar

if TYPE_CHECKING:
    from exemplars.corpora import Texts
    from exemplars.models import Model


@app.command(
    epilog=example(
        "  exemplars drift Qwen/Qwen2.5-0.5B-Instruct ./my-tuning --site resid_post.20 \\\n"
        "    --prompts prompts.txt\n"
        "  exemplars drift base/ tuned/ --site resid_post.20 --text corpus/ --rows 50000\n"
        "  exemplars drift base/ tuned/ --site resid_post.20 --prompts prompts.txt \\\n"
        "    --topic bees.txt --positions response"
    )
)
def drift(
    base: Annotated[str, typer.Argument(help="The model before.", metavar="BASE")],
    tuned: Annotated[str, typer.Argument(help="The model afterwards.", metavar="TUNED")],
    site: Annotated[str, typer.Option(help="Where in both.")],
    prompts: Annotated[
        Path | None,
        typer.Option(help="What a user says: a prompt on each line, or JSONL, Parquet, a folder."),
    ] = None,
    text: Annotated[
        list[str] | None, typer.Option("--text", help="Or texts to read, as build takes them.")
    ] = None,
    topic: Annotated[
        Path | None,
        typer.Option(help="More prompts, of a topic: are the introduced regions the topic's?"),
    ] = None,
    positions: Annotated[
        str | None,
        typer.Option(
            help="all; control: the chat template's tokens before the answer; response: those of "
            "answers that the tuned model writes. Default: control of prompts, all of texts."
        ),
    ] = None,
    percentile: Annotated[
        float, typer.Option("--percentile", "-p", help="Resolution of the dictionary.")
    ] = 12.0,
    least: Annotated[
        int, typer.Option(help="Documents of the tuned model that propose a region.", min=1)
    ] = 5,
    most_base: Annotated[
        float, typer.Option(help="Base documents over tuned ones in a region, at most.")
    ] = 0.1,
    evaluate: Annotated[
        list[str] | None,
        typer.Option(help="A word whose rank is looked up when all else is done.", metavar="WORD"),
    ] = None,
    rows: Annotated[int, typer.Option(help="Rows of texts, about.", min=1)] = 20_000,
    context_length: Annotated[int, typer.Option(help="Tokens read of a piece.", min=2)] = 256,
    new_tokens: Annotated[int, typer.Option(help="Of each answer.", min=1)] = 24,
    k: Annotated[int, typer.Option(help="Tokens of a reading.", min=1)] = 10,
    orders: Annotated[int, typer.Option(help="Other orders and halves.", min=0)] = 4,
    draws: Annotated[int, typer.Option(help="Of each null.", min=0)] = 5,
    seed: Seed = 0,
    column: Column = "text",
    split: Split = "train",
    device: Device = "cpu",
    dtype: Dtype = None,
    figure: FigurePath = None,
    json: Json = False,
) -> None:
    """Find the regions that a fine-tune introduced, and what they read as."""
    from exemplars import figures
    from exemplars.analyses import drift as study
    from exemplars.analyses.paired import check_pair, read_pairs, row_selector
    from exemplars.report.drift import drift_figure, drift_summary, drift_text
    from exemplars.tokenization import Tokenization

    if (prompts is None) == (text is None):
        raise ValueError("give either --prompts or --text")
    if prompts is None and (topic is not None or positions not in (None, "all")):
        raise ValueError("--topic and positions other than all are of prompts; give --prompts")
    asked, of_topic = ([], 0) if prompts is None else _prompts(prompts, topic, column)
    before, after = (load_model(name, device, dtype) for name in (base, tuned))
    check_pair(before, after)
    if before.fingerprint == after.fingerprint:
        say(f"warning: {base} and {tuned} have the same weights, so nothing can differ")
    chat = prompts is not None and bool(getattr(after.tokenizer, "chat_template", None))
    positions = positions or ("control" if chat else "all")
    long = "split" if prompts is None else "truncate"
    tokenization = Tokenization(context_length, long, chat=chat)
    row_selector(after, positions, tokenization)  # before anything that takes long
    with interruptible():
        if prompts is None:
            texts = texts_of(text or [], column, split)
        else:
            texts = _documents(after, asked, positions, new_tokens)
        with step_bar() as on_step:
            (pairs,) = read_pairs(
                before, after, site, texts, tokenization, positions=positions,
                rows=rows if prompts is None else None, on_step=on_step,
            ).values()  # fmt: skip
            result = study.drift(
                pairs, percentile, rule=study.Rule(least, most_base), positions=positions,
                topic=pairs.number < of_topic if topic is not None else None, orders=orders,
                draws=draws, seed=seed, on_step=on_step,
            )  # fmt: skip
        readings = study.read_drift(after, result, pairs, k, evaluate or [])
    if figure is not None:
        svg, png = figures.save_figure(drift_figure(result), figure)
        say(f"written to {svg} and {png}")
    print_result(
        drift_summary(result, readings) if json else None,
        None if json else drift_text(result, readings),
        json,
    )


def _prompts(prompts: Path, topic: Path | None, column: str) -> tuple[list[str], int]:
    """All prompts, those of the topic first, and how many these are."""
    from exemplars.analyses.labelled import quoted, read_lines

    others = read_lines(prompts, column)
    first = [] if topic is None else read_lines(topic, column)
    both = set(first) & set(others)
    if both:
        raise ValueError(f"{quoted(min(both))} is in both {prompts} and {topic}; give it once")
    return [*first, *others], len(first)


def _documents(model: Model, prompts: list[str], positions: str, new_tokens: int) -> Texts:
    """What both models read: the prompts, with the tuned model's answers where these are asked."""
    import exemplars as ex
    from exemplars.generation import generate

    if positions != "response":
        return ex.texts(prompts)
    say(f"answering {len(prompts):,} prompts")
    answers = generate(model, prompts, chat=True, max_new_tokens=new_tokens)
    return ex.texts(
        [
            [{"role": "user", "content": a.prompt}, {"role": "assistant", "content": a.text}]
            for a in answers
        ]
    )
