"""Room and health: du, gc, fsck."""

from pathlib import Path

from tests.cli.conftest import Mp
from tests.cli.models import content_of, tensors, write_model


def test_du_adds_up(committed: Path, model: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(changed=0.5)), "-b", "two", "--base", "main")
    found = mp("du", "--json").document
    assert [each["rev"] for each in found["models"]] == ["main", "two"]
    saved = found["dedup_saved_bytes"] + found["coding_saved_bytes"]
    assert found["raw_bytes"] == found["stored_bytes"] + saved
    assert found["models"][0]["raw_bytes"] == sum(path.stat().st_size for path in model.iterdir())
    assert found["models"][1]["base"] == found["models"][0]["commit"]
    assert "2 models: " in mp("du").out
    assert [each["rev"] for each in mp("du", "HEAD", "--json").document["models"]] == ["HEAD"]


def test_du_of_nothing(repository: Path, mp: Mp) -> None:
    assert "no models yet" in mp("du").err
    assert mp("du", "--json").document["models"] == []


def test_gc_frees_what_a_removed_branch_held(
    committed: Path, model: Path, tmp_path: Path, mp: Mp
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-b", "two")
    assert mp("gc", "--prune=now").out == "Nothing to free\n"
    assert "mp gc --no-reflog" in mp("branch", "-d", "two", "--force").out
    assert mp("gc", "--prune=now").out == "Nothing to free\n"
    told = mp("gc", "--prune=now", "--dry-run", "--no-reflog").out
    assert told.startswith("Would free ")
    before = _pack_bytes(committed)
    done = mp("gc", "--prune=now", "--json", "--no-reflog").document
    assert done["packs_removed"] > 0
    assert _pack_bytes(committed) == before - done["freed_bytes"]
    mp("checkout", "main", "--to", "out")
    assert content_of(committed / "out") == content_of(model)


def test_gc_keeps_what_the_reflog_names_until_told(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)))
    mp("reset", "HEAD~1")
    assert mp("gc", "--prune=now", "--json").document["freed_bytes"] == 0
    mp("show", "main@{1}")
    assert mp("gc", "--prune=now", "--no-reflog", "--json").document["freed_bytes"] > 0
    mp("show", "main")


def test_fsck_of_a_sound_repository(committed: Path, mp: Mp) -> None:
    assert mp("fsck").out.startswith("ok: no problems")
    found = mp("fsck", "--read-data", "--json").document
    assert (found["ok"], found["problems"]) == (True, [])


def test_fsck_finds_a_damaged_record_and_says_which(committed: Path, mp: Mp) -> None:
    pack = max((committed / ".mergepipe/packs").iterdir(), key=lambda path: path.stat().st_size)
    damaged = bytearray(pack.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    pack.chmod(0o644)
    pack.write_bytes(damaged)
    found = mp("fsck", "--read-data", "--json", expect=12).document
    assert found["ok"] is False
    assert all(each.keys() == {"kind", "id", "detail"} for each in found["problems"])
    said = mp("fsck", "--read-data", expect=12)
    assert "found" in said.out
    assert "mp fsck --repair" in said.err


def test_fsck_brings_a_damaged_ref_back(committed: Path, mp: Mp) -> None:
    tip = mp("log", "--json").document[0]["commit"]
    (committed / ".mergepipe/refs/heads/main").write_text("torn")
    assert "refs/heads/main" in mp("fsck", expect=12).out
    assert "repaired: " in mp("fsck", "--repair").out
    assert mp("log", "--json").document[0]["commit"] == tip


def test_a_deleted_index_is_made_again(committed: Path, model: Path, mp: Mp) -> None:
    for path in (committed / ".mergepipe/index").iterdir():
        path.unlink()
    mp("checkout", "main", "--to", "out")
    assert content_of(committed / "out") == content_of(model)
    mp("fsck", "--read-data")


def _pack_bytes(repository: Path) -> int:
    return sum(path.stat().st_size for path in (repository / ".mergepipe/packs").iterdir())
