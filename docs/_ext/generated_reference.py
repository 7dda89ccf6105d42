"""Directives that write reference text from the code, so that it cannot fall behind.

``{genrec-command} NAME`` lists a command's arguments and options, from the command line itself;
``{genrec-settings} MODULE.CLASS`` the fields of a dataclass with type, default and help;
``{genrec-exit-codes}`` the exception tree. A command without a section in the documents is a
warning, which scripts/docs makes an error.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import re
from typing import Any

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective

from genrec import errors
from genrec.cli.main import app as command_line

LOG = logging.getLogger(__name__)
GROUP: Any = typer.main.get_command(command_line)


class Command(SphinxDirective):
    """The usage, arguments and options of one command."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the command's reference as nodes."""
        name = self.arguments[0]
        return self.parse_text_to_nodes("\n".join(command_text(name)))


def command_text(name: str) -> list[str]:
    """Write the reference of a command in MyST Markdown."""
    command = GROUP.commands[name]
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not _is_help(p)]
    usage = " ".join(["genrec", name, *(_metavar(a) for a in arguments), "[OPTIONS]"])
    lines = [_paragraphs(command.help or ""), "", "```text", usage, "```", ""]
    lines += [f":::{{program}} genrec {name}", ":::", ""]
    for argument in arguments:
        lines += [f"**{_metavar(argument)}**: {_sentence(argument.help)}", ""]
    panels: dict[str, list[Any]] = {}
    for option in options:
        panels.setdefault(option.rich_help_panel or "Options", []).append(option)
    for panel, members in panels.items():
        if len(panels) > 1:
            lines += [f"**{panel}**", ""]
        for option in members:
            lines += _option(option)
    return lines


def _option(option: Any) -> list[str]:
    longest = sorted([*option.opts], key=len, reverse=True)
    names = ", ".join([*longest, *option.secondary_opts])
    kind = "" if option.is_flag else f" {_kind(option)}"
    facts = []
    if option.required:
        facts.append("Required.")
    if option.multiple:
        facts.append("May be repeated.")
    text = _sentence(option.help)
    default = option.default
    if isinstance(option.show_default, str):
        facts.append(f"Default: {option.show_default}.")
        default = None
    shown = default is not None and default is not False and default not in ((), [], "")
    if shown and option.show_default and not callable(default) and "(default" not in text:
        if isinstance(default, list | tuple):
            default = ",".join(map(str, default))
        facts.append(f"Default: `{default}`.")
    facts = [fact for fact in facts if fact not in text]
    return [f":::{{option}} {names}{kind}", " ".join([text, *facts]), ":::", ""]


def _is_help(option: Any) -> bool:
    return bool({"--help", "--help-all"} & {*option.opts})


def _metavar(parameter: Any) -> str:
    return str(parameter.metavar or parameter.name).upper()


def _kind(option: Any) -> str:
    annotation = option.type_descriptor.annotation
    name = getattr(annotation, "__name__", str(annotation)).lower()
    name = re.sub(r"list\[(\w+)\]", r"\1", str(annotation)) if option.multiple else name
    words = {"str": "TEXT", "int": "N", "float": "NUMBER", "path": "PATH", "posixpath": "PATH"}
    name = name.split(".")[-1].lower()
    return str(option.metavar or words.get(name, name.upper()))


def _sentence(text: str | None) -> str:
    text = " ".join((text or "").split())
    parts = text.split("`")  # every second one is code
    parts[::2] = [re.sub(r"(?<![\w-])--[a-z][a-z-]*", r"`\g<0>`", part) for part in parts[::2]]
    text = "`".join(parts)
    if text and text[-1] not in ".!?)":
        text += "."
    first = text.partition(" ")[0]
    return text if re.search(r"[-_:`,;=]", first) else text[:1].upper() + text[1:]


def _paragraphs(text: str) -> str:
    text = inspect.cleandoc(text).replace("\b", "")
    return re.sub(r"(?<!\n)\n(?!\n)", " ", text)


class SettingsTable(SphinxDirective):
    """The fields of a dataclass of settings."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return one definition a field: name, type, default and what it does."""
        module, _, name = self.arguments[0].rpartition(".")
        cls = getattr(importlib.import_module(module), name)
        described = attributes_of(cls)
        lines = []
        for field in dataclasses.fields(cls):
            text = field.metadata.get("help") or described.get(field.name, "")
            if not text:
                LOG.warning("%s.%s has no help", name, field.name, location=self.get_location())
            kind = str(field.type).replace(" | None", " or None")
            lines += [f"`{field.name}` ({kind}; default {_default(field)})"]
            lines += [f": {_sentence(str(text).replace('``', '`'))}", ""]
        return self.parse_text_to_nodes("\n".join(lines))


def attributes_of(cls: type) -> dict[str, str]:
    """Read the lines under "Attributes:" of a class's docstring."""
    texts: dict[str, str] = {}
    name = ""
    for line in inspect.cleandoc(cls.__doc__ or "").partition("Attributes:")[2].splitlines():
        head = re.match(r" {4}(\w+): ?(.*)", line)
        if head:
            name, text = head.groups()
            texts[name] = text
        elif name and line.strip():
            texts[name] += " " + line.strip()
    return texts


def _default(field: dataclasses.Field[Any]) -> str:
    if field.default_factory is not dataclasses.MISSING:
        return "empty"
    if field.default is dataclasses.MISSING:
        return "required"
    if field.default is None and field.metadata.get("unset"):
        return str(field.metadata["unset"])
    return f"`{field.default!r}`"


class ExitCodes(SphinxDirective):
    """One row an exception class: its code and what it means."""

    def run(self) -> list[nodes.Node]:
        """Return the table."""
        lines = ["| code | exception | meaning |", "|---|---|---|", "| 0 | | Success. |"]
        for value in vars(errors).values():
            if isinstance(value, type) and issubclass(value, errors.GenrecError):
                text = _paragraphs(value.__doc__ or "")
                lines.append(f"| {value.exit_code} | `{value.__name__}` | {text} |")
        return self.parse_text_to_nodes("\n".join(lines))


def check_commands(app: Sphinx, environment: Any) -> None:
    """Warn about commands that no page documents."""
    pages = (app.srcdir / "reference").glob("*.md")
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    for name in GROUP.commands:
        if f"{{genrec-command}} {name}\n" not in text:
            LOG.warning("the command %s is not in reference/cli.md", name)


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directives."""
    app.add_directive("genrec-command", Command)
    app.add_directive("genrec-settings", SettingsTable)
    app.add_directive("genrec-exit-codes", ExitCodes)
    app.connect("env-updated", check_commands)
    return {"version": "1", "parallel_read_safe": True}
