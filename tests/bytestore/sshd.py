"""A real OpenSSH server of our own, on a free port of loopback, with keys made for it."""

import getpass
import os
import shlex
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd") or shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")


@dataclass(frozen=True)
class Server:
    """A running sshd, and how its client is called."""

    port: int
    command: str
    process: subprocess.Popen[bytes]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def running(folder: Path) -> Iterator[Server]:
    """Start it, with its files in `folder`; only our own key is let in."""
    folder.mkdir(parents=True, exist_ok=True)
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # where it drops its privileges to
    for name in ("host", "user"):
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True
        )
    shutil.copy(folder / "user.pub", folder / "authorized")
    options = [
        *("-F", "none", "-i", str(folder / "user"), "-o", "IdentitiesOnly=yes"),
        *("-o", f"UserKnownHostsFile={folder / 'known'}", "-o", "StrictHostKeyChecking=yes"),
        *("-o", "BatchMode=yes", "-l", getpass.getuser()),
    ]
    process = None
    while process is None:  # the port may be somebody else's by the time that sshd asks for it
        port = _free_port()
        process = _started(folder, port)
    try:
        (folder / "known").write_text(f"[127.0.0.1]:{port} {(folder / 'host.pub').read_text()}")
        yield Server(port, shlex.join(["ssh", *options]), process)
    finally:
        process.terminate()
        process.wait()


def _started(folder: Path, port: int) -> "subprocess.Popen[bytes] | None":
    """The server, once it says that it listens; None if the port is taken."""
    assert SSHD is not None
    settings = {
        "Port": port,
        "ListenAddress": "127.0.0.1",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "StrictModes": "no",  # pytest's folders are not as private as a home
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "prohibit-password",
    }
    config = folder / "config"
    config.write_text("".join(f"{key} {value}\n" for key, value in settings.items()))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([SSHD, "-D", "-e", "-f", str(config)], stderr=log)
    while b"Server listening" not in (said := (folder / "log").read_bytes()):
        if process.poll() is not None:
            assert b"Address already in use" in said, said
            return None
        time.sleep(0.01)
    return process


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
