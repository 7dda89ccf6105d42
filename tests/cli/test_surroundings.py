"""Commands in poor surroundings: an output in another encoding, a full pipe, no home, another user."""

from __future__ import annotations

import io
import json
import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.amount import FULL
from support.commands import Run
from support.limits import umask
from support.shop_files import write
from support.tiny_runs import saved

import genrec
from genrec.cli import main
from genrec.data.datasets import load
from genrec.errors import ModelError
from genrec.models import packaged

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def chinese(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A dataset with Chinese titles, and a tiny model."""
    folder = tmp_path_factory.mktemp("chinese")
    load("zh_mini").save(folder / "data")
    return folder / "data", saved(folder)


def printed(
    monkeypatch: pytest.MonkeyPatch, encoding: str, *arguments: object
) -> tuple[int, str, str]:
    """Run a command whose streams have an encoding, and return its code and what it printed."""
    buffers = io.BytesIO(), io.BytesIO()
    out = io.TextIOWrapper(buffers[0], encoding, write_through=True)
    err = io.TextIOWrapper(buffers[1], encoding, "backslashreplace", write_through=True)
    with monkeypatch.context() as patch:
        patch.setattr(sys, "argv", ["genrec", *map(str, arguments)])
        patch.setattr(sys, "stdout", out)
        patch.setattr(sys, "stderr", err)
        with pytest.raises(SystemExit) as stop:
            main.main()
    printed_out, printed_err = (buffer.getvalue().decode(encoding) for buffer in buffers)
    return int(stop.value.code or 0), printed_out, printed_err


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "gb18030"])
@pytest.mark.parametrize(
    "command",
    [
        ["recommend", "--user", "u01", "-k", 2],
        ["recommend", "--history", "购买：没有", "-k", 2],
        ["explain", "--user", "u01", "--item", "g001"],
        ["prompt", "--user", "u01"],
        ["audit"],
        ["recommend", "--user", "没有"],
    ],
)
def test_every_encoding_of_the_output_works(
    monkeypatch: pytest.MonkeyPatch,
    chinese: tuple[Path, Path],
    encoding: str,
    command: list[object],
) -> None:
    data, model = chinese
    name, *more = command
    more = [name, data, *more, *([] if name == "audit" else ["--model", model])]
    code, out, err = printed(monkeypatch, encoding, *more)
    assert code == (6 if "没有" in command else 0), err
    if name == "recommend" and code == 0:
        assert len(out.splitlines()) == 3 or "--history" in command
        assert ("??" in out) == (encoding != "gb18030")
    if name == "explain":
        assert ("█" in out or "░" in out) == (encoding == "gb18030")
        assert ("falls (#) or rises (-)" in err) == (encoding != "gb18030")


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_json_is_whole_in_every_encoding(
    monkeypatch: pytest.MonkeyPatch, chinese: tuple[Path, Path], encoding: str
) -> None:
    data, model = chinese
    asked = ["recommend", data, "--user", "u01", "-k", 2, "--model", model, "--json"]
    code, out, err = printed(monkeypatch, encoding, *asked)
    assert code == 0, err
    titles = [r["title"] for r in json.loads(out)["recommendations"]]
    assert len(titles) == 2
    assert all(title in load("zh_mini").catalog.titles for title in titles)


def test_a_text_that_no_encoding_has_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file name of other bytes is a lone surrogate in Python."""
    code, _, err = printed(monkeypatch, "utf-8", "audit", "no\udcffsuch")
    assert code == 3
    assert "is not a dataset folder" in err


def test_a_terminal_that_is_not_in_unicode(chinese: tuple[Path, Path]) -> None:
    pty = pytest.importorskip("pty")
    ours, theirs = pty.openpty()
    asked = ["audit", str(chinese[0])]
    environment = os.environ | {"PYTHONIOENCODING": "ascii", "TERM": "xterm", "COLUMNS": "200"}
    process = subprocess.Popen(
        [sys.executable, "-m", "genrec", *asked], stdout=theirs, stderr=theirs, env=environment
    )
    os.close(theirs)
    said = b""
    try:
        while block := os.read(ours, 65536):
            said += block
    except OSError:  # Linux reports the end in this way
        pass
    os.close(ours)
    assert process.wait() == 0, said
    assert b"Traceback" not in said
    assert b"what to do" in said
    assert b"about +/-0." in said
    said.decode("ascii")


@pytest.mark.parametrize("arguments", [["audit"], ["--help"]])
def test_a_full_output_is_a_message(chinese: tuple[Path, Path], arguments: list[str]) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "genrec", *arguments, *map(str, chinese[:1])],
            stdout=full, stderr=subprocess.PIPE, text=True, check=False,
        )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.endswith("Error: Cannot write the output: no space left on device.\n")
    assert "ignored" not in done.stderr


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take the home folder away, as in a container with an unknown user."""

    def unknown(uid: int) -> None:
        raise KeyError(f"getpwuid(): uid not found: {uid}")

    for name in ("HOME", "XDG_CACHE_HOME", "HF_HOME", "USER", "LOGNAME", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", unknown)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_everything_but_downloads_works(
    run: Run, chinese: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, model = chinese
    shop = tmp_path / "shop"
    items, events = write(tmp_path)
    code, _, err = run("prepare", "--items", items, "--interactions", events, "--out", shop)
    assert code == 0, err
    code, out, err = run("doctor")
    assert code == 0, err
    assert "There is no folder for downloaded models: HOME is not set" in out
    code, _, err = run("recommend", data, "--user", "u01", "-k", 2, "--model", model)
    assert code == 0, err
    code, _, err = run("recommend", shop, "--history", "mug", "--model", model)
    assert code == 0, err
    assert "character n-grams were used: There is no folder for downloaded models" in err
    code, _, err = run("recommend", data, "--user", "u01")
    assert code == ModelError.exit_code
    assert "Set XDG_CACHE_HOME" in err
    for name in ("~/model", "~nobody-of-this-name/model"):
        code, _, err = run("recommend", data, "--user", "u01", "--model", name)
        assert code == ModelError.exit_code
        assert name in err
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert packaged.cache_folder() == tmp_path / "genrec"


@pytest.mark.parametrize("mask", [0o022, 0o027])
def test_the_shared_cache_has_the_modes_of_the_umask(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mask: int
) -> None:
    """Replace the download and the conversion; the tiny model is written as the real one is."""
    from support import tiny

    def convert(gguf: Path, target: Path) -> None:
        tiny.language_model().model.save_pretrained(target)
        tiny.tokenizer("llama").save_pretrained(target)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(packaged, "_find_wheels", lambda packaged, work, log: [])
    monkeypatch.setattr(packaged, "_convert", convert)
    with umask(mask):
        folder = packaged.ensure("smollm2-135m")
    assert (folder / "model.safetensors").is_file()
    for path in (tmp_path / "cache").rglob("*"):
        allowed = (0o777 if path.is_dir() else 0o666) & ~mask
        assert path.stat().st_mode & 0o777 == allowed, path


def as_user(uid: int, *more: str) -> list[str]:
    """The beginning of a command that another user runs, with nothing in its environment."""
    user = ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", *more]
    kept = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{ROOT}", "OMP_NUM_THREADS": "1"}
    kept |= {"HF_HUB_OFFLINE": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    return [*user, "env", "-i", *(f"{k}={v}" for k, v in kept.items()), sys.executable]


needs_root = pytest.mark.skipif(
    not FULL or os.geteuid() != 0 or shutil.which("setpriv") is None,
    reason="runs commands as another user: needs scripts/test --full, root and setpriv",
)


@pytest.fixture
def public(chinese: tuple[Path, Path]) -> Iterator[Path]:
    """What root wrote, in a folder that all may enter; pytest's own are private."""
    folder = Path(tempfile.mkdtemp(prefix="genrec-"))
    folder.chmod(0o755)
    _, model = chinese
    with umask(0o022):
        load("zh_mini").save(folder / "data")
        genrec.LanguageModel.load(str(model), device="cpu", dtype="float32").save(folder / "model")
        from genrec.training import trainer

        options: dict[str, Any] = {"max_targets": 4, "eval_users": 0, "dtype": "float32"}
        trainer.train(
            load("zh_mini"),
            folder / "run",
            str(folder / "model"),
            device="cpu",
            threads=1,
            **options,
        )
    yield folder
    shutil.rmtree(folder)


@needs_root
@pytest.mark.slow
def test_another_user_can_use_what_root_wrote(public: Path) -> None:
    before = as_user(65534)
    if subprocess.run([*before, "-c", "import genrec, torch"], check=False).returncode:
        pytest.skip("another user may not read this Python")
    for arguments in (
        ["recommend", "data", "--user", "u01", "-k", "2", "--run", "run"],
        ["recommend", "data", "--user", "u01", "-k", "2", "--model", "model"],
        ["evaluate", "data", "--no-model", "--users", "4", "--against", "mf"],
    ):
        done = subprocess.run(
            [*before, "-m", "genrec", *arguments],
            cwd=public,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert "data/baselines cannot be written (permission denied)" in done.stderr
    weights = public / "model" / "model.safetensors"
    weights.chmod(0o600)
    done = subprocess.run(
        [*before, "-m", "genrec", "recommend", "data", "--user", "u01", "--run", "run"],
        cwd=public, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == ModelError.exit_code
    assert f"{weights} cannot be read by this user" in done.stderr


@needs_root
@pytest.mark.slow
def test_a_user_that_the_system_does_not_know(public: Path) -> None:
    """Such a user may read everything here, so that this Python works wherever it lies."""
    reads = ("--inh-caps=+dac_read_search", "--ambient-caps=+dac_read_search")
    (public / "out").mkdir()
    (public / "out").chmod(0o777)
    for arguments, code in (
        (["doctor"], 0),
        (["recommend", "data", "--user", "u01", "-k", "2", "--run", "run"], 0),
        (["recommend", "data", "--history", "没有", "-k", "2", "--run", "run"], 0),
        (["train", "data", "--model", "model", "--max-targets", "4", "--out", "out/run"], 0),
        (["evaluate", "data", "--no-model", "--users", "4", "--report", "out/r.html"], 0),
        (["recommend", "data", "--user", "u01"], ModelError.exit_code),
        (["tune", "data", "--model", "model"], 2),
        (["index", "data"], 2),
    ):
        done = subprocess.run(
            [*as_user(54321, *reads), "-m", "genrec", *arguments],
            cwd=public, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == code, (arguments, done.stderr)
        assert "Traceback" not in done.stderr


def test_an_interrupt_while_libraries_are_loaded_gives_no_traceback() -> None:
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'pyarrow' or name == 'genrec.cli.main':\n"
        "            raise KeyboardInterrupt\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from genrec.__main__ import run\nrun()\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "Error: Interrupted.\n")


def test_where_no_temporary_folder_can_be_written_it_says_what_to_do() -> None:
    code = (
        "import resource, signal, tempfile\n"
        "from genrec.cli.main import _describe_os_error\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))\n"
        "try:\n    tempfile.gettempdir()\n"
        "except OSError as error:\n    print(_describe_os_error(error))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "TMPDIR" in done.stderr + done.stdout
    assert "ulimit -f" in done.stderr + done.stdout
