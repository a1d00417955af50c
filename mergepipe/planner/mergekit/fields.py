"""One mapping of a recipe being read: keys that are wanted, what kind of value, what is left over.

A value of the wrong kind is a UsageError with its place; a key that nobody asks for is a warning
with the nearest that is known, because mergekit passes over it without a word.
"""

from collections.abc import Iterable
from difflib import get_close_matches

from mergepipe.errors import UsageError
from mergepipe.methods.parameters import nearest
from mergepipe.names import quoted
from mergepipe.planner.mergekit.document import Mapping, Node, Place, Scalar, Sequence


class Notes:
    """What is collected while a file is read."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.warnings: list[str] = []

    def warn(self, place: Place, message: str) -> None:
        """Something in the file that has no effect."""
        self.warnings.append(f"{self.source}, line {place.line}: {message}")

    def forget(self, place: Place, key: str) -> None:
        """What was said of a key that an error will name."""
        start = f"{self.source}, line {place.line}: "
        self.warnings = [
            said
            for said in self.warnings
            if not (said.startswith(start) and f"knows no {quoted(key)}," in said)
        ]

    def refused(self, place: Place, message: str, hint: str = "") -> UsageError:
        """An error about one place of the file."""
        return UsageError(f"{self.source}, {place}: {message}", hint)


class Fields:
    """The entries of a mapping; each key that nobody knows is warned of at once.

    A misspelt key is often why something is missing further down, and is said with that.
    """

    def __init__(
        self,
        node: Node,
        what: str,
        notes: Notes,
        known: Iterable[str] | None,
        without_effect: Iterable[str] = (),
    ) -> None:
        """The entries of `node`, which messages call `what`.

        known           the keys that it may have; None: any
        without_effect  others, that are known to do nothing
        """
        if not isinstance(node, Mapping):
            raise notes.refused(
                node.place, f"{what} is {described(node)}", f"{what} must be a mapping (key: value)"
            )
        self.place = node.place
        self._entries = {entry.key: entry for entry in node.entries}
        self._what = what
        self._notes = notes
        if known is not None:
            self._warn(set(known), set(without_effect))

    def get(self, key: str) -> Node | None:
        """The value of a key; None where it is absent or null."""
        entry = self._entries.get(key)
        if entry is None or (isinstance(entry.value, Scalar) and entry.value.value is None):
            return None
        return entry.value

    @property
    def names(self) -> tuple[str, ...]:
        """Every key, in order."""
        return tuple(self._entries)

    def need(self, key: str, hint: str = "") -> Node:
        """The value of a key that must be there."""
        value = self.get(key)
        if value is None:
            written = get_close_matches(key, [name for name in self._entries if name != key], 1)
            if written:
                near = written[0]
                hint = f"line {self._line(near)} has {quoted(near)}: did you mean {quoted(key)}?"
                self._notes.forget(self._entries[near].place, near)
            raise self._notes.refused(self.place, f"{self._what} has no {quoted(key)}", hint)
        return value

    def _line(self, key: str) -> int:
        return self._entries[key].place.line

    def text(self, key: str) -> str | None:
        """The text of a key, as it was written."""
        value = self.get(key)
        return None if value is None else text(value, key, self._notes)

    def flag(self, key: str) -> bool:
        """A boolean; absent is false."""
        value = self.get(key)
        if value is None:
            return False
        if isinstance(value, Scalar) and isinstance(value.value, bool):
            return value.value
        raise self.wrong(key, value, "true or false")

    def whole(self, key: str, lowest: int) -> int | None:
        """A whole number not below `lowest`."""
        value = self.get(key)
        if value is None:
            return None
        number = whole(value)
        if number is None or number < lowest:
            raise self.wrong(key, value, f"a whole number not below {lowest}")
        return number

    def items(self, key: str) -> tuple[Node, ...]:
        """The values of a list; nothing where it is absent."""
        value = self.get(key)
        if value is None:
            return ()
        if not isinstance(value, Sequence):
            raise self.wrong(key, value, "a list (- one - two)")
        return value.items

    def wrong(self, key: str, found: Node, wanted: str) -> UsageError:
        """The error for a value that is not what is wanted."""
        return self._notes.refused(
            found.place, f"{key} is {described(found)}", f"{key} must be {wanted}"
        )

    def _warn(self, known: set[str], without_effect: set[str]) -> None:
        for key, entry in self._entries.items():
            # A key with anchors may only hold what aliases elsewhere stand for.
            if key in known or (entry.anchored and key not in without_effect):
                continue
            if key in without_effect:
                self._notes.warn(entry.place, f"{key} has no effect, in mergekit as here")
                continue
            self._notes.warn(
                entry.place,
                f"{self._what} knows no {quoted(key)}, which is passed over; {nearest(key, known)}",
            )


def text(node: Node, what: str, notes: Notes) -> str:
    """A scalar as it was written. Raises UsageError for anything else, and for an empty one."""
    if isinstance(node, Scalar) and node.text:
        return node.text
    raise notes.refused(node.place, f"{what} is {described(node)}", f"{what} must be text")


def whole(node: Node) -> int | None:
    """A whole number, or None. Text and floats that are one count, as pydantic takes them."""
    value = node.value if isinstance(node, Scalar) else None
    if isinstance(value, str):
        text = value.strip().removesuffix(".0")
        digits = text.removeprefix("-").removeprefix("+")
        return int(text) if digits.isascii() and digits.isdecimal() and len(text) < 20 else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    # Floats beyond 2^53 are no exact numbers any more.
    exact = isinstance(value, int) or (value.is_integer() and abs(value) < 1 << 53)
    return int(value) if exact else None


def described(node: Node) -> str:
    """What a node is, in a message."""
    if isinstance(node, Mapping):
        return "a mapping"
    if isinstance(node, Sequence):
        return f"a list of {len(node.items)}"
    return "empty" if not node.text else quoted(node.text)
