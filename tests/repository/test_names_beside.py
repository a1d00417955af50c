"""A new ref's name is compared with those on its way, and refused as beside all of them."""

from pathlib import Path

import pytest

from mergepipe.bytestore.local import LocalByteStore
from mergepipe.errors import RefExists
from mergepipe.repository.taken_names import TakenNames, names_beside

NAMES = ("a", "b/c/d", "Team/x", "team2/deep/y", "caf\u00e9/z")
NEW = {
    "A": False,
    "a/b": False,
    "b": False,
    "b/c": False,
    "b/C/e": False,
    "b/c/e": True,
    "team/x": False,
    "team/y": False,
    "Team/y": True,
    "team2": False,
    "cafe\u0301/w": False,
    "gone": True,
    "gone/new": True,
    "new": True,
}


@pytest.mark.parametrize("name", NEW)
def test_as_beside_all_names(name: str, tmp_path: Path) -> None:
    with LocalByteStore(tmp_path) as store:
        for each in NAMES:
            store.put(f"refs/heads/{each}", b"x")
        (tmp_path / "refs/heads/gone/deep").mkdir(parents=True)  # where one was removed
        for taken in (TakenNames(store.list("refs/")), names_beside(store, f"refs/heads/{name}")):
            try:
                taken.check(f"refs/heads/{name}")
                free = True
            except RefExists:
                free = False
            assert free == NEW[name]
