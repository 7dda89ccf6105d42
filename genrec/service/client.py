"""Ask a running service, with the names and the answers of ``Recommender``.

::

    client = genrec.Client("http://127.0.0.1:8000", key="genrec_...")
    client.feedback("17841", "22720", "buy")
    for item in client.recommend(user_id="17841", k=5):
        print(item.rank, item.title)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, fields
from typing import Any

from genrec.data.catalog import Item
from genrec.data.events import History, Interaction
from genrec.explain.drafts import Draft
from genrec.explain.types import Evidence, Explanation, Older, Rejected, Without
from genrec.matching.history_parser import Understood
from genrec.pipeline.chat import TurnLike, read_turns
from genrec.pipeline.similar import SimilarItem, SimilarList
from genrec.pipeline.types import Recommendation, RecommendationList
from genrec.service.client_types import ChatReply, User, UserNeighbor
from genrec.service.connection import InvalidRequestError as InvalidRequestError
from genrec.service.connection import ServiceError as ServiceError
from genrec.service.connection import error_of
from genrec.service.operations import Operations

HistoryLike = History | str | Sequence[str] | Sequence[Interaction]
_PAGE = 1000  # items or users in one request of those that list all


class Client(Operations):
    """A client of the service that ``genrec serve`` starts.

    It can be used by several threads, and as a context manager, which closes its connections. If the
    service refuses a request because of its content, methods raise ``InvalidRequestError``, and if it
    cannot answer, ``ServiceError``.
    """

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
                raise error_of(answer)
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

    def recommend_session(
        self,
        events: Sequence[Interaction] = (),
        k: int | None = None,
        *,
        session_id: str | None = None,
        keep: bool = False,
        **options: Any,
    ) -> RecommendationList:
        """Recommend for an anonymous visitor.

        Args:
            events: what the visitor did since the last request.
            k: the number of items; None for that of the scenario, or 10.
            session_id: a session that was kept; None for a new one.
            keep: True to store the events. The ``details`` of the list then have the ``session_id``.
            **options: as in ``recommend``.
        """
        given = {"k": k, "session_id": session_id, "keep": keep, **options}
        return _list_of(self._send("POST", "/v1/sessions", _asked(History(tuple(events)), given)))

    def delete_session(self, session_id: str) -> int:
        """Delete a session with its events, and return their number."""
        return int(self._send("DELETE", "/v1/session", query={"id": session_id})["events"])

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

    def chat(
        self,
        turns: Sequence[TurnLike],
        history: HistoryLike | None = None,
        k: int | None = None,
        *,
        user_id: str | None = None,
        **options: Any,
    ) -> ChatReply:
        """Answer the last turn of a conversation; see ``Recommender.chat``."""
        said = [asdict(turn) for turn in read_turns(turns)]
        asked = _asked(history, {"turns": said, "k": k, "user_id": user_id, **options})
        answer = self._send("POST", "/v1/chat", asked)
        found = answer["list"]
        return ChatReply.of({**answer, "list": None if found is None else _list_of(found)})

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
        told: Callable[[Draft], None] | None = None,
        **options: Any,
    ) -> dict[str, Any]:
        """Explain why an item is or is not recommended.

        Args:
            history: as in ``recommend``.
            item_id: the item.
            k: the length of the list to compare the item with.
            user_id: the user; None for another history.
            told: a function that is called with the sentence while the model writes it, word by word.
                These are drafts: only the last one is ``checked``.
            **options: as in ``recommend``.

        Returns:
            The dictionary that ``ItemExplanation.to_dict`` returns, with the name of the ``run``.
        """
        asked = _asked(history, {"item_id": item_id, "k": k, "user_id": user_id, **options})
        if told is None:
            return self._send("POST", "/v1/explain", asked)
        for name, values in self._events("POST", "/v1/explain", asked):
            if name in {"draft", "sentence"}:
                told(Draft(**values))
            elif name == "problem":
                raise error_of(values)
            elif name == "explanation":
                return values
        raise ServiceError("The service ended before the explanation was complete. Ask again.")

    def events_in_prompt(
        self, history: HistoryLike | None = None, *, user_id: str | None = None, **more: Any
    ) -> tuple[str, tuple[tuple[int, int], ...]]:
        """Return the text that the model reads; see ``Recommender.events_in_prompt``.

        Args:
            history: the history; None for the user's own events.
            user_id: the user; None for another history.
            **more: ``session_id``, ``run`` and ``deadline_ms``.

        Returns:
            The prompt, and the character positions (start, end) of each event in it.
        """
        answer = self._send("POST", "/v1/prompt", _asked(history, {"user_id": user_id, **more}))
        text, spans = "", [(0, 0)] * answer["events"]
        for piece in answer["pieces"]:
            if piece["event"] is not None:
                spans[piece["event"]] = len(text), len(text) + len(piece["text"])
            text += piece["text"]
        return text, tuple(spans)

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

    def delete_event(self, sequence: int) -> None:
        """Delete one event by its number, which ``feedback`` returned."""
        self._send("DELETE", f"/v1/feedback/{int(sequence)}")

    def delete_feedback(
        self,
        user_id: str | None,
        item_id: str,
        behavior: str | None = None,
        *,
        session_id: str | None = None,
    ) -> int:
        """Delete the events of a user with an item, also those of the dataset.

        Args:
            user_id: the user; None for a session.
            item_id: the item.
            behavior: only events of this behavior; None for all.
            session_id: the session, in place of a user.

        Returns:
            The number of events that were deleted or will not be used any more.
        """
        given = {"user_id": user_id, "session_id": session_id, "behavior": behavior}
        query = {"item_id": item_id, **{n: v for n, v in given.items() if v is not None}}
        return int(self._send("DELETE", "/v1/feedback", query=query)["events"])

    def user(self, user_id: str, limit: int | None = None) -> User:
        """Return what the service knows about a user.

        Args:
            user_id: the user.
            limit: the number of latest events; None for 1,000, which is the highest number.

        Raises:
            InvalidRequestError: the service knows nothing about such a user.
        """
        query = {"id": user_id} if limit is None else {"id": user_id, "limit": limit}
        answer = self._send("GET", "/v1/user", query=query)
        names = ("item_id", "behavior", "timestamp", "value", "unit", "text")
        events = tuple(Interaction(**{n: e[n] for n in names}) for e in answer["history"])
        numbers = tuple(e["sequence"] for e in answer["history"])
        history = History(events, answer["user_id"])
        return User.of({**answer, "history": history, "sequences": numbers})

    def put_labels(self, user_id: str, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Store the labels of a user, such as a country, in place of earlier ones, and return them.

        Lists do not depend on labels. They are stored, exported and deleted with the user.
        """
        return self._label("PUT", user_id, labels)

    def patch_labels(self, user_id: str, labels: Mapping[str, Any]) -> dict[str, Any]:
        """Change some labels of a user, and return all; a label that is None is removed."""
        return self._label("PATCH", user_id, labels)

    def _label(self, method: str, user_id: str, labels: Mapping[str, Any]) -> dict[str, Any]:
        body = {"labels": dict(labels)}
        answer = self._send(method, "/v1/user", body, query={"id": user_id})
        kept: dict[str, Any] = answer["labels"]
        return kept

    def neighbors(self, user_id: str, k: int = 10, *, items: bool = False) -> list[UserNeighbor]:
        """Return the users whose items resemble those of a user, most similar first.

        Args:
            user_id: the user.
            k: the highest number of users.
            items: True to name the items that both have, which needs the scope ``admin``.
        """
        asked = {"user_id": user_id, "k": k, "items": items}
        return [
            UserNeighbor.of(one) for one in self._send("POST", "/v1/neighbors", asked)["neighbors"]
        ]

    def users(self, prefix: str = "") -> Iterator[str]:
        """Yield the ids of users with events, sorted, or those that begin with ``prefix``."""
        query = {"prefix": prefix, "limit": _PAGE}
        return self._pages("/v1/users", query, "users")

    def _pages(self, path: str, query: Mapping[str, Any], name: str) -> Iterator[Any]:
        """Yield what all pages of a list contain."""
        after = ""
        while after is not None:
            answer = self._send("GET", path, query={**query, "after": after})
            yield from answer[name]
            after = answer["next"]

    def history(self, user_id: str) -> History:
        """Return a user's latest events, oldest first; see ``Recommender.history``."""
        return self.user(user_id).history

    def delete_user(self, user_id: str) -> int:
        """Delete a user's events, and return their number."""
        return int(self._send("DELETE", "/v1/user", query={"id": user_id})["events"])

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

    def patch_item(
        self,
        item_id: str,
        *,
        title: str | None = None,
        attributes: Mapping[str, Any] | None = None,
    ) -> Item:
        """Change the title or some attributes of an item, and return it.

        Args:
            item_id: the item.
            title: the new title; None to leave it as it is.
            attributes: values by column. A value that is None removes the attribute; those that are
                not named stay.
        """
        given = {"title": title, "attributes": None if attributes is None else dict(attributes)}
        body = {n: v for n, v in given.items() if v is not None}
        return _stored(self._send("PATCH", "/v1/item", body, query={"id": item_id}))

    def item(self, item_id: str) -> Item:
        """Return an item."""
        return _stored(self._send("GET", "/v1/item", query={"id": item_id}))

    def items(self, query: str = "", *, order: str = "catalog") -> Iterator[Item]:
        """Yield the items, or at most 1,000 whose titles have the given words.

        Args:
            query: words of the title, of which the last may be unfinished; all items if empty.
            order: ``catalog``, or ``latest`` items first.
        """
        asked = {"query": query, "order": order, "limit": _PAGE}
        return map(_stored, self._pages("/v1/items", asked, "items"))


def _stored(answer: Mapping[str, Any]) -> Item:
    return Item(answer["item_id"], answer["title"], answer["attributes"])


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
    for name in ("attributes", "context"):
        values.pop(name, None)
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
