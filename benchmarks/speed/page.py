"""Measure in Chromium how fast the page of the service loads, and how fast it shows a list.

genrec demo --serve --port 8124 &
python -m benchmarks.speed.page --url http://127.0.0.1:8124

loaded   from the start of the navigation until the page shows its controls, with an empty cache and from the
         cache. The list itself waits for the model and is not part of this.
shown    from the moment at which the answer with the lists has been read until the next frame is painted
         after they are in the page.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from typing import Any

from selenium import webdriver

from benchmarks.common import commit

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
        finally:
            driver.quit()
    for name, times in found.items():
        print(f"loaded, {name}: {_describe([ready for ready, _, _ in times])}")
    both = [painted - answer for times in found.values() for _, answer, painted in times]
    print(f"shown: {_describe(both)}")


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
