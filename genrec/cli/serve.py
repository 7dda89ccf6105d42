"""Define the commands ``serve`` and ``key``, which import heavy modules when called."""

from __future__ import annotations

import functools
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack, closing
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from genrec.cli.loading import load_recommender, use_float32
from genrec.cli.options import Data, FieldsOf, Given, ModelOptions, command
from genrec.cli.values import read_list
from genrec.config import FUSE, MODEL, WHAT, Settings, check_value, option
from genrec.errors import SettingsError
from genrec.extras import how_to_install
from genrec.service.limits import Limits

if TYPE_CHECKING:
    from genrec.data.dataset import Dataset
    from genrec.recommender import Recommender
    from genrec.service.security import Guard
    from genrec.service.service import Service
    from genrec.service.store import Store
    from genrec.service.worker_app import HttpWorker

NETWORK = "Network"
PORT = 8000
UNTRAINED = "untrained"  # the name under which clients address the base model of a run
PROMPT_MEMORY = 512  # MiB
_WHERE = "127.0.0.1"


@dataclass(frozen=True, slots=True)
class ServeOptions:
    """Options that say where the service listens, and what it keeps where."""

    host: str = option(
        _WHERE,
        NETWORK,
        "Address to listen on. Addresses that other machines can reach need --keys.",
        metavar="ADDRESS",
    )
    port: int = option(PORT, NETWORK, "Port to listen on; 0 for any free one.")
    workers: int = option(
        1,
        NETWORK,
        "Number of processes that answer HTTP requests. With more than one, one further process has the "
        "model, and they ask it for lists.",
        least=1,
        most=64,
    )
    keys: Path | None = option(
        None,
        NETWORK,
        "File of the keys that clients must send, made with `genrec key`.",
        metavar="FILE",
        unset="no keys, which is possible on this machine only",
    )
    store: str | None = option(
        None,
        WHAT,
        "Database for events, items and lists, such as postgresql+psycopg://user@host/name.",
        metavar="URL",
        unset="service.db in the dataset folder",
    )
    runs: Path | None = option(
        None,
        MODEL,
        "Folder of run folders that operators may load by name while the service runs.",
        metavar="FOLDER",
    )
    with_base: bool = option(
        False,
        MODEL,
        "With --run: also load the model that the run was trained from, under the name untrained, to "
        "compare the two.",
    )
    image_hosts: str | None = option(
        None,
        NETWORK,
        "Hosts that the page may load pictures from, such as cdn.example.com or *.shop.example. The "
        "addresses are in the column image_url of the items and begin with https. The browser loads "
        "them, not the service.",
        metavar="HOSTS",
        unset="no pictures",
    )
    stock: str | None = option(
        None,
        WHAT,
        "Recommend only items that are in stock; see `genrec recommend --help-all`.",
        metavar="FILE",
        unset="every item counts as in stock",
    )

    def __post_init__(self) -> None:
        """Check the number of workers.

        Raises:
            SettingsError: it is not valid.
        """
        for f in fields(self):
            if f.name == "workers":
                check_value(f.name, self.workers, str(f.type), f.metadata)


@command("run", "runs", "host", "port", "keys", "image_hosts", "store", "stock", "model")
def serve(
    data: Data,
    which: ModelOptions,
    settings: Annotated[Given, FieldsOf(Settings)],
    limits: Limits,
    options: ServeOptions,
) -> None:
    """Serve recommendations over HTTP, and keep events and items that come in.

    The address itself shows a page for people, and /docs describes all requests. The service stops at
    SIGTERM or Ctrl-C, after answering what it has accepted.
    """
    check_installed()
    from genrec.data.dataset import Dataset
    from genrec.service.tables import sqlite_url

    dataset = Dataset.load(data).with_redaction(settings["redact"])
    if options.store is None:
        options = replace(options, store=sqlite_url(data))
    if options.workers == 1:
        run(dataset, which, settings, limits, options)
    else:
        run_workers(dataset.info.name, Plan(data, which, settings, limits, options))


@command()
def key(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="File of keys, created if it is missing.")
    ],
    name: Annotated[
        str, typer.Option(help="Name of the key's user; a key of this name is replaced.")
    ],
    scopes: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SCOPE",
            help="What the key allows: read, feedback (events), admin (everything). Repeat the option, "
            "or separate several with commas.",
            show_default="read",
        ),
    ] = None,
) -> None:
    """Create a key for `genrec serve --keys FILE`, and print it once. The file has only its hash."""
    check_installed()
    from genrec.files import check_output
    from genrec.reports import console
    from genrec.service.security import new_key

    check_output(file)
    made = new_key(file, name, read_list(scopes or ["read"]))
    console.note(f"The key {name!r} was added to {file}. It is shown only now:")
    console.print_line(made)


def serve_demo(dataset: Dataset, which: ModelOptions, settings: Given, port: int) -> None:
    """Serve bundled data on this machine. Everything that comes in is forgotten at the end."""
    check_installed()
    from genrec.service.tables import sqlite_url

    with tempfile.TemporaryDirectory(prefix="genrec-demo-") as folder:
        with_base = which.run is not None
        options = ServeOptions(port=port, store=sqlite_url(Path(folder)), with_base=with_base)
        run(dataset, which, settings, Limits(), options)


def check_installed() -> None:
    """Check that the packages of the service are installed.

    Raises:
        SettingsError: one of them is missing. The message says how to install them.
    """
    try:
        import fastapi as _fastapi  # noqa: F401
        import prometheus_client as _prometheus  # noqa: F401
        import sqlalchemy as _sqlalchemy  # noqa: F401
        import uvicorn as _uvicorn  # noqa: F401
    except ImportError as error:
        msg = f"The service needs the package {error.name}, which is not installed. {how_to_install('serve')}"
        raise SettingsError(msg) from error


@dataclass(frozen=True, slots=True)
class Plan:
    """What a process of a service with several workers has to load.

    Attributes:
        data: the dataset folder.
        which: the model or the run.
        settings: the settings of the recommender.
        limits: the limits of the service.
        options: where to listen, and the store.
    """

    data: Path
    which: ModelOptions
    settings: Given
    limits: Limits
    options: ServeOptions


def run(
    dataset: Dataset, which: ModelOptions, settings: Given, limits: Limits, options: ServeOptions
) -> None:
    """Load the recommender, open the store and the port, and answer requests.

    Args:
        dataset: the dataset.
        which: the model or the run. Explanations on a CPU use float32.
        settings: the settings of the recommender.
        limits: the limits of the service.
        options: where to listen, and the store.

    Raises:
        SettingsError: an option is invalid, or the address needs keys.
    """
    from genrec.reports import console
    from genrec.service.app import create_app
    from genrec.service.observe import log_to
    from genrec.service.server import listen
    from genrec.service.server import serve as answer
    from genrec.service.store import Store

    guard = make_guard(which, limits, options)
    assert options.store is not None
    with (
        closing(listen(options.host, options.port)) as opened,
        closing(Store(options.store)) as store,
    ):
        log_to()
        with console.working(f"Loading {which.name} ...") as log:
            service = load_service(dataset, store, which, settings, limits, options, guard, log)
        service.load_arms()
        tell = teller(dataset.info.name, options.host, opened.getsockname()[1])
        answer(create_app(service), service, opened, tell)


def run_workers(name: str, plan: Plan) -> None:
    """Answer requests with several processes, which load what the plan says.

    Args:
        name: the name of the dataset.
        plan: what to load.

    Raises:
        SettingsError: an option is invalid, or the address needs keys.
        GenrecError: a process could not be started.
    """
    from genrec.reports import console
    from genrec.service.observe import log_to
    from genrec.service.server import listen
    from genrec.service.supervisor import supervise

    options = plan.options
    make_guard(plan.which, plan.limits, options)
    log_to()
    with closing(listen(options.host, options.port)) as opened, ExitStack() as stack:
        stack.enter_context(console.working(f"Loading {plan.which.name} ..."))
        tell = teller(name, options.host, opened.getsockname()[1])

        def ready() -> None:
            stack.close()
            tell()

        make = functools.partial(make_service, plan), functools.partial(make_worker, plan)
        supervise(*make, opened, options.workers, ready)


def make_service(plan: Plan, folder: Path) -> Service:
    """Load the service in the process of the model."""
    from genrec.data.dataset import Dataset
    from genrec.service.observe import log_to
    from genrec.service.store import Store

    log_to()
    limits, options = plan.limits, plan.options
    guard = make_guard(plan.which, limits, options, folder)
    assert options.store is not None
    service = load_service(
        Dataset.load(plan.data).with_redaction(plan.settings["redact"]),
        Store(options.store),
        plan.which,
        plan.settings,
        limits,
        options,
        guard,
        lambda text: None,
    )
    service.load_arms()
    return service


def make_worker(plan: Plan, folder: Path, number: int) -> HttpWorker:
    """Load what a worker needs, in its own process."""
    from genrec.data.dataset import Dataset
    from genrec.service.link import Link
    from genrec.service.observe import Metrics, log_to
    from genrec.service.shared import SOCKET
    from genrec.service.store import Store
    from genrec.service.tracing import from_environment
    from genrec.service.worker_app import HttpWorker

    log_to()
    limits, options = plan.limits, plan.options
    assert options.store is not None
    return HttpWorker(
        Dataset.load(plan.data).with_redaction(plan.settings["redact"]),
        Store(options.store),
        make_guard(plan.which, limits, options, folder),
        limits,
        Metrics(from_environment()[0]),
        fixed=_fixed(options),
        link=Link(folder / SOCKET),
        number=number,
    )


def make_guard(
    which: ModelOptions, limits: Limits, options: ServeOptions, folder: Path | None = None
) -> Guard:
    """Check the options that say who may call the service, and read the keys.

    Args:
        which: the model or the run.
        limits: the limits of the service.
        options: where to listen, and the keys.
        folder: the folder that several processes share; None if there is one process.

    Raises:
        SettingsError: an option is invalid, or the address needs keys.
    """
    from genrec.service.page_files import read_hosts
    from genrec.service.security import EVERYONE, Guard, is_loopback, read_keys
    from genrec.service.shared import NUMBERS, Shared

    host, keys = options.host, options.keys
    read_hosts(options.image_hosts)
    if options.with_base and which.run is None:
        msg = "--with-base compares a run with its base model. Give the run with --run, too."
        raise SettingsError(msg)
    if keys is None and not is_loopback(host):
        msg = (
            f"--host {host} can be reached by other machines, so clients need keys. Create a file with "
            "`genrec key keys.json --name shop --scopes read,feedback`, and add --keys keys.json."
        )
        raise SettingsError(msg)
    known = () if keys is None else read_keys(keys)
    hosts = ("127.0.0.1", "localhost", "::1", host) if keys is None else ()
    names = [EVERYONE, *(key.name for key in known)]
    shared = None if folder is None else Shared(folder / NUMBERS, names)
    return Guard(known, rate=limits.rate, hosts=hosts, shared=shared)


def load_service(
    dataset: Dataset,
    store: Store,
    which: ModelOptions,
    settings: Given,
    limits: Limits,
    options: ServeOptions,
    guard: Guard,
    log: Callable[[str], None],
) -> Service:
    """Load the recommenders, and bring them up to date with the store.

    Args:
        dataset: the dataset.
        store: the store.
        which: the model or the run. Explanations on a CPU use float32.
        settings: the settings of the recommender.
        limits: the limits of the service.
        options: the runs, the base model, the stock and the hosts of pictures.
        guard: who may call the service.
        log: a function that is called with a line of text before each slow step.
    """
    from genrec.service.observe import LOG
    from genrec.service.page_files import read_hosts
    from genrec.service.service import Service
    from genrec.service.shop import Engine, Shop
    from genrec.service.tracing import from_environment

    which = use_float32(which)
    if "prompt_memory" not in settings.only:
        settings = Given(
            {**settings, "prompt_memory": PROMPT_MEMORY}, {*settings.named, "prompt_memory"}
        )
    name = "default" if which.run is None else _engine_name(which.run)

    def load(folder: Path) -> Recommender:
        return load_recommender(dataset, replace(which, run=folder), settings, lambda text: None)

    engines = [Engine.of(name, load_recommender(dataset, which, settings, log))]
    if options.with_base:
        base = load_base(dataset, which, settings, log)
        engines.append(Engine.of("base" if name == UNTRAINED else UNTRAINED, base))
    shop = Shop(dataset, store, engines, log=log)
    tracing, remark = from_environment()
    if remark:
        LOG.warning(remark)
    return Service(
        shop,
        guard,
        limits,
        fixed=_fixed(options),
        load=load,
        runs=options.runs,
        image_hosts=read_hosts(options.image_hosts),
        tracing=tracing,
    )


def _fixed(options: ServeOptions) -> dict[str, str]:
    """Return the options that the operator sets for every request."""
    return {} if options.stock is None else {"stock": options.stock}


def teller(name: str, host: str, port: int) -> Callable[[], None]:
    """Return a function that says where a dataset is served."""
    from genrec.reports import console

    place = f"[{host}]" if ":" in host else host
    address = f"http://{place}:{port}"
    text = f"Serving {name} at {address}. All requests: {address}/docs"

    def tell() -> None:
        console.print_line(text)
        sys.stdout.flush()  # whoever started the service may read this from a pipe

    return tell


def load_base(
    dataset: Dataset, which: ModelOptions, settings: Given, log: Callable[[str], None]
) -> Recommender:
    """Load the model that a run was trained from. It ranks, so that the two can be compared."""
    from genrec.runs import Run, find_run

    assert which.run is not None
    model = which.model or Run.read(find_run(which.run)).base_model
    role = settings["model_role"] if "model_role" in settings.named else FUSE
    fused = Given({**settings, "model_role": role}, {*settings.named, "model_role"})
    return load_recommender(dataset, replace(which, run=None, model=model), fused, log)


def _engine_name(run: Path) -> str:
    """Return the name under which clients address a run."""
    from genrec.runs import find_run, run_name

    name = "".join(
        c if c.isalnum() or c in "._-" else "-" for c in run_name(find_run(run).absolute())
    )
    return (name.lstrip("._-") or "run")[:64]
