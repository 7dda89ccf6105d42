"""Define the command ``search``, which imports heavy modules when called."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, Data, FieldsOf, Given, ModelOptions, command
from genrec.config import OUTPUT, option
from genrec.errors import SettingsError
from genrec.files import check_output
from genrec.models.packaged import DEFAULT_MODEL

_HOW = "How to search"


@dataclass(frozen=True, slots=True)
class SearchOptions:
    """Options that say how long a search goes on."""

    trials: int = option(20, _HOW, "Number of runs, those of earlier calls included.", least=1)
    minutes: float | None = option(
        None, _HOW, "Time after which no run is begun any more.", unset="no limit"
    )
    seed: int = option(0, _HOW, "Random seed of the search.")
    config: Path | None = option(
        None,
        _HOW,
        "YAML file with the other settings of all runs, such as max_targets and eval_users, as for `genrec train`.",
        metavar="FILE",
    )

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            SettingsError: one is out of range.
        """
        if self.trials < 1 or (self.minutes is not None and self.minutes <= 0):
            msg = f"--trials {self.trials} and --minutes {self.minutes} must be positive."
            raise SettingsError(msg)


@command()
def search(
    data: Data,
    space: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="YAML file with the settings to search: a list of values, or low and high, for each.",
            rich_help_panel=_HOW,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            metavar="DIR",
            help="Folder of the search: new, or that of the same search, which is then continued.",
            rich_help_panel=OUTPUT,
        ),
    ],
    how: SearchOptions,
    which: Annotated[Given, FieldsOf(ModelOptions, without=["run", "quantize"])],
    json: AsJson = False,
) -> None:
    """Search for the training settings with the lowest validation nats.

    Every run is trained on the same targets and validated on the same users. Runs that are worse than the
    median of the others are stopped early. best.yaml in the folder has the best settings, for `genrec train
    --config`.
    """
    from genrec.reports import console
    from genrec.training.config import read
    from genrec.training.space_search import BEST, Search, read_space

    axes = read_space(space)
    settings = {} if how.config is None else read(how.config)
    check_output(out, kind="folder")
    from genrec.data.dataset import Dataset

    wanted = Search(
        model=which.pop("model") or DEFAULT_MODEL,
        space=axes,
        settings=settings,
        loading=dict(which),
        trials=how.trials,
        minutes=how.minutes,
        seed=how.seed,
    )
    dataset = Dataset.load(data)
    with console.working("Searching ...", quiet=json) as log:
        found = wanted.run(dataset, out, log)
    if json:
        console.print_json(found.to_dict())
        return
    for trial in found.trials:
        chosen = ", ".join(f"{n}={v}" for n, v in trial.settings.items())
        console.print_line(f"{trial.number + 1:>4}  {trial.nats:.4f} nats  {trial.state}  {chosen}")
    if found.best is None:
        console.print_line("No run was completed.")
        return
    told = f"Best: {found.best.nats:.4f} nats"
    if found.default is not None:
        told += f", with the default settings {found.default.nats:.4f}"
    console.print_line(f"{told} -> {out / BEST}")
