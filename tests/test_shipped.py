"""The run in the package: it loads, fits its card, and is small."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from support.commands import Run as Command

from genrec import Dataset, Recommender, runs
from genrec.errors import ModelError
from genrec.runs import Run

NAME = "online_retail_demo"


def folder() -> Path:
    found = runs.shipped_run(NAME)
    assert found is not None
    return found


def test_it_is_small_and_says_where_it_is_from(demo_data: Dataset) -> None:
    assert sum(p.stat().st_size for p in folder().rglob("*") if p.is_file()) < 10e6
    about = Run.read(folder())
    assert about.finished
    assert about.base_model == "smollm2-135m"
    assert about.training["fit"] == "both"  # never test
    assert about.training["seed"] == 0
    assert about.catalog_hash == demo_data.catalog.hash()
    card = (folder() / "README.md").read_text(encoding="utf-8")
    for part in ("CC BY 4.0", "Apache-2.0", "genrec train", f"{about.targets:,} titles", "HR@10"):
        assert part in card
    config = json.loads((folder() / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == "smollm2-135m"
    assert all(
        v.isfinite().all()
        for v in load_file(folder() / "adapter" / "adapter_model.safetensors").values()
    )


@pytest.mark.model
def test_what_was_fitted_for_it_is_used(demo_data: Dataset) -> None:
    fusing = Recommender.load(NAME, demo_data).fusing
    assert (fusing.prior, fusing.fitted) == ("collaborative", "200 users held out")


def test_names_that_are_no_embedded_datasets() -> None:
    assert runs.shipped_run("zh_mini") is None
    assert runs.shipped_run("../online_retail_demo") is None
    with pytest.raises(ModelError, match="'nothing' is not a run folder"):
        Recommender.load("nothing")


def test_nothing_is_written_into_the_package(run: Command, tmp_path: Path) -> None:
    before = sorted((p.name, p.stat().st_mtime_ns) for p in folder().iterdir())
    code, _, said = run("tune", tmp_path, "--run", NAME)
    assert code == 2
    assert "with --out" in said
    assert sorted((p.name, p.stat().st_mtime_ns) for p in folder().iterdir()) == before


@pytest.mark.model
def test_it_gives_bought_titles_more_than_the_untrained_model(
    demo_data: Dataset, demo_recommender: Recommender
) -> None:
    tuned = Recommender.load(NAME, demo_data, prior_events="train+validation")
    assert tuned.prior is not None
    alone, untrained = (r.with_settings(prior="none") for r in (tuned, demo_recommender))
    events = demo_data.interactions
    more = []
    for user in events.user_ids[100:600:100]:
        history = demo_recommender.history(user, before="test")
        where = events.events(user)
        c = events.columns
        bought = [
            i for i in range(where.start, where.stop) if c.split[i] == 2 and c.behavior[i] == 0
        ]
        items = [demo_data.catalog[int(c.row[i])].item_id for i in bought[:10]]
        if not items:
            continue
        ours, theirs = (
            {r.item_id: r.logprob or 0.0 for r in each.score(history, items)}
            for each in (alone, untrained)
        )
        more.append(sum(ours[i] - theirs[i] for i in set(items)) / len(set(items)))
    assert len(more) >= 3
    assert sum(more) / len(more) > 0.5
