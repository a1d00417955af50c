"""Configs through mergekit, with its own Python, all in one process."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

PYTHON = os.environ.get("MERGEKIT_PYTHON", "")
"""The Python that has mergekit; none if it is not here."""


@dataclass(frozen=True)
class Job:
    """A config for mergekit, where its result goes, and mergekit's own options."""

    config: Path
    out: Path
    options: dict[str, object] = field(default_factory=dict)


def run_mergekit(jobs: Sequence[Job], directory: Path) -> list[str | None]:
    """Per job null, or the error that mergekit ended with; its words are in `mergekit.log`."""
    listed = directory / "jobs.json"
    listed.write_text(
        json.dumps(
            [
                {"config": str(job.config), "out": str(job.out), "options": job.options}
                for job in jobs
            ]
        )
    )
    script = Path(__file__).with_name("run_mergekit.py")
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    with (directory / "mergekit.log").open("w") as log:
        # In a directory that is surely there: an earlier test's, which `mp -C` went to, may not be.
        subprocess.run(
            [PYTHON, script, listed],
            env=environment,
            stdout=log,
            stderr=log,
            check=True,
            cwd=directory,
        )
    outcomes: list[str | None] = json.loads(Path(f"{listed}.done").read_text())
    return outcomes
