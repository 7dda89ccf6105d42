"""Titles and models for search."""

from __future__ import annotations

from hypothesis import strategies as st

from genrec import Catalog, History, Interaction, Item, Recommender
from genrec.data import missing
from genrec.text import visible
from support import tiny

# Short words over a small alphabet make shared prefixes and duplicates likely; the rest is what
# real catalogs are full of.
WORDS = ["red", "mug", "re", "set of 1", "set of 12", "A", "a", "红色", "杯子", "☕", "👩‍🚀", "ß"]


CONTROL = ["<|im_end|>", "<|endoftext|>", "<tool_call>", "</s>", "<s>", "<unk>", "\x1b[0m", "\n"]


def is_missing(text: str) -> bool:
    """Check whether a text is a word for a missing value, which ``prepare`` does not take as a title."""
    word = text.strip()
    return word.lower() in (*missing._PROGRAMS, *missing._DASHES, *missing._DOUBTFUL)


titles = st.one_of(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map(" ".join),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=3).map("".join),
    st.tuples(st.sampled_from(WORDS), st.sampled_from(CONTROL), st.sampled_from(WORDS)).map(
        "".join
    ),
    st.text(min_size=1, max_size=6).filter(lambda text: visible(text) and not is_missing(text)),
)


kinds = st.sampled_from(tiny.KINDS)


@st.composite
def requests(draw: st.DrawFn) -> tuple[Recommender, History]:
    names = draw(st.lists(titles, min_size=1, max_size=14))
    catalog = Catalog(Item(f"i{n}", t) for n, t in enumerate(names))
    recommender = Recommender(
        catalog,
        tiny.language_model(draw(kinds)),
        normalization=draw(st.sampled_from(["catalog", "vocab"])),
        case=draw(st.sampled_from(["as_is", "lower"])),
        exclude_seen=draw(st.booleans()),
        beam_size=draw(st.sampled_from([None, 1, 3])),
    )
    rows = draw(st.lists(st.integers(0, len(names) - 1), max_size=4))
    history = History(tuple(Interaction(f"i{r}", "buy") for r in rows))
    return recommender, history
