"""Load the template for a style of explanation. This module does not use models."""

from __future__ import annotations

from pathlib import Path

from genrec.data.behaviors import templates_folder
from genrec.errors import PromptError
from genrec.prompts.template import Template

PLAIN = "plain"  # the style with the fixed sentence of the template, which no model writes


def load_explain_template(style: str, language: str, own: str | None) -> Template:
    """Load the template for a style of explanation.

    The file is ``explain.jinja`` for the styles ``reason`` and ``plain``, or ``explain_STYLE.jinja``
    for any other.

    Args:
        style: the name of the style.
        language: the language of the sentences.
        own: the folder with the user's own templates, or None.

    Raises:
        PromptError: there is no template for the style. The message lists the known styles.
    """
    name = "explain" if style in {"reason", PLAIN} else f"explain_{style}"
    try:
        return Template.load(name, language, own=own)
    except PromptError as error:
        if "There is no template" not in str(error):
            raise
        folders = [templates_folder(), *([] if own is None else [Path(own)])]
        names = {f.stem for p in folders for f in (p / language).glob("explain_*.jinja")}
        known = ["reason", *sorted([PLAIN, *(n.removeprefix("explain_") for n in names)])]
        msg = f"Unknown value style={style!r}. Expected one of: {', '.join(known)}."
        raise PromptError(msg) from None
