"""Hooks that have a say: what they are told, and that a refusal stops what they are about."""

import os
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.errors import HookFailed
from tests.cli.conftest import Mp
from tests.cli.families import TIES

TELL = """#!/bin/sh
{ env | grep '^MP_[A-Z]*=' | grep -v '^MP_AUTHOR\\|^MP_DIR' | LC_ALL=C sort; cat; } > seen
"""
REFUSE = "#!/bin/sh\ncat > /dev/null\necho 'looked at it' >&2\necho 'not on a Friday'\nexit 7\n"


def install(repository: Path, name: str, script: str) -> None:
    path = repository / ".mergepipe/hooks" / name
    path.write_text(script)
    path.chmod(0o755)


def seen(repository: Path) -> list[str]:
    return (repository / "seen").read_text().splitlines()


def tips(mp: Mp) -> list[str]:
    return mp("branch").out.splitlines()


@pytest.fixture
def family_there(merging: Path) -> Path:
    """Where the checkpoints lie that were committed."""
    found = sorted(merging.parent.rglob("math/model.safetensors"))
    return found[0].parents[1]


def test_pre_commit_sees_imported_paths(merging: Path, mp: Mp, family_there: Path) -> None:
    model = family_there / "math"
    copy = merging.parent / "copy"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    (copy / "note.txt").write_text("another")
    install(merging, "pre-commit", TELL)
    mp("merge", str(copy), "code", "--base", "base", "-b", "merged")
    told = seen(merging)
    assert f"MP_PATH={copy}" in told
    assert "MP_BRANCH=" in told
    assert any(line.startswith("MP_REF=refs/imports/") for line in told)
    assert told[-3:] == [
        str(copy / name) for name in ("config.json", "model.safetensors", "note.txt")
    ]
    install(merging, "pre-commit", REFUSE)
    (copy / "note.txt").write_text("and yet another")
    refused = mp("merge", str(copy), "code", "--base", "base", "-b", "other", expect=18)
    assert "not on a Friday" in refused.err.splitlines()[-2]
    assert "looked at it" in refused.err
    assert not any("other" in line for line in tips(mp))


def test_pre_merge_may_stop_a_merge_that_it_explains(merging: Path, mp: Mp) -> None:
    install(merging, "pre-merge", TELL)
    merged = mp("merge", *TIES, "--budget", "30%", "-b", "merged", "--json").document
    told = seen(merging)
    assert "MP_BUDGET=30%" in told
    assert "MP_METHOD=ties" in told
    assert f"MP_PLAN={merged['plan']}" in told
    assert "MP_REF=refs/heads/merged" in told
    assert [line.split()[::2] for line in told[-3:]] == [
        ["base", "base"],
        ["expert", "math"],
        ["expert", "code"],
    ]
    install(merging, "pre-merge", REFUSE)
    document = mp("merge", *TIES, "-b", "other", "--json", expect=18).document
    assert document["error"]["kind"] == "hook_failed"
    assert document["error"]["message"].endswith("not on a Friday")
    assert not any("other" in line for line in tips(mp))
    mp("merge", *TIES, "-b", "other", "--no-verify")
    with Repository.open(merging) as repository:
        plan = repository.plan(experts=["math", "code"], base="base")
        with pytest.raises(HookFailed, match="Friday"):
            repository.merge(plan, branch="third")
    mp("config", "hooks.enabled", "false")
    mp("merge", *TIES, "-b", "third")


def test_pre_push_and_pre_receive_see_what_moves(
    merging: Path, mp: Mp, tmp_path_factory: pytest.TempPathFactory
) -> None:
    there = tmp_path_factory.mktemp("there")
    mp("init", there)
    mp("remote", "add", "origin", str(there))
    install(merging, "pre-push", TELL)
    install(there, "pre-receive", TELL)
    mp("push", "origin", "base")
    commit = mp("log", "base", "-n", "1", "--json").document[0]["commit"]
    line = f"{'0' * 64} {commit} refs/heads/base"
    assert seen(merging)[-1] == seen(there)[-1] == line
    assert "MP_REMOTE=origin" in seen(merging)
    assert any(one.startswith("MP_WHO=") for one in seen(there))
    # What it is asked about is there to be looked at.
    install(there, "pre-receive", REFUSE)
    refused = mp("push", "origin", "math", expect=18)
    assert (
        "refs/heads/math: the hook pre-receive failed (exit code 7): not on a Friday" in refused.err
    )
    math = mp("log", "math", "-n", "1", "--json").document[0]["commit"]
    with Repository.open(there) as served:
        assert served.resolve(math).hex() == math
        assert list(served.branches()) == ["base"]
    assert "refs/heads/base" in mp("push", "origin", "--delete", "base", expect=18).err
    (there / ".mergepipe/hooks/pre-receive").unlink()
    mp("push", "origin", "math")
    install(merging, "pre-push", REFUSE)
    assert "Friday" in mp("push", "origin", "code", expect=18).err
    mp("push", "origin", "code", "--no-verify")


def test_a_clone_brings_no_hooks(merging: Path, mp: Mp, tmp_path: Path) -> None:
    install(merging, "pre-commit", REFUSE)
    mp("clone", merging, tmp_path / "clone")
    assert not (tmp_path / "clone/.mergepipe/hooks/pre-commit").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_no_hook_runs_in_somebody_elses_repository(
    merging: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(merging, "pre-merge", TELL)
    monkeypatch.setenv("MP_SAFE_DIRECTORY", "*")
    os.chown(merging / ".mergepipe", 12345, 12345)
    assert "another user" in mp("merge", *TIES, "-b", "merged", expect=18).err
    assert not (merging / "seen").exists()
