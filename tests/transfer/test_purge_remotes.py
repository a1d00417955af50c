"""Purging from afar, over each wire that a server speaks."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import BinaryIO

import pytest

from mergepipe.api import Repository
from mergepipe.bytestore.http import HttpByteStore
from mergepipe.bytestore.protocol import ByteStore
from mergepipe.bytestore.stdio import StdioByteStore
from mergepipe.errors import AuthenticationError, Purged, RemoteRefused
from mergepipe.repository.tombstones import read_tombstones
from mergepipe.transfer.purging import ask_to_purge
from mergepipe.transfer.receiving import ReceivingStore
from mergepipe.transfer.serving.http import Service
from mergepipe.transfer.serving.offer import Offer
from mergepipe.transfer.serving.stdio import serve_stdio
from tests.bytestore.transports import PipePeer, serving

from .remotes import Family, same_models


@contextmanager
def by_http(there: Repository, read_only: bool = False) -> Iterator[ByteStore]:
    with ReceivingStore(there) as offered:
        offer = Offer(offered, read_only=read_only)
        with serving(Service(offer)) as url, HttpByteStore(url) as store:
            yield store


@contextmanager
def by_stdio(there: Repository, read_only: bool = False) -> Iterator[ByteStore]:
    with ReceivingStore(there) as offered:

        def serve(stdin: BinaryIO, stdout: BinaryIO) -> None:
            serve_stdio(offered, stdin, stdout, read_only=read_only)

        with StdioByteStore(lambda: PipePeer(serve), "a pipe") as store:
            yield store


Wire = Callable[..., AbstractContextManager[ByteStore]]


@pytest.mark.parametrize("wire", [by_http, by_stdio])
def test_no_block_stays_there(
    family: Family, there: Repository, tmp_path_factory: pytest.TempPathFactory, wire: Wire
) -> None:
    family.tune("math")
    family.tune("code")
    commit, record = family.repo.commit_of("math")
    own = {
        block
        for tensor in family.repo.objects.snapshot(record.snapshot).tensor_ids()
        for block in family.repo.objects.tensor(tensor).block_ids()
    }
    models, asked = [(commit, record.snapshot)], {"where": "there", "who": "Ada", "reason": "Gone"}
    with wire(there) as store:
        family.push(store, "main", "math", "code")
        with pytest.raises(RemoteRefused, match="lets nobody purge"):
            ask_to_purge(store, models, dry_run=False, **asked)
        there.configure("receive.allow_purge", "true")
        foretold = ask_to_purge(store, models, dry_run=True, **asked)
        assert there.resolve("math") == commit
        report = ask_to_purge(store, models, dry_run=False, **asked)
        assert (report.own_blocks, report.who) == (foretold.own_blocks, "Ada")
        assert report.own_blocks > 0
        with pytest.raises(RemoteRefused, match="Gone"):
            family.push(store, "math", force=True)
        assert commit in read_tombstones(store)
    there.storage.refresh()
    with there.storage.view() as view:
        left = {at.header.id for at in view.blocks()}
    assert {block for block in own if block.hex() in report.own_block_ids}.isdisjoint(left)
    with pytest.raises(Purged):
        there.model_of(commit.hex())
    assert there.fsck(read_data=True).ok
    assert same_models(family.repo, there, tmp_path_factory.mktemp("out"), "main", "code")


@pytest.mark.parametrize("wire", [by_http, by_stdio])
def test_who_may_only_read_purges_nothing(family: Family, there: Repository, wire: Wire) -> None:
    there.configure("receive.allow_purge", "true")
    commit, record = family.repo.commit_of("main")
    with wire(there, read_only=True) as store, pytest.raises((RemoteRefused, AuthenticationError)):
        ask_to_purge(
            store, [(commit, record.snapshot)], where="x", who="x", reason="", dry_run=False
        )
    assert not read_tombstones(there.store)
