"""Define the routes that ask the model: lists, scores, searches and explanations."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from genrec.explain.drafts import Draft
from genrec.json_text import to_json
from genrec.service import examples
from genrec.service.answers import ANSWERS, answers_of
from genrec.service.http import StrictRoute, json_response
from genrec.service.lists import lists_of
from genrec.service.problems import Problem, problem_of
from genrec.service.schemas import (
    Explain,
    PromptFor,
    Rank,
    Recommend,
    RecommendBatch,
    Search,
    Session,
    Similar,
)
from genrec.service.security import FEEDBACK
from genrec.service.service import Service, service_of
from genrec.service.store import Event
from genrec.service.worker import Job

router = APIRouter(prefix="/v1", route_class=StrictRoute, tags=["Recommend"])
_TICK = 1.0  # seconds between two messages while an explanation is being computed


@router.post("/recommend", responses=ANSWERS["list"], openapi_extra=examples.body("recommend"))
async def recommend(asked: Recommend, request: Request) -> Response:
    """Recommend the best next items for a user, a session or a given history.

    The answer is that of `Recommender.recommend`, with the id of the list, the model, and the reason
    if counting alone made the list.
    """
    return json_response(await lists_of(request).recommend(request, asked))


@router.post("/recommend:batch", responses=ANSWERS["batch"], openapi_extra=examples.body("batch"))
async def recommend_batch(asked: RecommendBatch, request: Request) -> Response:
    """Answer several requests for lists. Those with the same options share a pass of the model.

    Each answer is a list, or the problem of this request alone.
    """
    service = lists_of(request)
    free = max(1, service.limits.queue // 2)

    async def one(each: Recommend) -> dict[str, Any]:
        async with places:
            try:
                return await service.recommend(request, each)
            except Exception as error:
                return problem_of(error).to_dict(request.url.path, request.state.request_id)

    places = asyncio.Semaphore(free)  # a batch takes at most half of the queue
    found = await asyncio.gather(*(one(each) for each in asked.requests))
    return json_response({"schema_version": 1, "answers": list(found)})


@router.post("/sessions", responses=ANSWERS["list"], openapi_extra=examples.body("session"))
async def session(asked: Session, request: Request) -> Response:
    """Recommend for an anonymous visitor. Nothing is kept unless `keep` is true.

    With `keep`, the events are stored, and the answer has the `session_id` for the next request.
    """
    service = lists_of(request)
    if not asked.keep:
        return json_response(await service.recommend(request, asked, record=False))
    key = request.state.key
    if key is not None and not key.allows(FEEDBACK):
        raise Problem(403, f"The key {key.name!r} may not store events. Leave out keep.")
    if asked.user_id is not None or asked.typed is not None:
        raise Problem(
            422,
            "A session that is kept consists of events. Leave out user_id, and list the events.",
        )
    name = asked.session_id or secrets.token_hex(16)
    now = time.time()
    given = service.known.redact(e.interaction(now) for e in asked.events)
    events = [Event(event, session_id=name) for event in given]
    service.check_items([e.interaction.item_id for e in events if e.interaction.item_id])
    if events:
        with service.metrics.stage("store"):
            await asyncio.to_thread(service.known.store.add_events, events)
        service.metrics.events.inc(len(events))
    kept = asked.model_copy(update={"history": None, "session_id": name})
    return json_response(await service.recommend(request, kept) | {"session_id": name})


@router.delete("/sessions/{session_id}", responses=answers_of("deleted", 422))
async def delete_session(session_id: str, request: Request) -> Response:
    """Delete a session with its events."""
    gone = await asyncio.to_thread(service_of(request).shop.store.delete_session, session_id)
    return json_response({"session_id": session_id, "events": gone})


@router.post("/rank", responses=ANSWERS["list"], openapi_extra=examples.body("rank"))
async def rank(asked: Rank, request: Request) -> Response:
    """Rank given items by their exact scores, without those that the user's own items exclude."""
    return json_response(await service_of(request).rank(request, asked, keep_own=False))


@router.post("/score", responses=ANSWERS["list"], openapi_extra=examples.body("rank"))
async def score(asked: Rank, request: Request) -> Response:
    """Rank given items as `/v1/rank` does, but keep items that the user has had."""
    return json_response(await service_of(request).rank(request, asked, keep_own=True))


@router.post("/search", responses=ANSWERS["search"], openapi_extra=examples.body("search"))
async def search(asked: Search, request: Request) -> Response:
    """Find items by the words of their titles, in the order in which this user would want them.

    The score is the logarithm of the title's match times the item's probability.
    """
    return json_response(await service_of(request).search(request, asked))


@router.post("/similar", responses=ANSWERS["similar"], openapi_extra=examples.body("similar"))
async def similar(asked: Similar, request: Request) -> Response:
    """Find the items that go with given items; see `Recommender.similar`. No model is used."""
    return json_response(await service_of(request).similar(request, asked))


@router.post("/prompt", responses=ANSWERS["prompt"], openapi_extra=examples.body("prompt"))
async def prompt(asked: PromptFor, request: Request) -> Response:
    """Return the text that the model reads for a history, in pieces that name their event.

    The numbers of the events are those of the evidence in an explanation.
    """
    service = service_of(request)
    ready = await service.ready(asked, None, {})

    def read(_: Sequence[Any]) -> Sequence[Any]:
        recommender = service.engine(ready.run).recommender
        history = recommender.in_context(ready.history, asked.context, asked.note, at="now")
        text, spans = recommender.events_in_prompt(history)
        answer = {
            "schema_version": 1,
            "pieces": _pieces(text, spans),
            "events": len(spans),
            "tokens": recommender.prompt(history).n_tokens,
            "notes": list(ready.notes),
            "run": ready.run,
        }
        return [answer]

    return json_response(await service.wait(request, Job(read, None), asked.deadline_ms))


def _pieces(text: str, spans: Sequence[tuple[int, int]]) -> list[dict[str, Any]]:
    """Split a prompt into the pieces of its events and the text between them."""
    pieces: list[dict[str, Any]] = []
    end = 0
    for event, (start, stop) in enumerate(spans):
        if stop > start >= end:
            pieces += [{"text": text[end:start], "event": None}] if start > end else []
            pieces.append({"text": text[start:stop], "event": event})
            end = stop
    return [*pieces, {"text": text[end:], "event": None}]


@router.post("/explain", responses=ANSWERS["explanation"], openapi_extra=examples.body("explain"))
async def explain(asked: Explain, request: Request) -> Response:
    """Explain why an item is or is not recommended; see `Recommender.explain`.

    With `Accept: text/event-stream`, the answer is a stream of server-sent events: `progress` while
    the explanation is computed, `draft` with each word of the sentence that the model writes, `sentence`
    when it has been checked, and at last `explanation` or `problem`. A draft has not been checked, so
    the sentence may be another one.
    """
    service = service_of(request)
    ready = await service.ready(asked, asked.scenario, asked.given())
    if "text/event-stream" not in request.headers.get("accept", ""):
        job = service.explain_job(ready, asked.item_id)
        return json_response(await service.wait(request, job, asked.deadline_ms))
    drafts: asyncio.Queue[Draft] = asyncio.Queue()
    loop = asyncio.get_running_loop()

    def told(draft: Draft) -> None:
        loop.call_soon_threadsafe(drafts.put_nowait, draft)

    job = service.explain_job(ready, asked.item_id, told)
    stream = _stream(service, request, job, drafts, asked.deadline_ms)
    first = await anext(stream)  # a full queue is an ordinary answer, not a stream
    return StreamingResponse(_after(first, stream), media_type="text/event-stream")


async def _after(first: str, stream: AsyncIterator[str]) -> AsyncIterator[str]:
    yield first
    async for message in stream:
        yield message


async def _stream(
    service: Service,
    request: Request,
    job: Job,
    drafts: asyncio.Queue[Draft],
    deadline_ms: int | None,
) -> AsyncIterator[str]:
    """Yield the server-sent events of an explanation."""
    seconds = service.limits.deadline if deadline_ms is None else deadline_ms / 1000
    began = time.monotonic()
    job.deadline = began + seconds
    future = service.worker.submit(job)
    waiting = asyncio.wrap_future(future)
    hearing = asyncio.ensure_future(drafts.get())
    due = began
    try:
        while not waiting.done():
            passed = time.monotonic() - began
            if passed > seconds:
                raise Problem(504, "The model did not answer before the deadline.")
            if began + passed >= due:
                state = "running" if future.running() else "waiting"
                yield _event("progress", {"state": state, "seconds": round(passed, 1)})
                due += _TICK
            await asyncio.wait(
                {waiting, hearing},
                timeout=min(due - began, seconds + 0.01) - passed,
                return_when=asyncio.FIRST_COMPLETED,
            )
            if hearing.done():
                yield _draft(hearing.result())
                hearing = asyncio.ensure_future(drafts.get())
        if hearing.done():
            yield _draft(hearing.result())
        while not drafts.empty():
            yield _draft(drafts.get_nowait())
        yield _event("explanation", waiting.result())
    except Exception as error:
        yield _event(
            "problem", problem_of(error).to_dict(request.url.path, request.state.request_id)
        )
    finally:
        if not future.done():
            service.worker.leave(job)
        waiting.cancel()
        hearing.cancel()
        service.metrics.count_job(job)


def _draft(draft: Draft) -> str:
    return _event("sentence" if draft.checked else "draft", asdict(draft))


def _event(name: str, value: Any) -> str:
    return f"event: {name}\ndata: {to_json(value, indent=None)}\n\n"
