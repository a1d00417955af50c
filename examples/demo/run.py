"""The main job on real weights: train a model and three fine-tunes, merge them with `mp`, measure.

python examples/demo/run.py [DIR]      (or `make demo`)

Everything is made anew under DIR (default: ./demo-output) and stays there to be looked at.
"""

import os

# Before torch: its threads must not spin where other programs want the cores.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")

import copy
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import corpus
import figures
import models
import torch
from kernels import Kernels
from transformers import LlamaForCausalLM

BASE = models.Schedule(most_steps=600, rate=3e-3, seed=1)
# Both goals lie well between the losses of two measurements: processors that round otherwise end at
# losses that differ by a hundredth, and must not make other numbers of steps of it.
BASE_LOSS = 3.8  # nats a token; an untrained model has ln 1024 = 6.9
TUNING = models.Schedule(most_steps=240, rate=6e-4, seed=2)
TUNED_SHARE = 0.965  # of the base's loss on a fine-tune's own text
OWN_SHARE = 0.7
METHOD = ("--method", "task_arithmetic", "--weight", "0.35")
BUDGET = "raw:10%"
THREADS = 2
MP = Path(sys.executable).with_name("mp")
LINE = Path(__file__).with_name("slow_line.py")


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "demo-output").resolve()
    begin_s = time.monotonic()
    if output.exists() and not (output / "models").is_dir():
        raise SystemExit(f"{output} was not made by this demo: name another directory")
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    # As many on every machine: the order of sums, and so the figures, depend on it.
    torch.set_num_threads(THREADS)
    print(
        f"""\
This trains a small Llama and three fine-tunes of it, commits them, merges them twice (exactly, and
reading a tenth of the bytes), measures what came out, and does both once more at the end of a slow
line. Two to four minutes on two cores; nothing is downloaded; all of it is in {output}
""",
        flush=True,
    )
    with Kernels(MP):  # compiled once per installation, beside the training
        held_out = train(output / "models")
    shell = Shell(output / "repository")
    stored = commit(shell, list(held_out))
    planned = json.loads(shell.output("plan", *held_out, "--budget", BUDGET, "--json"))
    # In this order, because what one merge made is not read for again by the next.
    budgeted = merge(shell, "budgeted", list(held_out), ["--budget", BUDGET])
    exact = merge(shell, "exact", list(held_out), [])
    compare(shell, output / "checkouts", held_out, exact, budgeted)
    shell.run("explain", "budgeted")
    shell.run("explain", "budgeted", "--tensor", "model.layers.0.mlp.up_proj.weight")
    shell.run("checkout", "exact")
    shell.run("log", "--graph", "--oneline")
    shell.run("status")
    far_away(output, list(held_out))
    print(figures.compared(figures.measured(stored, planned)), end="")
    print(f"\nDone in {time.monotonic() - begin_s:.0f} s. It is all in {output}; now try")
    for words in ("show", "diff main exact", "du", "replay budgeted"):
        print(f"  {shlex.join((str(MP), '-C', str(shell.directory)))} {words}")


def train(directory: Path) -> dict[str, torch.Tensor]:
    """Make base and fine-tunes, a directory each; returns the held-out tokens by domain."""
    print("Training a Llama of 1.9 million weights on text that is installed already", flush=True)
    domains = corpus.load()
    tokenizer = models.train_tokenizer([domain.training for domain in domains])
    texts = [models.encode(tokenizer, domain.training) for domain in domains]
    held_out = {domain.name: models.encode(tokenizer, domain.held_out) for domain in domains}

    goal = models.Goal(list(held_out.values()), BASE_LOSS)
    base = models.new_model(0)
    with Training("base", "a mix of all", goal) as training:
        training.train(base, [models.Part(text, 1.0) for text in texts], BASE)
    models.save(base, tokenizer, directory / "base")
    for own, domain in enumerate(domains):
        rest = (1 - OWN_SHARE) / (len(domains) - 1)
        parts = [
            models.Part(text, OWN_SHARE if place == own else rest)
            for place, text in enumerate(texts)
        ]
        own_text = [held_out[domain.name]]
        goal = models.Goal(own_text, TUNED_SHARE * models.mean_loss(base, own_text))
        expert = copy.deepcopy(base)
        with Training(domain.name, domain.about, goal) as training:
            training.train(expert, parts, TUNING)
        models.save(expert, tokenizer, directory / domain.name)
    return held_out


class Training:
    """One line that tells how far a training is, and at the end what it came to."""

    def __init__(self, name: str, about: str, goal: models.Goal) -> None:
        self._title = f"  {name:7} {about:22}"
        self._goal = goal
        self._steps = 0
        self._loss = 0.0

    def __enter__(self) -> Self:
        self._begin_s = time.monotonic()
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if kind is None:
            took_s = time.monotonic() - self._begin_s
            print(f"{self._start()}{self._told()}, {took_s:.0f} s", flush=True)

    def train(
        self,
        model: LlamaForCausalLM,
        parts: Sequence[models.Part],
        schedule: models.Schedule,
    ) -> None:
        models.train(model, parts, schedule, self._goal, self._tell)

    def _tell(self, steps: int, loss: float) -> None:
        self._steps, self._loss = steps, loss
        if sys.stdout.isatty():
            print(f"{self._start()}{self._told()} ", end="", flush=True)

    def _start(self) -> str:
        return f"\r{self._title}" if sys.stdout.isatty() else self._title

    def _told(self) -> str:
        return f"{self._steps:4} steps, held-out loss {self._loss:.3f} (goal {self._goal.loss:.3f})"


def commit(shell: "Shell", experts: list[str]) -> dict[str, str]:
    """Base and experts, each on a branch of its own; what each commit printed."""
    shell.run("init")
    printed = {"main": shell.said("commit", "../models/base", "-m", "Base model")}
    for name in experts:
        message = f"Fine-tuned on {name}"
        words = ("commit", f"../models/{name}", "-b", name, "--base", "main", "-m", message)
        printed[name] = shell.said(*words)
    shell.run("init", "../server")
    shell.run("push", "../server", "--all")
    return printed


@dataclass(frozen=True, slots=True)
class Cost:
    """What a merge read and took."""

    expert_bytes: int
    base_bytes: int
    seconds: float


def merge(shell: "Shell", branch: str, experts: list[str], budget: list[str]) -> Cost:
    """Merge on a branch of its own; the cost is what `mp` wrote down of the run."""
    message = f"Merged within {budget[-1]}" if budget else "Merged exactly"
    words = ("merge", *experts, *METHOD, *budget, "-b", branch, "-m", message)
    shell.run(*words)
    tip = json.loads(shell.output("log", branch, "-n", "1", "--json"))[0]["commit"]
    run = json.loads((shell.directory / ".mergepipe" / "runs" / f"{tip}.json").read_text())
    return Cost(run["expert_bytes_read"], run["base_bytes_read"], run["seconds"])


def compare(
    shell: "Shell", checkouts: Path, held_out: dict[str, torch.Tensor], exact: Cost, budgeted: Cost
) -> None:
    """Bytes, time and held-out loss of every model, side by side."""
    costs = {"exact": exact, "budgeted": budgeted}
    names = {"main": "base", "exact": "merged exactly", "budgeted": f"merged at {BUDGET}"}
    losses: dict[str, list[float]] = {}
    for branch in ("main", *held_out, *costs):
        shell.output("checkout", branch, "--to", str(checkouts / branch))
        model = models.load(checkouts / branch)
        losses[branch] = [models.held_out_loss(model, tokens) for tokens in held_out.values()]
    print("\nHeld-out loss (nats a token; checked out and loaded with transformers)\n")
    head = "".join(f"{domain:>9}" for domain in held_out)
    print(f"  {'':22}{head}{'sum':>9}   expert bytes   base bytes     time")
    for branch, own in losses.items():
        cells = "".join(f"{loss:9.3f}" for loss in (*own, sum(own)))
        cost = costs.get(branch)
        spent = (
            ""
            if cost is None
            else f"{cost.expert_bytes:15,}{cost.base_bytes:13,}{cost.seconds:7.2f} s"
        )
        print(f"  {names.get(branch, branch):22}{cells}{spent}")
    gains = [sum(losses["main"]) - sum(losses[branch]) for branch in costs]
    share = budgeted.expert_bytes / exact.expert_bytes
    print(
        f"\n  {BUDGET} read {share:.0%} of the exact merge's expert bytes "
        f"and kept {gains[1] / gains[0]:.0%} of its gain over the base.\n"
    )


def far_away(output: Path, experts: list[str]) -> None:
    """Where a budget pays: the models are at the end of a slow line."""
    print(
        f"\nThe same merges where the models are far away: ssh is {LINE.name} here, a line of a\n"
        "mebibyte a second. Once all is fetched and merged exactly, once a lazy clone reads what\n"
        "its budget allows.",
        flush=True,
    )
    branches = [f"origin/{name}" for name in experts]
    url = f"ssh://far-away{output / 'server'}"
    spent = {}
    for name, lazy, budget in (("whole", [], []), ("lazy", ["--lazy"], ["--budget", BUDGET])):
        count = output / f"line-{name}"
        line = shlex.join([sys.executable, str(LINE), str(count)])
        shell = Shell(output / f"far-{name}", {"MP_SSH": line, "MP_SSH_REMOTE": str(MP)})
        begin_s = time.monotonic()
        shell.run("clone", *lazy, url, ".")
        shell.run("merge", *branches, "--base", "origin/main", *METHOD, *budget, "-b", "merged")
        seconds = time.monotonic() - begin_s
        spent[name] = (sum(map(int, count.read_text().split())), seconds)
    print("\n                                    over the line     time")
    titles = {"whole": "clone, merge exactly", "lazy": f"lazy clone, merge at {BUDGET}"}
    for name, (passed, seconds) in spent.items():
        print(f"  {titles[name]:30}{passed:13,} bytes{seconds:7.1f} s")


class Shell:
    """Runs `mp` in a directory, as a user would, and shows what is typed."""

    def __init__(self, directory: Path, environment: dict[str, str] | None = None) -> None:
        directory.mkdir()
        self.directory = directory
        self._environment = {**os.environ, **(environment or {})}

    def run(self, *words: str) -> None:
        """Show a command and its output. Ends the demo where the command fails."""
        self._show(words)
        if subprocess.run(
            [MP, *words], cwd=self.directory, env=self._environment, check=False
        ).returncode:
            raise SystemExit("the demo stops here: the command failed")

    def said(self, *words: str) -> str:
        """The output of a command that is shown."""
        self._show(words)
        output = self.output(*words)
        print(output, end="", flush=True)
        return output

    def output(self, *words: str) -> str:
        """The output of a command that is not shown."""
        done = subprocess.run(
            [MP, *words],
            cwd=self.directory,
            env=self._environment,
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return done.stdout

    def _show(self, words: Sequence[str]) -> None:
        print(f"\n$ {shlex.join(('mp', *words))}", flush=True)


if __name__ == "__main__":
    main()
