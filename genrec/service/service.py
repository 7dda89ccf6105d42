"""Answer requests: find the history and the options, wait for the model, and fall back on counts."""

from __future__ import annotations

import asyncio
import math
import secrets
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from genrec.data.events import History
from genrec.data.refusals import take_refusals
from genrec.errors import GenrecError, ModelError
from genrec.explain.drafts import Draft
from genrec.explain.styles import PLAIN
from genrec.pipeline.types import RecommendationList
from genrec.recommender import Recommender
from genrec.service.attributes import add_attributes
from genrec.service.experiments import Arm, Experiments
from genrec.service.jobs import Prepared, explanation_job, job_of, maker_of
from genrec.service.limits import Limits
from genrec.service.observe import LOG, Metrics
from genrec.service.problems import Problem
from genrec.service.recorder import Recorder
from genrec.service.schemas import (
    ForHistory,
    Rank,
    Recommend,
    Search,
    Similar,
    changed,
    merge,
)
from genrec.service.security import Guard
from genrec.service.shop import Engine, Shop
from genrec.service.store import ShownList
from genrec.service.titles import TitleSearch
from genrec.service.tracing import Tracing
from genrec.service.worker import ClosedError, FullError, Job, LateError, Worker

MATCHES = 200  # items whose titles match the words of a search, which are then ranked


class Service:
    """Everything that the routes need.

    Attributes:
        shop: the recommenders and the store.
        guard: the keys.
        limits: the limits.
        metrics: the metrics.
        worker: the thread of the model.
        recorder: stores shown lists.
        experiments: split requests between arms.
        fixed: options that the operator has set for every request.
        load: loads the recommender of a run by its name; None if runs cannot be loaded.
        runs: the folder of the runs that can be loaded; None if there is none.
        image_hosts: the hosts that browsers may load pictures of items from.
    """

    def __init__(
        self,
        shop: Shop,
        guard: Guard,
        limits: Limits | None = None,
        *,
        fixed: Mapping[str, Any] | None = None,
        load: Callable[[Path], Recommender] | None = None,
        runs: Path | None = None,
        image_hosts: Sequence[str] = (),
        tracing: Tracing | None = None,
    ) -> None:
        """Start the threads of the model and of the recorder."""
        self.shop, self.guard, self.limits = shop, guard, limits or Limits()
        self.fixed, self.load, self.runs = dict(fixed or {}), load, runs
        self.image_hosts = tuple(image_hosts)
        self.metrics = Metrics(tracing)
        self.recorder = Recorder(shop.store, self._failed)
        self.experiments = Experiments(shop.store)
        self.worker = Worker(
            size=self.limits.queue,
            most_shared=self.limits.share,
            hangs_after=self.limits.hangs_after,
            watch=self.metrics.count_pass,
        )
        self.metrics.watch(self.worker, self.recorder)
        self._titles = TitleSearch(shop.catalog)
        self.stopping = False
        shop.start(self.limits.refresh, self._failed, self.metrics.counted.inc)

    def close(self) -> None:
        """Answer what is in the queue, and stop all threads."""
        self.stopping = True
        self.worker.close()
        self.recorder.close()
        self.shop.close()
        self.metrics.tracing.close()

    def _failed(self, error: Exception) -> None:
        self.metrics.background.inc()
        LOG.error("A task in the background failed.", extra={"values": {"reason": str(error)}})

    @property
    def titles(self) -> TitleSearch:
        """The titles of the present catalog."""
        catalog = self.shop.catalog
        if self._titles.catalog is not catalog:
            self._titles = TitleSearch(catalog)
        return self._titles

    # Preparing

    def engine(self, name: str | None) -> Engine:
        """Return the named recommender, or the default one.

        Raises:
            Problem: there is none of this name.
        """
        engines = self.shop.engines
        found = engines.get(name or self.shop.default)
        if found is None:
            raise Problem(
                404, f"There is no model {name!r}. Expected one of: {', '.join(engines)}."
            )
        return found

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
        engine = self.engine(asked.run if arm is None else arm.run)
        options = merge(named, given, self.fixed)
        maker = maker_of(self.shop, engine, arm, asked) if isinstance(asked, Recommend) else None
        if (typed := asked.typed) is not None:
            return Prepared(engine, typed, options, maker=maker)
        now = time.time()
        more = tuple(event.interaction(now) for event in asked.events)
        self.check_items([e.item_id for e in more if e.item_id is not None])
        history = History()
        notes: tuple[str, ...] = ()
        if asked.user_id is not None:
            history = self.shop.history(asked.user_id)
            if not history.interactions and not more:
                notes = (
                    f"User {asked.user_id!r} has no events, so this is an answer for a new user.",
                )
        elif asked.session_id is not None:
            history = self.shop.session(asked.session_id)
        whole = History((*history.interactions, *more), history.user_id)
        events, unwanted = take_refusals(whole, self.shop.dataset.interactions.behaviors)
        if unwanted and not refused:
            options = replace(options, deny=(*options.deny, *unwanted))
        name = None if arm is None else arm.name
        return Prepared(engine, events, options, notes, experiment, name, maker)

    def scenario(self, name: str | None) -> Mapping[str, Any]:
        """Return the options of a scenario; none if no scenario is named.

        Raises:
            Problem: there is no such scenario.
        """
        if name is None:
            return {}
        scenarios = self.shop.store.scenarios()
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
            unit = f"u:{self.shop.user_id(asked.user_id)}"
        elif asked.session_id is not None:
            unit = f"s:{asked.session_id}"
        else:
            return None, None
        arm = experiment.arm_of(unit)
        return (experiment.name, arm) if arm.run in self.shop.engines else (None, None)

    def load_run(self, name: str) -> None:
        """Load a run from the folder of the runs, or load it again.

        Raises:
            Problem: no runs can be loaded, or there is no run of this name.
        """
        if self.load is None or self.runs is None:
            raise Problem(409, "No runs can be loaded. Start the service with --runs FOLDER.")
        if name not in self.loadable:
            raise Problem(404, f"There is no run {name!r} in the folder of the runs.")
        self.shop.add(Engine.of(name, self.load(self.runs / name)))

    @property
    def loadable(self) -> list[str]:
        """The names of the run folders that can be loaded."""
        if self.runs is None or not self.runs.is_dir():
            return []
        return sorted(p.name for p in self.runs.iterdir() if (p / "run.json").is_file())

    def load_arms(self) -> None:
        """Load the runs that running experiments need, as after a restart; log those that are missing."""
        arms = [a for e in self.experiments.all() if e.running for a in e.arms]
        for name in dict.fromkeys(a.run for a in arms):
            if name in self.shop.engines:
                continue
            try:
                self.load_run(name)
            except (Problem, GenrecError) as error:
                text = "An arm of an experiment cannot be served."
                LOG.error(text, extra={"values": {"run": name, "reason": str(error)}})

    def check_items(self, item_ids: Sequence[str]) -> None:
        """Check that all items are in the catalog.

        Raises:
            Problem: some are not.
        """
        catalog = self.shop.catalog
        unknown = [i for i in dict.fromkeys(item_ids) if i not in catalog]
        if unknown:
            some = ", ".join(repr(i) for i in unknown[:5])
            msg = f"The catalog does not have {some}. Expected known items; add them with PUT /v1/items."
            raise Problem(422, msg)

    # Waiting for the model

    async def wait(self, request: Request, job: Job, deadline_ms: int | None) -> Any:
        """Run a job on the thread of the model, and wait for its answer.

        Raises:
            FullError: the queue is full.
            LateError: the deadline has passed. The job leaves the queue, or stops.
            Problem: the client has left. The job leaves the queue, or stops.
        """
        seconds = self.limits.deadline if deadline_ms is None else deadline_ms / 1000
        job.deadline = time.monotonic() + seconds
        future = self.worker.submit(job)
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(lambda f: f.cancelled() or f.exception())
        gone = asyncio.ensure_future(_disconnected(request))
        try:
            await asyncio.wait(
                {waiting, gone}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED
            )
            if waiting.done():
                return waiting.result()
            if gone.done():
                raise Problem(499, "The client has left.")
            raise LateError
        finally:
            gone.cancel()
            if not waiting.done():
                self.worker.leave(job)
            self.metrics.count_job(job)

    # Lists

    async def recommend(
        self, request: Request, asked: Recommend, *, record: bool = True
    ) -> dict[str, Any]:
        """Answer a request for a list, or for several lists of one history."""
        given = asked.given()
        ready = await self.ready(asked, asked.scenario, given, split=not asked.counting)
        lists, fallback = await self._lists(request, asked, ready)
        answers = {show: self._describe(one, ready, asked, fallback) for show, one in lists.items()}
        if record and asked.impression:
            for answer in answers.values():
                self._record(answer, ready, asked)
        if asked.shows is None:
            return answers[""]
        return {"schema_version": 1, "rails": answers}

    async def _lists(
        self, request: Request, asked: Recommend, ready: Prepared
    ) -> tuple[Mapping[str, RecommendationList], str | None]:
        """Return the lists, keyed by the value of ``shows``, and the reason for a fallback."""
        engine, reason = ready.engine, None
        if asked.counting:
            return await self._count(ready.recommender, asked, ready), "asked"
        try:
            if engine.fallback is not None and asked.fallback and self.worker.problem():
                raise LateError
            job = job_of(ready.recommender, ready, asked.shows)
            answer: Mapping[str, RecommendationList] = await self.wait(
                request, job, asked.deadline_ms
            )
            return answer, None
        except (FullError, ClosedError, Problem):
            raise
        except LateError:
            if engine.fallback is None or not asked.fallback:
                raise
            reason = "deadline"
        except Exception as error:
            expected = isinstance(error, GenrecError)
            if engine.fallback is None or not asked.fallback:
                raise
            if expected and not isinstance(error, ModelError):
                raise  # the request is at fault, not the model
            if not expected:
                about = {"request_id": request.state.request_id}
                LOG.exception("The model failed.", extra={"values": about})
            reason = "model"
        self.metrics.fallbacks.labels(reason).inc()
        return await self._count(engine.fallback, asked, ready), reason

    async def _count(
        self, fallback: Recommender, asked: Recommend, ready: Prepared
    ) -> Mapping[str, RecommendationList]:
        """Return the lists that counting alone makes, on the thread of the request.

        They are explained only if no model has to write the sentences.
        """
        explain = ready.options.explain and ready.options.style == PLAIN
        plain = replace(ready, options=replace(ready.options, explain=explain))
        job = job_of(fallback, plain, asked.shows)
        with self.metrics.stage("counting"):
            (lists,) = await run_in_threadpool(job.run, [job.given])
        if isinstance(lists, BaseException):
            raise lists
        found: Mapping[str, RecommendationList] = lists
        return found

    def _describe(
        self, answer: RecommendationList, ready: Prepared, asked: Recommend, fallback: str | None
    ) -> dict[str, Any]:
        values = answer.to_dict()
        self.metrics.count_list(values, fallback)
        values["notes"] = [*values["notes"], *ready.notes]
        if asked.attributes:
            add_attributes(self.shop.catalog, values["recommendations"])
        return {
            **values,
            "list_id": secrets.token_hex(12),
            "run": ready.engine.name,
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
            run=ready.engine.name,
            arm=answer["arm"],
            fallback=answer["fallback"] is not None,
            item_ids=tuple(r["item_id"] for r in answer["recommendations"]),
            experiment=answer["experiment"],
            propensities=tuple(r.get("propensity") for r in answer["recommendations"]),
            options=changed(ready.options),
        )
        self.recorder.add(shown)

    # Other answers

    async def rank(self, request: Request, asked: Rank, *, keep_own: bool) -> dict[str, Any]:
        """Answer a request for the exact scores of given items."""
        ready = await self.ready(asked, asked.scenario, asked.given(), refused=keep_own)
        recommender = ready.engine.recommender
        ask = recommender.score if keep_own else recommender.rank

        def run(_: Sequence[Any]) -> Sequence[Any]:
            answer = ask(
                ready.history, asked.candidates, options=ready.options, strict=asked.strict
            )
            return [answer]

        answer: RecommendationList = await self.wait(request, Job(run, None), asked.deadline_ms)
        return self._other(answer.to_dict(), ready)

    async def search(self, request: Request, asked: Search) -> dict[str, Any]:
        """Answer a search: items by the match of their title times their probability."""
        usual = {"show": "all"} | dict.fromkeys(
            ("allow_returned", "allow_last_basket", "allow_same_title"), True
        )
        given = {**usual, **asked.given()}
        ready = await self.ready(asked, asked.scenario, given, refused=True)
        matches = await run_in_threadpool(self.titles.match, asked.query, MATCHES)
        available = {i: m for i, m in matches.items() if self.shop.state(i) == "available"}
        if ready.options.allow is not None:
            allowed = set(ready.options.allow)
            available = {i: m for i, m in available.items() if i in allowed}
        if not available:
            note = f"No title matches {asked.query!r}."
            return self._other({"schema_version": 1, "recommendations": [], "notes": [note]}, ready)
        options = replace(ready.options, k=len(available), allow=None)

        def run(_: Sequence[Any]) -> Sequence[Any]:
            return [ready.engine.recommender.rank(ready.history, [*available], options=options)]

        answer: RecommendationList = await self.wait(request, Job(run, None), asked.deadline_ms)
        values = answer.to_dict()
        found = []
        for each in values["recommendations"]:
            match = available[each["item_id"]]
            found.append({**each, "title_match": match, "score": each["score"] + math.log(match)})
        found.sort(key=lambda each: -each["score"])
        wanted = int(ready.options.k)
        ranked = [{**each, "rank": rank} for rank, each in enumerate(found[:wanted], start=1)]
        if asked.attributes:
            add_attributes(self.shop.catalog, ranked)
        return self._other({**values, "recommendations": ranked, "asked": wanted}, ready)

    async def similar(self, request: Request, asked: Similar) -> dict[str, Any]:
        """Answer a request for similar items."""
        engine = self.engine(asked.run)
        options = merge({}, asked.given(), self.fixed)

        def run(_: Sequence[Any]) -> Sequence[Any]:
            found = engine.recommender.similar(asked.items, by=asked.by, options=options)
            return [found.to_dict()]

        answer: dict[str, Any] = await self.wait(request, Job(run, None), asked.deadline_ms)
        if asked.attributes:
            add_attributes(self.shop.catalog, answer["similar"])
        return {**answer, "run": engine.name}

    def explain_job(
        self, ready: Prepared, item_id: str, told: Callable[[Draft], None] | None = None
    ) -> Job:
        """Return the job that explains an item; see ``jobs.explanation_job``."""
        return explanation_job(ready, item_id, lambda v: self._other(v, ready), told)

    def _other(self, values: dict[str, Any], ready: Prepared) -> dict[str, Any]:
        self.metrics.count_reading(values)
        notes = [*values.get("notes", ()), *ready.notes]
        return {**values, "notes": notes, "run": ready.engine.name}


def service_of(request: Request) -> Service:
    """Return the service that answers a request."""
    service: Service = request.app.state.service
    return service


async def _disconnected(request: Request) -> None:
    """Wait until the client has left."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
