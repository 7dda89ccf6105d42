"""Batches: every row is answered once or rejected, and an interrupted batch continues with the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from support.amount import FULL
from support.limits import full_disk
from support.tiny_runs import saved

from genrec import Recommender
from genrec.batch import BatchError, Job, Report, run
from genrec.data.datasets import load
from genrec.data.erasing import erase_from_results
from genrec.errors import DataError, GenrecError, RequestError, SettingsError
from genrec.models.language_model import LanguageModel

USERS = ["u01", "u02", "nobody", "u03", "u01", "", "u04", "u05", "u06", "u07", "u08", "u09"]
K = 3


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(saved(tmp_path_factory.mktemp("model")))


@pytest.fixture(scope="module")
def job(model: str, tmp_path_factory: pytest.TempPathFactory) -> Job:
    users = tmp_path_factory.mktemp("users") / "users.csv"
    users.write_text("user_id,note\n" + "".join(f'"{u}",x\n' for u in USERS), encoding="utf-8")
    return Job(
        data="zh_mini", users=str(users), model=model, loading={"threads": 1, "device": "cpu"},
        settings={"prior": "none"}, options={"k": K}, shard_size=4, batch_size=2,
    )  # fmt: skip


@pytest.fixture(scope="module")
def whole(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Report]:
    """The output of a batch that was not interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "out"
    return folder, run(job, folder)


def parquet(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.glob("*.parquet")}


def table(folder: Path, kind: str) -> list[dict[str, Any]]:
    files = sorted(folder.glob(f"{kind}-*.parquet"))
    return [row for file in files for row in pq.read_table(file).to_pylist()]


def test_every_row_is_answered_or_rejected(whole: tuple[Path, Report]) -> None:
    folder, report = whole
    answers, rejected = table(folder, "part"), table(folder, "rejected")
    rows = [a["row"] for a in answers] + [r["row"] for r in rejected]
    assert sorted(rows) == list(range(1, len(USERS) + 1))
    assert {r["row"]: r["reason"] for r in rejected} == {
        3: "user 'nobody' is not in the dataset",
        5: "the same user as row 1",
        6: "user_id is empty",
    }
    assert [a["id"] for a in answers] == [USERS[a["row"] - 1] for a in answers]
    assert (report.answered, report.rejected, report.shards, report.resumed) == (9, 3, 3, 0)
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["finished"]
    assert (manifest["answered"], manifest["rejected"]) == (9, 3)


def test_the_lists_are_those_of_a_recommender(job: Job, whole: tuple[Path, Report]) -> None:
    data = load("zh_mini")
    loaded = LanguageModel.load(str(job.model), device="cpu", threads=1)
    recommender = Recommender(data, loaded, prior="none")
    for answer in table(whole[0], "part")[:4]:
        wanted = recommender.recommend(data.interactions.history(answer["id"]), K)
        assert [i["item_id"] for i in answer["items"]] == [r.item_id for r in wanted]
        scores = [i["score"] for i in answer["items"]]
        assert scores == pytest.approx([r.score for r in wanted], abs=1e-4)
        assert answer["exact"] == wanted.details["certificate"]["exact"]


def test_finished_shards_are_kept(job: Job, whole: tuple[Path, Report], tmp_path: Path) -> None:
    expected = parquet(whole[0])
    for name in ("part-000000.parquet", "rejected-000000.parquet", "part-000002.parquet"):
        (tmp_path / name).write_bytes(expected[name])
    manifest = json.loads((whole[0] / "manifest.json").read_text(encoding="utf-8"))
    del manifest["shards"]["2"]  # it ended after the file was written and before it was noted
    (tmp_path / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    kept = (tmp_path / "part-000002.parquet").stat().st_mtime_ns
    report = run(job, tmp_path)
    assert (report.resumed, report.answered, report.rejected) == (2, 9, 3)
    assert parquet(tmp_path) == expected
    assert (tmp_path / "part-000002.parquet").stat().st_mtime_ns == kept


def command(job: Job, out: Path, *more: str) -> list[str]:
    return [
        sys.executable, "-m", "genrec", "batch", job.data, "--users", str(job.users), "--out", str(out),
        "--model", str(job.model), "--threads", "1", "--device", "cpu", "--prior", "none", "-k", str(K),
        "--shard-size", str(job.shard_size), "--batch-size", str(job.batch_size), *more,
    ]  # fmt: skip


def children(process: int) -> list[int]:
    """The worker processes that a process has started."""
    found = subprocess.run(
        ["ps", "-o", "pid=,args=", "--ppid", str(process)],
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    return [int(line.split()[0]) for line in found.splitlines() if "genrec.batch.worker" in line]


@contextmanager
def started(arguments: list[str]) -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("round_", range(20 if FULL else 1))
def test_a_killed_process_loses_nothing(
    job: Job, whole: tuple[Path, Report], tmp_path: Path, round_: int
) -> None:
    rng = random.Random(round_)
    arguments = command(job, tmp_path, "--workers", "2")
    with started(arguments) as process:
        victims: list[int] = []
        while not victims and process.poll() is None:
            time.sleep(0.05)
            victims = children(process.pid)
        time.sleep(rng.uniform(0, 8))
        if round_ % 2 == 0:  # a worker: another one takes its place
            for victim in children(process.pid)[:1]:
                os.kill(victim, signal.SIGKILL)
            assert process.wait(300) == 0
        else:
            process.kill()
            process.wait()
    if round_ % 2:
        done = subprocess.run(arguments, capture_output=True, check=False, text=True)
        assert done.returncode == 0, done.stderr
    assert parquet(tmp_path) == parquet(whole[0])


def test_a_process_that_always_ends_fails_the_batch(
    job: Job, whole: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(BatchError, match=r"Shard \d, .* its process ended 3 times.* exit status 1"):
        run(job, tmp_path, workers=2)
    monkeypatch.undo()
    assert run(job, tmp_path).answered == 9  # the same call continues
    assert parquet(tmp_path) == parquet(whole[0])


def test_a_killed_process_is_explained_by_memory(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    killed = tmp_path / "killed"
    killed.write_text("#!/bin/sh\nkill -9 $$\n", encoding="utf-8")
    killed.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(killed))
    with pytest.raises(BatchError, match=r"signal SIGKILL.*memory runs out\. Use fewer --workers"):
        run(job, tmp_path / "out", workers=2)


LITTLE_MEMORY = """
import json, resource, sys
from genrec.batch import Job, run
job = Job.of(json.loads(sys.argv[1]))
run(Job.of({**job.to_dict(), "users": None, "shard_size": 60}), sys.argv[2])  # loads everything
pages = int(open("/proc/self/statm").read().split()[0])
limit = pages * resource.getpagesize() + (24 << 20)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
from genrec.batch import BatchError
try:
    run(job, sys.argv[3])
except BatchError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="limits memory as Linux does")
def test_memory_that_runs_out_is_said_with_what_to_change(job: Job, tmp_path: Path) -> None:
    ids = [item.item_id for item in load("zh_mini").catalog]
    users = tmp_path / "long.parquet"
    pq.write_table(pa.table({"items": [(ids * 9)[:400]] * 400}), users)
    settings = {**job.settings, "max_events": 400}
    large = replace(job, users=str(users), settings=settings, shard_size=400, batch_size=400)
    arguments = [json.dumps(large.to_dict()), str(tmp_path / "few"), str(tmp_path / "out")]
    done = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY, *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("Shard 0 could not be computed. Memory ran out: "), done.stderr
    assert "Use fewer --workers, a smaller --batch-size, or a smaller model." in done.stdout


def test_a_full_disk_is_an_error_and_the_batch_continues(
    job: Job, whole: tuple[Path, Report], tmp_path: Path
) -> None:
    run(replace(job, options={"k": 1}), tmp_path / "other")  # loads what is cached
    few = tmp_path / "out"
    few.mkdir()
    with full_disk(200), pytest.raises(OSError, match="too large"):
        run(job, few)
    assert not list(few.glob("part-*"))
    assert run(job, few).answered == 9
    assert parquet(few) == parquet(whole[0])


def test_another_job_does_not_touch_the_folder(job: Job, whole: tuple[Path, Report]) -> None:
    before = parquet(whole[0])
    with pytest.raises(
        SettingsError, match=r"differs in options \(before: \{'k': 3\}, now: \{'k': 4\}\)"
    ):
        run(replace(job, options={"k": 4}), whole[0])
    assert parquet(whole[0]) == before


def test_a_folder_with_something_else_is_refused(job: Job, tmp_path: Path) -> None:
    (tmp_path / "holiday.txt").write_text("sun", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"holds 'holiday\.txt' but no manifest\.json"):
        run(job, tmp_path)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        ({"task": "dance"}, "task='dance' is not valid. Expected one of recommend, explain, score"),
        ({"task": "score"}, "needs items"),
        ({"items": ["g001"]}, "items can only be used with task='score'"),
        ({"shard_size": 0}, "shard_size=0 is not valid"),
        ({"settings": {"priors": "none"}}, "priors"),
    ],
)
def test_invalid_jobs(job: Job, values: dict[str, Any], error: str) -> None:
    with pytest.raises(GenrecError, match=error):
        replace(job, **values)


def test_an_unknown_engine_and_a_missing_package(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(
        SettingsError, match=r"engine='spark' is not valid. Expected one of local, ray"
    ):
        run(job, tmp_path, engine="spark")
    monkeypatch.setattr("genrec.batch.ray_engine.find_spec", lambda name: None)
    with pytest.raises(
        SettingsError, match=r"needs the package ray. Install it with: .*ray\[data\]"
    ):
        run(job, tmp_path, engine="ray")


def test_invalid_options_are_an_error_before_anything_is_written(job: Job, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="nothing"):
        run(replace(job, options={"where": "nothing > 3"}), tmp_path)
    assert not list(tmp_path.glob("part-*"))


def rows_of(job: Job, path: Path, tmp_path: Path) -> tuple[list[dict[str, Any]], dict[int, str]]:
    out = tmp_path / "out"
    run(replace(job, users=str(path), shard_size=100), out)
    return table(out, "part"), {r["row"]: r["reason"] for r in table(out, "rejected")}


def test_typed_histories(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "typed.jsonl"
    title = load("zh_mini").catalog[0].title
    lines = [
        {"id": "a", "history": title},
        {"id": "b", "history": ""},
        {"id": "a", "history": title},
    ]
    path.write_text("".join(json.dumps(x) + "\n" for x in lines) + "broken\n", encoding="utf-8")
    answers, rejected = rows_of(job, path, tmp_path)
    assert [(a["id"], a["events"], len(a["items"])) for a in answers] == [("a", 1, K), ("b", 0, K)]
    assert rejected[3] == "the same id as row 1"
    assert set(rejected) == {3, 4}


def test_sessions(job: Job, tmp_path: Path) -> None:
    ids = [item.item_id for item in list(load("zh_mini").catalog)[:3]]
    sessions = [ids, [ids[0], "lost"], ["lost"], [], None]
    path = tmp_path / "sessions.parquet"
    pq.write_table(pa.table({"items": sessions}), path)
    answers, rejected = rows_of(job, path, tmp_path)
    assert [(a["row"], a["events"]) for a in answers] == [(1, 3), (2, 1), (4, 0), (5, 0)]
    assert any("'lost'" in note for note in answers[1]["notes"])
    assert rejected == {3: "no item of the session is in the catalog: 'lost'"}
    text = tmp_path / "sessions.csv"
    text.write_text(
        f'items\n{"|".join(ids)}\n"[""{ids[0]}"", ""lost""]"\n"[1, {{}}]"\n', encoding="utf-8"
    )
    again, wrong = rows_of(job, text, tmp_path / "text")
    assert [a["items"] for a in again] == [a["items"] for a in answers[:2]]
    assert "is not a list of item_ids" in wrong[3]


def test_files_without_one_column_of_histories(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "wrong.csv"
    path.write_text("user,age\nu01,3\n", encoding="utf-8")
    with pytest.raises(
        DataError, match="exactly one of the columns user_id, history, items; found user, age"
    ):
        run(replace(job, users=str(path)), tmp_path / "out")
    path.write_text("user_id,items\nu01,g001\n", encoding="utf-8")
    with pytest.raises(DataError, match="user_id and items"):
        run(replace(job, users=str(path)), tmp_path / "out")


def test_a_user_is_erased_from_the_lists(job: Job, tmp_path: Path) -> None:
    run(job, tmp_path)
    before = table(tmp_path, "part")
    assert erase_from_results(tmp_path, "u03") == 1
    assert erase_from_results(tmp_path, "nobody") == 1  # a rejected row names a user, too
    assert table(tmp_path, "part") == [row for row in before if row["id"] != "u03"]
    assert not any(b"nobody" in path.read_bytes() for path in tmp_path.glob("*.parquet"))


@pytest.mark.parametrize("settings", [{"prompt_memory": 64}, {"attention": "by_event"}])
def test_what_is_kept_of_earlier_shards_changes_nothing(
    job: Job, tmp_path: Path, settings: dict[str, Any]
) -> None:
    wanted = replace(job, settings={**job.settings, **settings})
    run(wanted, tmp_path / "whole")
    shutil.copytree(tmp_path / "whole", tmp_path / "again")
    (tmp_path / "again" / "part-000002.parquet").unlink()
    run(wanted, tmp_path / "again")  # a new recommender, which has kept nothing
    assert parquet(tmp_path / "again") == parquet(tmp_path / "whole")


def test_scores_and_explanations(job: Job, tmp_path: Path) -> None:
    path = tmp_path / "users.csv"
    path.write_text("user_id\nu01\nu02\n", encoding="utf-8")
    items = [item.item_id for item in list(load("zh_mini").catalog)[:4]]
    plain = replace(job, users=str(path), options={})
    run(replace(plain, task="score", items=items), tmp_path / "scores")
    scores = table(tmp_path / "scores", "part")
    assert [sorted(i["item_id"] for i in a["items"]) for a in scores] == [sorted(items)] * 2
    run(replace(plain, task="explain", options={"k": 1}), tmp_path / "explained")
    for answer in table(tmp_path / "explained", "part"):
        told = json.loads(answer["items"][0]["explanation"])
        assert told["text"]


@pytest.mark.skipif(not FULL, reason="starts Ray; scripts/test --full runs it")
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_ray_writes_the_same_bytes(job: Job, whole: tuple[Path, Report], tmp_path: Path) -> None:
    pytest.importorskip("ray")
    report = run(job, tmp_path, engine="ray", workers=2)
    assert (report.answered, report.rejected) == (9, 3)
    assert parquet(tmp_path) == parquet(whole[0])


class Dying:
    """An actor that is killed at every shard; it has no module, so Ray sends it with its code."""

    def __init__(self, folder: str, threads: int | None) -> None:
        del folder, threads

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        os.kill(os.getpid(), signal.SIGKILL)
        return row


@pytest.mark.skipif(not FULL, reason="starts Ray; scripts/test --full runs it")
@pytest.mark.filterwarnings("ignore")  # of Ray's own code
def test_an_actor_that_always_dies_fails_the_batch(
    job: Job, whole: tuple[Path, Report], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("ray")
    from ray import cloudpickle

    cloudpickle.register_pickle_by_value(sys.modules[Dying.__module__])
    monkeypatch.setattr("genrec.batch.ray_engine._Actor", Dying)
    with pytest.raises(BatchError, match=r"An actor of Ray ended 3 times.*memory may have run out"):
        run(job, tmp_path, engine="ray", workers=2)
    monkeypatch.undo()
    assert run(job, tmp_path).answered == 9  # the same call continues
    assert parquet(tmp_path) == parquet(whole[0])
