"""Define what a batch does and where it keeps its results, and check that a folder belongs to the same batch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genrec.cache import package_versions
from genrec.config import QueryOptions, Settings
from genrec.data.protocols import fingerprint
from genrec.errors import DataError, SettingsError
from genrec.files import write_text
from genrec.models.openai import LIMITS, OpenAIModel, Server, make_server, server_settings
from genrec.runs import Run, find_run
from genrec.types import Log
from genrec.version import __version__

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.recommender import Recommender

TASKS = ("recommend", "explain", "score", "profile")
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
_EDITS = "profile_edits"
CONCURRENCY = 8  # requests that are sent to a server at once
_PACKAGES = ("torch", "transformers", "numpy", "pyarrow")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A batch: what to do for which rows, with which model.

    Attributes:
        data: the dataset folder, or the name of a bundled dataset.
        users: the file of rows; see ``Rows.read``. None for all users of the dataset.
        task: ``recommend`` for lists, ``explain`` for lists with explanations, ``score`` for the
            probabilities of given items, or ``profile`` for taste profiles.
        run: the run folder of a fine-tuned model, or None.
        model: the name or folder of the model, or of the base model of the run; None for the default.
        loading: the keyword arguments ``device``, ``dtype``, ``threads`` and ``quantize`` of
            ``LanguageModel.load``, as far as they differ from the defaults.
        server: with a model behind a server: ``base_url`` and other fields of ``models.openai.Server`` as
            text, and ``concurrency``, the number of requests at once (8). ``model`` is its name there.
        settings: the settings of the recommender that differ from the defaults.
        options: the query options that differ from the defaults.
        items: with ``score``, the ids of the items.
        shard_size: the number of rows in each shard, which are written to one file.
        batch_size: the number of prompts that the model reads at once.

    Raises:
        SettingsError: a value is invalid.
    """

    data: str
    users: str | None = None
    task: str = TASKS[0]
    run: str | None = None
    model: str | None = None
    loading: Mapping[str, Any] = field(default_factory=dict)
    server: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    items: Sequence[str] | None = None
    shard_size: int = 256
    batch_size: int = 16

    def __post_init__(self) -> None:
        """Check the values that do not need the dataset."""
        if self.task not in TASKS:
            msg = f"task={self.task!r} is not valid. Expected one of {', '.join(TASKS)}."
            raise SettingsError(msg)
        if (self.task == "score") != (self.items is not None):
            msg = (
                "task='score' needs items. Give the ids of the items to score."
                if self.items is None
                else f"items can only be used with task='score', not with task={self.task!r}."
            )
            raise SettingsError(msg)
        for name in ("shard_size", "batch_size"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                msg = f"{name}={value!r} is not valid. Expected a whole number of at least 1."
                raise SettingsError(msg)
        if self.server:
            server_settings(self.settings, self.find_server().rerank)
        Settings.of(self.settings)
        self.query()
        others = sorted(set(self.options) - {_EDITS}) if self.task == "profile" else []
        if others:
            msg = (
                f"{others[0]} cannot be used with task='profile', which makes no lists. Leave it out; "
                f"{_EDITS} can be used."
            )
            raise SettingsError(msg)

    @property
    def concurrency(self) -> int:
        """The number of requests that are sent to a server at once."""
        given = self.server.get("concurrency", str(CONCURRENCY))
        if not given.isdecimal() or int(given) < 1:
            msg = f"concurrency={given!r} is not valid. Expected a whole number of at least 1."
            raise SettingsError(msg)
        return int(given)

    def find_server(self) -> Server:
        """Return the server of the model.

        Raises:
            SettingsError: its description is invalid, or the job needs a model that genrec runs.
        """
        if self.run is not None or self.task == "score":
            what = "run" if self.run is not None else "task='score'"
            msg = f"{what} cannot be used with a model behind a server. Leave one of them out."
            raise SettingsError(msg)
        others = {n: v for n, v in self.server.items() if n not in {"base_url", "concurrency"}}
        assert self.concurrency
        return make_server(self.model, self.server.get("base_url", ""), others)

    def query(self) -> QueryOptions:
        """Return the options of every request."""
        given = {**self.options, "explain": True} if self.task == "explain" else self.options
        return QueryOptions.of(**given)

    def resolved(self) -> Job:
        """Return the same job with absolute paths, so that other processes find the same files."""
        paths = {name: getattr(self, name) for name in ("data", "users", "run")}
        found: dict[str, Any] = {
            n: str(Path(p).resolve()) for n, p in paths.items() if p and Path(p).exists()
        }
        return replace(self, **found)

    def to_dict(self) -> dict[str, Any]:
        """Return the job as values that JSON can represent."""
        return asdict(self)

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Job:
        """Build a job from the values that ``to_dict`` returned."""
        return cls(**values)

    def load_dataset(self) -> Dataset:
        """Load the dataset.

        Raises:
            DataError: it cannot be loaded.
        """
        from genrec.data.dataset import Dataset
        from genrec.data.datasets import EMBEDDED, load

        if self.data in EMBEDDED and not Path(self.data).exists():
            return load(self.data)
        return Dataset.load(self.data)

    def load_recommender(self, dataset: Dataset, log: Log) -> Recommender:
        """Load the recommender, whose model is loaded when it is first needed.

        Raises:
            SettingsError: a setting is invalid, or the run was trained for a different task.
            ModelError: the model cannot be loaded.
        """
        from genrec.models.devices import resolve_device
        from genrec.models.lazy_model import lazy_model, lazy_run
        from genrec.models.packaged import DEFAULT_MODEL
        from genrec.recommender import Recommender

        if self.server:
            server = self.find_server()
            settings = server_settings(self.settings, server.rerank)
            return Recommender(dataset, OpenAIModel(server), log=log, **settings)
        # what is kept of earlier prompts would make a shard depend on those before it
        settings = {**self.settings, "prompt_memory": 0}
        loading = dict(self.loading)
        if self.task == "explain" and resolve_device(loading.get("device", "auto")).type == "cpu":
            loading.setdefault("dtype", "float32")  # evidence is a small difference of scores
        if self.run is None:
            model = lazy_model(self.model or DEFAULT_MODEL, log=log, **loading)
            return Recommender(dataset, model, log=log, **settings)
        model = lazy_run(self.run, self.model, log=log, **loading)
        return Recommender.load(self.run, dataset, model=model, log=log, **settings)


@dataclass(frozen=True, slots=True)
class Inputs:
    """Hashes of what the results depend on, apart from the job itself.

    Attributes:
        dataset: ``protocols.fingerprint`` of the dataset.
        users: the SHA-256 hash (hex) of the file of rows; "" for all users.
        run: the hash of the run's ``run.json`` and adapter; "" without a run.
        rows: the number of rows.
        versions: the versions of genrec and of libraries.
    """

    dataset: str
    users: str
    run: str
    rows: int
    versions: Mapping[str, str]

    @classmethod
    def find(cls, job: Job, dataset: Dataset, rows: int) -> Inputs:
        """Compute the hashes."""
        versions = dict(zip(_PACKAGES, package_versions(*_PACKAGES), strict=True))
        return cls(
            fingerprint(dataset),
            "" if job.users is None else _digest([Path(job.users)]),
            "" if job.run is None else _digest_run(job.run),
            rows,
            {"genrec": __version__, **versions},
        )


def _digest_run(run: str) -> str:
    folder = find_run(run)
    Run.read(folder)  # say what is wrong with it
    return _digest([folder / "run.json", *sorted((folder / "adapter").glob("*.safetensors"))])


def _digest(paths: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


class Manifest:
    """The file ``manifest.json`` of an output folder: the job, its inputs and what was done.

    Attributes:
        job: the job.
        inputs: what its results depend on.
        shards: for each finished shard, its number of answered and rejected rows and the seconds that
            it took, keyed by its number.
    """

    def __init__(self, folder: Path, job: Job, inputs: Inputs) -> None:
        self._path = folder / MANIFEST
        self.job, self.inputs = job, inputs
        self.shards: dict[int, dict[str, Any]] = {}

    @property
    def n_shards(self) -> int:
        """The number of shards of the job."""
        return -(-self.inputs.rows // self.job.shard_size)

    def open(self) -> None:
        """Read the file if the folder has one, otherwise write it.

        Raises:
            SettingsError: the folder has the results of another job, or something else.
            DataError: the file cannot be read or written.
        """
        if not self._path.exists():
            others = [p.name for p in self._path.parent.iterdir() if not p.name.startswith(".")]
            if others:
                msg = (
                    f"{self._path.parent} holds {others[0]!r} but no {MANIFEST}, so it is not the output "
                    "of a batch. Expected a new or an empty folder."
                )
                raise SettingsError(msg)
            self.save()
            return
        values = read_manifest(self._path.parent)
        wanted, found = self._identity(), {n: values.get(n) for n in ("job", "inputs")}
        if found != wanted:
            msg = (
                f"{self._path.parent} holds the results of another batch, which differs in "
                f"{_difference(found, wanted)}. Give the same options to continue it, or choose another "
                "folder."
            )
            raise SettingsError(msg)
        self.shards = {int(n): dict(v) for n, v in values["shards"].items()}

    def save(self) -> None:
        """Write the file."""
        rows = sum(s["rows"] for s in self.shards.values())
        rejected = sum(s["rejected"] for s in self.shards.values())
        values = {
            "format_version": FORMAT_VERSION,
            **self._identity(),
            "finished": len(self.shards) == self.n_shards,
            "answered": rows,
            "rejected": rejected,
            "shards": {str(n): self.shards[n] for n in sorted(self.shards)},
        }
        write_text(self._path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")

    def _identity(self) -> dict[str, Any]:
        job = self.job.to_dict()  # limits may change when a batch is continued
        job["server"] = {
            n: v for n, v in job["server"].items() if n not in {*LIMITS, "concurrency"}
        }
        given = {"job": job, "inputs": asdict(self.inputs)}
        identity: dict[str, Any] = json.loads(json.dumps(given))
        return identity


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of an output folder.

    Raises:
        DataError: it cannot be read, or another version of genrec wrote it.
    """
    path = folder / MANIFEST
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = values["format_version"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        msg = f"{path} cannot be read: {error!r}. Expected a file written by `genrec batch`."
        raise DataError(msg) from error
    if version != FORMAT_VERSION:
        msg = f"{path} has format version {version}. Expected {FORMAT_VERSION}. Choose another folder."
        raise DataError(msg)
    return values


def _difference(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> str:
    """Name the first value that differs, as ``name (before, now)``."""
    for part, names in (
        ("job", [f.name for f in fields(Job)]),
        ("inputs", [f.name for f in fields(Inputs)]),
    ):
        before, now = found.get(part) or {}, wanted[part]
        for name in names:
            if before.get(name) != now[name]:
                shown = [repr(v)[:60] for v in (before.get(name), now[name])]
                where = "" if part == "job" else " of the input"
                return f"{name}{where} (before: {shown[0]}, now: {shown[1]})"
    return "the format"
