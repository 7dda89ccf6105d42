"""Do what a new user does first, with the installed wheel. Called by scripts/wheel-smoke."""

from __future__ import annotations

import importlib.resources
import sys
from pathlib import Path


def main() -> None:
    """Check that genrec is imported from the wheel and recommends."""
    import genrec
    from genrec.data import behaviors
    from genrec.service.page_files import page_files

    home = Path(genrec.__file__).resolve().parent
    assert home.is_relative_to(Path(sys.argv[1]).resolve()), home
    assert behaviors.templates_folder() == home / "templates", behaviors.templates_folder()
    assert (importlib.resources.files("genrec") / "py.typed").is_file()
    assert {"app.js", "style.css", "vendor/preact.LICENSE.txt"} <= page_files().files.keys()
    data = genrec.datasets.load("online_retail_demo")
    recommender = genrec.Recommender(data)
    answer = recommender.recommend("bought: RED RETROSPOT MUG", k=3)
    assert len(answer) == 3
    for item in answer:
        print(item.rank, f"{item.probability:.3f}", item.title)


if __name__ == "__main__":
    main()
