"""Define the commands ``train``, ``examples`` and ``merge``, which import heavy modules when called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, command, in_panel
from genrec.config import FEEDBACK_WEIGHTS, OUTPUT, PROMPT, Settings, check_choice, option
from genrec.errors import SettingsError
from genrec.files import check_new_folder
from genrec.models.packaged import DEFAULT_MODEL
from genrec.training.config import Training, describe_settings

if TYPE_CHECKING:
    pass

# The settings that define the prompt. A run stores them, because its model was trained with them.
_ATTENTION = ("attention", "recent_events")  # not for commands that only write or count
_NOT_TRAINED = ("few_shot", "demonstrations", *_ATTENTION)
TRAINED = (*(n for n in in_panel(Settings, PROMPT) if n not in _NOT_TRAINED), "target_behavior")

_RUN = "Run"
_PANELS = {
    "What to learn": (
        "objective", "behaviors", "fit", "protocol", "layout", "basket", "holdout", "holdout_users", "replay",
        "negatives", "like_threshold", "pairs_per_user", "examples", "pairs",
    ),
    "Loss": (
        "vocab_weight", "label_smoothing", "recency_half_life", "behavior_weights",
        "popularity_strength",
    ),
    "Adapter": ("lora_rank", "lora_alpha", "lora_dropout", "dora", "target_modules", "lora_layers", "quantize"),
    "Optimizer": (
        "learning_rate", "warmup", "schedule", "weight_decay", "max_grad_norm", "epochs",
        "max_targets", "max_minutes", "seed",
    ),
    "Privacy": ("dp_epsilon", "dp_delta", "dp_clip", "dp_users", "dp_tokens"),
    "Batches and memory": (
        "batch_size", "accumulate", "pack_tokens", "overlap", "gradient_checkpointing",
    ),
    "Validation and checkpoints": (
        "eval_users", "eval_every", "tune_users", "patience", "save_steps", "save_minutes", "log_steps",
        "report_to",
    ),
}  # fmt: skip
_MORE: dict[str, dict[str, Any]] = {
    "behavior_weights": {"metavar": "BEHAVIOR=NUMBER", "example": "buy=2"},
    "behaviors": {"metavar": "NAMES"},
    "target_modules": {"list": True, "metavar": "NAMES"},
    "report_to": {"list": True, "metavar": "NAMES"},
}


def describe_training() -> dict[str, Mapping[str, Any]]:
    """Return the metadata of each option of ``genrec train``, with help texts from ``Training``."""
    texts = describe_settings()
    return {
        name: {"panel": panel, "help": texts[name], **_MORE.get(name, {})}
        for panel, names in _PANELS.items()
        for name in names
    }


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options that say where a training run starts, such as a checkpoint or an earlier run."""

    config: Path | None = option(
        None,
        _RUN,
        "YAML file of settings, such as training.yaml in a run folder. Options override the file.",
        metavar="FILE",
    )
    resume: bool = option(False, _RUN, "Resume from the last checkpoint in --out.")
    since: Path | None = option(
        None,
        _RUN,
        "Continue training the adapter of an earlier run, given by its run folder.",
        flags=("--from",),
        metavar="RUN",
    )
    interactions: Path | None = option(
        None,
        _RUN,
        "With --from: file with new events to train on, in a format that `genrec prepare` accepts. Some "
        "old events are used again (see --replay).",
        metavar="FILE",
    )
    items: Path | None = option(
        None,
        _RUN,
        "With --interactions: file with new items, in a format that `genrec prepare` accepts.",
        metavar="FILE",
    )

    feedback: str | None = option(
        None,
        _RUN,
        "With --from: train on the events that `genrec serve` received: an export of the service, or its "
        "address. The key is taken from the environment variable GENREC_KEY. Some old events are used again "
        "(see --replay).",
        metavar="FILE|URL",
    )
    feedback_weights: str = option(
        "none",
        _RUN,
        "With --feedback: weight of an event as a target. position: an item at rank r of the shown list "
        "weighs log2(r + 1), since fewer users look at lower places.",
        choices=FEEDBACK_WEIGHTS,
    )

    def __post_init__(self) -> None:
        """Check that a run to continue from is given if there is new data, and only one kind of it.

        Raises:
            SettingsError: new data is given, but no run to continue from; or options exclude each other.
        """
        if (self.interactions or self.items or self.feedback) and self.since is None:
            msg = "--interactions, --items and --feedback need --from RUN, which is the run to continue from."
            raise SettingsError(msg)
        if self.feedback is not None and (self.interactions or self.items):
            msg = (
                "--feedback does not work with --interactions and --items, because a service has its own "
                "events and items. Train on one after the other."
            )
            raise SettingsError(msg)
        check_choice("feedback_weights", self.feedback_weights, FEEDBACK_WEIGHTS)
        if self.feedback_weights != "none" and self.feedback is None:
            raise SettingsError(
                "--feedback-weights needs --feedback. Leave it out, or name an export."
            )


@command(
    "out", "model", "objective", "behaviors", "fit", "config", "resume", "since", "epochs",
    "max_minutes", "lora_rank", "learning_rate", "json",
)  # fmt: skip
def train(
    data: Data,
    out: Annotated[
        Path, typer.Option(metavar="DIR", help="Run folder to write.", rich_help_panel=_RUN)
    ],
    start: RunOptions,
    which: Annotated[Given, FieldsOf(ModelOptions, without=["run", "quantize"])],
    settings: Annotated[
        Given,
        FieldsOf(Training, about=describe_training()),
        FieldsOf(Settings, only=[*TRAINED, *_ATTENTION]),
    ],
    json: AsJson = False,
) -> None:
    """Fine-tune a model on a dataset. Training can be stopped at any time and continued with --resume.

    With --objective next (the default), the model learns to write the title of the next item. With
    pointwise, it learns to predict whether a user wants an item, for `genrec likes`.

    When the training ends, the weight of the collaborative prior is fitted on validation users, and the
    prior is stored in the run folder with the IDs of the users whose events it counted. --tune-users 0
    turns this off.
    """
    from genrec.training.time_plan import Stopwatch

    stopwatch = Stopwatch()  # before the slow imports, which count
    from genrec import runs
    from genrec.data.dataset import Dataset
    from genrec.priors.judgement import judge_run
    from genrec.reports import console, summaries
    from genrec.training.config import resolve

    first = runs.is_first_process()
    earlier = _earlier_settings(out, start)
    model = which.pop("model")
    if model is None and start.since is not None and not start.resume:
        model = runs.Run.read(start.since).base_model
    values = {**earlier, **settings.only}
    resolve(values)  # report invalid settings before loading the data
    dataset, new, rejects = Dataset.load(data), None, None
    if start.interactions is not None:
        from genrec.data.readers.rejects import Rejects
        from genrec.data.updates import apply_updates

        rejects = Rejects(start.interactions.name)
        dataset, new = apply_updates(dataset, start.interactions, start.items, rejects=rejects)
        if first:
            summaries.print_rejected(rejects.counts())
        values.setdefault("eval_users", 0)
    if start.feedback is not None:
        from genrec.data.exports import read_export
        from genrec.data.feedback import add_feedback

        export = read_export(start.feedback)
        dataset, new = add_feedback(dataset, export, weights=start.feedback_weights)
        values.setdefault("eval_users", 0)
    with summaries.training(quiet=json or not first) as (log, watch):
        from genrec.training import trainer

        run = trainer.train(
            dataset,
            out,
            model or DEFAULT_MODEL,
            resume=start.resume,
            since=start.since,
            new=new,
            log=log,
            watch=watch,
            stopwatch=stopwatch,
            **which,
            **values,
        )
    if not first:
        return
    if new is not None and not (out / runs.OWN_DATA).exists():
        dataset.save(out / runs.OWN_DATA, [] if rejects is None else [rejects])
        console.print_line(
            f"Saved the dataset with {int(new.sum()):,} new events to {out / runs.OWN_DATA}."
        )
    if json:
        findings = list(map(str, judge_run(run, str(data), str(out))))
        values = {"schema_version": 1, "out": str(out), **asdict(run), "findings": findings}
        console.print_json(values)
    else:
        summaries.print_run(run, out, data)


def _earlier_settings(out: Path, start: RunOptions) -> dict[str, Any]:
    """Read the settings to start with from ``--config``, or from the run to resume or continue."""
    from genrec.runs import Run
    from genrec.training.config import read

    if start.config is None and start.resume and (out / "training.yaml").is_file():
        return read(out / "training.yaml")
    written = {} if start.config is None else read(start.config)
    if start.since is None or start.resume:
        return written
    run = Run.read(start.since)
    prompt = {n: v for n, v in run.settings.items() if n in (*TRAINED, *_ATTENTION)}
    return {**prompt, "behaviors": run.training["behaviors"], **written}


@command("out", "form", "model", "behaviors", "template", "language", "target_behavior")
def examples(
    data: Data,
    out: Annotated[
        Path,
        typer.Option(
            metavar="FILE", help="File to write: .jsonl or .parquet.", rich_help_panel=OUTPUT
        ),
    ],
    which: Annotated[Given, FieldsOf(ModelOptions, without=["run", "quantize"])],
    pairs: Annotated[
        Given,
        FieldsOf(
            Training,
            only=["negatives", "like_threshold", "pairs_per_user"],
            about=describe_training(),
        ),
    ],
    settings: Annotated[
        Given,
        FieldsOf(Training, only=["behaviors"], about=describe_training()),
        FieldsOf(Settings, only=[*TRAINED, "seed"]),
    ],
    form: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="prompt-completion|messages|pointwise",
            help="Format of the examples. prompt-completion: a prompt and the title that follows it. "
            "messages: the same content as chat messages. pointwise: a text with a label, for use "
            "with `genrec train --pairs`.",
            rich_help_panel=OUTPUT,
        ),
    ] = "prompt-completion",
) -> None:
    """Write training examples to a file for use with other training programs or `genrec train`."""
    from genrec.data.dataset import Dataset
    from genrec.reports import console

    dataset, model = Dataset.load(data), which["model"] or DEFAULT_MODEL
    with console.working("Writing examples ...") as log:
        from genrec.training.examples import write_examples
        from genrec.training.pairs import write_pairs

        if form == "pointwise":
            many = write_pairs(dataset, out, model, log=log, **settings, **pairs)
        else:
            many = write_examples(dataset, out, model, form=form, log=log, **settings)
    console.print_line(f"Wrote {many:,} examples to {out}.")


@command()
def merge(
    run: Annotated[
        Path, typer.Argument(metavar="RUN", help="Run folder written by `genrec train`.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Model folder to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Base model of the run, if it is no longer where it was during training.",
            show_default="the one that the run recorded",
        ),
    ] = None,
) -> None:
    """Merge the adapter of a run into its base model, and save the result for use in other programs."""
    from genrec import runs
    from genrec.reports import console

    trained = runs.Run.read(runs.find_run(run))
    check_new_folder(out)
    with console.working(f"Merging {run} ...") as log:
        from genrec.models.language_model import LanguageModel

        LanguageModel.of_run(run, model, device="cpu", dtype="float32", log=log).save(out)
    console.print_line(f"Merged the adapter of {run} into {trained.base_model}, saved to {out}.")
    if not trained.training.get("vocab_weight"):
        console.print_line(
            "This run was trained with vocab_weight 0: the model can choose the next title from the "
            "catalog, but cannot write titles freely. Restrict it to titles from the catalog, or train "
            "with --vocab-weight above 0."
        )
