"""Compare templates and ways to write values with the list form, in nats on validation.

    python -m benchmarks.accuracy.templates --users 150 --threads 1
    python -m benchmarks.accuracy.templates --movielens ml-100k --forms next_item "next_item, values"

The nats of a target are minus the log of the probability that the model gives it among all items. Lower is
better, and a uniform guess has log(N). Differences are paired. Nothing here looks at test.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from genrec import LanguageModel, Recommender
from genrec.data.behaviors import templates_folder as shipped
from genrec.data.datasets import load, recbole
from genrec.evaluation import bootstrap, evaluator

FORMS: dict[str, dict[str, Any]] = {
    "next_item": {},
    "sentence": {"template": "sentence"},
    "next_item, values": {"values": True},
    "next_item, values, number": {"values": True, "prompts": "{value}"},
    "next_item, values, words": {"values": True, "prompts": "{value} out of {scale}"},
    "sentence, values": {"template": "sentence", "values": True},
    "next_item, as given": {"case": "as_is"},
    "few_shot, 2": {"few_shot": 2},
    "few_shot, 2 near": {"few_shot": 2, "demonstrations": "near"},
    "chat": {"template": "chat"},
}


def verbs(folder: Path, value: str) -> str:
    """Write a folder of prompts in which every value has this form."""
    table = json.loads((shipped() / "en" / "verbs.json").read_text(encoding="utf-8"))
    (folder / "en").mkdir(parents=True)
    changed = {b: {**v, "value": value} for b, v in table.items() if "value" in v}
    (folder / "en" / "verbs.json").write_text(json.dumps(changed), encoding="utf-8")
    return str(folder)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2-135m")
    parser.add_argument("--users", type=int, default=150)
    parser.add_argument("--movielens", type=Path, help="folder of ml-100k.inter and ml-100k.item")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--forms", nargs="+", default=list(FORMS), choices=list(FORMS))
    arguments = parser.parse_args()
    data = recbole(arguments.movielens) if arguments.movielens else load("online_retail_demo")
    cases = evaluator.sample(evaluator.demo_v1(data, "validation"), arguments.users, seed=1)
    model = LanguageModel.load(arguments.model, threads=arguments.threads, log=print)
    base = None
    print(f"{len(cases)} users, {model.describe()}, uniform {np.log(len(data.catalog)):.3f} nats")
    for name in arguments.forms:
        settings = dict(FORMS[name])
        if "prompts" in settings:
            folder = Path(tempfile.mkdtemp()) / "prompts"
            settings["prompts"] = verbs(folder, settings["prompts"])
        recommender = Recommender(data, model, prior="none", **settings)
        nats = np.array(
            [-recommender.score(c.history, [c.target])[0].score for c in cases], dtype=np.float64
        )
        tokens = np.mean([len(recommender.prompt(c.history).ids) for c in cases])
        base = nats if base is None else base
        difference = bootstrap.bootstrap(nats - base)
        print(
            f"{name:26} {bootstrap.bootstrap(nats)}  difference {difference}  {tokens:.0f} tokens",
            flush=True,
        )


if __name__ == "__main__":
    main()
