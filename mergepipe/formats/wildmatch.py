"""git's patterns for paths, matched in linear time.

A pattern is compiled to the states of an automaton: state i has taken in i items (a byte, `?`, or a
set in brackets), and a star is a state that may stay where it is. All states that a text can lead
to are held at once, as the bits of one integer (R. Baeza-Yates and G. Gonnet, "A new approach to
text searching", CACM 35(10), 1992), so nothing is tried again: a text of n bytes takes n steps,
whatever the pattern. Regular expressions and git's own recursion go back at every star.

The meaning is that of git's `wildmatch.c` with WM_PATHNAME: `*`, `?` and sets match no slash; `**`
between slashes or ends matches any number of directories, elsewhere it is `*`; a range the wrong
way round has its first byte; a set without its end, a class that nobody knows and a backslash at
the end match nothing. Patterns and texts are bytes, as file names are: `?` is one byte.
"""

from msgspec import Struct, field

SPECIAL = frozenset(b"*?[\\")
LONGEST = 4096
"""Items of a pattern; no path has as many bytes (objects.paths), so that longer ones match none."""

_SLASH = ord("/")
_ALL = frozenset(range(256)) - {_SLASH}
_ASCII = [bytes((code,)) for code in range(128)]
# C's isalpha() and the like for ASCII, as git has them in every locale.
_CLASSES = {
    b"alnum": frozenset(each[0] for each in _ASCII if each.isalnum()),
    b"alpha": frozenset(each[0] for each in _ASCII if each.isalpha()),
    b"blank": frozenset(b" \t"),
    b"cntrl": frozenset((*range(32), 127)),
    b"digit": frozenset(b"0123456789"),
    b"graph": frozenset(range(33, 127)),
    b"lower": frozenset(each[0] for each in _ASCII if each.islower()),
    b"print": frozenset(range(32, 127)),
    b"punct": frozenset(code for code in range(33, 127) if not _ASCII[code].isalnum()),
    b"space": frozenset(b" \t\n\v\f\r"),
    b"upper": frozenset(each[0] for each in _ASCII if each.isupper()),
    b"xdigit": frozenset(b"0123456789abcdefABCDEF"),
}


class _MatchesNothing(Exception):
    """The pattern has a part that no text fits."""


class _States(Struct):
    """The automaton while it is made. `sets`: for each set of bytes, the states that it moves on.

    stay        states with a star: they stay on every byte but a slash
    stay_slash  those of them that stay on a slash too
    skip        states before `**/`, which may be left out: the two states after are there at once
    """

    sets: dict[frozenset[int], int] = field(default_factory=dict)
    count: int = 0
    stay: int = 0
    stay_slash: int = 0
    skip: int = 0

    def item(self, accepted: frozenset[int]) -> None:
        self.sets[accepted] = self.sets.get(accepted, 0) | 1 << self.count
        self.count += 1
        if self.count > LONGEST:
            raise _MatchesNothing

    def star(self, slashes: bool) -> None:
        self.stay |= 1 << self.count
        if slashes:
            self.stay_slash |= 1 << self.count


class Wildmatch:
    """A compiled pattern."""

    __slots__ = ("_moves", "_states")

    def __init__(self, pattern: bytes) -> None:
        try:
            self._states: _States | None = _compile(pattern)
        except _MatchesNothing:
            self._states = None
        self._moves: dict[int, int] = {}

    def matches(self, text: bytes) -> bool:
        """Whether the whole of a text is one that the pattern means."""
        states = self._states
        if states is None:
            return False
        now = self._opened(1)
        for byte in text:
            stay = states.stay_slash if byte == _SLASH else states.stay
            now = self._opened((now & self._move(byte)) << 1 | now & stay)
            if not now:
                return False
        return bool(now >> states.count & 1)

    def _move(self, byte: int) -> int:
        """The states that move on with this byte."""
        moves = self._moves.get(byte)
        if moves is None:
            assert self._states is not None
            moves = 0
            for accepted, states in self._states.sets.items():
                if byte in accepted:
                    moves |= states
            self._moves[byte] = moves
        return moves

    def _opened(self, now: int) -> int:
        """With the states that are reached without a byte."""
        assert self._states is not None
        skipped = now & self._states.skip
        return now | skipped << 1 | skipped << 2 if skipped else now


def literal_start(pattern: bytes) -> int:
    """How many bytes of a pattern stand for themselves, before the first that does not."""
    for position, byte in enumerate(pattern):
        if byte in SPECIAL:
            return position
    return len(pattern)


def _compile(pattern: bytes) -> _States:
    """The automaton of a pattern. Raises _MatchesNothing."""
    states = _States()
    position = 0
    while position < len(pattern):
        byte = pattern[position]
        if byte == ord("*"):
            position = _star(pattern, position, states)
        elif byte == ord("?"):
            states.item(_ALL)
            position += 1
        elif byte == ord("["):
            accepted, position = _set(pattern, position + 1)
            states.item(accepted)
        else:
            if byte == ord("\\"):
                position += 1
                if position == len(pattern):
                    raise _MatchesNothing
            states.item(frozenset((pattern[position],)))
            position += 1
    return states


def _star(pattern: bytes, start: int, states: _States) -> int:
    """Take in the stars at `start`; returns where the pattern goes on."""
    end = start
    while pattern[end : end + 1] == b"*":
        end += 1
    rest = pattern[end : end + 2]
    between = (start == 0 or pattern[start - 1] == _SLASH) and (
        rest in (b"", b"\\/") or rest[:1] == b"/"
    )
    if end - start == 1 or not between:
        states.star(slashes=False)
        return end
    if rest[:1] != b"/":
        states.star(slashes=True)
        return end
    while _another(pattern, end):  # `**/**/` means the same as `**/`
        end += 1
        while pattern[end] == ord("*"):
            end += 1
    # A state that may be left at once for the one after the slash, then one that has the star:
    # only at the beginning, not after some bytes, may `**/` be nothing.
    here = states.count
    states.skip |= 1 << here
    states.item(frozenset())
    states.star(slashes=True)
    states.item(frozenset((_SLASH,)))
    return end + 1


def _another(pattern: bytes, slash: int) -> bool:
    """Whether one more `**/` follows this slash."""
    end = slash + 1
    while pattern[end : end + 1] == b"*":
        end += 1
    return end - slash > 2 and pattern[end : end + 1] == b"/"


def _set(pattern: bytes, position: int) -> tuple[frozenset[int], int]:
    """The bytes that `[...]` accepts, and where the pattern goes on. Raises _MatchesNothing.

    `position` is behind the opening bracket.
    """

    def at(index: int) -> int:
        if index >= len(pattern):
            raise _MatchesNothing
        return pattern[index]

    negated = at(position) in b"!^"
    position += negated
    accepted: set[int] = set()
    before: int | None = None  # what may begin a range
    first = True
    while first or at(position) != ord("]"):  # a bracket that comes first is one of the set
        first = False
        byte = at(position)
        if byte == ord("\\"):
            position += 1
            before = at(position)
            accepted.add(before)
        elif byte == ord("-") and before is not None and at(position + 1) != ord("]"):
            position += 1
            if at(position) == ord("\\"):
                position += 1
            accepted.update(range(before, at(position) + 1))
            before = None
        elif byte == ord("[") and at(position + 1) == ord(":"):
            end = position + 2
            while at(end) != ord("]"):
                end += 1
            if end - position > 2 and pattern[end - 1] == ord(":"):
                named = _CLASSES.get(pattern[position + 2 : end - 1])
                if named is None:
                    raise _MatchesNothing
                accepted |= named
                position, before = end, None
            else:  # no class, so each is itself
                accepted.add(byte)
                before = byte
        else:
            accepted.add(byte)
            before = byte
        position += 1
    bytes_of_set = _ALL - accepted if negated else accepted - {_SLASH}
    return frozenset(bytes_of_set), position + 1
