"""What a remote let go of, noted here where the models are not here either."""

from mergepipe.bytestore.protocol import ByteStore
from mergepipe.repository.presence import has_all
from mergepipe.repository.pruned import add_pruned, read_pruned
from mergepipe.repository.tombstones import add_tombstones, read_tombstones
from mergepipe.transfer.home import Home


def follow_pruned(home: Home, remote: ByteStore) -> None:
    """Note commits that came without their models; of those whose models are here nothing changes.

    What the remote purged is noted with what it says of it. A lazy clone's models go with the
    remote's, as far as it has not read them. Raises Locked, and RemoteUnreachable.
    """
    known = read_pruned(home.storage.store)
    pruned, stones = read_pruned(remote), read_tombstones(remote)
    news = [each for each in pruned.times if each not in known and home.objects.has(each)]
    if not news:
        return
    home.storage.promises.relist()  # what is not there any more is no promise
    home.storage.refresh()
    with home.refs.locked():
        missing = [each for each in news if not has_all(home.storage, home.objects.commit(each))]
        purged = [stones[each] for each in missing if each in stones]
        if purged:
            add_tombstones(home.storage.store, purged)
        let_go = [each for each in missing if each not in stones]
        if let_go:
            add_pruned(home.storage.store, let_go, home.signature().time)
