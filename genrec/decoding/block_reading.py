"""Read encoded prompts block by block, as ``attention="by_event"`` does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from genrec.errors import SettingsError
from genrec.prompts.encoder import EncodedPrompt

if TYPE_CHECKING:
    from genrec.models.block_reader import BlocksRead
    from genrec.models.language_model import LanguageModel
    from genrec.models.line_files import LineOptions


@dataclass(frozen=True, slots=True)
class ByEvent:
    """How prompts are read whose older events are read by themselves.

    Attributes:
        recent: number of the latest events that are read together with all earlier ones.
        lines: how lines are stored; None to leave the store as it is.
    """

    recent: int
    lines: LineOptions | None = None

    def read(self, model: LanguageModel, prompts: Sequence[EncodedPrompt]) -> BlocksRead:
        """Let a model read prompts.

        Args:
            model: the language model.
            prompts: the prompts, at least one.

        Raises:
            SettingsError: the events of a prompt cannot be separated, or the model cannot read
                blocks.
        """
        divided = [prompt.by_event(self.recent) for prompt in prompts]
        if not hasattr(model, "read_blocks"):  # a user's own class
            msg = (
                f"attention='by_event' does not work with {model.name}, which has no method "
                "read_blocks. Expected a genrec.models.language_model.LanguageModel; or use "
                "attention='full'."
            )
            raise SettingsError(msg)
        return model.read_blocks(divided, self.lines)
