"""What values show of themselves: in a REPL one screen of text, in a notebook a table."""

import dataclasses
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

Class = TypeVar("Class")

_ID_BYTES = 32
_FEW = 4
_TEXT = 100
_SCREEN = 1600  # characters: 20 lines of 80


def brief(kind: type[Class]) -> type[Class]:
    """Class decorator, outermost: the fields of a dataclass or struct, each of them shortened."""
    kind.__repr__ = brief_repr  # type: ignore[method-assign]
    return kind


def brief_repr(value: object) -> str:
    """`Name(field=..., ...)` of a dataclass or struct, at most one screen."""
    return _cut(_with_fields(value, depth=2), _SCREEN)


def html_table(
    caption: str, head: Sequence[str], rows: Iterable[Sequence[object]], more: int = 0
) -> str:
    """A table for notebooks, all of it as text; `more` rows are only counted."""
    from html import escape  # tables are drawn in notebooks alone

    def line(cells: Sequence[object], tag: str) -> str:
        inner = "".join(f"<{tag}>{escape(str(cell))}</{tag}>" for cell in cells)
        return f"<tr>{inner}</tr>"

    body = "".join(line(row, "td") for row in rows)
    rest = f"<p>and {more:,} more</p>" if more else ""
    return (
        f"<table><caption>{escape(caption)}</caption><thead>{line(head, 'th')}</thead>"
        f"<tbody>{body}</tbody></table>{rest}"
    )


def _with_fields(value: object, depth: int) -> str:
    name = type(value).__name__
    if not depth:
        return f"{name}(...)"
    inner = ", ".join(f"{field}={_short(content, depth - 1)}" for field, content in _fields(value))
    return f"{name}({inner})"


def _fields(value: Any) -> Iterator[tuple[str, object]]:
    if dataclasses.is_dataclass(value):
        names = [field.name for field in dataclasses.fields(value) if field.repr]
    else:
        names = list(value.__struct_fields__)
    for name in names:
        yield name, getattr(value, name)


def _short(value: object, depth: int) -> str:
    if isinstance(value, bytes | bytearray | memoryview):
        held = bytes(value) if len(value) == _ID_BYTES else b""
        return held.hex() if held else f"<{len(value)} bytes>"
    if isinstance(value, str):
        return _cut(repr(value), _TEXT)
    if isinstance(value, Mapping):
        return _several(value, "entries", depth) if len(value) > _FEW else _pairs(value, depth)
    if isinstance(value, Collection):
        return _several(value, "items", depth)
    if dataclasses.is_dataclass(value) or hasattr(value, "__struct_fields__"):
        return _with_fields(value, depth)
    return _cut(repr(value), _TEXT)


def _pairs(value: Mapping[Any, object], depth: int) -> str:
    inner = ", ".join(f"{_short(key, 0)}: {_short(item, depth)}" for key, item in value.items())
    return "{" + inner + "}"


def _several(value: Collection[object], what: str, depth: int) -> str:
    if len(value) <= _FEW:
        inner = ", ".join(_short(item, depth) for item in value)
        return f"[{inner}]" if not isinstance(value, tuple) else f"({inner})"
    kinds = {type(item).__name__ for item in value}
    return f"<{len(value)} {kinds.pop() if len(kinds) == 1 else what}>"


def _cut(text: str, limit: int) -> str:
    return text if len(text) <= limit else f"{text[: limit - 3]}..."
