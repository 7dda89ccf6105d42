"""Cells as files have them."""

from __future__ import annotations

from hypothesis import strategies as st

# Fuzzing: any cells, any bytes. Good rows are never lost, bad ones are counted, no traceback.
cells = st.one_of(
    st.sampled_from(["u", "a", "b", "1", "2", "buy", "", "nan", "1e999", "-0"]),
    st.text(st.characters(exclude_categories=["Cs"]), max_size=5),
)
