"""Timing of processes beside a peer, in one run: ratios, with medians and what they spread over.

Runs are interleaved (A B A B), because what else the machine does comes and goes in seconds.
"""

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

# Linux counts ru_maxrss in KiB, macOS in bytes.
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024
_UNCOMPILED = "PYTHONDONTWRITEBYTECODE"


@dataclass(frozen=True, slots=True)
class Sample:
    """One run of a process. `inner_s`: what it reported of itself, its start left out."""

    wall_s: float
    cpu_s: float
    peak_bytes: int
    inner_s: float | None = None


def installed() -> dict[str, str]:
    """The environment of what is measured: modules are compiled once, as installers do.

    The time that Python takes for source is not measured.
    """
    return {name: value for name, value in os.environ.items() if name != _UNCOMPILED}


def run(command: Sequence[str | Path], cwd: Path | None = None) -> Sample:
    """Run a process to its end; a last line `seconds X` of its output becomes `inner_s`."""
    begin = time.perf_counter()
    # Its own session: what it leaves on the terminal must not mix with the table.
    with subprocess.Popen(
        [os.fspath(part) for part in command],
        cwd=cwd,
        env=installed(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        output, errors = process.stdout.read(), process.stderr.read()
        _, status, usage = os.wait4(process.pid, 0)
        wall_s = time.perf_counter() - begin
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise SystemExit(f"{command} exited with {process.returncode}:\n{errors.decode()}")
    return Sample(wall_s, usage.ru_utime + usage.ru_stime, _peak(usage), _inner(output))


def _peak(usage: resource.struct_rusage) -> int:
    return usage.ru_maxrss * _RSS_UNIT


def _inner(output: bytes) -> float | None:
    last = output.strip().rpartition(b"\n")[2]
    return float(last.split()[1]) if last.startswith(b"seconds ") else None


def interleaved(
    cases: Mapping[str, Callable[[], Sample]], runs: int, before: Callable[[], None] = os.sync
) -> dict[str, list[Sample]]:
    """Every case `runs` times, in turns. `before` runs ahead of each, outside the timing."""
    samples: dict[str, list[Sample]] = {name: [] for name in cases}
    for _ in range(runs):
        for name, case in cases.items():
            before()
            samples[name].append(case())
    return samples


def spread(values: Sequence[float], unit: str = "s", scale: float = 1.0) -> str:
    """`1.23 s (1.20-1.31)`: median, least and most."""
    scaled = sorted(value * scale for value in values)
    middle = statistics.median(scaled)
    figures = [f"{each:.3g}" if each < 999.5 else f"{each:,.0f}" for each in (middle, *scaled)]
    return f"{figures[0]} {unit} ({figures[1]}-{figures[-1]})"


def ratio(ours: Sequence[float], peer: Sequence[float]) -> float:
    """Median of ours over the median of the peer's."""
    return statistics.median(ours) / statistics.median(peer)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; `limit` is the target of `value` (a ratio, or as `unit` says)."""

    what: str
    ours: str
    peer: str
    value: float
    limit: float | None
    unit: str = "x"


def print_table(rows: Sequence[Row]) -> bool:
    """Print the rows; whether every one is within its limit."""
    print(f"{'':44}  {'mergepipe':28}  {'peer':28}  {'':>9}  target")
    for row in rows:
        limit = "" if row.limit is None else f"<= {row.limit:g}{row.unit}"
        met = row.limit is None or row.value <= row.limit
        mark = "" if met else "  MISSED"
        value = f"{row.value:.2f}{row.unit}"
        print(f"{row.what:44}  {row.ours:28}  {row.peer:28}  {value:>9}  {limit}{mark}")
    return all(row.limit is None or row.value <= row.limit for row in rows)
