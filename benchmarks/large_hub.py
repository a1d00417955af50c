"""What a remote of very many refs and packs takes, by path and over http, for docs/scale.md.

python benchmarks/large_hub.py [--refs 1000000] [--packs 500000] [--keep DIR]

The hub is a repository as `mp` makes it, with a pack for each commit, as many commits as packs, all
of one tiny model, and branches that share them out. Its index, which `mp` would have made pack by
pack, is made at once. Then clone, fetch and push of one branch run, and what looks at the hub
itself: each as a process of its own. It needs some 4 KiB of disk for each ref and each pack.
"""

import argparse
import os
import random
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from measure import Sample, run
from remotes import peak_bytes, served

from mergepipe.api import Repository
from mergepipe.bytestore.protocol import Buffer
from mergepipe.ids import ObjectId, PackId, digest, object_id
from mergepipe.objects.encoding import encode
from mergepipe.objects.records import Commit
from mergepipe.packs import format as pack_format
from mergepipe.packs.encoded_blocks import encode_object
from mergepipe.packs.format import Content
from mergepipe.packs.reader import pack_key
from mergepipe.repository.reflog import Signature

WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 0)
_A_TEAM = 1000  # branches of a folder


def make(root: Path, refs: int, packs: int) -> None:
    """The hub, written past the library: that would sync every file."""
    model = root / "model"
    model.mkdir(parents=True)
    (model / "weights.bin").write_bytes(random.Random(1).randbytes(4096))
    Repository.init(root / "hub", who=WHO).close()
    with Repository.open(root / "hub", who=WHO) as repo:
        first = repo.commit(model, branch="main", message="first")
        snapshot = repo.objects.commit(first.commit).snapshot
    directory = root / "hub" / ".mergepipe"
    commits = [_write_pack(directory, snapshot, number) for number in range(packs)]
    for begin in range(0, refs, _A_TEAM):
        folder = directory / f"refs/heads/team-{begin // _A_TEAM:04}"
        folder.mkdir(parents=True)
        for number in range(begin, min(refs, begin + _A_TEAM)):
            value = commits[number % packs].hex().encode() + b"\n"
            _write(f"{folder}/model-{number:07}", value)


def _write_pack(directory: Path, snapshot: ObjectId, number: int) -> ObjectId:
    commit = Commit(snapshot, (), None, WHO.author, WHO.time + number, 0, f"model {number}")
    canonical = encode(commit)
    header, payload = encode_object(canonical)
    sealed = header.sealed(digest(payload))
    footer = pack_format.footer_entry(sealed, pack_format.PACK_HEADER_BYTES)
    parts: list[Buffer] = [pack_format.pack_header(Content.OBJECTS), sealed, payload, footer]
    pack = b"".join([*parts, pack_format.trailer(footer)])
    _write(f"{directory}/{pack_key(PackId(digest(footer)))}", pack)
    return object_id(canonical)


def _write(path: str, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    os.write(descriptor, data)
    os.close(descriptor)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refs", type=int, default=1_000_000)
    parser.add_argument("--packs", type=int, default=500_000)
    parser.add_argument("--keep", type=Path, help="make the hub here, or take the one that is")
    parser.add_argument("--make", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--index", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", choices=["path", "http"], action="append")
    asked = parser.parse_args()
    if asked.make:
        make(asked.make, asked.refs, asked.packs)
        return
    if asked.index:
        with Repository.open(asked.index, who=WHO) as repo:
            repo.storage.refresh()
        return
    ways = asked.only or ["path", "http"]
    with tempfile.TemporaryDirectory() as temporary:
        root = asked.keep or Path(temporary)
        if not (root / "hub").exists():
            # In a process of its own: the peak of a child begins at what its parent had.
            sizes = ["--refs", str(asked.refs), "--packs", str(asked.packs)]
            told("making it", run([sys.executable, __file__, "--make", root, *sizes]))
        hub = root / "hub"
        clients = Path(temporary) / "clients"
        clients.mkdir()
        print(
            f"{asked.refs:,} refs, {asked.packs:,} packs{'':19}   processor   by the clock   peak"
        )
        told("its index, all at once", run([sys.executable, __file__, "--index", hub]))
        told("all is indexed, looked at again", run([sys.executable, __file__, "--index", hub]))
        told("log -1 in the hub", run(mp(hub, "log", "-n", "1")))
        told("status in the hub", run(mp(hub, "status")))
        told("branch 'team-0000/*' in the hub", run(mp(hub, "branch", "--list", "team-0000/*")))
        if "path" in ways:
            used(clients / "path", str(hub), "path")
        if "http" in ways:
            with server(hub) as url:
                used(clients / "http", url, "http")


def used(clone: Path, url: str, how: str) -> None:
    """What a client does with one branch."""
    branch = "team-0000/model-0000007"
    told(f"{how}: clone -b", run(mp(None, "clone", "-n", "-b", branch, url, str(clone))))
    lazy = ["clone", "--lazy", "--depth", "1", "-b", branch, url, f"{clone}-lazy"]
    told(f"{how}: clone --lazy --depth 1 -b", run(mp(None, *lazy)))
    told(f"{how}: fetch, nothing new", run(mp(clone, "fetch", "origin", branch)))
    told(f"{how}: fetch of another", run(mp(clone, "fetch", "origin", branch[:-1] + "9")))
    (clone / "new.bin").write_bytes(random.Random(how).randbytes(100))
    run(mp(clone, "commit", "-m", how))
    run(mp(clone, "branch", f"mine-{how}"))
    told(f"{how}: push of a new branch", run(mp(clone, "push", "origin", f"mine-{how}")))


@contextmanager
def server(hub: Path) -> Iterator[str]:
    """`mp serve` of it, whose memory is told in the end."""
    with served(hub) as (url, pid):
        yield url
        print(f"{'the server':42}{'':27}{peak_bytes(pid) / 2**20:8.0f} MiB", flush=True)


def mp(root: Path | None, *arguments: str) -> list[str | Path]:
    """A command."""
    place: list[str | Path] = [] if root is None else ["-C", root]
    return [sys.executable, "-m", "mergepipe", *place, *arguments]


def told(what: str, sample: Sample) -> None:
    """One line."""
    peak = sample.peak_bytes / 2**20
    print(f"{what:42}{sample.cpu_s:10.1f} s{sample.wall_s:13.1f} s{peak:8.0f} MiB", flush=True)


if __name__ == "__main__":
    os.environ["MP_AUTHOR"] = WHO.author
    main()
