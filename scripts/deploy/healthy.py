"""Exit with 0 if the service on this machine is healthy, and with 1 otherwise.

python healthy.py [PORT]
"""

from __future__ import annotations

import sys
import urllib.error
import urllib.request

port = sys.argv[1] if len(sys.argv) > 1 else "8000"
try:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/healthz", timeout=5) as answer:
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    sys.exit(error.read().decode())
except OSError as error:
    sys.exit(f"The service does not answer: {error}")
