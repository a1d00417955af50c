"""Who does the work of an open repository: its threads, or whom a setting or `on` names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mergepipe.executors.choosing import AUTO, parse
from mergepipe.parallel import core_count
from mergepipe.repository.config import CoreSettings

if TYPE_CHECKING:
    from mergepipe.executors.segments import Executor


class Workers:
    """Those of one repository, started when they are first asked for."""

    def __init__(self, settings: Callable[[], CoreSettings]) -> None:
        self._settings = settings
        self._executor: Executor | None = None
        self._is_asked = False

    @property
    def threads(self) -> int:
        """Threads that work on blocks."""
        return core_count(self._settings().threads)

    @property
    def executor(self) -> "Executor":
        """Who does the work: as `on` says, else as the setting `core.executor` does."""
        if self._executor is None:
            self._executor = parse(self._settings().executor).executor(self.threads)
        return self._executor

    @property
    def hands_out(self) -> bool:
        """Whether somebody said that others do the work: that they are faster here says nothing."""
        said = self._is_asked or self._settings().executor != AUTO
        return said and self.executor.is_elsewhere

    @contextmanager
    def on(self, executor: "str | Executor | None") -> Iterator["Executor"]:
        """Others meanwhile, by name (started and ended here) or as such; None: as the setting says.

        Raises UsageError.
        """
        if executor is None:
            yield self.executor
            return
        if isinstance(executor, str):
            chosen = parse(executor).executor(self.threads)
            try:
                with self.on(chosen):
                    yield chosen
            finally:
                chosen.close()
            return
        before = self._executor, self._is_asked
        self._executor, self._is_asked = executor, True
        try:
            yield executor
        finally:
            self._executor, self._is_asked = before

    def close(self) -> None:
        """End workers that were started here."""
        if self._executor is not None:
            self._executor.close()
            self._executor = None
