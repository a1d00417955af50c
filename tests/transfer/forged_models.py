"""Models and commits that are not what their ids say: every way to be wrong, by name."""

import itertools
from collections.abc import Callable

from mergepipe.ids import ObjectId, block_id, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Blob, FileEntry, Safetensors, Snapshot, Tensor, TensorEntry

from .forging import (
    BLOCK,
    Forge,
    noise,
)

RAW = noise(3 * BLOCK + 100)
Case = Callable[[Forge], tuple[ObjectId, bytes]]
CASES: dict[str, Case] = {}


def case(make: Case) -> Case:
    """Note a way to be wrong: returns a commit, and the id that the message has to name."""
    CASES[make.__name__] = make
    return make


@case
def a_block_that_is_another_one(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(BLOCK), id=block_id(real))
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_that_does_not_decode(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(99), id=block_id(real), codec=1, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_codec_that_nobody_has(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(real, codec=77)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_of_another_length(forge: Forge) -> tuple[ObjectId, bytes]:
    block = forge.block(noise(BLOCK - 1))
    return forge.commit(forge.tensor_of(block, BLOCK), BLOCK), block


@case
def a_raw_block_whose_payload_is_shorter(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(real[:-1], id=block_id(real), raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def a_block_with_two_lengths(forge: Forge) -> tuple[ObjectId, bytes]:
    block = forge.block(noise(BLOCK))
    tensors = (
        forge.tensor_of(block, BLOCK),
        forge.tensor_of(block, 100),
    )
    files = tuple(
        FileEntry(f"{n}.bin", False, size, Blob(tensor))
        for n, (tensor, size) in enumerate(zip(tensors, (BLOCK, 100), strict=True))
    )
    return forge.commit_of(forge.put(Snapshot(files))), block


@case
def blocks_that_lean_on_each_other(forge: Forge) -> tuple[ObjectId, bytes]:
    one, other = noise(BLOCK), noise(BLOCK)
    forge.block(noise(50), id=block_id(one), base=block_id(other), codec=2, raw_length=BLOCK)
    forge.block(noise(50), id=block_id(other), base=block_id(one), codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(one), BLOCK), BLOCK), block_id(one)


@case
def a_base_of_another_length(forge: Forge) -> tuple[ObjectId, bytes]:
    base = forge.block(noise(BLOCK // 2))
    block = block_id(noise(BLOCK))
    forge.block(noise(50), id=block, base=base, codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block, BLOCK), BLOCK), block


@case
def a_chain_without_an_end(forge: Forge) -> tuple[ObjectId, bytes]:
    end = noise(BLOCK)
    ids = [*(block_id(noise(BLOCK)) for _ in range(40)), block_id(end)]
    for block, base in itertools.pairwise(ids):
        forge.block(noise(50), id=block, base=base, codec=2, raw_length=BLOCK)
    forge.block(end)
    return forge.commit(forge.tensor_of(ids[0], BLOCK), BLOCK), ids[0]


@case
def a_difference_from_nothing(forge: Forge) -> tuple[ObjectId, bytes]:
    real = noise(BLOCK)
    forge.block(noise(50), id=block_id(real), codec=2, raw_length=BLOCK)
    return forge.commit(forge.tensor_of(block_id(real), BLOCK), BLOCK), block_id(real)


@case
def an_object_that_is_another_one(forge: Forge) -> tuple[ObjectId, bytes]:
    real = encode(Tensor("U8", (0,), BLOCK, b""))
    forge.put(Tensor("I8", (0,), BLOCK, b""), id=object_id(real))
    return forge.commit(object_id(real), 0), object_id(real)


@case
def an_object_that_is_not_canonical(forge: Forge) -> tuple[ObjectId, bytes]:
    canonical = encode(Tensor("U8", (5,), BLOCK, forge.block(b"12345")))
    longer = canonical.replace(b"\x91\x05", b"\x91\xcc\x05", 1)
    assert longer != canonical
    tensor = forge.put(longer)
    return forge.commit(tensor, 5), tensor


@case
def an_object_of_garbage(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.put(b"tensor 1\n" + noise(50))
    return forge.commit(tensor, 5), tensor


@case
def a_tensor_where_a_snapshot_should_be(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    return forge.commit_of(tensor), tensor


@case
def a_branch_that_is_no_commit(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    return tensor, tensor


@case
def a_profile_that_is_none(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    snapshot = forge.put(Snapshot((FileEntry("w", False, len(RAW), Blob(tensor)),)))
    return forge.commit_of(snapshot, profile=tensor), tensor


@case
def too_few_blocks(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(noise(BLOCK)), 2 * BLOCK)
    return forge.commit(tensor, 2 * BLOCK), tensor


@case
def blocks_cut_in_the_middle_of_an_id(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(noise(BLOCK))[:-1], BLOCK)
    return forge.commit(tensor, BLOCK), tensor


@case
def a_tensor_of_absurd_shape(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, shape=(1 << 62,) * 60, block_bytes=1)
    return forge.commit(tensor, 1 << 62), tensor


@case
def a_tensor_of_very_many_dimensions(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, shape=(1 << 62,) * 100_000)
    return forge.commit(tensor, 0), tensor


@case
def a_dtype_that_nobody_has(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(b"", 0, dtype="F7")
    return forge.commit(tensor, 0), tensor


@case
def bits_that_fill_no_byte(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor_of(forge.block(b"1"), 1, dtype="F4", shape=(1,))
    return forge.commit(tensor, 1), tensor


@case
def a_file_of_another_size(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    file = FileEntry("w.safetensors", False, 9, Safetensors(tensor, (TensorEntry("w", tensor),)))
    snapshot = forge.put(Snapshot((file,)))
    return forge.commit_of(snapshot), snapshot


@case
def a_file_that_is_there_twice(forge: Forge) -> tuple[ObjectId, bytes]:
    file = FileEntry("w", False, len(RAW), Blob(forge.tensor(RAW)))
    snapshot = forge.put(Snapshot((file, file)))
    return forge.commit_of(snapshot), snapshot


def path_case(name: str, path: str) -> None:
    def make(forge: Forge) -> tuple[ObjectId, bytes]:
        file = FileEntry(path, False, len(RAW), Blob(forge.tensor(RAW)))
        snapshot = forge.put(Snapshot((file,)))
        return forge.commit_of(snapshot), snapshot

    CASES[f"a_path_{name}"] = make


path_case("outside", "../../etc/cron.d/x")
path_case("from_the_root", "/etc/passwd")
path_case("into_the_repository", ".mergepipe/hooks/post-merge")
path_case("into_git", "x/.GIT/hooks/post-checkout")
path_case("with_a_nul", "a\0b")
path_case("with_a_newline", "a\nb")
path_case("with_a_backslash", "a\\..\\b")
path_case("that_is_empty", "")
path_case("without_an_end", "a/" * 3000 + "b")


@case
def paths_that_are_one_elsewhere(forge: Forge) -> tuple[ObjectId, bytes]:
    tensor = forge.tensor(RAW)
    files = tuple(FileEntry(path, False, len(RAW), Blob(tensor)) for path in ("A", "a"))
    snapshot = forge.put(Snapshot(files))
    return forge.commit_of(snapshot), snapshot
