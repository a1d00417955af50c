"""Hugging Face checkpoint directories: whether a sharded model is complete."""

from collections.abc import Callable, Collection, Mapping, Sequence

import msgspec

from mergepipe.errors import IncompleteCheckpoint, MalformedFile
from mergepipe.formats.safetensors import is_lfs_pointer
from mergepipe.formats.tree import SourceFile, read_source
from mergepipe.names import quoted

INDEX_SUFFIX = ".safetensors.index.json"
MAX_INDEX_BYTES = 100_000_000  # as much as the header of one file with all the tensors could take


class _Index(msgspec.Struct):
    """What we read of an index; other members (`metadata`) are skipped without being built."""

    weight_map: dict[str, str]


def read_index(source: SourceFile) -> bytes:
    """The bytes of an index file. Raises MalformedFile if it is too large."""
    return read_source(source, MAX_INDEX_BYTES)


def check_shards(
    files: Sequence[SourceFile],
    tensor_names: Mapping[str, Collection[str]],
    read: Callable[[SourceFile], bytes] = read_index,
) -> None:
    """Check that each `*.safetensors.index.json` finds its shards beside it, and its tensors there.

    `tensor_names` maps the path of every safetensors file to the names in its header. Raises
    IncompleteCheckpoint naming index, shard and tensor, and MalformedFile for what is no index.
    """
    for file in files:
        if file.path.endswith(INDEX_SUFFIX):
            _check_index(file.path, parse_index(read(file), file.path), tensor_names)


def parse_index(content: bytes, name: str) -> dict[str, str]:
    """The weight map of an index: tensor name -> shard. Raises MalformedFile naming `name`."""
    if is_lfs_pointer(content):
        raise MalformedFile(
            f"{quoted(name)} is a git-lfs pointer, not the index", "run `git lfs pull` beside it"
        )
    if len(content) > MAX_INDEX_BYTES:
        raise MalformedFile(
            f"{quoted(name)} has {len(content)} bytes; {MAX_INDEX_BYTES} are allowed"
        )
    try:
        return msgspec.json.decode(content, type=_Index).weight_map
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFile(
            f"{quoted(name)} is no index of a sharded checkpoint: {error}", "fetch it again"
        ) from error


def _check_index(
    path: str, weight_map: Mapping[str, str], tensor_names: Mapping[str, Collection[str]]
) -> None:
    directory = path.rpartition("/")[0]
    absent: set[str] = set()
    shards: dict[str, frozenset[str]] = {}
    for tensor, shard in weight_map.items():
        if shard in absent:
            continue
        if shard not in shards:
            # Shards stand beside their index. A path that escapes names no file that was found.
            present = tensor_names.get(f"{directory}/{shard}" if directory else shard)
            if present is None:
                absent.add(shard)
                continue
            shards[shard] = frozenset(present)
        if tensor not in shards[shard]:
            raise IncompleteCheckpoint(
                f"{quoted(path)} says that {quoted(shard)} holds the tensor {quoted(tensor)},"
                " and it does not",
                "the index and the shards are from different versions; fetch both again",
            )
    if absent:
        others = f" and {len(absent) - 1} more" if len(absent) > 1 else ""
        raise IncompleteCheckpoint(
            f"{quoted(path)} names the shard {quoted(min(absent))}{others}, which is not there",
            "fetch the missing files (an interrupted download?) or remove the index",
        )
