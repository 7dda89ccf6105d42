"""Compare two ways of making lists with simulated customers, and learn from random lists.

One arm lists the best of eight items first, the other draws at random. The customers buy the first item with a
known rate, so what IPS and SNIPS say about the best lists, from the random ones, can be compared with what the
arm with the best lists measured. The argument is the number of customers.
"""

import random
import re
import subprocess
import sys
import time
from typing import Any

import httpx2

import genrec
from genrec.data.exports import read_export
from genrec.evaluation.logged import evaluate_logged

command = [sys.executable, "-m", "genrec", "demo", "--serve", "--port", "0"]
server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
assert server.stdout is not None
address = next(m[0] for line in server.stdout if (m := re.search(r"http://[\d.]+:\d+", line)))
http = httpx2.Client(base_url=address, timeout=60)


def ask(method: str, path: str, **body: Any) -> Any:
    """Send a request to the service, and return its answer."""
    answer = http.request(method, f"/v1/{path}", json=body or None)
    return answer.raise_for_status().json()


try:
    popular = ask("POST", "recommend", history="", k=8)["recommendations"]
    rates = {r["item_id"]: 0.1 * r["rank"] for r in popular}
    best = {"name": "best", "model_role": "explain", "options": {"allow": [*rates], "k": 1}}
    arms = [best, {**best, "name": "random", "search": "sample"}]
    ask("PUT", "experiments/first", arms=arms, window_hours=0.0005)
    draw = random.Random(0)
    for n in range(int(sys.argv[1]) if len(sys.argv) > 1 else 500):
        shown = ask("POST", "recommend", user_id=f"customer {n}")
        item = shown["recommendations"][0]["item_id"]
        if draw.random() < rates[item]:
            event = {"user_id": f"customer {n}", "item_id": item, "behavior": "buy"}
            ask("POST", "feedback", **event, list_id=shown["list_id"])
    time.sleep(2)  # until the window of the last customer has passed
    results = ask("GET", "experiments/first")["results"]
    for arm in results["arms"]:
        share = "{mean:.3f} [{low:.3f}, {high:.3f}]".format(**arm["per_user"])
        print(f"{arm['arm']:7}{share} of {arm['users']} customers bought")
    verdict = results["comparisons"][0]
    print(f"random minus best: {verdict['difference']:.3f}, decided: {verdict['decided']}")
    data = genrec.datasets.load("online_retail_demo")
    found = evaluate_logged(genrec.Recommender(data, model_role="explain"), read_export(address))
    print(f"best, from random lists: IPS {found.ips}, SNIPS {found.snips}")
finally:
    http.close()
    server.terminate()
    server.communicate()
