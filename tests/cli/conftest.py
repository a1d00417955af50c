import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mergepipe.cli.main import main
from mergepipe.repository.patience import LOCK_TIMEOUT
from tests.cli.models import write_model

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Result:
    """What one run of `mp` left behind."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """Its JSON; there must be exactly one document, on one line."""
        assert self.out.count("\n") == 1
        return json.loads(self.out)


Mp = Callable[..., Result]


@pytest.fixture(autouse=True)
def _environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if (name.startswith("MP_") and name != LOCK_TIMEOUT) or name in (
            "SOURCE_DATE_EPOCH",
            "NO_COLOR",
        ):
            monkeypatch.delenv(name)
    monkeypatch.setenv("MP_AUTHOR", "Ada <ada@example.org>")
    # The user's own settings: beside tmp_path, whose contents tests commit and count.
    monkeypatch.setenv("XDG_CONFIG_HOME", f"{tmp_path}-settings")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mp(capfd: pytest.CaptureFixture[str]) -> Mp:
    """Runs `mp` in this process, in the current directory; checks its exit code."""

    def run(*arguments: str | Path, expect: int = 0) -> Result:
        capfd.readouterr()
        code = main([str(each) for each in arguments])
        out, err = capfd.readouterr()
        assert code == expect, f"mp {arguments}: {code}\n{out}\n{err}"
        return Result(code, out, err)

    return run


@pytest.fixture
def process() -> Mp:
    """Runs `mp` as a process of its own."""

    def run(*arguments: str | Path, expect: int = 0, **options: Any) -> Result:
        done = subprocess.run(
            command_line(*arguments),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            text=True,
            capture_output=True,
            check=False,
            **options,
        )
        assert done.returncode == expect, f"mp {arguments}: {done}"
        return Result(done.returncode, done.stdout, done.stderr)

    return run


def command_line(*arguments: str | Path) -> list[str]:
    """The command that runs `mp` from this checkout."""
    return [sys.executable, "-m", "mergepipe", *(str(each) for each in arguments)]


@pytest.fixture
def repository(tmp_path: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty repository, which is the current directory."""
    mp("init", tmp_path / "repository")
    monkeypatch.chdir(tmp_path / "repository")
    return tmp_path / "repository"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model outside the repository."""
    return write_model(tmp_path / "model")


@pytest.fixture
def committed(repository: Path, model: Path, mp: Mp) -> Path:
    """A repository with the model on main; its directory is the current one."""
    mp("commit", model, "-m", "First try")
    return repository


@pytest.fixture
def family(merging_as_made: Path, tmp_path: Path) -> dict[str, Path]:
    """A base and two fine-tunes as directories: `models/base`, `models/math`, `models/code`."""
    copied = shutil.copytree(merging_as_made / "models", tmp_path / "models")
    return {name: copied / name for name in ("base", "math", "code")}


@pytest.fixture
def merging(
    merging_as_made: Path, family: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Path:
    """A repository with `base`, and `math` and `code` that lean on it; blocks of 4 KiB."""
    copied = shutil.copytree(merging_as_made / "repository", tmp_path / "repository")
    monkeypatch.chdir(copied)
    return copied


@pytest.fixture(scope="session")
def merging_as_made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models and the repository that each test gets a copy of."""
    from tests.cli.families import write_family  # loads torch, which few tests here need

    made = tmp_path_factory.mktemp("merging")
    family = write_family(made / "models")
    lines = [["init", "repository", "--block-size", "4KiB"]]
    for name, path in family.items():
        base = () if name == "base" else ("--base", "base")
        lines.append(["-C", "repository", "commit", str(path), "-b", name, *base])
    for line in lines:
        with pytest.MonkeyPatch.context() as here:
            here.chdir(made)
            here.setenv("MP_AUTHOR", "Ada <ada@example.org>")
            assert main(["-q", *line]) == 0
    return made
