"""A model server with OpenAI's API, on loopback, that fails by a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

FAULTS = ("429", "500", "slow", "truncated", "malformed", "refusing", "html", "")


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
    """

    write: Callable[[str], list[str]]
    faults: list[str] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    texts_at_once: int = 100
    keeps_stop: bool = False
    counted: int = 0
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
            chat = self.path.endswith("/chat/completions")
            prompt = body["messages"][-1]["content"] if chat else body["prompt"]
            texts = server.write(prompt)[: min(body["n"], server.texts_at_once)]
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
            if fault == "truncated":
                self.wfile.write(data[: len(data) // 2])
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
