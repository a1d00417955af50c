"""Sessions of Ray that tests start: their logs and sockets go when they are over."""

import contextlib
import os
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


@contextlib.contextmanager
def small_ray(num_cpus: int) -> Iterator[None]:
    """A Ray of its own, whatever else runs here: started as our code starts it, but smaller."""
    import ray  # an extra

    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    with nothing_left():
        ray.init(
            address="local",
            num_cpus=num_cpus,
            object_store_memory=100 << 20,
            include_dashboard=False,
            log_to_driver=False,
        )
        try:
            yield
        finally:
            ray.shutdown()
