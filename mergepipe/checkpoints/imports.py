"""Checkpoints that were never committed by hand: imported once, reused while they stay the same."""

import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec
from msgspec import Struct

from mergepipe.errors import ConfigError
from mergepipe.formats.tree import SourceFile
from mergepipe.ids import ObjectId, digest
from mergepipe.missing_paths import nearest_path
from mergepipe.names import quoted
from mergepipe.packs.storage import Storage
from mergepipe.repository.refnames import IMPORTS

_KEYS = ("path", "branch", "base", "message")
_TABLES = f"an import list is TOML: [[model]] tables with the keys {', '.join(_KEYS)}"


class ImportEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One checkpoint of an import list; `base` is a revision or another entry's branch."""

    path: str
    branch: str
    base: str | None = None
    message: str = ""


class _ImportList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: list[ImportEntry]


class Fingerprints(Struct, frozen=True):
    """Which commit holds files of these stats (real path, size, mtime, inode). May be lost."""

    storage: Storage

    def find(self, root: Path, sources: Sequence[SourceFile]) -> ObjectId | None:
        """The commit that files were imported as, if none of them changed since."""
        with self.storage.view() as view:
            value = view.cached(_key(root, sources))
        return None if value is None else ObjectId(value)

    def remember(self, root: Path, sources: Sequence[SourceFile], commit: ObjectId) -> None:
        """Let `find` know an import."""
        self.storage.index.cache([(_key(root, sources), commit)])


def import_ref(path: Path) -> str:
    """The ref under which a path is imported: its name, and a digest of where it really is."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", path.resolve().name).strip("-.") or "model"
    return f"{IMPORTS}{name[:60]}-{digest(str(path.resolve()).encode()).hex()[:8]}"


def stage_ref(name: str, plan: ObjectId) -> str:
    """The ref under which a stage of a recipe is kept that was merged by itself."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "stage"
    return f"{IMPORTS}{plain[:60]}-{plan.hex()[:8]}"


def read_list(path: Path) -> list[ImportEntry]:
    """The entries of an import list, bases before what leans on them.

    The file holds `[[model]]` tables with `path`, `branch` and, if you like, `base` and `message`;
    paths are relative to the file. Raises ConfigError.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
        entries = msgspec.convert(document, _ImportList).model
    except OSError as error:
        raise ConfigError(
            f"cannot read the import list {path}: {error.strerror}", nearest_path(path, _TABLES)
        ) from error
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"the import list {path} is no TOML: {error}", _TABLES) from error
    except msgspec.ValidationError as error:
        raise ConfigError(
            f"{path} is no import list: {error}",
            _TABLES,
        ) from error
    return _bases_first(entries, path)


def _bases_first(entries: Sequence[ImportEntry], path: Path) -> list[ImportEntry]:
    by_branch: Mapping[str, ImportEntry] = {entry.branch: entry for entry in entries}
    if len(by_branch) != len(entries):
        raise ConfigError(f"{path} names a branch twice")
    ordered: dict[str, ImportEntry] = {}

    def place(entry: ImportEntry, above: tuple[str, ...]) -> None:
        if entry.branch in above:
            raise ConfigError(f"{path}: the base of {quoted(entry.branch)} leans on itself")
        if entry.base is not None and entry.base in by_branch and entry.base not in ordered:
            place(by_branch[entry.base], (*above, entry.branch))
        ordered.setdefault(entry.branch, entry)

    for entry in entries:
        place(entry, ())
    return list(ordered.values())


def _key(root: Path, sources: Sequence[SourceFile]) -> bytes:
    stats = [(file.path, file.size, file.mtime_ns, file.inode) for file in sources]
    return b"i/" + digest(msgspec.msgpack.encode((str(root.resolve()), stats)))
