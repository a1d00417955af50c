"""The repositories that a server offers, by name: one, or all that lie in a directory."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from mergepipe.api import Repository
from mergepipe.closing import Closing
from mergepipe.errors import NoRepository, UnsafeRepository
from mergepipe.hub.addresses import fit_name
from mergepipe.hub.errors import no_repository
from mergepipe.repository.layout import DIRECTORY
from mergepipe.transfer.connect import repository_at

Open = Callable[[Path], Repository]


class Repositories(Closing):
    """Open repositories by name; opened when they are first asked for, closed with this."""

    def __init__(self, open_one: Open, *, root: Path | None = None) -> None:
        """`root`: a directory whose repositories are served, as they come and go."""
        self._open = open_one
        self._root = root
        self._lock = threading.Lock()
        self._opened: dict[str, Repository] = {}
        self._announced: set[str] = set()

    def close(self) -> None:
        """Close them all."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].close()

    def add(self, repository: Repository) -> str:
        """Serve a repository that is open already, which this closes; returns its name."""
        name = name_of(repository.directory)
        with self._lock:
            self._opened[name] = repository
        return name

    def make(self, name: str) -> None:
        """Make a repository of this name in the root. Raises HubError where there is no root."""
        if self._root is None:
            raise no_repository(name)
        with self._lock:
            if not (self._root / name).exists():
                Repository.init(self._root / name).close()

    def announce(self, model: str) -> None:
        """Remember a model that is to get its first commit later, as long as the server runs."""
        with self._lock:
            self._announced.add(model)

    def is_announced(self, model: str) -> bool:
        """Whether somebody made a model of this name that may be empty still."""
        return model in self._announced

    def names(self) -> list[str]:
        """What there is, sorted."""
        return sorted({*self._opened, *(name for name, _ in self._lying())})

    def places(self) -> dict[str, Path]:
        """Where each repository lies (its `.mergepipe`), by name."""
        with self._lock:
            opened = {name: each.directory for name, each in self._opened.items()}
        return {**{name: path / DIRECTORY for name, path in self._lying()}, **opened}

    @property
    def sole(self) -> str | None:
        """The one repository that is served, if it is one for good."""
        return next(iter(self._opened)) if self._root is None else None

    def find(self, name: str) -> Repository | None:
        """The repository of this name; None if there is none."""
        with self._lock:
            repository = self._opened.get(name)
            if repository is not None and (self._root is None or repository.directory.is_dir()):
                return repository
            place = next((path for each, path in self._lying() if each == name), None)
            if place is None:
                return None
            try:
                opened = self._opened[name] = self._open(repository_at(place))
            except (NoRepository, UnsafeRepository):
                return None
            return opened

    def _lying(self) -> Iterator[tuple[str, Path]]:
        if self._root is None:
            return
        for path in sorted(self._root.iterdir()):
            if not path.name.startswith(".") and (path / DIRECTORY).is_dir():
                yield fit_name(path.name), path


def name_of(directory: Path) -> str:
    """What a repository is called, given its directory."""
    place = directory.resolve()
    return fit_name(place.parent.name if place.name == DIRECTORY else place.name)
