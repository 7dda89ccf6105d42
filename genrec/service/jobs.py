"""Describe requests whose history and options have been found, and make jobs for the model of them."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genrec.config import QueryOptions
from genrec.data.events import History
from genrec.explain.drafts import Draft, listen
from genrec.recommender import Recommender
from genrec.service.problems import Problem
from genrec.service.schemas import Recommend
from genrec.service.shop import Engine, Shop
from genrec.service.worker import Job

Given = tuple[History | str | list[str], int | None]  # a history, and the seed of a draw


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose history and options have been found.

    Attributes:
        run: the name of the model that answers.
        history: the events, or typed text.
        options: the options.
        notes: remarks for the client.
        experiment: the name of the experiment that the request takes part in; None if there is none.
        arm: the name of the arm that makes the list; None if there is no experiment.
        counting: True if counting alone makes the list.
        draws: True if the items are drawn at random.
        sequence: the number of the user's last event in the store; 0 if there is none.
    """

    run: str
    history: History | str | list[str]
    options: QueryOptions
    notes: tuple[str, ...] = ()
    experiment: str | None = None
    arm: str | None = None
    counting: bool = False
    draws: bool = False
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class Wanted:
    """How a request for a list wants to be answered.

    Attributes:
        shows: the lists, as in ``Recommender.recommend_rails``; None for a single list.
        counting: True if the client asked for a list by counting alone.
        fallback: True if counting may make the list when the model does not answer.
        deadline_ms: the milliseconds after which the request is given up; None for the service's own.
    """

    shows: tuple[str, ...] | None
    counting: bool
    fallback: bool
    deadline_ms: int | None

    @classmethod
    def of(cls, asked: Recommend) -> Wanted:
        """Read the fields of a request."""
        shows = None if asked.shows is None else tuple(asked.shows)
        return cls(shows, asked.counting, asked.fallback, asked.deadline_ms)


class StaleError(Problem):
    """Raised when a request has an older history of its user than an earlier request had."""

    def __init__(self) -> None:
        super().__init__(
            503, "The user's history is changing. Try again.", headers={"Retry-After": "1"}
        )


def maker_of(shop: Shop, engine: Engine, ready: Prepared) -> Recommender:
    """Return the recommender that makes the list of a request.

    Raises:
        Problem: counting alone should make the list, but there are no counts.
    """
    if ready.counting and engine.fallback is None:
        raise Problem(409, f"The model {engine.name!r} has no counts. Leave out counting.")
    if ready.draws:
        return shop.drawing(engine, counting=ready.counting)
    alone = engine.fallback if ready.counting else None
    return engine.recommender if alone is None else alone


def job_of(recommender: Recommender, ready: Prepared, shows: Sequence[str] | None) -> Job:
    """Return the job that makes lists. Jobs with the same options share a pass.

    If the recommender draws items at random, each list has a seed of its own, so that the same history
    gets another list each time.
    """
    options = ready.options
    draws = recommender.settings.search == "sample"
    given = ready.history, secrets.randbelow(2**63) if draws else None
    if shows is not None:

        def rails(asked: Sequence[Given]) -> Sequence[Any]:
            names = tuple(dict.fromkeys(shows))
            return [
                recommender.recommend_rails(h, shows=names, options=options, seed=seed)
                for h, seed in asked
            ]

        return Job(rails, given)

    def lists(asked: Sequence[Given]) -> Sequence[Any]:
        histories, seeds = zip(*asked, strict=True)
        more: dict[str, Any] = {"seeds": seeds} if draws else {}
        if len(histories) == 1:
            return [
                {"": one} for one in recommender.recommend_many(histories, options=options, **more)
            ]
        try:
            found = recommender.recommend_many(
                histories, batch_size=len(histories), options=options, **more
            )
            return [{"": one} for one in found]
        except Exception:  # one history must not spoil the answers to the others
            return [_alone(lists, each) for each in asked]

    same = json.dumps(asdict(options), default=str), options.limited, options.groups
    return Job(lists, given, (id(recommender), same))


def explanation_job(
    recommender: Recommender,
    ready: Prepared,
    item_id: str,
    finish: Callable[[dict[str, Any]], dict[str, Any]],
    told: Callable[[Draft], None] | None,
) -> Job:
    """Return the job that explains an item.

    Args:
        recommender: the recommender.
        ready: the request.
        item_id: the item.
        finish: a function that completes the answer.
        told: a function that is called with each draft of the sentence, on the model's thread; None for
            none.
    """

    def run(_: Sequence[Any]) -> Sequence[Any]:
        with listen(told):
            found = recommender.explain(ready.history, item_id, options=ready.options)
        return [finish(found.to_dict())]

    return Job(run, None)


def _alone(run: Callable[[Sequence[Given]], Sequence[Any]], one: Given) -> Any:
    """Answer one history, or return the error that it causes."""
    try:
        return run([one])[0]
    except Exception as error:
        return error
