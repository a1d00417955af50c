"""The documentation: the site builds, nothing of the program is missing, and what is shown runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
WRITTEN = [*(ROOT / "docs").glob("*.md"), *(ROOT / "docs/howto").glob("*.md")]


@pytest.fixture(scope="module")
def site() -> ModuleType:
    """docs/site.py."""
    spec = importlib.util.spec_from_file_location("docs_site", ROOT / "docs/site.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_site_builds_and_asks_nobody(site: ModuleType, tmp_path: Path) -> None:
    pytest.importorskip("zensical", reason="the test extra has it")
    (tmp_path / "zensical.toml").write_text((ROOT / "zensical.toml").read_text())
    site.collect(tmp_path / "build/docs")
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    pages = list((tmp_path / "build/site").rglob("*.html"))
    assert len(pages) > 25
    fetched = re.compile(
        r'<(?:script|img|iframe)[^>]* src="https?:|<link[^>]*rel="stylesheet"[^>]*http'
    )
    assert [page for page in pages if fetched.search(page.read_text())] == []
    for entry in re.findall(
        r'= "([\w/-]+\.md)"|"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()
    ):
        assert (tmp_path / "build/docs" / "".join(entry)).is_file(), entry


def test_every_command_and_option_is_on_a_page(site: ModuleType) -> None:
    written = "\n".join(page.read_text() for page in WRITTEN)
    missing = []
    for name, command in site.commands():
        if not re.search(rf"\b{re.escape(name.removeprefix('mp '))}\b", written):
            missing.append(name)
        for parameter in command.params:
            spellings = [*parameter.opts, *parameter.secondary_opts]
            if getattr(parameter, "hidden", False):
                continue
            if parameter.param_type_name == "option" and not any(
                re.search(rf"(?<![\w-]){re.escape(spelling)}(?![\w-])", written)
                for spelling in spellings
            ):
                missing.append(f"{name} {spellings[0]}")
    assert missing == []


def test_every_setting_is_on_a_page(site: ModuleType) -> None:
    written = "\n".join(page.read_text() for page in WRITTEN)
    assert [key for key, _ in site.settings() if key not in written] == []


def test_every_exit_code_is_on_a_page(site: ModuleType) -> None:
    written = (ROOT / "docs/cli.md").read_text()
    codes = written.split("## Exit codes")[1].split("\n## ")[0]
    assert [code for code in site.exit_codes() if not re.search(rf"\b{code}\b", codes)] == []


def test_the_tutorial_and_the_pages_that_build_on_it_run_as_printed(tmp_path: Path) -> None:
    commands = typed("docs/tutorial.md") + typed("docs/howto/budgets.md")
    assert len(commands) > 25
    program = tmp_path / "bin/mp"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mergepipe "$@"\n')
    program.chmod(0o755)
    place = tmp_path / "clone"
    place.mkdir()
    (place / "examples").symlink_to(ROOT / "examples")
    path = (
        f"{program.parent}{os.pathsep}{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    )
    done = subprocess.run(
        ["sh"],
        input="set -ex\n" + "\n".join(commands),
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(ROOT), "PATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    losses = dict(re.findall(r'{"model": "(\w+)".*"mean": ([\d.]+)}', done.stdout))
    means = {name: float(mean) for name, mean in losses.items()}
    assert max(means["both"], means["linear"], means["frugal"]) < min(means["code"], means["prose"])


def typed(page: str) -> list[str]:
    """What stands behind the prompts of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return [line.removeprefix("    $ ") for line in lines if line.startswith("    $ ")]
