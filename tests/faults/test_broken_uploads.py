"""Uploads to a hub whose lines break or stand still, whose server is killed, and that race."""

import json
import socket
import threading
from contextlib import suppress

import pytest

from .hub_uploads import SHORT_S, WAYS, Request, commit_of, new_hub
from .limits import LIMIT_S, Tally, soon

runs_of_each = pytest.mark.parametrize("runs", [8, pytest.param(200, marks=pytest.mark.slow)])


@pytest.mark.parametrize(
    ("how", "runs"),
    [
        ("cut", 8),
        ("stall", len(WAYS)),  # each takes as long as the server is patient
        *(pytest.param(how, 200, marks=pytest.mark.slow) for how in ("cut", "stall")),
    ],
)
def test_lines_that_break(how: str, runs: int) -> None:
    tally = Tally(f"hub upload, {how}")
    with new_hub(seed=61, idle_s=SHORT_S if how == "stall" else LIMIT_S) as hub:
        for number in range(runs):
            path, content = hub.new_file()
            way = WAYS[number % len(WAYS)]
            wanted = hub.carrier(way, path, content).raw
            end = int(hub.chance.integers(1, len(wanted)))
            with socket.create_connection(("127.0.0.1", hub.port)) as line:
                line.sendall(wanted[:end])
                if how == "stall":
                    line.settimeout(LIMIT_S)
                    with suppress(ConnectionResetError):
                        while line.recv(4096):  # until it is let go
                            pass
            assert not hub.check(path, content, came=False)
            assert soon(lambda: not hub.left_behind())
            hub.store(path, content)
            assert not hub.left_behind()
            tally.note("runs", way)
    tally.show()


@runs_of_each
def test_replies_that_are_lost(runs: int) -> None:
    tally = Tally("hub upload, lost reply")
    with new_hub(seed=64) as hub:
        for number in range(runs):
            path, content = hub.new_file()
            way = WAYS[number % len(WAYS)]
            wanted = hub.carrier(way, path, content)
            with socket.create_connection(("127.0.0.1", hub.port)) as line:
                line.sendall(wanted.raw)
            # Whoever hears nothing asks again, and gets what the first would have got.
            status, reply = hub.ask(wanted)
            assert status == 200, reply
            if way == "commit":
                assert hub.check(path, content, came=True)
            tally.note("runs", way)
            hub.store(path, content)
    tally.show()


@runs_of_each
def test_servers_that_are_killed(runs: int) -> None:
    tally = Tally("hub upload, server killed")
    with new_hub(seed=62) as hub:
        for number in range(runs):
            path, content = hub.new_file()
            way = WAYS[number % len(WAYS)]
            wanted = hub.carrier(way, path, content).raw
            whole = hub.chance.random() < 0.7
            end = len(wanted) if whole else int(hub.chance.integers(1, len(wanted)))
            with socket.create_connection(("127.0.0.1", hub.port)) as line:
                line.settimeout(float(hub.chance.uniform(0.001, 0.06)))
                line.sendall(wanted[:end])
                said = b""
                with suppress(TimeoutError):
                    said = line.recv(4096)
                hub.kill()
            answered = said.startswith(b"HTTP/1.1 200")
            came = (True if answered else None) if way == "commit" else False
            arrived = hub.check(path, content, came=came)
            tally.note("runs", way, "answered" if answered else "arrived" if arrived else "lost")
            hub.start()
            hub.store(*hub.new_file())
            assert not hub.left_behind()
    tally.show()


@runs_of_each
def test_uploads_that_race(runs: int) -> None:
    tally = Tally("hub upload, racing")
    with new_hub(seed=63) as hub:
        for _ in range(runs):
            hub.runs += 1
            _, told = hub.ask(Request("GET", "/api/models/zoo/main"))
            parent = str(json.loads(told)["sha"]) if hub.chance.random() < 0.5 else ""
            sent = {f"{number}.txt": hub.chance.bytes(100) for number in range(3)}
            replies: dict[str, int] = {}

            def send(path: str, content: bytes, parent: str, replies: dict[str, int]) -> None:
                replies[path], _ = hub.ask(commit_of(path, content, parent))

            threads = [
                threading.Thread(target=send, args=(path, content, parent, replies))
                for path, content in sent.items()
            ]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            won = [path for path, status in replies.items() if status == 200]
            assert sorted(replies.values()) == ([200, 412, 412] if parent else [200] * 3)
            hub.files |= {path: sent[path] for path in won[:-1]}
            assert hub.check(won[-1], sent[won[-1]], came=True)
            assert not hub.left_behind()
            tally.note("runs", "with a parent" if parent else "without")
    tally.show()
