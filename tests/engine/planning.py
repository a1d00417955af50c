"""A catalog over one repository, as the API has one, so that tests can plan."""

from functools import partial

from mergepipe.catalog.profiles import Profiles
from mergepipe.checkpoints.small_files import read_stored_file
from mergepipe.engine.measuring import Measuring
from mergepipe.objects.encoding import encode
from mergepipe.objects.merging import Profile
from mergepipe.packs.choice import stored_encodings
from mergepipe.packs.only_ways import only_ways
from mergepipe.planner.planner import Planner, Revision


class RepositoryCatalog:
    """What `Planner` asks of a repository."""

    def __init__(self, repo, profiles=True):
        self._known = profiles
        self._repo = repo
        self._profiles = Profiles(repo.storage, repo.objects, repo.blocks)
        self.objects = repo.objects
        self.measure = Measuring(repo.storage)
        self.encodings = partial(stored_encodings, repo.storage)
        self.only_ways = partial(only_ways, repo.storage)

    def read_file(self, snapshot, path):
        return read_stored_file(snapshot, path, self._repo.objects, self._repo.blocks)

    def keep(self, snapshot, contents):
        with self._repo.transactions.begin() as transaction:
            identity = transaction.add_object(encode(snapshot))
            transaction.publish()
        return identity

    def revision(self, text):
        identity, commit = self._repo.commit_of(text)
        trained = commit.trained_from
        base = None if trained is None else self._repo.objects.commit(trained).snapshot
        return Revision(text, identity, commit.snapshot, trained, base)

    def profile(self, snapshot, base):
        if not self._known:
            return None
        found = self._profiles.ensure(snapshot, base)
        return (found, self._repo.objects.load(found, Profile))


def planner_of(repo, *, profiles=True):
    """A planner over a repository; without `profiles`, one that knows of none."""
    return Planner(RepositoryCatalog(repo, profiles))
