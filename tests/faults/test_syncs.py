"""What a command did is durable when it says that it is done, and whole before it has its name.

The calls of one run are enough: no name is given to bytes that are not synced, and in the end only
that is left unsynced which may be lost. Takes away each fsync in a second (tests/mutations).
"""

import re
from collections.abc import Callable, Iterator

import pytest

from tests.torture.disk import Disk, File, Folder, everything
from tests.torture.syscalls import Call, Replay, record, require_strace

from .limits import Tally
from .striking import Ready, grounds
from .test_power_loss_verbs import COMMAND
from .verbs import BY_NAME, VERBS, Verb

# Made again, or of no use after a power cut; `operations`: the last undo may be lost with it.
_MAY_BE_LOST = re.compile(
    r"(?:.*/)?\.mergepipe/(?:(?:index|tmp|leases|incoming|remotes)(?:/.*)?|(?:.*\.)?lock"
    r"|operations|worktree)"
)
# What may be there again: packs and logs that nothing names are removed by the next one to look.
_MAY_COME_BACK = re.compile(r"(?:.*/)?\.mergepipe/(?:packs/[0-9a-f]{64}\.pack|logs/.*)")


@pytest.fixture(scope="module")
def ready() -> Iterator[Callable[[Verb], Ready]]:
    require_strace()
    with grounds() as make:
        yield make


def check_syncs(verb: Ready, tally: Tally) -> None:
    """Run the command once, and look at each rename, and at what is pending in the end."""
    verb.fresh()
    calls = record(COMMAND, *verb.argv, log=verb.place.parent / "trace")
    verb.fresh()
    replay = Replay(Disk(verb.place))
    for call in calls:
        if call.name.startswith("rename"):
            _check_rename(replay.disk, call)
            tally.note("renames")
        replay.apply(call)
    lost = [name for name in unsynced(replay.disk.top) if not _MAY_BE_LOST.fullmatch(name)]
    assert not lost, f"{verb.verb.name} is done, and a power cut takes {lost}"


def _check_rename(disk: Disk, call: Call) -> None:
    source, target = (disk.parts(call.path(at)) for at in (0, 1))
    if source is None or target is None or _MAY_BE_LOST.fullmatch("/".join(target)):
        return
    entry = disk.find(source)
    left = [] if entry is None else list(unsynced(entry, "/".join(target)))
    left = [name for name in left if not _MAY_BE_LOST.fullmatch(name)]
    assert not left, f"{call.shown()} gives a name to what is not synced: {left}"


def unsynced(entry: File | Folder, path: str = "") -> Iterator[str]:
    """What a power cut may take: bytes of files, and names that came or went."""
    if isinstance(entry, File):
        if entry.pending:
            yield path
        return
    prefix = f"{path}/" if path else ""
    durable, now = entry.durable, entry.entries(everything)
    for name in sorted({*durable, *now}):
        place = f"{prefix}{name}"
        if name not in now and _MAY_COME_BACK.fullmatch(place):
            continue
        if durable.get(name) is not now.get(name):
            yield f"{prefix}{name}"
        elif name in now:
            yield from unsynced(now[name], f"{prefix}{name}")


@pytest.mark.parametrize(
    "name", ["init", "commit", "clone", "switch", "removal of a branch", "gc", "fsck --repair"]
)
def test_what_is_done_is_durable(name: str, ready: Callable[[Verb], Ready]) -> None:
    check_syncs(ready(BY_NAME[name]), Tally(name))


@pytest.mark.slow
@pytest.mark.parametrize("name", [verb.name for verb in VERBS])
def test_what_every_command_did_is_durable(name: str, ready: Callable[[Verb], Ready]) -> None:
    tally = Tally(f"what is durable after {name}")
    check_syncs(ready(BY_NAME[name]), tally)
    tally.show()
