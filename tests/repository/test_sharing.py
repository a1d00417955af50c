"""A repository of a unix group: every file is the group's to write, whatever anybody's umask is."""

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import UsageError
from mergepipe.repository.layout import initialise
from tests.repository.checkpoints import WHO
from tests.torture.models import commit_model, finish, in_child, problems

USERS = (54001, 54002)
GROUP = 54321
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="acts as two users")


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that other users can reach, unlike those of pytest."""
    made = Path(tempfile.mkdtemp())
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


@pytest.fixture(params=[0o022, 0o077])
def umask(request: pytest.FixtureRequest) -> Iterator[int]:
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def not_shared(directory: Path) -> list[str]:
    found = []
    for path in (directory, *directory.rglob("*")):
        status = path.stat()
        wanted = 0o2070 if path.is_dir() else 0o060
        if stat.S_IMODE(status.st_mode) & wanted != wanted:
            found.append(f"{path.relative_to(directory)} {status.st_mode:o}")
        if status.st_gid != directory.stat().st_gid:
            found.append(f"{path.relative_to(directory)} of group {status.st_gid}")
    return found


def use_every_part(root: Path, remote: Path, scratch: Path) -> None:
    """What makes files: commits, refs and their logs, push from and to, tags, gc, settings."""
    with Repository.open(root, who=WHO) as repo:
        commit_model(repo, os.getpid(), scratch)
        repo.tag(f"v{os.getpid()}")
        repo.branch(f"deep/{os.getpid()}")
        repo.configure("store.codec", "raw")
        repo.checkout("HEAD")
        repo.gc()
        if not repo.config.remote:
            repo.configure("remote.origin.url", str(remote))
        repo.fetch("origin")


def test_every_file_is_the_groups(umask: int, tmp_path: Path) -> None:
    for name in ("here", "there"):
        Repository.init(tmp_path / name, shared="group", who=WHO).close()
    Repository.init(tmp_path / "mine", who=WHO).close()
    with Repository.open(tmp_path / "there", who=WHO) as there:
        commit_model(there, 1, tmp_path)
    use_every_part(tmp_path / "here", tmp_path / "there", tmp_path)
    assert not_shared(tmp_path / "here" / ".mergepipe") == []
    assert not_shared(tmp_path / "there" / ".mergepipe") == []
    mode = (tmp_path / "mine" / ".mergepipe" / "config.toml").stat().st_mode
    assert stat.S_IMODE(mode) == 0o666 & ~umask


def test_a_repository_is_shared_later(umask: int, tmp_path: Path) -> None:
    with Repository.init(tmp_path, who=WHO) as repo:
        commit_model(repo, 1, tmp_path)
        repo.configure("core.shared", "group")
        commit_model(repo, 2, tmp_path)
        assert not_shared(repo.directory) == []
        repo.configure("core.shared", "umask")
        repo.tag("v1")
        mode = (repo.directory / "refs" / "tags" / "v1").stat().st_mode
        assert stat.S_IMODE(mode) == 0o666 & ~umask


def test_an_unknown_group(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no group 'no-such-group'"):
        initialise(tmp_path, shared="no-such-group")
    assert list(tmp_path.iterdir()) == []


@root_only
def test_two_users_write_by_turns(umask: int, folder: Path) -> None:
    shared = folder / "shared"
    shared.mkdir()
    os.chown(shared, USERS[0], GROUP)
    shared.chmod(0o2775)
    scratch = {user: folder / str(user) for user in USERS}
    for user, path in scratch.items():
        path.mkdir()
        path.chmod(0o755)
        os.chown(path, user, GROUP)

    def acting_as(user: int, work: Callable[[], object]) -> None:
        def act() -> None:
            os.setgroups([])
            os.setresgid(GROUP, GROUP, GROUP)
            os.setresuid(user, user, user)
            os.umask(umask)
            work()

        assert finish(in_child(act)) == 0

    def commit() -> None:
        with Repository.open(shared, who=WHO) as repo:
            commit_model(repo, os.getpid(), scratch[os.getuid()])
            repo.tag(f"v{os.getpid()}")
            repo.gc()

    acting_as(USERS[0], lambda: Repository.init(shared, shared="group", who=WHO).close())
    for user in (*USERS, *USERS):
        acting_as(user, commit)
    with Repository.open(shared, who=WHO) as repo:
        assert len(list(repo.log())) == 4
        owners = {path.stat().st_uid for path in repo.directory.rglob("*")}
    assert owners == set(USERS)
    assert not_shared(shared / ".mergepipe") == []
    assert problems(shared) == []
