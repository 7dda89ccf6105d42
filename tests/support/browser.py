"""Pictures of pages in a real browser."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def shares(picture: Path) -> tuple[float, float]:
    """The shares of almost white and almost black pixels."""
    grey = np.asarray(Image.open(picture).convert("L"))
    return float((grey > 235).mean()), float((grey < 40).mean())


def screenshot(page: Path, picture: Path, *, dark: bool) -> Path:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        pytest.skip("chromium is not installed")
    flags = [
        "--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
        f"--user-data-dir={picture.parent / 'profile'}", "--window-size=500,1600",
        f"--blink-settings=preferredColorScheme={0 if dark else 1}", f"--screenshot={picture}",
    ]  # fmt: skip
    subprocess.run([browser, *flags, page.as_uri()], check=True, capture_output=True, timeout=120)
    return picture
