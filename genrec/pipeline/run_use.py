"""Check whether a training run suits a request, and describe how the run is used.

This module works with the contents of run folders and with catalogs, not with models.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genrec import runs
from genrec.config import EXPLAIN, describe_attention
from genrec.data.catalog import Catalog
from genrec.errors import DataError, SettingsError
from genrec.priors.fusion import PriorSource
from genrec.priors.judgement import compare_with_uniform, judge
from genrec.runs import Run


def check_use(run: Run, folder: Path, *, asking: bool) -> None:
    """Check that a run was trained for the task it is used for.

    Args:
        run: the content of ``run.json``.
        folder: the run folder, for use in the error message.
        asking: True if the run is to answer yes-or-no questions, False if it is to rank items.

    Raises:
        SettingsError: the run was trained for the other task.
    """
    if asking and not run.asks:
        msg = (
            f"The run {folder} was trained to predict the next item, not to answer yes-or-no "
            "questions, so its answers would mean little. Train a run for such questions with "
            "`genrec train DIR --objective pointwise --out RUN`, or leave out --run to ask the model "
            "without fine-tuning. To ask this run anyway, choose the question explicitly with "
            "--template would_like."
        )
        raise SettingsError(msg)
    if run.asks and not asking:
        msg = (
            f"The run {folder} was trained to answer yes-or-no questions about one item at a time, so "
            "it cannot rank items. Use it with `genrec likes` or would_like(). For lists, train a run "
            "with `genrec train DIR --out RUN`, or leave out --run."
        )
        raise SettingsError(msg)


def describe_run(
    run: Run, folder: Path, catalog: Catalog, source: PriorSource, settings: Mapping[str, Any]
) -> tuple[str, ...]:
    """Return notes on how a run is used, and on how well it performs.

    Args:
        run: the content of ``run.json``.
        folder: the run folder.
        catalog: the catalog of the recommender.
        source: the source of the recommender's prior.
        settings: the recommender's settings by name.
    """
    other = describe_other_catalog(run, folder, catalog)
    items = 0 if other else len(catalog)
    own, ours = describe_attention(run.settings), describe_attention(settings)
    read = (
        ()
        if ours == own
        else (
            f"The run {runs.run_name(folder)} was trained with {own} and is used with {ours}, so it "
            "may be less accurate than it was in training.",
        )
    )
    return (*other, *read, *_describe_prior(run, folder, items, source))


def _describe_prior(run: Run, folder: Path, items: int, source: PriorSource) -> tuple[str, ...]:
    """Describe the prior that a run is used with.

    ``items`` is the size of the run's catalog, or 0 if a different catalog is used.
    """
    name, shown = runs.run_name(folder), run_argument(folder)
    if source.missing:
        return (
            f"The run {name} is used without a prior, because {source.missing}."
            f"{_advise(run, shown) if source.unfitted else ''}",
            *_findings(run, source, shown, items, alone=True),
        )
    fusing = source.fusing
    if fusing.prior == "collaborative" and source.tuned is None and fusing.fitted:
        return (
            f"The run {name} is used with a prior whose weight was fitted for a model without "
            f"fine-tuning. Fit it for the run with `genrec tune DIR --run {shown}`.",
        )
    if fusing.role == EXPLAIN:
        tuned = source.tuned
        shown_by = (
            ""
            if tuned is None
            else f", because it did not improve the prior's lists of {tuned.users:,} validation users"
        )
        note = f"The prior ranks items alone, and the run {name} only explains{shown_by} (--model-role)."
        return (note, *_findings(run, source, shown, items, alone=False))
    if fusing.prior == "collaborative":
        weight = f"a weight fitted on {fusing.fitted}" if fusing.fitted else "the given weight"
        where = "" if items or not fusing.fitted else f" of the data {run.data}"
        note = (
            f"The run {name} is used together with the collaborative prior, with {weight}{where}."
        )
        return (note, *_findings(run, source, shown, items, alone=False))
    return _findings(run, source, shown, items, alone=True)


def run_argument(folder: Path) -> str:
    """Return the value of ``--run`` that selects a run folder."""
    name = runs.run_name(folder)
    return name if runs.shipped_run(name) == folder else shlex.quote(str(folder))


def _advise(run: Run, shown: str) -> str:
    """Return a sentence on how to fit the weight of a run's prior."""
    if run.training.get("fit") == "both":
        return (
            " The run was also trained on the validation part, so the weight cannot be fitted on it. Use "
            "the weight of a run with --fit train, as in `--tuned THAT_RUN/tuned.json`."
        )
    return f" Fit it with `genrec tune DIR --run {shown}`."


def _findings(
    run: Run, source: PriorSource, shown: str, items: int, *, alone: bool
) -> tuple[str, ...]:
    """Describe the simpler methods that were better than the run on its validation users.

    Args:
        run: the content of ``run.json``.
        source: the source of the recommender's prior.
        shown: the value of ``--run``.
        items: the number of items in the catalog of the run; 0 if it is not known.
        alone: True if the model is used without a prior.
    """
    best = run.metrics.get("best") or {}
    if source.tuned is not None:
        found = judge(source.tuned, run=shown)
    else:
        found = compare_with_uniform(best.get("nats", 0.0), best.get("users", 0), items)
    return tuple(map(str, (f for f in found if alone or f.kind != "alone")))


def describe_answers(run: Run | None, model: str) -> tuple[str, ...]:
    """Return a note if the model was not trained to answer yes-or-no questions.

    Args:
        run: the run that the model comes from, or None.
        model: the name of the model.
    """
    if run is not None and run.asks:
        return ()
    trained = "was not fine-tuned" if run is None else "was trained to predict the next item"
    return (
        f"{model} {trained}, so these probabilities are not calibrated. To train a model for such "
        "questions, use `genrec train DIR --objective pointwise --out RUN`.",
    )


def describe_other_catalog(trained: Run, folder: Path, catalog: Catalog) -> tuple[str, ...]:
    """Return a note if a run was trained on a different catalog from the recommender's.

    Args:
        trained: the content of ``run.json``.
        folder: the run folder.
        catalog: the catalog of the recommender.
    """
    if trained.catalog_hash == catalog.hash():
        return ()
    try:
        theirs = Catalog.read(folder / runs.CATALOG)
    except DataError:
        return ("The run was trained on another catalog than this one.",)
    titles = {(i.item_id, i.title) for i in theirs}
    same = sum((i.item_id, i.title) in titles for i in catalog)
    return (
        f"The run was trained on another catalog: {same:,} of the {len(catalog):,} items here were in "
        "it, with the same titles.",
    )
