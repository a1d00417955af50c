"""Compiles mp's kernels in the background, as first commits and merges would."""

import subprocess
import tempfile
from pathlib import Path
from types import TracebackType

import torch
from safetensors.torch import save_file


class Kernels:
    """While open, a throw-away repository is made, filled and merged; closing waits for it."""

    def __init__(self, mp: Path) -> None:
        self._mp = mp

    def __enter__(self) -> None:
        self._directory = tempfile.TemporaryDirectory()
        place = Path(self._directory.name)
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(256, 256, generator=generator)
        for name, change in (("base", 0.0), ("a", 0.01), ("b", 0.01)):
            weights = weights + change * torch.randn(256, 256, generator=generator)
            save_file({"weight": weights.bfloat16()}, place / f"{name}.safetensors")
        quoted = f"'{self._mp}' -q"
        merge = f"{quoted} merge a b --base base --method task_arithmetic --weight 0.5"
        script = " && ".join(
            (
                f"{quoted} init .",
                f"{quoted} commit base.safetensors -b base -m Base",
                *(f"{quoted} commit {n}.safetensors -b {n} --base base -m {n}" for n in "ab"),
                f"{merge} -b exact",
                f"{merge} -b coarse --budget raw:10%",
            )
        )
        self._process = subprocess.Popen(
            script,
            shell=True,
            cwd=place,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        complaint = self._process.communicate()[1]
        self._directory.cleanup()
        if kind is None and self._process.returncode:
            raise SystemExit(f"compiling kernels failed: {complaint}")
