"""Format titles for prompts, setting their case and the text around them."""

from __future__ import annotations

from dataclasses import dataclass

from genrec.data.catalog import Catalog
from genrec.errors import PromptError
from genrec.text import mostly_upper, one_line

CASES = ("as_is", "lower")


@dataclass(frozen=True, slots=True)
class TitleForm:
    """The format in which the model sees titles. Users always see the original titles.

    Attributes:
        case: ``as_is`` or ``lower``.
        max_title_tokens: the number of tokens to which a longer title is truncated.
        lead: the text before every title.
        terminator: the text that ends every title; it does not occur within titles.
    """

    case: str = "as_is"
    max_title_tokens: int = 48
    lead: str = " "
    terminator: str = "\n"

    def __post_init__(self) -> None:
        """Check the values."""
        if self.case not in CASES:
            msg = f"Unknown value case={self.case!r}. Expected one of: {', '.join(CASES)}."
            raise PromptError(msg)
        if self.max_title_tokens < 1:
            msg = f"max_title_tokens={self.max_title_tokens} is too small. Expected a number of at least 1."
            raise PromptError(msg)

    @classmethod
    def of(cls, catalog: Catalog) -> TitleForm:
        """Create the format for a catalog, with lower case if its titles are mostly in capitals."""
        return cls(case="lower" if mostly_upper(catalog.titles) else "as_is")

    def render(self, title: str) -> str:
        """Return a title as the model sees it.

        The title is put on one line and converted to the chosen case. If it contains the
        terminator, the terminator is removed.
        """
        line = one_line(title)
        if self.terminator in line:
            line = one_line(line.replace(self.terminator, " "))
        return line.lower() if self.case == "lower" else line
