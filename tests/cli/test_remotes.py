"""`mp remote`."""

import subprocess
import sys
from pathlib import Path

from tests.cli.conftest import Mp


def test_remotes_come_and_go(committed: Path, tmp_path: Path, mp: Mp) -> None:
    assert "no remotes yet" in mp("remote").err
    mp("remote", "add", "origin", "../other")
    added = mp("remote", "add", "up", "host:models", "--json").document
    assert added == {"name": "up", "url": "ssh://host/~/models", "lazy": False}
    assert mp("remote").out == "origin\nup\n"
    assert mp("remote", "-v").out == f"origin  {tmp_path}/other\nup      ssh://host/~/models\n"
    assert mp("remote", "list", "-v").out == mp("remote", "-v").out
    assert mp("remote", "--json").document == mp("remote", "list", "--json").document
    tip = mp("log", "--json").document[0]["commit"]
    ref = committed / ".mergepipe/refs/remotes/origin/main"
    ref.parent.mkdir(parents=True)
    ref.write_text(tip + "\n")
    assert "1 ref of it" in mp("remote", "rm", "origin", "-v").err
    assert not ref.exists()
    assert mp("remote").out == "up\n"
    assert str(tmp_path / "other") not in (committed / ".mergepipe/config.toml").read_text()


def test_what_no_remote_can_be(repository: Path, mp: Mp) -> None:
    mp("remote", "add", "origin", "/srv/x")
    for arguments in (
        ("add", "origin", "/srv/y"),
        ("add", "a/b", "/srv/y"),
        ("add", "x", "https://me:secret@host"),
        ("add", "x", "hf://org/name"),
        ("rm", "nosuch"),
    ):
        said = mp("remote", *arguments, expect=2)
        assert "secret" not in said.err
    mp("config", "remote.origin.url", "https://me:secret@host", expect=2)
    assert "secret" not in (repository / ".mergepipe/config.toml").read_text()


def test_history_loads_no_transport(committed: Path) -> None:
    program = (
        "import sys; from mergepipe.cli.main import main; main(['log']); main(['remote']);"
        "heavy = ('torch', 'numba', 'obstore', 'httpx', 'httpx2', 'huggingface_hub', 'ssl');"
        "print([name for name in heavy if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=committed, capture_output=True, text=True, check=True
    )
    assert done.stdout.endswith("[]\n"), done.stdout


def test_branches_of_remotes_are_listed(committed: Path, tmp_path: Path, mp: Mp) -> None:
    assert mp("branch", "-r").out == ""
    assert "mp fetch" in mp("branch", "-r").err
    mp("init", "../there")
    mp("remote", "add", "origin", "../there")
    mp("push", "origin", "main:theirs")
    tip = mp("log", "--json").document[0]["commit"]
    theirs = {"name": "origin/theirs", "commit": tip, "current": False, "remote": "origin"}
    main = {"name": "main", "commit": tip, "current": True, "remote": None}
    assert mp("branch", "-r", "--json").document == [theirs]
    assert mp("branch", "--json").document == [main]
    assert mp("branch", "--all", "--json").document == [main, theirs]
    assert [line.split()[:2] for line in mp("branch", "-a").out.splitlines()] == [
        ["*", "main"],
        ["origin/theirs", tip[:12]],
    ]
    assert "mp branch theirs origin/theirs" in mp("switch", "theirs", expect=1).err
    assert "mp branch theirs" in mp("branch", "-r", "theirs", expect=2).err
    assert "mp push REMOTE :theirs" in mp("branch", "-r", "-d", "theirs", expect=2).err
