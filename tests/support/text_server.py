"""A model server with OpenAI's API, on loopback, that fails by a script."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "slow", "stalls", "truncated", "malformed", "refusing", "html", "")


@dataclass
class TextServer:
    """What the server answers, and what it was asked.

    Attributes:
        write: returns the texts that continue a prompt.
        faults: what goes wrong with each request, in order; "" for nothing, and for all later ones.
        asked: the bodies of the requests.
        texts_at_once: how many texts it returns at most, whatever is asked.
        keeps_stop: whether it returns the string at which a text should end, and more.
        counted: the tokens of the answers that it gave, of prompts and texts: one for each word.
        can: how it can score candidates: ``echo``, ``labels`` and ``choices``.
        refuses: whether it refuses what it cannot do; otherwise, it ignores it.
        prefers: the title of which it is surest.
    """

    write: Callable[[str], list[str]]
    faults: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    texts_at_once: int = 100
    keeps_stop: bool = False
    counted: int = 0
    can: frozenset[str] = frozenset()
    refuses: bool = False
    prefers: str = ""
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


@contextmanager
def running(server: TextServer) -> Iterator[TextServer]:
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, format: str, *arguments: Any) -> None:
            pass

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            with server.lock:
                server.asked.append(body)
                fault = server.faults.pop(0) if server.faults else ""
            self._answer(body, fault)

        def _answer(self, body: dict[str, Any], fault: str) -> None:
            if fault in {"429", "500"}:
                self.send_response(int(fault))
                self.send_header("retry-after", "0.01")
                self.send_header("content-length", "0")
                self.end_headers()
                return
            if fault == "slow":
                time.sleep(1.0)
            if server.refuses and (wanted := _wanted(body)) and wanted not in server.can:
                self.send_response(400)
                self.send_header("content-length", "0")
                self.end_headers()
                return
            chat = self.path.endswith("/chat/completions")
            prompt = body["messages"][-1]["content"] if chat else body["prompt"]
            if isinstance(prompt, list):
                prompt = " ".join(prompt)
            texts = server.write(prompt)[: min(body.get("n", 1), server.texts_at_once)]
            if server.keeps_stop:
                texts = [f"{t}{body['stop'][0]}more" for t in texts]
            if fault == "refusing":
                texts = [""]
            choices = [
                {"index": i, "finish_reason": "stop", "logprobs": None}
                | (
                    {"message": {"role": "assistant", "content": t or None}}
                    if chat
                    else {"text": t}
                )
                for i, t in enumerate(texts)
            ]
            if _wanted(body) in server.can:
                choices = _score(server, body)
            usage = {
                "prompt_tokens": len(prompt.split()),
                "completion_tokens": sum(len(t.split()) for t in texts),
            }
            data = json.dumps(
                {
                    "id": "x",
                    "object": "x",
                    "model": "x",
                    "created": 0,
                    "choices": choices,
                    "usage": usage,
                }
            ).encode()
            if fault == "malformed":
                data = b'{"choices": "none"}'
            if fault == "html":
                data = b"<html>a proxy</html>"
            self.send_response(200)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(data)))
            self.end_headers()
            if fault in {"truncated", "stalls"}:
                self.wfile.write(data[: len(data) // 2])
                self.wfile.flush()
                time.sleep(1.0 if fault == "stalls" else 0.0)
                self.close_connection = True
                return
            try:
                self.wfile.write(data)
            except OSError:
                return  # the client has given up
            if fault not in {"malformed", "html", "slow"}:
                with server.lock:
                    server.counted += usage["prompt_tokens"] + usage["completion_tokens"]

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_address[1]}/v1"
        thread = threading.Thread(
            target=http.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True
        )
        thread.start()
        try:
            yield server
        finally:
            http.shutdown()
            thread.join()


def _wanted(body: dict[str, Any]) -> str:
    """Return the way of scoring that a request asks for, or ""."""
    if body.get("echo"):
        return "echo"
    if "top_logprobs" in body:
        return "labels"
    return "choices" if {"response_format", "structured_outputs"} & set(body) else ""


def _score(server: TextServer, body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the choices of a server that can score: it is sure of the title that it prefers."""
    way = _wanted(body)
    if way == "echo":
        return [_repeat(server, n, text) for n, text in enumerate(body["prompt"])][::-1]
    if way == "labels":
        lines = body["messages"][-1]["content"].splitlines()
        labels = [tuple(line.split(". ", 1)) for line in lines if line[1:3] == ". "]
        said = [
            {"token": a, "logprob": -0.1 if t == server.prefers else -4.0} for a, t in labels[:5]
        ]
        said += [{"token": f" {a}", "logprob": -6.0} for a, _ in labels[:1]]
        content = [{"token": "A", "logprob": -0.1, "top_logprobs": said}]
        return [{"index": 0, "message": {"content": "A"}, "logprobs": {"content": content}}]
    if "response_format" in body:
        schema = body["response_format"]["json_schema"]["schema"]
        titles = schema["properties"]["title"]["enum"]
        best = server.prefers if server.prefers in titles else titles[0]
        text = json.dumps({"title": best})
        return [{"index": i, "message": {"content": text}} for i in range(body["n"])]
    titles = body["structured_outputs"]["choice"]
    best = next((t for t in titles if t.strip() == server.prefers), titles[0])
    return [{"index": i, "text": best} for i in range(body["n"])]


def _repeat(server: TextServer, index: int, text: str) -> dict[str, Any]:
    """Return a text with the log-probability of each word, of which the first has none."""
    words = [m.group() for m in re.finditer(r"\s*\S+|\s+$", text)]
    offsets = [sum(map(len, words[:n])) for n in range(len(words))]
    sure = bool(server.prefers) and text.rstrip().endswith(server.prefers)
    logprobs = [None, *([-0.01 if sure else -1.0] * (len(words) - 1))]
    told = {"tokens": words, "token_logprobs": logprobs, "text_offset": offsets}
    return {"index": index, "text": text, "finish_reason": "length", "logprobs": told}
