"""Which tensor of an output goes to which safetensors file, and the index that says so."""

import json
from collections.abc import Sequence

from msgspec import Struct

from mergepipe.errors import UsageError
from mergepipe.sizes import format_size

STEM = "model"
# What transformers cuts at when it is not told (save_pretrained, `max_shard_size`).
SHARD_BYTES = 5_000_000_000
_SMALLEST = 1 << 12


class Shard(Struct, frozen=True):
    """A file and the places of its tensors in the list that was cut."""

    path: str
    tensors: tuple[int, ...]


def cut_into_shards(
    sizes: Sequence[int], shard_bytes: int = SHARD_BYTES, stem: str = STEM
) -> list[Shard]:
    """Tensors of these sizes (bytes), in order, into files of at most `shard_bytes` of data.

    One file is `<stem>.safetensors`, in its directory if the stem has one. A tensor larger than a
    file gets one of its own. Raises UsageError for a size that makes no sense.
    """
    if shard_bytes < _SMALLEST:
        raise UsageError(
            f"shards of {shard_bytes} bytes are too small",
            f"--out-shard-size counts bytes; at least {format_size(_SMALLEST)}, such as 5GB",
        )
    groups: list[list[int]] = [[]]
    held = 0
    for place, size in enumerate(sizes):
        if groups[-1] and held + size > shard_bytes:
            groups.append([])
            held = 0
        groups[-1].append(place)
        held += size
    count = len(groups)
    if count == 1:
        return [Shard(f"{stem}.safetensors", tuple(groups[0]))]
    return [
        Shard(f"{stem}-{number:05d}-of-{count:05d}.safetensors", tuple(group))
        for number, group in enumerate(groups, 1)
    ]


def shard_index(shards: Sequence[Shard], names: Sequence[str], total_bytes: int) -> bytes:
    """The text of `model.safetensors.index.json`: tensor name -> file, and the bytes of all."""
    places = {
        names[place]: shard.path.rpartition("/")[2] for shard in shards for place in shard.tensors
    }
    members = {
        "metadata": {"total_size": total_bytes},
        "weight_map": {name: places[name] for name in sorted(places)},
    }
    return (json.dumps(members, indent=2, ensure_ascii=False) + "\n").encode()
