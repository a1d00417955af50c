"""Diffs: the numbers against numpy on the whole tensor, matching, and what is left unread."""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mergepipe.api import Repository
from mergepipe.repository.diff import Change, Diff, TensorDiff, diff_snapshots

from .checkpoints import Array, Raw, bf16, commit, new_repository, write_model, write_tensors

CHANCE = np.random.default_rng(3)


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        yield opened


def diff(repo: Repository, a: str, b: str, threads: int = 2) -> Diff:
    return diff_snapshots(
        repo.snapshot_of(a), repo.snapshot_of(b), repo.objects, repo.blocks, threads=threads
    )


def one(
    repo: Repository, tmp_path: Path, a: Array | Raw, b: Array | Raw, block_size: int = 4096
) -> TensorDiff:
    for branch, value in (("a", a), ("b", b)):
        commit(repo, write_model(tmp_path / branch, {"w": value}), branch)
    [tensor] = diff(repo, "a", "b").tensors
    return tensor


def same_number(found: float | None, expected: float) -> bool:
    return found is not None and math.isclose(found, expected, rel_tol=1e-12, abs_tol=1e-300)


def check(found: TensorDiff, a: np.ndarray, b: np.ndarray, share: float) -> None:
    a, b = a.astype(np.complex128).ravel(), b.astype(np.complex128).ravel()
    difference = b - a
    assert found.changed_share == share
    assert same_number(found.l2, float(np.linalg.norm(difference)))
    assert same_number(found.relative_l2, float(np.linalg.norm(difference) / np.linalg.norm(a)))
    cosine = np.vdot(a, b).real / np.linalg.norm(a) / np.linalg.norm(b)
    assert same_number(found.cosine, float(cosine))
    assert found.max_abs == float(np.max(np.abs(difference)))
    assert found.nonfinite == 0


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "int8", "complex64", "bool"])
def test_numbers_are_those_of_the_whole_tensor(
    repo: Repository, tmp_path: Path, dtype: str
) -> None:
    a, other = ((10 * CHANCE.normal(size=(60, 70))).round() + 0.0 for _ in "ab")
    if dtype == "bool":
        a, other = (a > 3).astype(float), (other > 3).astype(float)
    a = a.astype(dtype)
    b = a.copy()
    b[7:20] = other[7:20].astype(dtype)
    found = one(repo, tmp_path, a, b)
    assert found.change is Change.CHANGED
    assert 0 < found.blocks_changed <= found.blocks
    check(found, a, b, np.count_nonzero(a != b) / a.size)


def test_bf16_and_block_counts(repo: Repository, tmp_path: Path) -> None:
    a = CHANCE.normal(size=(8192,)).astype(np.float32)
    a = (a.view(np.uint32) & 0xFFFF0000).view(np.float32)
    b = a.copy()
    b[5000] += 1
    found = one(repo, tmp_path, bf16(a), bf16(b))
    assert (found.blocks, found.blocks_changed) == (4, 1)
    stored = (b.view(np.uint32) & 0xFFFF0000).view(np.float32)
    check(found, a, stored, 1 / 8192)


def test_equal_tensors_are_not_read(repo: Repository, tmp_path: Path) -> None:
    w = CHANCE.normal(size=5000).astype(np.float32)
    commit(repo, write_model(tmp_path / "a", {"w": w}, config_json="{}"), "a")
    commit(repo, write_model(tmp_path / "b", {"w": w}, config_json="{ }"), "b")
    for pack in (repo.directory / "packs").iterdir():
        data = bytearray(pack.read_bytes())
        if data[12] == 0:  # blocks: no longer readable
            data[16:] = bytes(len(data) - 16)
            pack.write_bytes(data)
    found = diff(repo, "a", "b")
    assert [tensor.change for tensor in found.tensors] == [Change.SAME]
    tensor = found.tensors[0]
    assert (tensor.l2, tensor.changed_share, tensor.cosine, tensor.max_abs) == (0, 0, 1, 0)
    assert [(file.path, file.change) for file in found.files] == [
        ("config.json", Change.CHANGED),
        ("model.safetensors", Change.SAME),
    ]
    assert not found.same


def test_another_dtype_is_compared_by_value(repo: Repository, tmp_path: Path) -> None:
    a = CHANCE.normal(size=(50, 50)).astype(np.float32)
    b = a.astype(np.float16)
    found = one(repo, tmp_path, a, b)
    assert (found.change, found.dtype_a, found.dtype_b) == (Change.CHANGED, "F32", "F16")
    check(found, a, b, np.count_nonzero(a != b) / a.size)


def test_equal_values_of_another_dtype_are_still_a_change(repo: Repository, tmp_path: Path) -> None:
    a = np.arange(2000, dtype=np.float32)
    found = one(repo, tmp_path, a, a.astype(np.float64))
    assert (found.change, found.changed_share, found.l2) == (Change.CHANGED, 0, 0)


def test_what_is_not_finite_is_counted_and_left_out(repo: Repository, tmp_path: Path) -> None:
    a = np.ones(3000, np.float32)
    b = a.copy()
    a[0], a[1], b[1], b[2], b[3] = np.nan, np.inf, np.inf, -np.inf, 3
    found = one(repo, tmp_path, a, b)
    assert found.nonfinite == 3
    assert (found.l2, found.max_abs, found.changed_share) == (2, 2, 3 / 3000)
    assert found.cosine is not None and 0.99 < found.cosine < 1


def test_zeros_and_signs(repo: Repository, tmp_path: Path) -> None:
    zeros = np.zeros(2000, np.float32)
    found = one(repo, tmp_path, zeros, -zeros)
    assert (found.change, found.changed_share) == (Change.CHANGED, 1)  # the bits differ
    assert (found.l2, found.relative_l2, found.cosine) == (0, None, None)


def test_beyond_float64_there_is_no_number(repo: Repository, tmp_path: Path) -> None:
    a = np.full(2000, 1e300)
    found = one(repo, tmp_path, a, -a)
    assert (found.l2, found.cosine, found.relative_l2) == (None, None, None)
    assert found.max_abs == 2e300


@pytest.mark.parametrize("dtype", ["F4", "F6_E2M3", "F8_E4M3"])
def test_small_floats(repo: Repository, tmp_path: Path, dtype: str) -> None:
    bits = {"F4": 4, "F6_E2M3": 6, "F8_E4M3": 8}[dtype]
    count = 8 * 4000
    a = bytearray(count * bits // 8)
    b = bytearray(a)
    b[-1] |= 0x20  # in the last element only
    found = one(repo, tmp_path, (dtype, (count,), bytes(a)), (dtype, (count,), bytes(b)))
    assert found.changed_share == 1 / count
    assert found.l2 == found.max_abs
    assert found.l2


def test_moved_added_removed_reshaped(repo: Repository, tmp_path: Path) -> None:
    rows = CHANCE.normal(size=(100, 30)).astype(np.float32)
    first = write_model(
        tmp_path / "a", {"moved": rows, "gone": rows[:1], "longer": rows, "twice": rows[:2]}
    )
    write_tensors(first / "z.safetensors", {"twice": rows[2:5]})
    commit(repo, first, "a")
    second = write_model(
        tmp_path / "b", {"new": rows[:3], "longer": np.vstack([rows, rows[:1]]), "twice": rows[:2]}
    )
    write_tensors(second / "y.safetensors", {"moved": rows})
    write_tensors(second / "z.safetensors", {"twice": rows[5:8]})
    commit(repo, second, "b")
    found = diff(repo, "a", "b")
    changes = [(tensor.path, tensor.name, tensor.change.value) for tensor in found.tensors]
    assert changes == [
        ("model.safetensors", "new", "added"),
        ("model.safetensors", "longer", "reshaped"),
        ("model.safetensors", "twice", "same"),
        ("y.safetensors", "moved", "same"),
        ("z.safetensors", "twice", "changed"),
        ("model.safetensors", "gone", "removed"),
    ]
    longer = found.tensors[1]
    assert (longer.shape_a, longer.shape_b) == ((100, 30), (101, 30))
    assert (longer.blocks_changed, longer.l2) == (1, None)
    assert [(file.path, file.change.value) for file in found.files] == [
        ("model.safetensors", "changed"),
        ("y.safetensors", "added"),
        ("z.safetensors", "changed"),
    ]
    back = diff(repo, "b", "a")
    assert {tensor.change for tensor in back.tensors} == set(Change) - {Change.RENAMED}
    assert diff(repo, "a", "a").same


def test_other_block_sizes_are_no_change(tmp_path: Path) -> None:
    w = CHANCE.normal(size=(300, 33)).astype(np.float32)
    edited = w.copy()
    edited[250, 3] += 1
    with new_repository(tmp_path / "repo") as repo:
        model = write_model(tmp_path / "a", {"w": w}, tokens_bin=bytes(range(256)) * 50)
        commit(repo, model, "a")
        commit(repo, write_model(tmp_path / "c", {"w": edited}), "c")
    config = tmp_path / "repo" / ".mergepipe" / "config.toml"
    config.write_text("format = 1\n[store]\nblock_size = 8192\n")
    with Repository.open(tmp_path / "repo") as repo:
        commit(repo, model, "b")
        found = diff(repo, "a", "b")
        assert found.same
        [changed] = diff(repo, "c", "b").tensors
        check(changed, edited, w, 1 / w.size)


def test_threads_change_nothing(repo: Repository, tmp_path: Path) -> None:
    a = CHANCE.normal(size=(3000, 200)).astype(np.float32)
    b = a + CHANCE.normal(size=a.shape).astype(np.float32) * 1e-3
    commit(repo, write_model(tmp_path / "a", {"w": a, "v": b[:7]}), "a")
    commit(repo, write_model(tmp_path / "b", {"w": b, "v": a[:7]}), "b")
    assert diff(repo, "a", "b", threads=1) == diff(repo, "a", "b", threads=4)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 2**32), rows=st.integers(0, 40), columns=st.integers(1, 300))
def test_any_shape(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, columns: int
) -> None:
    chance = np.random.default_rng(seed)
    a = chance.normal(size=(rows, columns)).astype(np.float32)
    b = np.where(chance.random(a.shape) < 0.1, a * 2, a).astype(np.float32)
    folder = tmp_path_factory.mktemp("any")
    with new_repository(folder / "repo") as repo:
        found = one(repo, folder, a, b)
    if np.array_equal(a, b):
        assert found.change is Change.SAME
    else:
        check(found, a, b, np.count_nonzero(a != b) / a.size)
