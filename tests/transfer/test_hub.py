"""Models from the Hugging Face hub and to it: its cache on this machine, and a server like it."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("huggingface_hub", reason="pip install 'mergepipe[hub]'")

from tests.cli.models import content_of, tensors, write_model
from tests.transfer import fake_hub
from tests.transfer.fake_hub import FakeHub, Model

ROOT = Path(__file__).parents[2]
COMMIT = "0123456789abcdef0123456789abcdef01234567"

Mp = Callable[..., Any]


@pytest.fixture
def mp(tmp_path: Path) -> Mp:
    """Runs `mp --json` as a process, whose hub is `endpoint` (none: nobody there)."""
    (tmp_path / "repository").mkdir()

    def run(*arguments: str | Path, endpoint: str = "", expect: int = 0, **more: str) -> Any:
        environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("HF_")},
            "PYTHONPATH": str(ROOT),
            "MP_AUTHOR": "Ada <ada@example.org>",
            "HF_HOME": str(tmp_path / "home"),
            "HF_ENDPOINT": endpoint or "http://127.0.0.1:9",
            "HF_HUB_DISABLE_XET": "1",
            **more,
        }
        done = subprocess.run(
            [sys.executable, "-m", "mergepipe", "--json", *map(str, arguments)],
            cwd=tmp_path / "repository",
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == expect, done
        assert "Traceback" not in done.stderr
        return json.loads(done.stdout)

    run("init")
    return run


@pytest.fixture
def hub() -> Iterator[FakeHub]:
    with fake_hub.running() as running:
        yield running


def cached(home: Path, model: Path, name: str = "models--org--tiny") -> None:
    """A model in a cache as the hub's client lays it out: links to blobs, refs to snapshots."""
    folder = home / "hub" / name
    snapshot = folder / "snapshots" / COMMIT
    for path in (folder / "blobs", folder / "refs", snapshot):
        path.mkdir(parents=True)
    (folder / "refs/main").write_text(COMMIT)
    for number, path in enumerate(sorted(model.iterdir())):
        blob = folder / "blobs" / f"{number:040x}"
        blob.write_bytes(path.read_bytes())
        (snapshot / path.name).symlink_to(Path("../../blobs") / blob.name)


def test_a_cached_model_is_committed_offline(tmp_path: Path, mp: Mp) -> None:
    model = write_model(tmp_path / "model")
    cached(tmp_path / "home", model)
    made = mp("commit", "hf://org/tiny", "-b", "tiny", HF_HUB_OFFLINE="1")
    assert mp("log", "tiny")[0]["message"] == f"hf://org/tiny ({COMMIT[:12]})"
    again = mp("commit", f"hf://org/tiny@{COMMIT}", "-b", "tiny", HF_HUB_OFFLINE="1")
    assert (again["unchanged"], again["commit"]) == (True, made["commit"])
    mp("checkout", "tiny", "--to", tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(model)


def test_offline_and_not_cached(mp: Mp) -> None:
    said = mp("commit", "hf://org/tiny", expect=1, HF_HUB_OFFLINE="1")["error"]
    assert said["kind"] == "remote_unreachable"
    assert mp("commit", "hf://org/tiny", expect=1)["error"]["kind"] == "remote_unreachable"
    assert mp("commit", "hf://a/b/c", expect=2)["error"]["kind"] == "usage"


def test_a_model_comes_from_the_hub(tmp_path: Path, mp: Mp, hub: FakeHub) -> None:
    model = write_model(tmp_path / "model")
    hub.models["org/tiny"] = Model(private=False, files={"main": bytes_of(model)})
    mp("commit", "hf://org/tiny", "-m", "from there", "-b", "tiny", endpoint=hub.endpoint)
    mp("checkout", "tiny", "--to", tmp_path / "out")
    assert bytes_of(tmp_path / "out") == bytes_of(model)
    # Once more: nothing is downloaded again. And without the hub: the cache does.
    before = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert mp("commit", "hf://org/tiny", "-b", "tiny", endpoint=hub.endpoint)["unchanged"]
    after = [line for line in hub.requests if line.startswith("GET") and "/resolve/" in line]
    assert len(after) == len(before) == len(bytes_of(model))
    assert mp("commit", "hf://org/tiny", "-b", "tiny")["unchanged"]


def test_what_the_hub_says_no_to(mp: Mp, hub: FakeHub) -> None:
    def kind(url: str) -> tuple[str, int]:
        for code in (1, 16):
            try:
                said = mp("commit", url, endpoint=hub.endpoint, expect=code)["error"]
            except AssertionError:
                continue
            return said["kind"], said["code"]
        raise AssertionError(url)

    assert kind("hf://org/none") == ("revision_not_found", 1)
    hub.models["org/tiny"] = Model(private=True, files={"main": {"config.json": b"{}"}})
    assert kind("hf://org/tiny@v9") == ("revision_not_found", 1)
    hub.token = "hf_secret"
    assert kind("hf://org/tiny")[1] in (1, 16)
    mp("commit", "hf://org/tiny", "-b", "tiny", endpoint=hub.endpoint, HF_TOKEN="hf_secret")


def test_a_revision_goes_to_the_hub(tmp_path: Path, mp: Mp, hub: FakeHub) -> None:
    model = write_model(tmp_path / "model")
    first = mp("commit", model, "-b", "tiny", "-m", "A tiny one")
    pushed = mp("push", "hf://org/tiny", "tiny", endpoint=hub.endpoint)
    made = hub.models["org/tiny"]
    assert made.private  # until somebody says otherwise
    assert made.files["main"] == bytes_of(model)
    assert made.messages == ["A tiny one"]
    assert (pushed["created"], pushed["commit"]) == (True, first["commit"])
    assert pushed["hub_commit"] == made.sha("main")
    assert pushed["files"] == len(bytes_of(model))

    made.files["main"]["README.md"] = b"by hand"
    mp("commit", write_model(tmp_path / "two", tensors(1)), "-b", "tiny")
    assert not mp("push", "hf://org/tiny", "tiny", endpoint=hub.endpoint)["created"]
    assert made.files["main"] == bytes_of(tmp_path / "two") | {"README.md": b"by hand"}
    mp("push", "hf://org/tiny", "tiny", "--force", endpoint=hub.endpoint)
    assert made.files["main"] == bytes_of(tmp_path / "two")
    mp("push", "hf://org/tiny@old", "tiny~1", endpoint=hub.endpoint)
    assert made.files["old"].items() >= bytes_of(model).items()
    assert made.files["main"] == bytes_of(tmp_path / "two")


def test_a_push_says_who_we_are_and_no_more(tmp_path: Path, mp: Mp, hub: FakeHub) -> None:
    mp("commit", write_model(tmp_path / "model"), "-b", "tiny")
    hub.token = "hf_secret"
    assert mp("push", "hf://org/tiny", "tiny", endpoint=hub.endpoint, expect=16)
    mp("push", "hf://org/tiny", "tiny", endpoint=hub.endpoint, HF_TOKEN="hf_secret")
    assert any("mergepipe/" in agent for agent in hub.agents)
    assert not any("torch" in agent or "agent/" in agent for agent in hub.agents)
    assert mp("push", "hf://org/tiny", "--all", endpoint=hub.endpoint, expect=2)
    assert mp("remote", "add", "hub", "hf://org/tiny", expect=2)


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {name: data for name, (data, _) in content_of(folder).items()}
