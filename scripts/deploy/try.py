"""Serve the bundled shop with an installation and its model, without a network, and ask for a list.

python try.py FOLDER MODELS

FOLDER is where scripts/deploy/install put genrec, and MODELS where scripts/deploy/fetch-model put the model. Requests to
other machines would go to a proxy that does not exist.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

NOWHERE = "http://127.0.0.1:9"


def main() -> None:
    """Start the service, ask it, and stop it."""
    folder, models = (Path(a).absolute() for a in sys.argv[1:3])
    with tempfile.TemporaryDirectory() as empty:
        environment = {
            "PATH": os.defpath, "HOME": empty, "TMPDIR": empty, "XDG_CACHE_HOME": str(models),
            "HF_HUB_OFFLINE": "1", "PIP_NO_INDEX": "1", "NO_PROXY": "127.0.0.1",
            **dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE),
        }  # fmt: skip
        command = [str(folder / "bin" / "genrec"), "demo", "--serve", "--port", "0"]
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environment, cwd=empty
        ) as service:
            try:
                ask(service, environment)
            finally:
                service.send_signal(signal.SIGTERM)
                status = service.wait(60)
    if status:
        sys.exit(f"The service ended with {status}. Expected 0.")
    print(f"{folder} serves lists with the model in {models}, without a network.")


def ask(service: subprocess.Popen[str], environment: dict[str, str]) -> None:
    """Ask for the health and for a list."""
    assert service.stdout is not None
    line = service.stdout.readline()
    found = re.search(r"http://127\.0\.0\.1:(\d+)", line)
    if not found:
        sys.exit(f"The service did not start. It printed {line!r}.")
    health = Path(__file__).with_name("healthy.py")
    subprocess.run([sys.executable, str(health), found[1]], check=True, env=environment)
    request = urllib.request.Request(
        f"{found[0]}/v1/recommend",
        json.dumps({"history": "bought: RED RETROSPOT MUG", "k": 3}).encode(),
        {"content-type": "application/json"},
    )
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(request, timeout=120) as answer:
        listed = json.load(answer)
    for each in listed["recommendations"]:
        print(each["rank"], each["title"])
    if len(listed["recommendations"]) != 3 or listed["fallback"] is not None:
        sys.exit(f"Expected three items of the model. The answer is {listed}.")


if __name__ == "__main__":
    main()
