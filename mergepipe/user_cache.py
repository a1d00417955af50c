"""The user's own cache: what can be made again, and is kept between processes."""

import os
from pathlib import Path


def user_cache() -> Path | None:
    """Its folder, which need not be there; None where the user has no home.

    The environment is read here, below the CLI: what is cached is a matter of the process.
    """
    settings = os.environ.get("XDG_CACHE_HOME", "")
    if Path(settings).is_absolute():
        return Path(settings) / "mergepipe"
    home = os.environ.get("HOME")
    return Path(home) / ".cache" / "mergepipe" if home else None
