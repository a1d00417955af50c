"""What listing a large remote takes: refs and packs by the hundred thousand, for docs/scale.md.

python benchmarks/large_hub.py [--refs 100000] [--packs 50000]
"""

import argparse
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from mergepipe.bytestore import wire
from mergepipe.bytestore.local import LocalByteStore
from mergepipe.ids import NO_ID, PackId, digest
from mergepipe.packs.format import Content, RecordHeader, RecordKind
from mergepipe.packs.index import Index, PackEntry
from mergepipe.transfer.remote_refs import read_refs
from mergepipe.transfer.serving.offer import Offer

_RECORDS = 20
_AT_ONCE = 64
VALUE = digest(b"commit").hex().encode() + b"\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--refs", type=int, default=100_000)
    parser.add_argument("--packs", type=int, default=50_000)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary, LocalByteStore(Path(temporary)) as store:
        folder = Path(temporary)
        for number in range(asked.refs):
            path = folder / f"refs/heads/team-{number % 1000:03}/model-{number:07}"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(VALUE)
        offer, pages = Offer(store), []

        def ask(after: str) -> bytes:
            pages.append(after)
            return offer.values("refs/", after)

        timed(f"{asked.refs:,} refs, by path", lambda: read_refs(store))
        timed("the same, in pages", lambda: wire.all_values(ask, "refs/"))
        print(f"  {len(pages)} pages")
        (folder / "packs").mkdir()
        for number in range(asked.packs):
            (folder / "packs" / f"{digest(b'%d' % number).hex()}.pack").touch()
        timed(f"{asked.packs:,} packs, listed", lambda: list(store.list("packs/")))
        index = Index(folder / "index")
        timed(
            f"indexed, {_AT_ONCE} at a time, of {_RECORDS} records each",
            lambda: index_all(index, asked.packs),
        )
        with index.view() as view:
            timed("all packs of the index", view.packs)
        index.close()


def index_all(index: Index, packs: int) -> None:
    """Add packs in batches, as a fetch does."""
    for at in range(0, packs, _AT_ONCE):
        index.add_packs([_entry(number) for number in range(at, min(packs, at + _AT_ONCE))])


def _entry(number: int) -> PackEntry:
    headers = [
        RecordHeader(
            RecordKind.BLOCK, 2, 1, 0, 1, 1 << 20, 700_000, digest(b"%d/%d" % (number, n)), NO_ID
        )
        for n in range(_RECORDS)
    ]
    records = [(header, 16 + n * headers[0].stored_bytes) for n, header in enumerate(headers)]
    return PackEntry(PackId(digest(b"%d" % number)), 1 << 28, Content.BLOCKS, records)


def timed(what: str, do: Callable[[], object]) -> None:
    """Do it, and say what it took."""
    cpu, wall = time.process_time(), time.perf_counter()
    do()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        f"{what:52}{time.process_time() - cpu:8.2f} s of CPU{time.perf_counter() - wall:8.1f} s"
        f"{peak:8.0f} MiB",
        flush=True,
    )


if __name__ == "__main__":
    main()
