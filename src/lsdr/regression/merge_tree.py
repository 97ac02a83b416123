"""Merging states in an order that depends on nothing but their number."""

from typing import Generic, TypeVar

from lsdr.regression.state import State

S = TypeVar("S", bound=State)


class MergeTree(Generic[S]):
    """A binary counter: state k is merged as digit k is carried, so the same pairs meet whoever made the states.

    Floating-point sums depend on their order; this order depends on the numbers of the parts alone, so engines and
    worker counts agree bitwise. Rounding grows with log(parts), and log2(parts) + 1 states are alive at most.

    Example:
        >>> class Word:
        ...     def __init__(self, text):
        ...         self.text = text
        ...     def add(self, batch):
        ...         pass
        ...     def merge(self, other):
        ...         self.text = f"({self.text}{other.text})"
        ...         return self
        >>> tree = MergeTree()
        >>> for letter in "abcdefg":
        ...     tree.push(Word(letter))
        >>> tree.total().text
        '(((ab)(cd))((ef)g))'
    """

    def __init__(self) -> None:
        self._stack: list[tuple[int, S]] = []

    def push(self, state: S) -> None:
        """Take the next part's state; it and those before it may be merged in place."""
        level = 0
        while self._stack and self._stack[-1][0] == level:
            _, earlier = self._stack.pop()
            earlier.merge(state)
            state = earlier
            level += 1
        self._stack.append((level, state))

    def latest(self) -> S:
        """The state that the last push ended in: it holds the last part and all that was merged with it."""
        return self._stack[-1][1]

    def total(self) -> S | None:
        """Merge what is left, the latest first; None where nothing was pushed."""
        if not self._stack:
            return None
        _, state = self._stack.pop()
        while self._stack:
            _, earlier = self._stack.pop()
            earlier.merge(state)
            state = earlier
        self._stack.append((0, state))
        return state
