"""YAML text as plain values that know where they stood. What comes in is somebody else's file.

Only what recipes need: mappings with text keys, sequences and scalars. Tags and duplicate keys are
refused, and size, depth and number of values are capped before anything is built from them. What an
alias or a merge key (`<<`) stands for is shared, not copied, and counts again each time: nine lines
can stand for a billion values.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import yaml

from mergepipe.errors import UsageError
from mergepipe.methods.parameters import nearest
from mergepipe.names import escape_for_terminal, quoted

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 100_000

ScalarValue: TypeAlias = str | int | float | bool | None
Plain: TypeAlias = "ScalarValue | list[Plain] | dict[str, Plain]"

# The parser in C where PyYAML was built with it: a hostile megabyte then takes a second, not ten.
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_RESOLVER = yaml.resolver.Resolver()
_TAG = "tag:yaml.org,2002:"
_NO_YAML = "mend that place: an indent, a colon, or a bracket or quote that is never closed"
# YAML 1.1, as PyYAML's safe loader (and so mergekit) reads it.
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a value stands in its file; both numbers begin at 1."""

    line: int
    column: int

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column}"


@dataclass(frozen=True, slots=True)
class Scalar:
    """Text, a number, a boolean or null. `text` is how it was written."""

    value: ScalarValue
    text: str
    place: Place


@dataclass(frozen=True, slots=True)
class Sequence:
    """Values in their order."""

    items: "tuple[Node, ...]"
    place: Place


@dataclass(frozen=True, slots=True)
class Entry:
    """A key of a mapping, and its value; `anchored`: something in the value has an anchor."""

    key: str
    place: Place
    value: "Node"
    anchored: bool = False


@dataclass(frozen=True, slots=True)
class Mapping:
    """Entries in their order; no key comes twice."""

    entries: tuple[Entry, ...]
    place: Place

    def get(self, key: str) -> "Node | None":
        """The value of a key."""
        return next((entry.value for entry in self.entries if entry.key == key), None)


Node: TypeAlias = Scalar | Sequence | Mapping


def read_documents(text: str | bytes, source: str = "the recipe") -> tuple[Node, ...]:
    """The documents of a YAML file, empty ones left out.

    Raises UsageError naming `source`, line and column: no YAML, not UTF-8, too large, too deep,
    aliases of nothing, of what they stand in or of too much, tags, keys that are not text or come
    twice.
    """
    return tuple(_Reader(source).documents(_decoded(text, source)))


def plain(node: Node) -> Plain:
    """A node as dict, list, or scalar."""
    if isinstance(node, Mapping):
        return {entry.key: plain(entry.value) for entry in node.entries}
    if isinstance(node, Sequence):
        return [plain(item) for item in node.items]
    return node.value


def _decoded(text: str | bytes, source: str) -> str:
    size = len(text) if isinstance(text, bytes) else len(text.encode(errors="replace"))
    if size > MAX_BYTES:
        raise UsageError(
            f"{source} has {size} bytes", f"a recipe may have {MAX_BYTES}; is this the right file?"
        )
    if isinstance(text, str):
        return text
    try:
        return text.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{source} is not UTF-8 (byte {error.start})", "recipes are YAML text in UTF-8"
        ) from error


class _Reader:
    def __init__(self, source: str) -> None:
        self._source = source
        self._values = 0
        # What anchors of this document stand for; None while it is still being read.
        self._anchors: dict[str, Node | None] = {}
        self._anchored = 0

    def documents(self, text: str) -> Iterator[Node]:
        events = self._events(text)
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                self._anchors = {}
                node = self._node(next(events), events, 0)
                if not (isinstance(node, Scalar) and node.value is None):
                    yield node

    def _events(self, text: str) -> Iterator[yaml.Event]:
        try:
            yield from yaml.parse(text, Loader=_LOADER)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark or error.context_mark
            where = "" if mark is None else f", line {mark.line + 1}, column {mark.column + 1}"
            problem = escape_for_terminal(error.problem or "it cannot be read", 200)
            raise UsageError(f"{self._source}{where}: {problem}", _NO_YAML) from error
        except (yaml.YAMLError, UnicodeError) as error:
            reason = escape_for_terminal(" ".join(str(error).split()), 200)
            raise UsageError(f"{self._source}: {reason}", _NO_YAML) from error

    def _node(self, event: yaml.Event, events: Iterator[yaml.Event], depth: int) -> Node:
        place = _place(event)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event.anchor or "", place, depth)
        self._count(place, depth)
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise self._refused(place, f"the tag {quoted(tag)} is not read", "leave it out")
        anchor = getattr(event, "anchor", None)
        if anchor is None:
            return self._content(event, events, place, depth)
        self._anchored += 1
        self._anchors[anchor] = None
        node = self._content(event, events, place, depth)
        self._anchors[anchor] = node
        return node

    def _content(
        self, event: yaml.Event, events: Iterator[yaml.Event], place: Place, depth: int
    ) -> Node:
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(place, events, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            items = []
            while not isinstance(inner := next(events), yaml.SequenceEndEvent):
                items.append(self._node(inner, events, depth + 1))
            return Sequence(tuple(items), place)
        assert isinstance(event, yaml.ScalarEvent)
        return Scalar(_value(event), event.value, place)

    def _alias(self, anchor: str, place: Place, depth: int) -> Node:
        """What an alias stands for, counted as if it stood there in full."""
        if anchor not in self._anchors:
            raise self._refused(
                place,
                f"nothing before it has the anchor {quoted('&' + anchor)}",
                nearest(anchor, self._anchors),
            )
        node = self._anchors[anchor]
        if node is None:
            raise self._refused(
                place, f"{quoted('*' + anchor)} stands inside of itself", "write it out"
            )
        # Walked once per alias: the work is bounded by what may be counted.
        waiting = [(node, depth)]
        while waiting:
            inner, level = waiting.pop()
            self._count(place, level)
            if isinstance(inner, Mapping):
                waiting += [(entry.value, level + 1) for entry in inner.entries]
            elif isinstance(inner, Sequence):
                waiting += [(item, level + 1) for item in inner.items]
        return node

    def _count(self, place: Place, depth: int) -> None:
        self._values += 1
        if depth > MAX_DEPTH:
            raise self._refused(
                place, f"the document nests deeper than {MAX_DEPTH}", "no recipe needs that"
            )
        if self._values > MAX_VALUES:
            raise self._refused(
                place,
                f"the document has too many values: more than {MAX_VALUES}, what aliases stand "
                "for included",
                "no recipe needs that",
            )

    def _mapping(self, place: Place, events: Iterator[yaml.Event], depth: int) -> Mapping:
        entries: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        while not isinstance(event := next(events), yaml.MappingEndEvent):
            key = self._node(event, events, depth + 1)
            anchored = self._anchored
            if isinstance(event, yaml.ScalarEvent) and event.value == "<<" and event.implicit[0]:
                for entry in self._merged(self._node(next(events), events, depth + 1)):
                    merged.setdefault(entry.key, entry)
                continue
            if not isinstance(key, Scalar):
                raise self._refused(key.place, "this key is not text", "")
            if key.text in entries:
                raise self._refused(
                    key.place,
                    f"{quoted(key.text)} stands here twice",
                    f"the first is at {entries[key.text].place}",
                )
            value = self._node(next(events), events, depth + 1)
            entries[key.text] = Entry(key.text, key.place, value, self._anchored > anchored)
        # What a mapping says itself beats what it takes over, whichever comes first.
        return Mapping(tuple({**merged, **entries}.values()), place)

    def _merged(self, node: Node) -> Iterator[Entry]:
        """The entries that a merge key takes over: of one mapping or of several, in order."""
        for part in node.items if isinstance(node, Sequence) else (node,):
            if not isinstance(part, Mapping):
                raise self._refused(
                    part.place,
                    "a merge key (<<) takes over a mapping, or a list of them",
                    "give the anchor to a mapping: name: &name",
                )
            yield from part.entries

    def _refused(self, place: Place, problem: str, hint: str) -> UsageError:
        return UsageError(f"{self._source}, {place}: {problem}", hint)


def _place(event: yaml.Event) -> Place:
    mark = event.start_mark
    return Place(1, 1) if mark is None else Place(mark.line + 1, mark.column + 1)


def _value(event: yaml.ScalarEvent) -> ScalarValue:
    """What a scalar means. Dates stay text, as do numbers that Python would choke on."""
    text: str = event.value
    resolved: str = _RESOLVER.resolve(yaml.ScalarNode, text, event.implicit)  # type: ignore[no-untyped-call]
    tag = resolved.removeprefix(_TAG)
    if tag == "null":
        return None
    if tag == "bool":
        return _BOOLEANS[text.lower()]
    if tag in ("int", "float"):
        return _number(text, tag)
    return text


def _number(text: str, tag: str) -> str | int | float:
    node = yaml.ScalarNode(_TAG + tag, text)
    construct = yaml.constructor.SafeConstructor()
    try:
        if tag == "int":
            whole: int = construct.construct_yaml_int(node)
            return whole
        number: float = construct.construct_yaml_float(node)
    except (ValueError, OverflowError):
        return text
    return number
