"""What came to which repository and waits for a commit."""

import threading

from mergepipe.api import Repository
from mergepipe.hub.committing import stored_file
from mergepipe.hub.staging import Staging
from mergepipe.transfer.serving.offer import ReadOnly


class Arrivals:
    """The staging of each repository; all methods from any thread."""

    def __init__(self, *, read_only: bool) -> None:
        self._read_only = read_only
        self._lock = threading.Lock()
        self._staging: dict[Repository, Staging] = {}

    def check_writable(self) -> None:
        """Raises ReadOnly where nothing is taken in."""
        if self._read_only:
            raise ReadOnly("this server takes nothing")

    def of(self, repository: Repository) -> Staging:
        """What came to a repository."""
        with self._lock:
            if repository not in self._staging:
                self._staging[repository] = Staging(repository)
            return self._staging[repository]

    def is_here(self, repository: Repository, sha256: str, size: int) -> bool:
        """Whether a file need not come again: it waits for a commit, or is stored."""
        if self.of(repository).hold(sha256, size):
            return True
        entry = stored_file(repository, sha256)
        return entry is not None and entry.size == size
