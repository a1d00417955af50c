"""What a remote let go of, noted here where the models are not here either."""

from mergepipe.repository.presence import has_all
from mergepipe.repository.pruned import Pruned, add_pruned, read_pruned
from mergepipe.transfer.home import Home


def follow_pruned(home: Home, pruned: Pruned) -> None:
    """Note commits that came without their models; of those whose models are here nothing changes.

    A lazy clone's models go with the remote's, as far as it has not read them. Raises Locked, and
    RemoteUnreachable.
    """
    known = read_pruned(home.storage.store)
    news = [each for each in pruned.times if each not in known and home.objects.has(each)]
    if not news:
        return
    home.storage.promises.relist()  # what is not there any more is no promise
    home.storage.refresh()
    with home.refs.locked():
        missing = [each for each in news if not has_all(home.storage, home.objects.commit(each))]
        if missing:
            add_pruned(home.storage.store, missing, home.signature().time)
