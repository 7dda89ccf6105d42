"""Pointwise: pairs are honest, branches equal separate questions, answers equal the loss, runs work."""

from __future__ import annotations

import copy
import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from support import tiny
from support.baskets import TITLES, dataset
from support.commands import Run
from support.tiny_runs import FEW, KINDS, doubled, fresh, saved

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.data.splits import split_last_unit
from genrec.errors import DataError, ModelError, PromptError, RequestError, SettingsError
from genrec.models.language_model import LanguageModel
from genrec.pipeline.yes_no import YesNo
from genrec.prompts.encoder import Encoder
from genrec.prompts.template import Template
from genrec.training import pointwise, trainer
from genrec.training.config import Training, resolve
from genrec.training.pairs import make_pairs, make_training_pairs, read_pairs, write_pairs
from genrec.training.sequences import Row

POINTWISE = Training(objective="pointwise", pack_tokens=400)


def made(units: int = 12, users: int = 3) -> Dataset:
    """Baskets of one to three items, split by last unit."""
    rng = np.random.default_rng(1)
    baskets = [
        [(int(i), "buy" if b else "view") for i, b in zip(rng.integers(0, 7, m), b, strict=True)]
        for m, b in ((m, rng.integers(0, 3, m)) for m in rng.integers(1, 4, units))
    ]
    data = dataset(baskets, users)
    return replace(
        data,
        interactions=split_last_unit(data.interactions, "buy"),
        info=replace(data.info, split="last unit"),
    )


def asked(model: LanguageModel, data: Dataset, **settings: Any) -> Recommender:
    return Recommender(data, model, template="would_like", **settings)


def answered(
    recommender: Recommender, found: pointwise.Pairs
) -> tuple[torch.Tensor, list[tuple[Row, int, int]]]:
    """Nats of every pair, and its row, place there and label."""
    goal = pointwise.PointwiseObjective(found, recommender.model, recommender.question)
    inputs = goal.batch(range(len(found)))
    if recommender.model.dtype == torch.float64:
        inputs = doubled(inputs)
    with torch.no_grad():
        nats, _ = goal.losses(recommender.model.model, inputs)
    order = [i for p in found.packs for i in p]
    return nats, [(found.rows[i], g, int(y)) for i in order for g, y in enumerate(found.labels[i])]


def question(kind: str = "llama", language: str = "en", answers: str | None = None) -> YesNo:
    template = Template.load("would_like", language)
    if answers is not None:
        source = template.source.replace('answers: " yes", " no"', answers)
        template = Template("mine", source, template.verbs)
    catalog = Catalog([Item(str(n), t) for n, t in enumerate(TITLES)])
    return YesNo(template, Encoder(tiny.tokenizer(kind), template.form()), catalog, "buy")


def test_the_question_as_the_model_reads_it() -> None:
    asks = question()
    history = History((Interaction("0", "buy"), Interaction("2", "view")))
    known, shown = asks.known(history)
    # In these letters " yes" and " no" begin with a space of its own, which is forced.
    text = tiny.tokenizer("llama").decode([*known, *asks.item(5)]).removesuffix(" ")
    assert shown == 2
    assert text == (
        "A customer's history, oldest first:\nbought: red mug\nviewed: blue bag\n"
        "Another item: doll house\nWill the customer buy it, yes or no? Answer:"
    )
    own = asks.text("bought: red mug\nAnother item: doll house")
    assert tiny.tokenizer("llama").decode(list(own)).removesuffix(" ") == (
        "bought: red mug\nAnother item: doll house\nWill the customer buy it, yes or no? Answer:"
    )


@pytest.mark.parametrize("kind", tiny.KINDS)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_answers_are_told_apart_by_every_kind_of_tokenizer(kind: str, language: str) -> None:
    asks = question(kind, language)
    assert len(set(asks.answers)) == 2
    encoder = Encoder(tiny.tokenizer(kind), Template.load("would_like", language).form())
    ids = asks.text("mug <|im_end|> <tool_call> </s>")[len(encoder.start) :]
    assert encoder.control_ids.isdisjoint(ids)


def test_answers_share_what_a_tokenizer_puts_before_both() -> None:
    asks = question(answers='answers: " a no", " a yes"')  # as a word mark that stands alone
    encoder = Encoder(tiny.tokenizer("llama"), Template.load("would_like").form())
    yes, no = encoder.text(" a no"), encoder.text(" a yes")
    n = next(i for i in range(len(yes)) if yes[i] != no[i])
    assert n > 0
    assert asks.answers == (yes[n], no[n])
    assert asks.item(0)[-n:] == yes[:n]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('answers: " yes", " no"\n', ""), "its header has no answers"),
        (('" no"', '" yes, no"'), "begins with the other"),
        (("Another item: {{ item }}\n", ""), "prints no items"),
        (("{% endfor -%}", "{% endfor -%}\nAn item: {{ item }}\n"), "prints 2 items"),
        (
            ("yes or no?", "{% for e in events %}{{ e.verb }}{% endfor %}?"),
            "depends on the history",
        ),
    ],
)
def test_templates_that_cannot_ask(change: tuple[str, str], message: str) -> None:
    template = Template.load("would_like")
    source = template.source.replace(*change)
    assert source != template.source
    catalog = Catalog([Item(str(n), t) for n, t in enumerate(TITLES)])
    encoder = Encoder(tiny.tokenizer("llama"), template.form())

    def ask() -> None:
        mine = YesNo(Template("mine", source, template.verbs), encoder, catalog, "buy")
        mine.known(History((Interaction("0", "buy"),)))

    with pytest.raises(PromptError, match=message) as caught:
        ask()
    assert "as in the shipped would_like.jinja" in str(caught.value)


def test_pairs_are_of_their_part_and_negatives_are_new_to_the_user() -> None:
    data = made(6, users=8)
    c = data.interactions.columns
    settings = Training(objective="pointwise", negatives=3)
    for part, code in (("train", 0), ("validation", 1), ("test", 2)):
        found = make_pairs(data, settings, part)
        positives = [p for p in found if p.label]
        wanted = (c.split == code) & (c.behavior == data.interactions.behaviors.index("buy"))
        assert sorted(p.event for p in positives) == np.flatnonzero(wanted).tolist()
        for pair in found:
            where = data.interactions.events(pair.user_id)
            basket = np.flatnonzero(c.unit == c.unit[pair.event])
            assert pair.first == basket[0]
            seen = {*c.row[where.start : pair.first].tolist(), *c.row[basket].tolist()}
            assert (pair.row in seen) if pair.label else (pair.row not in seen)
            assert not pair.label or pair.row == c.row[pair.event]
        for event in {p.event for p in positives}:
            drawn = [p.row for p in found if p.event == event and not p.label]
            seen_rows = {
                *c.row[data.interactions.events(data.interactions.user_ids[c.user[event]])]
            }
            assert len(set(drawn)) == len(drawn) <= 3
            assert len(drawn) == 3 or len(drawn) >= 7 - len(seen_rows)
    assert make_pairs(data, settings) == make_pairs(data, settings)
    assert make_pairs(data, settings) != make_pairs(data, replace(settings, seed=1))
    few = make_training_pairs(data, replace(settings, pairs_per_user=5))
    for user in data.interactions.user_ids:
        of_user = [p for p in make_pairs(data, settings) if p.user_id == user]
        assert [p for p in few if p.user_id == user] == of_user[-5:]
    new = np.arange(len(c.row)) % 2 == 0
    assert {p.event % 2 for p in make_pairs(data, settings, wanted=new)} == {0}
    both = {p.event for p in make_pairs(data, replace(settings, fit="both")) if p.label}
    assert both == {
        p.event
        for part in ("train", "validation")
        for p in make_pairs(data, settings, part)
        if p.label
    }


def with_values(values: list[float], users: int = 1) -> Dataset:
    data = dataset([[(n % 7, "rate")] for n in range(len(values))], users)
    events = copy.copy(data.interactions)
    events.columns = replace(events.columns, value=np.array(values * users))
    return replace(data, interactions=events)


def test_a_threshold_says_what_was_wanted() -> None:
    data = with_values([5, 3, math.nan, 4, 1, 2])
    found = make_pairs(data, Training(objective="pointwise", like_threshold=4))
    assert [(p.event, p.label) for p in found] == [(0, 1), (1, 0), (3, 1), (4, 0), (5, 0)]
    more = Training(objective="pointwise", like_threshold=4, negatives=2)
    drawn = [p for p in make_pairs(data, more) if p.row != data.interactions.columns.row[p.event]]
    assert {p.event for p in drawn} == {0, 3}
    assert not any(p.label for p in drawn)
    with pytest.raises(DataError, match=r"All 5 pairs .* have the label yes"):
        make_pairs(data, Training(objective="pointwise", like_threshold=0))
    with pytest.raises(SettingsError, match="but no event has a value"):
        make_pairs(made(), Training(objective="pointwise", like_threshold=4))
    settings, _ = resolve({"objective": "pointwise", "like_threshold": 4})
    assert (settings.template, settings.target_behavior) == ("would_like", "like")


@pytest.mark.parametrize("kind", KINDS)
def test_branches_are_as_separate_questions_and_as_would_like_says(kind: str) -> None:
    data = made(9, users=2)
    recommender = asked(fresh(kind, torch.float64), data, max_events=6)
    settings = Training(objective="pointwise", negatives=2, pack_tokens=350)
    chosen = make_pairs(data, settings)
    found = pointwise.make_examples(recommender.question, data, chosen, settings, plain=False)
    alone = pointwise.make_examples(recommender.question, data, chosen, settings, plain=True)
    assert len(found.rows) < len(chosen) / 3  # pairs share rows
    assert len(alone.rows) == len(alone.packs) == len(chosen)
    assert all(len(r) <= 350 for r in found.rows)
    nats, pairs = answered(recommender, found)
    c = data.interactions.columns
    by_pair = {(p.event, p.row): p for p in chosen}
    same = 0
    for value, (row, g, label) in zip(nats.tolist(), pairs, strict=True):
        pair = by_pair[int(row.event[g]), int(row.item[g])]
        assert pair.label == label
        ids = row.text_before(g)
        with torch.no_grad():
            logits = recommender.model.model(torch.tensor([ids])).logits[0, -1]
        yes, no = (float(logits[i]) for i in recommender.question.answers)
        said = 1 / (1 + math.exp(no - yes))
        assert math.exp(-value) == pytest.approx(said if label else 1 - said, abs=1e-9)
        where = data.interactions.events(pair.user_id)
        past = [data.interactions.interaction(i) for i in range(where.start, pair.first)]
        known, shown = recommender.question.known(History(tuple(past)))
        if [*known, *recommender.question.item(pair.row)] != ids:
            assert shown < len(past)  # a window that begins elsewhere
            continue
        same += 1
        item = data.catalog[int(c.row[pair.event]) if label else pair.row].item_id
        chance = recommender.would_like(History(tuple(past)), item)
        assert chance == pytest.approx(said, abs=1e-5)
    assert same > 5


def test_would_like_takes_lists_plain_models_and_edits() -> None:
    data = made()
    shared = tiny.language_model()
    recommender = Recommender(data, shared)  # with the template for next items
    ids = [i.item_id for i in data.catalog] * 12  # more than a pass
    many = recommender.would_like("bought: red mug", ids)
    assert len(many) == 84
    assert all(0 < p < 1 for p in many)
    assert recommender.would_like("bought: red mug", "i5") == pytest.approx(many[5], abs=1e-5)
    assert many[7:14] == pytest.approx(many[:7], abs=1e-5)
    assert many[0] != pytest.approx(recommender.would_like("", "i0"), abs=1e-4)
    plain = Recommender(data, LanguageModel(shared.model, shared.tokenizer, plain=True))
    assert plain.would_like("bought: red mug", ids[:7]) == pytest.approx(many[:7], abs=1e-4)
    assert recommender.would_like("", []) == []
    recommender.retitle_items({"i5": "a horse"})
    assert recommender.would_like("bought: red mug", "i5") != pytest.approx(many[5], abs=1e-4)
    with pytest.raises(RequestError, match="'i9' is not in the catalog"):
        recommender.would_like("", ["i9"])
    with pytest.raises(SettingsError, match="asks a yes-or-no question"):
        asked(shared, data).recommend("")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (
            "text,label\nred mug,buy\nblue bag,perhaps\n",
            "data row 2: the label 'perhaps' is unknown",
        ),
        ("text,label\n ,buy\n", "data row 1: the text is empty"),
        ("text,label\nred,\n", "data row 1: the label '' is unknown"),
        ("words,label\nred mug,buy\n", "has no column 'text'"),
        ("text,answer\nred mug,buy\n", "has no column 'label'"),
        ("text,label\nred mug,buy,3\n", "3 cells, but the header has 2"),
        (
            "text,label\nred mug,buy\nbag,1\n",
            "All 2 pairs from the rows of pairs.csv have the label yes",
        ),
        ("text,label\n", "There are no pairs"),
    ],
)
def test_files_that_are_no_pairs(tmp_path: Path, content: str, message: str) -> None:
    file = tmp_path / "pairs.csv"
    file.write_text(content)
    with pytest.raises(DataError) as caught:
        read_pairs(file)
    assert message in str(caught.value)
    assert "pairs.csv" in str(caught.value)
    assert "Expected" in str(caught.value)


def test_labels_of_a_file(tmp_path: Path) -> None:
    file = tmp_path / "pairs.csv"
    said = ["buy", "not_buy", "Yes", "NO", "1", "0"]
    file.write_text("id,text,label\n" + "".join(f"7,t{i},{s}\n" for i, s in enumerate(said)))
    assert read_pairs(file) == ([f"t{i}" for i in range(6)], [1, 0] * 3)


@pytest.mark.parametrize(
    "wrong",
    [
        {"objective": "both"},
        {"negatives": 2},
        {"like_threshold": 4.0},
        {"pairs": "F.csv"},
        {"pairs_per_user": 4},
        {"objective": "pointwise", "examples": "F.jsonl"},
        {"objective": "pointwise", "negatives": 0},
        {"objective": "pointwise", "negatives": -1},
    ],
)
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="Expected"):
        Training(**wrong)


def weights_of(place: Path) -> dict[str, torch.Tensor]:
    return load_file(place / "model" / "model.safetensors")


def test_a_run_learns_goes_on_and_answers(tmp_path: Path) -> None:
    # All like the bag, and nobody likes the chain: a rule to be learned.
    rows = np.random.default_rng(0).choice([2, 4], 72)
    data = with_values([5.0 if row == 2 else 1.0 for row in rows[:12]], users=6)
    events = data.interactions
    split = np.tile(np.array([0] * 8 + [1] * 2 + [2] * 2), 6)
    value = np.where(rows == 2, 5.0, 1.0)
    events.columns = replace(events.columns, row=rows, split=split, value=value)
    data = replace(data, info=replace(data.info, split="given"))
    model = saved(tmp_path)
    options: dict[str, Any] = FEW | {
        "objective": "pointwise", "like_threshold": 4.0, "max_targets": 250, "eval_users": 4,
        "eval_every": 100, "pack_tokens": 256, "lora_rank": 0, "learning_rate": 1e-2,
    }  # fmt: skip
    lines: list[Any] = []
    whole = trainer.train(data, tmp_path / "whole", str(model), watch=lines.append, **options)
    first, *_, last = [line for line in lines if line.get("validation")]
    assert last["nats"] < 0.1 < first["nats"]
    assert last["auc"] == 1.0
    assert last["pairs"] == 8
    assert whole.finished
    trainer.train(data, tmp_path / "parts", str(model), max_minutes=0.0, **options)
    trainer.train(data, tmp_path / "parts", str(model), resume=True, **options)
    one, other = weights_of(tmp_path / "whole"), weights_of(tmp_path / "parts")
    assert all(torch.equal(one[k], other[k]) for k in one)
    recommender = Recommender.load(tmp_path / "whole", data)
    assert recommender.behavior == "like"
    bag, chain = recommender.would_like(recommender.history("u0", before="test"), ["i2", "i4"])
    assert bag > 0.9
    assert chain < 0.1
    with pytest.raises(ModelError, match="prompt template"):
        Recommender.load(tmp_path / "whole", data, template="next_item")
    with pytest.raises(SettingsError, match="Expected a template with answers in its header"):
        trainer.train(data, tmp_path / "x", str(model), **options | {"template": "next_item"})


def test_the_commands(tmp_path: Path, run: Run) -> None:
    data = made(users=2).renamed("made")
    data.save(tmp_path / "data")
    model = saved(tmp_path)
    file, items = tmp_path / "pairs.csv", tmp_path / "items.txt"
    lines = [f"bought: red mug {n},{label}" for n in range(20) for label in ("buy", "not_buy")]
    file.write_text("\n".join(["text,label", *lines]))
    items.write_text("i0\ni5\n")
    place = ("--out", tmp_path / "run", "--model", model, "--threads", "1", "--device", "cpu")
    code, out, err = run(
        "train", tmp_path / "data", *place, "--objective", "pointwise", "--pairs", file,
        "--max-targets", "20", "--pack-tokens", "128",
    )  # fmt: skip
    assert code == 0, err
    assert "log loss" in out
    assert f"genrec likes {tmp_path / 'data'} --run {tmp_path / 'run'} --user USER" in out
    found = json.loads((tmp_path / "run" / "run.json").read_text())
    assert found["metrics"]["last"]["pairs"] == 4
    report = (tmp_path / "run" / "report.md").read_text(encoding="utf-8")
    assert "| targets | nats | AUC | pairs |" in report
    assert "a uniform guess among 2 answers" in report
    asks = ("likes", tmp_path / "data", "--run", tmp_path / "run", "--items", items)
    code, out, err = run(*asks, "--user", "u1", "--json")
    assert code == 0, err
    answer = json.loads(out)
    assert {i["item_id"] for i in answer["items"]} == {"i0", "i5"}
    assert answer["items"][0]["probability"] >= answer["items"][1]["probability"]
    assert answer["user_id"] == "u1"
    code, out, _ = run(*asks, "--history", "bought: red mug")
    assert code == 0
    assert "doll house" in out
    code, _, err = run("recommend", tmp_path / "data", "--run", tmp_path / "run", "--user", "u1")
    assert code == SettingsError.exit_code
    assert "genrec likes" in err


@pytest.mark.parametrize("ending", [".jsonl", ".parquet"])
def test_pairs_are_written_as_they_are_read(tmp_path: Path, ending: str) -> None:
    data = made(8, users=3)
    path = tmp_path / f"pairs{ending}"
    model = fresh()
    asked: dict[str, Any] = {"negatives": 2, "case": "lower"}
    many = write_pairs(data, path, model, **asked)
    texts, labels = read_pairs(path)
    recommender = Recommender(data, model, prior="none", template="would_like", case="lower")
    chosen = make_training_pairs(data, Training(objective="pointwise", negatives=2), behavior="buy")
    assert many == len(texts) == len(chosen)
    assert labels == [p.label for p in chosen]
    decode = model.tokenizer.decode
    rows = pointwise.make_examples(
        recommender.question, data, chosen, Training(objective="pointwise", layout="window",
        negatives=2, pack_tokens=2000), plain=True, part="train",
    ).rows  # fmt: skip
    assert [decode(recommender.question.text(t)) for t in texts] == [
        decode(row.ids.tolist()) for row in rows
    ]
    with pytest.raises(SettingsError, match="Expected a file name"):
        write_pairs(data, tmp_path / "pairs.csv", model)
