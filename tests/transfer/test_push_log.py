"""Who pushed what through a server, as its log tells it."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.wire import WRITE_ID_BYTES, SwapRequest
from mergepipe.errors import AuthenticationError, ConfigError, RemoteRefused, UnsafeRepository
from mergepipe.repository import push_log
from mergepipe.repository.push_log import PushEntry, PushLog
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.recording import Caller, Recorder
from mergepipe.transfer.serving.tokens import Scope, Tokens
from tests.bytestore.transports import serving
from tests.transfer.forging import Forge, line, noise, send

ALICE, READER, STRANGER = (
    "alice-0123456789abcdef",
    "reader-0123456789abcde",
    "nobody-0123456789abcde",
)
TOKENS = Tokens.parse([f"write alice {ALICE}", f"read {READER}"], "a test")
MAIN = "refs/heads/main"


def test_pushes_and_denied_tries_are_written_down(tmp_path: Path) -> None:
    forge = Forge()
    commit = forge.model(noise(4096))
    packs = forge.packs()
    with (
        Repository.init(tmp_path / "repo") as repo,
        ReceivingStore(repo) as receiving,
        serving(Service(Offer(receiving, log=PushLog(repo.directory)), TOKENS)) as url,
    ):
        with HttpByteStore(url, token=ALICE) as store:
            for pack, data in packs.items():
                send(store, pack, data)
            assert store.compare_and_swap(MAIN, None, line(commit))
            assert not store.compare_and_swap(MAIN, b"0" * 64 + b"\n", None)
            with pytest.raises(RemoteRefused):
                store.compare_and_swap(MAIN, line(commit), None)
        for token in (READER, STRANGER, STRANGER):
            with HttpByteStore(url, token=token) as store, pytest.raises(AuthenticationError):
                store.compare_and_swap(MAIN, line(commit), None)
        entries = list(PushLog(repo.directory).read())
        text = (repo.directory / "pushes").read_text()
    who = [(each.outcome, each.token) for each in entries]
    assert who[:3] == [("done", "alice"), ("moved", "alice"), ("refused", "alice")]
    assert [outcome for outcome, _ in who[3:]] == ["denied", "denied"]
    assert all(name.startswith("sha256:") and len(name) == 15 for _, name in who[3:])
    first = entries[0]
    assert (first.ref, first.old, first.new) == (MAIN, "", commit.hex())
    assert (first.action, first.address) == ("push", "127.0.0.1")
    assert first.bytes == sum(map(len, packs.values()))
    assert entries[1].bytes == 0
    assert "current branch" in entries[2].detail
    assert not any(secret in text for secret in (ALICE, READER, STRANGER))


def test_who_knocks_again_and_again_does_not_fill_the_disk(tmp_path: Path) -> None:
    recorder = Recorder(PushLog(tmp_path))
    for _ in range(100):
        recorder.denied(Caller("x", "10.0.0.1"), "push", "no")
    recorder.denied(Caller("x", "10.0.0.2"), "push", "no")
    assert [each.address for each in PushLog(tmp_path).read()] == ["10.0.0.1", "10.0.0.2"]


def test_the_file_is_bounded_and_plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = PushLog(tmp_path)
    monkeypatch.setattr(push_log, "LARGEST_BYTES", 500)
    entry = PushEntry(1, "push", "a\nb", "10.0.0.7", "refused", detail="\x1b[2J" * 400)
    for _ in range(5):
        log.append(entry)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["pushes", "pushes.1"]
    assert len((tmp_path / "pushes").read_bytes().splitlines()) == 1
    assert b"\x1b" not in (tmp_path / "pushes").read_bytes()
    with (tmp_path / "pushes").open("ab") as file:
        file.write(b"nonsense\n{}\n")
    assert [each.token for each in log.read()] == ["a\nb"] * len(list(log.read()))
    (tmp_path / "pushes").unlink()
    (tmp_path / "pushes").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UnsafeRepository):
        log.append(entry)
    assert not (tmp_path / "elsewhere").exists()


def test_a_log_that_cannot_be_written_stops_no_push(tmp_path: Path) -> None:
    (tmp_path / "pushes").mkdir()
    recorder = Recorder(PushLog(tmp_path))
    recorder.swapped(Caller(), SwapRequest(MAIN, None, b"x", bytes(WRITE_ID_BYTES), False), "done")


def test_tokens_may_have_names() -> None:
    for spelled in (f"write alice {ALICE}", f"write:alice:{ALICE}", f"write alice:{ALICE} # new"):
        tokens = Tokens.parse([spelled], "a test")
        assert tokens.scope(f"Bearer {ALICE}") is Scope.WRITE
        assert tokens.name(f"Bearer {ALICE}") == "alice"
    assert TOKENS.name("") == ""
    for bad in (
        "write alice bob 0123456789abcdef0",
        "write al/ce 0123456789abcdef0",
        "write alice x",
    ):
        with pytest.raises(ConfigError):
            Tokens.parse([bad], "a test")
