"""`fsck --read-data=5%`: a part at a time, each call after the one before, until all was read."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import UsageError
from mergepipe.packs.reader import pack_ids, pack_key
from mergepipe.repository.reading_rounds import Portion, next_part, remember
from tests.cli.conftest import Mp
from tests.repository.checkpoints import commit, new_repository
from tests.repository.collecting import model


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with new_repository(tmp_path / "repo") as opened:
        for name in "abcd":
            commit(opened, model(tmp_path, name), name)
        yield opened


def test_every_pack_has_its_turn(repo: Repository) -> None:
    sizes = {pack: repo.store.size(pack_key(pack)) or 0 for pack in pack_ids(repo.store)}
    read = []
    for _ in range(len(sizes)):
        part = next_part(repo.store, sizes, Portion(size_bytes=1))
        remember(repo.store, part, 1)
        read += part
    assert sorted(read) == sorted(sizes)
    assert set(next_part(repo.store, sizes, Portion(share=1.0))) == set(sizes)
    (repo.directory / "reading").write_bytes(b"nonsense")
    assert next_part(repo.store, sizes, Portion(share=0.01)) == sorted(sizes)[:1]
    assert next_part(repo.store, {}, Portion(share=0.5)) == []


def test_damage_is_found_within_a_round(repo: Repository) -> None:
    path = max((repo.directory / "packs").iterdir(), key=lambda each: each.stat().st_size)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    assert repo.fsck().ok
    reports = [repo.fsck(read_data="30%") for _ in range(4)]
    assert not reports[-1].ok
    assert all(report.unread_bytes > 0 for report in reports)
    assert not repo.fsck().ok  # it is remembered


def test_on_the_command_line(repo: Repository, tmp_path: Path, mp: Mp) -> None:
    place = tmp_path / "repo"
    whole = mp("-C", place, "fsck", "--json").document["unread_bytes"]
    part = mp("-C", place, "fsck", "--read-data=50%", "--json").document["unread_bytes"]
    assert 0 < part <= whole / 2
    assert mp("-C", place, "fsck", "--read-data", "--json").document["unread_bytes"] == 0
    for bad in ("0%", "101%", "x", "", "-5%"):
        mp("-C", place, "fsck", f"--read-data={bad}", expect=2)


def test_parts() -> None:
    assert Portion.parse("2.5%") == Portion(share=0.025)
    assert Portion.parse("20GiB") == Portion(size_bytes=20 << 30)
    with pytest.raises(UsageError):
        Portion.parse("five")
