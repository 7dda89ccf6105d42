"""Check whether a training run suits a request, and describe how the run is used.

This module works with the contents of run folders and with catalogs, not with models.
"""

from __future__ import annotations

from pathlib import Path

from genrec import runs
from genrec.data.catalog import Catalog
from genrec.errors import DataError, SettingsError
from genrec.runs import Run


def check_use(run: Run, folder: Path, *, asking: bool) -> None:
    """Check that a run was trained for what it is used for: yes-or-no questions, or lists of items.

    Args:
        run: the content of ``run.json``.
        folder: the run folder, for the message.
        asking: True if the run is to answer yes-or-no questions, False if it is to rank items.

    Raises:
        SettingsError: the run was trained for the other use.
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
    """Return a note if a run was trained on a catalog whose items differ from those of a recommender.

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
