"""What only a process of its own shows: what it loads, signals, pipes, the environment."""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

from mergepipe import progress_bar
from mergepipe.cli import commands, progress
from tests.cli.conftest import ROOT, Mp, command_line
from tests.cli.models import tensors, write_model

HEAVY = ["torch", "numba", "numpy", "rich", "transformers", "pydantic"]
HEAVIEST = ["torch", "transformers", "rich", "pydantic"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--version"],
        ["--help"],
        ["log", "-n", "10"],
        ["log", "--graph", "--json"],
        ["status"],
        ["show", "--tensors"],
        ["branch"],
        ["tag"],
        ["reflog"],
        ["config"],
        ["log", "nosuch"],
        ["switch", "main"],
        ["tag", "v1"],
    ],
)
def test_light_commands_load_nothing_heavy(committed: Path, arguments: list[str]) -> None:
    assert _loaded(arguments) & set(HEAVY) == set()


def test_a_command_loads_its_own_module_alone(committed: Path) -> None:
    loaded = _loaded(["--version"])
    assert {"mergepipe.api", "mergepipe.packs.storage", "importlib.metadata"} & loaded == set()
    commands = "mergepipe.cli.commands."
    assert [name for name in loaded if name.startswith(commands)] == []
    assert [name for name in _loaded(["log"]) if name.startswith(commands)] == [f"{commands}log"]


def test_every_module_of_commands_is_in_the_table() -> None:
    modules = {path.stem for path in Path(commands.__path__[0]).glob("[!_]*.py")}
    assert len(dict(commands.Commands())) == len(modules)
    assert {f"{commands.__name__}.{name}" for name in modules} <= set(sys.modules)


@pytest.mark.parametrize(
    "arguments",
    [["commit", "../model", "-b", "new"], ["checkout", "main", "--to", "out"], ["diff", "main"]],
)
def test_models_come_in_and_out_without_torch(committed: Path, arguments: list[str]) -> None:
    assert _loaded(arguments) & set(HEAVIEST) == set()


def test_a_merge_loads_what_it_needs(committed: Path, process: Mp, tmp_path: Path) -> None:
    """No compiler, no format of recipes, no masked arrays (10 ms), and next to no dataclasses.

    Each frozen dataclass costs 1 ms of every process that loads its module: values are structs.
    """
    for seed in (1, 2):
        model = write_model(tmp_path / f"tuned-{seed}", tensors(seed))
        process("commit", model, "-b", f"tuned-{seed}", "--base", "main")
    loaded = _loaded(["merge", "tuned-1", "tuned-2", "-b", "merged"])
    heavy = {*HEAVIEST, "numba", "yaml", "tomlkit", "numpy.ma", "numpy.random", "secrets", "html"}
    elsewhere = {
        *("mergepipe.hub", "mergepipe.planner.mergekit", "mergepipe.methods.eager"),
        "mergepipe.vocabularies",
    }
    assert loaded & {*heavy, *elsewhere} == set()
    modules = [sys.modules.get(name) or import_module(name) for name in loaded if _ours(name)]
    made = [
        value
        for module in modules
        for value in vars(module).values()
        if isinstance(value, type) and is_dataclass(value) and value.__module__ == module.__name__
    ]
    assert len(made) <= 5


def _ours(name: str) -> bool:
    return name.partition(".")[0] == "mergepipe"


def _loaded(arguments: list[str]) -> set[str]:
    """The modules that a process has loaded once it has run a command."""
    code = (
        "import sys, json; from mergepipe.cli.main import main; main(sys.argv[1:]);"
        "print(json.dumps(list(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    )
    return set(json.loads(done.stderr.splitlines()[-1]))


def _ended(before: str, after: str = "") -> list[str]:
    """What a process prints that does something, is `mp --version`, and does more if it can."""
    lines = ["import atexit, sys, threading", before, "from mergepipe.cli.process import run"]
    code = "\n".join([*lines, "run()", "print('slowly')", after])
    return subprocess.run(
        [sys.executable, "-c", code, "--version"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
        check=True,
    ).stdout.splitlines()


def test_a_process_ends_at_once_with_all_it_has_to_say() -> None:
    version, said = _ended("atexit.register(print, 'at exit', end='')")
    assert version.startswith("mp 0.")
    assert said == "at exit"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("done = threading.Event(); threading.Thread(target=done.wait).start()", "done.set()"),
        ("sys.setprofile(lambda *_: None)", ""),
        ("sys.settrace(lambda *_: None)", ""),
    ],
    ids=["a thread works", "a profiler looks on", "a debugger looks on"],
)
def test_python_ends_a_process_in_which_more_goes_on(before: str, after: str) -> None:
    assert _ended(before, after)[1:] == ["slowly"]


def test_version_and_help(process: Mp) -> None:
    assert process("--version").out.startswith("mp 0.")
    overview = process().out
    for panel in ("Start:", "The model at hand:", "History:", "Upkeep:"):
        assert panel in overview
    assert process("--help").out == overview
    assert "--oneline" in process("log", "--help").out


def test_a_reader_that_has_enough(committed: Path, process: Mp) -> None:
    with subprocess.Popen(
        command_line("log"),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as running:
        assert running.stdout is not None
        running.stdout.close()
        assert running.stderr is not None
        assert running.stderr.read() == b""
    assert running.returncode == 141


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux only")
def test_a_full_disk_under_the_output(committed: Path) -> None:
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            command_line("log"),
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert done.returncode == 15
    assert done.stderr.startswith("error: no space left")
    assert os.strerror(errno.ENOSPC) not in done.stderr


@pytest.fixture
def listening_to_ctrl_c() -> Iterator[None]:
    """Processes started here hear SIGINT; those of a job in the background inherit not to."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("listening_to_ctrl_c")
def test_ctrl_c_is_no_traceback_and_no_commit(
    committed: Path, tmp_path: Path, process: Mp, mp: Mp
) -> None:
    _hook(committed, "kill -INT $PPID; sleep 1")
    other = write_model(tmp_path / "other", tensors(1))
    stopped = process("commit", other, expect=130)
    assert stopped.err == "interrupted\n"
    error = process("commit", other, "--json", expect=130).document["error"]
    assert (error["code"], error["kind"]) == (130, "interrupted")
    assert len(mp("log", "--json").document) == 1


def test_terminated_by_a_signal_mid_commit(committed: Path, tmp_path: Path, mp: Mp) -> None:
    _hook(committed, "kill -KILL $PPID")
    other = write_model(tmp_path / "other", tensors(1))
    killed = subprocess.run(
        command_line("commit", other),
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
        capture_output=True,
    )
    assert killed.returncode == -signal.SIGKILL
    assert len(mp("log", "--json").document) == 1
    mp("commit", other, "--no-verify")


def test_a_hook_that_refuses(committed: Path, tmp_path: Path, process: Mp) -> None:
    _hook(committed, 'echo "not $MP_BRANCH: $MP_MESSAGE at $MP_PATH in $MP_DIR"; exit 3')
    other = write_model(tmp_path / "other", tensors(1))
    refused = process("commit", other, "-m", "mine", expect=18)
    assert f"not main: mine at {other} in {committed / '.mergepipe'}" in refused.err
    assert "the hook pre-commit failed (exit code 3)" in refused.err
    assert refused.out == ""
    error = process("commit", other, "--json", expect=18).document["error"]
    assert error["kind"] == "hook_failed"
    process("config", "hooks.enabled", "false")
    process("commit", other, "--json")


def test_a_hook_that_agrees_can_use_mp(committed: Path, tmp_path: Path, process: Mp) -> None:
    log = " ".join(command_line("log", "--oneline"))
    _hook(committed, f"cd / && {log} > {tmp_path}/seen")
    process("commit", write_model(tmp_path / "other", tensors(1)), "-m", "Second")
    assert "First try" in (tmp_path / "seen").read_text()


def test_no_verify_skips_the_hook(committed: Path, tmp_path: Path, process: Mp) -> None:
    _hook(committed, "exit 1")
    process("commit", write_model(tmp_path / "other", tensors(1)), "--no-verify")


def test_trace_on_stderr_and_in_a_file(
    committed: Path, tmp_path: Path, process: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MP_TRACE", "1")
    traced = process("log", "nosuch", expect=1)
    assert "Traceback" in traced.err
    assert "RevisionNotFound" in traced.err
    monkeypatch.setenv("MP_TRACE", str(tmp_path / "trace"))
    assert "Traceback" not in process("log", "nosuch", expect=1).err
    process("log")
    lines = (tmp_path / "trace").read_text()
    assert lines.count("exit ") == 2
    assert "opened" in lines


def test_the_same_inputs_make_the_same_commit(
    tmp_path: Path, model: Path, process: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    made = []
    for name in ("one", "two"):
        process("init", tmp_path / name)
        made.append(process("-C", tmp_path / name, "commit", model, "-m", "x", "--json").document)
    assert made[0]["commit"] == made[1]["commit"]
    [entry] = process("-C", tmp_path / "one", "log", "--json").document
    assert (entry["time"], entry["utc_offset"]) == (1_700_000_000, 0)


def test_mp_dir_names_the_repository_and_dash_c_wins(
    committed: Path, tmp_path: Path, process: Mp, monkeypatch: pytest.MonkeyPatch
) -> None:
    process("init", tmp_path / "empty")
    monkeypatch.setenv("MP_DIR", str(committed / ".mergepipe"))
    monkeypatch.chdir("/")
    assert "First try" in process("log").out
    assert "no commits yet" in process("-C", tmp_path / "empty", "status").out


def test_no_colours_but_on_a_terminal(committed: Path, process: Mp) -> None:
    assert "\x1b" not in process("log").out


def test_a_bar_is_drawn_only_for_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(progress_bar, "_QUIET_S", 0.05)
    with open(theirs, "w") as terminal, open(ours, "rb", buffering=0) as screen:  # noqa: PTH123
        monkeypatch.setattr(sys, "stderr", terminal)
        bar = progress.TerminalProgress(lambda event: None)
        bar.start("short", 1000)
        bar.advance(10, 5)
        bar.close()
        bar.start("long", 1000)
        drawn = b""
        while b"long" not in drawn:
            drawn += screen.read(4096)  # waits for the timer, not for `advance`
        bar.close()
    assert b"short" not in drawn


def test_completion_offers_branches(committed: Path) -> None:
    done = subprocess.run(
        command_line(),
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "_MP_COMPLETE": "complete_bash",
            "COMP_WORDS": "mp log ma",
            "COMP_CWORD": "2",
        },
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.stdout.split() == ["main"]


def _hook(repository: Path, script: str) -> None:
    hook = repository / ".mergepipe/hooks/pre-commit"
    hook.write_text(f"#!/bin/sh\n{script}\n")
    hook.chmod(0o755)
