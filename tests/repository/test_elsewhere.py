"""Packs and index on other disks: a setting that both sides state, and that nobody else can."""

import os
import shutil
import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from mergepipe import failpoints
from mergepipe.api import Repository
from mergepipe.bytestore.elsewhere import MARKER
from mergepipe.cli.main import main
from mergepipe.errors import ConfigError, NotMounted, UnsafeRepository, UsageError
from mergepipe.repository import relocation
from mergepipe.repository.config import parse
from tests.repository.checkpoints import WHO
from tests.torture.models import finish, in_child

PACKS, INDEX = "store.packs", "store.index"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # `-C` goes elsewhere for good
    monkeypatch.delenv("MP_DIR", raising=False)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A repository with a commit, and a directory that stands for another disk."""
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "disk").mkdir()
    (folder / "weights.bin").write_bytes(os.urandom(1 << 16))
    with Repository.init(folder, who=WHO) as repository:
        repository.commit(message="first")
    return folder


def listing(place: Path) -> dict[str, bytes]:
    """Every file below a directory, and every directory."""
    return {
        path.relative_to(place).as_posix(): b"" if path.is_dir() else path.read_bytes()
        for path in place.rglob("*")
    }


def problems(folder: Path) -> list[object]:
    with Repository.open(folder, who=WHO) as repository:
        return list(repository.fsck(read_data=True).problems)


def commit_another(folder: Path, message: str) -> None:
    (folder / "weights.bin").write_bytes(os.urandom(1 << 16))
    with Repository.open(folder, who=WHO) as repository:
        repository.commit(message=message)


def test_packs_move_there_and_back_with_all_that_is_done_in_between(model: Path) -> None:
    own, place = model / ".mergepipe", model.parent / "disk/models"
    times = sorted(path.stat().st_mtime for path in (own / "packs").iterdir())
    Repository.relocate(model, PACKS, place)
    assert not (own / "packs").exists()
    assert sorted(path.stat().st_mtime for path in (place / "packs").iterdir()) == times
    before = len(list((place / "packs").iterdir()))
    commit_another(model, "second")
    with Repository.open(model, who=WHO) as repository:
        assert len(list((place / "packs").iterdir())) > before
        repository.gc()
        assert repository.elsewhere() == {PACKS: str(place), INDEX: ""}
    assert not (own / "packs").exists()
    assert not list((own / "tmp").iterdir())
    assert not list((place / "tmp").iterdir())
    assert problems(model) == []
    Repository.relocate(model, PACKS, None)
    assert not place.exists()
    assert problems(model) == []
    assert "requires" not in (own / "config.toml").read_text()


def test_an_index_is_made_again_where_it_is_meant_to_be(model: Path) -> None:
    place = model.parent / "disk/index"
    Repository.relocate(model, INDEX, place)
    assert problems(model) == []
    assert (place / "index/data.mdb").is_file()
    assert not (model / ".mergepipe/index").exists()
    Repository.relocate(model, INDEX, None)
    assert not place.exists()
    assert problems(model) == []


def test_both_may_be_in_one_directory_and_leave_it_one_by_one(model: Path) -> None:
    place = model.parent / "disk/all"
    for setting in (PACKS, INDEX):
        Repository.relocate(model, setting, place)
    assert problems(model) == []
    for setting in (INDEX, PACKS):
        Repository.relocate(model, setting, None)
        assert problems(model) == []
    assert not place.exists()


def test_a_repository_begins_so_and_is_cloned_pushed_to_and_gone_on_from(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    home, places = tmp_path / "home", (tmp_path / "disk/packs", tmp_path / "disk/index")
    argv = ["init", str(home), "--packs", str(places[0]), "--index", str(places[1])]
    assert main(argv) == 0
    commit_another(home, "first")
    assert main(["clone", str(home), str(tmp_path / "clone")]) == 0
    commit_another(tmp_path / "clone", "second")
    assert main(["-C", str(tmp_path / "clone"), "push", "origin", "HEAD:next"]) == 0
    assert problems(home) == []
    assert not (home / ".mergepipe/packs").exists()
    assert not (home / ".mergepipe/incoming").exists()
    with Repository.open(home) as repository:
        assert len(list(repository.log("next"))) == 2


def gone(disk: Path) -> None:
    disk.rename(disk.with_name("away"))


def gone_but_for_its_mount_point(disk: Path) -> None:
    gone(disk)
    (disk / "models").mkdir(parents=True)


@pytest.mark.parametrize("unmount", [gone, gone_but_for_its_mount_point])
@pytest.mark.parametrize("setting", [PACKS, INDEX])
def test_without_its_disk_nothing_is_made_in_its_stead(
    model: Path, setting: str, unmount: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    disk = model.parent / "disk"
    Repository.relocate(model, setting, disk / "models")
    unmount(disk)
    before = listing(model.parent)
    for argv in (
        ["log"],
        ["commit", "-m", "x"],
        ["gc"],
        ["fsck", "--repair"],
        ["status"],
        ["config"],
    ):
        capsys.readouterr()
        assert main(["-C", str(model), *argv]) == 1
        assert "mergepipe-store" in capsys.readouterr().err
    assert main(["-C", str(model), "doctor"]) == 0
    assert "mergepipe-store" in capsys.readouterr().out
    assert listing(model.parent) == before


def test_a_disk_that_goes_while_work_is_done_is_missed(model: Path) -> None:
    disk = model.parent / "disk"
    for setting in (PACKS, INDEX):
        Repository.relocate(model, setting, disk / setting)
    with Repository.open(model, who=WHO) as repository:
        gone_but_for_its_mount_point(disk)
        before = listing(disk)
        (model / "new.bin").write_bytes(os.urandom(1 << 16))
        with pytest.raises(NotMounted):
            repository.commit(message="second")
        with pytest.raises(NotMounted):
            repository.storage.refresh()
        assert listing(disk) == before


def test_a_disk_may_be_mounted_at_another_path(model: Path) -> None:
    disk = model.parent / "disk"
    Repository.relocate(model, PACKS, disk / "models")
    gone(disk)
    with pytest.raises(NotMounted):
        Repository.relocate(model, PACKS, None)
    with pytest.raises(NotMounted):
        Repository.relocate(model, PACKS, model.parent / "new")
    Repository.relocate(model, PACKS, model.parent / "away/models")
    assert problems(model) == []


def test_an_index_that_is_lost_with_its_disk_is_made_again(model: Path) -> None:
    Repository.relocate(model, INDEX, model.parent / "disk/index")
    gone(model.parent / "disk")
    Repository.relocate(model, INDEX, None)
    assert problems(model) == []


def test_a_repository_that_was_moved_says_so_once(model: Path) -> None:
    place = model.parent / "disk/models"
    Repository.relocate(model, PACKS, place)
    moved = model.rename(model.with_name("moved"))
    with pytest.raises(UnsafeRepository, match="belongs to the repository at"):
        Repository.open(moved)
    Repository.relocate(moved, PACKS, place)
    assert problems(moved) == []


def test_a_copy_has_no_packs_of_its_own(model: Path) -> None:
    place = model.parent / "disk/models"
    Repository.relocate(model, PACKS, place)
    copy = Path(shutil.copytree(model, model.with_name("copy")))
    before = listing(place)
    for target in (place, None):
        with pytest.raises((UsageError, UnsafeRepository)):
            Repository.relocate(copy, PACKS, target)
    for argv in (["log"], ["gc", "--prune=now"]):
        assert main(["-C", str(copy), *argv]) == 1
    assert listing(place) == before
    assert problems(model) == []


@pytest.mark.parametrize(
    "pointer",
    [
        "repository {id}\npacks {victim}\n",
        "repository {id}\nindex {victim}\n",
        "repository {other}\npacks {place}\n",
        "repository {id}\npacks {place}/../models\nindex {victim}\n",
        "repository {id}\npacks ../../victim\n",
        "repository {id}\npacks {victim}\npacks {place}\n",
        "repository {id}\npacks {link}\n",
        "packs {place}\n",
        "repository {id}\nsecret {victim}\n",
        "\0\n" * 100_000,
    ],
)
def test_a_prepared_repository_touches_nothing_elsewhere(model: Path, pointer: str) -> None:
    """It may know everything about ours, and name whatever it likes."""
    place, victim = model.parent / "disk/models", model.parent / "victim"
    Repository.relocate(model, PACKS, place)
    for folder in ("packs", "tmp/1-00000000", "index"):
        (victim / folder).mkdir(parents=True)
    for name in ("packs/a.pack", "tmp/1-00000000/000001", "index/data.mdb", "index.lock"):
        (victim / name).write_text("precious")
    link = model.parent / "link"
    link.symlink_to(victim)
    prepared = model.parent / "prepared"
    with Repository.init(prepared, who=WHO) as repository:
        repository.configure("store.codec", "raw")
    known = (model / ".mergepipe/elsewhere").read_text().split()[1]
    filled = pointer.format(id=known, other="0" * 32, place=place, victim=victim, link=link)
    (prepared / ".mergepipe/elsewhere").write_text(filled)
    before = listing(victim) | listing(place)
    for argv in (
        *(["log"], ["status"], ["fsck", "--repair"], ["gc", "--prune=now"], ["commit", "-m", "x"]),
        *(["config", "--unset", PACKS], ["config", "--unset", INDEX]),
        *(["config", PACKS, str(victim)], ["config", INDEX, str(victim)]),
        *(["config", PACKS, str(place)], ["config", INDEX, str(place)]),
    ):
        main(["-C", str(prepared), *argv])
    assert listing(victim) | listing(place) == before
    assert problems(model) == []


def test_what_is_in_such_a_directory_is_plain_too(model: Path) -> None:
    place, victim = model.parent / "disk/models", model.parent / "victim"
    Repository.relocate(model, PACKS, place)
    victim.write_text("precious")
    for link in (place / "packs/link", place / "what ever"):
        link.symlink_to(victim)
        with pytest.raises(UnsafeRepository):
            Repository.open(model)
        link.unlink()
    marker = place / "mergepipe-store"
    marker.rename(victim.with_name("marker"))
    marker.symlink_to(victim.with_name("marker"))
    with pytest.raises((UnsafeRepository, NotMounted)):
        Repository.open(model)


def test_nothing_moves_where_something_is_not_plain(model: Path) -> None:
    disk, victim = model.parent / "disk", model.parent / "victim"
    victim.write_text("precious")
    Repository.relocate(model, PACKS, disk / "one")
    before = listing(model)
    for place in (model / ".mergepipe", disk / "one"):
        link = place / "what ever"
        link.symlink_to(victim)
        for setting, target in ((PACKS, disk / "two"), (PACKS, None), (INDEX, disk / "one")):
            with pytest.raises(UnsafeRepository):
                Repository.relocate(model, setting, target)
        link.unlink()
    assert listing(model) == before
    assert problems(model) == []


def test_a_link_that_comes_in_between_is_not_written_through(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, victim = model.parent / "disk/models", model.parent / "victim"
    victim.write_text("precious")

    def look_and_be_late(root: Path) -> None:
        if root == place:
            (place / MARKER).symlink_to(victim)

    monkeypatch.setattr(relocation, "check_tree", look_and_be_late)
    with pytest.raises(OSError, match=MARKER):
        Repository.relocate(model, PACKS, place)
    assert victim.read_text() == "precious"


def test_a_directory_is_durably_its_own_before_anything_is_there(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = model.parent / "disk/models"
    synced: list[Path] = []
    sync = os.fsync

    def noting(descriptor: int) -> None:
        sync(descriptor)
        if not (place / "packs").exists():
            synced.append(Path(f"/proc/self/fd/{descriptor}").readlink())

    monkeypatch.setattr(os, "fsync", noting)
    Repository.relocate(model, PACKS, place)
    assert {place / MARKER, place, place.parent} <= set(synced)


def test_a_template_and_settings_cannot_say_it(tmp_path: Path) -> None:
    template = tmp_path / "template"
    template.mkdir()
    (template / "elsewhere").write_text("repository x")
    with pytest.raises(UsageError, match="cannot bring 'elsewhere'"):
        Repository.init(tmp_path / "new", template=template)
    with pytest.raises(ConfigError, match=r"said by both sides"):
        parse(f'format = 1\n[store]\npacks = "{tmp_path}"\n')


@pytest.mark.parametrize("name", ["full", "model/inside", "missing/deep", "file", "link"])
def test_a_directory_that_cannot_be_its_own_is_refused(model: Path, name: str) -> None:
    (model.parent / "full").mkdir()
    (model.parent / "full/file").write_text("precious")
    (model.parent / "file").write_text("precious")
    (model.parent / "link").symlink_to(model.parent / "disk")
    before = listing(model.parent)
    with pytest.raises(UsageError):
        Repository.relocate(model, PACKS, model.parent / name)
    assert listing(model.parent) == before


def test_who_began_before_packs_were_moved_is_told_to_begin_again(model: Path) -> None:
    with Repository.open(model, who=WHO) as repository:
        Repository.relocate(model, PACKS, model.parent / "disk/models")
        (model / "weights.bin").write_bytes(os.urandom(1 << 16))
        with pytest.raises(Exception, match="moved to another disk"):
            repository.commit(message="second")
    assert problems(model) == []


def test_sparse_packs_stay_sparse(model: Path, tmp_path: Path) -> None:
    clone = tmp_path / "lazy"
    assert main(["clone", "--lazy", "--no-checkout", str(model), str(clone)]) == 0
    promised = list((clone / ".mergepipe/promised").iterdir())
    taken = sum(path.stat().st_blocks for path in promised)
    assert promised
    Repository.relocate(clone, PACKS, tmp_path / "disk/lazy")
    moved = list((tmp_path / "disk/lazy/promised").iterdir())
    assert sum(path.stat().st_blocks for path in moved) <= taken
    assert {path.name: path.stat().st_size for path in moved}
    assert main(["-C", str(clone), "checkout", "HEAD", "--to", str(tmp_path / "read")]) == 0
    assert (tmp_path / "read/weights.bin").read_bytes() == (model / "weights.bin").read_bytes()


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_killed_at_any_step_is_whole_and_is_gone_on_with(
    model: Path, back: bool
) -> None:
    """Wherever it is killed, all can be read; the same command again finishes it."""
    place = model.parent / "disk/models"
    if back:
        Repository.relocate(model, PACKS, place)
    kept = Path(shutil.copytree(model.parent, model.parent.with_name(f"kept-{back}")))
    target = None if back else place

    def move(number: int) -> None:
        failpoints.arm(failpoints.Strikes((failpoints.Strike(failpoints.ANY, "kill", number),)))
        Repository.relocate(model, PACKS, target)

    code, number = -signal.SIGKILL, 0
    while code == -signal.SIGKILL:
        number += 1
        code = finish(in_child(partial(move, number)))
        assert problems(model) == []
        if back:  # said to be done, or not: either way it can be said again
            Repository.relocate(model, PACKS, place)
        Repository.relocate(model, PACKS, target)
        assert problems(model) == []
        assert (model / ".mergepipe/packs").exists() == back
        assert place.exists() != back
        for folder in (model, model.parent / "disk"):
            shutil.rmtree(folder)
            shutil.copytree(kept / folder.name, folder)
    assert code == 0
    assert number > 10
