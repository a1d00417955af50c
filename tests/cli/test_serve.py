"""`mp serve`: processes that listen, and one that ssh starts."""

import http.client
import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from mergepipe.bytestore.http import HttpByteStore
from mergepipe.errors import AuthenticationError, RemoteRefused
from tests.bytestore import sshd
from tests.cli.conftest import ROOT, Mp, command_line

READ, WRITE = "reader-0123456789abcdef", "writer-0123456789abcdef"
MP = command_line()
REMOTE_MP = shlex.join(["env", f"PYTHONPATH={ROOT}", *MP])


@pytest.fixture(autouse=True)
def _this_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


@pytest.fixture
def other(committed: Path, tmp_path: Path, mp: Mp) -> Path:
    """An empty repository beside the current one."""
    mp("init", tmp_path / "other")
    return tmp_path / "other"


@contextmanager
def serving(*arguments: str | Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """A running `mp serve`, and the URL it prints."""
    words = [*MP, "serve", "--json", "--port", "0", *map(str, arguments)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as run:
        try:
            assert run.stdout is not None
            yield run, json.loads(run.stdout.readline())["url"]
        finally:
            run.kill()


def test_push_fetch_and_clone_over_http(other: Path, tmp_path: Path, mp: Mp) -> None:
    tip = mp("log", "--json").document[0]["commit"]
    with serving(other) as (_, url):
        mp("remote", "add", "origin", url)
        assert mp("push", "--json").document["refs"][0]["new"] == tip
        assert mp("push", "--json").document["bytes_sent"] == 0
        mp("clone", url, tmp_path / "clone")
    assert mp("-C", tmp_path / "clone", "log", "--json").document[0]["commit"] == tip
    assert mp("-C", tmp_path / "clone", "fsck", "--read-data", "--json").document["ok"]
    assert mp("-C", other, "fsck", "--read-data", "--json").document["ok"]


@pytest.mark.skipif(sshd.SSHD is None, reason="no sshd here")
def test_push_fetch_and_clone_over_ssh(
    other: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    tip = mp("log", "--json").document[0]["commit"]
    with sshd.running(tmp_path / "sshd") as server:
        monkeypatch.setenv("MP_SSH", server.command)
        monkeypatch.setenv("MP_SSH_REMOTE", REMOTE_MP)
        url = f"ssh://127.0.0.1:{server.port}{other}"
        mp("remote", "add", "origin", url)
        assert mp("push", "--json").document["refs"][0]["new"] == tip
        assert mp("push", "--json").document["bytes_sent"] == 0
        mp("clone", url, tmp_path / "clone")
        nothing = mp("clone", url + "/nothing", tmp_path / "none", expect=18).err
        assert "there is no repository at" in nothing
    assert mp("-C", tmp_path / "clone", "log", "--json").document[0]["commit"] == tip
    assert mp("-C", other, "fsck", "--read-data", "--json").document["ok"]


def test_tokens_come_from_a_file_or_the_environment(
    other: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# ours\nread {READ}\nwrite {WRITE}\n")
    file.chmod(0o644)
    shown = mp("serve", "--token-file", file, expect=1).err
    assert "others can read" in shown
    file.chmod(0o600)
    with serving("--token-file", file, other) as (_, url):
        check_tokens(url, "main", mp, monkeypatch)
    mp("branch", "second")
    monkeypatch.setenv("MP_SERVE_TOKENS", f"read:{READ},write:{WRITE}")
    with serving(other) as (_, url):
        check_tokens(url, "second", mp, monkeypatch)
    monkeypatch.setenv("MP_SERVE_TOKENS", "read:short")
    assert "short" not in mp("serve", expect=1).err.replace("shorter", "")


def check_tokens(url: str, branch: str, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, code in ((None, 16), (READ, 16), (WRITE, 0)):
        with HttpByteStore(url, token=token) as store:
            if token is None:
                with pytest.raises(AuthenticationError):
                    store.values("refs/")
            else:
                assert isinstance(store.values("refs/"), dict)
        if token is not None:
            monkeypatch.setenv("MP_TOKEN", token)
        shown = mp("push", url, branch, expect=code)
        assert READ not in shown.out + shown.err
        assert WRITE not in shown.out + shown.err
    monkeypatch.delenv("MP_TOKEN")


def test_a_token_goes_to_a_server_that_the_user_named(
    other: Path, tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    mp("push", other, "main")
    monkeypatch.setenv("MP_SERVE_TOKENS", f"read:{READ},write:{WRITE}")
    with serving(other) as (_, url):
        monkeypatch.setenv("MP_TOKEN", WRITE)
        mp("clone", url, tmp_path / "clone")
        mp("-C", tmp_path / "clone", "fetch")  # the clone's URL was the user's
        mp("-C", tmp_path / "clone", "push", "origin", "main:more")
        # The same repository, for a user who never named that server: somebody handed it over.
        monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
        shown = mp("-C", tmp_path / "clone", "fetch", expect=16).err
        assert f"MP_TOKEN_HOST={url}" in shown
        monkeypatch.setenv("MP_TOKEN_HOST", url)
        mp("-C", tmp_path / "clone", "fetch")
        monkeypatch.delenv("MP_TOKEN_HOST")
        mp("-C", tmp_path / "clone", "config", "remote.origin.url", url)
        mp("-C", tmp_path / "clone", "fetch")


def test_a_read_only_server(committed: Path, tmp_path: Path, mp: Mp) -> None:
    with serving("--read-only") as (_, url):
        mp("clone", url, tmp_path / "clone")
        assert (
            "read-only" in mp("-C", tmp_path / "clone", "push", "origin", "main:x", expect=18).err
        )
        with HttpByteStore(url) as store, pytest.raises(RemoteRefused, match="read-only"):
            store.compare_and_swap("refs/heads/x", None, b"x")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_after_what_is_under_way(committed: Path, number: signal.Signals) -> None:
    with serving() as (run, url):
        client = http.client.HTTPConnection(url.removeprefix("http://"))
        client.putrequest("PUT", f"/v1/value/packs/{'a' * 64}.pack")
        client.putheader("Content-Length", "1000")
        client.endheaders(bytes(500))
        while not _files(committed / ".mergepipe" / "tmp"):  # it has come
            time.sleep(0.01)
        run.send_signal(number)
        while _takes_connections(url):
            time.sleep(0.01)
        client.send(bytes(500))
        with client.getresponse() as response:
            assert response.status == 409  # it was no pack, which takes all of it to say
        assert run.wait() == 0
        assert run.stderr is not None
        assert "Traceback" not in run.stderr.read()
    assert not list((committed / ".mergepipe" / "tmp").glob("*"))


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def _takes_connections(url: str) -> bool:
    try:
        parts = urlsplit(url)
        socket.create_connection((parts.hostname, parts.port)).close()
    except ConnectionRefusedError:
        return False
    return True


def test_what_to_install_is_said(other: Path) -> None:
    without = "import sys; sys.modules['uvicorn'] = None; from mergepipe.cli.main import main;"
    words = [sys.executable, "-c", f"{without} sys.exit(main(['serve', {str(other)!r}]))"]
    run = subprocess.run(words, capture_output=True, text=True, check=False)
    assert run.returncode == 2
    assert "uvicorn" in run.stderr
    assert "pip install 'mergepipe[http]'" in run.stderr


def test_where_it_may_listen_and_what_it_may_serve(tmp_path: Path, mp: Mp, process: Mp) -> None:
    mp("init", tmp_path / "a")
    assert "needs tokens" in mp("serve", "--host", "0.0.0.0", tmp_path / "a", expect=2).err
    assert "no repository" in mp("serve", tmp_path / "none", expect=10).err
    assert "no repository" in process("serve", "--stdio", tmp_path / "none", expect=10).err


def test_nothing_but_frames_comes_out_of_stdio(other: Path) -> None:
    run = subprocess.run(
        [*MP, "-v", "serve", "--stdio", "--", str(other)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=True,
        env={**os.environ, "MP_TRACE": "1"},
    )
    assert run.stdout == b"\x0b\0\0\0\0\0\0\0\0mergepipe 1"
