"""What a worker must be of, so that it makes the same: mergepipe, codecs and methods by version."""

from functools import cache

from mergepipe.codecs.registry import NAMES, codec_named
from mergepipe.errors import MergepipeError
from mergepipe.version import __version__


@cache
def own_versions() -> tuple[str, ...]:
    """Versions of this very process."""
    from mergepipe.methods.registry import METHODS  # needs numpy, which `mp status` does not

    codecs = (f"codec {name} {codec_named(name).version}" for name in NAMES)
    methods = (f"method {name} {method.version}" for name, method in METHODS.items())
    return (f"mergepipe {__version__}", *codecs, *methods)


def check_versions(wanted: tuple[str, ...], host: str) -> None:
    """Raise MergepipeError unless this process is of the versions that the coordinator has."""
    versions = own_versions()
    if wanted != versions:
        other = sorted(set(wanted) ^ set(versions))
        raise MergepipeError(
            f"the worker {host} is of another version than this mp: {', '.join(other[:4])}",
            "install the same mergepipe on every machine of the cluster",
        )
