"""Kernels: what a call checks, what they may need, and where their code cannot be kept."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mergepipe.kernels.declared import declared_kernels, kernel
from mergepipe.kernels.primitives import on_stack
from mergepipe.kernels.signatures import boolean, float32, int64, read_only, uint8

SCRIPT = """
from mergepipe.kernels.declared import declared_kernels, kernel
from mergepipe.kernels.signatures import int64

@kernel(int64(int64))
def doubled(value):
    return 2 * value

print(doubled(21))
"""


@kernel()
def _larger(values: Any, least: Any) -> Any:
    count = 0
    for value in values:
        count += value > least
    return count


@kernel(int64(read_only(float32[::1]), float32))
def count_larger(values: Any, least: Any) -> Any:
    """How many values are larger: through a kernel that only kernels call."""
    return _larger(values, least)


@kernel(boolean(uint8[:, ::1], int64))
def mark(rows: Any, row: Any) -> Any:
    """Set a row to its sums over the stack; whether there is such a row."""
    if row >= rows.shape[0]:
        return False
    sums = on_stack((2, 4), np.int64)
    sums[:] = 0
    for column in range(rows.shape[1]):
        sums[0, column % 4] += rows[row, column]
    for column in range(rows.shape[1]):
        rows[row, column] = sums[0, column % 4]
    return True


@kernel(int64(int64))
def positive(value: Any) -> Any:
    """Raises, which kernels should not."""
    if value < 0:
        raise ValueError("negative")
    return value


@kernel(int64(int64))
def with_memory(count: Any) -> Any:
    """Wants an array of numba's runtime."""
    return np.zeros(count, np.uint8).sum()


def test_arguments_are_handed_over_as_they_are() -> None:
    values = np.arange(10, dtype=np.float32)
    values.flags.writeable = False
    assert count_larger(values, np.float32(6.5)) == 3
    rows = np.ones((3, 8), np.uint8)
    assert mark(rows, np.int64(1)) is True
    assert mark(rows, 3) is False
    assert rows.tolist() == [[1] * 8, [2] * 8, [1] * 8]


@pytest.mark.parametrize(
    "values",
    [
        np.arange(10, dtype=np.float64),
        np.arange(20, dtype=np.float32)[::2],
        np.zeros((2, 2), np.float32),
        [1.0, 2.0],
        np.frombuffer(bytes(13), np.uint8)[1:].view(np.float32),
    ],
)
def test_an_array_of_another_kind_is_refused(values: Any) -> None:
    with pytest.raises(TypeError, match="count_larger: argument 0 must be an"):
        count_larger(values, 1.0)


def test_what_is_read_only_is_not_written_to() -> None:
    rows = np.ones((3, 8), np.uint8)
    rows.flags.writeable = False
    with pytest.raises(TypeError, match="read-only"):
        mark(rows, 1)


def test_those_of_others_are_not_compiled_ahead() -> None:
    names = [declared.name for declared in declared_kernels()]
    assert __name__ + ".with_memory" not in names
    assert all(name.startswith("mergepipe.") for name in names)


def test_the_number_of_arguments_is_checked() -> None:
    with pytest.raises(TypeError, match="takes 2 arguments, not 1"):
        count_larger(np.zeros(1, np.float32))  # type: ignore[call-arg]


def test_a_kernel_without_a_signature_is_for_kernels() -> None:
    with pytest.raises(TypeError, match="only kernels can call it"):
        _larger(np.zeros(1, np.float32), 1.0)
    with pytest.raises(TypeError, match="in kernels only"):
        on_stack(3, np.uint8)


def test_an_error_inside_is_raised_and_forgotten() -> None:
    with pytest.raises(RuntimeError, match="positive failed"):
        positive(-1)
    assert positive(1) == 1


def test_a_kernel_that_needs_the_runtime_does_not_compile() -> None:
    with pytest.raises(TypeError, match=r"needs NRT_\w+"):
        with_memory(3)


def run_script(script: Path, folder: str) -> tuple[int, str, str]:
    ran = subprocess.run(
        [sys.executable, script],
        capture_output=True,
        text=True,
        cwd=script.parent,
        env={**os.environ, "MP_KERNEL_CACHE": folder},
        check=False,
    )
    return ran.returncode, ran.stdout, ran.stderr


@pytest.mark.parametrize("folder", ["/dev/null/cache", "read-only"])
def test_a_kernel_runs_without_a_cache(folder: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    (tmp_path / "read-only").mkdir(mode=0o500)
    assert run_script(script, folder) == (0, "42\n", "")


def test_a_kernel_runs_where_its_code_cannot_be_saved(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1, 1))\n"
    ignore = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    script.write_text(ignore + limit + SCRIPT.replace("print(", "assert 42 == ("))
    folder = tmp_path / "cache"
    code, _, errors = run_script(script, str(folder))
    assert code == 0, errors
    assert not list(folder.iterdir())


def test_kept_code_is_run_without_the_compiler(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT + "import sys\nprint('numba' in sys.modules)\n")
    folder = tmp_path / "cache"
    assert run_script(script, str(folder)) == (0, "42\nTrue\n", "")
    assert run_script(script, str(folder)) == (0, "42\nFalse\n", "")


def test_damaged_code_is_compiled_again(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    folder = tmp_path / "cache"
    run_script(script, str(folder))
    (kept,) = folder.glob("*.o")
    whole = kept.read_bytes()
    for damaged in (b"", whole[:200], whole[:-1] + bytes([whole[-1] ^ 1])):
        kept.write_bytes(damaged)
        assert run_script(script, str(folder)) == (0, "42\n", "")
        assert kept.read_bytes() == whole
