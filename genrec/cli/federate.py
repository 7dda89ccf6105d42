"""Define the command ``federate``, which imports heavy modules when called."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from genrec.cli.options import AsJson, command
from genrec.errors import SettingsError


@command()
def federate(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="RUN...", help="Run folders that `genrec train` wrote at each site."
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="RUN", help="Run folder to write.")],
    weights: Annotated[
        str | None,
        typer.Option(
            metavar="NUMBERS",
            help="Weight of each run, such as 2,1.",
            show_default="the number of targets that each run was trained on",
        ),
    ] = None,
    average: Annotated[
        str,
        typer.Option(
            metavar="tensors|products",
            help="What to average. tensors: the two matrices of each LoRA layer. products: the product of "
            "the two, which is then divided into matrices of the same rank.",
        ),
    ] = "tensors",
    no_prior: Annotated[
        bool,
        typer.Option(
            "--no-prior",
            help="Leave the prior out. Its counts have the set of items of each user, without ids.",
        ),
    ] = False,
    json: AsJson = False,
) -> None:
    """Average the adapters of runs that different sites trained on their own users.

    The sites exchange run folders, not events. For several rounds, each site trains the average
    further with `genrec train --from`.
    """
    from genrec.reports import console

    try:
        numbers = None if weights is None else [float(part) for part in weights.split(",")]
    except ValueError:
        msg = f"--weights {weights} is not valid. Expected numbers with commas, such as 2,1."
        raise SettingsError(msg) from None
    with console.working("Averaging ...", quiet=json):
        from genrec.training.federated import federate as average_runs

        found = average_runs(runs, out, weights=numbers, average=average, prior=not no_prior)
    if json:
        console.print_json(
            {
                "schema_version": 1,
                "out": str(out),
                "runs": list(map(str, runs)),
                "weights": list(found.weights),
                "average": average,
                "kept": found.kept,
                "prior": found.prior,
                "users": found.users,
            }
        )
        return
    shares = ", ".join(f"{run} {w:.3f}" for run, w in zip(runs, found.weights, strict=True))
    console.print_line(f"Averaged {len(runs)} adapters ({shares}) into {out}.")
    if average == "products":
        console.print_line(
            f"Matrices of the same rank keep {found.kept:.1%} of the mean products (squared norm)."
        )
    console.print_line(
        f"The prior counts the events of {found.users:,} users."
        if found.prior
        else "The new run has no prior, because it was left out or a run has none."
    )
