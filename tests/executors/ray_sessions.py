"""Sessions of Ray that tests start: their logs and sockets go when they are over."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def nothing_left() -> Iterator[None]:
    """Remove the folder that Ray keeps its sessions in, unless others have sessions there."""
    folder = Path(tempfile.gettempdir()) / "ray"
    others = folder.exists()
    try:
        yield
    finally:
        while not others and folder.exists():  # its processes may write while they end
            shutil.rmtree(folder, ignore_errors=True)
