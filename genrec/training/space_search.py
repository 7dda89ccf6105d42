"""Search for training settings with Optuna, by the validation nats of short runs.

The study is one SQLite file, so a search that was interrupted continues, with the runs that it had begun.
"""

from __future__ import annotations

import hashlib
import json
import math
import shutil
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genrec.config import Settings, check_keys
from genrec.data.protocols import fingerprint
from genrec.errors import DataError, GenrecError, SettingsError
from genrec.extras import how_to_install
from genrec.files import lock_folder, write_text
from genrec.runs import LOG
from genrec.training import trainer
from genrec.training.config import Training, resolve
from genrec.types import Log

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset

STUDY, BEST, JOB = "search.db", "best.yaml", "search.json"
_ENDED = "ended"  # the attribute of the study with the trials whose process was killed
_FREE = 3  # trials before one can be pruned
_NAMES = {f.name for kind in (Training, Settings) for f in fields(kind)}
_FIXED = (
    "objective",
    "examples",
    "pairs",
    "eval_users",
    "eval_every",
    "max_minutes",
    "max_targets",
    "epochs",
    "fit",
    "protocol",
    "seed",
)


@dataclass(frozen=True, slots=True)
class Axis:
    """The values that one setting may have: a list of choices, or a range.

    Attributes:
        choices: the values; empty for a range.
        low, high: the bounds of the range, both included.
        log: whether the range is searched on a logarithmic scale.
        whole: whether the values are whole numbers.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    whole: bool = False

    def contains(self, value: Any) -> bool:
        """Return True if a value lies in the space."""
        if self.choices:
            return value in self.choices
        return isinstance(value, int | float) and self.low <= value <= self.high

    def suggest(self, trial: Any, name: str) -> Any:
        """Let a trial of Optuna choose a value."""
        if self.choices:
            return trial.suggest_categorical(name, list(self.choices))
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), log=self.log)
        return trial.suggest_float(name, self.low, self.high, log=self.log)


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of a search.

    Attributes:
        number: its number, starting at 0; the first one has the default settings where the space holds them.
        settings: the settings that the search chose.
        nats: the lowest validation nats of the model alone after the first step; NaN if there are none.
        state: ``complete``, ``pruned`` or ``failed``.
    """

    number: int
    settings: Mapping[str, Any]
    nats: float
    state: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a search has found.

    Attributes:
        trials: all trials so far.
        best: the trial with the lowest nats, or None.
        default: the trial with the default settings, or None if the space does not hold them.
        folder: the folder of the search.
    """

    trials: tuple[Trial, ...]
    best: Trial | None
    default: Trial | None
    folder: Path

    def to_dict(self) -> dict[str, Any]:
        """Return the result as values that JSON can represent."""

        def plain(trial: Trial | None) -> dict[str, Any] | None:
            if trial is None:
                return None
            nats = trial.nats if math.isfinite(trial.nats) else None
            return {**asdict(trial), "nats": nats}

        return {
            "schema_version": 1,
            "folder": str(self.folder),
            "trials": [plain(t) for t in self.trials],
            "best": plain(self.best),
            "default": plain(self.default),
        }


def read_space(path: Path) -> dict[str, Axis]:
    """Read the space of settings from a YAML file.

    Each key is a setting of ``genrec train``. Its value is a list of choices, or ``low`` and ``high`` with
    optionally ``log: true``.

    Raises:
        DataError: the file cannot be read.
        SettingsError: a setting is unknown or cannot be searched, or a range is empty.
    """
    try:
        given = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        msg = f"{path} cannot be read: {reason}. Expected a YAML file such as learning_rate: [0.0001, 0.001]."
        raise DataError(msg) from error
    if not isinstance(given, dict) or not given:
        msg = f"{path} does not hold a mapping of settings. Expected lines such as lora_rank: [4, 8, 16]."
        raise SettingsError(msg)
    return {str(name): _axis(str(name), value) for name, value in given.items()}


def _axis(name: str, value: Any) -> Axis:
    check_keys([name], sorted(_NAMES))
    if name in _FIXED:
        msg = f"{name} cannot be searched, since trials must be comparable. Give it in --config."
        raise SettingsError(msg)
    if isinstance(value, list) and value:
        for choice in value:
            resolve({name: choice})
        return Axis(choices=tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        low, high, log = value["low"], value["high"], bool(value.get("log", False))
        number = all(isinstance(v, int | float) and not isinstance(v, bool) for v in (low, high))
        if number and low < high and (low > 0 or not log):
            resolve({name: low})
            resolve({name: high})
            return Axis(
                low=low, high=high, log=log, whole=isinstance(low, int) and isinstance(high, int)
            )
    msg = (
        f"{name}: {value!r} is not a space. Expected a list of values, or low and high with low < high "
        "(and low > 0 with log: true)."
    )
    raise SettingsError(msg)


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """A search: what is trained, and how long.

    Attributes:
        model: the name or folder of the model.
        space: the values that each setting may have.
        settings: the other settings of all runs.
        loading: the arguments ``device``, ``dtype`` and ``threads`` of ``trainer.train``.
        trials: the number of trials, those of earlier calls included.
        minutes: the time after which no trial is begun any more; None for no limit.
        seed: the seed of the sampler.
    """

    model: str
    space: Mapping[str, Axis]
    settings: Mapping[str, Any]
    loading: Mapping[str, Any]
    trials: int = 20
    minutes: float | None = None
    seed: int = 0

    def run(self, data: Dataset, folder: Path, log: Log = lambda message: None) -> Found:
        """Search, or continue an earlier search in the same folder.

        Every trial trains a run with the same targets and the same validation users. A trial whose nats are
        above the median of the others at the same validation is stopped. The adapter of the best trial is kept.

        Args:
            data: the dataset.
            folder: the folder of the search.
            log: a function that is called with a line of text before each slow step.

        Raises:
            SettingsError: Optuna is not installed, the settings cannot be combined, or the folder holds
                another search.
            DataError: the data has nothing to validate on.
        """
        if find_spec("optuna") is None:
            msg = f"A search needs the package optuna. {how_to_install('optuna')}"
            raise SettingsError(msg)
        resolve({**self.settings, **{n: _first(a) for n, a in self.space.items()}})
        with lock_folder(folder):
            self._check_folder(data, folder)
            return self._search(data, folder, log)

    def _check_folder(self, data: Dataset, folder: Path) -> None:
        """Write what is searched, or check that it is what an earlier call searched.

        Raises:
            SettingsError: it differs.
        """
        about = {
            "data": fingerprint(data),
            "model": self.model,
            "space": {n: asdict(a) for n, a in self.space.items()},
            "settings": dict(self.settings),
        }
        wanted = json.loads(json.dumps(about))
        path = folder / JOB
        if not path.exists():
            write_text(path, json.dumps(wanted, indent=1) + "\n")
            return
        found = json.loads(path.read_text(encoding="utf-8"))
        different = [name for name in wanted if found.get(name) != wanted[name]]
        if different:
            msg = (
                f"{folder} holds a search with another {different[0]}. Give the same files and options to continue "
                "it, or choose another folder."
            )
            raise SettingsError(msg)

    def _search(self, data: Dataset, folder: Path, log: Log) -> Found:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        study = optuna.create_study(
            storage=f"sqlite:///{folder / STUDY}",
            study_name="genrec",
            load_if_exists=True,
            sampler=optuna.samplers.TPESampler(seed=self.seed),
            pruner=optuna.pruners.MedianPruner(n_startup_trials=_FREE),
        )
        states = optuna.trial.TrialState
        for old in study.get_trials(deepcopy=False, states=(states.RUNNING,)):
            study.tell(old.number, state=states.FAIL)  # its process has ended: begin it again
            ended = study.user_attrs.get(_ENDED, [])
            study.set_user_attr(_ENDED, [*ended, old.number])
            if old.params:
                study.enqueue_trial(old.params)
        default = self._default()
        if default and not study.get_trials(deepcopy=False):
            study.enqueue_trial(default)
        began = time.monotonic()
        while self._done(study, states) < self.trials:
            if self.minutes is not None and time.monotonic() - began > self.minutes * 60:
                break
            trial = study.ask()
            chosen = {name: axis.suggest(trial, name) for name, axis in self.space.items()}
            log(f"Trial {trial.number + 1} of {self.trials}: {_spell(chosen)} ...")
            try:
                nats = self._train(data, folder, trial, chosen, log)
            except optuna.TrialPruned:
                study.tell(trial, state=states.PRUNED)
            except (GenrecError, RuntimeError) as error:
                if not self._done(study, states):
                    raise  # the first one fails: probably all would
                log(f"Trial {trial.number + 1} failed: {error}")
                study.tell(trial, state=states.FAIL)
            else:
                study.tell(trial, nats)
                log(f"Trial {trial.number + 1}: {nats:.4f} nats")
            self._keep_best(study, folder)
        return self._found(study, folder)

    def _default(self) -> dict[str, Any]:
        """Return the default settings, or {} if the space does not hold them."""
        ours, training = resolve(self.settings)
        values = {**asdict(ours), **asdict(training)}
        defaults = {name: values[name] for name in self.space}
        return defaults if all(self.space[n].contains(v) for n, v in defaults.items()) else {}

    def _done(self, study: Any, states: Any) -> int:
        """Return the number of finished trials, without those whose process was killed."""
        kept = (states.COMPLETE, states.PRUNED, states.FAIL)
        finished = study.get_trials(deepcopy=False, states=kept)
        ended = set(study.user_attrs.get(_ENDED, []))
        return sum(t.number not in ended for t in finished)

    def _train(
        self, data: Dataset, folder: Path, trial: Any, chosen: Mapping[str, Any], log: Log
    ) -> float:
        """Train one run, and return its lowest validation nats.

        Raises:
            optuna.TrialPruned: it is worse than the median of the others.
            DataError: the run was not validated.
        """
        import optuna

        def watch(line: Mapping[str, Any]) -> None:
            if line.get("validation") and line["step"]:
                trial.report(float(line["nats"]), int(line["targets"]))
                if trial.should_prune():
                    raise optuna.TrialPruned

        out = folder / "runs" / _key(chosen)
        trainer.train(
            data, out, self.model, resume=out.exists(), watch=watch, log=log,
            **self.loading, **{"tune_users": 0, **self.settings, **chosen},
        )  # fmt: skip
        lines = [json.loads(x) for x in (out / LOG).read_text(encoding="utf-8").splitlines()]
        nats = [float(x["nats"]) for x in lines if x.get("validation") and x["step"]]
        if not nats:  # before the first step, all trials are the same
            msg = "The runs are not validated. Expected data with a validation part, and eval_users above 0."
            raise DataError(msg)
        return min(nats)

    def _keep_best(self, study: Any, folder: Path) -> None:
        """Write the best settings, and delete the runs of all other finished trials."""
        found = self._found(study, folder)
        if found.best is None:
            return
        given = {**self.settings, **found.best.settings}
        write_text(folder / BEST, yaml.safe_dump(given, sort_keys=True, allow_unicode=True))
        for run in (folder / "runs").iterdir():
            if run.name != _key(found.best.settings):
                shutil.rmtree(run)

    def _found(self, study: Any, folder: Path) -> Found:
        names = {"COMPLETE": "complete", "PRUNED": "pruned", "FAIL": "failed"}
        trials = []
        ended = set(study.user_attrs.get(_ENDED, []))
        for t in study.get_trials(deepcopy=False):
            if t.state.name in names and t.number not in ended:
                last = max(t.intermediate_values.items(), default=(0, float("nan")))[1]
                nats = t.value if t.value is not None else last
                trials.append(Trial(t.number, dict(t.params), float(nats), names[t.state.name]))
        complete = [t for t in trials if t.state == "complete"]
        default = self._default()
        return Found(
            tuple(trials),
            min(complete, key=lambda t: t.nats, default=None),
            next((t for t in complete if default and dict(t.settings) == default), None),
            folder,
        )


def _first(axis: Axis) -> Any:
    return axis.choices[0] if axis.choices else axis.low


def _key(settings: Mapping[str, Any]) -> str:
    """Return a short name for settings, by which an interrupted trial finds its run again."""
    return hashlib.sha256(json.dumps(dict(settings), sort_keys=True).encode()).hexdigest()[:12]


def _spell(settings: Mapping[str, Any]) -> str:
    return ", ".join(
        f"{n} {v:.3g}" if isinstance(v, float) else f"{n} {v}" for n, v in settings.items()
    )
