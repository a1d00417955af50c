"""How long to wait for another process: what the environment says, else the repository."""

from collections.abc import Mapping
from pathlib import Path

from mergepipe.errors import UsageError
from mergepipe.names import quoted
from mergepipe.repository import config_values, layout
from mergepipe.repository.config import Config, load

LOCK_TIMEOUT = "MP_LOCK_TIMEOUT"


def lock_timeout_s(config: Config, environment: Mapping[str, str]) -> float:
    """MP_LOCK_TIMEOUT in seconds, else `core.lock_timeout`. Raises UsageError."""
    text = environment.get(LOCK_TIMEOUT, "").strip()
    if not text:
        return config.core.lock_timeout
    try:
        return config_values.seconds(text)
    except ValueError:
        raise UsageError(
            f"{LOCK_TIMEOUT} is {quoted(text)}, no number of seconds from 0 to 86400",
            f"unset it, or set it as in {LOCK_TIMEOUT}=60",
        ) from None


def lock_timeout_of(directory: Path, environment: Mapping[str, str]) -> float:
    """The same for a repository that is not open. Raises UsageError, ConfigError."""
    return lock_timeout_s(load(directory / layout.CONFIG), environment)
