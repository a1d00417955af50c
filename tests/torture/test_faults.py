"""A disk that fails: no failed call is reported as success, and the repository stays good.

strace makes the n-th call of a kind fail, for every n that a commit reaches.
"""

import shutil
from pathlib import Path

import pytest

from tests.properties.trees import write_tree
from tests.torture.models import commit_model, model, new_repository, opened, problems, verify
from tests.torture.syscalls import python, require_strace

COMMIT = """
import os, sys
from pathlib import Path
from mergepipe.errors import MergepipeError
from tests.torture.models import opened
try:
    with opened(Path(sys.argv[1])) as repo:
        repo.commit(sys.argv[2], branch="main", message="1")
except (MergepipeError, OSError) as error:
    os.write(2, repr(error).encode())
    os._exit(9)
os._exit(0)
"""
MOST_CALLS = 40


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    require_strace()
    folder = tmp_path_factory.mktemp("made")
    new_repository(folder / "repo")
    with opened(folder / "repo") as repo:
        commit_model(repo, 0, folder)
    write_tree(model(1), folder / "source")
    return folder


def fail_each(made: Path, tmp_path: Path, calls: str, error: str, every: int) -> int:
    """Let call 1, 1 + every, ... fail, each in a run of its own; how many runs failed."""
    failures = 0
    for number in range(1, MOST_CALLS, every):
        root, work = tmp_path / f"repo{number}", tmp_path / f"work{number}"
        shutil.copytree(made / "repo", root)
        work.mkdir()
        log = tmp_path / "log"
        inject = f"inject={calls}:error={error}:when={number}"
        strace = ["strace", "-f", "-o", str(log), "-e", f"trace={calls}", "-e", inject]
        done = python(COMMIT, root, made / "source", strace=strace)
        injected = "(INJECTED)" in log.read_text()
        found = verify(root, work)["refs/heads/main"]
        assert found in ([0], [1, 0])
        assert done.returncode in (0, 9), done.stderr
        if done.returncode == 0:
            assert found == [1, 0]
            # Only of calls that make nothing durable may the failure be of no account.
            assert not injected or "fsync" not in calls, log.read_text()
        with opened(root) as repo:
            commit_model(repo, 2, work)
        assert verify(root, work)["refs/heads/main"] == [2, *found]
        assert problems(root) == []
        shutil.rmtree(root)
        failures += done.returncode == 9
        if not injected:
            return failures
    return failures


def test_a_failing_fsync_is_never_success(made: Path, tmp_path: Path) -> None:
    assert fail_each(made, tmp_path, "fsync,fdatasync", "EIO", every=3) >= 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("calls", "error"),
    [
        ("fsync,fdatasync", "EIO"),
        ("fsync,fdatasync", "ENOSPC"),
        ("writev,pwrite64,pwritev", "EIO"),
        ("writev,pwrite64,pwritev", "ENOSPC"),
        ("writev,pwrite64,pwritev,write", "EDQUOT"),
        ("openat", "EDQUOT"),
        ("rename,renameat,renameat2", "EIO"),
        ("ftruncate,mkdir,mkdirat", "EIO"),
        ("flock", "ENOLCK"),
    ],
)
def test_every_call_may_fail(made: Path, tmp_path: Path, calls: str, error: str) -> None:
    assert fail_each(made, tmp_path, calls, error, every=1)
