"""Who keeps what: `mp gc --why`, and reflogs that expire."""

from pathlib import Path

import pytest

from mergepipe import Repository
from mergepipe.ids import ObjectId
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model

START = 1_700_000_000
DAY = 86_400


@pytest.fixture
def days(repository: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three unlike models on main, a day each, oldest first."""
    identities = []
    for day in range(3):
        monkeypatch.setenv("MP_AUTHOR_DATE", f"{START + day * DAY} +0000")
        mp("commit", write_model(tmp_path / f"day{day}", tensors(day)), "-m", f"Day {day}")
        identities.append(mp("show", "--json").document["commit"])
    return identities


def _why(mp: Mp, what: str) -> set[tuple[str, str]]:
    document = mp("gc", "--why", what, "--json").document
    assert document["kept"] == bool(document["keepers"])
    return {(each["kind"], each["name"]) for each in document["keepers"] if each["kind"] != "grace"}


def test_branches_tags_and_reflogs(days: list[str], mp: Mp) -> None:
    mp("tag", "v1", "main~1")
    found = _why(mp, "main~2")
    assert {("branch", "main"), ("tag", "v1"), ("reflog", "main@{0}")} <= found
    assert ("tag", "v1") not in _why(mp, days[2][:12])
    mp("reset", "main~1")
    assert {kind for kind, _ in _why(mp, days[2])} == {"reflog"}
    assert f"reflog main@{{1}} at {days[2][:12]}" in mp("gc", "--why", days[2]).out
    mp("note", days[2], "loss=3")
    assert mp("reflog", "--expire", str(START + 9 * DAY), "--json").document["expired"] > 0
    assert {kind for kind, _ in _why(mp, days[2])} == {"reflog"}  # where the last move began
    mp("branch", "other", "main")
    mp("switch", "other")
    mp("branch", "-d", "main")
    assert mp("gc", "--why", "ffff0000", expect=1).err


def test_objects_blocks_and_packs(days: list[str], repository: Path, mp: Mp) -> None:
    snapshot = mp("show", "main~1", "--json").document["snapshot"]
    tensor = mp("show", "main~1", "--tensors", "--json").document["tensors"][0]["tensor"]
    with Repository.open() as opened:
        block = next(iter(opened.objects.tensor(ObjectId(bytes.fromhex(tensor))).block_ids())).hex()
        packs = [path.stem for path in (repository / ".mergepipe/packs").iterdir()]
    for what in (snapshot, tensor, block, *packs):
        keepers = mp("gc", "--why", what, "--json").document["keepers"]
        assert ("branch", "main") in {(each["kind"], each["name"]) for each in keepers}
    via = mp("gc", "--why", snapshot, "--json").document["keepers"][0]["via"]
    assert via == days[1]
    mp("prune", "--keep-last", "1", "--later")
    assert not _why(mp, snapshot)
    for what in (snapshot, tensor, block):
        assert "grace until 20" in mp("gc", "--why", what).out
    mp("config", "gc.grace", "now")
    for what in (snapshot, tensor, block):
        assert "nothing keeps it" in mp("gc", "--why", what).out
    assert "(mp undo) names it, and keeps nothing" in mp("gc", "--why", days[1]).out


def test_moves_expire_by_themselves(days: list[str], repository: Path, mp: Mp) -> None:
    mp("config", "gc.grace", "now")
    mp("branch", "other", "main")
    mp("reset", "main~2")
    mp("branch", "-d", "other", "--force")
    mp("gc")
    assert mp("show", days[2])  # logs name it
    assert mp("config", "gc.reflog_expire", "90d", "--json").document
    first = mp("gc", "--dry-run", "--json").document
    assert len(mp("reflog", "main", "--json").document) > 1
    done = mp("gc", "--json").document
    assert done["freed_bytes"] > 0
    assert abs(first["freed_bytes"] - done["freed_bytes"]) < 0.1 * done["freed_bytes"]
    assert len(mp("reflog", "main", "--json").document) == 1
    mp("reflog", "other", expect=1)
    mp("show", days[2], expect=1)
    assert "no problems" in mp("fsck", "--read-data").out


def test_expiring_keeps_the_last_move(days: list[str], mp: Mp) -> None:
    assert mp("reflog", "main", "--expire", str(START + DAY), "--json").document["expired"] == 1
    assert len(mp("reflog", "main", "--json").document) == 2
    mp("reflog", "--expire", str(START + 99 * DAY))
    assert len(mp("reflog", "main", "--json").document) == 1
    assert mp("reflog", "main", "--json").document[0]["new"] == days[2]
    mp("fsck")
