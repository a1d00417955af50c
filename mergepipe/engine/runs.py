"""`runs/`: what merges really took, a note for each. Nothing depends on them."""

from pathlib import Path

import msgspec

from mergepipe.ids import ObjectId

RUNS = "runs/"


class Run(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`runs/<commit>.json`: what one merge really took. Ids in hex; keys are only ever added.

    attempts  pieces of work that were lost and done again, if any; what they had read is beside
              the other bytes, not among them
    segments_resumed  pieces that a process had done which then died; what it read counts
    """

    version: int
    commit: str
    plan: str
    manifest: str
    snapshot: str
    host: str
    device: str
    seconds: float
    expert_bytes_read: int
    base_bytes_read: int
    metadata_bytes_read: int
    reads: int
    import_bytes: int
    written_bytes: int
    blocks_computed: int
    blocks_remembered: int
    blocks_kept: int
    cache_bytes_read: int = 0
    attempts: int = 0
    attempts_bytes_read: int = 0
    segments_resumed: int = 0


def run_of(directory: Path, commit: ObjectId) -> Run | None:
    """The note on a commit's merge, of the repository `directory` (its `.mergepipe`).

    None without one: no merge, one made elsewhere, or a note of a later release.
    """
    try:
        return msgspec.json.decode(
            (directory / f"{RUNS}{commit.hex()}.json").read_bytes(), type=Run
        )
    except (OSError, msgspec.DecodeError):
        return None
