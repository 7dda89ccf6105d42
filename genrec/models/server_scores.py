"""Let a model server score candidates, in the way that the server can.

- ``echo`` (endpoint completions): the server repeats the prompt with each title, with the log-probability of every
  token. The score is the sum over the tokens of the title and its end.
- ``labels`` (endpoint chat): the candidates are listed with letters, and the answer is one token. The score is the
  log-probability of the candidate's letter, which not all candidates may get.
- ``choices``: the server may write nothing but one of the titles. The score is the logarithm of the share of texts
  that it wrote, smoothed by half a text.

What a server can do is found out with the first request. The numbers are not those of ``LanguageModel``:
they are probabilities over the vocabulary, over letters, or shares of samples.
"""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from genrec.errors import ModelError
from genrec.models.server import CHAT, CHOICES, ECHO, LABELS, MOST_LABELS, Server
from genrec.types import FloatArray

FRAME = 64  # upper bound on the tokens that a server puts around the messages of a chat
_LETTERS = "ABCDEFGHIJKLMNOPQRST"
_VOTES = 8  # texts that are drawn from the choices
_LOWEST = -1.0  # nats of a letter that was not reported, below the lowest one that was
_ASK = "Which of these items comes next in the history? Answer with its letter only."
_PICK = 'Which of these items comes next in the history? Answer as JSON, such as {"title": "..."}.'

Send = Callable[[Mapping[str, Any], tuple[int, int]], dict[str, Any]]
"""Sends a request, given its fields and upper bounds on its tokens in and out, and returns the answer."""


class RefusedError(ModelError):
    """Raised when a server does not know what a request asks for."""


class ServerScores:
    """Scores of candidates by one server. May be used by several threads.

    Attributes:
        way: how the server scores; None before it was asked, and if it cannot.
        notes: remarks on what it cannot do.
    """

    def __init__(self, server: Server, send: Send, count: Callable[[str], int]) -> None:
        """Remember how to reach the server; nothing is sent yet.

        Args:
            server: the server.
            send: sends a request.
            count: returns an upper bound on the tokens of a text.
        """
        self.way: str | None = None
        self.notes: tuple[str, ...] = ()
        self._server, self._send, self._count = server, send, count
        self._asking = threading.Lock()
        self._known = False

    def score(self, prompt: str, titles: Sequence[str], stop: str) -> FloatArray:
        """Score titles that may continue a prompt.

        Args:
            prompt: the prompt.
            titles: the C titles, with the text before them.
            stop: the text that ends a title.

        Returns:
            (C,) logarithms; NaN for a title that was not scored.

        Raises:
            ModelError: the server did not answer, or refused the request for reasons of its own.
        """
        with self._asking:
            if not self._known:
                found = self._find_way(prompt, titles, stop)
                self._known = True
                return found
        if self.way is None:
            return np.full(len(titles), np.nan)
        found_now = self._by(self.way, prompt, titles, stop)
        return np.full(len(titles), np.nan) if found_now is None else found_now

    def _find_way(self, prompt: str, titles: Sequence[str], stop: str) -> FloatArray:
        """Try the ways in turn, and return the scores of the first one that works."""
        first = LABELS if self._server.endpoint == CHAT else ECHO
        ways = (first, CHOICES) if self._server.scores == "auto" else (self._server.scores,)
        for way in ways:
            try:
                found = self._by(way, prompt, titles, stop)
            except RefusedError:
                found = None
            if found is not None:
                self.way = way
                return found
        tried = " or ".join(ways)
        self.notes = (
            f"The model server cannot score candidates ({tried}), so the items are ranked without it.",
        )
        return np.full(len(titles), np.nan)

    def _by(self, way: str, prompt: str, titles: Sequence[str], stop: str) -> FloatArray | None:
        """Return the scores, or None if the answer shows that the server cannot do this."""
        if way == ECHO:
            return self._echo(prompt, titles, stop)
        if way == LABELS:
            return self._label(prompt, titles)
        return self._choose(prompt, titles, stop)

    def _echo(self, prompt: str, titles: Sequence[str], stop: str) -> FloatArray | None:
        texts = [f"{prompt}{title}{stop}" for title in titles]
        given = {"prompt": texts, "max_tokens": 0, "echo": True, "logprobs": 1, "temperature": 0.0}
        values = self._send(given, (sum(self._count(t) + FRAME for t in texts), 0))
        choices = values["choices"]
        if len(choices) != len(texts):
            return None
        ordered = sorted(choices, key=lambda c: int(c.get("index", 0)))
        found = [
            _sum_after(choice, len(prompt), len(text))
            for choice, text in zip(ordered, texts, strict=True)
        ]
        return None if any(f is None for f in found) else np.array(found, dtype=np.float64)

    def _label(self, prompt: str, titles: Sequence[str]) -> FloatArray | None:
        some = titles[:MOST_LABELS]
        listed = "\n".join(f"{a}. {t.strip()}" for a, t in zip(_LETTERS, some, strict=False))
        text = f"{prompt}\n\n{_ASK}\n{listed}"
        given = {
            "messages": [{"role": "user", "content": text}], "max_tokens": 1, "temperature": 0.0,
            "logprobs": True, "top_logprobs": MOST_LABELS,
        }  # fmt: skip
        values = self._send(given, (self._count(text) + FRAME, 1))
        tokens = (values["choices"][0].get("logprobs") or {}).get("content") or []
        top = tokens[0].get("top_logprobs") if tokens else None
        found = np.full(len(titles), -np.inf)
        for one in top or ():
            label, value = str(one.get("token", "")).strip(), one.get("logprob")
            if len(label) == 1 and label in _LETTERS[: len(some)] and _is_number(value):
                place = _LETTERS.index(label)
                found[place] = np.logaddexp(found[place], value)
        there = np.isfinite(found)
        if not there.any():
            return None
        found[: len(some)][~there[: len(some)]] = found[there].min() + _LOWEST
        found[len(some) :] = np.nan
        return found

    def _choose(self, prompt: str, titles: Sequence[str], stop: str) -> FloatArray | None:
        plain = [t.strip() for t in titles]
        given: dict[str, Any] = {"n": _VOTES, "temperature": 1.0, "seed": 0}
        longest = max(self._count(t) for t in titles) + FRAME
        given["max_tokens"] = longest
        choices = sorted(set(plain))
        if self._server.endpoint == CHAT:
            text = f"{prompt}\n\n{_PICK}\n" + "\n".join(plain)
            schema = {
                "type": "object", "properties": {"title": {"type": "string", "enum": choices}},
                "required": ["title"], "additionalProperties": False,
            }  # fmt: skip
            wanted = {"name": "item", "strict": True, "schema": schema}
            given["messages"] = [{"role": "user", "content": text}]
            given["response_format"] = {"type": "json_schema", "json_schema": wanted}
        else:
            text = prompt
            given |= {"prompt": prompt, "stop": [stop]}
            given["extra_body"] = {"structured_outputs": {"choice": list(dict.fromkeys(titles))}}
        values = self._send(given, (self._count(text) + FRAME, _VOTES * longest))
        votes = Counter(_picked(choice) for choice in values["choices"])
        if not votes or not set(votes) <= set(plain):
            return None  # it wrote something else, so it does not know choices
        n = sum(votes.values())
        counts = np.array([votes[t] for t in plain], dtype=np.float64)
        shares: FloatArray = np.log((counts + 0.5) / (n + 0.5 * len(plain)))
        return shares


def _sum_after(choice: Mapping[str, Any], start: int, stop: int) -> float | None:
    """Sum the log-probabilities of the tokens of a repeated text from a character on.

    Args:
        choice: the answer for one text.
        start: the number of characters of the prompt.
        stop: the number of characters of the whole text.
    """
    said = choice.get("logprobs") or {}
    lists = [said.get(name) or [] for name in ("text_offset", "token_logprobs", "tokens")]
    if not all(isinstance(v, list) and len(v) == len(lists[0]) for v in lists):
        return None
    offsets, logprobs, tokens = lists
    ends = [o + len(t) for o, t in zip(offsets, tokens, strict=True)]
    some = [
        value for value, offset, end in zip(logprobs, offsets, ends, strict=True)
        if end > start and offset < stop
    ]  # fmt: skip
    return float(sum(some)) if some and all(_is_number(v) for v in some) else None


def _picked(choice: Mapping[str, Any]) -> str:
    """Return the title that a text names."""
    text = choice.get("text")
    if text is None:
        text = (choice.get("message") or {}).get("content") or ""
        try:
            values = json.loads(text)
        except ValueError:
            return ""
        text = values.get("title") if isinstance(values, dict) else ""
    return str(text).strip()


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
