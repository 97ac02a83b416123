"""What is wrong with a document, in a sentence."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Problem:
    """One document, and what was wrong with it."""

    name: str
    message: str


class UnreadableError(ValueError):
    """A document that cannot be read.

    Args:
        name: The document.
        message: What was found and what to do about it; the sentence goes on after the name.

    Example:
        >>> str(UnreadableError("a.pdf", "is encrypted"))
        'a.pdf is encrypted'
    """

    def __init__(self, name: str, message: str) -> None:
        super().__init__(name, message)
        self.name = name
        self.message = message

    def __str__(self) -> str:
        return f"{self.name} {self.message}"
