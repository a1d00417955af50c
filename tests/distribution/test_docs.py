"""The documentation: the site builds, nothing of the program is missing, and what is shown runs."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.bytestore import s3

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


class Reader:
    """Types what pages show, one page after the other, where the tutorial is done."""

    def __init__(self, folder: Path) -> None:
        program = folder / "bin/mp"
        program.parent.mkdir()
        program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mergepipe "$@"\n')
        program.chmod(0o755)
        self.place = folder / "clone"
        self.place.mkdir()
        (self.place / "examples").symlink_to(ROOT / "examples")
        found = os.pathsep.join(
            (str(program.parent), str(Path(sys.executable).parent), os.environ["PATH"])
        )
        self._environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": found}

    def type(self, commands: list[str], inside: str = ".", **environment: str) -> str:
        done = subprocess.run(
            ["sh"],
            input="set -ex\n" + "\n".join(commands),
            cwd=self.place / inside,
            env={**self._environment, **environment},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Reader, str]:
    """Who has read the tutorial, and what it printed."""
    reader = Reader(tmp_path_factory.mktemp("reader"))
    return reader, reader.type(typed("docs/tutorial.md"))


def test_the_tutorial_and_the_pages_that_build_on_it_run_as_printed(
    reader: tuple[Reader, str],
) -> None:
    person, printed = reader
    assert len(typed("docs/tutorial.md")) > 20
    losses = dict(re.findall(r'{"model": "(\w+)".*"mean": ([\d.]+)}', printed))
    means = {name: float(mean) for name, mean in losses.items()}
    assert max(means["both"], means["linear"], means["frugal"]) < min(means["code"], means["prose"])
    person.type(typed("docs/howto/budgets.md"), "models")


def test_moving_from_other_tools_runs_as_printed(reader: tuple[Reader, str]) -> None:
    person, _ = reader
    weights = person.place / "weights"
    git = "git -C weights -c user.name=us -c user.email=us@example.org -c init.defaultBranch=main"
    person.type(
        [
            f"mkdir weights && {git} init -q",
            *(
                f"rm -rf weights/model && cp -r tutorial-models/{model} weights/model && "
                f"{git} add -A && {git} commit -qm {version} && {git} tag {version}"
                for version, model in (("v1", "base"), ("v2", "code"))
            ),
        ]
    )
    assert (weights / "model/model.safetensors").is_file()
    printed = person.type(typed("docs/howto/moving.md"), "models")
    assert "v1" in printed
    assert "v2" in printed


def test_backup_and_repair_run_as_printed(reader: tuple[Reader, str]) -> None:
    person, _ = reader
    commands = typed("docs/howto/backup.md")
    broken = commands.index("mp fsck --read-data")
    person.type(commands[:broken], "models")
    pack = max((person.place / "models/.mergepipe/packs").rglob("*.pack"), key=_size)
    pack.chmod(0o644)
    data = bytearray(pack.read_bytes())
    data[len(data) // 2] ^= 1
    pack.write_bytes(data)
    person.type([f"{commands[broken]} && exit 1 || test $? -eq 12"], "models")
    person.type(commands[broken + 1 :], "models")


def test_sharing_runs_as_printed(reader: tuple[Reader, str]) -> None:
    pytest.importorskip("obstore", reason="the test extra has it")
    person, _ = reader
    with s3.serving() as bucket:
        person.type(typed("docs/howto/share.md"), "models", **bucket("models").environment())


def _size(path: Path) -> int:
    return path.stat().st_size


def test_what_is_typed_anywhere_is_typed_by_a_test() -> None:
    """Every prompt of a page: of those here, of the README's tour, or of reports."""
    elsewhere = {"docs/reports.md"}
    tried = {
        "docs/tutorial.md",
        *(f"docs/howto/{name}.md" for name in ("budgets", "moving", "backup", "share")),
    }
    prompting = {page.relative_to(ROOT).as_posix() for page in WRITTEN if typed(str(page))}
    assert prompting - tried - elsewhere == set()


def typed(page: str) -> list[str]:
    """What stands behind the prompts of a page."""
    lines = (ROOT / page).read_text().splitlines()
    return [line.removeprefix("    $ ") for line in lines if line.startswith("    $ ")]
