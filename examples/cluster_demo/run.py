"""A merge on a cluster of two nodes over a bucket, one node killed on the way: the same ids.

python examples/cluster_demo/run.py [DIR]      (or `make cluster-demo`)

All of it runs on this machine: a Ray of two nodes, an S3 server, and nothing leaves. What it makes
is under DIR (default: ./cluster-demo-output). The same with `mp` is in docs/cluster.md.
"""

import os
import shutil
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import servers
from family import EXPERTS, MODEL_MIB, write_family
from msgspec.structs import replace

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.engine.result import MergeResult
from mergepipe.executors.ray_cluster import RayExecutor
from mergepipe.executors.segments import Executor, Home, Segment, SegmentResult, WorkerSpec
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.push_refs import PushOptions

# A large model is handed out in segments of 256 MiB; this one is small.
SEGMENT_BYTES = 4 << 20
WHO = "Demo <demo@example.org>"


def main() -> None:
    output = Path(sys.argv[1] if len(sys.argv) > 1 else "cluster-demo-output").resolve()
    if output.exists() and not (output / "models").is_dir():
        raise SystemExit(f"{output} was not made by this demo: name another directory")
    shutil.rmtree(output, ignore_errors=True)
    begin_s = time.monotonic()
    say(f"A base and {len(EXPERTS)} fine-tunes of {MODEL_MIB} MiB each, in a repository")
    write_family(output / "models")
    with Repository.init(output / "one-machine", who=WHO) as repo:
        repo.commit(output / "models/base", branch="main", message="Base")
        for name in EXPERTS:
            repo.commit(output / "models" / name, branch=name, base="main", message=name)
        with servers.bucket("models") as url:
            say(f"Pushing them to {url}, a bucket of an S3 server on this machine")
            repo.push(url, PushOptions(all_branches=True), credentials=keys(output))
            say("Merging on one machine, with threads")
            alone, _ = merge(repo, "threads")
            with servers.TwoNodes() as cluster:
                on_cluster(cluster, url, output / "clone", alone)
    say(f"Done in {time.monotonic() - begin_s:.0f} s; all of it is in {output}")


def on_cluster(cluster: servers.TwoNodes, url: str, path: Path, alone: MergeResult) -> None:
    """Merge in a lazy clone of the bucket, on the cluster; compare with what one machine made."""
    say("A lazy clone of the bucket: history and ids, no weights; it is the coordinator")
    clone(url, path, lazy=True, credentials=keys(path), who=WHO)
    with Repository.open(path, who=WHO, credentials=keys) as repo:
        before = size_of(path)
        say("Merging on two Ray nodes; the second is killed when its worker has begun")
        with RayExecutor("", 2) as workers:
            result, watched = merge(repo, workers, cluster, "origin/")
        print_table(watched)
        pushed = repo.push("origin", PushOptions(refs=("HEAD",)), credentials=keys(path)).pushed
        grown = size_of(path) - before
        say("What came of it")
        same = [
            (name, getattr(alone, key).hex()[:16], getattr(result, key).hex()[:16])
            for name, key in (
                ("snapshot", "snapshot"),
                ("manifest", "manifest_id"),
                ("plan", "plan_id"),
            )
        ]
        same += [
            ("expert bytes", f"{alone.expert_bytes_read:,}", f"{result.expert_bytes_read:,}"),
            ("base bytes", f"{alone.base_bytes_read:,}", f"{result.base_bytes_read:,}"),
        ]
        print(f"  {'':14}{'one machine':>18}{'cluster':>18}")
        for name, left, right in same:
            print(f"  {name:14}{left:>18}{right:>18}  {'same' if left == right else 'DIFFERENT'}")
        print(f"  the clone grew by {grown / 2**10:,.0f} KiB for {MODEL_MIB} MiB of output")
        print(f"  the push sent {pushed.blocks} blocks, {pushed.objects} objects")
        if any(left != right for _, left, right in same) or pushed.blocks:
            raise SystemExit("this is not as it should be")


@dataclass
class Watched:
    """An executor that is watched: who did what; and a node that goes while it works."""

    executor: Executor
    cluster: servers.TwoNodes | None = None
    done: list[SegmentResult] = field(default_factory=list)
    nodes: dict[int, int] = field(default_factory=dict)
    killed: bool = False
    is_elsewhere: bool = True

    def results(
        self, segments: Iterable[Segment], spec: WorkerSpec, home: Home
    ) -> Iterator[SegmentResult]:
        """As the executor, which is given the segments one by one."""
        for result in self.executor.results(self._given(segments), spec, home):
            self.done.append(result)
            yield result

    def close(self) -> None:
        """The executor is its owner's."""

    def _given(self, segments: Iterable[Segment]) -> Iterator[Segment]:
        since = 0
        for segment in segments:
            # Late enough for its worker to have done something, and to be at something.
            if since > 2 and not self.killed and self.cluster is not None:
                self.killed = True
                print("  ... killing the second node: Ray will say so at length", flush=True)
                self.cluster.kill_second()
            yield segment
            since += 2 in self._look().values()

    def _look(self) -> dict[int, int]:
        if self.cluster is not None and isinstance(self.executor, RayExecutor) and not self.killed:
            for pid in self.executor.pids:
                self.nodes[pid] = self.cluster.node_of(pid)
        return self.nodes


def merge(
    repo: Repository,
    on: str | Executor,
    cluster: servers.TwoNodes | None = None,
    prefix: str = "",
) -> tuple[MergeResult, Watched | None]:
    """Merge, in small segments; the result, and who did what."""
    watched = None if isinstance(on, str) else Watched(on, cluster)
    with repo.on(watched or on):
        planned = repo.plan(
            experts=[prefix + name for name in EXPERTS],
            base=prefix + "main",
            method="ties",
            densities=[0.5] * len(EXPERTS),
        )
        engine = replace(repo.merging.engine(), segment_bytes=SEGMENT_BYTES)
        return engine.execute(planned.plan, reuse=False), watched


def print_table(watched: Watched | None) -> None:
    """Who did what."""
    assert watched is not None
    print(
        f"  {'worker':28}{'node':>5}{'segments':>10}{'seconds':>9}{'MiB read':>10}"
        f"{'lost before':>13}"
    )
    hosts = {int(result.host.rpartition(":")[2]): result.host for result in watched.done}
    for pid in sorted({*hosts, *watched.nodes}):
        host, node = hosts.get(pid, f"process {pid}"), watched.nodes.get(pid, 0)
        own = [result for result in watched.done if result.host == host]
        read = sum(one.readings.expert_bytes + one.readings.base_bytes for one in own)
        print(
            f"  {host:28}{node or '?':>5}{len(own):>10}{sum(one.seconds for one in own):>9.1f}"
            f"{read / 2**20:>10.1f}{sum(len(one.attempts) for one in own):>13}"
        )


def keys(_: Path) -> Credentials:
    """Who we are to remotes: as the environment says."""
    return Credentials(dict(os.environ))


def size_of(path: Path) -> int:
    """What a directory takes on the disk."""
    return sum(512 * one.stat().st_blocks for one in path.rglob("*") if one.is_file())


def say(text: str) -> None:
    """A headline."""
    print(f"\n{text}", flush=True)


if __name__ == "__main__":
    main()
