"""A hub for a module's tests: a repository of small models, and a real `mp serve` before it."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from mergepipe.api import Repository
from tests.cli.conftest import ROOT, command_line
from tests.cli.models import tensors, write_model

WHO = "Ada <ada@example.org>"


@dataclass(frozen=True)
class Reply:
    """What came back: names of headers are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def document(self) -> Any:
        """Its JSON."""
        return json.loads(self.body)


@dataclass(frozen=True)
class Served:
    """A running `mp serve`, and where its repositories are."""

    url: str
    folder: Path
    process: "subprocess.Popen[str]"

    def ask(
        self,
        path: str,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
    ) -> Reply:
        """One request, as it is typed."""
        place = urlsplit(self.url)
        assert place.hostname is not None
        connection = HTTPConnection(place.hostname, place.port, timeout=900)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Reply(response.status, found, response.read())
        finally:
            connection.close()


@contextmanager
def serving(
    folder: Path, *words: str | Path, environment: Mapping[str, str] | None = None
) -> Iterator[Served]:
    """`mp serve` of a repository in `folder`, or as the words say."""
    command = command_line("serve", "--json", "--port", "0", *(words or (folder,)))
    settings = {"PYTHONPATH": str(ROOT), "MP_AUTHOR": WHO, **(environment or {})}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings}
    ) as process:
        try:
            assert process.stdout is not None
            yield Served(json.loads(process.stdout.readline())["url"], folder, process)
        finally:
            process.kill()


def client(hub: Served, home: Path, *words: str | Path) -> "subprocess.CompletedProcess[str]":
    """A command of the user's, in a process of its own that knows of this hub only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    settings = {
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(home),
        "PYTHONPATH": str(ROOT),
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }
    return subprocess.run(
        [sys.executable, *map(str, words)],
        env=kept | settings,
        text=True,
        capture_output=True,
        check=False,
    )


def commit_models(folder: Path, models: Sequence[str]) -> None:
    """A repository in a folder, with small models on branches, each near the first."""
    folder.mkdir(parents=True, exist_ok=True)
    with Repository.init(folder, who=WHO) as repository:
        for number, name in enumerate(models):
            model = write_model(folder.parent / f"{folder.name}-{name}", tensors(changed=number))
            repository.commit(model, branch=name, message=f"Train {name}")


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """A served repository `zoo` with the branches `base` and `chat`."""
    folder = tmp_path_factory.mktemp("hub") / "zoo"
    commit_models(folder, ("base", "chat"))
    with serving(folder) as served:
        yield served
