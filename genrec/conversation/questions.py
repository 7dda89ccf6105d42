"""Write questions back in the language of a query."""

from __future__ import annotations

from collections.abc import Sequence

from genrec.conversation.query import Question

_NAMES = {"price": "价格", "year": "年份", "stock": "库存"}


class Asker:
    """Writes questions in English or Chinese.

    Attributes:
        chinese: True to write Chinese.
    """

    def __init__(self, *, chinese: bool) -> None:
        self.chinese = chinese

    def _ask(
        self, kind: str, said: str, english: str, chinese: str, choices: Sequence[str] = ()
    ) -> Question:
        return Question(kind, said, chinese if self.chinese else english, tuple(choices))

    def no_column(self, said: str, what: str) -> Question:
        """The catalog has no column for a condition."""
        return self._ask(
            "no_column",
            said,
            f'The catalog has no column for "{what}", so "{said}" cannot be checked. Should it be ignored?',
            f"目录中没有“{_NAMES.get(what, what)}”一栏，无法检查“{said}”。要忽略这个条件吗？",
        )

    def no_value(self, said: str, column: str, value: str, near: Sequence[str]) -> Question:
        """A column does not have a value."""
        return self._ask(
            "no_value",
            said,
            f'No item has the {column.replace("_", " ")} "{value}". Which one is meant?',
            f"没有商品的“{column}”是“{value}”。您指的是哪一个？",
            near,
        )

    def which_column(self, said: str, columns: Sequence[str]) -> Question:
        """Several columns have a value."""
        named = " or ".join(c.replace("_", " ") for c in columns)
        return self._ask(
            "ambiguous",
            said,
            f'"{said}" can be the {named}. Which one is meant?',
            f"“{said}”可以是{'或'.join(columns)}。您指的是哪一个？",
            [f"{c}: {said}" for c in columns],
        )

    def which_bound(self, said: str, amount: str) -> Question:
        """A price was named without saying whether it is a maximum."""
        return self._ask(
            "ambiguous",
            said,
            f"Should the price be at most {amount}, about {amount}, or at least {amount}?",
            f"价格应为{amount}以下、{amount}左右还是{amount}以上？",
            [f"at most {amount}", f"about {amount}", f"at least {amount}"]
            if not self.chinese
            else [f"{amount}以下", f"{amount}左右", f"{amount}以上"],
        )

    def how_much(self, said: str) -> Question:
        """Something cheap is wanted, but no price was named."""
        return self._ask(
            "ambiguous",
            said,
            f'What should it cost at most? "{said}" names no price.',
            f"最高价格是多少？“{said}”没有说明价格。",
        )

    def currency(self, said: str, own: str) -> Question:
        """The prices of the catalog are in another currency."""
        return self._ask(
            "ambiguous",
            said,
            f'The prices are in {own.upper()}. How much is "{said}" in {own.upper()}?',
            f"价格的单位是{own.upper()}。“{said}”是多少{own.upper()}？",
        )

    def since_when(self, said: str, years: Sequence[int]) -> Question:
        """Something new is wanted, but it is not said since when."""
        return self._ask(
            "ambiguous",
            said,
            f'Since which year does "{said}" count?',
            f"“{said}”从哪一年算起？",
            [f"since {y}" for y in years] if not self.chinese else [f"{y}年以来" for y in years],
        )

    def contradiction(self, said: Sequence[str]) -> Question:
        """Several conditions exclude each other."""
        parts = list(dict.fromkeys(said))
        both = " and ".join(f'"{part}"' for part in parts)
        return self._ask(
            "contradiction",
            ", ".join(parts),
            f"No item can satisfy {both} together. Which of them should hold?",
            f"没有商品能同时满足{'和'.join(f'“{part}”' for part in parts)}。应以哪一个为准？",
            parts,
        )

    def which_item(self, said: str, titles: Sequence[str] = ()) -> Question:
        """It is not clear which item is meant."""
        return self._ask(
            "reference", said, f'Which item does "{said}" mean?', f"“{said}”指的是哪一件？", titles
        )

    def no_place(self, said: str, length: int) -> Question:
        """The list has no such place."""
        return self._ask(
            "reference",
            said,
            f'The list has {length} item{"" if length == 1 else "s"}, so "{said}" is not among them. Which one '
            "is meant?",
            f"列表中有{length}件商品，没有“{said}”。您指的是哪一件？",
        )

    def no_list(self, said: str) -> Question:
        """A place in a list was named, but no list was shown."""
        return self._ask(
            "reference",
            said,
            f'No list was shown yet, so "{said}" refers to nothing. Which item is meant?',
            f"还没有显示过列表，“{said}”没有所指。您指的是哪一件？",
        )

    def missing_value(self, said: str, title: str, what: str) -> Question:
        """An item has no value to compare others with."""
        return self._ask(
            "reference",
            said,
            f'The {what} of "{title}" is not known, so "{said}" cannot be checked. What should the limit be?',
            f"“{title}”的{_NAMES.get(what, what)}未知，无法检查“{said}”。界限应是多少？",
        )

    def nothing(self, said: Sequence[str]) -> Question:
        """No item satisfies the conditions, though they do not contradict each other."""
        parts = list(dict.fromkeys(said))
        both = " and ".join(f'"{part}"' for part in parts)
        return self._ask(
            "contradiction",
            ", ".join(parts),
            f"No item satisfies {both or 'all of this'}. What can be left out?",
            f"没有商品满足{'和'.join(f'“{part}”' for part in parts) or '这些要求'}。可以去掉哪个条件？",
            parts,
        )

    def empty(self) -> Question:
        """Nothing was said."""
        return self._ask("empty", "", "What are you looking for?", "您想找什么？")
