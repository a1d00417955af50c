"""Which keys of a byte store others get to see: a whitelist by exact grammar.

What a server serves has its own opinion too (transfer/receiving.py); this one comes first, and
knows nothing but the key.
"""

import re
from collections.abc import Callable

from msgspec import Struct

from mergepipe.bytestore.wire import is_key
from mergepipe.repository.refnames import HEADS, TAGS, is_shared_ref

_PACK = re.compile(r"packs/[0-9a-f]{64}\.pack")
_NOTE = re.compile(r"notes/[0-9a-f]{64}")
_FOLDERS = ("refs/", "packs/", "notes/", HEADS, TAGS)

Rule = Callable[[str], bool]


class Surface(Struct, frozen=True):
    """What each kind of request may name."""

    readable: Rule
    listable: Rule
    published: Rule
    swapped: Rule
    replaced: Rule
    """Written without a condition, and deleted."""


def is_pack(key: str) -> bool:
    """Whether `key` is that of a pack."""
    return _PACK.fullmatch(key) is not None


def is_note(key: str) -> bool:
    """Whether `key` is where a commit's notes stand."""
    return _NOTE.fullmatch(key) is not None


REPOSITORY = Surface(
    readable=lambda key: (
        key in ("HEAD", "pruned", "purged", "absent")
        or is_pack(key)
        or is_shared_ref(key)
        or is_note(key)
    ),
    listable=lambda prefix: (
        prefix in _FOLDERS or (prefix.endswith("/") and is_shared_ref(prefix[:-1]))
    ),
    published=is_pack,
    swapped=lambda key: is_shared_ref(key) or is_note(key),
    replaced=lambda key: False,
)
"""Refs, notes, packs, HEAD and what is not here; never config, hooks, logs, index or runs."""


def _is_folder(prefix: str) -> bool:
    return not prefix or (prefix.endswith("/") and is_key(prefix[:-1]))


EVERYTHING = Surface(is_key, _is_folder, is_key, is_key, is_key)
"""For a byte store that is no repository."""
