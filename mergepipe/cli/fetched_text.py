"""What `mp fetch`, `mp pull` and `mp clone` say of what came."""

from typing import TYPE_CHECKING

import msgspec

from mergepipe.cli.text import Paint, count, duration, listed, short, table
from mergepipe.names import escape_for_terminal
from mergepipe.sizes import format_size

if TYPE_CHECKING:
    from mergepipe.api.results import FetchResult
    from mergepipe.transfer.fetch import FetchedRef


class MovedRef(msgspec.Struct, frozen=True):
    """A ref of ours: where it was and is (null: it was not there; it is gone there)."""

    name: str
    old: str | None
    new: str | None


class FetchDocument(msgspec.Struct, frozen=True):
    """`mp fetch --json`.

    `kept`: tags that are elsewhere at the remote, and were left alone. `bytes_received`: packs as
    they were written here; what an earlier try had brought is not counted. `healed_objects`,
    `healed_blocks`: were damaged or missing here, and came again. `notes`: commits of which notes
    came.
    """

    remote: str
    url: str
    refs: tuple[MovedRef, ...]
    kept: tuple[str, ...]
    bytes_received: int
    packs_received: int
    commits: int
    objects: int
    blocks: int
    seconds: float
    healed_objects: int = 0
    healed_blocks: int = 0
    notes: int = 0


def fetch_document(result: "FetchResult", seconds: float) -> FetchDocument:
    """What scripts read of a fetch."""
    fetched = result.fetched
    return FetchDocument(
        remote=fetched.remote,
        url=result.url,
        refs=tuple(MovedRef(ref.name, hex_id(ref.old), hex_id(ref.new)) for ref in fetched.refs),
        kept=fetched.kept,
        bytes_received=fetched.bytes_received,
        packs_received=fetched.packs_received,
        commits=fetched.commits,
        objects=fetched.objects,
        blocks=fetched.blocks,
        seconds=round(seconds, 3),
        healed_objects=result.healed.objects,
        healed_blocks=result.healed.blocks,
        notes=fetched.notes,
    )


def fetch_text(paint: Paint, result: "FetchResult", seconds: float | None = None) -> str:
    """What people read of it; with a rate, if all the `seconds` went into it."""
    fetched = result.fetched
    lines = []
    if result.healed:
        lines.append(f"Healed: {result.healed}, damaged or missing here, came again")
    if fetched.refs:
        rows = [(_arrow(ref), _name(ref.name)) for ref in fetched.refs]
        lines.append(f"From {escape_for_terminal(result.url)}")
        lines += [f"  {line}" for line in table(rows).splitlines()]
    elif not fetched.there.values:
        lines.append(f"Nothing there yet: {escape_for_terminal(result.url)}")
    else:
        lines.append(f"Nothing new at {escape_for_terminal(result.url)}")
    if fetched.packs_received:
        rate = ""
        if seconds is not None:
            per_second = format_size(fetched.bytes_received / max(seconds, 1e-3))
            rate = f" in {duration(seconds)}, {per_second}/s"
        lines.append(
            f"Received {paint('green', format_size(fetched.bytes_received))}{rate}: "
            f"{count(fetched.blocks, 'block')} and {count(fetched.commits, 'commit')}, all verified"
        )
    if fetched.notes:
        lines.append(f"Received notes of {count(fetched.notes, 'commit')}")
    if fetched.kept:
        names = listed([_name(name) for name in fetched.kept])
        lines.append(f"Left alone, elsewhere at the remote: {names}")
    return "\n".join(lines)


def hex_id(identity: bytes | None) -> str | None:
    """An id as JSON has it."""
    return None if identity is None else identity.hex()


def _arrow(ref: "FetchedRef") -> str:
    if ref.new is None:
        return "gone"
    return short(ref.new) if ref.old is None else f"{short(ref.old)} -> {short(ref.new)}"


def _name(ref: str) -> str:
    from mergepipe.repository.refnames import TAGS, short_name

    name = escape_for_terminal(short_name(ref))
    return f"tag {name}" if ref.startswith(TAGS) else name
