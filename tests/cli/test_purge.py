"""Models removed for good: no byte of their own stays, everything else does, and all say so."""

import json
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from mergepipe import Repository
from mergepipe.errors import MergepipeError
from tests.cli.conftest import Mp

_PIECE = 512


@pytest.fixture
def day(merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp) -> Path:
    """Upon `merging`: a second `math`, a third that leans on it, a merge of it, and a tag.

    Returns the second one's files. Packs hold blocks as they are where nothing lies under them.
    """
    mp("config", "store.codec", "raw")
    second = _changed(family["math"], tmp_path / "second", 7)
    mp("commit", second, "-b", "math", "-m", "Withdrawn")
    mp("tag", "v2", "math")
    mp("config", "store.codec", "auto")
    mp("merge", "math", "code", "--base", "base", "-b", "prod", "-m", "Merged of it")
    third = _changed(second, tmp_path / "third", 9, names=("embed",))
    mp("commit", third, "-b", "next", "--base", "math", "-m", "Fine-tune of it")
    return second


def _changed(source: Path, target: Path, seed: int, names: tuple[str, ...] = ()) -> Path:
    """A model in which some tensors (all but the norm, if none is named) are a little different."""
    target.mkdir()
    random = np.random.default_rng(seed)
    tensors = load_file(source / "model.safetensors")
    for name in names or [each for each in tensors if each != "norm"]:
        noise = torch.from_numpy(random.normal(0, 0.01, tuple(tensors[name].shape)))
        tensors[name] = (tensors[name].double() + noise).to(tensors[name].dtype)
    save_file(tensors, target / "model.safetensors", {"format": "pt"})
    (target / "config.json").write_bytes((source / "config.json").read_bytes())
    return target


def _own_pieces(model: Path, *others: Path) -> list[bytes]:
    """Pieces of a model's weights that no other model has at their place."""
    mine = load_file(model / "model.safetensors")
    rest = [load_file(other / "model.safetensors") for other in others]
    pieces = []
    for name, tensor in mine.items():
        data = tensor.view(torch.uint8).numpy().tobytes()
        for at in range(0, len(data), 4096):
            piece = data[at : at + _PIECE]
            if not any(
                each[name].view(torch.uint8).numpy().tobytes()[at : at + _PIECE] == piece
                for each in rest
            ):
                pieces.append(piece)
    return pieces


def _found(repository: Path, pieces: list[bytes]) -> int:
    """How many of the pieces stand in some file of a repository."""
    files = [each.read_bytes() for each in (repository / ".mergepipe").rglob("*") if each.is_file()]
    return sum(any(piece in data for data in files) for piece in pieces)


def _checks_out(mp: Mp, revision: str, files: Path, to: Path) -> None:
    mp("checkout", revision, "--to", to)
    for each in files.iterdir():
        assert (to / each.name).read_bytes() == each.read_bytes()


def test_no_byte_stays_and_every_other_model_does(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp
) -> None:
    third = tmp_path / "third"
    pieces = _own_pieces(day, *family.values(), third)
    assert _found(merging, pieces) == len(pieces) > 10
    merged = tmp_path / "merged-before"
    mp("checkout", "prod", "--to", merged)
    purged = mp("show", "math", "--json").document["commit"]
    before = mp("show", "math~1", "--json").document["commit"]
    told = mp("purge", "math", "--reason", "Licence withdrawn", "--json").document["here"]
    assert told["dry_run"]
    assert _found(merging, pieces) == len(pieces)
    done = mp("purge", "math", "--reason", "Licence withdrawn", "--yes", "--json").document["here"]
    assert not done["dry_run"]
    for key in ("commits", "own_block_ids", "reencoded_blocks", "packs", "refs", "shared"):
        assert done[key] == told[key]
    assert done["own_blocks"] >= len(pieces)
    assert done["reencoded_blocks"] > 0  # of the fine-tune, which leaned on it
    assert done["merges"][0]["message"] == "Merged of it"
    assert "Fine-tune of it" in [each["message"] for each in done["shared"]]
    moves = {each["name"]: each["new"] for each in done["refs"]}
    assert moves == {"refs/heads/math": before, "refs/tags/v2": None}

    assert _found(merging, pieces) == 0
    with Repository.open(merging) as repository, repository.storage.view() as view:
        own = {bytes.fromhex(each) for each in done["own_block_ids"]}
        assert not own & {at.header.id for at in view.blocks()}
        assert not own & {at.header.base for at in view.blocks()}
    for name, files in family.items():
        _checks_out(mp, name, files, tmp_path / f"out-{name}")
    _checks_out(mp, "next", third, tmp_path / "out-next")
    _checks_out(mp, "prod", merged, tmp_path / "out-prod")
    assert "no problems" in mp("fsck", "--read-data").out
    told = "by Ada <ada@example.org>: Licence withdrawn"
    for command in (["show"], ["diff", "base"], ["ls"], ["tag", "again"], ["branch", "again"]):
        assert told in mp(*command, purged, expect=1).err
    assert told in mp("checkout", purged, "--to", tmp_path / "gone", expect=1).err
    assert told in mp("merge", purged, "code", "--base", "base", expect=1).err
    assert mp("show", purged, "--json", expect=1).document["error"]["kind"] == "purged"
    manifest = mp("show", "prod", "--json").document["manifest"]
    assert manifest
    mp("gc")
    assert told in mp("show", purged, expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out


def test_it_is_taken_again_only_when_that_is_asked_for(
    day: Path, merging: Path, tmp_path: Path, mp: Mp
) -> None:
    purged = mp("show", "math", "--json").document["commit"]
    mp("purge", "math", "--reason", "Withdrawn", "--yes")
    assert "this very model was purged on" in mp("commit", day, "-b", "again", expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out
    mp("purge", "--lift", purged[:12])
    mp("commit", day, "-b", "again")
    _checks_out(mp, "again", day, tmp_path / "out")


def test_a_cut_purge_is_done_again(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    from mergepipe.repository import purging

    pieces = _own_pieces(day, *family.values(), tmp_path / "third")
    purged = mp("show", "math", "--json").document["commit"]

    def cut(*arguments: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(purging, "_store_again", cut)
        mp("purge", purged, "--reason", "Withdrawn", "--yes", expect=130)
    assert "purged on" in mp("show", purged, expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out
    _checks_out(mp, "next", tmp_path / "third", tmp_path / "out")
    mp("purge", purged, "--reason", "Withdrawn", "--yes")
    assert _found(merging, pieces) == 0


def test_a_report_to_sign(day: Path, mp: Mp, tmp_path: Path) -> None:
    mp("purge", "math", "--reason", "Withdrawn", "--report", tmp_path / "removal.txt", "--yes")
    text = (tmp_path / "removal.txt").read_text()
    document = json.loads((tmp_path / "removal.txt.json").read_bytes())
    for each in document["here"]["packs"]:
        assert each in text
    assert "Withdrawn" in text
    assert "signature" in text
    assert document["here"]["who"] == "Ada <ada@example.org>"


def test_undo_does_not_bring_it_back(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp
) -> None:
    pieces = _own_pieces(day, *family.values(), tmp_path / "third")
    purged = mp("show", "math", "--json").document["commit"]
    mp("branch", "kept", "math")
    mp("branch", "-d", "kept", "--force")
    mp("purge", "math", "--reason", "Withdrawn", "--yes")
    with Repository.open() as repository:
        operations = repository.operations.read()
        assert len(operations) > 4
        for operation in operations:
            with suppress(MergepipeError):
                repository.undo(operation.id)
            assert _found(merging, pieces) == 0
        tips = {at.hex() for at in repository.refs.list().values()}
        assert purged not in tips
        assert repository.tombstone_of(repository.resolve(purged)) is not None
    mp("gc", "--prune=now")
    assert _found(merging, pieces) == 0
    assert "no problems" in mp("fsck", "--read-data").out
    why = mp("gc", "--why", purged).out
    assert "tombstone of" in why
    assert "(mp undo) names it, and keeps nothing" in why


def test_a_remote_that_allows_it(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    there = tmp_path / "there"
    pieces = _own_pieces(day, *family.values(), tmp_path / "third")
    mp("init", there)
    mp("remote", "add", "origin", there)
    mp("push", "origin", "--all", "--tags")
    mp("clone", there, tmp_path / "other", "--branch", "math")
    purged = mp("show", "math", "--json").document["commit"]
    refused = mp("purge", "math", "--remote", "origin", "--yes", expect=18).err
    assert "receive.allow_purge" in refused
    assert _found(merging, pieces) == len(pieces)
    assert "mp purge --remote origin" in mp("purge", "math").err
    with Repository.open(there) as other:
        other.configure("receive.allow_purge", "true")
    done = mp("purge", "math", "-m", "Withdrawn", "--remote", "origin", "--yes", "--json").document
    assert done["remotes"]["origin"]["own_blocks"] == done["here"]["own_blocks"]
    assert done["remotes"]["origin"]["who"] == "Ada <ada@example.org>"
    assert _found(merging, pieces) == _found(there, pieces) == 0
    with Repository.open(there) as other:
        assert other.fsck(read_data=True).ok
    mp("push", "origin", "next", "prod", "math")

    # Who still has it cannot bring it back, under its own commit or another.
    monkeypatch.chdir(tmp_path / "other")
    mp("commit", day, "-b", "copy")
    for branch in ("math", "copy"):
        assert (
            "Withdrawn: the remote does not take it"
            in mp("push", "origin", branch, "--force", expect=18).err
        )
    # What is committed above it comes without it.
    mp("commit", tmp_path / "third", "-b", "math", "-m", "Above")
    mp("push", "origin", "math")
    assert _found(there, pieces) == 0
    mp("clone", there, tmp_path / "third-clone", "--branch", "math")
    monkeypatch.chdir(tmp_path / "third-clone")
    assert "Withdrawn" in mp("show", purged, expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out


def test_a_fetch_does_not_bring_it_back(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp
) -> None:
    there = tmp_path / "there"
    pieces = _own_pieces(day, *family.values(), tmp_path / "third")
    mp("init", there)
    mp("remote", "add", "origin", there)
    mp("push", "origin", "--all")
    mp("purge", "math", "--reason", "Withdrawn", "--yes")
    mp("remote", "rm", "origin")
    mp("gc", "--no-reflog", "--prune=now")
    mp("remote", "add", "origin", there)
    mp("fetch", "origin")
    assert _found(merging, pieces) == 0
    assert "Withdrawn" in mp("checkout", "origin/math", "--to", tmp_path / "o", expect=1).err
    assert "Withdrawn" in mp("pull", "origin", "math", expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out


def test_what_lies_in_quarantine_goes_too(
    day: Path, merging: Path, family: dict[str, Path], tmp_path: Path, mp: Mp
) -> None:
    pieces = _own_pieces(day, *family.values(), tmp_path / "third")
    packs = list((merging / ".mergepipe/packs").iterdir())
    for folder in ("incoming", "quarantine"):
        (merging / ".mergepipe" / folder).mkdir(exist_ok=True)
        for pack in packs:
            (merging / ".mergepipe" / folder / pack.name).write_bytes(pack.read_bytes())
    done = mp("purge", "math", "--yes", "--json").document["here"]
    assert done["leftovers"]
    assert _found(merging, pieces) == 0
