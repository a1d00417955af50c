"""Profiles against their definition in docs/format-merge.md, computed here in plain numpy."""

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mergepipe.api import Repository
from mergepipe.catalog.view import TensorView, sample_positions
from mergepipe.ids import ObjectId
from mergepipe.objects.merging import Profile
from tests.repository.checkpoints import new_repository, write_model

BLOCK = 4096
Halves = NDArray[np.uint16]


def as_float(bits: Halves, dtype: str) -> NDArray[np.float32]:
    if dtype == "F16":
        return bits.view(np.float16).astype(np.float32)
    return (bits.astype(np.uint32) << 16).view(np.float32)


def as_bits(values: NDArray[np.float32], dtype: str) -> Halves:
    if dtype == "F16":
        return values.astype(np.float16).view(np.uint16)
    return (values.view(np.uint32) >> 16).astype(np.uint16)


def pair(dtype: str, rows: int, columns: int, seed: int) -> tuple[Halves, Halves]:
    """A base and a fine-tune of it; a third of the rows stay as they are."""
    random = np.random.default_rng(seed)
    base = as_bits(random.standard_normal((rows, columns)).astype(np.float32) * 0.02, dtype)
    change = random.standard_normal((rows, columns)).astype(np.float32) * 1e-3
    change[: rows // 3] = 0
    return base, as_bits(as_float(base, dtype) + change, dtype)


def commit_pair(
    folder: Path, dtype: str, base: Halves, tuned: Halves, codec: str = "auto"
) -> tuple[Repository, ObjectId, ObjectId]:
    """A repository with both on branches, and their snapshots."""
    repository = new_repository(folder / "repository", BLOCK, codec)
    for name, bits in (("base", base), ("tuned", tuned)):
        tensors = {"w": (dtype, bits.shape, bits.tobytes())}
        write_model(folder / name, tensors)
        repository.commit(
            folder / name, branch=name, message=name, base="base" if name == "tuned" else None
        )
    snapshots = [repository.commit_of(name)[1].snapshot for name in ("base", "tuned")]
    return repository, snapshots[0], snapshots[1]


def view_of(repository: Repository) -> TensorView:
    commit = repository.commit_of("tuned")[1]
    assert commit.profile is not None
    (tensor,) = repository.objects.load(commit.profile, Profile).tensors
    return TensorView(tensor)


@pytest.mark.parametrize("dtype", ["BF16", "F16"])
def test_columns_are_what_the_format_says(tmp_path: Path, dtype: str) -> None:
    base, tuned = pair(dtype, 96, 128, 1)
    repository, _, _ = commit_pair(tmp_path, dtype, base, tuned)
    with repository:
        view = view_of(repository)
    change = (as_float(tuned, dtype) - as_float(base, dtype)).reshape(-1)
    rows = BLOCK // (2 * 128)
    sizes = np.abs(change)
    assert view.blocks == 96 // rows
    for index in range(view.blocks):
        part = slice(index * rows * 128, (index + 1) * rows * 128)
        own, moved = sizes[part], tuned.reshape(-1)[part] != base.reshape(-1)[part]
        assert view.changed[index] == np.count_nonzero(moved)
        assert view.largest[index] == own.max()
        assert view.energies[index] == pytest.approx((own.astype(np.float64) ** 2).sum(), rel=1e-3)
        kept = own >= view.thresholds[index] if own.any() else np.zeros(len(own), bool)
        assert view.kept[index] == np.count_nonzero(kept)
        if kept.any():
            assert view.magnitudes[index] == pytest.approx(own[kept].mean(), rel=1e-3)
    values, counts = view.distinct
    expected, numbers = np.unique(sizes, return_counts=True)
    assert np.array_equal(values, expected)
    assert np.array_equal(counts, numbers)
    thresholds = np.repeat(view.thresholds, rows * 128)
    trits = np.sign(change) * ((sizes >= thresholds) & (sizes > 0))
    assert np.array_equal(view.signs(change.size), trits[sample_positions(change.size)])


def test_rows_that_the_base_lacks_have_no_delta(tmp_path: Path) -> None:
    base, tuned = pair("BF16", 96, 128, 2)
    repository, _, _ = commit_pair(tmp_path, "BF16", base[:90], tuned)
    with repository:
        view = view_of(repository)
    rows = BLOCK // (2 * 128)
    whole = 90 // rows
    assert not np.isnan(view.energies[:whole]).any()
    assert np.isnan(view.energies[whole:]).all()
    assert len(view.distinct[0]) == 0, "counts that leave rows out would give a wrong threshold"


def test_an_analysis_makes_the_profile_that_the_commit_made(tmp_path: Path) -> None:
    base, tuned = pair("BF16", 200, 128, 3)
    inline, _, _ = commit_pair(tmp_path / "a", "BF16", base, tuned)
    later, base_id, tuned_id = commit_pair(tmp_path / "b", "BF16", base, tuned, codec="raw")
    with inline, later:
        made = inline.commit_of("tuned")[1].profile
        assert later.commit_of("tuned")[1].profile is None
        assert later.analyze("tuned") == made
        assert later.profiles().find(tuned_id, base_id) == made


def test_blocks_that_were_stored_before_are_analysed_from_the_store(tmp_path: Path) -> None:
    """The same fine-tune committed without its base first: nothing is encoded the second time."""
    base, tuned = pair("BF16", 200, 128, 4)
    expected, _, _ = commit_pair(tmp_path / "a", "BF16", base, tuned)
    other = new_repository(tmp_path / "b" / "repository", BLOCK, "auto")
    with expected, other:
        other.commit(tmp_path / "a" / "tuned", branch="first", message="no base yet")
        other.commit(tmp_path / "a" / "base", branch="base", message="base")
        again = other.commit(tmp_path / "a" / "tuned", branch="tuned", base="base", message="again")
        assert again.new_blocks == 0
        profile = other.objects.commit(again.commit).profile
        assert profile is not None
        assert profile == expected.commit_of("tuned")[1].profile


@pytest.mark.parametrize("threads", [1, 5])
def test_threads_change_nothing(tmp_path: Path, threads: int) -> None:
    base, tuned = pair("BF16", 300, 128, 5)
    repository, _, _ = commit_pair(tmp_path / "a", "BF16", base, tuned)
    with repository:
        expected = repository.commit_of("tuned")[1].profile
    with new_repository(tmp_path / "b", BLOCK, "auto") as other:
        other.configure("core.threads", str(threads))
        for name in ("base", "tuned"):
            leaning = "base" if name == "tuned" else None
            other.commit(tmp_path / "a" / name, branch=name, base=leaning, message=name)
        assert other.commit_of("tuned")[1].profile == expected
