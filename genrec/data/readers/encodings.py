"""Detect the encoding of a text file and decode it.

A byte order mark determines the encoding. A file without one is read as UTF-8 if it is valid UTF-8,
apart from a few damaged rows. For any other file, charset-normalizer guesses the encoding from
cells across the whole file. Western and Central European code pages differ in only a few letters,
so the choice between them is based on the alphabets of the languages that use them.

This module deals with bytes and text only, not with columns.
"""

from __future__ import annotations

import codecs
import io
import re
from collections import Counter
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass
from typing import BinaryIO, TextIO

from genrec.errors import SettingsError

BROKEN = "\ufdd0"  # a code point that never occurs in valid text; it marks undecodable bytes
DOUBTFUL = "[\u0080-\u009f\ufffd\ue000-\uf8ff]|Ã[\u0080-\u00bf]|â€."  # an RE2 and Python pattern

Opener = Callable[[], BinaryIO]

_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark is a prefix of this one
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_OTHERS = ["cp1251", "gb18030", "cp932", "big5", "euc_kr", "euc_jp"]
# The letters outside ASCII of languages that are written in each Latin code page.
_ALPHABETS = {
    "cp1252": [
        "äöüß", "àâæçèéêëîïôœùûüÿ", "áéíñóúüªº", "àèéìíîòóùú", "àáâãçéêíóôõúªº", "äåæéöø",
        "àáèéëïöü", "áæéíðóöúýþ", "àçèéíïòóúü·",
    ],
    "cp1250": ["óąćęłńśźż", "áéíóôúýäčďěĺľňŕřšťůž", "áéíóöúüőű", "âîăşţ", "ćčđšž"],
    "cp1254": ["âçîöûüğış"],
}  # fmt: skip
_IN_A_WORD = re.compile(r"(?<=[^\W\d_])[^\x00-\x7f]|[^\x00-\x7f](?=[^\W\d_])")
_HIGH = bytes(range(128, 256))
_LINES = 2000  # the most lines that a sample has
_CELLS = 20  # cells in a part of the sample; charset-normalizer is reliable from about five
_PARTS = 10


@dataclass(frozen=True, slots=True)
class Encoding:
    """The encoding of a file.

    Attributes:
        name: the name of Python's codec.
        intact: True if the file is known to be valid UTF-8.
        ascii: True if the file is known to have only ASCII characters.
        example: a sample of non-ASCII text from the file if the encoding was guessed; otherwise
            empty.
    """

    name: str
    intact: bool = False
    ascii: bool = False
    example: str = ""

    @property
    def label(self) -> str:
        """The encoding's name for use in messages."""
        return "UTF-8" if self.name == "utf-8" else self.name


def named(encoding: str) -> Encoding:
    """Look up an encoding by a user-supplied name.

    Raises:
        SettingsError: Python does not know the encoding.
    """
    try:
        name = codecs.lookup(encoding).name
        "".encode(name)  # fails for codecs that are no text encodings, such as base64
    except (LookupError, ValueError, TypeError) as error:
        msg = (
            f"Unknown value encoding={encoding!r}. Expected a name such as utf-8, cp1252, latin-1, "
            "gb18030, shift_jis or utf-16."
        )
        raise SettingsError(msg) from error
    return Encoding(name)


def detect(opener: Opener, known: Container[str] = ()) -> Encoding:
    """Detect the encoding of a text file.

    Args:
        opener: a function that opens the file and decompresses it.
        known: common column names. They are used to choose the encoding if only the header contains
            non-ASCII characters.
    """
    with opener() as stream:
        start = stream.read(4096)
    mark = next((name for mark, name in _MARKS if start.startswith(mark)), None)
    if mark not in {None, "utf-8"}:
        return Encoding(str(mark))
    unmarked = _utf16_without_mark(start)
    if unmarked:
        return Encoding(unmarked)
    only_ascii = _valid_utf8(opener)
    if only_ascii is not None:
        return Encoding("utf-8", intact=True, ascii=only_ascii)
    if mark:
        return Encoding("utf-8")
    valid, broken, lines = _survey(opener)
    cells = list(dict.fromkeys(c for line in lines for c in _cells(line))) or lines[:_CELLS]
    guess = None if valid >= broken else _guess(cells)
    if lines and valid < broken:
        guess = _with_known_names(lines[0], cells, guess, known)
    if guess is None:
        return Encoding("utf-8")
    decoded = (part for cell in cells for part in cell.decode(guess, "replace").split("|"))
    good = (text.strip() for text in decoded if not text.isascii() and "\ufffd" not in text)
    example = next(good, "") or cells[0].decode(guess, "replace")
    return Encoding(guess, example=example[:60])


def open_text(opener: Opener, encoding: str, newline: str = "") -> TextIO:
    """Open a text file; bytes that cannot be decoded become ``BROKEN``.

    Args:
        opener: a function that opens the file and decompresses it.
        encoding: the name of the codec.
        newline: as for ``io.TextIOWrapper``.
    """
    codec = "utf-8-sig" if encoding == "utf-8" else encoding
    return io.TextIOWrapper(opener(), encoding=codec, errors=_HANDLER, newline=newline)


def open_utf8(opener: Opener, encoding: str) -> BinaryIO:
    """Open a text file as UTF-8; bytes that cannot be decoded become ``BROKEN``."""
    return io.BufferedReader(_Recoded(open_text(opener, encoding)), 1 << 20)


class _Recoded(io.RawIOBase):
    """A binary stream with the content of a text stream, encoded as UTF-8."""

    def __init__(self, text: TextIO) -> None:
        self._text = text
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return True, since the stream can be read."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill a buffer with the next bytes and return their number, which is 0 at the end."""
        if not self._rest:
            self._rest = memoryview(self._text.read(1 << 20).encode("utf-8", "replace"))
        target = memoryview(buffer).cast("B")  # type: ignore[arg-type]
        size = min(len(target), len(self._rest))
        target[:size] = self._rest[:size]
        self._rest = self._rest[size:]
        return size

    def close(self) -> None:
        """Close the text stream."""
        self._text.close()
        super().close()


def _mark_broken(error: UnicodeError) -> tuple[str, int]:
    """Replace one undecodable byte, and continue with the next one."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return BROKEN, error.start + 1


_HANDLER = "genrec.broken"
codecs.register_error(_HANDLER, _mark_broken)


def _utf16_without_mark(start: bytes) -> str:
    """Return the variant of UTF-16 that the first bytes suggest, or an empty string.

    In UTF-16, one of the two bytes of every separator, digit and line break is zero.
    """
    start = start[: len(start) // 2 * 2]
    big, little = start[::2].count(0), start[1::2].count(0)
    if max(big, little) * 40 < len(start) or min(big, little) * 10 > max(big, little):
        return ""
    name = "utf-16-be" if big > little else "utf-16-le"
    try:
        text = codecs.getincrementaldecoder(name)().decode(start)
    except UnicodeDecodeError:
        return ""
    return name if "\n" in text or "\r" in text else ""


def _valid_utf8(opener: Opener) -> bool | None:
    """Check whether a file has only ASCII characters; return None if it is not valid UTF-8."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    only_ascii = True
    try:
        with opener() as stream:
            while block := stream.read(1 << 22):
                only_ascii = only_ascii and block.isascii()
                if not only_ascii:
                    decoder.decode(block)
            decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return None
    return only_ascii


def _survey(opener: Opener) -> tuple[int, int, list[bytes]]:
    """Count the non-ASCII characters that are valid UTF-8 and the bytes that are not.

    Returns:
        The two counts, and a sample of the non-ASCII lines from the whole file.
    """
    valid = broken = seen = 0
    step = 1
    sample: list[bytes] = []
    rest = b""
    with opener() as stream:
        while block := stream.read(1 << 22):
            plain = len(block.translate(None, _HIGH))
            text = block.decode("utf-8", "ignore")  # a character may be cut at the end of the block
            valid += len(text) - plain
            broken += len(block) - len(text.encode())
            lines = (rest + block).splitlines(keepends=True)
            rest = lines.pop()
            for line in lines:
                if not line.isascii():
                    if seen % step == 0:
                        sample.append(line)
                    seen += 1
            while len(sample) > _LINES:
                sample, step = sample[::2], step * 2
    return valid, broken, sample if rest.isascii() else [*sample, rest]


def _cells(line: bytes) -> Iterable[bytes]:
    """Split a line at all common separators, and return the cells that are not ASCII.

    In all encodings that can be guessed, a separator is never the second byte of a character.
    """
    parts = (part.strip() for part in re.split(rb'[,;\t"]+', line))
    return (part for part in parts if not part.isascii() and len(part) <= 400)


def _guess(cells: list[bytes]) -> str | None:
    """Guess the encoding of cells that are not UTF-8, or return None if no encoding fits.

    The encoding is guessed separately for each part of the sample, and the most frequent guess is
    used, so that a few damaged cells do little harm.
    """
    from charset_normalizer import from_bytes

    latin = list(_ALPHABETS)
    count = max(1, min(_PARTS, len(cells) // _CELLS))
    votes: Counter[str] = Counter()
    for part in range(count):
        content = b"\n".join(cells[part::count][: 4 * _CELLS])
        found = from_bytes(
            content,
            cp_isolation=[*latin, *_OTHERS],
            enable_fallback=False,
            preemptive_behaviour=False,
        ).best()
        if found is not None:
            votes["latin" if found.encoding in latin else found.encoding] += 1
    if not votes:
        return None
    winner = votes.most_common(1)[0][0]
    return _latin_code_page(cells) if winner == "latin" else winner


def _with_known_names(
    header: bytes, cells: list[bytes], guess: str | None, known: Container[str]
) -> str | None:
    """Return the encoding in which the header contains the most known non-ASCII column names.

    In case of a tie, the guess is kept.
    """
    best, most = guess, 0
    for name in dict.fromkeys([*([guess] if guess else []), *_OTHERS, *_ALPHABETS]):
        try:
            names = re.split(r'[,;\t|"]+', header.decode(name))
            b"\n".join(cells).decode(name)
        except UnicodeDecodeError:
            continue
        found = sum(not n.isascii() and n.strip() in known for n in names)
        if found > most:
            best, most = name, found
    return best


def _latin_code_page(cells: list[bytes]) -> str:
    """Return the Latin code page with which the decoded cells look most like real text.

    The score of a code page is the number of characters that belong to the alphabet of one
    language, where the best language is chosen for each cell. Ties are broken by the score with a
    single language for all cells, and then by the order of the code pages, in which Western
    European comes first. A character that stands alone, as in ``£5``, is not part of a word and
    does not count.
    """
    fits: dict[str, tuple[int, int]] = {}
    for name, alphabets in _ALPHABETS.items():
        decoded = [cell.decode(name, "replace").lower() for cell in cells]
        texts = [_IN_A_WORD.findall(text) for text in decoded]
        wrong = sum(text.count("\ufffd") for text in decoded)
        each = sum(max(sum(c in one for c in text) for one in alphabets) for text in texts)
        together = max(sum(c in one for text in texts for c in text) for one in alphabets)
        fits[name] = each - wrong, together
    return max(fits, key=lambda name: fits[name])
