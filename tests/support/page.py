"""The page at ``/`` in a real browser: a server on a free port, and Chromium that drives it."""

from __future__ import annotations

import base64
import contextlib
import http.server
import importlib.util
import shutil
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import uvicorn

from genrec.service.app import create_app
from genrec.service.server import listen
from genrec.service.service import Service

T = TypeVar("T")
PICTURES = "images.example"  # the browser finds this host on this machine
_DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PATIENCE = 60.0  # seconds that a step may take on a busy machine
_VISIBLE = """
    return [...document.querySelectorAll(arguments[0])].filter((e) => e.checkVisibility());
"""
_VISIBLE_ONE = """
    return [...document.querySelectorAll(arguments[0])].find((e) => e.checkVisibility() &&
        e.textContent.includes(arguments[1])) ?? null;
"""
_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--hide-scrollbars", "--lang=en-US",
)  # fmt: skip


@contextlib.contextmanager
def serving(service: Service) -> Iterator[str]:
    """Answer requests in a thread until the block ends, and yield the address."""
    with closing(listen("127.0.0.1", 0)) as opened:
        config = uvicorn.Config(create_app(service), log_config=None, access_log=False)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [opened]}, daemon=True)
        thread.start()
        try:
            until(lambda: server.started)
            yield f"http://127.0.0.1:{opened.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(PATIENCE)


def until(found: Callable[[], T]) -> T:
    """Wait until a function returns something true, and return it."""
    end = time.monotonic() + PATIENCE
    while not (value := found()):
        assert time.monotonic() < end, f"this did not happen within {PATIENCE} seconds"
        time.sleep(0.02)
    return value


class Page:
    """A tab of the browser. Errors in its console make the test fail; see ``check``."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, address: str, *, width: int = 1280, dark: bool = False, **kept: str) -> None:
        """Open a page in a window of a width, without anything from before except ``kept``."""
        self.check()
        self.driver.get("about:blank")
        self.driver.set_window_size(width, 900)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._command("Emulation.setEmulatedMedia", features=[feature])
        self._command("Network.clearBrowserCookies")
        origin = address.partition("/#")[0]
        self._command("Storage.clearDataForOrigin", origin=origin, storageTypes="all")
        self.driver.get(f"{origin}/livez")
        self.run("sessionStorage.clear(); localStorage.clear()")
        for name, value in kept.items():
            self.run("sessionStorage.setItem(`genrec ${arguments[0]}`, arguments[1])", name, value)
        self.driver.get(address)

    def _command(self, name: str, **values: Any) -> Any:
        return self.driver.execute_cdp_cmd(name, values)

    def run(self, script: str, *values: Any) -> Any:
        """Run a script in the page, and return what it returns."""
        return self.driver.execute_script(script, *values)

    def all(self, selector: str) -> list[Any]:
        """The visible elements of a selector."""
        found: list[Any] = self.run(_VISIBLE, selector)
        return found

    def one(self, selector: str, text: str = "") -> Any:
        """Wait for the first visible element of a selector that contains a text."""
        return until(lambda: self.run(_VISIBLE_ONE, selector, text))

    def click(self, selector: str, text: str = "") -> None:
        """Click an element; see ``one``. It may be drawn again meanwhile."""
        self._trying(selector, text, lambda found: found.click())

    def type(self, selector: str, *keys: str) -> None:
        """Type into a field."""
        self._trying(selector, "", lambda found: found.send_keys(*keys))

    def choose(self, label: str, value: str) -> None:
        """Choose an option of a drop-down list by the list's label."""
        script = """
            const label = [...document.querySelectorAll("label")].find((e) => e.textContent.trim() === arguments[0]);
            const list = label && document.getElementById(label.htmlFor);
            if (!list) return false;
            list.value = arguments[1];
            list.dispatchEvent(new Event("change", { bubbles: true }));
            return list.value === arguments[1];
        """
        assert until(lambda: self.run(script, label, value))

    def _trying(self, selector: str, text: str, act: Callable[[Any], Any]) -> None:
        from selenium.common import exceptions

        passing = (
            exceptions.StaleElementReferenceException, exceptions.ElementNotInteractableException,
        )  # fmt: skip

        def attempt() -> bool:
            try:
                act(self.one(selector, text))
            except passing:
                return False
            return True

        until(attempt)

    def texts(self, selector: str) -> list[str]:
        """The texts of all elements of a selector, also of those that are scrolled out of view."""
        script = "return [...document.querySelectorAll(arguments[0])].map((e) => e.textContent)"
        found: list[str] = self.run(script, selector)
        return found

    def settled(self) -> None:
        """Wait until no list is being computed."""
        self.one("main")
        until(lambda: not self.all(".working") and not self.all("[aria-busy=true]"))

    def press(self, *keys: str) -> None:
        """Press keys where the focus is."""
        from selenium.webdriver.common.action_chains import ActionChains

        ActionChains(self.driver).send_keys(*keys).perform()

    def problems(self, *expected: str) -> list[str]:
        """Return the errors in the console since the last call, except those with an expected text."""
        lines = [entry["message"] for entry in self.driver.get_log("browser")]
        return [line for line in lines if not any(text in line for text in expected)]

    def check(self, *expected: str) -> None:
        """Check that the console has no errors; see ``problems``."""
        found = self.problems(*expected)
        assert not found, found

    def axe(self) -> list[str]:
        """Return what axe-core finds wrong with the page as it is now."""
        if not self.run("return Boolean(window.axe)"):
            spec = importlib.util.find_spec("axe_core_python")
            assert spec is not None
            assert spec.origin is not None
            self.run(Path(spec.origin).with_name("axe.min.js").read_text(encoding="utf-8"))
        script = "const done = arguments[0]; axe.run().then((found) => done(found.violations))"
        found = self.driver.execute_async_script(script)
        return [f"{v['id']}: {n['html']} {n['failureSummary']}" for v in found for n in v["nodes"]]


class _Pictures(http.server.BaseHTTPRequestHandler):
    """Answers every request for a picture except those whose path contains ``missing``."""

    asked: ClassVar[list[tuple[str, str | None, str | None]]] = []

    def do_GET(self) -> None:
        """Send a picture."""
        self.asked.append((self.path, self.headers["referer"], self.headers["cookie"]))
        there = "missing" not in self.path
        self.send_response(200 if there else 404)
        self.send_header("content-type", "image/png")
        self.send_header("content-length", str(len(_DOT) if there else 0))
        self.end_headers()
        self.wfile.write(_DOT if there else b"")

    def log_message(self, format: str, *args: Any) -> None:
        """Print nothing."""


@dataclass
class Pictures:
    """A server of pictures over HTTPS.

    Attributes:
        port: its port.
        asked: the path, the referrer and the cookies of each request.
    """

    port: int
    asked: list[tuple[str, str | None, str | None]]


@contextlib.contextmanager
def pictures(folder: Path) -> Iterator[Pictures | None]:
    """Serve pictures until the block ends; yield None if openssl cannot make a certificate."""
    if shutil.which("openssl") is None:
        yield None
        return
    key, certificate = folder / "key.pem", folder / "certificate.pem"
    command = "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=images.example -keyout"
    subprocess.run([*command.split(), key, "-out", certificate], check=True, capture_output=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Pictures)
    secure = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    secure.load_cert_chain(certificate, key)
    server.socket = secure.wrap_socket(server.socket, server_side=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield Pictures(server.server_address[1], _Pictures.asked)
    finally:
        server.shutdown()
        server.server_close()
        thread.join(PATIENCE)


@contextlib.contextmanager
def browsing(folder: Path, shown: Pictures | None = None) -> Iterator[Page]:
    """Start the browser with a profile in a folder; skip the tests if there is none.

    Args:
        folder: the folder.
        shown: where the browser finds the host ``PICTURES``; None if it does not exist.
    """
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    if browser is None or driver is None:
        pytest.skip("chromium and chromedriver are not installed")
    webdriver = pytest.importorskip("selenium.webdriver")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    where = "~NOTFOUND" if shown is None else f"127.0.0.1:{shown.port}"
    found = (f"--host-resolver-rules=MAP {PICTURES}:443 {where}", "--ignore-certificate-errors")
    for flag in (*_FLAGS, *found, f"--user-data-dir={folder}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(executable_path=driver)
    opened = webdriver.Chrome(options=options, service=service)
    opened.set_script_timeout(PATIENCE)
    try:
        yield Page(opened)
    finally:
        opened.quit()


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    """A browser for the tests of a module; import it as ``page as page``."""
    with browsing(tmp_path_factory.mktemp("profile")) as found:
        yield found
