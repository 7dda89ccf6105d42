"""Generate texts with a model server that speaks the API of OpenAI.

vLLM, SGLang, llama.cpp, Ollama, ``transformers serve`` and hosted services do. Such a model writes free texts,
which the decoder ``match`` maps to items; it gives no probabilities of titles, so nothing is exact. The package
``openai`` sends the requests. Failed ones are repeated here rather than there, because an attempt that timed out may
have used tokens, which count against the budget.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from genrec.errors import ModelError, SettingsError
from genrec.extras import how_to_install
from genrec.models.base import Generated, GenerationOptions, TextPrompt
from genrec.models.server import (
    CHAT,
    COMPLETIONS,
    ENDPOINTS,
    KEY,
    LIMITS,
    BudgetError,
    Server,
    Spent,
    make_server,
    server_settings,
)
from genrec.models.server_scores import FRAME, RefusedError, ServerScores
from genrec.types import FloatArray

__all__ = [
    "CHAT",
    "COMPLETIONS",
    "ENDPOINTS",
    "LIMITS",
    "BudgetError",
    "OpenAIModel",
    "Server",
    "Spent",
    "make_server",
    "server_settings",
]
_NO_KEY = "none"  # for servers that need no key; the package wants one
_INSTRUCTION = "Continue the history below with the title of the next item. Write the title only, on one line, and nothing else."


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
        self._scores = ServerScores(server, self.send, self.count_tokens)

    @property
    def rerank(self) -> int:
        """The number of candidates that the server scores for each list; 0 for none."""
        return self.server.rerank

    @property
    def weight(self) -> float:
        """The exponent of the server's probabilities beside those of the prior."""
        return self.server.weight

    @property
    def notes(self) -> tuple[str, ...]:
        """Remarks on what the server cannot do."""
        return self._scores.notes

    def score_candidates(self, prompt: TextPrompt, titles: Sequence[str], stop: str) -> FloatArray:
        """Let the server score titles; see ``CandidateModel``.

        Raises:
            BudgetError: the budget does not allow the requests.
            ModelError: the server did not answer in all attempts, or refused the requests.
        """
        return self._scores.score(prompt.text, titles, stop)

    @property
    def way(self) -> str | None:
        """How the server scores candidates: ``echo``, ``labels`` or ``choices``; None if it does not."""
        return self._scores.way

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
            "max_tokens": options.max_tokens,
            "temperature": options.temperature,
            "n": n,
            "seed": seed % (1 << 31),
            "stop": [options.stop],
        }
        most_in = self.count_tokens(text) + FRAME
        if self.server.endpoint == CHAT:
            given["messages"] = [
                {"role": "system", "content": _INSTRUCTION},
                {"role": "user", "content": text},
            ]
            given["logprobs"] = True
            most_in += self.count_tokens(_INSTRUCTION)
        else:
            given |= {"prompt": text, "logprobs": 1}
        values = self.send(given, (most_in, n * options.max_tokens))
        read = _read_chat if self.server.endpoint == CHAT else _read_completion
        found = [read(choice) for choice in values["choices"]]
        # some servers return the string at which the text ended
        return [replace(t, text=t.text.partition(options.stop)[0]) for t in found]

    def send(self, given: Mapping[str, Any], most: tuple[int, int]) -> dict[str, Any]:
        """Send a request to the endpoint until it is answered, and return the answer.

        Every attempt counts against the budget: with the tokens that the server reports, or with all that
        it could use if nobody knows, such as after a timeout.

        Args:
            given: the fields of the request, without the model. Those in ``extra_body`` need not be known to the
                package.
            most: upper bounds on the tokens of the prompt and of the answer.

        Raises:
            BudgetError: the budget does not allow another attempt.
            RefusedError: the server does not know a field of the request, or a value of it.
            ModelError: the request was refused for another reason, or not answered in all attempts.
        """
        import openai

        client = self._client
        where: Any = client.chat if self.server.endpoint == CHAT else client
        send: Callable[..., Any] = where.completions.with_raw_response.create
        given = {"model": self.server.model, **given}
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
                    kind = RefusedError if error.status_code in {400, 404, 422} else ModelError
                    raise kind(msg) from error
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
