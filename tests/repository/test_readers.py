"""Reading takes no right to write: another user's repository, and file systems without locks."""

import errno
import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.flocks import file_system
from mergepipe.errors import NoLocks
from tests.properties.trees import read_tree
from tests.torture.models import commit_model, finish, in_child, model, new_repository, opened

READER = 54003
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="acts as another user")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can reach, unlike those of pytest."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    (made / "out").mkdir()
    if os.geteuid() == 0:
        os.chown(made / "out", READER, READER)
    yield made
    shutil.rmtree(made)


@pytest.fixture
def repository(folder: Path) -> Path:
    new_repository(folder / "repo")
    with opened(folder / "repo") as repo:
        commit_model(repo, 1, folder)
    return folder / "repo"


def read_all(repository: Path, out: Path) -> None:
    with opened(repository) as repo:
        for number, (identity, _) in enumerate(repo.log()):
            repo.checkout(identity.hex(), to=out / str(number))
        assert repo.fsck(read_data=True).ok
        repo.usage()
        repo.diff("HEAD", "HEAD")
        repo.status()
    assert Repository.clone(str(repository), out / "clone").commit is not None


def as_reader(work: Callable[[], object], home: Path) -> int:
    def act() -> None:
        os.setgroups([])
        os.setresgid(READER, READER, READER)
        os.setresuid(READER, READER, READER)
        os.environ["XDG_CACHE_HOME"] = str(home / "cache")
        os.chdir("/")
        work()

    return finish(in_child(act))


def state_of(root: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_mtime_ns, path.stat().st_size) for path in root.rglob("*")}


def no_index(repository: Path) -> None:
    shutil.rmtree(repository / ".mergepipe" / "index")


def older_index(repository: Path) -> None:
    """As after a writer that was killed once its packs were in place."""
    index = repository / ".mergepipe" / "index"
    shutil.copytree(index, repository.parent / "index")
    with opened(repository) as repo:
        commit_model(repo, 2, repository.parent)
    shutil.rmtree(index)
    shutil.copytree(repository.parent / "index", index)


def damaged_index(repository: Path) -> None:
    path = repository / ".mergepipe" / "index" / "data.mdb"
    path.write_bytes(b"\xff" * path.stat().st_size)


@as_root
@pytest.mark.parametrize("spoil", [lambda _: None, no_index, older_index, damaged_index])
def test_another_users_repository(
    repository: Path, folder: Path, spoil: Callable[[Path], None]
) -> None:
    spoil(repository)
    before = state_of(repository)
    out = folder / "out"
    assert as_reader(lambda: read_all(repository, out), out) == 0
    assert state_of(repository) == before
    assert read_tree(out / "0") == model(2 if spoil is older_index else 1)
    assert (out / "cache").exists() == (spoil.__name__ != "<lambda>")
    shutil.rmtree(out / "clone")
    for number in ("0", "1"):
        shutil.rmtree(out / number, ignore_errors=True)
    # Again, with what was made the first time; and after its owner wrote on.
    with opened(repository) as repo:
        commit_model(repo, 3, folder)
    assert as_reader(lambda: read_all(repository, out), out) == 0
    assert read_tree(out / "0") == model(3)


@as_root
def test_a_cache_that_is_anothers_is_not_used(repository: Path, folder: Path) -> None:
    no_index(repository)
    with opened(repository):
        pass
    no_index(repository)
    cache = folder / "out" / "cache" / "mergepipe" / "indexes"

    def read() -> None:
        with opened(repository) as repo:
            list(repo.log())

    assert as_reader(read, folder / "out") == 0
    [private] = cache.iterdir()
    assert private.stat().st_mode & 0o077 == 0
    os.chown(private, 0, 0)
    assert as_reader(read, folder / "out") == 1


def test_no_locks_that_work(
    repository: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flock = fcntl.flock

    def refuse(descriptor: int, operation: int) -> None:
        place = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        if place.startswith(str(repository)):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
        flock(descriptor, operation)

    monkeypatch.setattr(fcntl, "flock", refuse)
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    read_all(repository, folder / "out")
    with opened(repository) as repo:
        for write in (
            lambda: commit_model(repo, 2, folder),
            lambda: repo.tag("v1"),
            repo.gc,
            lambda: repo.configure("core.threads", "1"),
        ):
            with pytest.raises(NoLocks, match=r"file locks do not work") as caught:
                write()
            assert file_system(repository) in caught.value.message
    assert list((repository / ".mergepipe" / "tmp").iterdir()) == []
