"""The files that operators use are true: dashboard, alerts, image, services and their scripts."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import sqlalchemy as sa
import yaml
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient
from support import served
from support.amount import FULL
from support.commands import Run
from support.served import recommend, service_of

from genrec.service.tables import FILE
from genrec.service.worker import Job

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "scripts" / "deploy"
DASHBOARD = json.loads((DEPLOY / "grafana.json").read_text(encoding="utf-8"))
ALERTS = yaml.safe_load((DEPLOY / "alerts.yaml").read_text(encoding="utf-8"))
RULES = [rule for group in ALERTS["groups"] for rule in group["rules"]]
OF_PROMETHEUS = {"up": {"job", "instance"}}
OF_TARGETS = {"job", "instance"}  # labels that Prometheus adds to what it reads


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, set[str]]]:
    """The labels of each sample of /metrics with their values, after requests of all kinds."""
    with served.opened(tmp_path_factory.mktemp("metrics")) as client:
        use(client)
        text = client.get("/metrics").text
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
    return found


def use(client: TestClient) -> None:
    recommend(client, user_id="u1", k=2)
    opened = threading.Event()
    held = service_of(client).worker.submit(Job(lambda given: [opened.wait(60)], None))
    assert recommend(client, user_id="u1", k=2, deadline_ms=10)["fallback"] == "deadline"
    opened.set()
    assert held.result(60)
    client.post("/v1/feedback", json={"user_id": "u1", "item_id": "i0", "behavior": "buy"})


def expressions() -> list[tuple[str, str]]:
    """The title and the text of each expression of the dashboard and of the alerts."""
    panels = [(p["title"], t["expr"]) for p in DASHBOARD["panels"] for t in p["targets"]]
    return [*panels, *((rule["alert"], rule["expr"]) for rule in RULES)]


@pytest.mark.parametrize(
    "expression", [e for _, e in expressions()], ids=[t for t, _ in expressions()]
)
def test_expressions_name_metrics_labels_and_values_that_exist(
    expression: str, samples: dict[str, dict[str, set[str]]]
) -> None:
    known = {**{n: {*labels} for n, labels in samples.items()}, **OF_PROMETHEUS}
    text = re.sub(r'"[^"]*"', '""', expression)
    by = re.findall(r"\bby \(([^)]*)\)", text)
    bare = re.sub(r"\bby \([^)]*\)|\{[^}]*\}|\[[^]]*\]", "", text)
    names = set(re.findall(r"\b(?:genrec_|process_)\w+|\bup\b", bare))
    assert names
    for name in names:
        assert name in known, name
    for label in {part.strip() for group in by for part in group.split(",")}:
        assert any(label in known[n] | OF_TARGETS for n in names), label
    for name, matchers in re.findall(r"\b(\w+)\{([^}]*)\}", expression):
        for label, kind, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
            assert label in known[name] | OF_TARGETS, (name, label)
            if kind == "=" and label not in OF_TARGETS:
                assert value in samples[name][label], (name, label, value)


def test_every_panel_shows_something_of_its_own_and_legends_name_labels() -> None:
    ids = [p["id"] for p in DASHBOARD["panels"]]
    assert len(set(ids)) == len(ids)
    for panel in DASHBOARD["panels"]:
        assert panel["description"]
        for target in panel["targets"]:
            for label in re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]):
                grouped = re.search(rf"by \([^)]*\b{label}\b[^)]*\)", target["expr"])
                assert grouped or (label == "instance" and "sum" not in target["expr"])


def test_the_guide_lists_every_metric(samples: dict[str, dict[str, set[str]]]) -> None:
    guide = (ROOT / "docs" / "guides" / "production.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"`(genrec_\w+)`", guide))
    names = {re.sub(r"_(bucket|sum|count|created|total)$", "", n) for n in samples}
    own = {n for n in names if n.startswith("genrec_")}
    assert own == {re.sub(r"_total$", "", n) for n in listed}


# The image


def instructions(name: str) -> list[str]:
    """The arguments of each instruction of this name in the Dockerfile, with its lines joined."""
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8").replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.M)


def test_the_image_is_made_by_scripts_that_exist() -> None:
    called = [re.findall(r"/source/(\S+)", step) for step in instructions("RUN")]
    scripts = [ROOT / name for names in called for name in names]
    assert {s.name for s in scripts} == {"install", "fetch-model", "try.py"}
    for script in scripts:
        assert script.is_file(), script
        assert script.suffix == ".py" or os.access(script, os.X_OK), script
    for step in instructions("RUN"):
        plain = re.match("useradd|mkdir", step)
        assert plain or "/source/scripts/deploy/" in step, step
        assert not re.search(r"\b(apt|apt-get|pip|curl|wget)\b", step), step


def test_the_image_is_pinned_not_root_and_has_a_health_check() -> None:
    (base,) = [a.partition("=")[2] for a in instructions("ARG") if a.startswith("BASE=")]
    assert re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+", base)
    assert {i.split()[0] for i in instructions("FROM")} == {"${BASE}"}
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", user)
    (health,) = instructions("HEALTHCHECK")
    command = json.loads(health.partition("CMD ")[2])
    assert command[0] == "python"
    assert f"scripts/deploy/healthy.py {command[1]}" in instructions("COPY")
    assert "/healthz" in (DEPLOY / "healthy.py").read_text(encoding="utf-8")
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert kept >= {"genrec", "prompts", "scripts/deploy", "scripts/sbom.py", "constraints.txt"}
    assert all((ROOT / name).exists() for name in kept)


def options(arguments: list[str]) -> set[str]:
    return {a.partition("=")[0] for a in arguments if a.startswith("-")}


def test_image_and_services_use_options_that_exist(run: Run) -> None:
    _, out, _ = run("serve", "--help-all")
    known = set(re.findall(r"(?<!\w)--[a-z][a-z-]*", out))
    (command,) = (json.loads(c) for c in instructions("CMD"))
    assert command[0] == "serve"
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"]
    composed = services["genrec"]["command"]
    assert composed[0] == "serve"
    assert options(command) | options(composed) <= known
    assert (ROOT / services["genrec"]["build"]["dockerfile"]).is_file()
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+", services["database"]["image"])
    assert all(p.startswith("127.0.0.1:") for p in services["genrec"]["ports"])
    assert "ports" not in services["database"]
    (store,) = [a.partition("=")[2] for a in composed if a.startswith("--store=")]
    url = sa.engine.make_url(store)
    assert (url.get_backend_name(), url.password) == ("postgresql", None)
    assert url.username == services["database"]["environment"]["POSTGRES_USER"]


@pytest.mark.skipif(not FULL, reason="installs everything; scripts/test --full runs it")
def test_the_steps_of_the_image_work_in_an_empty_folder(tmp_path: Path) -> None:
    place = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "GENREC_PYTHON": sys.executable}
    steps: list[list[str | Path]] = [
        [DEPLOY / "install", "genrec"],
        [DEPLOY / "fetch-model", "genrec", "models"],
        ["genrec/bin/python", DEPLOY / "try.py", "genrec", "models"],
    ]
    for step in steps:
        subprocess.run(step, cwd=tmp_path, env={**os.environ, **place}, check=True)
    document = json.loads((tmp_path / "genrec" / "sbom.json").read_text(encoding="utf-8"))
    names = {c["name"] for c in document["components"]}
    assert names >= {"fastapi", "opentelemetry-sdk", "psycopg", "torch"}
    assert not names & {"pytest", "mypy"}


def test_the_guides_copy_has_what_was_acknowledged_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    guide = (ROOT / "docs" / "guides" / "production.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", guide, re.S)
    shop, other = tmp_path / "shop", tmp_path / "other"
    shop.mkdir()
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    stop = threading.Event()
    with served.opened(shop) as client:

        def feed() -> None:
            while not stop.is_set():
                served.buy(client, "busy", "i3")

        feeder = threading.Thread(target=feed)
        feeder.start()
        try:
            for number in range(3):
                served.buy(client, f"new{number}", "i4", "i5")
                client.put(f"/v1/items/n{number}", json={"title": f"new {number}"})
            exec(compile(block, "guide", "exec"), {})
        finally:
            stop.set()
            feeder.join()
        assert (shop / f"{FILE}-wal").exists()  # so a copy of the file alone would miss something
    (tmp_path / "backup.db").rename(other / FILE)
    with served.opened(other) as client:
        for number in range(3):
            assert client.get(f"/v1/users/new{number}").json()["events"] == 2
            assert client.get(f"/v1/items/n{number}").status_code == 200
        assert client.get("/v1/users/busy").json()["events"] >= 1
