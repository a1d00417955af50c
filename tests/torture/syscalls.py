"""The system calls of a program, by strace, and what they do to a disk that forgets."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.torture.disk import Disk, File, Folder, everything

PROJECT = Path(__file__).parents[2]
_TRACED = (
    "openat,open,creat,close,dup,fcntl,lseek,write,writev,pwrite64,pwritev,ftruncate,fsync,"
    "fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat,rmdir,mkdir,mkdirat,link,linkat,"
    "symlink,symlinkat,sync_file_range,fallocate,copy_file_range,sendfile,fchmod"
)
# Calls that would change files in a way that is not modelled here.
_UNKNOWN = ("link", "linkat", "symlink", "symlinkat", "fallocate", "copy_file_range", "sendfile")
_HEX = re.compile(r"(?:\\x[0-9a-f]{2})+")
_CALL = re.compile(r"(\w+)\((.*)\) += (-?\d+)", re.DOTALL)
_STRING = re.compile(r'"((?:\\x[0-9a-f]{2})*)"')
_FD = re.compile(r"(AT_FDCWD|\d+)(?:<((?:\\x[0-9a-f]{2})*)>)?")


def require_strace() -> None:
    """Skip the test where strace is not there or may not trace."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("needs strace")
    if subprocess.run([strace, "-o", os.devnull, "true"], capture_output=True).returncode:
        pytest.skip("strace may not trace here")


def python(
    script: str, *arguments: str | Path, strace: Sequence[str] = ()
) -> "subprocess.CompletedProcess[str]":
    """Run a script that may import the tests' modules, perhaps under strace."""
    command = [*strace, sys.executable, "-c", script, *(str(argument) for argument in arguments)]
    path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), str(PROJECT))))
    environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=environment)


@dataclass(frozen=True, slots=True)
class Call:
    """One finished system call that did something."""

    name: str
    arguments: str
    result: int

    def strings(self) -> list[bytes]:
        """Its string arguments, in order."""
        return [_bytes(text) for text in _STRING.findall(self.arguments)]

    def descriptor(self) -> int:
        """Its first argument."""
        found = _FD.match(self.arguments)
        assert found is not None, self
        return int(found[1])

    def number(self, place: int) -> int:
        """An argument from the end that is a number: -1 is the last."""
        return int(self.arguments.split(", ")[place])

    def path(self, place: int) -> str:
        """The path argument number `place`, made absolute by the descriptor before it."""
        text = self.strings()[place].decode()
        before = self.arguments.split('"')[2 * place]
        folder = _FD.search(before)
        if folder is not None and folder[2]:
            return str(Path(_bytes(folder[2]).decode()) / text)
        return text

    def sync_of(self, part: str) -> bool:
        """Whether this makes something durable whose path holds `part`."""
        return self.name in ("fsync", "fdatasync") and part in self.shown()

    def shown(self) -> str:
        """For messages."""
        arguments = _HEX.sub(lambda hit: _bytes(hit[0]).decode("latin1"), self.arguments)
        return f"{self.name}({arguments[:200]})"


def record(script: str, *arguments: str | Path, log: Path) -> list[Call]:
    """Run a script under strace; its calls, in the order in which they finished."""
    options = ["-f", "-y", "-xx", "-s", "100000000", "-e", f"trace={_TRACED}", "-o", str(log)]
    done = python(script, *arguments, strace=["strace", *options])
    assert done.returncode == 0, done.stderr
    return list(_parse(log.read_text()))


def _parse(text: str) -> Iterator[Call]:
    unfinished: dict[str, str] = {}
    for line in text.splitlines():
        process, _, rest = line.partition(" ")
        rest = rest.lstrip()
        if rest.endswith("<unfinished ...>"):
            unfinished[process] = rest.removesuffix("<unfinished ...>").rstrip()
            continue
        if rest.startswith("<... "):
            rest = unfinished.pop(process) + rest.partition("resumed>")[2]
        found = _CALL.match(rest)
        if found is not None and int(found[3]) >= 0:
            yield Call(found[1], found[2], int(found[3]))


def _bytes(text: str) -> bytes:
    return bytes.fromhex(text.replace("\\x", ""))


@dataclass(slots=True)
class _Open:
    entry: File | Folder
    append: bool
    durable: bool
    position: int = 0


@dataclass(slots=True)
class Replay:
    """Applies calls to a disk. Descriptors of files elsewhere are ignored."""

    disk: Disk
    open: dict[int, _Open] = field(default_factory=dict)

    def apply(self, call: Call) -> bool:
        """Whether the call changed the disk, or what of it is durable."""
        name = call.name
        if name in ("openat", "open", "creat"):
            return self._opened(call)
        if name in ("rename", "renameat", "renameat2"):
            return self._rename(call.path(0), call.path(1))
        if name in ("unlink", "unlinkat", "rmdir"):
            return self._link(call.path(0), None)
        if name in ("mkdir", "mkdirat"):
            return self._link(call.path(0), Folder())
        if name in _UNKNOWN:
            paths = [self.disk.parts(call.path(at)) for at in range(len(call.strings()))]
            assert not any(paths), f"not modelled: {call.shown()}"
            return False
        found = self.open.get(call.descriptor())
        if found is None:
            return False
        return self._on_open(call, found)

    def _on_open(self, call: Call, found: _Open) -> bool:
        name, entry = call.name, found.entry
        if name == "close":
            del self.open[call.descriptor()]
        elif name == "dup" or (name == "fcntl" and "F_DUPFD" in call.arguments):
            self.open[call.result] = found
        elif name == "fcntl":
            pass  # locks and flags
        elif name == "lseek":
            found.position = call.result
        elif name in ("fsync", "fdatasync"):
            entry.sync()
            return True
        elif name == "syncfs":
            self.disk.sync()
            return True
        elif name == "ftruncate":
            assert isinstance(entry, File)
            entry.pending.append(call.number(-1))
            return True
        elif name == "fchmod":
            assert isinstance(entry, File)
            entry.executable = bool(int(call.arguments.split(", ")[-1], 8) & 0o100)
        elif name in ("write", "writev", "pwrite64", "pwritev"):
            self._write(call, found)
            return True
        else:
            raise AssertionError(f"not modelled: {call.shown()}")
        return False

    def _write(self, call: Call, found: _Open) -> None:
        assert isinstance(found.entry, File)
        data = b"".join(call.strings())[: call.result]
        if call.name.startswith("pwrite"):
            offset = call.number(-1)
        else:
            if found.append:
                found.position = len(found.entry.content(everything))
            offset = found.position
            found.position += len(data)
        found.entry.pending.append((offset, data))
        if found.durable:
            found.entry.sync()

    def _opened(self, call: Call) -> bool:
        names = self.disk.parts(call.path(0))
        self.open.pop(call.result, None)
        if names is None:
            return False
        entry = self.disk.find(names)
        made = entry is None
        if entry is None:
            assert "O_CREAT" in call.arguments, call.shown()
            entry = File(call.arguments.endswith("0777"))
            self.disk.link(names, entry)
        truncated = "O_TRUNC" in call.arguments and isinstance(entry, File)
        if isinstance(entry, File) and truncated:
            entry.pending.append(0)
        durable = "O_DSYNC" in call.arguments or "O_SYNC" in call.arguments
        self.open[call.result] = _Open(entry, "O_APPEND" in call.arguments, durable)
        return made or truncated

    def _rename(self, source: str, target: str) -> bool:
        here, there = self.disk.parts(source), self.disk.parts(target)
        if here is None and there is None:
            return False
        assert here is not None and there is not None, (source, target)
        entry = self.disk.find(here)
        assert entry is not None, source
        self.disk.link(there, entry)
        self.disk.link(here, None)
        return True

    def _link(self, path: str, entry: File | Folder | None) -> bool:
        names = self.disk.parts(path)
        if names is None:
            return False
        self.disk.link(names, entry)
        return True
