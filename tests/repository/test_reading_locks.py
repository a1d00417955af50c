"""Who may only read takes part in locks as far as that goes."""

import os
from pathlib import Path

import pytest

from mergepipe.errors import Locked
from mergepipe.repository.locks import acquire

pytestmark = pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")


def test_a_shared_lock_needs_no_write_access(tmp_path: Path) -> None:
    path = tmp_path / "store.lock"
    path.touch(mode=0o444)
    with acquire(path, shared=True, timeout_s=0), acquire(path, shared=True, timeout_s=0):
        path.chmod(0o644)
        with pytest.raises(Locked):
            acquire(path, timeout_s=0)
    with acquire(path, timeout_s=0):
        path.chmod(0o444)
        with pytest.raises(Locked):
            acquire(path, shared=True, timeout_s=0)
    with pytest.raises(PermissionError):
        acquire(path, timeout_s=0)


def test_nor_a_file(tmp_path: Path) -> None:
    tmp_path.chmod(0o555)
    try:
        with acquire(tmp_path / "store.lock", shared=True, timeout_s=0) as lock:
            assert lock.held
    finally:
        tmp_path.chmod(0o755)
    assert list(tmp_path.iterdir()) == []
