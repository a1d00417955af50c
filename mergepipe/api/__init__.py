"""The repository as users hold it, from Python or behind `mp`."""

from mergepipe.api.repository import Repository

__all__ = ["Repository"]
