"""Models in and out: commit, status, checkout, switch, reset."""

from pathlib import Path

import pytest
from safetensors.numpy import load_file

from tests.cli.conftest import Mp
from tests.cli.models import content_of, tensors, write_model, write_sharded


def test_a_model_comes_back_bit_for_bit(committed: Path, model: Path, mp: Mp) -> None:
    mp("checkout", "main", "--to", "out")
    assert content_of(committed / "out") == content_of(model)
    assert not (committed / "config.json").exists()


def test_a_sharded_model_comes_back_bit_for_bit(repository: Path, tmp_path: Path, mp: Mp) -> None:
    source = write_sharded(tmp_path / "sharded")
    mp("commit", source)
    mp("checkout", "HEAD", "--to", "out")
    assert content_of(repository / "out") == content_of(source)


def test_commit_says_what_it_did_in_two_lines(repository: Path, model: Path, mp: Mp) -> None:
    said = mp("commit", model, "-m", "First try\n\nwith more to say").out.splitlines()
    identity = mp("log", "--json").document[0]["commit"]
    assert said[0] == f"[main {identity[:12]}] First try"
    assert "KiB as" in said[1]
    assert "6 of 6 blocks new" in said[1]
    assert len(said) == 2


def test_the_same_content_makes_no_commit_and_no_error(
    committed: Path, model: Path, mp: Mp
) -> None:
    before = mp("log", "--json").document
    assert mp("commit", model, "-m", "again").out.startswith("Nothing changed: main is at ")
    assert mp("log", "--json").document == before


def test_the_same_content_on_another_branch_adds_no_block(
    committed: Path, model: Path, mp: Mp
) -> None:
    made = mp("commit", model, "-b", "copy", "--json").document
    assert made["new_blocks"] == 0
    assert made["branch"] == "copy"


def test_only_changed_blocks_are_new(committed: Path, tmp_path: Path, mp: Mp) -> None:
    tuned = write_model(tmp_path / "tuned", tensors(changed=1.0))
    made = mp("commit", tuned, "-b", "tuned", "--base", "main", "--json").document
    assert made["blocks"] == 6
    assert made["new_blocks"] == 1
    assert made["base"] == mp("log", "main", "--json").document[0]["commit"]


def test_status_from_nothing_to_a_changed_model(repository: Path, mp: Mp) -> None:
    assert "no commits yet" in mp("status").out
    write_model(repository)
    assert "new:      model.safetensors" in mp("status").out
    mp("commit", "-m", "one")
    assert "Nothing to commit" in mp("status").out
    (repository / "config.json").write_text("{}")
    (repository / "run.sh").unlink()
    (repository / "a b").write_text("new")
    said = mp("status").out
    assert "modified: config.json" in said
    assert "deleted:  run.sh" in said
    assert "new:      a b" in said
    assert "mp commit" in said


def test_status_of_a_model_that_is_not_checked_out(committed: Path, mp: Mp) -> None:
    said = mp("status").out
    assert "mp checkout HEAD" in said
    assert "deleted" not in said
    found = mp("status", "--json").document
    assert (found["clean"], found["materialised"], found["changes"]) == (True, False, [])
    (committed / "recipe.yml").write_text("merge_method: linear")
    said = mp("status").out
    assert "new:      recipe.yml" in said
    assert "mp checkout HEAD" in said
    assert "nothing but them" in said
    assert "deleted" not in said


def test_checkout_into_the_worktree_and_back_to_a_branch(
    committed: Path, model: Path, tmp_path: Path, mp: Mp
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-b", "two", "-m", "Two")
    assert mp("checkout", "two").out.startswith("On branch two, at ")
    assert content_of(committed) == content_of(tmp_path / "two")
    detached = mp("checkout", "main~0")
    assert detached.out.startswith("HEAD is now at ")
    assert "mp switch -c" in detached.err
    assert content_of(committed) == content_of(model)
    assert "HEAD detached at" in mp("status").out
    mp("switch", "two")
    assert content_of(committed) == content_of(tmp_path / "two")


def test_switch_writes_files_only_if_some_were_there(committed: Path, mp: Mp) -> None:
    assert mp("switch", "-c", "other").out.startswith("On new branch other, at ")
    mp("switch", "main")
    assert content_of(committed) == {}


def test_what_is_not_committed_is_not_overwritten(committed: Path, mp: Mp) -> None:
    (committed / "config.json").write_text("mine")
    refused = mp("checkout", "main", expect=1)
    assert "'config.json' would be overwritten" in refused.err
    assert "--force" in refused.err
    assert (committed / "config.json").read_text() == "mine"
    mp("checkout", "main", "--force")
    assert (committed / "config.json").read_text() != "mine"


def test_single_tensors_as_one_file(committed: Path, mp: Mp) -> None:
    mp("checkout", "main", "--tensor", "head", "--tensor", "norm", "--to", "part.safetensors")
    found = load_file(committed / "part.safetensors")
    assert sorted(found) == ["head", "norm"]
    assert (found["head"] == tensors()["head"]).all()


def test_a_tensor_that_is_not_there(committed: Path, mp: Mp) -> None:
    refused = mp("checkout", "main", "--tensor", "haed", "--to", "x.safetensors", expect=1)
    assert "no tensor is called 'haed'" in refused.err
    assert not (committed / "x.safetensors").exists()


def test_reset_moves_the_branch_and_hard_the_files(committed: Path, mp: Mp) -> None:
    mp("checkout", "main")
    (committed / "config.json").write_text("{}")
    mp("commit", "-m", "Second")
    mp("reset", "HEAD~1")
    assert (committed / "config.json").read_text() == "{}"
    assert "modified: config.json" in mp("status").out
    mp("reset", "--hard")
    assert "Nothing to commit" in mp("status").out
    assert mp("reset", "main@{1}", "--json").document["branch"] == "main"


def test_a_directory_is_committed_from_anywhere_with_dash_c(
    committed: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_model(tmp_path / "other", tensors(3))
    mp("-C", "repository", "commit", "../other", "-b", "other")
    assert "other" in mp("branch").out
