"""What is in the wheel that users install, and that it runs from there."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.Path:
    """The wheel, built by hatchling in a process of its own: nothing is downloaded."""
    pytest.importorskip("hatchling", reason="the test extra has it")
    folder = tmp_path_factory.mktemp("wheel")
    build = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", build, folder], cwd=ROOT, text=True, capture_output=True, check=True
    )
    return zipfile.Path(folder / done.stdout.split()[-1])


def names(wheel: zipfile.Path) -> set[str]:
    return set(wheel.root.namelist())


def test_types_and_the_template_are_in_it(wheel: zipfile.Path) -> None:
    assert "mergepipe/py.typed" in names(wheel)
    template = ROOT / ".mergepipe-template"
    files = {each.relative_to(template) for each in template.rglob("*") if each.is_file()}
    assert {f"mergepipe/_template/{each.as_posix()}" for each in files} <= names(wheel)


def test_every_module_is_in_it_and_nothing_else(wheel: zipfile.Path) -> None:
    modules = {each.relative_to(ROOT).as_posix() for each in (ROOT / "mergepipe").rglob("*.py")}
    assert modules == {each for each in names(wheel) if each.endswith(".py")}
    others = {each.partition("/")[0] for each in names(wheel)}
    assert {each for each in others if not each.endswith(".dist-info")} == {"mergepipe"}


def test_what_is_installed_runs_by_itself(wheel: zipfile.Path, tmp_path: Path) -> None:
    wheel.root.extractall(tmp_path / "site")
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    said = {}
    for arguments in (("--version",), ("init", "models")):
        done = subprocess.run(
            [sys.executable, "-m", "mergepipe", *arguments],
            cwd=tmp_path,
            env=environment,
            text=True,
            capture_output=True,
            check=True,
        )
        said[arguments[0]] = done.stdout
    assert said["--version"].startswith("mp ")
    assert (tmp_path / "models/.mergepipe/config.toml").is_file()
