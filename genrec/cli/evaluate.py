"""Define the commands ``evaluate`` and ``tune``, which import heavy modules when called."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec.cli.loading import load_recommender, use_float32
from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, command
from genrec.cli.recommend import LISTING, OWN, RANKING
from genrec.config import FIT_ON, OUTPUT, QueryOptions, Settings, option
from genrec.errors import RequestError, SettingsError
from genrec.files import check_output, lock_folder

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

_MEASURED = "What to measure"
_PROTOCOL = "the protocol that fits the data's split"
_SHOP = (*OWN, "per_group")
_ROWS = "Each system also gets a second row for lists as a shop would show them."
_SHOP_HELP = {  # the help of options that add rows to the results
    f.name: {**f.metadata, "panel": _MEASURED, "help": f"{f.metadata['help']} {_ROWS}"}
    for f in fields(QueryOptions)
    if f.name in _SHOP
}


def _is_one_report(value: str) -> bool:
    """Return True if the value of ``--report`` is one file name that contains a comma.

    A list of reports is recognized by the suffix .html or .md of each part.
    """
    return not all(part.strip().endswith((".html", ".md")) for part in value.split(","))


@dataclass(frozen=True, slots=True)
class EvaluateOptions:
    """Options that choose the systems, the users and the outputs of an evaluation."""

    against: tuple[str, ...] | None = option(
        None,
        _MEASURED,
        "Baselines to compare with: popular, recent and frequent (the user's own items), markov, itemknn, "
        "userknn, ease, content, mf, bpr, sasrec, titlesasrec, textseq, prior (the collaborative prior "
        "without a model) and ranker (the same with a learned ranking). Use none for no baselines.",
        metavar="NAMES",
        unset="popular,markov, and also recent,frequent if seen items may be recommended",
    )
    no_model: bool = option(
        False,
        _MEASURED,
        "Evaluate only the baselines given with --against, without a language model.",
    )
    split: str = option(
        "test",
        _MEASURED,
        "Part of the data to predict. Use validation for tuning and test for final results.",
        choices=("validation", "test"),
    )
    protocol: str | None = option(
        None,
        _MEASURED,
        "Evaluation protocol, which defines the histories and targets.",
        choices=(
            "last-unit", "last-out", "demo-v1", "global-time", "given", "candidates-20",
        ),
        unset=_PROTOCOL,
    )  # fmt: skip
    users: int | None = option(
        None,
        _MEASURED,
        "Evaluate a fixed random sample of N users.",
        metavar="N",
        unset="all users",
    )
    fit_on: str | None = option(
        None,
        _MEASURED,
        "Part of the data to fit the baselines and the prior on.",
        choices=FIT_ON,
        unset="train, or train+validation for demo-v1 on test",
    )
    slices: bool = option(
        False,
        _MEASURED,
        "Also show results by slices of users: popularity of the target, length of the history, days "
        "since the last event and others. JSON and reports always have them.",
    )
    exposure_by: tuple[str, ...] = option(
        (),
        _MEASURED,
        "Columns of the items, such as brand: also show which values the lists contain, compared with the "
        "catalog and with what users chose. `popularity` stands for head, middle and tail, which JSON "
        "and reports always have.",
        metavar="NAMES",
    )
    group_by: str | None = option(
        None,
        _MEASURED,
        "Column of the events, such as country: also show results by groups of users, each with the "
        "value that is most frequent in the history.",
        metavar="COLUMN",
    )
    explanations: bool = option(
        False,
        _MEASURED,
        "Evaluate explanations instead, by checking whether the sentences name the events that the "
        "model relies on. Uses 100 users unless --users is given.",
    )
    logged: str | None = option(
        None,
        _MEASURED,
        "Estimate instead how the first items of this system would be accepted, from random lists that "
        "`genrec serve` showed: an export of the service, or its address. The options of each request "
        "apply, unless they are given here.",
        metavar="FILE|URL",
    )
    accepted: tuple[str, ...] | None = option(
        None,
        _MEASURED,
        "With --logged: behaviors that count as accepting an item.",
        metavar="NAMES",
        unset="the target behavior",
    )
    out: Path | None = option(
        None,
        OUTPUT,
        "Folder for the results of each user; with --explanations, a JSONL file. An interrupted "
        "evaluation continues from it.",
        metavar="PATH",
    )
    report: tuple[str, ...] = option(
        (),
        OUTPUT,
        "Also write a report with figures to a .html or .md file. Can be repeated.",
        metavar="FILE",
        whole=_is_one_report,
    )

    def __post_init__(self) -> None:
        """Check that ``--explanations`` and ``--logged`` are given without options of other evaluations.

        Raises:
            SettingsError: one of them is combined with such an option.
        """
        given = {
            "--against": self.against,
            "--report": self.report,
            "--no-model": self.no_model,
            "--slices": self.slices,
            "--exposure-by": self.exposure_by,
            "--group-by": self.group_by,
        }
        wrong = [name for name, value in given.items() if value]
        if self.explanations and wrong:
            msg = (
                f"--explanations does not work with {wrong[0]}. Use only one of these options. "
                "Baselines do not write explanations, and reports do not show them."
            )
            raise SettingsError(msg)
        others = {"--explanations": self.explanations, "--users": self.users, "--out": self.out,
                  "--protocol": self.protocol, "--fit-on": self.fit_on}  # fmt: skip
        wrong += [name for name, value in others.items() if value]
        if self.logged is not None and wrong:
            msg = (
                f"--logged does not work with {wrong[0]}, because it uses the lists that a service showed. "
                "Leave it out."
            )
            raise SettingsError(msg)
        if self.accepted is not None and self.logged is None:
            raise SettingsError("--accepted needs --logged FILE. Leave it out, or name the export.")


@command("users", "protocol", "model", "run", "out", "json")
def tune(
    data: Data,
    which: ModelOptions,
    settings: Annotated[
        Given,
        FieldsOf(
            Settings,
            without=[
                "decoder",
                "normalization",
                *LISTING,
                *(n for n in RANKING if n != "prior_sources"),
            ],
        ),
    ],
    users: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="Fit on a fixed random sample of N validation users.",
            rich_help_panel=_MEASURED,
        ),
    ] = 200,
    protocol: Annotated[
        str | None,
        typer.Option(
            help="Evaluation protocol, as in `genrec evaluate`.",
            show_default=_PROTOCOL,
            rich_help_panel=_MEASURED,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="JSON file to write the fitted values to. Other commands find it automatically if it "
            "has its default name; otherwise, pass it to them with --tuned FILE.",
            show_default="tuned.json in the run folder, or in DIR without --run",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Use validation users to fit the weight of the collaborative prior relative to a model.

    With --run, the prior is also stored in the run folder, so that it can be used without the dataset.
    The stored prior contains the IDs of the users whose events it counted.
    """  # fmt: skip
    from genrec import runs
    from genrec.data.dataset import TUNED, Dataset
    from genrec.evaluation import tuning
    from genrec.priors.collaborative import CollaborativePrior
    from genrec.priors.judgement import judge
    from genrec.reports import console, summaries

    run = which.run
    if out is None and run is not None and runs.find_run(run) != run:
        msg = (
            f"--run {run} is the run shipped inside the genrec package, which genrec does not modify. "
            "Choose another file for the fitted values with --out FILE.json."
        )
        raise SettingsError(msg)
    path = out or (data if run is None else run) / TUNED
    advice = "Choose another path with --out, and pass it to other commands with --tuned."
    dataset = Dataset.load(data)
    check_output(path, advice=advice)
    with console.working(f"Loading {which.name} ...", quiet=json) as log:
        recommender = load_recommender(dataset, which, settings, log).for_tuning()
    with console.progress("Scoring", users, quiet=json) as bar:

        def going(done: int) -> bool:
            bar(done)
            return True

        tuned = tuning.tune(
            recommender, users=users, protocol=protocol, seed=settings["seed"], going=going
        )
    with lock_folder(path.parent, wait=60):
        if run is not None and out is None:
            prior = recommender.with_settings(prior="collaborative").prior
            assert isinstance(prior, CollaborativePrior)
            tuned.save_with_prior(run, prior)
        else:
            tuned.save(path)
    findings = [] if run is None else judge(tuned, data=quote(str(data)), run=quote(str(run)))
    if json:
        told = list(map(str, findings))
        console.print_json(
            {"schema_version": 1, "out": str(path), **asdict(tuned), "findings": told}
        )
    else:
        summaries.print_tuned(tuned, path)
        for finding in findings:
            console.print_line(str(finding))


@command(
    "against", "no_model", "users", "protocol", "split", "show", "model", "run", "prior", "report",
    "json",
)  # fmt: skip
def evaluate(
    data: Data,
    what: EvaluateOptions,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings, without=["prior_events"])],
    shop: Annotated[Given, FieldsOf(QueryOptions, only=_SHOP, about=_SHOP_HELP)],
    json: AsJson = False,
) -> None:
    """Evaluate a model and baselines on held-out events, and compare them with confidence intervals.

    With --explanations, the explanation of each user's first recommendation is tested instead. The
    events that it names are removed, and the fall of the score is measured under a different prompt
    template.

    With --logged, the acceptance of this system's lists is estimated from random lists of a service.
    """
    from genrec.data.dataset import Dataset
    from genrec.evaluation import evaluator
    from genrec.reports import console, evaluation_report, summaries

    checked = Settings.of(settings)  # report invalid settings before loading the data
    if what.explanations and shop.named:
        msg = (
            "--explanations does not work with --show, --allow-returned, --allow-last-basket and "
            "--per-group, which add rows of lists. Leave them out."
        )
        raise SettingsError(msg)
    if what.explanations:
        _evaluate_explanations(data, what, which, settings, json=json)
        return
    if what.logged is not None:
        _evaluate_logged(data, what, which, settings, shop.only if shop.named else {}, json=json)
        return
    reports = [Path(name) for name in what.report]
    for path in reports:
        evaluation_report.check(path)
    if what.out is not None:
        check_output(what.out, kind="folder")
    loaded = Dataset.load(data).with_context(checked.context_names)
    loaded = loaded.with_knowledge(checked.knowledge_names)
    dataset, protocol, users = _sample(loaded, what, settings, what.users)
    names = _default_baselines(dataset, settings) if what.against is None else what.against
    systems: list[Any] = [n for n in names if n != "none"]
    if which.run is not None and not what.no_model:
        _note_leaks(which.run, dataset, protocol, what.split)
    if not what.no_model:
        with console.working(f"Loading {which.name} ...", quiet=json) as log:
            systems.insert(0, load_recommender(dataset, which, settings, log))
    with console.progress("Evaluating", users, quiet=json) as bar:
        evaluation = evaluator.evaluate(
            dataset,
            systems,
            protocol=protocol,
            split=what.split,
            users=what.users,
            fit_on=what.fit_on,
            exclude_seen=settings["exclude_seen"],
            shop=QueryOptions(**shop.only) if shop.named else None,
            exposure_columns=what.exposure_by,
            group_column=what.group_by,
            seed=settings["seed"],
            out=what.out,
            progress=lambda system, done: bar(done),
            log=bar.log,
        )
    for path in reports:
        evaluation_report.write(evaluation, path)
    if json:
        console.print_json(evaluation.to_dict())
    else:
        summaries.print_evaluation(evaluation, slices=what.slices, exposure=bool(what.exposure_by))


def _evaluate_logged(
    data: Path,
    what: EvaluateOptions,
    which: ModelOptions,
    settings: Given,
    options: Mapping[str, Any],
    *,
    json: bool,
) -> None:
    from genrec.data.dataset import Dataset
    from genrec.data.exports import read_export
    from genrec.evaluation.logged import evaluate_logged
    from genrec.reports import console, summaries

    assert what.logged is not None
    export = read_export(what.logged)
    dataset = Dataset.load(data)
    with console.working(f"Loading {which.name} ...", quiet=json) as log:
        recommender = load_recommender(dataset, which, settings, log)
    with console.progress("Evaluating", len(export.lists), quiet=json) as bar:
        found = evaluate_logged(
            recommender, export, behaviors=what.accepted or (), options=options, progress=bar
        )
    if json:
        console.print_json(found.to_dict())
    else:
        summaries.print_logged(found)


def _default_baselines(dataset: Dataset, settings: Given) -> tuple[str, ...]:
    """Return the baselines to compare with if ``--against`` is not given."""
    exclude_seen = settings["exclude_seen"]
    if dataset.info.exclude_seen if exclude_seen is None else exclude_seen:
        return ("popular", "markov")  # the user's own items are left out
    return ("popular", "recent", "frequent", "markov")


def _sample(
    dataset: Dataset, what: EvaluateOptions, settings: Given, users: int | None
) -> tuple[Dataset, str, int]:
    """Split the dataset for the protocol and sample its users.

    Returns:
        The split dataset, the name of the protocol, and the number of users to evaluate.
    """
    from genrec.data import protocols

    if settings["target_behavior"] is not None:
        dataset = protocols.with_target_behavior(dataset, settings["target_behavior"])
    protocol = what.protocol or protocols.default_protocol(dataset)
    dataset = protocols.apply_protocol(dataset, protocol)
    cases = protocols.cases(dataset, protocol, what.split)
    return dataset, protocol, len(protocols.sample(cases, users))


def _note_leaks(run: Path, dataset: Dataset, protocol: str, split: str) -> None:
    """Print a note if the run may have been trained on the events that it should now predict."""
    from genrec import runs
    from genrec.data import protocols
    from genrec.reports import console

    trained = runs.Run.read(runs.find_run(run))
    if trained.data_fingerprint != protocols.fingerprint(dataset):
        under = trained.training.get("protocol") or "the default of its data"
        console.note(
            f"{run} was trained on other events or another split, so its training data may contain the "
            f"events to predict here. Its protocol was {under}; this evaluation uses {protocol}. Use "
            "the data and --protocol that it was trained with."
        )
    elif split == "validation" and trained.training.get("fit") == "both":
        console.note(
            f"{run} was also trained on the validation part, so its results here would be too good. "
            "Evaluate it with --split test."
        )


def _evaluate_explanations(
    data: Path, what: EvaluateOptions, which: ModelOptions, settings: Given, *, json: bool
) -> None:
    from genrec.data.dataset import Dataset
    from genrec.evaluation.faithfulness import USERS, faithfulness
    from genrec.reports import console, summaries

    if what.out is not None:
        check_output(what.out)
    loaded = Dataset.load(data)
    if which.run is not None:
        _check_shares_items(which.run, loaded)
    users = USERS if what.users is None else what.users
    dataset, protocol, total = _sample(loaded, what, settings, users)
    if which.run is not None:
        _note_leaks(which.run, dataset, protocol, what.split)
    encoder = {"auto": "minilm", "none": "ngrams"}.get(settings["encoder"], settings["encoder"])
    with console.working(f"Loading {which.name} ...", quiet=json) as log:
        recommender = load_recommender(dataset, use_float32(which), settings, log)
    with console.progress("Explaining", total, quiet=json) as bar:
        result = faithfulness(
            dataset,
            recommender,
            users=users,
            protocol=protocol,
            split=what.split,
            fit_on=what.fit_on,
            out=what.out,
            encoder=encoder,
            seed=settings["seed"],
            progress=bar,
        )
    if json:
        console.print_json(result.to_dict())
    else:
        summaries.print_faithfulness(result)


def _check_shares_items(run: Path, dataset: Dataset) -> None:
    """Check that the run's catalog and the dataset's catalog have at least one title in common.

    Raises:
        RequestError: the catalogs have no title in common.
    """
    from genrec import runs
    from genrec.data.catalog import Catalog

    folder = runs.find_run(run)
    runs.Run.read(folder)
    trained = Catalog.read(folder / runs.CATALOG)
    if not set(trained.titles) & set(dataset.catalog.titles):
        msg = (
            f"{run} was trained on {len(trained):,} items, and {dataset.info.name} has none of their "
            "titles. Expected a run that was trained on this data or a part of it."
        )
        raise RequestError(msg)
