"""Which names a new ref cannot have beside those that are there, whatever the file system."""

from collections.abc import Iterable, Iterator

from mergepipe.bytestore.protocol import Foldered
from mergepipe.errors import RefExists
from mergepipe.repository.refnames import folded, short_name, title


class TakenNames:
    """Names that refs have, the folders above them, and both as some file systems see them."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names: set[str] = set()
        self._folders: set[str] = set()
        self._prefixes: dict[str, str] = {}
        for name in names:
            self.add(name)

    def add(self, name: str) -> None:
        """Take a name."""
        parts = list(_prefixes(name))
        self._names.add(name)
        self._folders.update(parts[:-1])
        self._prefixes.update((folded(part), part) for part in parts)

    def check(self, name: str) -> None:
        """Refuse a new ref that some file system could not hold beside the others.

        A file is no folder, so `a` and `a/b` exclude each other (as in git). Names that differ by
        case or Unicode composition are one file on macOS: refused everywhere, so that a
        repository can be moved there. Raises RefExists.
        """
        for part in _prefixes(name):
            other = self._prefixes.get(folded(part), part)
            if other != part:
                raise RefExists(
                    f"cannot make {title(name)}: {other!r} is there, which some file systems "
                    f"cannot tell from {part!r}",
                    "choose a name that differs by more than case",
                )
        for part in _prefixes(name):
            if part in self._names:
                raise RefExists(
                    f"cannot make {title(name)}: there is {title(part)}",
                    f"a name cannot continue {short_name(part)!r} after a '/'; choose another",
                )
        if name in self._folders:
            below = next(other for other in self._names if other.startswith(name + "/"))
            raise RefExists(
                f"cannot make {title(name)}: there is {title(below)}",
                "a name that others continue after a '/' cannot be a ref itself",
            )


def names_beside(store: Foldered, name: str) -> TakenNames:
    """As much as `check` of a new name asks about: what lies on its way, folder by folder.

    Of a million refs, no more than those folders are looked into.
    """
    taken = TakenNames(())
    folder = "/".join(name.split("/")[:2]) + "/"
    for part in _prefixes(name):
        like = [key for key in store.within(folder) if folded(key.rstrip("/")) == folded(part)]
        for key in like:
            below = key if not key.endswith("/") else _first_below(store, key)
            if below is not None:
                taken.add(below)
        folder = part + "/"
    return taken


def _first_below(store: Foldered, folder: str) -> str | None:
    """A key in a folder, or further down; None where there are empty folders only."""
    for key in sorted(store.within(folder)):
        below = key if not key.endswith("/") else _first_below(store, key)
        if below is not None:
            return below
    return None


def _prefixes(name: str) -> Iterator[str]:
    """`refs/heads/a/b` as `refs/heads/a`, `refs/heads/a/b`."""
    parts = name.split("/")
    return ("/".join(parts[:count]) for count in range(3, len(parts) + 1))
