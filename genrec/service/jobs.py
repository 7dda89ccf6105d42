"""Describe requests whose history and options have been found, and make jobs for the model of them."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from genrec.config import EXPLAIN, QueryOptions
from genrec.data.events import History
from genrec.recommender import Recommender
from genrec.service.experiments import Arm
from genrec.service.shop import Engine
from genrec.service.worker import Job


@dataclass(frozen=True, slots=True)
class Prepared:
    """A request whose history and options have been found.

    Attributes:
        engine: the recommender that answers.
        history: the events, or typed text.
        options: the options.
        notes: remarks for the client.
        experiment: the name of the experiment that the request takes part in; None if there is none.
        arm: the arm that makes the list; None if there is no experiment.
    """

    engine: Engine
    history: History | str | list[str]
    options: QueryOptions
    notes: tuple[str, ...] = ()
    experiment: str | None = None
    arm: Arm | None = None

    @property
    def recommender(self) -> Recommender:
        """The recommender that makes the list."""
        if self.arm is not None and self.arm.model_role == EXPLAIN and self.engine.fallback:
            return self.engine.fallback
        return self.engine.recommender


def job_of(recommender: Recommender, ready: Prepared, shows: Sequence[str] | None) -> Job:
    """Return the job that makes lists. Jobs with the same options share a pass."""
    options = ready.options
    if shows is not None:

        def rails(histories: Sequence[Any]) -> Sequence[Any]:
            return [
                recommender.recommend_rails(h, shows=tuple(dict.fromkeys(shows)), options=options)
                for h in histories
            ]

        return Job(rails, ready.history)

    def lists(histories: Sequence[Any]) -> Sequence[Any]:
        if len(histories) == 1:
            return [{"": one} for one in recommender.recommend_many(histories, options=options)]
        try:
            found = recommender.recommend_many(
                histories, batch_size=len(histories), options=options
            )
            return [{"": one} for one in found]
        except Exception:  # one history must not spoil the answers to the others
            return [_alone(lists, history) for history in histories]

    same = json.dumps(asdict(options), default=str), options.limited, options.groups
    return Job(lists, ready.history, (id(recommender), same))


def _alone(run: Callable[[Sequence[Any]], Sequence[Any]], history: Any) -> Any:
    """Answer one history, or return the error that it causes."""
    try:
        return run([history])[0]
    except Exception as error:
        return error
