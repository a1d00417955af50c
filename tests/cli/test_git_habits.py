"""What fingers that know git type, and what they expect of it."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import ROOT, Mp, command_line
from tests.cli.models import tensors, write_model


def test_one_file_of_an_old_revision(committed: Path, model: Path, mp: Mp, process: Mp) -> None:
    before = (model / "config.json").read_bytes()
    (model / "config.json").write_text("{}")
    mp("commit", model)
    assert mp("show", "main~1:config.json").out.encode() == before
    assert mp("show", ":config.json").out == "{}"
    assert "no file" in mp("show", "main:nosuch", expect=1).err
    assert mp("show", "main:run.sh", "--json").document["executable"]
    assert mp("status", "--json").document["branch"] == "main"


def test_weights_are_printed_as_they_are(committed: Path, model: Path, tmp_path: Path) -> None:
    from mergepipe import Repository

    with Repository.open(".") as repository:
        data = b"".join(repository.contents.read_file("main", "model.safetensors"))
    assert data == (model / "model.safetensors").read_bytes()


def test_files_of_a_revision_are_listed(repository: Path, model: Path, mp: Mp) -> None:
    (model / "tokenizer").mkdir()
    (model / "tokenizer/vocab.txt").write_text("a")
    mp("commit", model)
    names = ["config.json", "model.safetensors", "run.sh", "tokenizer/vocab.txt"]
    assert mp("ls").out.split() == names
    assert mp("ls", "HEAD", "tokenizer/").out.split() == names[3:]
    assert [each["path"] for each in mp("ls", "--json").document] == names
    assert mp("show", "HEAD:tokenizer").out == mp("ls", "HEAD", "tokenizer").out


def test_several_files_are_committed_and_no_others(repository: Path, model: Path, mp: Mp) -> None:
    (repository / "sub").mkdir()
    for name in ("a.json", "b.json", "sub/c.json"):
        (repository / name).write_text("{}")
    mp("commit", "a.json", "sub/c.json", model / "config.json")
    assert mp("ls").out.split() == ["a.json", "config.json", "sub/c.json"]
    other = model / "a.json"
    other.write_text("1")
    assert "would both be" in mp("commit", "a.json", other, expect=1).err
    assert "nosuch" in mp("commit", "a.json", "nosuch", expect=1).err


def test_a_branch_is_renamed_with_its_log(committed: Path, mp: Mp) -> None:
    mp("branch", "other")
    mp("branch", "-m", "trunk")
    mp("branch", "-m", "other", "another")
    assert mp("status", "--json").document["branch"] == "trunk"
    assert "commit: First try" in mp("reflog", "trunk").out
    assert mp("show", "trunk@{1}").code == 0
    assert {each["name"] for each in mp("branch", "--json").document} == {"trunk", "another"}
    mp("branch", "-m", "trunk", "another", expect=1)
    mp("branch", "-m", "nosuch", "new", expect=1)
    mp("branch", "-m", expect=2)
    assert "no problems" in mp("fsck").out


def test_the_branch_without_commits_is_renamed(repository: Path, model: Path, mp: Mp) -> None:
    mp("branch", "-m", "trunk")
    assert "[trunk " in mp("commit", model).out


def test_a_remote_is_renamed_and_moved(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("init", tmp_path / "there")
    mp("remote", "add", "origin", tmp_path / "there")
    mp("push", "origin", "main")
    mp("remote", "rename", "origin", "up")
    assert "up/main" in mp("branch", "-r").out
    (tmp_path / "there").rename(tmp_path / "moved")
    mp("remote", "set-url", "up", tmp_path / "moved")
    mp("fetch", "up")
    assert str(tmp_path / "moved") in mp("remote", "-v").out
    for words in (("rename", "nosuch", "x"), ("set-url", "nosuch", "x")):
        assert "no remote is called" in mp("remote", *words, expect=2).err
    mp("remote", "rename", "up", "../x", expect=2)


def test_several_names_are_removed_at_once(committed: Path, mp: Mp) -> None:
    for name in ("a", "b", "c"):
        mp("branch", name)
        mp("tag", f"v{name}")
    assert "'nosuch'" in mp("branch", "-d", "a", "nosuch", "b", expect=1).err
    assert len(mp("branch", "--json").document) == 4  # and none was removed
    assert mp("branch", "-d", "a", "b", "c", "a").out.count("Removed branch") == 3
    assert [each["name"] for each in mp("branch", "--json").document] == ["main"]
    assert "'nosuch'" in mp("tag", "-d", "va", "nosuch", expect=1).err
    removed = mp("tag", "-d", "va", "vb", "vc", "--json").document
    assert [each["name"] for each in removed] == ["va", "vb", "vc"]
    assert mp("tag", "--json").document == []
    assert "mp branch -d NAME..." in mp("branch", "a", "main", "c", expect=2).err
    assert "mp tag -d NAME..." in mp("tag", "a", "main", "c", expect=2).err


def test_a_file_is_followed_through_its_names(committed: Path, model: Path, mp: Mp) -> None:
    for old, new in (("run.sh", "start.sh"), ("start.sh", "bin/start.sh")):
        (model / new).parent.mkdir(exist_ok=True)
        (model / old).rename(model / new)
        mp("commit", model, "-m", f"To {new}")
    assert titles(mp, "bin/start.sh") == ["To bin/start.sh"]
    everything = ["To bin/start.sh", "To start.sh", "First try"]
    assert titles(mp, "--follow", "bin/start.sh") == everything
    assert titles(mp, "--follow", "--", "bin") == everything
    assert titles(mp, "--follow", "config.json") == ["First try"]
    assert "--follow PATH" in mp("log", "--follow", expect=2).err


def test_a_log_of_everything(committed: Path, tmp_path: Path, mp: Mp) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-b", "two", "-m", "Second")
    assert "Second" not in mp("log").out
    assert {"Second", "First try"} == {
        each["message"] for each in mp("log", "--all", "--json").document
    }
    mp("log", "--all", "two", expect=2)


@pytest.mark.parametrize("words", [("ls", "nosuch"), ("show", "nosuch:config.json")])
def test_what_is_not_there(committed: Path, mp: Mp, words: tuple[str, ...]) -> None:
    mp(*words, expect=1)


def test_the_last_message_is_corrected(
    committed: Path, model: Path, tmp_path: Path, mp: Mp
) -> None:
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-m", "Secnod")
    before = mp("show", "--json").document
    amended = mp("commit", "--amend", "-m", "Second", "--json").document
    assert amended["snapshot"] == before["snapshot"]
    assert [each["message"] for each in mp("log", "--json").document] == ["Second", "First try"]
    assert mp("show", "main@{1}", "--json").document["message"] == "Secnod"
    mp("commit", "--amend", expect=2)
    mp("commit", model, "--amend", "-m", "x", expect=2)


def test_nothing_to_amend(repository: Path, mp: Mp) -> None:
    assert "no commit yet" in mp("commit", "--amend", "-m", "x", expect=1).err


def test_a_commit_is_taken_back(committed: Path, model: Path, mp: Mp) -> None:
    first = mp("show", "--json").document
    (model / "config.json").write_text("{}")
    mp("commit", model, "-m", "Second")
    (model / "new.txt").write_text("new")
    mp("commit", model, "-m", "Third")
    mp("checkout", "main")
    mp("revert", "HEAD~1")
    assert mp("ls").out.split() == ["config.json", "model.safetensors", "new.txt", "run.sh"]
    assert mp("status", "--json").document["clean"]
    mp("revert", "main~1")
    last = mp("show", "--json").document
    assert last["snapshot"] == first["snapshot"]
    assert last["message"].startswith('Revert "Third"')
    assert "nothing of" in mp("revert", "main~2", expect=1).err
    assert "nothing was before" in mp("revert", "main~4", expect=1).err
    assert "no problems" in mp("fsck", "--read-data").out


def test_what_was_changed_again_is_not_taken_back(committed: Path, model: Path, mp: Mp) -> None:
    for text in ("1", "2"):
        (model / "config.json").write_text(text)
        mp("commit", model)
    assert "changed again" in mp("revert", "HEAD~1", expect=1).err


def test_uncommitted_files_are_not_lost(committed: Path, model: Path, mp: Mp) -> None:
    (model / "config.json").write_text("{}")
    mp("commit", model)
    mp("checkout", "main")
    (committed / "config.json").write_text("mine")
    mp("revert", "HEAD", expect=1)
    assert (committed / "config.json").read_text() == "mine"
    assert len(mp("log", "--json").document) == 2


def test_a_new_branch_begins_where_it_is_said(committed: Path, model: Path, mp: Mp) -> None:
    first = mp("show", "--json").document
    (model / "config.json").write_text("{}")
    mp("commit", model, "-m", "Second")
    mp("checkout", "main")
    assert (committed / "config.json").read_text() == "{}"
    mp("switch", "-c", "again", "HEAD~1")
    assert mp("show", "--json").document["snapshot"] == first["snapshot"]
    assert (committed / "config.json").read_text() != "{}"
    assert "there is a branch" in mp("switch", "-c", "again", "main", expect=1).err
    (committed / "config.json").write_text("mine")
    mp("switch", "-c", "lost", "main", expect=1)
    assert "lost" not in mp("branch").out
    assert (committed / "config.json").read_text() == "mine"


@pytest.mark.parametrize(
    ("words", "instead"),
    [
        (("add", "config.json"), "mp commit PATH"),
        (("stash",), "mp commit -b NAME"),
        (("checkout", "-b", "new"), "mp switch -c NAME"),
        (("commit", "org/llama"), "hf://org/llama"),
        (("commit", "https://huggingface.co/org/llama/tree/main"), "hf://org/llama"),
        (("clone", "https://huggingface.co/org/llama"), "mp commit hf://org/llama"),
    ],
)
def test_other_words_point_to_ours(
    committed: Path, mp: Mp, words: tuple[str, ...], instead: str
) -> None:
    assert instead in mp(*words, expect=1 if words[0] == "commit" else 2).err


def test_help_is_a_command_too(mp: Mp) -> None:
    assert mp("help").out == mp("--help").out
    assert mp("help", "commit").out == mp("commit", "--help").out


@pytest.mark.parametrize("closed", [">&-", "2>&-", "<&- >&- 2>&-"])
def test_a_closed_stream_loses_no_commit(
    committed: Path, tmp_path: Path, mp: Mp, closed: str
) -> None:
    other = write_model(tmp_path / "other", tensors(1))
    command = shlex.join(command_line("commit", other, "-b", "other", "-m", "Heard by nobody"))
    done = subprocess.run(
        ["sh", "-c", f"{command} {closed}"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert mp("log", "other", "--json").document[0]["message"] == "Heard by nobody"
    assert "no problems" in mp("fsck", "--read-data").out


def test_renamed_files_are_told_as_such(committed: Path, model: Path, mp: Mp) -> None:
    (model / "weights").mkdir()
    (model / "model.safetensors").rename(model / "weights/all.safetensors")
    mp("commit", model)
    said = mp("diff", "main~1", "main").out
    assert "renamed:  model.safetensors to weights/all.safetensors" in said
    assert "added" not in said
    files = {
        each["path"]: each for each in mp("diff", "main~1", "main", "--json").document["files"]
    }
    assert files["weights/all.safetensors"]["old_path"] == "model.safetensors"
    assert "model.safetensors" not in files


def test_names_from_python(committed: Path, mp: Mp) -> None:
    from mergepipe import Repository

    mp("tag", "v1")
    with Repository.open(".") as repository:
        tip = repository.resolve("main")
        assert (repository.branches(), repository.tags()) == ({"main": tip}, {"v1": tip})
        assert repr(repository) == f"Repository({str(committed / '.mergepipe')!r})"


@pytest.fixture
def history(repository: Path, model: Path, mp: Mp) -> Path:
    """main: two commits, of which the second changes config.json; side: one more, on the first."""
    mp("commit", model, "-m", "first")
    mp("branch", "side")
    (model / "config.json").write_text("{}")
    mp("commit", model, "-m", "second")
    (model / "extra.txt").write_text("x")
    mp("commit", model, "-b", "side", "-m", "aside")
    return repository


def titles(mp: Mp, *arguments: str) -> list[str]:
    return [each["message"] for each in mp("log", "--json", *arguments).document]


def test_ranges_list_what_one_side_has(history: Path, mp: Mp) -> None:
    assert titles(mp, "main..side") == ["aside"]
    assert titles(mp, "side..") == titles(mp, "side..main") == ["second"]
    assert set(titles(mp, "main...side")) == {"aside", "second"}
    assert titles(mp, "main..main") == []
    assert "'nosuch'" in mp("log", "nosuch..main", expect=1).err
    assert mp("diff", "main..side").out == mp("diff", "main", "side").out
    assert "mp diff main side" in mp("diff", "main...side", expect=2).err


def test_the_log_of_a_path(history: Path, mp: Mp) -> None:
    assert titles(mp, "config.json") == titles(mp, "--", "config.json") == ["second", "first"]
    assert titles(mp, "side", "--", "extra.txt") == titles(mp, "side", "extra.txt") == ["aside"]
    assert titles(mp, "main..side", "--", "run.sh") == []
    assert titles(mp, "-n", "1", "--", "model.safetensors") == ["first"]
    assert "'nosuch.json'" in mp("log", "nosuch.json", expect=1).err


def test_files_of_a_revision_come_back_alone(history: Path, mp: Mp) -> None:
    mp("checkout", "main")
    Path("run.sh").write_text("changed")
    Path("config.json").write_text("changed too")
    mp("checkout", "HEAD~1", "--", "config.json")
    assert "Tiny" in Path("config.json").read_text()
    assert Path("run.sh").read_text() == "changed"
    status = mp("status", "--json").document
    assert status["branch"] == "main"
    assert {each["path"] for each in status["changes"]} == {"config.json", "run.sh"}
    mp("checkout", "--", "config.json", "run.sh")
    assert mp("status", "--json").document["changes"] == []
    assert "no file 'nosuch'" in mp("checkout", "main", "--", "nosuch", expect=1).err
    mp("checkout", "side", "--to", "../out", "--", "extra.txt")
    assert [each.name for each in Path("../out").iterdir()] == ["extra.txt"]


def test_a_tag_says_why(history: Path, mp: Mp) -> None:
    mp("tag", "v1", "-m", "As published")
    mp("tag", "v2")
    lines = mp("tag").out.splitlines()
    assert lines[0].endswith("As published")
    assert lines[1].endswith("second")
    assert "which tag" in mp("tag", "-m", "x", expect=2).err


def test_a_removed_branch_can_be_brought_back(history: Path, mp: Mp) -> None:
    at = mp("show", "side", "--json").document["commit"]
    mp("branch", "-d", "side", "--force")
    mp("gc", "--prune=now")
    assert at[:12] in mp("reflog", "side").out
    told = mp("log", "side", expect=1).err
    assert f"`mp branch side {at[:12]}`" in told
    mp("branch", "side", at[:12])
    assert titles(mp, "side") == ["aside", "first"]
    assert mp("fsck", "--json").document["problems"] == []
    mp("branch", "-d", "side", "--force")
    mp("gc", "--prune=now", "--no-reflog")
    mp("branch", "side", at[:12], expect=1)


def test_a_diff_fits_the_terminal(history: Path, process: Mp) -> None:
    ours, theirs = os.openpty()
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "40", "TERM": "dumb"}
    with open(theirs, "w") as terminal, open(ours, "rb", buffering=0) as screen:  # noqa: PTH123
        code = (
            "import numpy as np; from tests.cli.models import write_model, tensors;"
            "from mergepipe.cli.main import main; from pathlib import Path;"
            "write_model(Path('../other'), tensors(changed=1.0)); main(['commit', '../other', '-b',"
            "'other', '-q']); main(['diff', 'main', 'other'])"
        )
        subprocess.run([sys.executable, "-c", code], env=environment, stdout=terminal, check=True)
        shown = screen.read(65536).decode()
    lines = shown.replace("\r", "").splitlines()
    assert any("head" in line for line in lines)
    assert max(len(line) for line in lines if "tensors:" not in line) <= 40


def test_a_folder_of_a_commit_is_listed_and_paths_may_begin_here(committed: Path, mp: Mp) -> None:
    listed = mp("show", "main:").out
    assert "config.json" in listed.splitlines()
    assert listed == mp("ls", "main").out == mp("ls", "main", "./").out
    assert mp("show", "main:./config.json").out == mp("show", "main:config.json").out
    assert "main has no file '../config.json'" in mp("show", "main:../config.json", expect=1).err
    mp("checkout", "main", "--", "./config.json")
    for revision, hint in (("main~5", "`mp log`"), ("main^2", "`mp show"), ("-", "`mp reflog")):
        assert hint in mp("show", revision, expect=1).err
    mp("branch", "side")
    assert "choose another name" in mp("branch", "-m", "side", "main", expect=1).err


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("merge --abort", "made as a whole or not at all"),
        ("merge code --no-ff", "always one commit"),
        ("merge a b --method slerp --t 0.5", "-p t=0.5"),
        ("merge a b --cuda", "--device cuda"),
        ("merge a b --lazy-unpickle", "block by block"),
        ("commit -am wip", "takes all that is there"),
        ("branch -D try", "-d -f"),
        ("pull --rebase", "`mp fetch`, then `mp merge`"),
        ("diff --cached", "nothing is staged"),
        ("diff --stat", "one line for each tensor"),
        ("log -p", "mp diff REV~1 REV"),
        ("status -s", "--json"),
        ("config --global user.author Ada", "MP_AUTHOR"),
        ("gc --aggressive", "leave it out"),
        ("moe config.yml out", "mergekit-moe"),
        ("bisect start", "mp checkout REV --to DIR"),
        ("diff main...HEAD", "mp diff main HEAD"),
        ("diff --name-only", "mp diff --json"),
        ("diff", "`mp status` lists"),
        ("log --reverse", "newest first"),
        ("rev-parse HEAD", "mp show REV --json"),
        ("restore config.json", "mp checkout REV -- PATH"),
        ("clean -fd", "`mp status` lists"),
        ("remote remove origin", "mp remote rm NAME"),
        ("remote get-url origin", "mp remote -v"),
        ("fetch --all", "mp fetch NAME"),
        ("branch --list", "`mp branch` alone"),
        ("tag -l v*", "`mp tag` alone"),
        ("tag -a v1", "mp tag NAME -m MSG"),
        ("switch -", "mp reflog"),
    ],
)
def test_habits_are_answered(committed: Path, mp: Mp, typed: str, told: str) -> None:
    assert told in mp(*typed.split(), expect=2).err.split("hint: ")[1]


def test_a_key_that_git_has_leads_to_ours(committed: Path, mp: Mp) -> None:
    for key in ("user.name", "user.email"):
        assert "hint: did you mean user.author?" in mp("config", key, "Ada", expect=1).err
