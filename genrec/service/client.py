"""Ask a running service, with the names and the answers of ``Recommender``.

::

    client = genrec.Client("http://127.0.0.1:8000", key="genrec_...")
    client.feedback("17841", "22720", "buy")
    for item in client.recommend(user_id="17841", k=5):
        print(item.rank, item.title)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from genrec.data.catalog import Item
from genrec.data.events import History, Interaction
from genrec.errors import GenrecError, RequestError, SettingsError
from genrec.explain.types import Evidence, Explanation, Older, Rejected, Without
from genrec.extras import how_to_install
from genrec.matching.history_parser import Understood
from genrec.pipeline.similar import SimilarItem, SimilarList
from genrec.pipeline.types import Recommendation, RecommendationList

HistoryLike = History | str | Sequence[str] | Sequence[Interaction]


class ServiceError(GenrecError):
    """Raised when the service cannot answer.

    Attributes:
        status: the HTTP status; 0 if there was no answer.
        problem: the problem details; empty if there are none.
        retry_after: the number of seconds after which to try again; None if that is unknown.
    """

    def __init__(
        self,
        message: str,
        status: int = 0,
        problem: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.problem, self.retry_after = status, dict(problem or {}), retry_after


class InvalidRequestError(ServiceError, RequestError):
    """Raised when the service refuses a request because of its content."""


class Client:
    """A client of the service that ``genrec serve`` starts.

    It can be used by several threads, and as a context manager, which closes its connections.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        timeout: float = 60.0,
        transport: Any = None,
    ) -> None:
        """Prepare the connection. Nothing is sent yet.

        Args:
            url: the address of the service.
            key: the key; None if the service needs none.
            timeout: the number of seconds to wait for an answer.
            transport: a transport of httpx2, for tests.

        Raises:
            SettingsError: httpx2 is not installed.
        """
        try:
            import httpx2
        except ImportError as error:
            msg = f"The client needs the package httpx2. {how_to_install('serve')}"
            raise SettingsError(msg) from error
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._failed: type[Exception] = httpx2.HTTPError
        self._http = httpx2.Client(
            base_url=url, headers=headers, timeout=timeout, transport=transport
        )

    def close(self) -> None:
        """Close all connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    # Lists

    def recommend(
        self,
        history: HistoryLike | None = None,
        k: int | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> RecommendationList:
        """Recommend the k best next items.

        Args:
            history: events, ids or titles of items, or typed text; None for the user's own events.
            k: the number of items; None for that of the scenario, or 10.
            user_id: the user; None for another history.
            **options: fields of ``QueryOptions`` except ``stock``; and ``session_id``, ``scenario``,
                ``run``, ``deadline_ms``, ``fallback`` and ``impression``.

        Returns:
            The list. Its ``details`` have the ``list_id``, the ``run`` and the ``fallback``.

        Raises:
            InvalidRequestError: the service refuses the request because of its content.
            ServiceError: the service cannot answer.
        """
        asked = _asked(history, {"k": k, "user_id": user_id, **options})
        return _list_of(self._send("POST", "/v1/recommend", asked))

    def recommend_many(
        self, histories: Sequence[HistoryLike], k: int | None = None, **options: Any
    ) -> list[RecommendationList]:
        """Recommend items for several histories; see ``recommend``.

        Raises:
            ServiceError: one of them cannot be answered.
        """
        each = [_asked(history, {"k": k, **options}) for history in histories]
        answers = self._send("POST", "/v1/recommend:batch", {"requests": each})["answers"]
        for answer in answers:
            if "recommendations" not in answer:
                raise _error_of(answer["status"], answer, None)
        return [_list_of(answer) for answer in answers]

    def recommend_rails(
        self,
        history: HistoryLike | None = None,
        k: int | None = None,
        *,
        user_id: str | None = None,
        shows: Sequence[str] = ("new", "again"),
        **options: Any,
    ) -> dict[str, RecommendationList]:
        """Recommend new items and items to get again, as several lists; see ``recommend``."""
        asked = _asked(history, {"k": k, "user_id": user_id, "shows": list(shows), **options})
        rails = self._send("POST", "/v1/recommend", asked)["rails"]
        return {show: _list_of(answer) for show, answer in rails.items()}

    def rank(
        self,
        history: HistoryLike | None = None,
        candidates: Sequence[str] | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> RecommendationList:
        """Rank given items by their exact scores; see ``Recommender.rank``."""
        return self._rank("/v1/rank", history, candidates, {"user_id": user_id, **options})

    def score(
        self,
        history: HistoryLike | None = None,
        candidates: Sequence[str] | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> RecommendationList:
        """Rank given items, also those that the user has had; see ``Recommender.score``."""
        return self._rank("/v1/score", history, candidates, {"user_id": user_id, **options})

    def _rank(
        self,
        path: str,
        history: HistoryLike | None,
        candidates: Sequence[str] | None,
        given: Mapping[str, Any],
    ) -> RecommendationList:
        named = None if candidates is None else list(candidates)
        return _list_of(self._send("POST", path, _asked(history, {**given, "candidates": named})))

    def search(
        self,
        query: str,
        history: HistoryLike | None = None,
        k: int | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> RecommendationList:
        """Find items by the words of their titles, in the order in which the user would want them."""
        asked = _asked(history, {"query": query, "k": k, "user_id": user_id, **options})
        return _list_of(self._send("POST", "/v1/search", asked))

    def similar(
        self, items: str | Sequence[str], k: int | None = None, *, by: str = "both", **options: Any
    ) -> SimilarList:
        """Find the items that go with given items; see ``Recommender.similar``."""
        given = [items] if isinstance(items, str) else list(items)
        asked = _asked(None, {"items": given, "k": k, "by": by, **options})
        answer = self._send("POST", "/v1/similar", asked)
        names = {f.name for f in fields(SimilarList)}
        values = {name: value for name, value in answer.items() if name in names}
        values["given"] = tuple((g["item_id"], g["title"]) for g in answer["given"])
        values["similar"] = tuple(SimilarItem(**item) for item in answer["similar"])
        return SimilarList(**{**values, "notes": tuple(answer["notes"])})

    def explain(
        self,
        history: HistoryLike | None,
        item_id: str,
        k: int | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Explain why an item is or is not recommended.

        Returns:
            The dictionary that ``ItemExplanation.to_dict`` returns, with the name of the ``run``.
        """
        asked = _asked(history, {"item_id": item_id, "k": k, "user_id": user_id, **options})
        return self._send("POST", "/v1/explain", asked)

    # Events and users

    def feedback(
        self,
        user_id: str,
        item_id: str,
        behavior: str,
        *,
        idempotency_key: str | None = None,
        **more: Any,
    ) -> int:
        """Store an event. The user's next list takes it into account.

        Args:
            user_id: the user.
            item_id: the item.
            behavior: what the user did, such as ``buy``.
            idempotency_key: a key with which the call may be repeated without storing twice.
            **more: ``timestamp``, ``value``, ``unit``, ``text`` and ``list_id``.

        Returns:
            The number of the event in the store.
        """
        event = {"user_id": user_id, "item_id": item_id, "behavior": behavior, **more}
        return self.feedback_many([event], idempotency_key=idempotency_key)[0]

    def feedback_many(
        self, events: Sequence[Mapping[str, Any]], *, idempotency_key: str | None = None
    ) -> list[int]:
        """Store several events, all or none; see ``feedback``."""
        headers = {} if idempotency_key is None else {"Idempotency-Key": idempotency_key}
        answer = self._send("POST", "/v1/feedback", {"events": [dict(e) for e in events]}, headers)
        numbers: list[int] = answer["sequences"]
        return numbers

    def history(self, user_id: str) -> History:
        """Return a user's latest events, oldest first; see ``Recommender.history``."""
        answer = self._send("GET", f"/v1/users/{_quoted(user_id)}")
        names = ("item_id", "behavior", "timestamp", "value", "unit", "text")
        events = (Interaction(**{n: e[n] for n in names}) for e in answer["history"])
        return History(tuple(events), answer["user_id"])

    def delete_user(self, user_id: str) -> int:
        """Delete a user's events, and return their number."""
        return int(self._send("DELETE", f"/v1/users/{_quoted(user_id)}")["events"])

    # Items

    def put_items(self, items: Iterable[Item] = (), remove: Sequence[str] = ()) -> None:
        """Add or replace items and remove others in one step; see ``Recommender.put_items``."""
        put = [
            {"item_id": i.item_id, "title": i.title, "attributes": dict(i.attributes)}
            for i in items
        ]
        self._send("POST", "/v1/items:bulk", {"put": put, "remove": list(remove)})

    def remove_items(self, item_ids: Sequence[str]) -> None:
        """Remove items; see ``Recommender.remove_items``."""
        self.put_items(remove=item_ids)

    def item(self, item_id: str) -> Item:
        """Return an item."""
        answer = self._send("GET", f"/v1/items/{_quoted(item_id)}")
        return Item(answer["item_id"], answer["title"], answer["attributes"])

    # Anything else

    def _send(
        self,
        method: str,
        path: str,
        body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Send a request, and return the answer.

        Raises:
            ServiceError: there is no answer, or it is a problem.
        """
        try:
            answer = self._http.request(method, path, json=body, headers=headers)
        except self._failed as error:
            msg = f"{self._http.base_url} does not answer: {error}. Expected a running `genrec serve`."
            raise ServiceError(msg) from error
        try:
            values = answer.json()
        except ValueError:
            values = {"detail": answer.text[:200]}
        if answer.status_code >= 400:
            raise _error_of(answer.status_code, values, answer.headers.get("retry-after"))
        found: dict[str, Any] = values
        return found


def _quoted(name: str) -> str:
    """Return an id as part of a path."""
    return quote(name, safe="")


def _error_of(status: int, values: Mapping[str, Any], retry_after: str | None) -> ServiceError:
    kind = InvalidRequestError if status in {400, 404, 413, 422} else ServiceError
    seconds = float(retry_after) if retry_after and retry_after.isdigit() else None
    return kind(str(values.get("detail", f"status {status}")), status, values, seconds)


def _asked(history: HistoryLike | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return the body of a request without the fields that are None."""
    body = {name: value for name, value in given.items() if value is not None}
    if history is None:
        return body
    if isinstance(history, str):
        return {**body, "history": history}
    if isinstance(history, History) and history.user_id is not None:
        body.setdefault("user_id", history.user_id)
        return body  # the service knows the events of its users
    events = history.interactions if isinstance(history, History) else history
    return {**body, "history": [e if isinstance(e, str) else _event(e) for e in events]}


def _event(event: Interaction) -> dict[str, Any]:
    values = {n: v for n, v in asdict(event).items() if v is not None}
    values.pop("attributes", None)
    return values


def _list_of(answer: Mapping[str, Any]) -> RecommendationList:
    """Build a list from its dictionary; see ``RecommendationList.to_dict``."""
    names = {f.name for f in fields(RecommendationList)} - {"details", "recommendations"}
    values = {n: v for n, v in answer.items() if n in names}
    for name in ("unknown", "notes"):
        values[name] = tuple(values.get(name, ()))
    values["understood"] = tuple(_understood(u) for u in values.get("understood", ()))
    prompt = answer.get("prompt", {})
    known = {*names, "recommendations", "prompt", "schema_version"}
    found = RecommendationList(
        **{"user_id": None, "decoder": "trie", "model": "", "seen": "", **values},
        recommendations=tuple(_item_of(r) for r in answer["recommendations"]),
        prompt_tokens=prompt.get("tokens", 0),
        events=prompt.get("events", 0),
        details={n: v for n, v in answer.items() if n not in known},
    )
    return found


def _understood(values: Mapping[str, Any]) -> Understood:
    kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
    return Understood(**kept)


def _item_of(values: Mapping[str, Any]) -> Recommendation:
    names = {f.name for f in fields(Recommendation)}
    kept = {n: v for n, v in values.items() if n in names}
    kept["texts"] = tuple(kept.get("texts", ()))
    if (told := kept.get("explanation")) is not None:
        kept["explanation"] = Explanation(
            **{
                **told,
                "rejected": tuple(Rejected(**r) for r in told["rejected"]),
                "evidence": tuple(Evidence(**e) for e in told["evidence"]),
                "without": tuple(Without(**w) for w in told["without"]),
                "older": None if told["older"] is None else Older(**told["older"]),
            }
        )
    return Recommendation(**kept)
