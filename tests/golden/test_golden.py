"""Repositories of this format that were made once stay readable, sound and the same to the bit.

`table.json` was printed once by table.py, from the files as the reference reader read them.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.ids import ObjectId, digest

HERE = Path(__file__).parent
TABLES = json.loads((HERE / "table.json").read_text())


@pytest.fixture(params=sorted(TABLES))
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def repo(name: str, tmp_path: Path) -> Iterator[Repository]:
    shutil.copytree(HERE / name, tmp_path / "repo" / ".mergepipe")
    with Repository.open(tmp_path / "repo") as repository:
        yield repository


def test_every_golden_repository_is_in_the_table() -> None:
    assert {path.parent.name for path in HERE.glob("*/packs")} == set(TABLES)


def test_objects_have_their_ids_and_bytes(repo: Repository, name: str) -> None:
    for identity, expected in TABLES[name]["objects"].items():
        canonical = repo.objects.canonical(ObjectId(bytes.fromhex(identity)))
        assert expected in (canonical.hex(), len(canonical))
        assert digest(canonical).hex() == identity


def test_refs_lead_where_they_led(repo: Repository, name: str) -> None:
    for ref, identity in TABLES[name]["refs"].items():
        assert repo.resolve(ref).hex() == identity


def test_nothing_is_wrong_with_it(repo: Repository) -> None:
    report = repo.fsck(read_data=True)
    assert not report.problems


def test_files_come_out_as_they_went_in(repo: Repository, name: str, tmp_path: Path) -> None:
    for number, (ref, files) in enumerate(sorted(TABLES[name]["files"].items())):
        target = tmp_path / str(number)
        repo.checkout(ref, to=target)
        found = {
            path.relative_to(target).as_posix(): digest(path.read_bytes()).hex()
            for path in target.rglob("*")
            if path.is_file()
        }
        assert found == files


def test_merges_give_the_same_ids_again(repo: Repository, name: str) -> None:
    merges = [
        ref
        for ref, identity in TABLES[name]["refs"].items()
        if repo.objects.commit(ObjectId(bytes.fromhex(identity))).manifest is not None
    ]
    assert len(merges) == (4 if name == "merged" else 0)
    for ref in merges:
        assert repo.replay(ref).same
