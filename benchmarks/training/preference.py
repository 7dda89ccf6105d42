"""Train an adapter further with Softmax-DPO against the learned ranking's best wrong items.

    python -m benchmarks.training.preference --run RUN --out DIR --targets 1000 --rate 1e-5
    python -m benchmarks.accuracy.model_feature demo --run DIR --labels 0

For a random sample of train baskets of the demo, the prior with its learned ranking names its best
items for the history before the basket. The basket's first item is preferred to those of them that are not in
the basket. The loss is that of S-DPO (Chen et al. 2024, "On Softmax Direct Preference Optimization
for Recommendation"), where the reference is RUN itself and log-probabilities are those over the titles
of the catalog:

    -log sigmoid(-log sum_d exp(beta * (d's change - the preferred item's change)))

where a change is the log-probability less that under the reference. RUN must not have learned from
validation or test. What the lists gain is measured by the second command, before and after.
"""

from __future__ import annotations

import argparse
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.common import commit
from genrec import Recommender
from genrec.data import protocols
from genrec.data.datasets import load
from genrec.data.events import History
from genrec.files import write_text
from genrec.models.language_model import LanguageModel
from genrec.priors.model_feature import FirstStage
from genrec.runs import Run
from genrec.training import config, examples, lora
from genrec.training.examples import Examples
from genrec.training.objectives import NextItemObjective
from genrec.training.sequences import Row, _Target


def make_rows(recommender: Recommender, arguments: argparse.Namespace) -> tuple[list[Row], Any]:
    """Create a row for each sampled basket: its prompt, with the preferred item as the first target.

    Returns:
        The rows, and the paths to all titles in the trie.
    """
    _, training = config.resolve(
        {"behaviors": ("buy",), "protocol": "demo-v1", "layout": "window", "basket": "first"}
    )
    data, prior = recommender.dataset, recommender.prior
    assert data is not None
    assert prior is not None
    titles = list(recommender.encoder.titles(recommender.catalog))
    paths = examples.build_paths(recommender, training, titles)
    maker = examples.build_row_maker(recommender, data, training, paths, titles)
    shown = examples.mark_shown(data, training)
    wanted = shown & examples.mark_behaviors(data.interactions, training)
    events = data.interactions
    rng = np.random.default_rng(arguments.seed)
    rows: list[Row] = []
    users = rng.permutation(list(events.user_ids)).tolist()
    for user in users * arguments.per_user:
        where = events.events(user)
        places = where.start + np.flatnonzero(shown[where])
        found = list(maker.prompts(user, places, wanted[places])) if len(places) else []
        if len(found) < 2:
            continue
        prompt, item, event = found[int(rng.integers(1, len(found)))]
        unit = events.columns.unit
        before = places[(places < event) & (unit[places] != unit[event])]
        basket = set(events.columns.row[places[unit[places] == unit[event]]].tolist())
        history = History(tuple(events.interaction(i) for i in before.tolist()), user)
        stage = FirstStage.of(prior, history)
        best = sorted(stage.rows.tolist(), key=lambda row: -stage.values[row])
        wrong = [row for row in best if row not in basket and paths.copies[row] > 0]
        chosen = [item, *wrong[: arguments.negatives]]
        if len(chosen) < 2 or len(prompt.ids) > 900:
            continue
        targets = [_Target(len(prompt.ids), (), row, event, False) for row in chosen]
        rows.append(maker._make_row(prompt.ids, targets))
        if len(rows) == arguments.targets:
            break
    return rows, paths


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="the run to start from")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the new run")
    parser.add_argument("--targets", type=int, default=1000)
    parser.add_argument("--per-user", type=int, default=3, help="maximum number of baskets")
    parser.add_argument("--negatives", type=int, default=10)
    parser.add_argument("--beta", type=float, default=1.0)
    parser.add_argument("--rate", type=float, default=1e-5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    print(f"commit {commit()}, {arguments}", flush=True)
    data = protocols.apply_protocol(load("online_retail_demo"), "demo-v1")
    recommender = Recommender.load(
        arguments.run, data, prior="collaborative", prior_events="train", ranker="lambdarank",
        encoder="none", threads=arguments.threads, model_role="explain",
    )  # fmt: skip
    rows, paths = make_rows(recommender, arguments)
    print(f"{len(rows)} baskets, {np.mean([len(r) for r in rows]):.0f} tokens each", flush=True)

    base = LanguageModel.load(Run.read(arguments.run).base_model, threads=arguments.threads)
    model = lora.load_adapter(base.model, arguments.run, Run.read(arguments.run))
    tuned = LanguageModel(model, base.tokenizer)
    weights = [np.ones(len(r.item)) for r in rows]
    some = Examples(rows, weights, [[i] for i in range(len(rows))])
    _, training = config.resolve({})
    objective = NextItemObjective(some, paths, tuned, training, [])

    def logprobs(index: int) -> Tensor:
        """Compute the log-probabilities of a row's targets, (1 + negatives,)."""
        inputs = {k: v.to(tuned.device) for k, v in objective.batch([index]).items()}
        _, losses = objective.losses(tuned.model, inputs)
        return -losses

    tuned.model.eval()
    began = time.process_time()
    with torch.no_grad():
        reference = [logprobs(i) for i in range(len(rows))]
    print(f"reference: {time.process_time() - began:.0f} s of the processor", flush=True)
    own = [p for p in tuned.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(own, lr=arguments.rate, weight_decay=0.0)
    order = np.random.default_rng(arguments.seed).permutation(len(rows))
    steps = len(order) // arguments.batch
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = arguments.rate * min((step + 1) / 10, 1 - step / steps)
        lost, right = 0.0, 0.0
        for index in order[step * arguments.batch : (step + 1) * arguments.batch].tolist():
            now = logprobs(index)
            change = arguments.beta * (now - reference[index])
            gap = torch.logsumexp(change[1:] - change[0], dim=0)
            loss = -torch.nn.functional.logsigmoid(-gap)
            torch.autograd.backward(loss / arguments.batch)
            lost += float(loss.detach()) / arguments.batch
            right += float(now[0] > now[1:].max()) / arguments.batch
        torch.nn.utils.clip_grad_norm_(own, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        print(
            f"step {step + 1} of {steps}: loss {lost:.4f}, preferred first {right:.2f}", flush=True
        )
    shutil.copytree(arguments.run, arguments.out, dirs_exist_ok=True)
    tuned.model.save_pretrained(arguments.out / "adapter")
    write_text(arguments.out / "preference.txt", f"{arguments}\n")
    print(f"{time.process_time() - began:.0f} s of the processor", flush=True)


if __name__ == "__main__":
    main()
