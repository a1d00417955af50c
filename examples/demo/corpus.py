"""Text that is installed already, in three domains, cut into training and held-out parts.

Not of the standard library's code or manual: they differ between versions of Python, and so would
the models. torch is pinned (constraints.txt); Python's character sets have been the same for years.
"""

import sysconfig
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

_TORCH = Path(torch.__file__).parent
_ENCODINGS = Path(sysconfig.get_path("stdlib")) / "encodings"
_CODE = ("optim", "distributions", "utils/data")
_PROSE = ("_torch_docs.py", "_tensor_docs.py")  # the reference, as `help()` shows it
_TABLES = ("cp*.py", "iso*.py", "koi8*.py", "mac_*.py")
_HELD_OUT = 20  # every 20th piece is held out


@dataclass(frozen=True, slots=True)
class Domain:
    """One kind of text: what is trained on, and what losses are measured on."""

    name: str
    about: str
    training: str
    held_out: str


def load() -> tuple[Domain, ...]:
    """Code (parts of torch), prose (torch's reference) and tables (character sets)."""
    code = (path for folder in _CODE for path in sorted((_TORCH / folder).rglob("*.py")))
    tables = (path for pattern in _TABLES for path in sorted(_ENCODINGS.glob(pattern)))
    return (
        _split("code", "the source of torch", code),
        _split("prose", "the reference of torch", (_TORCH / name for name in _PROSE)),
        _split("tables", "character sets", tables),
    )


def _split(name: str, about: str, paths: Iterable[Path]) -> Domain:
    """Held out: pieces of a file that training never sees, spread over the whole domain."""
    training: list[str] = []
    held_out: list[str] = []
    for path in paths:
        text = path.read_text(encoding="utf-8", errors="ignore")
        for number, start in enumerate(range(0, len(text), 4000)):
            piece = text[start : start + 4000]
            (held_out if number % _HELD_OUT == 3 else training).append(piece)
    return Domain(name, about, "".join(training), "".join(held_out))
