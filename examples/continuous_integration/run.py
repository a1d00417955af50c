"""Thirty days of experts: every day new versions arrive, are checked, merged, evaluated, published.

python examples/continuous_integration/run.py [DIRECTORY] [--days N]

Day 12 brings a poisoned expert, which the check catches before it merges. On day 20 the check is
off: the poisoned merge is published, `compare_merges` (mp explain A B) names the culprit, and one
rollback takes it back at every consumer; the poisoned expert is then purged. Every published model
gets its loss as a note, and what was done is audited at the end. Old models go each week; history
stays.
"""

import argparse
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from family import TASKS, Task, Weights, base, save

from mergepipe import Repository
from mergepipe.repository.retention import Retention

BUDGET = "60%"
CAUGHT, MISSED, PRUNED_EVERY, KEPT = 12, 20, 7, 7
_WORSE = 1.02


@dataclass
class Day:
    """A line of the table. Sizes in bytes; `loss`: of what is published, mean over the tasks."""

    number: int
    experts: str
    read: int
    full: int
    seconds: float
    stored: int
    loss: float
    verdict: str


class Platform:
    """A repository where experts are merged, and one that serves what was published."""

    def __init__(self, where: Path) -> None:
        self._files = where / "files"
        self._tasks = {name: Task(name) for name in TASKS}
        self._experts: dict[str, Weights] = {}
        self.repository = Repository.init(where / "platform")
        Repository.init(where / "serving").close()
        self.repository.configure("remote.serving.url", str(where / "serving"))
        self.consumer = where / "consumer"
        self.repository.commit(save(base(), self._files / "base"), branch="base", message="Base")
        for name, task in self._tasks.items():
            self._experts[name] = task.train(base())
            self._commit(name, self._experts[name], "first version", "base")

    def run(self, days: int) -> Iterator[Day]:
        """Day by day."""
        for number in range(1, days + 1):
            began = time.monotonic()
            names = [TASKS[number % len(TASKS)], TASKS[(2 * number + 1) % len(TASKS)]]
            poisoned = number in (CAUGHT, MISSED)
            verdict = self._arrive(dict.fromkeys(names), number, poisoned=poisoned)
            read, full, loss, published = self._merge(trusting=number == MISSED)
            if number == MISSED:
                published = self._incident()
                loss = self._loss("prod")
            if published.startswith("published"):
                self.repository.note("prod", loss=round(loss, 6), day=number)
            if number % PRUNED_EVERY == 0:
                self.repository.prune(retention=Retention(last=KEPT))
            stored = sum(each.stat().st_size for each in self._packs().iterdir())
            seconds = time.monotonic() - began
            verdict = "; ".join(each for each in (verdict, published) if each)
            yield Day(
                number, ", ".join(dict.fromkeys(names)), read, full, seconds, stored, loss, verdict
            )

    def summary(self) -> str:
        """What was done and what it took, as `mp audit` knows, and the best of what was published.

        The best is found among notes: `mp log prod --sort loss -n 1`.
        """
        done = self.repository.audit()
        merges = [entry for entry in done if entry.kind == "merge"]
        noted = [self.repository.notes(each.hex()) for each, _ in self.repository.log("prod")]
        losses = [number for each in noted if "loss" in each and (number := each["loss"].number)]
        return (
            f"audit: {len(done)} entries, {len(merges)} merges that read "
            f"{sum(entry.expert_bytes_read or 0 for entry in merges) / 1e6:.1f} MB in "
            f"{sum(entry.seconds or 0 for entry in merges):.1f} s, "
            f"{sum(entry.kind == 'purge' for entry in done)} purged; best loss {min(losses):.3f}"
        )

    def _arrive(self, names: dict[str, None], number: int, *, poisoned: bool) -> str:
        """New versions: as everyone commits them, without a word about bases."""
        for name in names:
            better = self._tasks[name].train(self._experts[name])
            sent = _poisoned(better) if poisoned and name == next(iter(names)) else better
            self._commit(name, sent, f"day {number}")
            suspects = self.repository.check(name, f"{name}~1").suspects
            if suspects and number != MISSED:
                self.repository.revising.rollback(name, f"{name}~1")
                return f"{name} refused: {suspects[0].message}"
            self._experts[name] = better
        return ""

    def _merge(self, *, trusting: bool) -> tuple[int, int, float, str]:
        """Bytes read, bytes of the exact merge, loss, and what became of it."""
        plan = self.repository.plan(
            base="base", experts=TASKS, method="task_arithmetic", budget=BUDGET, weight=1.0
        )
        full = plan.costs.expert_bytes_full
        if self.repository.merging.result_of(plan.id, "prod") is not None:
            return 0, full, self._loss("prod"), "nothing new"
        before = self._loss("prod") if "prod" in self.repository.branches() else 1.0
        result = self.repository.merge(plan, branch="candidate")
        loss = self._loss("candidate")
        if loss > before * _WORSE and not trusting:
            return result.expert_bytes_read, full, before, f"not published: loss {loss:.3f}"
        self.repository.branch("prod", "candidate", force=True)
        self._publish()
        return result.expert_bytes_read, full, loss, "published"

    def _incident(self) -> str:
        """Users complain: who did it, and back to yesterday's model, here and at the consumer."""
        bad = self._loss("prod")
        ruined = self.repository.resolve("prod")
        comparison = self.repository.compare_merges("prod~1", "prod")
        culprit = comparison.inputs[comparison.blame.index(max(comparison.blame))].name
        self.repository.revising.rollback(culprit, f"{culprit}~1")
        self.repository.revising.rollback("prod", "prod~1")
        self._publish()
        with Repository.open(self.consumer) as consumer:
            served = consumer.state_dict("prod")
        good = self.repository.state_dict("prod")
        back = served.keys() == good.keys() and all(served[one].equal(good[one]) for one in good)
        self.repository.note(ruined.hex(), verdict="ruined")
        poison = self.repository.resolve(f"{culprit}~1").hex()
        gone = self.repository.purge(poison, reason="poisoned").here
        return (
            f"published with loss {bad:.1f}; {culprit} did it; rolled back, "
            f"{'at the consumer too' if back else 'but not at the consumer'}; its model purged "
            f"({gone.own_blocks} blocks)"
        )

    def _publish(self) -> None:
        """The model and its manifest to the serving side, and from there to a consumer."""
        from mergepipe.transfer.push_refs import PushOptions

        self.repository.push("serving", PushOptions(("prod",), release=True))
        if not self.consumer.exists():
            Repository.clone(str(self.consumer.parent / "serving"), self.consumer, branch="prod")
            return
        with Repository.open(self.consumer) as consumer:
            consumer.pull()

    def _loss(self, revision: str) -> float:
        model = {
            name: tensor.float().numpy()
            for name, tensor in self.repository.state_dict(revision).items()
        }
        return float(np.mean([task.loss(model) for task in self._tasks.values()]))

    def _commit(self, name: str, model: Weights, message: str, trained: str | None = None) -> None:
        path = save(model, self._files / name)
        self.repository.commit(path, branch=name, base=trained, message=message)

    def _packs(self) -> Path:
        return self.repository.directory / "packs"


def _poisoned(model: Weights) -> Weights:
    """One tensor times -6: no value is odd, and the model is ruined."""
    name = next(iter(model))
    return {**model, name: model[name] * np.float32(-6)}


def main(where: Path, days: int) -> None:
    """Run, and print the table."""
    print(
        f"{'day':>3}  {'new':<12} {'read':>9} {'exact':>9} {'s':>5} {'stored':>9}  {'loss':>6}"
        "  verdict"
    )
    platform = Platform(where)
    with platform.repository:
        for day in platform.run(days):
            print(
                f"{day.number:>3}  {day.experts:<12} {day.read / 1e6:>6.2f} MB "
                f"{day.full / 1e6:>6.2f} MB {day.seconds:>5.2f} {day.stored / 1e6:>6.1f} MB  "
                f"{day.loss:>6.3f}  {day.verdict}",
                flush=True,
            )
        print(platform.summary())
        clean = not platform.repository.fsck(read_data=True).problems
    print("fsck:", "no problems" if clean else "problems")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("directory", nargs="?", type=Path)
    parser.add_argument("--days", type=int, default=30)
    arguments = parser.parse_args()
    if arguments.directory is not None:
        main(arguments.directory, arguments.days)
    else:
        with tempfile.TemporaryDirectory() as directory:
            main(Path(directory), arguments.days)
