"""Collect what a model writes about real recommendations, for reading. Resumable.

    python -m benchmarks.explanations.written --users 100 --threads 1

For seeded demo-v1 test users it takes the ten best items for the last ten events, seen ones left out
(otherwise the strongest event is often the item itself), with the default sentences. Each line has the
source, the item and the sentence, and for rejected texts what follows the names and the reason. Lines go to
benchmarks/explanations/sentences/written.tsv; users that are in it are not asked again.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from benchmarks.common import ROOT, commit
from genrec import Recommender
from genrec.config import PROTOCOL
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.explain.claims import find_problems
from genrec.explain.sentences import collect_facts
from genrec.explain.styles import load_explain_template

HEADER = "user\tsource\titem\tsentence\trejected"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--users", type=int, default=100)
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--run", default=None, help="a run folder or name, in place of --model")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--out",
        type=Path,
        default=ROOT / "benchmarks" / "explanations" / "sentences" / "written.tsv",
    )
    arguments = parser.parse_args()
    data = load("online_retail_demo")
    options: dict[str, Any] = {  # float32, as the commands that explain have it on a CPU
        "threads": arguments.threads,
        "exclude_seen": True,
        "dtype": "float32",
        "prior_events": "train",
    }
    known = protocols.withhold(data, "test")
    recommender = (
        Recommender(known, arguments.model, **options)
        if arguments.run is None
        else Recommender.load(arguments.run, known, **options)
    )
    template = load_explain_template("reason", "en", None)
    lines = arguments.out.read_text("utf-8").splitlines() if arguments.out.is_file() else [HEADER]
    done = {line.split("\t")[0] for line in lines[1:]}
    for case in protocols.sample(protocols.cases(data, "demo-v1", "test"), arguments.users):
        if case.user_id in done:
            continue
        shown = case.history.latest(10)
        for r in recommender.recommend(shown, 10, options=PROTOCOL, explain=True, evidence="fast"):
            why = r.explanation
            assert why is not None
            row = data.catalog.row(r.item_id)
            facts = collect_facts(template, data.catalog, shown.interactions, row)
            if why.source == "generated" and (wrong := find_problems(why.text, facts)):
                print(f"shipped, but: {why.text} ({'; '.join(wrong)})", flush=True)
            rejected = " || ".join(
                f"{x.text.rpartition(r.title)[2]} ({x.why})" for x in why.rejected
            )
            lines.append("\t".join([case.user_id, why.source, r.item_id, why.text, rejected]))
        arguments.out.write_text("\n".join(lines) + "\n", encoding="utf-8")
    sources = [line.split("\t")[1] for line in lines[1:]]
    print(
        f"{len(sources)} sentences, {sources.count('generated')} generated, "
        f"{sum(line.split(chr(9))[4].count(' || ') + bool(line.split(chr(9))[4]) for line in lines[1:])} "
        f"rejected, commit {commit()}"
    )


if __name__ == "__main__":
    main()
