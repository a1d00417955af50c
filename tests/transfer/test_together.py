"""Many refs moved at once in a repository of this machine: one admission, and the same outcome."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import RemoteRefused
from mergepipe.ids import ObjectId
from mergepipe.transfer.admission import Admission
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Wanted
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO

from .remotes import Family

COUNT = 12


@pytest.fixture
def branches(family: Family) -> list[str]:
    """Branches of small models, each with a history of its own."""
    names = [f"b/{number:02}" for number in range(COUNT)]
    for number, name in enumerate(names):
        folder = family.folder / f"small-{number}"
        folder.mkdir()
        (folder / "own.bin").write_bytes(bytes([number]) * 100)
        family.repo.commit(folder, message=name, branch=name)
    return names


@pytest.fixture
def admissions(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many tips each admission looked at."""
    counts: list[int] = []
    verify = Admission.verify

    def noted(self: Admission, tips: list[ObjectId], known: list[ObjectId]) -> None:
        counts.append(len(tips))
        verify(self, tips, known)

    monkeypatch.setattr(Admission, "verify", noted)
    return counts


def wanted(family: Family, names: list[str]) -> list[Wanted]:
    return [Wanted(f"refs/heads/{name}", family.repo.resolve(name)) for name in names]


def test_one_admission_takes_in_all(
    family: Family, branches: list[str], admissions: list[int], tmp_path: Path
) -> None:
    with Repository.init(tmp_path / "there", who=WHO) as there, ReceivingStore(there) as store:
        family.push(store, all_branches=True)
        assert admissions == [COUNT + 1]
        assert {ref.rpartition("heads/")[2] for ref in there.refs.list()} == {"main", *branches}
        assert there.reflog(branches[0])[0].why.startswith("push ")
        assert there.fsck(read_data=True).ok
        family.push(store, all_branches=True)
        assert len(admissions) == 1


def test_what_one_move_is_refused_for_is_told_and_the_others_are_made(
    family: Family, branches: list[str], tmp_path: Path
) -> None:
    hook = "#!/bin/sh\ncase $MP_REF in */05) echo not this one >&2; exit 1;; esac\n"
    with Repository.init(tmp_path / "there", who=WHO) as there, ReceivingStore(there) as store:
        path = there.directory / "hooks/pre-receive"
        path.write_text(hook)
        path.chmod(0o755)
        with pytest.raises(RemoteRefused, match="not this one"):
            push(family.source(), store, wanted(family, branches))
        assert 0 < len(there.refs.list()) < COUNT
        assert there.fsck(read_data=True).ok


def test_where_one_moved_meanwhile_each_is_looked_at_by_itself(
    family: Family, branches: list[str], tmp_path: Path
) -> None:
    with Repository.init(tmp_path / "there", who=WHO) as there, ReceivingStore(there) as store:
        push(family.source(), store, wanted(family, branches[:2]))
        first, second = (ref.new for ref in wanted(family, branches[:2]))
        assert first is not None
        assert second is not None
        key, other = (f"refs/heads/{name}" for name in branches[:2])
        at = first.hex().encode() + b"\n"
        to = second.hex().encode() + b"\n"
        assert not store.swap_together([(key, at, to), (other, at, to)])
        assert there.refs.read(key) == first
        push(family.source(), _Stale(store, key), wanted(family, branches))
        assert [there.refs.read(ref.name) for ref in wanted(family, branches)] == [
            ref.new for ref in wanted(family, branches)
        ]


class _Stale(ReceivingStore):
    """As of before somebody else moved a ref."""

    def __init__(self, store: ReceivingStore, key: str) -> None:
        self.__dict__.update(store.__dict__)
        self._stale = key

    def values(self, prefix: str) -> dict[str, bytes]:
        return {key: at for key, at in super().values(prefix).items() if key != self._stale}
