"""Faithfulness of explanations against scores of edited histories, and how its runs go on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support import tiny
from support.commands import Run, answer

from genrec import Catalog, Dataset, History, Interaction, Item, Recommender
from genrec.config import PROTOCOL
from genrec.data.datasets import load
from genrec.data.protocols import cases, sample
from genrec.data.readers.rejects import Rejects
from genrec.errors import DataError, PromptError, RequestError
from genrec.evaluation.bootstrap import bootstrap
from genrec.evaluation.faithfulness import (
    Likeness,
    collect_facts,
    faithfulness,
    find_named_events,
    order_events,
    with_other_template,
)
from genrec.evaluation.faithfulness_results import WAYS, Faithfulness, Judgement
from genrec.explain import claims
from genrec.explain.styles import load_explain_template
from genrec.explain.types import Explanation
from genrec.matching.ngrams import CharNgrams
from genrec.priors.weights import Weights
from genrec.reports import summaries

TITLES = ["red mug", "blue mug", "doll house", "paper chain", "pink bag", "cake tin", "hat", "pen"]


class Planted:
    """A prior that wants ``target`` after ``key``, and nothing else."""

    def __init__(self, n: int, key: str, target: int) -> None:
        self._n, self._key, self._target = n, key, target

    def weights(self, history: History) -> Weights:
        """See ``ItemPrior``."""
        values = np.ones(self._n)
        values[self._target] = 1e3 if self._key in history.item_ids else 1e-6
        return Weights(values)


def shop(users: Sequence[str], split: str = "test", titles: Sequence[str] = TITLES) -> Dataset:
    """Users who buy the items of a text such as "abc", the last of them in a split."""
    names = ("user_id", "item_id", "timestamp", "split", "behavior")
    rows = [
        (f"u{n}", item, time, split if time == len(bought) - 1 else "train", "buy")
        for n, bought in enumerate(users)
        for time, item in enumerate(bought)
    ]
    events = pa.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
    catalog = pa.table({"item_id": list("abcdefgh"), "title": list(titles)})
    return Dataset.from_tables(catalog, events, name="made", rejects=[Rejects("i"), Rejects("e")])


def of(dataset: Dataset, **settings: Any) -> Recommender:
    return Recommender(dataset, tiny.language_model(), **settings)


@pytest.fixture(scope="module")
def zh_data() -> Dataset:
    return load("zh_mini")


def without(history: History, places: Sequence[int]) -> History:
    left = (e for n, e in enumerate(history.interactions) if n not in places)
    return History(tuple(left), history.user_id)


def naive(recommender: Recommender, template: str, history: History) -> dict[str, Any]:
    """All falls of the first recommendation, by plain scores of edited histories."""
    fused = recommender.fusing
    other = recommender.with_settings(
        template=template,
        prior=fused.prior,
        prior_weight=fused.weight,
        fusion=fused.fusion,
        node_temperature=fused.temperature,
    )
    (first,) = recommender.recommend(history, 1, options=PROTOCOL, explain=True)
    item, why, n = first.item_id, first.explanation, len(history)
    assert why is not None

    def score(asked: Recommender, some: History) -> float:
        return asked.score(some, [item])[0].score

    whole = score(recommender, history)
    evidence = [whole - score(recommender, without(history, [i])) for i in range(n)]
    quoted = why.text.replace("“", '"').replace("”", '"').split('"')[1]
    titles = [recommender.catalog[recommender.catalog.row(i)].title for i in history.item_ids]
    named = [i for i, title in enumerate(titles) if title == quoted]
    assert named
    by_evidence = sorted(range(n), key=lambda i: -evidence[i])
    vectors = CharNgrams([t.lower() for t in recommender.catalog.titles]).vectors
    rows = recommender.catalog.rows([item, *history.item_ids])
    like = (vectors[rows[1:]] @ vectors[rows[0]].T).toarray()[:, 0]
    ways = {
        "named": sorted(by_evidence, key=lambda i: i not in named),
        "evidence": by_evidence,
        "recent": sorted(range(n), reverse=True),
        "similar": sorted(range(n), key=lambda i: -like[i]),
    }
    before = score(other, history)
    falls: dict[str, Any] = {
        "left_out": {},
        "kept": {},
        "item": item,
        "evidence": evidence,
        "named": named,
    }
    for way, order in ways.items():
        for size in (1, 2, 3):
            for kind, places in (("left_out", order[:size]), ("kept", order[size:])):
                fall = before - score(other, without(history, places))
                falls[kind].setdefault(way, []).append(fall)
    return falls


@pytest.mark.parametrize(
    ("prior", "fusion", "template"),
    [
        ("none", "auto", "next_item"),
        ("collaborative", "score", "next_item"),
        ("collaborative", "node", "next_item"),
        ("popularity", "score", "sentence"),
    ],
)
def test_numbers_are_those_of_scores_of_edited_histories(
    prior: str, fusion: str, template: str
) -> None:
    data = shop(["abcdefa", "badcfeg", "hgfdacb"])
    ours = of(data, prior=prior, fusion=fusion, template=template, exclude_seen=False)
    found = faithfulness(data, ours, encoder="ngrams")
    other = {"next_item": "sentence", "sentence": "next_item"}[template]
    assert (found.template, found.other, len(found.users)) == (template, other, 3)
    counting_train = ours.with_settings(prior_events="train")
    for case, user in zip(cases(data, "given"), found.users, strict=True):
        expected = naive(counting_train, other, case.history)
        assert user.user_id == case.user_id
        assert (user.item_id, user.named) == (expected["item"], expected["named"])
        assert user.evidence == pytest.approx(expected["evidence"], abs=1e-4)
        assert user.own == [n for n, i in enumerate(case.history.item_ids) if i == user.item_id]
        for way in expected["kept"]:
            assert user.left_out[way] == pytest.approx(expected["left_out"][way], abs=1e-4)
            assert user.kept[way] == pytest.approx(expected["kept"][way], abs=1e-4)


def test_a_sentence_that_names_what_decides_is_above_all_others() -> None:
    data = shop(["adefga", "adegfa", "afdega", "agfdea"])  # a red mug first, then unlike titles
    ours = of(data, fusion="score", prior_weight=1.0, exclude_seen=True)
    ours.prior = Planted(8, "a", 2)
    found = faithfulness(data, ours, encoder="ngrams")
    assert found.deletion is not None
    assert found.sufficiency is not None
    for user in found.users:
        assert (user.item_id, user.named) == ("c", [0])
        assert user.left_out["named"][0] > 14
        assert abs(user.kept["named"][0]) < 7
    assert found.shares["names_strongest"].mean == 1.0
    assert found.shares["same_strongest"].mean == 1.0
    assert found.deletion.area["named"].low > 14
    assert found.deletion.minus["evidence"].mean == 0.0
    assert found.deletion.minus["recent"].low > 7
    assert found.sufficiency.minus["recent"].high < -7


def alike(*falls: float) -> dict[str, list[float]]:
    return {way: list(falls) for way in WAYS}


def user(**given: Any) -> Judgement:
    same = alike(1.0, 2.0, 3.0)
    values: dict[str, Any] = {
        "user_id": "u", "item_id": "i", "text": "t", "source": "generated", "rejected": [],
        "unsupported": [], "named": [1], "own": [], "evidence": [0.0, 1.0], "elsewhere": [0.0, 1.0],
        "left_out": same, "kept": same,
    }  # fmt: skip
    return Judgement(**{**values, **given})


def figures(users: Sequence[Judgement]) -> Faithfulness:
    return Faithfulness(
        "d", "s", "given", "test", "train", "next_item", "sentence", "reason", "ngrams", 0, users
    )


def test_shares_and_curves_by_hand() -> None:
    more = {**alike(1.0, 2.0, 3.0), "named": [4.0, 5.0, 6.0]}
    silent = user(named=[], source="template", left_out=alike(99.0, 99.0, 99.0))
    wrong = user(named=[0], own=[1], elsewhere=[1.0, 0.0], left_out=more, unsupported=["x"])
    found = figures([user(), wrong, silent])
    means = {name: share.mean for name, share in found.shares.items()}
    assert means == pytest.approx({
        "generated": 2 / 3, "names_event": 2 / 3, "names_strongest": 1 / 2,
        "strongest_is_item": 1 / 3, "same_strongest": 2 / 3, "rank_correlation": 1 / 3,
    })  # fmt: skip
    assert found.deletion is not None
    assert found.deletion.minus["random"] == bootstrap([0.0, 3.0])
    assert [i.mean for i in found.deletion.points["named"]] == [2.5, 3.5, 4.5]
    assert found.deletion.area["named"].mean == 3.5
    assert found.unsupported == [("u", "t", "x")]
    value = found.to_dict()
    json.dumps(value, allow_nan=False)
    assert (value["schema_version"], value["users"], value["naming"]) == (1, 3, 2)
    assert value["unsupported_claims"] == 1


def test_where_no_sentence_names_an_event_there_are_no_curves(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = figures([user(named=[], evidence=[0.0, 0.0])])
    assert found.deletion is None
    assert found.to_dict()["sufficiency"] is None
    assert "names_strongest" not in found.shares
    assert "rank_correlation" not in found.shares
    summaries.print_faithfulness(found)
    assert "0 sentences that name an event" in capsys.readouterr().out


def test_what_a_sentence_names() -> None:
    catalog = Catalog(Item(i, t) for i, t in zip("abcdefgh", TITLES, strict=True))
    events = [
        Interaction("a", "buy"), Interaction("c", "view"), Interaction("a", "view"),
        Interaction(None, "search", text="a  red hat"),
    ]  # fmt: skip
    template = load_explain_template("reason", "en", None)

    def said(text: str, source: str, row: int) -> tuple[list[int], tuple[str, ...]]:
        why = Explanation(text, source)
        facts = collect_facts(why, template, catalog, events, row)
        return find_named_events(why, facts, catalog, events), claims.find_problems(text, facts)

    text = 'Because of "red mug", we suggest "cake tin", which has to do with tin.'
    assert said(text, "generated", 5) == ([0, 2], ())
    text = 'Because of "red mug", we suggest "doll house", which has to do with doll.'
    assert said(text, "generated", 2) == ([0, 2], ())
    assert said('Because they bought "red mug".', "template", 0) == ([0, 2], ())
    assert said('Because they searched for "a red hat".', "template", 0) == ([3], ())
    assert said("No event in this history supports it.", "template", 0) == ([], ())
    assert said("Nothing is known about this customer yet.", "template", 0) == ([], ())
    assert said('Because they bought "doll house".', "template", 0)[1]
    assert said('Because they bought "red mug".', "generated", 5)[1]


@pytest.mark.parametrize("style", ["reason", "short", "pitch"])
def test_sentences_that_were_shipped_pass_the_checker_again(style: str) -> None:
    titles = [
        "red tea mug", "blue tea mug", "doll house kit", "paper chain of stars", "pink bag",
        "round cake tin", "hat", "pen for kids and cats",
    ]  # fmt: skip
    users = ["abcdef", "badcfe", "hgfdac", "cdefgh", "fghabc", "gacebd"]
    data = shop(users, titles=titles)
    found = faithfulness(data, of(data, prior="none"), style=style, encoder="ngrams")
    assert found.unsupported == []
    assert {u.source for u in found.users} == {"generated", "template"}
    assert len(found.naming) == len(found.users) == 6


def test_orders() -> None:
    found = order_events([2], [3.0, 0.0, -1.0, 1.0], [0.1, -2.0, 0.5, 0.5], [3, 0, 1, 2])
    assert found == {
        "named": [2, 0, 3, 1],
        "evidence": [0, 3, 1, 2],
        "recent": [3, 2, 1, 0],
        "similar": [2, 3, 0, 1],
        "random": [3, 0, 1, 2],
    }


def test_likeness_asks_the_encoder_only_about_what_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embedder = tiny.LatinEmbedder()
    monkeypatch.setattr("genrec.evaluation.faithfulness.load_embedder", lambda name, log: embedder)
    catalog = Catalog(Item(str(n), t) for n, t in enumerate([*TITLES, "红色杯子", "红杯子"]))
    like = Likeness(catalog, "latin")
    one, none, same = like.of("Red Mug", ["pen", None, "red mug"])
    assert none < -1 < one < same == pytest.approx(1.0)
    like.of("red mug", ["pen", "hat"])
    assert sorted(embedder.asked) == ["hat", "pen", "red mug"]
    han, latin = like.of("红色杯子", ["红杯子", "pen"])
    assert han > 0.1 > latin == 0.0
    assert sorted(embedder.asked) == ["hat", "pen", "red mug"]


def test_the_other_template_changes_nothing_else() -> None:
    data = shop(["abcdefa", "badcfeg", "hgfdacb"])
    ours = of(data, few_shot=1, prior="collaborative")
    other = with_other_template(ours)
    assert other.template.name == "sentence"
    assert other.settings.few_shot == 0
    assert other.prior is ours.prior
    for name in ("prior", "weight", "fusion", "temperature"):
        assert getattr(other.fusing, name) == getattr(ours.fusing, name)
    assert with_other_template(of(data, template="sentence")).template.name == "next_item"
    assert with_other_template(ours, "next_item").template.name == "next_item"
    mine = of(data)
    mine.prior = Planted(8, "a", 2)
    assert with_other_template(mine).prior is mine.prior
    assert with_other_template(mine).fusing.weight == mine.fusing.weight


def test_a_template_with_less_room_shortens_the_history_for_both() -> None:
    data = shop(["abcdefga"])
    long = of(data)
    tokens = len(with_other_template(long).prompt(History(())).ids) + 30
    ours = of(data, max_prompt_tokens=tokens, prior="none")
    history = cases(data, "given")[0].history
    shown = [r.prompt(history).prompt.events for r in (ours, with_other_template(ours))]
    assert shown[0] != shown[1]
    (found,) = faithfulness(data, ours, encoder="ngrams").users
    assert len(found.evidence) == len(found.elsewhere) == min(shown)
    expected = naive(ours, "sentence", history.latest(min(shown)))
    assert found.left_out["recent"] == pytest.approx(expected["left_out"]["recent"], abs=1e-4)


def test_the_sample_is_seeded_and_grows(zh_data: Dataset) -> None:
    ours = of(zh_data, prior="none", max_events=5)
    few = faithfulness(zh_data, ours, users=2, encoder="ngrams")
    more = faithfulness(zh_data, ours, users=4, encoder="ngrams")
    by_user = {u.user_id: u for u in more.users}
    assert all(asdict(by_user[u.user_id]) == asdict(u) for u in few.users)
    chosen = [c.user_id for c in sample(cases(zh_data, "last-unit"), 4)]
    assert [u.user_id for u in more.users] == chosen  # all of them have four events


def test_a_killed_run_goes_on_where_it_was(zh_data: Dataset, tmp_path: Path) -> None:
    ours = of(zh_data, prior="none", max_events=5)
    log = tmp_path / "new" / "told.jsonl"
    done: list[int] = []

    class Killed(Exception):
        pass

    def stop(n: int) -> None:
        if n == 2:
            raise Killed

    with pytest.raises(Killed):
        faithfulness(zh_data, ours, users=4, encoder="ngrams", out=log, progress=stop)
    kept = log.read_bytes()
    assert kept.count(b"\n") == 2
    log.write_bytes(kept + b'{"key": "cut of')
    found = faithfulness(zh_data, ours, users=4, encoder="ngrams", out=log, progress=done.append)
    assert done == [2, 3, 4]
    assert log.read_bytes().startswith(kept)
    assert log.read_bytes().count(b"\n") == 4
    whole = faithfulness(zh_data, ours, users=4, encoder="ngrams")
    assert found.to_dict() == whole.to_dict()
    refused: list[tuple[Recommender, dict[str, Any]]] = [
        (ours, {"seed": 1}),
        (ours, {"style": "short"}),
        (ours, {"protocol": "last-out"}),
        (ours, {"other": "chat"}),
        (of(zh_data, prior="none", max_events=9), {}),
        (Recommender(zh_data, tiny.language_model(seed=1), prior="none", max_events=5), {}),
    ]
    for other, how in refused:
        with pytest.raises(
            DataError, match="was written for different data or with a different protocol"
        ):
            faithfulness(zh_data, other, users=4, **{"encoder": "ngrams", "out": log, **how})
    assert log.read_bytes().count(b"\n") == 4


def test_other_files_are_left_as_they_are(zh_data: Dataset, tmp_path: Path) -> None:
    ours = of(zh_data, prior="none")
    for text, said in (
        ("my notes", "is not a log"),
        ("my\nnotes\n", "is not a log"),
        ("[1]\n", "is not a log"),
        ('{"system": "popular"}\n', "was written for different data"),
    ):
        path = tmp_path / "file"
        path.write_text(text)
        with pytest.raises(DataError, match=said):
            faithfulness(zh_data, ours, users=1, encoder="ngrams", out=path)
        assert path.read_text() == text
    with pytest.raises(DataError, match=r"is a folder\. Expected the name of a file"):
        faithfulness(zh_data, ours, users=1, encoder="ngrams", out=tmp_path)


def test_what_cannot_be_measured_is_said(zh_data: Dataset) -> None:
    ours = of(zh_data, prior="none")
    asked: list[tuple[dict[str, Any], str]] = [
        ({"users": 0}, "users=0"),
        ({"protocol": "candidates-20"}, "but explanations are only available for the top items"),
        ({"split": "train"}, "Unknown value split='train'"),
        ({"other": "next_item"}, "already used to find the evidence"),
        ({"fit_on": "all"}, "Unknown value fit_on='all'"),
    ]
    for how, said in asked:
        with pytest.raises(RequestError, match=said):
            faithfulness(zh_data, ours, encoder="ngrams", **how)
    with pytest.raises(PromptError, match="poem"):
        faithfulness(zh_data, ours, encoder="ngrams", style="poem")
    with pytest.raises(PromptError, match="poem"):
        faithfulness(zh_data, ours, encoder="ngrams", other="poem")
    with pytest.raises(RequestError, match="only the fraction of sampled texts"):
        faithfulness(zh_data, of(zh_data, decoder="match"), encoder="ngrams")
    with pytest.raises(RequestError, match="differs from the catalog of online_retail_demo"):
        faithfulness(load("online_retail_demo"), ours, encoder="ngrams")
    short = shop(["abc", "cba"])
    with pytest.raises(
        RequestError, match=r"No user has 4 or more events .* longest of the 2 histories has 2"
    ):
        faithfulness(short, of(short), encoder="ngrams")
    with pytest.raises(RequestError, match="and max_events is 3"):
        faithfulness(zh_data, of(zh_data, max_events=3), encoder="ngrams")
    no_test = shop(["abcdef", "badcfe"], split="train")
    with pytest.raises(RequestError, match="No user has a 'buy' event in test"):
        faithfulness(no_test, of(no_test), encoder="ngrams")


def test_falls_say_what_the_prompt_shows() -> None:
    data = shop(["abcdefa"])
    ours = of(data, prior="none")
    history = cases(data, "given")[0].history
    assert ours.falls(history, "h", []) == []
    assert ours.falls(history, "h", [()]) == pytest.approx([0.0], abs=1e-6)
    with pytest.raises(RequestError, match=r"\[1, 6\], but the prompt shows 6 events"):
        ours.falls(history, "h", [(1, 6)])
    with pytest.raises(RequestError, match="'zz'"):
        ours.falls(history, "zz", [(0,)])


@pytest.fixture
def folder(zh_data: Dataset, tmp_path: Path) -> Path:
    zh_data.save(tmp_path / "zh", [])
    return tmp_path / "zh"


def test_the_command(run: Run, model: Path, folder: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", folder, "--model", model, "--explanations", "--users", 3,
                 "--prior", "none", "--encoder", "ngrams", "--max-events", 5]  # fmt: skip
    value = answer(run, *arguments, "--out", tmp_path / "told.jsonl")
    assert (value["schema_version"], value["users"], value["encoder"]) == (1, 3, "ngrams")
    assert list(value["deletion"]) == list(WAYS)
    assert value["unsupported_claims"] == 0
    assert (tmp_path / "told.jsonl").read_text(encoding="utf-8").count("\n") == 3
    code, out, err = run(*arguments, "--out", tmp_path / "told.jsonl")
    assert code == 0, err
    lines = out.splitlines()
    assert lines[0].split("\t") == [
        "left out", "one event", "two", "three", "area", "named minus it",
    ]  # fmt: skip
    assert [line.split("\t")[0] for line in lines[1:6]] == list(WAYS)
    assert "Unsupported claims that the checker found in all sentences: 0." in out
    code, _, err = run(*arguments, "--seed", 1, "--out", tmp_path / "told.jsonl")
    assert code == 3
    assert "Choose another file, or delete this one" in err


def test_the_command_says_what_does_not_go_together(
    run: Run, model: Path, folder: Path, tmp_path: Path
) -> None:
    for option in (("--against", "popular"), ("--report", tmp_path / "r.html"), ("--no-model",)):
        code, out, err = run("evaluate", folder, "--explanations", "--model", model, *option)
        assert (code, out) == (2, "")
        assert f"--explanations does not work with {option[0]}" in err
    shop(["abcdef"], split="train").save(tmp_path / "no_test", [])
    code, _, err = run("evaluate", tmp_path / "no_test", "--explanations", "--model", model)
    assert code == 6
    assert "No user has a 'buy' event in test" in err


def test_a_run_must_know_some_of_the_titles(
    run: Run, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from genrec import runs

    trained = tmp_path / "trained"
    trained.mkdir()
    pq.write_table(shop(["abcdef"]).catalog.to_table(), trained / runs.CATALOG)
    monkeypatch.setattr(runs.Run, "read", lambda path: None)
    code, _, err = run("evaluate", folder, "--explanations", "--run", trained)
    assert code == 6
    assert "was trained on 8 items, and zh_mini has none of their titles" in err
