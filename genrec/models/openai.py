"""Generate texts with a model server that speaks the API of OpenAI.

vLLM, SGLang, llama.cpp, Ollama, ``transformers serve`` and hosted services do. Such a model writes free texts,
which the decoder ``match`` maps to items; it gives no probabilities of titles, so nothing is exact. The package
``openai`` sends the requests. Failed ones are repeated here rather than there, because an attempt that timed out may
have used tokens, which count against the budget.
"""

from __future__ import annotations

import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from genrec.errors import ModelError, SettingsError
from genrec.extras import how_to_install
from genrec.models.base import Generated, GenerationOptions, TextPrompt

COMPLETIONS, CHAT = "completions", "chat"
ENDPOINTS = (COMPLETIONS, CHAT)
KEY = "OPENAI_API_KEY"  # the environment variable with the key
_NO_KEY = "none"  # for servers that need no key; the package wants one
_INSTRUCTION = "Continue the history below with the title of the next item. Write the title only, on one line, and nothing else."
_FRAME = 64  # upper bound on the tokens that a server puts around the messages of a chat


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
        ):
            value = getattr(self, name)
            least = 1 if name in {"context", "per_minute"} else 0
            if value is not None and not (math.isfinite(value) and value >= least):
                msg = f"{name}={value!r} is not valid. Expected a number of at least {least}."
                raise SettingsError(msg)
        if self.max_cost is not None and not (self.price_in or self.price_out):
            msg = "max_cost needs the prices of tokens. Give price_in and price_out, per million tokens."
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


class OpenAIModel:
    """A model behind a server, as a ``TextModel``.

    Attributes:
        name: the name of the model.
        server: the server.
        spent: what was used so far.
    """

    def __init__(self, server: Server, *, api_key: str | None = None) -> None:
        """Connect to a server; nothing is sent yet.

        Args:
            server: the server.
            api_key: the key; None to take it from the environment variable ``OPENAI_API_KEY``, if it is set.

        Raises:
            SettingsError: the package ``openai`` is not installed.
        """
        if find_spec("openai") is None:
            msg = f"A model server needs the package openai. {how_to_install('openai')}"
            raise SettingsError(msg)
        import openai

        self.name, self.server, self.spent = server.model, server, Spent(server)
        self._client = openai.OpenAI(
            base_url=server.base_url,
            api_key=api_key or os.environ.get(KEY) or _NO_KEY,
            timeout=server.timeout,
            max_retries=0,  # repeated here, since every attempt counts against the budget
        )
        self._slots = _Slots(server.per_minute)

    @property
    def context(self) -> int:
        """The number of tokens that the model can read, its answer included."""
        return self.server.context

    def count_tokens(self, text: str) -> int:
        """Return an upper bound on the number of tokens in a text: its bytes.

        No token of a tokenizer that works on bytes or characters is shorter than a byte.
        """
        return len(text.encode("utf-8", "replace"))

    def describe(self) -> str:
        """Return the name and the address of the model."""
        return f"{self.name} at {self.server.base_url}"

    def generate(self, prompt: TextPrompt, options: GenerationOptions) -> list[Generated]:
        """Ask the server for texts that continue a prompt.

        Servers that return a single text whatever was asked for are asked again with other seeds.

        Raises:
            BudgetError: the budget does not allow the request; nothing was sent.
            ModelError: the server did not answer in all attempts, or refused the request.
        """
        texts = self._ask(prompt.text, options, options.n, options.seed)
        while len(texts) < options.n and options.temperature > 0:
            more = self._ask(prompt.text, options, 1, options.seed + len(texts))
            if not more:
                break
            texts += more
        return texts[: options.n]

    def _ask(self, text: str, options: GenerationOptions, n: int, seed: int) -> list[Generated]:
        given: dict[str, Any] = {
            "model": self.server.model,
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "n": n,
            "seed": seed % (1 << 31),
            "stop": [options.stop],
        }
        most_in = self.count_tokens(text)
        send: Callable[..., Any]
        if self.server.endpoint == CHAT:
            given["messages"] = [
                {"role": "system", "content": _INSTRUCTION},
                {"role": "user", "content": text},
            ]
            given["logprobs"] = True
            most_in += self.count_tokens(_INSTRUCTION) + _FRAME
            send = self._client.chat.completions.with_raw_response.create
        else:
            given |= {"prompt": text, "logprobs": 1}
            most_in += _FRAME
            send = self._client.completions.with_raw_response.create
        values = self._send(send, given, (most_in, n * options.max_tokens))
        read = _read_chat if self.server.endpoint == CHAT else _read_completion
        found = [read(choice) for choice in values["choices"]]
        # some servers return the string at which the text ended
        return [replace(t, text=t.text.partition(options.stop)[0]) for t in found]

    def _send(
        self, send: Callable[..., Any], given: Mapping[str, Any], most: tuple[int, int]
    ) -> dict[str, Any]:
        """Send a request until it is answered, and return the answer.

        Every attempt counts against the budget: with the tokens that the server reports, or with all that
        it could use if nobody knows, such as after a timeout.

        Args:
            send: the client's function.
            given: its arguments.
            most: upper bounds on the tokens of the prompt and of the answer.

        Raises:
            BudgetError: the budget does not allow another attempt.
            ModelError: the request was refused, or not answered in all attempts.
        """
        import openai

        reason, advice = "", ""
        for attempt in range(self.server.retries + 1):
            self._slots.wait()
            number = self.spent.reserve(*most)
            pause = min(0.5 * 2.0**attempt, 30.0) * random.uniform(0.75, 1.25)
            used, answered = None, True
            try:
                values = send(**given).http_response.json()
                if isinstance(values, dict) and _is_complete(values):
                    used = _usage(values)
                    return values
                reason = f"a damaged answer: {str(values)[:100]}."
                advice = f"Check that it has the endpoint {self.server.endpoint} of OpenAI's API."
            except openai.APIStatusError as error:
                answered = False
                reason, advice = _describe(error), _advise(error.status_code)
                if error.status_code not in {408, 409, 429} and error.status_code < 500:
                    msg = f"{self.describe()} refused a request: {reason} {advice}"
                    raise ModelError(msg) from error
                pause = _retry_after(error, pause)
            except openai.APIError as error:
                reason, advice = _describe(error), _advise(None)
                answered = isinstance(error, openai.APITimeoutError) or _was_sent(error)
            except ValueError:
                reason = "an answer that is not JSON."
                advice = f"Check that it has the endpoint {self.server.endpoint} of OpenAI's API."
            finally:
                self.spent.settle(number, used, answered=answered)
            if attempt < self.server.retries:
                time.sleep(pause)
        msg = (
            f"{self.describe()} failed {self.server.retries + 1} times, last with {reason} {advice}"
        )
        raise ModelError(msg)


def _was_sent(error: Exception) -> bool:
    """Return False if no connection was made, so that the server cannot have used anything."""
    return type(error.__cause__).__name__ != "ConnectError"


def _is_complete(values: Mapping[str, Any]) -> bool:
    choices = values.get("choices")
    return isinstance(choices, list) and all(
        isinstance(c, dict)
        and (isinstance(c.get("text"), str) or isinstance(c.get("message"), dict))
        for c in choices
    )


def _read_completion(choice: Mapping[str, Any]) -> Generated:
    logprobs = (choice.get("logprobs") or {}).get("token_logprobs")
    return _generated(choice["text"], logprobs, choice)


def _read_chat(choice: Mapping[str, Any]) -> Generated:
    tokens = (choice.get("logprobs") or {}).get("content")
    logprobs = [t.get("logprob") for t in tokens] if tokens else None
    return _generated(choice["message"].get("content") or "", logprobs, choice)


def _generated(text: Any, logprobs: Any, choice: Mapping[str, Any]) -> Generated:
    known = (
        isinstance(logprobs, list)
        and logprobs
        and all(isinstance(v, int | float) for v in logprobs)
    )
    total = float(sum(logprobs)) if known else float("nan")
    return Generated(str(text), total, choice.get("finish_reason") == "stop")


def _usage(values: Mapping[str, Any]) -> tuple[int, int] | None:
    usage = values.get("usage")
    if not isinstance(usage, dict):
        return None
    found = tuple(usage.get(name) for name in ("prompt_tokens", "completion_tokens"))
    return found if all(isinstance(n, int) and n >= 0 for n in found) else None  # type: ignore[return-value]


def _describe(error: Exception) -> str:
    """Describe an error without the request, which may hold personal data."""
    status = getattr(error, "status_code", None)
    body = getattr(error, "body", None)
    said = body.get("message") if isinstance(body, dict) else None
    shown = f"status {status}" if status is not None else type(error).__name__
    return f"{shown}: {str(said)[:200]}." if said else f"{shown}."


def _advise(status: int | None) -> str:
    if status is None:
        return "Check that the server runs, or raise its timeout."
    if status == 429 or status >= 500:
        return "The server is overloaded or fails; try again later, or set per_minute."
    return f"Check the name of the model, the key in {KEY}, and the endpoint."


def _retry_after(error: Any, otherwise: float) -> float:
    """Return the number of seconds that a server asks to wait, at most a minute."""
    try:
        return min(max(float(error.response.headers["retry-after"]), 0.0), 60.0)
    except (KeyError, ValueError):
        return otherwise


class _Slots:
    """Lets requests begin at a limited rate, evenly spaced."""

    def __init__(self, per_minute: int | None) -> None:
        self._gap = 0.0 if per_minute is None else 60.0 / per_minute
        self._lock, self._free = threading.Lock(), 0.0

    def wait(self) -> None:
        """Wait until a request may begin."""
        if not self._gap:
            return
        with self._lock:
            now = time.monotonic()
            start = max(now, self._free)
            self._free = start + self._gap
        time.sleep(start - now)


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
