"""Describe a model server, its limits and its budgets, and count what is used.

This module sends nothing; see ``models.openai``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any
from urllib.parse import urlsplit

from genrec.config import EXPLAIN
from genrec.errors import ModelError, SettingsError

COMPLETIONS, CHAT = "completions", "chat"
ENDPOINTS = (COMPLETIONS, CHAT)
KEY = "OPENAI_API_KEY"  # the environment variable with the key
ECHO, LABELS, CHOICES = "echo", "labels", "choices"
SCORES = ("auto", ECHO, LABELS, CHOICES)
MOST_LABELS = 20  # servers report the probabilities of at most this many tokens


class BudgetError(ModelError):
    """Raised when a request could exceed the budget of tokens or of money."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """A model server and how to treat it.

    Attributes:
        base_url: the address, such as ``http://localhost:8000/v1``.
        model: the name of the model on the server.
        endpoint: ``completions`` for models that continue a text, or ``chat`` for models that answer.
        context: the number of tokens that the model can read, its answer included.
        timeout: the number of seconds after which a request counts as failed.
        retries: how often a failed request is repeated.
        per_minute: the largest number of requests in a minute; None for no limit.
        max_tokens: the budget of tokens, prompts and answers together; None for no limit.
        max_cost: the budget of money, in the currency of the prices; None for no limit.
        price_in: the price of a million tokens of prompts.
        price_out: the price of a million tokens of answers.
        rerank: with ``model_role="explain"``, the number of the prior's best items that the server scores;
            0 for none.
        scores: how it scores them; see ``models.server_scores``. ``auto`` asks the server what it can do.
        weight: the exponent of the server's probabilities beside those of the prior.

    Raises:
        SettingsError: a value is invalid.
    """

    base_url: str
    model: str
    endpoint: str = COMPLETIONS
    context: int = 4096
    timeout: float = 60.0
    retries: int = 5
    per_minute: int | None = None
    max_tokens: int | None = None
    max_cost: float | None = None
    price_in: float = 0.0
    price_out: float = 0.0
    rerank: int = 0
    scores: str = SCORES[0]
    weight: float = 0.5

    def __post_init__(self) -> None:
        """Check the values."""
        if not self.base_url.startswith(("http://", "https://")):
            msg = (
                f"base_url={self.base_url!r} is not an address. Expected one such as "
                "http://localhost:8000/v1."
            )
            raise SettingsError(msg)
        if urlsplit(self.base_url).username is not None:
            msg = f"base_url holds a user name or a password. Leave them out; {KEY} holds the key."
            raise SettingsError(msg)
        if not self.model:
            msg = "The name of the model is missing. Expected the name under which the server knows it."
            raise SettingsError(msg)
        if self.endpoint not in ENDPOINTS:
            msg = f"endpoint={self.endpoint!r} is not valid. Expected {' or '.join(ENDPOINTS)}."
            raise SettingsError(msg)
        for name in (
            "context",
            "timeout",
            "retries",
            "per_minute",
            "max_tokens",
            "max_cost",
            "price_in",
            "price_out",
            "rerank",
            "weight",
        ):
            value = getattr(self, name)
            least = 1 if name in {"context", "per_minute"} else 0
            if value is not None and not (math.isfinite(value) and value >= least):
                msg = f"{name}={value!r} is not valid. Expected a number of at least {least}."
                raise SettingsError(msg)
        self._check_scores()
        if self.max_cost is not None and not (self.price_in or self.price_out):
            msg = "max_cost needs the prices of tokens. Give price_in and price_out, per million tokens."
            raise SettingsError(msg)

    def _check_scores(self) -> None:
        if self.scores not in SCORES:
            msg = f"scores={self.scores!r} is not valid. Expected one of {', '.join(SCORES)}."
            raise SettingsError(msg)
        needed = {ECHO: COMPLETIONS, LABELS: CHAT}.get(self.scores, self.endpoint)
        if self.endpoint != needed:
            msg = f"scores={self.scores!r} needs endpoint={needed!r}. Set it, or leave scores out."
            raise SettingsError(msg)
        if self.scores == LABELS and self.rerank > MOST_LABELS:
            msg = (
                f"rerank={self.rerank} does not work with scores='labels': servers report at most {MOST_LABELS} "
                "probabilities. Set a smaller rerank, or other scores."
            )
            raise SettingsError(msg)


@dataclass
class Spent:
    """What the requests so far have used. All methods may be called from several threads.

    Attributes:
        server: the server, which has the budgets and the prices.
        requests: the number of answered requests.
        tokens_in: the number of tokens of prompts, as the server counts them.
        tokens_out: the number of tokens of answers.
    """

    server: Server
    requests: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    _reserved: dict[int, tuple[int, int]] = field(default_factory=dict)
    _next: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def cost(self) -> float:
        """The price of the tokens."""
        return self._price(self.tokens_in, self.tokens_out)

    def reserve(self, tokens_in: int, tokens_out: int) -> int:
        """Set tokens aside for a request, and return the number of the reservation.

        Args:
            tokens_in: an upper bound on the tokens of the prompt.
            tokens_out: an upper bound on the tokens of the answer.

        Raises:
            BudgetError: together with what was used and set aside, they could exceed a budget.
        """
        server = self.server
        with self._lock:
            reserved = self._reserved.values()
            most_in = self.tokens_in + sum(r[0] for r in reserved) + tokens_in
            most_out = self.tokens_out + sum(r[1] for r in reserved) + tokens_out
            if server.max_tokens is not None and most_in + most_out > server.max_tokens:
                msg = (
                    f"The budget of {server.max_tokens:,} tokens does not allow another request: "
                    f"{self.tokens_in + self.tokens_out:,} were used, and it could use "
                    f"{tokens_in + tokens_out:,}. Raise max_tokens to continue."
                )
                raise BudgetError(msg)
            if server.max_cost is not None and self._price(most_in, most_out) > server.max_cost:
                msg = (
                    f"The budget of {server.max_cost:g} does not allow another request: {self.cost:.6g} was "
                    f"spent, and it could cost {self._price(tokens_in, tokens_out):.6g}. Raise max_cost to "
                    "continue."
                )
                raise BudgetError(msg)
            self._next += 1
            self._reserved[self._next] = (tokens_in, tokens_out)
            return self._next

    def settle(self, number: int, used: tuple[int, int] | None, *, answered: bool = True) -> None:
        """Replace a reservation by what a request has used.

        Args:
            number: the reservation.
            used: the tokens of the prompt and of the answer; None if the server does not say, so that all
                reserved tokens count as used.
            answered: False if the request failed and used nothing.
        """
        with self._lock:
            most = self._reserved.pop(number)
            if answered:
                self.requests += 1
                counted = most if used is None else used
                self.tokens_in += counted[0]
                self.tokens_out += counted[1]

    def _price(self, tokens_in: int, tokens_out: int) -> float:
        return (tokens_in * self.server.price_in + tokens_out * self.server.price_out) / 1e6


def server_settings(settings: Mapping[str, Any], rerank: int = 0) -> dict[str, Any]:
    """Return the settings of a recommender whose model runs on a server.

    With ``model_role="explain"``, the prior ranks all items, and the server writes sentences, and scores the best
    items if ``rerank`` is above 0. Otherwise, its texts are matched to items.

    Args:
        settings: the settings that were chosen.
        rerank: the number of items that the server scores.

    Raises:
        SettingsError: the settings need the probabilities of all tokens, or contradict ``rerank``.
    """
    decoder = settings.get("decoder")
    if settings.get("model_role") == EXPLAIN:
        return {**settings, "decoder": decoder or "trie"}
    if rerank:
        msg = (
            f"rerank={rerank} needs model_role='explain', with which the prior ranks the items and the server scores "
            "the best of them. Set it, or leave out rerank."
        )
        raise SettingsError(msg)
    if decoder not in {None, "match"}:
        msg = (
            f"decoder={decoder!r} needs the probabilities of all tokens, which a server does not give. Expected "
            "decoder='match', or model_role='explain'."
        )
        raise SettingsError(msg)
    return {**settings, "decoder": "match"}


LIMITS = ("timeout", "retries", "per_minute", "max_tokens", "max_cost", "price_in", "price_out")
"""The fields of ``Server`` that do not change what it writes."""


def make_server(model: str | None, base_url: str, given: Mapping[str, str]) -> Server:
    """Make a ``Server`` from texts, as the command line has them.

    Args:
        model: the name of the model.
        base_url: the address.
        given: other fields by name.

    Raises:
        SettingsError: a name is unknown, or a value is invalid.
    """
    known = {f.name: str(f.type) for f in fields(Server) if f.name not in {"model", "base_url"}}
    values: dict[str, Any] = {}
    for name, text in given.items():
        if name not in known:
            msg = (
                f"{name!r} is not an option of a model server. Expected one of {', '.join(known)}."
            )
            raise SettingsError(msg)
        try:
            kind = known[name].partition(" | ")[0]
            values[name] = {"str": str, "int": int, "float": float}[kind](text)
        except ValueError:
            msg = f"{name}={text!r} is not valid. Expected a number."
            raise SettingsError(msg) from None
    return Server(base_url=base_url, model=model or "", **values)
