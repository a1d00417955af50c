"""`mp undo`: what a command did to refs is taken back, and comes again."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import RefMoved
from tests.cli.conftest import Mp
from tests.cli.models import tensors, write_model
from tests.repository.checkpoints import new_repository
from tests.repository.checkpoints import write_model as write_small


def state(mp: Mp) -> dict[str, str]:
    """Branches, tags and HEAD, and the model that each holds."""
    refs = Path(".mergepipe/refs")
    found = {
        path.relative_to(refs).as_posix(): path.read_text()
        for folder in ("heads", "tags")
        for path in (refs / folder).rglob("*")
        if path.is_file()
    }
    return found | {"HEAD": Path(".mergepipe/HEAD").read_text()}


@pytest.fixture
def worked(committed: Path, model: Path, mp: Mp) -> None:
    """Two commits on main, one on other, a tag."""
    mp("switch", "-c", "other")
    write_model(model, tensors(7))
    mp("commit", model, "-m", "Of other")
    mp("switch", "main")
    write_model(model, tensors(8))
    mp("commit", model, "-m", "Second")
    mp("tag", "v1", "main~1")


@pytest.mark.parametrize(
    "words",
    [
        ("commit", "model", "-m", "Third"),
        ("commit", "--amend", "-m", "Other words"),
        ("reset", "main~1"),
        ("reset", "--hard", "main~1"),
        ("switch", "other"),
        ("switch", "-c", "new"),
        ("checkout", "v1"),
        ("branch", "more"),
        ("branch", "-d", "--force", "other"),
        ("branch", "-m", "other", "renamed"),
        ("branch", "-m", "main", "trunk"),
        ("tag", "v2"),
        ("tag", "-d", "v1"),
        ("tag", "v1", "main", "--force"),
        ("rollback", "main", "main~1"),
        ("revert", "HEAD"),
    ],
    ids=" ".join,
)
def test_every_command_that_moves_refs(
    worked: None, model: Path, mp: Mp, words: tuple[str, ...]
) -> None:
    write_model(model, tensors(9))
    before = state(mp)
    mp(*(str(model) if each == "model" else each for each in words))
    after = state(mp)
    assert after != before
    assert f"Took back `mp {words[0]}`" in mp("undo").out
    assert state(mp) == before
    assert "Took back `mp undo`" in mp("undo").out  # and comes again
    assert state(mp) == after
    assert mp("fsck", "--json").document["ok"]


def test_the_first_commit_too(repository: Path, model: Path, mp: Mp) -> None:
    mp("commit", model, "-m", "First")
    mp("undo")
    assert state(mp) == {"HEAD": "ref: refs/heads/main\n"}
    mp("undo")
    assert mp("log", "--json").document[0]["message"] == "First"


def test_files_follow_where_the_command_brought_them(worked: None, mp: Mp) -> None:
    mp("checkout", "main")
    mp("reset", "--hard", "main~1")
    first = Path("model.safetensors").read_bytes()
    mp("undo")
    assert Path("model.safetensors").read_bytes() != first
    assert mp("status", "--json").document["changes"] == []
    mp("switch", "other")
    Path("config.json").write_text("mine")
    assert mp("undo", expect=1).err.startswith("error")
    assert Path("config.json").read_text() == "mine"
    mp("undo", "--force")
    assert mp("status", "--json").document["branch"] == "main"


def test_a_commits_files_stay(worked: None, mp: Mp) -> None:
    mp("checkout", "main")
    Path("config.json").write_text("mine")
    mp("commit", "-m", "Mine")
    mp("undo")
    assert Path("config.json").read_text() == "mine"
    assert mp("status", "--json").document["changes"]
    mp("commit", "-m", "Mine, better")


def test_an_earlier_operation_and_what_moved_since(worked: None, model: Path, mp: Mp) -> None:
    mp("tag", "v2")
    write_model(model, tensors(9))
    mp("commit", model, "-m", "Third")
    listed = mp("undo", "--list", "--json").document
    assert [each["command"] for each in listed[:2]] == ["mp commit", "mp tag"]
    assert "mp tag" in mp("undo", "--list").out
    mp("undo", listed[1]["id"][:6])
    assert "v2" not in [each["name"] for each in mp("tag", "--json").document]
    second = next(each for each in listed if each["why"] == "commit: Second")
    told = mp("undo", second["id"], expect=14).err
    assert "moved since" in told
    assert "mp undo --list" in told
    assert "no operation" in mp("undo", "xyz", expect=2).err


def test_a_prune_within_the_time_of_grace(worked: None, mp: Mp) -> None:
    mp("tag", "-d", "v1")
    mp("reset", "other")
    mp("undo")
    assert (
        len(mp("prune", "main", "--keep-last", "1", "--later", "--json").document["commits"]) == 1
    )
    assert mp("undo", "--json").document["pruned"]
    assert not Path(".mergepipe/pruned").read_text()
    mp("undo")
    assert Path(".mergepipe/pruned").read_text()
    mp("undo")
    mp("prune", "main", "--keep-last", "1")
    mp("gc", "--prune=now", "--no-reflog")
    if "gc removed it" not in mp("undo", expect=1).err:
        raise AssertionError


def test_nothing_to_take_back(repository: Path, mp: Mp) -> None:
    assert "no command is noted" in mp("undo", expect=1).err
    assert "Nothing" in mp("undo", "--list").out


def test_what_others_pushed_is_not_taken_back(worked: None, tmp_path: Path, mp: Mp) -> None:
    mp("init", tmp_path / "other")
    mp("push", tmp_path / "other", "main")
    assert mp("-C", tmp_path / "other", "undo", "--list", "--json").document == []


def test_a_damaged_log_loses_lines_only(worked: None, mp: Mp) -> None:
    before = len(mp("undo", "--list", "--json").document)
    with Path(".mergepipe/operations").open("ab") as file:
        file.write(b'\xff\n{"op":1}\n{"op":"a","ti')
    assert len(mp("undo", "--list", "--json").document) == before
    mp("tag", "v3")
    assert mp("undo", "--json").document["refs"][0]["name"] == "refs/tags/v3"


def test_from_python(tmp_path: Path) -> None:
    with new_repository(tmp_path / "repo") as repo:
        import numpy as np

        for number in range(2):
            write_small(tmp_path / "m", {"w": np.full(100, number, np.float32)})
            repo.commit(tmp_path / "m", message=str(number))
        first, second = repo.resolve("main~1"), repo.resolve("main")
        undone = repo.undo()
        assert undone.command == "python"
        assert repo.resolve("main") == first
        repo.undo()
        assert repo.resolve("main") == second
        repo.switch("more", create=True)
        repo.undo()
        assert repo.branches() == {"main": second}
        repo.branch("x")
        repo.reset("main~1")
        operation = repo.operations.read()[3].id
        with pytest.raises(RefMoved):
            repo.undo(operation)


def test_the_log_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mergepipe.repository import operations

    monkeypatch.setattr(operations, "_MOST_BYTES", 3000)
    with Repository.init(tmp_path / "repo") as repo:
        with repo.refs.locked():
            for number in range(200):
                repo.operations.moved([(f"refs/heads/b{number}", None, b"x", "made")], number)
        assert (repo.directory / "operations").stat().st_size < 3300
        assert next(iter(repo.operations.read()[0].moves)) == "refs/heads/b199"
