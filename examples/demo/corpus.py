"""Text that Python itself ships, in three domains, cut into training and held-out parts."""

import sysconfig
from dataclasses import dataclass
from pathlib import Path

_STDLIB = Path(sysconfig.get_path("stdlib"))
_MOST_CHARACTERS = 2_500_000
_HELD_OUT = 20  # every 20th piece is held out


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of text: what is trained on, and what losses are measured on."""

    name: str
    about: str
    training: str
    held_out: str


def load() -> tuple[Domain, ...]:
    """Code (the standard library), prose (its reference manual) and tables (character sets)."""
    code = sorted(path for path in _STDLIB.glob("*.py") if not path.name.startswith("_"))
    code += sorted((_STDLIB / "asyncio").glob("*.py")) + sorted((_STDLIB / "email").glob("*.py"))
    tables = sorted(
        path
        for pattern in ("cp*.py", "iso*.py", "mac_*.py", "koi8*.py")
        for path in (_STDLIB / "encodings").glob(pattern)
    )
    return (
        _split(
            "code",
            "the standard library",
            [path.read_text(encoding="utf-8", errors="ignore") for path in code],
        ),
        _split("prose", "the reference manual", _manual()),
        _split(
            "tables",
            "character sets",
            [path.read_text(encoding="utf-8", errors="ignore") for path in tables],
        ),
    )


def _manual() -> list[str]:
    from pydoc_data.topics import topics  # the language reference, as `help()` shows it

    return [topics[name] for name in sorted(topics)]


def _split(name: str, about: str, texts: list[str]) -> Domain:
    """Held out: pieces of a file that training never sees, spread over the whole domain."""
    training: list[str] = []
    held_out: list[str] = []
    size = 0
    for text in texts:
        for number, start in enumerate(range(0, len(text), 4000)):
            piece = text[start : start + 4000]
            (held_out if number % _HELD_OUT == 3 else training).append(piece)
        size += len(text)
        if size > _MOST_CHARACTERS:
            break
    return Domain(name, about, "".join(training), "".join(held_out))
