"""Loaded once by the server that others are forked from: what pushes and fetches load lazily."""

from pathlib import Path

import mergepipe.bytestore.http
import mergepipe.hub.site
import mergepipe.transfer.serving.listening  # noqa: F401 - loaded for those who are forked
from mergepipe.api import Repository
from mergepipe.transfer.connect import file_remote
from mergepipe.transfer.fetch import fetch
from mergepipe.transfer.push import push
from mergepipe.transfer.push_refs import Wanted
from tests.properties.trees import scratch
from tests.repository.checkpoints import WHO

from .source import Models, source_of


def _work(folder: Path) -> None:
    models = Models(folder / "source", 1)
    Repository.init(folder / "there", who=WHO).close()
    for _ in range(2):
        with file_remote(Repository.open(folder / "there", who=WHO)) as there:
            wanted = [Wanted("refs/heads/main", models.tune())]
            push(source_of(models.repo), there, wanted)
    with (
        Repository.init(folder / "mine", who=WHO) as mine,
        file_remote(Repository.open(folder / "there", who=WHO)) as there,
    ):
        fetch(mine, "origin", there)
        mine.gc(grace_s=0)
    models.close()


with scratch() as made:
    _work(made)
