"""Training: losses equal the decoder's, runs resume where they stopped, errors are named."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, field, fields, make_dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from safetensors.torch import load_file
from support import tiny, tiny_runs
from support.amount import FULL
from support.baskets import dataset
from support.commands import Run
from support.tiny_runs import FEW, KINDS, done, doubled, fresh, made, saved

from genrec import Dataset, Recommender, runs
from genrec.data.feedback import WEIGHT
from genrec.data.interactions import Interactions
from genrec.errors import DataError, ModelError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.training import checkpoints, config, examples, objectives, sequences, trainer
from genrec.training.config import Training
from genrec.training.losses import CatalogLoss, Head, make_batch
from genrec.training.title_paths import TitlePaths

place = tiny_runs.place  # the fixture
ROOT = Path(__file__).parents[2]


def scored(
    recommender: Recommender, data: Dataset, settings: Training, packs: list[int] | None = None
) -> tuple[examples.Examples, torch.Tensor, torch.Tensor]:
    found, paths = examples.make_examples(recommender, data, settings)
    titles = list(recommender.encoder.titles(recommender.catalog))
    objective = objectives.NextItemObjective(found, paths, recommender.model, settings, titles)
    inputs = objective.batch(packs or list(range(len(found))))
    if recommender.model.dtype == torch.float64:
        inputs = doubled(inputs)
    with torch.no_grad():
        return found, *objective.losses(recommender.model.model, inputs)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("basket", ["tree", "first", "as_is"])
def test_a_targets_nats_are_what_recommend_says(kind: str, basket: str) -> None:
    data = made(12)
    recommender = Recommender(data, fresh(kind, torch.float64), exclude_seen=False, prior="none")
    settings = Training(basket=basket, pack_tokens=300, vocab_weight=0.0)
    found, nats, _ = scored(recommender, data, settings)
    c = data.interactions.columns
    unit = np.arange(len(c.row)) if basket == "as_is" else c.unit
    events = [int(e) for p in found.packs for i in p for e in found.rows[i].event]
    assert len(events) > 5
    asked: dict[str, Recommender] = {}
    for value, event in zip(nats.tolist(), events, strict=True):
        first = int(np.flatnonzero(unit == unit[event])[0])
        if first > recommender.settings.max_events:
            continue
        known = [data.interactions.interaction(i) for i in range(first)]
        target = data.interactions.interaction(event)
        if target.behavior not in asked:
            asked[target.behavior] = recommender.with_settings(target_behavior=target.behavior)
        (said,) = asked[target.behavior].score(known or "", [str(target.item_id)])
        assert said.logprob == pytest.approx(-value, abs=1e-5)


def test_plain_models_learn_from_windows() -> None:
    data = made(6)
    shared = tiny.language_model()
    model = LanguageModel(shared.model, shared.tokenizer, plain=True)
    recommender = Recommender(data, model, exclude_seen=False, prior="none")
    with pytest.raises(SettingsError, match="cannot process token trees"):
        examples.make_examples(recommender, data, Training(basket="tree"))
    _, slow, _ = scored(recommender, data, Training(layout="window", vocab_weight=0.0))
    fast = Recommender(data, shared, exclude_seen=False, prior="none")
    found, nats, _ = scored(fast, data, Training(layout="window", vocab_weight=0.0))
    assert len(found.packs) < len(found.rows)  # side by side
    order = [i for p in found.packs for i in p]
    assert slow[order].tolist() == pytest.approx(nats.tolist(), abs=1e-4)


@pytest.mark.model
def test_the_real_models_nats_are_what_recommend_says(
    demo_data: Dataset, smollm2: LanguageModel
) -> None:
    recommender = Recommender(demo_data, smollm2, exclude_seen=False, prior="none")
    settings = Training(behaviors=("buy",), vocab_weight=0.0)
    found, nats, _ = scored(recommender, demo_data, settings, [3])
    row = found.rows[found.packs[3][0]]
    user = demo_data.interactions.user_ids[demo_data.interactions.columns.user[row.event[0]]]
    tried = 0
    for target in range(0, len(row.item), max(1, len(row.item) // 5)):
        event = int(row.event[target])
        c = demo_data.interactions.columns
        buys = [i for i in range(event) if c.user[i] == c.user[event] and c.behavior[i] == 0]
        known = [demo_data.interactions.interaction(i) for i in buys if c.unit[i] != c.unit[event]]
        shown = [str(k.item_id) for k in known]
        ids = recommender.prompt(known).ids
        if list(ids) != row.text_before(target):
            continue  # a window that begins later
        tried += 1
        item = demo_data.catalog[int(row.item[target])].item_id
        (said,) = recommender.score(known, [item])
        assert said.logprob == pytest.approx(-float(nats[target]), abs=1e-4), (user, shown)
    assert tried


def test_mates_do_not_change_a_targets_loss() -> None:
    losses = []
    for mate in (1, 4, 5):
        data = dataset([[(0, "buy"), (2, "view")], [(3, "buy"), (mate, "buy"), (6, "buy")]])
        recommender = Recommender(data, fresh(dtype=torch.float64))
        found, nats, whole = scored(recommender, data, Training(basket="tree"))
        events = [int(e) for p in found.packs for i in p for e in found.rows[i].event]
        losses.append([float(x[events.index(e)]) for x in (nats, whole) for e in (2, 4)])
    assert losses[1] == pytest.approx(losses[0], abs=1e-9)
    assert losses[2] == pytest.approx(losses[0], abs=1e-9)


def test_packed_rows_are_as_separate_ones() -> None:
    data = made(5, users=6)
    recommender = Recommender(data, fresh("gemma3", torch.float64))
    together, nats, losses = scored(recommender, data, Training(pack_tokens=2000))
    assert len(together.packs) < len(together.rows) / 2
    paths = TitlePaths(recommender.trie)  # type: ignore[arg-type]
    titles = list(recommender.encoder.titles(recommender.catalog))
    alone = examples.Examples(
        together.rows, together.weights, [[i] for i in range(len(together.rows))]
    )
    objective = objectives.NextItemObjective(alone, paths, recommender.model, Training(), titles)
    found = []
    with torch.no_grad():
        for i in (i for p in together.packs for i in p):
            found.append(objective.losses(recommender.model.model, doubled(objective.batch([i]))))
    assert torch.cat([f[0] for f in found]).tolist() == pytest.approx(nats.tolist(), abs=1e-9)
    assert torch.cat([f[1] for f in found]).tolist() == pytest.approx(losses.tolist(), abs=1e-9)


def test_the_loss_over_the_vocabulary_is_the_models_own() -> None:
    data = made(4)
    recommender = Recommender(data, fresh(dtype=torch.float64))
    settings = Training(basket="tree", vocab_weight=0.5)
    found, nats, losses = scored(recommender, data, settings)
    titles = list(recommender.encoder.titles(data.catalog))
    pairs = [
        (found.rows[i], g) for p in found.packs for i in p for g in range(len(found.rows[i].item))
    ]
    for place, (row, g) in enumerate(pairs):
        before, title = row.text_before(g), list(titles[row.item[g]])
        with torch.no_grad():
            logits = recommender.model.model(torch.tensor([before + title])).logits[0]
        chances = torch.log_softmax(logits[len(before) - 1 : -1], dim=-1)
        plain = -float(chances[range(len(title)), title].sum())
        assert float(losses[place] - nats[place]) == pytest.approx(0.5 * plain, abs=1e-7)


@pytest.mark.parametrize("children", [3, 200])
def test_label_smoothing_spreads_a_share_over_the_children(children: int) -> None:
    from genrec.decoding.trie import TitleTrie
    from genrec.training.sequences import Row

    paths = TitlePaths(TitleTrie([(i + 1, 0) for i in range(children)]))
    one = np.array([1])
    row = Row(one, one - 1, one, one - 1, one - 1, one, np.array([1]), one)
    inputs = doubled(make_batch([[row]], paths, [[np.ones(1)]]))
    logits = torch.randn(1, children + 2, dtype=torch.float64)
    nats, loss = CatalogLoss(paths, 0.3).nats(logits, inputs, Head())
    chances = torch.log_softmax(logits[0, 1 : children + 1], dim=-1)
    assert float(nats) == pytest.approx(-float(chances[1]))
    wanted = -0.7 * float(chances[1]) - 0.3 * float(chances.mean())
    assert float(loss) == pytest.approx(wanted)


def test_weights_of_targets() -> None:
    data = dataset([[(0, "buy")], [(0, "view")], [(1, "buy")]])
    recommender = Recommender(data, fresh())
    rows = examples.make_examples(recommender, data, Training())[0].rows
    half = Training(recency_half_life=1.0)
    found = np.concatenate(examples.weigh_targets(rows, data, half))
    assert (found / found[-1]).tolist() == pytest.approx([0.25, 0.5, 1.0])
    assert found.mean() == pytest.approx(1)
    found = np.concatenate(
        examples.weigh_targets(rows, data, Training(behavior_weights={"view": 3.0}))
    )
    assert (found / found[0]).tolist() == pytest.approx([1, 3, 1])
    found = np.concatenate(examples.weigh_targets(rows, data, Training(popularity_strength=1.0)))
    assert (found / found[0]).tolist() == pytest.approx([1, 1, 1.5])
    events = replace(data.interactions.table, attributes=pa.table({WEIGHT: [None, 2.0, 3.0]}))
    weighted = replace(data, interactions=Interactions(data.catalog, events))
    found = np.concatenate(examples.weigh_targets(rows, weighted, Training()))
    assert (found / found[0]).tolist() == pytest.approx([1, 2, 3])
    for wrong in ({"steal": 1.0}, {"buy": 0.0, "view": 0.0}):
        with pytest.raises(SettingsError, match="behavior"):
            examples.weigh_targets(rows, data, Training(behavior_weights=wrong))


def test_settings_are_checked(tmp_path: Path) -> None:
    for wrong in (
        {"basket": "branch"},
        {"lora_rank": -1},
        {"learning_rate": 0.0},
        {"behaviors": "buy"},
        {"behavior_weights": {"buy": -1}},
        {"quantize": "nf4", "lora_rank": 0},
        {"holdout": 1.0},
        {"layout": "window", "basket": "tree"},
        {"epochs": float("nan")},
    ):
        with pytest.raises(SettingsError, match="Expected"):
            Training(**wrong)
    with pytest.raises(SettingsError, match="Did you mean 'lora_rank'"):
        config.resolve({"lora_rnk": 4})
    file = tmp_path / "a.yaml"
    for text in ("- 1", "a: [", "3"):
        file.write_text(text)
        with pytest.raises(SettingsError, match=r"a\.yaml"):
            config.read(file)
    with pytest.raises(SettingsError, match="Expected lines such as"):
        config.read(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="behaviors='steal' is not in the data"):
        examples.make_examples(
            Recommender(made(3), fresh()), made(3), Training(behaviors=("steal",))
        )
    nothing = dataset([[(0, "buy")]])
    empty = Training(holdout=0.99)
    recommender = Recommender(nothing, fresh())
    if 0 not in examples.choose_kept_rows(7, empty):
        with pytest.raises(DataError, match="There is nothing to train on"):
            examples.make_examples(recommender, nothing, empty)
    for name in ("nothing", "none, nothing"):
        with pytest.raises(SettingsError, match=r"report_to=.*Expected none, or the names"):
            trainer.train(made(3), tmp_path / "run", fresh(), report_to=name, **FEW)
        assert not (tmp_path / "run").exists()
    assert set(config.describe_settings()) == {f.name for f in fields(Training)}


@pytest.mark.parametrize(
    ("fast", "rank", "said"),
    [(True, 4, ""), (True, 0, "is inaccurate"), (False, 4, "slow on this CPU")],
)
def test_half_precision_is_warned_of_where_it_is_bad(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool, rank: int, said: str
) -> None:
    monkeypatch.setattr("genrec.training.trainer.fast_bf16_cpu", lambda: fast)
    lines: list[str] = []
    model = fresh(dtype=torch.bfloat16)
    found = trainer.train(
        made(), tmp_path / "run", model, log=lines.append, **{**FEW, "lora_rank": rank}
    )
    assert found.finished
    warned = [line for line in lines if "half precision" in line]
    assert (len(warned), all(said in line for line in warned)) == (int(bool(said)), True)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "adapter" / "adapter_model.safetensors")


def test_a_run_is_loaded_and_recommends(tmp_path: Path) -> None:
    data, lines = made(8, users=4), list[Any]()
    place = tmp_path / "run"
    model = saved(tmp_path)
    run = trainer.train(
        data.renamed("made"), place, str(model), watch=lines.append, **FEW | {"max_targets": 400}
    )
    assert run.finished
    assert run.targets >= 400
    assert (place / "curves.png").read_bytes().startswith(b"\x89PNG")
    report = (place / "report.md").read_text()
    assert "a uniform guess among 7 items has a loss of 1.946" in report
    assert "- `max_targets: 400`" in report
    nats = [line["nats"] for line in lines]
    assert nats[-1] < nats[0]
    recommender = Recommender.load(place, data, exclude_seen=False, prior="none")
    assert recommender.run == run
    answer = recommender.recommend("bought: red mug")
    assert sum(r.probability for r in recommender.score("")) == pytest.approx(1, abs=1e-4)
    alone = Recommender.load(place, search="exact", exclude_seen=False, prior="none").recommend(
        "bought: red mug"
    )
    assert [r.item_id for r in alone] == [r.item_id for r in answer]
    base = Recommender(data, str(model), exclude_seen=False, prior="none").recommend(
        "bought: red mug"
    )
    assert base[0].logprob != pytest.approx(answer[0].logprob, abs=1e-3)
    with pytest.raises(ModelError, match="title format"):
        Recommender.load(place, data, case="lower")
    with pytest.raises(ModelError, match="prompt template 'next_item'"):
        Recommender.load(place, data, template="sentence")
    values = json.loads((place / "run.json").read_text())
    (place / "run.json").write_text(json.dumps(values | {"base_fingerprint": "0" * 64}))
    with pytest.raises(ModelError, match="base model"):
        Recommender.load(place, data)
    for text, wanted in (("{", "damaged"), ('{"format_version": 9}', "format_version 9")):
        (place / "run.json").write_text(text)
        with pytest.raises(ModelError, match=wanted):
            Recommender.load(place, data)
    (place / "run.json").unlink()
    with pytest.raises(ModelError, match=r"not a run folder.*--resume"):
        Recommender.load(place, data)
    with pytest.raises(ModelError, match="not a run folder"):
        Recommender.load(tmp_path, data)


@pytest.mark.parametrize("objective", ["next", "pointwise"])
def test_data_without_a_validation_part_is_learned_from(
    tmp_path: Path, run: Run, objective: str
) -> None:
    ids = [i.item_id for i in made(3).catalog]
    rows = [f"u{n % 6},{ids[n % 7]},{n},buy,{'test' if n > 48 else 'train'}" for n in range(55)]
    lines = "\n".join(["user_id,item_id,timestamp,behavior,split", *rows])
    (tmp_path / "e.csv").write_text(f"{lines}\n")
    names = "".join(f"{i.item_id},{i.title}\n" for i in made(3).catalog)
    (tmp_path / "i.csv").write_text(f"item_id,title\n{names}")
    data, _ = Dataset.prepare(tmp_path / "i.csv", tmp_path / "e.csv")
    assert len(data.catalog) == 7
    data.save(tmp_path / "data")
    settings = {**FEW, "eval_users": 3, "objective": objective}
    for n in range(2):  # also a run that goes on
        said: list[str] = []
        place = str(saved(tmp_path)) if not n else str(tmp_path / "tiny-llama")
        found = trainer.train(
            data, tmp_path / "run", place, log=said.append, resume=bool(n), **settings
        )
        assert found.finished
        assert sum("no validation part" in line for line in said) == 1
    if objective == "pointwise":
        return
    asked = [
        "evaluate",
        str(tmp_path / "data"),
        "--run",
        str(tmp_path / "run"),
        "--against",
        "none",
    ]
    code, _, shown = run(*asked)
    assert code == 0
    assert "was trained on other events" not in shown
    code, _, shown = run(*asked, "--protocol", "last-unit")
    assert code == 0
    assert "was trained on other events or another split" in shown


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_an_adapter_merged_is_as_the_adapter(tmp_path: Path, kind: str) -> None:
    data = made(8, users=2)
    model = fresh(kind)
    folder = saved(tmp_path, kind)
    trainer.train(data, tmp_path / "run", model, **FEW)
    values = json.loads((tmp_path / "run" / "run.json").read_text())
    (tmp_path / "run" / "run.json").write_text(json.dumps(values | {"base_model": str(folder)}))
    merged = Recommender.load(tmp_path / "run", data, dtype="float32").score("bought: red mug")
    apart = Recommender(data, LanguageModel(model.model, model.tokenizer), prior="none").score(
        "bought: red mug"
    )
    plain = Recommender(data, fresh(kind), prior="none").score("bought: red mug")
    assert [r.logprob for r in merged] == pytest.approx([r.logprob for r in apart], abs=1e-4)
    assert [r.logprob for r in merged] != pytest.approx([r.logprob for r in plain], abs=1e-2)


def test_a_merged_model_is_one_for_any_server(place: Path, run: Run) -> None:
    done(run, train(place, "m", "--max-targets", "60"))
    merge = ["merge", str(place / "m"), "--out", str(place / "merged")]
    assert "trained with vocab_weight 0" in done(run, merge)
    data = Dataset.load(place / "data")
    exact: dict[str, Any] = {"dtype": "float32", "prior": "none"}
    ours = Recommender.load(place / "m", data, **exact).score("bought: red mug")
    theirs = Recommender(data, str(place / "merged"), **exact).score("bought: red mug")
    assert [r.logprob for r in ours] == pytest.approx([r.logprob for r in theirs], abs=1e-5)
    code, _, said = run(*merge)
    assert code == SettingsError.exit_code
    assert "is not empty" in said


@pytest.mark.parametrize("kind", ["nf4", "int8"])
def test_quantised_weights_are_trained_on_and_used(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("bitsandbytes")
    data, base = made(8, users=4), saved(tmp_path)
    run = trainer.train(data, tmp_path / "run", str(base), **FEW | {"quantize": kind})
    assert run.finished
    tuned = weights_of(tmp_path / "run")
    assert all(float(v.abs().max()) > 0 for k, v in tuned.items() if "lora_B" in k)
    lm = LanguageModel.of_run(tmp_path / "run", quantize=kind, dtype="float32", device="cpu")
    assert f"weights in {kind}" in lm.describe()
    answer = Recommender(data, lm, prior="none").score("bought: red mug")
    options: dict[str, Any] = {"quantize": kind, "dtype": "float32", "device": "cpu"}
    loaded = Recommender.load(tmp_path / "run", data, **options).score("bought: red mug")
    assert [r.logprob for r in loaded] == [r.logprob for r in answer]
    plain = [Recommender(data, str(base), **options | {"quantize": q}) for q in (kind, "none")]
    said = [[r.logprob for r in p.score("bought: red mug")] for p in plain]
    assert said[0] != said[1]
    assert said[0] == pytest.approx(said[1], abs=0.5)
    assert sum(r.probability for r in answer) == pytest.approx(1, abs=1e-3)
    full = Recommender.load(tmp_path / "run", data, dtype="float32").score("bought: red mug")
    bare = Recommender(data, str(base), **options).score("bought: red mug")
    ours, whole, untuned = ({r.item_id: r.logprob for r in a} for a in (answer, full, bare))

    def apart(one: dict[str, Any], other: dict[str, Any]) -> float:
        return float(np.mean([abs(one[i] - other[i]) for i in one]))

    assert apart(ours, whole) < apart(ours, untuned) / 2  # the adapter says more than the bits
    with pytest.raises(ModelError, match="cannot be saved"):
        lm.save(tmp_path / "merged")
    with pytest.raises(SettingsError, match="Unknown value quantize='int2'"):
        LanguageModel.load(str(base), quantize="int2")


@pytest.mark.parametrize("kind", ["int8", "nf4"])
def test_gradients_flow_through_quantised_weights_after_a_pass_without(
    tmp_path: Path, kind: str
) -> None:
    pytest.importorskip("bitsandbytes")
    lm = LanguageModel.load(str(saved(tmp_path)), quantize=kind, dtype="float32", device="cpu")
    embed = lm.model.get_input_embeddings()
    ids = torch.tensor([[5, 6, 7]])

    def gradient() -> torch.Tensor:
        states = embed(ids).detach().requires_grad_(True)
        lm.model(inputs_embeds=states).logits.pow(2).sum().backward()
        found: torch.Tensor | None = states.grad
        assert found is not None
        return found

    before = gradient()
    with torch.no_grad():
        lm.model(ids)
    assert torch.allclose(gradient(), before, atol=1e-6)
    assert float(before.abs().max()) > 0


def test_all_weights_can_be_trained(tmp_path: Path) -> None:
    data = made(6, users=2)
    trainer.train(data, tmp_path / "run", str(saved(tmp_path)), **FEW | {"lora_rank": 0})
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()
    assert len(Recommender.load(tmp_path / "run", data).recommend("")) == 7


def train(folder: Path, name: str, *options: str) -> list[str]:
    """Return the arguments of `genrec` for a small run."""
    return [
        "train", str(folder / "data"), "--out", str(folder / name),
        "--model", str(folder / "tiny-llama"), "--max-targets", "400", "--eval-users", "2",
        "--eval-every", "150", "--pack-tokens", "128", "--lora-dropout", "0.1", "--log-steps", "1",
        "--save-steps", "3", "--threads", "1", "--device", "cpu", "--dtype", "float32", *options,
    ]  # fmt: skip


def test_quantised_weights_answer(place: Path, run: Run) -> None:
    pytest.importorskip("bitsandbytes")
    asked = ["recommend", str(place / "data"), "--model", str(place / "tiny-llama"), "--history"]
    asked += ["bought: red mug", "-k", "3", "--prior", "none", "--dtype", "float32", "--json"]
    plain = json.loads(done(run, asked))["recommendations"]
    small = json.loads(done(run, [*asked, "--quantize", "nf4"]))["recommendations"]
    assert len(small) == len(plain) == 3
    assert [i["logprob"] for i in small] != [i["logprob"] for i in plain]
    code, _, said = run(*asked, "--quantize", "int2")
    assert code == SettingsError.exit_code
    assert "Expected 'none', 'int8' or 'nf4'" in said


def test_killed_and_resumed_is_as_never_stopped(place: Path, run: Run) -> None:
    done(run, train(place, "whole"))
    command = [sys.executable, "-m", "genrec", *train(place, "killed")]
    killed = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    log = place / "killed" / "log.jsonl"
    for _ in range(1200):
        time.sleep(0.05)
        if log.is_file() and '"step": 8' in log.read_text():
            break
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    assert not (place / "killed" / "run.json").exists()
    (step,) = [p.name for p in runs.list_checkpoints(place / "killed")][-1:]
    assert step in {"step-6", "step-9"}
    done(run, train(place, "killed", "--resume"))
    whole, resumed = weights_of(place / "whole"), weights_of(place / "killed")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[k], resumed[k]) for k in whole)
    final = [runs.list_checkpoints(place / n)[-1] for n in ("whole", "killed")]
    assert final[0].name == final[1].name
    states = [load_file(p / "optimizer.safetensors") for p in final]
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
    run_of = [runs.Run.read(place / n) for n in ("whole", "killed")]
    assert run_of[0].targets == run_of[1].targets
    assert run_of[0].metrics == run_of[1].metrics
    assert not list(place.rglob("*.bin")) + list(place.rglob("*.pt")) + list(place.rglob("*.pth"))
    lines = log.read_text()
    for lost in (False, True):  # a finished run learns no more, also where its end was cut off
        if lost:
            (place / "killed" / "run.json").unlink()
        code, _, said = run(*train(place, "killed", "--resume"))
        assert code == 0
        assert "nothing left to train" in said
        resumed = weights_of(place / "killed")
        assert all(torch.equal(whole[k], resumed[k]) for k in whole)
        assert runs.Run.read(place / "killed") == run_of[1]
        assert log.read_text() == lines


def test_a_run_is_not_written_over(place: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "letter.txt").write_text("dear")
    data, model = made(3), fresh()
    with pytest.raises(SettingsError, match="is not empty"):
        trainer.train(data, tmp_path / "other", model)
    with pytest.raises(SettingsError, match="contains no run to resume"):
        trainer.train(data, tmp_path / "other", model, resume=True)
    trainer.train(data, tmp_path / "run", model, **FEW)
    with pytest.raises(SettingsError, match=r"lora_rank=2 \(it was 8\)"):
        trainer.train(data, tmp_path / "run", fresh(), resume=True, **FEW | {"lora_rank": 2})


def test_a_run_goes_on_only_with_what_it_learns(tmp_path: Path) -> None:
    data, place, options = made(6, users=2), tmp_path / "run", FEW | {"log_steps": 1}
    trainer.train(data, place, fresh(), max_minutes=0.0, **options)
    events = data.interactions
    others: dict[str, tuple[Dataset, LanguageModel, dict[str, Any]]] = {
        "the training examples": (data, fresh(), {"new": np.arange(len(events)) < 3}),
        "the base model": (data, fresh("qwen3"), {}),
    }
    items = [
        replace(i, title=i.title + " again") if not n else i for n, i in enumerate(data.catalog)
    ]
    others["the catalog"] = (replace(data, catalog=type(data.catalog)(items)), fresh(), {})
    for wanted, (other, model, more) in others.items():
        with pytest.raises(SettingsError, match=f"has changed since.*{wanted}"):
            trainer.train(other, place, model, resume=True, **more, **options)
    log = place / "log.jsonl"
    step = json.loads(log.read_text().splitlines()[-1])["step"]
    with log.open("a") as stream:  # steps after the checkpoint, and a line that a kill cut off
        stream.write(json.dumps({"step": step + 1, "nats": 99.0}) + '\n{"step": ')
    assert trainer.train(data, place, fresh(), resume=True, **options).finished
    steps = [json.loads(line) for line in log.read_text().splitlines()]
    assert [s["step"] for s in steps] == list(range(1, len(steps) + 1))
    assert all(s["nats"] < 99 for s in steps)


def renamed(cls: type, name: str) -> Any:
    """Make the same dataclass under another name, with a field that was added later."""
    same = "__eq__" in vars(cls)
    later = [("later", "int", field(default=0))]
    return make_dataclass(name, later, bases=(cls,), frozen=True, slots=True, eq=same)


def test_a_run_can_be_resumed_by_a_later_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, place = made(6, users=2), tmp_path / "run"
    trainer.train(data, place, fresh(), max_minutes=0.0, **FEW)
    older = [x for x in (place / "training.yaml").read_text().splitlines() if "smoothing" not in x]
    (place / "training.yaml").write_text("\n".join(older))
    (kept,) = runs.list_checkpoints(place)
    state = json.loads((kept / "state.json").read_text())
    del state["learned"]["the prompt template"]
    (kept / "state.json").write_text(json.dumps(state))
    later = renamed(Training, "Recipe")
    for module in (config, trainer):
        monkeypatch.setattr(module, "Training", later)
    monkeypatch.setattr(sequences, "Row", renamed(sequences.Row, "Tree"))
    with pytest.raises(SettingsError, match=r"later=1 \(it was 0\)"):
        trainer.train(data, place, fresh(), resume=True, later=1, **FEW)
    with pytest.raises(SettingsError, match=r"label_smoothing=0.1 \(it was 0.0\)"):
        trainer.train(data, place, fresh(), resume=True, label_smoothing=0.1, **FEW)
    assert trainer.train(data, place, fresh(), resume=True, **FEW).finished
    values = json.loads((place / "run.json").read_text())
    del values["metrics"]
    (place / "run.json").write_text(json.dumps(values))
    assert runs.Run.read(place).training["later"] == 0


def test_a_checkpoints_hash_of_the_examples_stays_the_same() -> None:
    arrays = [np.arange(3) + i for i in range(8)]
    row = sequences.Row(*arrays)
    some = examples.Examples([row, row], [np.ones(3), np.zeros(3)], [[1, 0]])
    assert some.fingerprint() == "26acce66fa9e15fa3c47f7d6b8e9d762b7650d1d2520c06fa1c0b09837f70714"
    tree = renamed(sequences.Row, "Tree")(*arrays, later=1)
    assert replace(some, rows=[tree, tree]).fingerprint() == some.fingerprint()


def test_the_shipped_runs_settings_are_still_known() -> None:
    folder = runs.shipped_run("online_retail_demo")
    assert folder is not None
    path = folder / runs.SETTINGS
    settings, training = config.resolve(config.read(path))
    later = {
        "tune_users": 100,
        "holdout_users": 0.0,
        "dp_epsilon": None,
        "dp_delta": None,
        "dp_clip": 1.0,
        "dp_users": 64,
        "dp_tokens": 128,
        "lora_layers": None,
    }  # fmt: skip  (were not known then)
    assert {**later, **runs.Run.read(folder).training} == json.loads(json.dumps(asdict(training)))
    trainer._check_settings({**asdict(settings), **asdict(training)}, path)
    with pytest.raises(SettingsError, match="lora_rank=4"):
        trainer._check_settings({**asdict(settings), **asdict(training), "lora_rank": 4}, path)


def test_a_loss_that_is_no_number_leaves_the_last_checkpoint(tmp_path: Path) -> None:
    data, model = made(8, users=4), fresh()
    steps = []

    def poison(line: Any) -> None:
        steps.append(line["step"])
        if line["step"] == 4:
            with torch.no_grad():
                model.model.get_input_embeddings().weight.fill_(float("nan"))

    options = FEW | {"log_steps": 1, "save_steps": 2, "max_targets": 400}
    with pytest.raises(ModelError, match="loss is nan at step 5"):
        trainer.train(data, tmp_path / "run", model, watch=poison, **options)
    (*_, last) = runs.list_checkpoints(tmp_path / "run")
    assert last.name == "step-4"
    assert all(
        torch.isfinite(v).all() for v in load_file(last / "adapter_model.safetensors").values()
    )
    assert not (tmp_path / "run" / "run.json").exists()
    run = trainer.train(data, tmp_path / "run", fresh(), resume=True, **options)
    assert run.finished


def test_a_full_disk_leaves_the_last_checkpoint(
    place: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = checkpoints.Checkpoints.save

    def save(self: checkpoints.Checkpoints, state: Any, *rest: Any) -> None:
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        if state.global_step > 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
        try:
            first(self, state, *rest)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)

    monkeypatch.setattr(checkpoints.Checkpoints, "save", save)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        code, _, said = run(*train(place, "full"))
    finally:
        signal.signal(signal.SIGXFSZ, before)
    assert code == ModelError.exit_code, said[-2000:]
    assert "Cannot write the checkpoint at step 6" in said
    assert "Free up disk space" in said
    assert [p.name for p in runs.list_checkpoints(place / "full")] == ["step-3"]


def test_time_that_is_up_stops_with_a_run_that_can_go_on(tmp_path: Path) -> None:
    data = made(8, users=4)
    options = FEW | {"max_targets": 200}
    run = trainer.train(data, tmp_path / "run", fresh(), max_minutes=0.0, **options)
    assert not run.finished
    assert run.targets < 60
    assert (tmp_path / "run" / "adapter").is_dir()
    run = trainer.train(data, tmp_path / "run", fresh(), resume=True, **options)
    assert run.finished
    assert run.targets >= 150


FSDP = [
    "--use_fsdp", "--fsdp_version", "2", "--fsdp_auto_wrap_policy", "TRANSFORMER_BASED_WRAP",
    "--fsdp_state_dict_type", "FULL_STATE_DICT", "--fsdp_reshard_after_forward", "true",
]  # fmt: skip


def launched(place: Path, name: str, *options: str, sharded: bool = False) -> str:
    """Train with two processes, and return what they print."""
    kind = FSDP if sharded else ["--multi_gpu"]
    script = ROOT / ("tests/support/sharded.py" if sharded else "scripts/train.py")
    launch = [
        sys.executable, "-m", "accelerate.commands.launch", *kind, "--num_processes", "2",
        "--num_machines", "1", "--main_process_port", "29611", "--mixed_precision", "no", "--dynamo_backend", "no",
        "--num_cpu_threads_per_process", "1", str(script), *train(place, name, *options)[1:],
    ]  # fmt: skip
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run(launch, capture_output=True, env=environment, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_two_processes_are_as_one_with_the_doubled_batch(place: Path, run: Run) -> None:
    few = ["--max-targets", "120", "--lora-dropout", "0", "--batch-size"]
    launched(place, "two", *few, "1")
    done(run, train(place, "one", *few, "2"))
    two, one_ = weights_of(place / "two"), weights_of(place / "one")
    assert max(float((two[k] - one_[k]).abs().max()) for k in two) < 1e-5
    assert runs.Run.read(place / "two").targets == runs.Run.read(place / "one").targets
    last = runs.list_checkpoints(place / "two")[-1]
    assert set(load_file(last / "rng.safetensors")) == {"cpu.0", "cpu.1"}


@pytest.mark.slow
def test_two_processes_that_go_on_are_as_never_stopped(place: Path) -> None:
    few = ["--max-targets", "120", "--lora-dropout", "0.2", "--batch-size", "1"]
    launched(place, "both", *few)
    begun = place / "begun"
    first = runs.list_checkpoints(place / "both")[0]
    shutil.copytree(first, begun / runs.CHECKPOINTS / first.name)
    for name in (runs.SETTINGS, runs.LOG):
        shutil.copy(place / "both" / name, begun / name)
    launched(place, "begun", *few, "--resume")
    whole, again = weights_of(place / "both"), weights_of(begun)
    assert all(torch.equal(whole[k], again[k]) for k in whole)


@pytest.mark.slow
@pytest.mark.skipif(not FULL, reason="starts six processes; only with scripts/test --full")
@pytest.mark.parametrize("weights", ["dora", "all"])
def test_sharded_weights_learn_and_go_on_as_whole_ones(place: Path, run: Run, weights: str) -> None:
    kind = ["--dora"] if weights == "dora" else ["--lora-rank", "0", "--learning-rate", "1e-3"]
    few = [*kind, "--max-targets", "120", "--lora-dropout", "0", "--batch-size"]
    out, name = f"{weights}-sharded", "adapter" if weights != "all" else "model"
    said = launched(place, out, *few, "1", sharded=True)
    assert said.count("Trained on ") == 1
    done(run, train(place, f"{weights}-one", *few, "2", "--eval-users", "0"))

    def of(folder: str) -> dict[str, torch.Tensor]:
        (path,) = (place / folder / name).glob("*model.safetensors")
        return load_file(path)

    two, one_ = of(out), of(f"{weights}-one")
    assert two.keys() == one_.keys()
    assert max(float((two[k] - one_[k]).abs().max()) for k in two) < 1e-5
    first, *_, last = runs.list_checkpoints(place / out)
    begun = place / f"{weights}-begun"
    shutil.copytree(first, begun / runs.CHECKPOINTS / first.name)
    for file in (runs.SETTINGS, runs.LOG):
        shutil.copy(place / out / file, begun / file)
    launched(place, begun.name, *few, "1", "--resume", sharded=True)
    again = of(begun.name)
    assert all(torch.equal(two[k], again[k]) for k in two)
    states = [
        load_file(p / "optimizer.safetensors") for p in (last, runs.list_checkpoints(begun)[-1])
    ]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])
