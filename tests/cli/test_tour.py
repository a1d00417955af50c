"""The README's tour, typed line by line as it stands, on small models like the demo's."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from tests.cli.conftest import ROOT
from tests.cli.families import write_family


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A directory that holds what `make demo` leaves, and a `mp` that is on the path."""
    models = write_family(tmp_path / "empty/demo-output/models", ("code", "prose", "tables"))
    for model in models.values():
        tensors = load_file(model / "model.safetensors")
        tensors["lm_head.weight"] = tensors.pop("embed")
        save_file(tensors, model / "model.safetensors", {"format": "pt"})
    program = tmp_path / "bin/mp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mergepipe "$@"\n')
    program.chmod(0o755)
    return tmp_path / "empty"


def test_every_command_works_as_it_is_printed(place: Path) -> None:
    commands = typed((ROOT / "README.md").read_text(encoding="utf-8"))
    assert sum("mp " in each for each in commands) > 20
    script = "set -ex\n" + "\n".join(commands)
    done = subprocess.run(
        ["sh"],
        input=script,
        cwd=place,
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "PATH": f"{place.parent / 'bin'}{os.pathsep}{os.environ['PATH']}",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ok: no problems (all data read)" in done.stdout
    assert (place / "mixed/model.safetensors").is_file()
    models = place / "demo-output/models"
    weights = "model.safetensors"
    assert (place / "code" / weights).read_bytes() == (models / "code" / weights).read_bytes()


def typed(readme: str) -> list[str]:
    """What stands behind the prompts of the tour: the lines a reader types."""
    tour = readme.split("## A tour\n")[1].split("\n## ")[0]
    commands: list[str] = []
    for line in tour.splitlines():
        if line.startswith("    $ "):
            commands.append(line.removeprefix("    $ "))
        elif line.startswith("    >"):
            commands[-1] += "\n" + line.removeprefix("    >").removeprefix(" ")
    return commands
