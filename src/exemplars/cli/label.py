"""The command that has a language model describe regions, and scores what it says."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from exemplars.cli.application import app
from exemplars.cli.options import Dtype, Folder, Json, example, open_dictionary
from exemplars.cli.scoring import labeller_of
from exemplars.cli.terminal import print_result, say

if TYPE_CHECKING:
    from exemplars.labels import Label

_SAVE_EVERY_S = 10.0


@app.command(
    epilog=example(
        "  exemplars label gpt2-l6-p2 --endpoint http://localhost:8000/v1 --llm NAME\n"
        "  exemplars label gpt2-l6-p2 --local Qwen/Qwen2.5-1.5B-Instruct --top 20"
    )
)
def label(
    folder: Folder,
    endpoint: Annotated[
        str | None,
        typer.Option(
            help="An OpenAI-compatible endpoint: what stands before /chat/completions. Texts of "
            "the regions are sent there."
        ),
    ] = None,
    llm: Annotated[str | None, typer.Option(help="The endpoint's model.")] = None,
    local: Annotated[
        str | None,
        typer.Option(help="A model on this machine: hub id, folder, GGUF file, package:NAME."),
    ] = None,
    judge_endpoint: Annotated[
        str | None, typer.Option(help="Who answers the score's questions. Default: the labeller.")
    ] = None,
    judge_llm: Annotated[str | None, typer.Option(help="The judge's model.")] = None,
    judge_local: Annotated[str | None, typer.Option(help="A judge on this machine.")] = None,
    region: Annotated[list[int] | None, typer.Option(help="A region. Repeat for several.")] = None,
    top: Annotated[int, typer.Option(help="Else the so many largest.", min=1)] = 50,
    min_members: Annotated[
        int, typer.Option(help="Of the largest, those of so many members.", min=1)
    ] = 5,
    score: Annotated[bool, typer.Option(help="Score each label by detection.")] = True,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Write anew what this labeller wrote before.")
    ] = False,
    parallel: Annotated[int, typer.Option(help="Requests under way at once.", min=1)] = 4,
    questions: Annotated[
        int | None,
        typer.Option(
            help="Contexts a judge is asked about at once. Default: 10; 1 if local.", min=1
        ),
    ] = None,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for an answer.", min=0.1)] = 60.0,
    key_env: Annotated[
        str | None,
        typer.Option(
            help="Environment variable with the endpoint's key. Default: EXEMPLARS_LABEL_KEY, then "
            "OPENAI_API_KEY."
        ),
    ] = None,
    judge_key_env: Annotated[
        str | None, typer.Option(help="The same for the judge's endpoint.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the contexts held out.", min=0)] = 0,
    device: Annotated[str, typer.Option(help="Where local models run.")] = "cpu",
    dtype: Dtype = None,
    json: Json = False,
) -> None:
    """Have a language model describe regions, and score each description.

    Labels are stored in the dictionary's folder as they are written; an interrupted run goes on
    where it stopped. The score is the balanced accuracy of telling held-out members from other
    contexts by the label; 0.5 is chance.
    """
    from exemplars import labels
    from exemplars.report.labels import labels_text

    _check("", endpoint, llm, local, needed=True)
    _check("judge-", judge_endpoint, judge_llm, judge_local, needed=False)
    dictionary = open_dictionary(folder)
    chosen = region or labels.largest_regions(dictionary, top, min_members)
    if not chosen:
        raise ValueError(f"no region has {min_members} members; give a smaller --min-members")
    for number in chosen:
        dictionary.region(number)
    writer = labeller_of(
        endpoint, llm, local, device, dtype, timeout_s=timeout, key_from_env=key_env
    )
    judge = writer
    if judge_endpoint or judge_local:
        judge = labeller_of(
            judge_endpoint, judge_llm, judge_local, device, dtype,
            timeout_s=timeout, key_from_env=judge_key_env,
        )  # fmt: skip
    saving = _Saving(folder, len(set(chosen)))
    try:
        found = labels.label_regions(
            dictionary,
            writer,
            chosen,
            judge=judge,
            score=score,
            questions=questions or (1 if judge.host == "local" else 10),
            seed=seed,
            parallel=parallel,
            known=[] if overwrite else saving.known,
            on_label=saving.on_label,
        )
    except KeyboardInterrupt:
        raise KeyboardInterrupt(
            f"interrupted; {folder} holds {saving.n_written} new labels: run it again to go on "
            "from there"
        ) from None
    finally:
        saving.save()
    print_result([_plain(one) for one in found], labels_text(found), json)
    failed = [one for one in found if not one.text]
    if failed:
        say(f"{len(failed)} of {len(found)} regions have no label: {failed[0].note}")
    if len(failed) == len(found):
        raise typer.Exit(1)


class _Saving:
    """Labels go to the folder now and then, and progress to stderr."""

    def __init__(self, folder: Any, n_regions: int) -> None:
        from exemplars import labels, store

        self.folder, self.n_regions = folder, n_regions
        self.known: list[Label] = labels.labels_from(store.load_labels(folder))
        self._new: dict[int, Label] = {}
        self._unsaved, self._saved_at = 0, time.monotonic()

    @property
    def n_written(self) -> int:
        return sum(bool(one.text) for one in self._new.values())

    def on_label(self, one: Label) -> None:
        from exemplars.report.labels import accuracy_text

        self._new[one.region] = one
        self._unsaved += 1
        if one.score is not None:
            said = f"scored {accuracy_text(one.score.own.against_random)} against random"
        else:
            said = one.text or f"failed: {one.note}"
        say(f"region {one.region}: {said}")
        if time.monotonic() - self._saved_at > _SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        from exemplars import labels, store

        if self._unsaved:
            every = labels.merged(self.known, self._new.values())
            store.save_labels(self.folder, labels.labels_table(every))
            self._unsaved, self._saved_at = 0, time.monotonic()


def _check(
    prefix: str, endpoint: str | None, llm: str | None, local: str | None, needed: bool
) -> None:
    given = f"--{prefix}endpoint URL --{prefix}llm NAME, or --{prefix}local MODEL"
    if local is not None and (endpoint is not None or llm is not None):
        raise ValueError(f"both an endpoint and a local model were given; give {given}")
    if (endpoint is None) != (llm is None):
        missing = "endpoint" if endpoint is None else "llm"
        raise ValueError(f"--{prefix}{missing} is missing; give {given}")
    if needed and endpoint is None and local is None:
        raise ValueError(f"no language model was given to write labels; give {given}")


def _plain(one: Label) -> dict[str, Any]:
    """A label as plain values, with the accuracies that its counts make."""
    score = one.score
    accuracies = None
    if score is not None:
        accuracies = {
            of: {
                "against_random": detection.against_random,
                "against_neighbours": detection.against_neighbours,
            }
            for of, detection in (("own", score.own), ("null", score.null))
            if detection is not None
        }
    return {**vars(one), "accuracy": accuracies}
