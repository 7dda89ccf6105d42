"""Answer requests in the process that has the model: wait for it, and fall back on counts."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastapi import Request
from starlette.concurrency import run_in_threadpool

from genrec.errors import GenrecError, ModelError
from genrec.explain.drafts import Draft
from genrec.explain.styles import PLAIN
from genrec.pipeline.chat import ChatAnswer
from genrec.pipeline.types import RecommendationList
from genrec.recommender import Recommender
from genrec.service.attributes import add_attributes
from genrec.service.chat_schemas import Chat
from genrec.service.experiments import Experiments
from genrec.service.jobs import Prepared, Wanted, explanation_job, job_of, maker_of
from genrec.service.limits import Limits
from genrec.service.lists import Answered, Left, ListMaker, disconnected
from genrec.service.observe import LOG, Metrics
from genrec.service.problems import Problem
from genrec.service.recorder import Recorder
from genrec.service.schemas import (
    Rank,
    Search,
    Similar,
    merge,
)
from genrec.service.security import Guard
from genrec.service.shop import Engine, Shop
from genrec.service.titles import TitleSearch
from genrec.service.tracing import Tracing
from genrec.service.worker import ClosedError, FullError, Job, LateError, Worker

MATCHES = 200  # items whose titles match the words of a search, which are then ranked


class Service(ListMaker):
    """Everything that the routes need.

    Attributes:
        shop: the recommenders and the store.
        worker: the thread of the model.
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
        metrics = Metrics(tracing)
        recorder = Recorder(shop.store, self.failed, metrics.unstored.inc)
        experiments = Experiments(shop.store)
        super().__init__(
            shop, guard, limits or Limits(), metrics, recorder, experiments, fixed or {}
        )
        self.shop, self.load, self.runs = shop, load, runs
        self.image_hosts = tuple(image_hosts)
        self.worker = Worker(
            size=self.limits.queue,
            most_shared=self.limits.share,
            hangs_after=self.limits.hangs_after,
            watch=self.metrics.count_pass,
        )
        metrics.watch(self.worker)
        self._titles = TitleSearch(shop.catalog)
        shop.start(self.limits.refresh, self.failed, self.metrics.counted.inc)

    def close(self) -> None:
        """Answer what is in the queue, and stop all threads."""
        self.stopping = True
        self.worker.close()
        self.recorder.close()
        self.shop.close()
        self.metrics.tracing.close()

    @property
    def titles(self) -> TitleSearch:
        """The titles of the present catalog."""
        catalog = self.shop.catalog
        if self._titles.catalog is not catalog:
            self._titles = TitleSearch(catalog)
        return self._titles

    # Models

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

    # Waiting for the model

    async def wait(self, request: Request, job: Job, deadline_ms: int | None) -> Any:
        """Run a job as ``wait_for`` does, until the client of a request has left."""
        return await self.wait_for(lambda: disconnected(request), job, deadline_ms)

    async def wait_for(self, left: Left, job: Job, deadline_ms: int | None) -> Any:
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
        gone = asyncio.ensure_future(left())
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

    async def make_lists(
        self, ready: Prepared, wanted: Wanted, left: Left, request_id: str
    ) -> Answered:
        """Make the lists on the thread of the model, or by counting if it does not answer."""
        engine = self.engine(ready.run)
        maker = maker_of(self.shop, engine, ready)
        if wanted.counting:
            return await self._count(maker, wanted, ready), "asked"
        fallback = engine.fallback if wanted.fallback else None
        try:
            if fallback is not None and self.worker.problem():
                raise LateError
            job = job_of(maker, ready, wanted.shows)
            return await self.wait_for(left, job, wanted.deadline_ms), None
        except (FullError, ClosedError, Problem):
            raise
        except LateError:
            if fallback is None:
                raise
            reason = "deadline"
        except Exception as error:
            expected = isinstance(error, GenrecError)
            if fallback is None:
                raise
            if expected and not isinstance(error, ModelError):
                raise  # the request is at fault, not the model
            if not expected:
                about = {"request_id": request_id}
                LOG.exception("The model failed.", extra={"values": about})
            reason = "model"
        self.metrics.fallbacks.labels(reason).inc()
        return await self._count(fallback, wanted, ready), reason

    async def _count(
        self, fallback: Recommender, wanted: Wanted, ready: Prepared
    ) -> Mapping[str, RecommendationList]:
        """Return the lists that counting alone makes, on the thread of the request.

        They are explained only if no model has to write the sentences.
        """
        explain = ready.options.explain and ready.options.style == PLAIN
        plain = replace(ready, options=replace(ready.options, explain=explain))
        job = job_of(fallback, plain, wanted.shows)
        with self.metrics.stage("counting"):
            (lists,) = await run_in_threadpool(job.run, [job.given])
        if isinstance(lists, BaseException):
            raise lists
        found: Mapping[str, RecommendationList] = lists
        return found

    # Other answers

    async def rank(self, request: Request, asked: Rank, *, keep_own: bool) -> dict[str, Any]:
        """Answer a request for the exact scores of given items."""
        ready = await self.ready(asked, asked.scenario, asked.given(), refused=keep_own)
        recommender = self.engine(ready.run).recommender
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
        if asked.understand:
            return await self._search_by_meaning(request, asked, ready)
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
            return [
                self.engine(ready.run).recommender.rank(
                    ready.history, [*available], options=options
                )
            ]

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

    async def _search_by_meaning(
        self, request: Request, asked: Search, ready: Prepared
    ) -> dict[str, Any]:
        """Answer a search whose query is understood as a whole."""

        def run(_: Sequence[Any]) -> Sequence[Any]:
            recommender = self.engine(ready.run).recommender
            return [recommender.recommend(ready.history, options=ready.options)]

        answer: RecommendationList = await self.wait(request, Job(run, None), asked.deadline_ms)
        values = answer.to_dict()
        if asked.attributes:
            add_attributes(self.shop.catalog, values["recommendations"])
        return self._other(values, ready)

    async def chat(self, request: Request, asked: Chat) -> dict[str, Any]:
        """Answer the last turn of a conversation."""
        ready = await self.ready(asked, asked.scenario, asked.given())

        def run(_: Sequence[Any]) -> Sequence[Any]:
            recommender = self.engine(ready.run).recommender
            return [recommender.chat(asked.said, ready.history, options=ready.options)]

        answer: ChatAnswer = await self.wait(request, Job(run, None), asked.deadline_ms)
        values = answer.to_dict()
        if answer.list is not None:
            self.metrics.count_reading(values["list"])
            if asked.attributes:
                add_attributes(self.shop.catalog, values["list"]["recommendations"])
        return {**values, "notes": list(ready.notes), "run": ready.run}

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
        recommender = self.engine(ready.run).recommender
        return explanation_job(recommender, ready, item_id, lambda v: self._other(v, ready), told)

    def _other(self, values: dict[str, Any], ready: Prepared) -> dict[str, Any]:
        self.metrics.count_reading(values)
        notes = [*values.get("notes", ()), *ready.notes]
        return {**values, "notes": notes, "run": ready.run}


def service_of(request: Request) -> Service:
    """Return the service that answers a request."""
    service: Service = request.app.state.service
    return service
