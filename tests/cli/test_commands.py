"""The command line, in process, with a tiny model from a folder."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import tiny
from support.amount import FULL
from support.commands import Run, answer
from support.shop_files import EVENTS, ITEMS, write

from genrec.models.devices import fast_bf16_cpu


def test_prepare_says_what_it_did(run: Run, tmp_path: Path) -> None:
    items, events = write(tmp_path, items=ITEMS + "c,again,1,x\n", events=EVENTS + "u,q,9,buy,,,\n")
    code, out, _ = run("prepare", "--items", items, "--interactions", events,
                       "--out", tmp_path / "o")  # fmt: skip
    assert code == 0
    assert (
        "The events are split by the last invoice of each user: train 4, validation 1, test 1."
        in out
    )
    assert "Rejected 1 row: items.csv: duplicate item_id (see rejected.csv)" in out
    assert "Rejected 1 row: events.csv: not in the items file" in out
    assert "Recommending: purchases. " in out
    info = answer(run, "prepare", "--items", items, "--interactions", events,
                  "--out", tmp_path / "o")  # fmt: skip
    assert info["split_events"] == {"train": 4, "validation": 1, "test": 1}
    code, _, err = run("prepare", "--items", items, "--interactions", events,
                       "--out", tmp_path / "p", "--strict")  # fmt: skip
    assert code == 3
    assert "data row 4: duplicate item_id 'c'" in err
    assert not (tmp_path / "p").exists()


def test_prompt_shows_what_the_model_reads(run: Run, data: Path, model: Path) -> None:
    code, out, err = run("prompt", data, "--user", "u", "--model", model)
    assert code == 0
    assert out.startswith("A customer's history, oldest first:\nbought: Red mug\nbought: Blue mug")
    assert out.endswith("bought: Red mug\nbought:\n")
    assert "tokens, 5 events" in err
    value = answer(run, "prompt", data, "--user", "u", "--model", model, "--max-events", 2)
    assert value["tokens"] == len(value["token_ids"])
    assert (value["events"], value["dropped"]) == (2, 3)


def test_recommend(run: Run, data: Path, model: Path) -> None:
    value = answer(
        run, "recommend", data, "--user", "u", "--model", model, "-k", 2, "--include-seen"
    )
    assert value["user_id"] == "u"
    assert [r["rank"] for r in value["recommendations"]] == [1, 2]
    typed = answer(run, "recommend", data, "--history", "viewed: doll; x", "--model", model)
    assert [u["item_id"] for u in typed["understood"]] == ["c", None]
    new = answer(run, "recommend", data, "--history", "", "--model", model, "--include-seen")
    assert len(new["recommendations"]) == 3
    code, out, err = run("recommend", data, "--history", "Doll", "--model", model, "--include-seen",
                         "--allow-last-basket")  # fmt: skip
    assert code == 0
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["rank", "probability", "model", "prior", "item_id", "title"]
    assert {line[4] for line in lines[1:]} == {"a", "b", "c"}
    assert "Seen items are included." in err
    assert re.search(r"on cpu \(\d+ threads?\) predicted 'buy' from 1 event, with a prompt of", err)


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_a_list_may_be_empty(run: Run, data: Path, model: Path, threshold: float) -> None:
    asked = [
        "recommend",
        data,
        "--user",
        "u",
        "--model",
        model,
        "--include-seen",
        "--prior",
        "none",
    ]
    asked += ["--min-probability", threshold]
    code, out, err = run(*asked)
    assert code == 0, err
    shown = out.splitlines()[1:]
    value = answer(run, *asked)
    assert len(value["recommendations"]) == len(shown) < 3
    assert f"The list has {len(shown)} of 10 items" in err
    assert ("no item belongs in this list" in err) is (not shown)
    assert value["certificate"]["exact"] is True
    assert value["certificate"]["ties"] is False


def test_piped_titles_are_never_cut_and_cannot_break_lines(
    run: Run, tmp_path: Path, model: Path
) -> None:
    long = "x" * 300 + "\tend [red]bold[/red]"
    items, events = write(
        tmp_path,
        items=f'item_id,title\na,"{long}"\nb,"two\nlines \x1b[31m"\n',
        events="user_id,item_id,timestamp,behavior\nu,a,1,buy\n",
    )
    run("prepare", "--items", items, "--interactions", events, "--out", tmp_path / "o")
    code, out, _ = run("recommend", tmp_path / "o", "--history", "", "--model", model)
    assert code == 0
    assert len(out.splitlines()) == 3
    assert "x" * 300 + " end [red]bold[/red]" in out
    assert "two lines [31m" in out
    assert "\x1b" not in out


def test_few_shot(run: Run, data: Path, model: Path) -> None:
    value = answer(run, "prompt", data, "--history", "", "--model", model, "--few-shot", 1)
    assert value["template"] == "few_shot"
    assert value["text"].startswith("Another customer's history")


def test_index_and_match(
    run: Run, data: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "genrec.matching.matcher.load_embedder", lambda n, log: tiny.LatinEmbedder(n)
    )
    for _ in range(2):
        code, out, err = run("index", data, "--encoder", "mine")
        assert code == 0, err
        assert "3 of 3 distinct titles embedded with mine" in out
        assert "Search: exact; it finds 100.0% of the ten nearest titles." in out
    assert answer(run, "index", data)["unread"] == 0
    arguments = ["recommend", data, "--model", model, "--include-seen"]
    for encoder in ("auto", "mine", "ngrams", "none"):
        options = ["--history", "dlol", "--match-threshold", "0.5", "--encoder", encoder]
        (found,) = answer(run, *arguments, *options)["understood"]
        expected = {"ngrams": "ngrams", "none": "none"}.get(encoder, "embedding")
        assert found["match"] == expected
    value = answer(run, *arguments, "--user", "u", "--decoder", "match", "--n-samples", 5)
    assert value["decoder"] == "match"
    assert all(r["logprob"] is None for r in value["recommendations"])
    code, out, err = run(*arguments, "--user", "u", "--decoder", "match", "--encoder", "none")
    assert code == 0, err
    assert out.startswith("rank\tscore\titem_id\ttitle\tthe model wrote\tmatch")
    assert "Of 40 texts that the model wrote" in err


def test_explain(run: Run, data: Path, model: Path) -> None:
    arguments = ["recommend", data, "--user", "u", "--model", model, "--include-seen", "--explain"]
    for found in answer(run, *arguments)["recommendations"]:
        assert found["explanation"]["source"] in {"generated", "template"}
        assert found["explanation"]["text"].endswith(".")
    code, out, err = run(*arguments)
    assert code == 0, err
    assert out.splitlines()[0].endswith("\twhy")
    code, out, err = run(*arguments, "--language", "zh")
    table = out.split("\n\n")[0]
    assert all("。" in line for line in table.splitlines()[1:])


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["recommend", "DATA", "--user", "zz"], 6, "User 'zz' is not among the 2 users"),
        (["recommend", "DATA"], 2, "Neither --user nor --history was given"),
        (
            ["recommend", "DATA", "--user", "u", "--style", "short"],
            2,
            "Add --explain or --html",
        ),
        (["recommend", "DATA", "--user", "u", "--evidence", "fast"], 2, "need explanations"),
        (["recommend", "DATA", "--user", "u", "--history", ""], 2, "Both --user and --history"),
        (["recommend", "NOWHERE", "--user", "u"], 3, "is not a dataset folder"),
        (["recommend", "DATA", "--history", "", "--model", "no/such"], 5, "Ways to get a model"),
        (["recommend", "DATA", "--user", "u", "--template", "x"], 4, "few_shot, next_item"),
        (["recommend", "DATA", "--user", "u", "--decoder", "x"], 2, "Expected one of: trie"),
        (["recommend", "DATA", "--user", "u", "-k", "0"], 6, "k=0"),
        (["recommend", "DATA", "--history", "", "--device", "x"], 2, "device='x'"),
        (
            ["recommend", "DATA", "--user", "u", "--few-shot", "9", "--include-seen"],
            6,
            "Lower few_shot",
        ),
        (["prompt", "DATA", "--user", "u", "--max-prompt-tokens", "3"], 4, "budget of 3"),
        (
            ["prepare", "--items", "no.csv", "--interactions", "no.csv", "--out", "o"],
            3,
            "does not exist",
        ),
        (
            ["demo", "--language", "xx"],
            2,
            "There is no demo for language='xx'. Expected one of: en, zh.",
        ),
        (
            ["recommend", "DATA", "--user", "u", "--match-threshold", "nan"],
            2,
            "Expected a number of at least 0",
        ),
        (
            ["recommend", "DATA", "--user", "u", "--temperature", "0"],
            2,
            "Expected a number between 0 and 100",
        ),
        (
            ["recommend", "DATA", "--user", "u", "--n-samples", "10001"],
            2,
            "Expected a number of at most",
        ),
        (["index", "DATA", "--encoder", "ngrams"], 2, "does not produce vectors"),
        (["index", "DATA", "--encoder", ""], 5, "There is no such folder."),
        (["index", "NOWHERE"], 3, "is not a dataset folder"),
        (["frobnicate"], 2, "No such command"),
        (["recommend", "DATA", "--nope"], 2, "No such option"),
    ],
)
def test_mistakes_are_one_message_and_an_exit_code(
    run: Run, data: Path, model: Path, arguments: list[str], code: int, message: str
) -> None:
    given = [str(data) if a == "DATA" else a for a in arguments]
    if arguments[0] in {"recommend", "prompt"} and "--model" not in arguments:
        given += ["--model", str(model)]
    got, out, err = run(*given)
    assert got == code
    assert message in err
    assert "Traceback" not in out + err


def test_doctor(run: Run, model: Path) -> None:
    report = answer(run, "doctor", "--model", model)
    assert report["versions"]["genrec"]
    assert report["hardware"]["threads"] >= 1
    assert report["model"]["decoding"] == "token tree"
    told = report["model"]["attention by event"]  # on a CPU with fast bfloat16, it is the default
    first = "0.1 KiB as bfloat16" if fast_bf16_cpu() else "0.2 KiB as float32"
    assert told.startswith(f"yes; a token of a stored line takes {first}, ")
    kept = report["model"]["prompt memory"]
    assert kept.startswith(f"yes; a token of a prompt takes {first.partition(' as')[0]}; ")
    assert "free" in report["disk"]
    code, out, _ = run("doctor")
    assert code == 0
    assert "torch" in out


def test_the_cache_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genrec.models import packaged

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packaged.cache_folder() == tmp_path / "genrec"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    assert packaged.cache_folder() == Path.home() / ".cache" / "genrec"


def test_the_chinese_demo(run: Run, model: Path) -> None:
    value = answer(run, "demo", "--language", "zh", "--users", 1, "--model", model)
    assert [u["match"] for u in value["typed"]["understood"]] == ["exact", "exact", "normalized"]
    assert (value["dataset"], value["evaluation"]["protocol"]) == ("zh_mini", "last-out")
    assert value["caution"] == ""
    code, out, err = run("demo", "--language", "zh", "--users", 1, "--model", model)
    assert code == 0, err
    assert "英文模型" not in out
    for part in ("用户 u01 最近做了什么", "购买了\t", "用户的历史记录", "十条推荐", "命中率@10"):
        assert part in out


@pytest.mark.model
@pytest.mark.slow
def test_the_chinese_demo_warns_of_the_english_model_before_anything_else(run: Run) -> None:
    code, out, err = run("demo", "--language", "zh", "--users", 1, "--threads", 1)
    assert code == 0, err
    assert out.index("几乎读不懂中文") < out.index("barely read Chinese") < out.index("zh_mini")


@pytest.mark.model
@pytest.mark.slow
def test_demo_runs_and_reports(run: Run) -> None:
    value = answer(run, "demo", "--users", 2, "--threads", 1)
    assert len(value["customer"]["recommendations"]) == 10
    assert [u["match"] for u in value["typed"]["understood"]] == ["exact", "exact", "normalized"]
    assert list(value["evaluation"]["systems"]) == [
        "zero-shot", "zero-shot + prior", "tuned", "tuned + prior", "popular",
    ]  # fmt: skip
    (beside,) = value["beside"].values()
    assert len(beside["recommendations"]) == 10
    assert beside["recommendations"] != value["customer"]["recommendations"]
    code, out, err = run("demo", "--users", 1, "--threads", 1)
    assert code == 0, err
    for part in ("The data", "What the model reads", "Ten recommendations", "hit rate@10"):
        assert part in out
    assert "Recommendations after fine-tuning" in out
    assert "tuned + prior minus zero-shot\t" in out


@pytest.mark.skipif(not FULL, reason="only with scripts/test --full")
def test_demo_without_the_run_that_ships(run: Run) -> None:
    value = answer(run, "demo", "--users", 1, "--run", "none", "--threads", 1)
    assert list(value["evaluation"]["systems"]) == ["zero-shot", "zero-shot + prior", "popular"]


def test_evaluate(run: Run, shop: Path, model: Path, tmp_path: Path) -> None:
    base = ("evaluate", shop, "--model", model, "--users", 4, "--against", "popular")
    value = answer(run, *base, "--out", tmp_path / "out", "--report", tmp_path / "r.html",
                   "--report", tmp_path / "r.md")  # fmt: skip
    assert value["schema_version"] == 1
    assert (value["protocol"], value["users"]) == ("last-unit", 4)
    ours = f"{model.name} + prior"
    assert list(value["systems"]) == [ours, "popular"]
    assert value["setups"][ours]["prior"]["prior"] == "collaborative"
    assert set(value["systems"]["popular"]["ndcg@10"]) == {"mean", "low", "high"}
    names = {p.name for p in (tmp_path / "out").iterdir()}
    assert {
        "popular.parquet",
        "popular.jsonl",
        "result.json",
        f"{model.name}-prior.parquet",
    } <= names
    assert (tmp_path / "r.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")
    code, out, _ = run(*base, "--out", tmp_path / "out")
    assert code == 0
    assert out.splitlines()[0] == f"metric\t{ours}\tpopular"
    assert f"{ours} is the model {model} with the collaborative prior (weight " in out
    assert json.loads((tmp_path / "out" / "result.json").read_text())["setups"] == value["setups"]
    assert "Seen items are" in out


@pytest.mark.slow
def test_evaluate_goes_on_after_kill_9(run: Run, shop: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["evaluate", shop, "--model", model, "--against", "popular", "--users", 30]
    command = [sys.executable, "-m", "genrec.cli.main", *arguments, "--out", tmp_path / "out"]
    log = tmp_path / "out" / f"{model.name}-prior.jsonl"
    killed = subprocess.Popen(list(map(str, command)), stdout=subprocess.DEVNULL)
    while not log.exists() or log.read_bytes().count(b"\n") < 2:
        assert killed.poll() is None
        time.sleep(0.01)
    killed.kill()
    assert killed.wait() == -signal.SIGKILL
    kept = log.read_bytes()
    assert not (tmp_path / "out" / "result.json").exists()
    log.write_bytes(kept + b'{"system": "cut of')  # a line that the kill cut off
    value = answer(run, *arguments, "--out", tmp_path / "out")
    assert log.read_bytes().startswith(kept[: kept.rfind(b"\n") + 1])
    assert log.read_bytes().count(b"\n") == 30
    whole = answer(run, *arguments, "--out", tmp_path / "whole")
    for each in (value, whole):
        for system in each["systems"].values():
            del system["seconds"]
    assert value["systems"] == whole["systems"]
    assert value["slices"] == whole["slices"]


def test_slices_are_shown_on_request(run: Run, shop: Path) -> None:
    arguments = ("evaluate", shop, "--no-model", "--against", "popular")
    code, plain, _ = run(*arguments)
    assert code == 0
    assert "by slice" not in plain
    code, shown, _ = run(*arguments, "--slices")
    assert code == 0
    for words in ("ndcg@10 by slice", "hit_rate@10 by slice", "popularity", "fewer than 20 users"):
        assert words in shown
    value = answer(run, *arguments)
    for kind, labels in value["slices"].items():
        assert sum(each["users"] for each in labels.values()) == value["users"]
        assert all(
            bool(each["systems"]["popular"]) for each in labels.values() if each["users"] >= 20
        )
        assert all(each["systems"] == {} for each in labels.values() if each["users"] < 20), kind
    code, _, err = run("evaluate", shop, "--explanations", "--slices")
    assert code == 2
    assert "--explanations does not work with --slices" in err


def test_evaluate_without_a_model(run: Run, shop: Path, tmp_path: Path) -> None:
    value = answer(run, "evaluate", shop, "--no-model", "--against", "popular",
                   "--protocol", "candidates-20")  # fmt: skip
    assert list(value["systems"]) == ["popular"]
    assert value["users"] == 60
    assert "hit_rate@1" in value["systems"]["popular"]
    for wrong, said in (
        (("--report", tmp_path / "r.pdf"), "ends with .html or .md"),
        (("--protocol", "x"), "Unknown value protocol='x'"),
        (("--against", "best"), "'best' is not a known system"),
        (("--against", "none"), "No systems were given"),
        (("--users", 0), "users=0"),
    ):
        code, out, err = run("evaluate", shop, "--no-model", *wrong)
        assert code in {2, 6}
        assert said in err
        assert not out


@pytest.mark.parametrize(
    ("options", "baselines"),
    [
        ((), ["popular", "markov"]),  # zh_mini leaves seen items out
        (("--include-seen",), ["popular", "recent", "frequent", "markov"]),
        (("--exclude-seen",), ["popular", "markov"]),
        (("--include-seen", "--against", "recent"), ["recent"]),
    ],
)
def test_the_default_baselines_repeat_only_where_seen_items_may_return(
    run: Run, shop: Path, options: tuple[str, ...], baselines: list[str]
) -> None:
    value = answer(run, "evaluate", shop, "--no-model", "--users", 3, *options)
    assert list(value["systems"]) == baselines


def test_audit(run: Run, shop: Path, tmp_path: Path) -> None:
    table = tmp_path / "published.csv"
    table.write_text("model,HR@10,NDCG@10\ntheirs,.0400,.0450\n")
    code, out, err = run("audit", shop, "--table", table)
    assert code == 0, err
    assert "NDCG@10 0.045 is above HR@10 0.04" in out
    warnings = sum(line.startswith("warning\t") for line in out.splitlines())
    assert f"; warnings: {warnings}, " in out.splitlines()[0]
    assert warnings >= 1
    value = answer(run, "audit", shop)
    assert {"users", "ties", "shared titles", "future", "counting"} <= {
        f["check"] for f in value["findings"]
    }


def test_rank_and_score_given_items(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    listed = tmp_path / "items.txt"
    listed.write_text("b\na\n\nb\n", encoding="utf-8")
    arguments = [data, "--history", "a", "--model", model]
    scored = answer(run, "score", *arguments, "--items", listed)
    assert {r["item_id"] for r in scored["recommendations"]} == {"a", "b"}
    assert scored["seen"] == "included"
    assert scored["certificate"]["exact"]
    everything = answer(run, "score", *arguments)
    assert len(everything["recommendations"]) == 3
    values = {r["item_id"]: r["logprob"] for r in everything["recommendations"]}
    for r in scored["recommendations"]:
        assert r["logprob"] == pytest.approx(values[r["item_id"]], abs=1e-4)
    ranked = answer(run, "rank", *arguments, "--items", listed, "--exclude-seen")
    assert [r["item_id"] for r in ranked["recommendations"]] == ["b"]
    assert ranked["seen"] == "excluded, except items with only view events"
    code, _, err = run("rank", *arguments, "--items", listed, "--show", "all")
    assert code == 0
    assert "Exact top 1." in err
    asked = [*arguments, "--items", listed, "--include-seen", "--allow-last-basket"]
    code, _, err = run("rank", *asked)
    assert code == 0
    assert "Exact top 2." in err
    listed.write_text("nobody\n", encoding="utf-8")
    code, _, err = run("score", *arguments, "--items", listed)
    assert code == 6
    assert "'nobody' is not in the catalog" in err
    for content in (b"", b"\xff\xfe\x00"):
        listed.write_bytes(content)
        code, _, err = run("rank", *arguments, "--items", listed)
        assert code == 3
        assert "one item_id per line" in err


def test_recommend_with_wishes(run: Run, data: Path, model: Path, tmp_path: Path) -> None:
    arguments = ["recommend", data, "--history", "", "--model", model, "--include-seen"]
    listed = tmp_path / "deny.txt"
    listed.write_text("a\n", encoding="utf-8")
    found = answer(run, *arguments, "--deny", listed)
    assert {r["item_id"] for r in found["recommendations"]} == {"b", "c"}
    found = answer(run, *arguments, "--where", 'item_id != "b"', "--allow", listed)
    assert [r["item_id"] for r in found["recommendations"]] == ["a"]
    for how in ("auto", "exact", "beam", "sample"):
        found = answer(run, *arguments, "--search", how, "--prior", "popularity", "-k", 2)
        assert len(found["recommendations"]) == 2
        assert set(found["certificate"]) == {
            "exact", "ties", "certain_ranks", "missed_mass_bound", "nodes", "tokens",
        }  # fmt: skip
    for wrong, message in (
        (("--where", "os.system('x')"), "Expected"),
        (("--cap", "brand"), "COLUMN=N"),
        (("--cap", "title=x"), "whole number"),
        (("--search", "best"), "is not known"),
        (("--prior-weight", -1), "prior_weight"),
        (("--allow", tmp_path / "none"), "cannot be read"),
    ):
        code, _, err = run(*arguments, *wrong)
        assert code in {2, 3, 6}, (wrong, code)
        assert message in err


def test_help_keeps_its_defaults() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "genrec.cli.main", "recommend", "--help-all"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    assert "max(2k, 20)" in done.stdout
    assert "repeats are common in the data" in done.stdout


def test_a_reader_that_goes_away(tmp_path: Path) -> None:
    code = "import sys; sys.argv=['genrec','doctor','--json']; from genrec.cli.main import main; main()"
    done = subprocess.run(
        f'{sys.executable} -c "{code}" | head -c 1; echo ${{PIPESTATUS[0]}}',
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        check=True,
    )
    assert "Traceback" not in done.stderr
    assert done.stdout.strip().endswith(("141", "0"))


def test_a_full_disk_for_output() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    done = subprocess.run(
        f"{sys.executable} -m genrec.cli.main --version > /dev/full",
        shell=True,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode != 0
    assert "Traceback" not in done.stderr


def test_escapes_in_ids_do_not_reach_the_terminal(run: Run, tmp_path: Path, model: Path) -> None:
    events = "user_id,item_id,timestamp,behavior\n\x1b[31mEVIL,a,1,\x1b[1mbuy\n"
    items, path = write(tmp_path, events=events)
    asked = ("prepare", "--items", items, "--interactions", path, "--out", tmp_path / "o")
    code, _, err = run(*asked, "--name", "\x1b[5m")
    assert code == 2
    assert "\x1b" not in err
    code, out, err = run(*asked)
    assert code == 0, err
    assert "\x1b" not in out
    code, _, err = run("recommend", tmp_path / "o", "--user", "x", "--model", model)
    assert "EVIL" in err
    assert "\x1b[31mEVIL" not in err
