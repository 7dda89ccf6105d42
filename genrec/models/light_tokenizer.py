"""Read a tokenizer without transformers, which takes half a second to import.

The file ``tokenizer.json`` is read with the tokenizers library, which transformers also uses for
tokenizers that have no class of their own. A test checks that the token ids are equal. All other
features are delegated to the transformers tokenizer, which is loaded when it is first needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_CLASSES = {"TokenizersBackend", "PreTrainedTokenizerFast"}
_SPECIAL = ("bos_token", "eos_token", "pad_token", "unk_token")
# Other entries of tokenizer_config.json that do not change token ids or texts.
_HARMLESS = {
    "backend", "is_local", "local_files_only", "model_max_length", "padding_side",
    "truncation_side", "name_or_path", "model_input_names", "tokenizer_class",
}  # fmt: skip


class LightTokenizer:
    """The part of a transformers tokenizer that encodes and decodes texts.

    Attributes:
        digest: a SHA-256 hash (hex) of everything that determines token ids.
        chat_template: the Jinja template of chat messages, or None.
        bos_token_id: the id of the token that begins a text, or None.
        eos_token_id: the id of the token that ends a text, or None.
        pad_token_id: the id of the padding token, or None.
        unk_token_id: the id of the token for unknown text, or None.
    """

    def __init__(
        self, folder: Path, tokenizer: Tokenizer, special: Mapping[str, str | None], digest: str
    ) -> None:
        """Wrap a tokenizer from the tokenizers library; use ``load_tokenizer`` to load a folder.

        Args:
            folder: the folder of the tokenizer's files.
            tokenizer: the tokenizer.
            special: the special tokens, keyed by their names in ``tokenizer_config.json``.
            digest: a SHA-256 hash (hex) of the contents of ``tokenizer.json``.
        """
        self.digest = digest
        self._folder = folder
        self._tokenizer = tokenizer
        ids = {
            n: None if t is None else tokenizer.token_to_id(t)
            for n, t in ((name, special.get(name)) for name in _SPECIAL)
        }
        self.bos_token_id, self.eos_token_id = ids["bos_token"], ids["eos_token"]
        self.pad_token_id, self.unk_token_id = ids["pad_token"], ids["unk_token"]
        template = folder / "chat_template.jinja"
        self.chat_template = template.read_text(encoding="utf-8") if template.is_file() else None

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
        return_attention_mask: bool = False,
    ) -> dict[str, Any]:
        """Encode one text or several texts.

        Args:
            text: the text, or a list of texts.
            add_special_tokens: whether to add the tokens that begin and end a text.
            split_special_tokens: whether to treat special tokens that occur in the text as plain
                text.
            return_attention_mask: has no effect; a mask is never returned.

        Returns:
            A dictionary with the key ``input_ids``, whose value is the ids of the text, or a list
            with the ids of each text if there are several.
        """
        self._tokenizer.encode_special_tokens = split_special_tokens
        single = isinstance(text, str)
        found = self._tokenizer.encode_batch(
            [text] if single else list(text), add_special_tokens=add_special_tokens
        )
        ids = [encoding.ids for encoding in found]
        return {"input_ids": ids[0] if single else ids}

    def decode(self, ids: int | Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Decode one or several ids to text."""
        given = [ids] if isinstance(ids, int) else list(ids)
        return str(self._tokenizer.decode(given, skip_special_tokens=skip_special_tokens))

    def get_vocab(self) -> dict[str, int]:
        """Return the id of each token, including added tokens."""
        return dict(self._tokenizer.get_vocab(with_added_tokens=True))

    @property
    def added_tokens_decoder(self) -> dict[int, Any]:
        """The added tokens, keyed by id."""
        return dict(self._tokenizer.get_added_tokens_decoder())

    def __len__(self) -> int:
        return int(self._tokenizer.get_vocab_size(with_added_tokens=True))

    @cached_property
    def _whole(self) -> Any:
        """The same tokenizer, loaded with transformers."""
        from genrec.models.quiet import quiet_transformers

        with quiet_transformers():
            from transformers import AutoTokenizer

            return AutoTokenizer.from_pretrained(self._folder, trust_remote_code=False)

    def __getattr__(self, name: str) -> Any:
        """Delegate any other public attribute to the tokenizer that transformers loads.

        An example is ``apply_chat_template``.
        """
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._whole, name)


def load_tokenizer(folder: str | Path) -> LightTokenizer | None:
    """Read the tokenizer of a model folder.

    Args:
        folder: a folder with ``tokenizer.json`` and ``tokenizer_config.json``.

    Returns:
        The tokenizer, or None if a file is missing or damaged, or if transformers would modify the
        tokenizer after reading it.
    """
    from tokenizers import Tokenizer

    folder = Path(folder)
    try:
        about = dict(json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8")))
        stored = (folder / "tokenizer.json").read_bytes()
        tokenizer = Tokenizer.from_buffer(stored)
    except Exception:  # the tokenizers library raises plain exceptions
        return None
    if not _is_plain(about, tokenizer):
        return None
    return LightTokenizer(folder, tokenizer, about, hashlib.sha256(stored).hexdigest())


def _is_plain(about: Mapping[str, Any], tokenizer: Tokenizer) -> bool:
    """Check that transformers would not modify a tokenizer after reading its files.

    Args:
        about: the contents of ``tokenizer_config.json``.
        tokenizer: the contents of ``tokenizer.json``.
    """
    added = tokenizer.get_added_tokens_decoder().values()
    special = {about[name] for name in _SPECIAL if about.get(name) is not None}
    return (
        about.get("tokenizer_class") in _CLASSES
        and about.keys() <= {*_HARMLESS, *_SPECIAL}
        and special <= {t.content for t in added if t.special and not t.normalized}
        and tokenizer.post_processor is not None
        and tokenizer.truncation is None
        and tokenizer.padding is None
        and tokenizer.get_vocab_size() <= 100_000  # transformers may repair larger ones
    )
