"""Load the dataset and the recommender for a command."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from genrec.cli.options import Given, HistoryOptions, ModelOptions, ServerOptions
from genrec.config import EXPLAIN, Settings
from genrec.errors import SettingsError
from genrec.runs import Run, find_run

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.data.events import History
    from genrec.pipeline.preflight import Wanted
    from genrec.recommender import Recommender


def load_request(
    data: Path,
    asked: HistoryOptions,
    which: ModelOptions,
    settings: Given,
    wanted: Wanted,
    *,
    quiet: bool,
    weights: bool = True,
    server: ServerOptions | None = None,
) -> tuple[Recommender, History | str]:
    """Load a recommender for a dataset folder, and find the history that a command refers to.

    The history is the user's history if a user was given, otherwise the typed text. The request is
    checked before the model is loaded. Explanations use float32 on a CPU.

    Args:
        data: the dataset folder.
        asked: the user or the typed text.
        which: the options that choose the model.
        settings: the settings of the recommender.
        wanted: what the request asks for.
        quiet: whether to suppress progress output.
        weights: whether to load the model's weights right away instead of when they are first
            needed.
        server: a server that runs the model instead.

    Raises:
        GenrecError: the folder or the model cannot be loaded, or the request is invalid.
    """
    from genrec.data.dataset import Dataset
    from genrec.pipeline.preflight import check_request
    from genrec.reports import console

    settings = for_server(settings, which, server)
    checked = Settings.of(settings)  # report invalid settings before loading the data
    if which.run is not None:
        trained = Run.read(find_run(which.run))
        checked = Settings.of(trained.serving_settings(settings.only))
    dataset = Dataset.load(data)
    history: History | str | None = asked.history
    if asked.user is not None:
        history = dataset.interactions.history(asked.user)
    assert history is not None
    check_request(dataset, checked, history, wanted)
    if wanted.options.explain or wanted.item is not None:
        which = use_float32(which)
    with console.working(f"Loading {which.name} ...", quiet=quiet) as log:
        recommender = load_recommender(
            dataset, which, settings, log, weights=weights, asking=wanted.asking, server=server
        )
    return recommender, history


def load_recommender(
    dataset: Dataset,
    which: ModelOptions,
    settings: Given,
    log: Callable[[str], None],
    *,
    weights: bool = True,
    asking: bool = False,
    server: ServerOptions | None = None,
) -> Recommender:
    """Load a recommender from a run or a model, with the given settings.

    Without ``weights``, the model's weights are loaded when they are first needed, and also if the
    prior ranks items alone. ``asking`` is True if the model is asked yes-or-no questions.

    Raises:
        SettingsError: a setting is invalid, or the run was trained for a different task.
        ModelError: the model cannot be loaded.
    """
    from genrec.models.lazy_model import lazy_model, lazy_run
    from genrec.pipeline.run_use import check_use
    from genrec.recommender import Recommender

    if server is not None and server.base_url is not None:
        from genrec.models.openai import OpenAIModel, make_server

        remote = OpenAIModel(make_server(which.model, server.base_url, server.server))
        return Recommender(dataset, remote, log=log, **settings)
    if which.run is None:
        model = lazy_model(which.name, log=log, **which.loading())
        recommender = Recommender(dataset, model, log=log, **settings)
    else:
        folder = find_run(which.run)
        if not (asking and "template" in settings.only):  # the question was chosen explicitly
            check_use(Run.read(folder), folder, asking=asking)
        model = lazy_run(which.run, which.model, log=log, **which.loading())
        recommender = Recommender.load(which.run, dataset, model=model, log=log, **settings.only)
    if weights and recommender.fusing.role != EXPLAIN:
        model.load()
    return recommender


def for_server(settings: Given, which: ModelOptions, server: ServerOptions | None) -> Given:
    """Let a model behind a server write texts that are matched to items, or explain what the prior ranks.

    Raises:
        SettingsError: a run was given, or settings that need the probabilities of all tokens.
    """
    if server is None or server.base_url is None:
        return settings
    if which.run is not None:
        msg = (
            "--run cannot be used with --backend openai. To use a fine-tuned model on a server, merge it with "
            "`genrec merge`, let the server load the folder, and give its name with --model."
        )
        raise SettingsError(msg)
    from genrec.models.server import make_server, server_settings

    given = {n: v for n, v in server.server.items() if n != "concurrency"}  # of `genrec batch`
    there = make_server(which.model, server.base_url, given)
    decoder = server_settings(settings.only, there.rerank)["decoder"]
    return Given({**settings, "decoder": decoder}, settings.named | {"decoder"})


def use_float32(which: ModelOptions) -> ModelOptions:
    """Change model options so that explanations on a CPU use float32, unless a dtype was given.

    An explanation measures small differences between scores. In half precision, rounding errors can
    be as large as these differences.
    """
    from genrec.models.devices import resolve_device

    if which.dtype == "auto" and resolve_device(which.device).type == "cpu":
        return replace(which, dtype="float32")
    return which
