"""Remotes with more refs and packs than fit in one reply: listings come in pages."""

from pathlib import Path

import pytest

from mergepipe.bytestore import wire
from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.ids import PackId, digest
from mergepipe.packs.entries import PackEntry
from mergepipe.packs.format import Content
from mergepipe.packs.index import Index
from mergepipe.transfer.remote_refs import read_refs
from mergepipe.transfer.serving.offer import Offer
from tests.bytestore.transports import TRANSPORTS

COMMIT = digest(b"a commit").hex().encode() + b"\n"
COUNT = 3000


@pytest.mark.parametrize("kind", ["http", "stdio"])
def test_listings_come_in_pages(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "PAGE_BYTES", 10_000)
    with TRANSPORTS[kind](tmp_path) as store:
        keys = [f"refs/heads/{number:05}" for number in range(COUNT)]
        for key in keys:
            (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / key).write_bytes(COMMIT)
        assert list(store.list("refs/")) == keys
        assert store.values("refs/") == dict.fromkeys(keys, COMMIT)
        assert len(read_refs(store).branches) == COUNT


def test_a_page_is_no_larger_than_a_listing_may_be() -> None:
    """Of as many as a large hub has; what is asked for without pages is still refused whole."""
    with MemoryByteStore() as store:
        for number in range(200_000):
            store.put(f"refs/heads/team-{number % 97}/model-{number:07}", COMMIT)
        offer, asked = Offer(store), []

        def ask(after: str) -> bytes:
            page = offer.values("refs/", after)
            assert len(page) <= wire.LARGEST_LISTING
            asked.append(after)
            return page

        values = wire.all_values(ask, "refs/")
        assert len(values) == 200_000 and len(asked) > 1
        keys = list(wire.all_keys(lambda after: offer.keys("refs/", after), "refs/"))
        assert len(keys) == 200_000


def test_packs_are_indexed_a_few_at_a_time_without_a_look_at_all(tmp_path: Path) -> None:
    """And what another has indexed, or dropped, meanwhile is not taken for known."""
    packs = [PackId(digest(b"%d" % number)) for number in range(40)]
    entries = [PackEntry(pack, 100, Content.BLOCKS, ()) for pack in packs]
    index = Index(tmp_path / "index")
    try:
        for at in range(0, 20, 5):
            index.add_packs(entries[at : at + 6])
        index.drop_packs(set(packs[:3]))
        index.add_packs(entries[:2])
        index.reset()
        index.add_packs(entries[30:])
        index.add_packs(entries)
        with index.view() as view:
            assert set(view.packs()) == set(packs)
    finally:
        index.close()
