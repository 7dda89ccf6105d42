"""Answer requests for lists: find the history and the options, let a model answer, and record the list.

This module does not know where the model is: in this process, or in one that several share.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from genrec.config import EXPLAIN
from genrec.data.events import History
from genrec.data.refusals import take_refusals
from genrec.pipeline.types import RecommendationList
from genrec.service import users
from genrec.service.attributes import add_attributes
from genrec.service.experiments import Arm, Experiments
from genrec.service.histories import Histories
from genrec.service.jobs import Prepared, StaleError, Wanted
from genrec.service.limits import Limits
from genrec.service.observe import LOG, Metrics
from genrec.service.problems import Problem
from genrec.service.recorder import Recorder
from genrec.service.schemas import ForHistory, Recommend, changed, merge
from genrec.service.security import Guard
from genrec.service.store import ShownList

Left = Callable[[], Awaitable[None]]  # waits until the client has left
Answered = tuple[Mapping[str, RecommendationList], str | None]
_ATTEMPTS = 5  # to answer with all events of a user who is very busy


class ListMaker(ABC):
    """Answers requests for lists.

    Attributes:
        known: the histories, and the names of the models.
        guard: the keys.
        limits: the limits.
        metrics: the metrics.
        recorder: stores shown lists.
        experiments: split requests between arms.
        fixed: options that the operator has set for every request.
        stopping: True when nothing new is accepted.
    """

    def __init__(
        self,
        known: Histories,
        guard: Guard,
        limits: Limits,
        metrics: Metrics,
        recorder: Recorder,
        experiments: Experiments,
        fixed: Mapping[str, Any],
    ) -> None:
        self.known, self.guard, self.limits, self.metrics = known, guard, limits, metrics
        self.recorder, self.experiments, self.fixed = recorder, experiments, dict(fixed)
        self.stopping = False

    def failed(self, error: Exception) -> None:
        """Count and log the failure of a task in the background."""
        self.metrics.background.inc()
        LOG.error("A task in the background failed.", extra={"values": {"reason": str(error)}})

    @abstractmethod
    async def make_lists(
        self, ready: Prepared, wanted: Wanted, left: Left, request_id: str
    ) -> Answered:
        """Make the lists of a prepared request.

        Returns:
            The lists, keyed by the value of ``shows``, and the reason if counting alone made them.
        """

    # Preparing

    async def ready(
        self, asked: ForHistory, scenario: str | None, given: Mapping[str, Any], **how: bool
    ) -> Prepared:
        """Call ``prepare`` on another thread."""
        with self.metrics.stage("prepare"):
            return await run_in_threadpool(self.prepare, asked, scenario, given, **how)

    def prepare(
        self,
        asked: ForHistory,
        scenario: str | None,
        given: Mapping[str, Any],
        *,
        split: bool = False,
        refused: bool = False,
    ) -> Prepared:
        """Find the history and the options of a request. This reads the store.

        Args:
            asked: the request.
            scenario: the scenario that it names; None if it names none.
            given: the options that it gives.
            split: True if the request takes part in experiments.
            refused: True if items that the user has refused may be in the answer.

        Raises:
            Problem: the model, the scenario, the session or an item is unknown.
            RequestError: an option is invalid.
        """
        named = self.scenario(scenario)
        experiment, arm = self._arm(asked, scenario) if split else (None, None)
        if arm is not None:
            named = named if arm.scenario is None else self.scenario(arm.scenario)
            given = {**given, **arm.options}
        run = self.check_model(asked.run if arm is None else arm.run)
        if asked.user_id is not None and "profile_edits" not in given:
            edits = users.profile_of(self.known.store, self.known.user_id(asked.user_id))
            given = {**given, "profile_edits": edits.to_dict()} if edits else given
        options = merge(named, given, self.fixed)
        counting, draws = _how(asked, arm)
        if (typed := asked.typed) is not None:
            return Prepared(run, typed, options, counting=counting, draws=draws)
        now = time.time()
        more = self.known.redact(event.interaction(now) for event in asked.events)
        self.check_items([e.item_id for e in more if e.item_id is not None])
        history, sequence = History(), 0
        notes: tuple[str, ...] = ()
        if asked.user_id is not None:
            history, sequence = self.known.numbered_history(asked.user_id)
            if not history.interactions and not more:
                notes = (
                    f"User {asked.user_id!r} has no events, so this is an answer for a new user.",
                )
        elif asked.session_id is not None:
            history = self.known.session(asked.session_id)
        whole = History((*history.interactions, *more), history.user_id)
        events, unwanted = take_refusals(whole, self.known.dataset.interactions.behaviors)
        if unwanted and not refused:
            options = replace(options, deny=(*options.deny, *unwanted))
        name = None if arm is None else arm.name
        return Prepared(
            run,
            events,
            options,
            notes,
            experiment,
            name,
            counting=counting,
            draws=draws,
            sequence=sequence,
        )

    def check_model(self, name: str | None) -> str:
        """Return the name of a model, or that of the default one.

        Raises:
            Problem: there is no model of this name.
        """
        models, found = self.known.models, name or self.known.default
        if found not in models:
            raise Problem(404, f"There is no model {name!r}. Expected one of: {', '.join(models)}.")
        return found

    def scenario(self, name: str | None) -> Mapping[str, Any]:
        """Return the options of a scenario; none if no scenario is named.

        Raises:
            Problem: there is no such scenario.
        """
        if name is None:
            return {}
        scenarios = self.known.store.scenarios()
        if name not in scenarios:
            msg = f"There is no scenario {name!r}. Create it with PUT /v1/scenarios/{name}."
            raise Problem(404, msg)
        return scenarios[name]

    def _arm(self, asked: ForHistory, scenario: str | None) -> tuple[str | None, Arm | None]:
        """Return the experiment and the arm of a request, if it takes part in one.

        A request that names its model or no user and no session takes no part, nor does one whose arm
        needs a model that is not loaded.
        """
        experiment = self.experiments.running_for(scenario)
        if experiment is None or asked.run is not None:
            return None, None
        if asked.user_id is not None:
            unit = f"u:{self.known.user_id(asked.user_id)}"
        elif asked.session_id is not None:
            unit = f"s:{asked.session_id}"
        else:
            return None, None
        arm = experiment.arm_of(unit)
        return (experiment.name, arm) if arm.run in self.known.models else (None, None)

    def check_items(self, item_ids: Sequence[str]) -> None:
        """Check that all items are in the catalog.

        Raises:
            Problem: some are not.
        """
        catalog = self.known.catalog
        unknown = [i for i in dict.fromkeys(item_ids) if i not in catalog]
        if unknown:
            some = ", ".join(repr(i) for i in unknown[:5])
            msg = f"The catalog does not have {some}. Expected known items; add them with PUT /v1/items."
            raise Problem(422, msg)

    # Answering

    async def recommend(
        self, request: Request, asked: Recommend, *, record: bool = True
    ) -> dict[str, Any]:
        """Answer a request for a list, or for several lists of one history."""
        given = asked.given()
        request_id, wanted = request.state.request_id, Wanted.of(asked)
        for attempt in range(1, _ATTEMPTS + 1):
            ready = await self.ready(asked, asked.scenario, given, split=not asked.counting)
            try:
                lists, fallback = await self.make_lists(
                    ready, wanted, lambda: disconnected(request), request_id
                )
                break
            except StaleError:
                if attempt == _ATTEMPTS:
                    raise
        answers = {show: self._describe(one, ready, asked, fallback) for show, one in lists.items()}
        if record and asked.impression:
            for answer in answers.values():
                self._record(answer, ready, asked)
        if asked.shows is None:
            return answers[""]
        return {"schema_version": 1, "rails": answers}

    def _describe(
        self, answer: RecommendationList, ready: Prepared, asked: Recommend, fallback: str | None
    ) -> dict[str, Any]:
        values = answer.to_dict()
        self.metrics.count_list(values, fallback)
        values["notes"] = [*values["notes"], *ready.notes]
        if asked.attributes:
            add_attributes(self.known.catalog, values["recommendations"])
        return {
            **values,
            "list_id": secrets.token_hex(12),
            "run": ready.run,
            "scenario": asked.scenario,
            "fallback": fallback,
            "experiment": ready.experiment,
            "arm": ready.arm,
        }

    def _record(self, answer: Mapping[str, Any], ready: Prepared, asked: Recommend) -> None:
        shown = ShownList(
            list_id=answer["list_id"],
            shown=time.time(),
            user_id=ready.history.user_id if isinstance(ready.history, History) else None,
            session_id=asked.session_id,
            scenario=asked.scenario,
            run=ready.run,
            arm=answer["arm"],
            fallback=answer["fallback"] is not None,
            item_ids=tuple(r["item_id"] for r in answer["recommendations"]),
            experiment=answer["experiment"],
            propensities=tuple(r.get("propensity") for r in answer["recommendations"]),
            options=changed(ready.options),
        )
        self.recorder.add(shown)


def _how(asked: ForHistory, arm: Arm | None) -> tuple[bool, bool]:
    """Return whether counting alone makes the list, and whether its items are drawn at random."""
    if not isinstance(asked, Recommend):
        return False, False
    role, search = (None, asked.search) if arm is None else (arm.model_role, arm.search)
    return asked.counting or role == EXPLAIN, search is not None


async def disconnected(request: Request) -> None:
    """Wait until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def until_left(answer: Coroutine[Any, Any, Any], left: Left) -> Any:
    """Wait for an answer until the client leaves, and cancel it then.

    Raises:
        Problem: the client has left.
    """
    asking, gone = asyncio.ensure_future(answer), asyncio.ensure_future(left())
    try:
        await asyncio.wait({asking, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not asking.done():
            raise Problem(499, "The client has left.")
        return asking.result()
    finally:
        asking.cancel()
        gone.cancel()


def lists_of(request: Request) -> ListMaker:
    """Return what answers a request for a list."""
    found: ListMaker = request.app.state.service
    return found
