"""Measure in Chromium how fast the page of the service loads, and how fast it shows a list.

genrec demo --serve --port 8124 &
python -m benchmarks.speed.page --url http://127.0.0.1:8124

loaded   from the start of the navigation until the page shows its controls, with an empty cache and from the
         cache. The list itself waits for the model and is not part of this.
shown    from the moment at which the answer with the lists has been read until the next frame is painted
         after they are in the page.
lit      from the moment at which a card is focused until the frame with the events that speak for it by counting
         is painted, and until that with the checked sentence, both for cards that were not asked for in advance.
word     from the request to explain an item until its first word, and until the checked sentence.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from selenium import webdriver

import genrec
from benchmarks.common import commit
from genrec.explain.drafts import Draft

_FLAGS = (
    "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
)  # fmt: skip
_WATCH = """
    const first = (name) => performance.getEntriesByName(name)[0]?.startTime;
    new MutationObserver(() => {
        if (document.querySelector(".controls") && !first("ready")) performance.mark("ready");
    }).observe(document, { childList: true, subtree: true });
    new PerformanceObserver((list) => {
        if (list.getEntriesByName("lists shown").length)
            requestAnimationFrame(() => setTimeout(() => performance.mark("painted")));
    }).observe({ entryTypes: ["mark"] });
"""
_POINT = """
    const done = arguments[arguments.length - 1];
    const rail = document.querySelectorAll(".rail .card a");
    const began = performance.now();
    const found = {};
    const painted = (name) => requestAnimationFrame(() => setTimeout(() => {
        found[name] ??= performance.now() - began;
        if (name === "whole") { watch.disconnect(); done([found.counted ?? null, found.whole]); }
    }));
    const watch = new PerformanceObserver((list) => list.getEntries().forEach((entry) => {
        if (entry.startTime >= began && entry.name === "reason counted") painted("counted");
        if (entry.startTime >= began && entry.name === "reason whole") painted("whole");
    }));
    watch.observe({ entryTypes: ["mark"] });
    rail[arguments[0]].focus();
"""
_READ = """
    const first = (name) => performance.getEntriesByName(name)[0]?.startTime;
    return [first("ready"), first("answer /v1/recommend"), first("painted")];
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--cards", type=int, default=4, help="the number of cards to point at")
    arguments = parser.parse_args()
    print(f"commit {commit()}, {arguments}")
    options = webdriver.ChromeOptions()
    options.binary_location = "/usr/bin/chromium"
    with tempfile.TemporaryDirectory() as profile:
        for flag in (*_FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path="/usr/bin/chromedriver")
        driver = webdriver.Chrome(options=options, service=service)
        try:
            driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", {"source": _WATCH})
            found = {name: [_load(driver, arguments.url, name == "empty cache")
                            for _ in range(arguments.times)] for name in ("empty cache", "cached")}  # fmt: skip
            lit = _point(driver, arguments.url, arguments.cards)
        finally:
            driver.quit()
    words = _explain(arguments.url, arguments.cards)
    for name, times in found.items():
        print(f"loaded, {name}: {_describe([ready for ready, _, _ in times])}")
    both = [painted - answer for times in found.values() for _, answer, painted in times]
    print(f"shown: {_describe(both)}")
    for name, values in (("by counting", lit[0]), ("checked sentence", lit[1])):
        print(f"lit, {name}: {_describe(values) if values else 'not seen'}")
    for name, values in (("first", words[0]), ("checked sentence", words[1])):
        print(f"word, {name}: {_describe(values) if values else 'the model wrote none'}")


def _point(driver: Any, url: str, cards: int) -> tuple[list[float], list[float]]:
    """Point at cards, last ones first, and return the milliseconds until both reasons were painted."""
    driver.set_script_timeout(600)
    _load(driver, url, False)
    counted, whole = [], []
    for card in range(cards + 3, 3, -1):  # the first three may be known
        soon, late = driver.execute_async_script(_POINT, card)
        counted += [] if soon is None else [soon]
        whole.append(late)
    return counted, whole


def _explain(url: str, items: int) -> tuple[list[float], list[float]]:
    """Ask for explanations as streams, and return the milliseconds until two of their messages."""
    first, checked = [], []
    with genrec.Client(url, timeout=600) as client:
        user = next(client.users())
        for item in client.recommend(user_id=user, k=items, show="new", impression=False):
            began = time.perf_counter()
            heard: list[tuple[float, bool]] = []

            def told(draft: Draft, heard: list[tuple[float, bool]] = heard) -> None:
                heard.append((time.perf_counter(), draft.checked))

            client.explain(None, item.item_id, user_id=user, show="new", evidence="fast", told=told)
            if len(heard) > 1:
                first.append((heard[0][0] - began) * 1000)
                checked.append((heard[-1][0] - began) * 1000)
    return first, checked


def _load(driver: Any, url: str, empty: bool) -> tuple[float, float, float]:
    """Load the page, and return the times of its marks in milliseconds after the navigation began."""
    driver.get("about:blank")
    if empty:
        driver.execute_cdp_cmd("Network.clearBrowserCache", {})
    driver.get(url)
    while True:
        ready, answer, painted = driver.execute_script(_READ)
        if painted is not None:
            return ready, answer, painted
        time.sleep(0.1)


def _describe(values: Sequence[float]) -> str:
    return f"median {statistics.median(values):.0f} ms, longest {max(values):.0f} ms"


if __name__ == "__main__":
    main()
