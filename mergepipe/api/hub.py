"""Models from the Hugging Face hub, and to it."""

import tempfile
from pathlib import Path

from mergepipe.api.contents import Contents
from mergepipe.api.hooking import NO_COMMIT
from mergepipe.api.opened import OpenRepository
from mergepipe.api.results import Uploaded
from mergepipe.api.working import Working
from mergepipe.progress import SILENT, Progress
from mergepipe.repository.hooks import PRE_PUSH
from mergepipe.transfer import hub
from mergepipe.transfer.hub import HubModel
from mergepipe.transfer.urls import parse_url
from mergepipe.version import __version__


def model_at(text: str, *, quiet: bool = False) -> HubModel:
    """A model of the hub (`hf://org/name[@rev]`), in its cache on this machine.

    Raises as `transfer.hub.download`.
    """
    return hub.download(hub.check_hub_url(parse_url(text)), __version__, quiet=quiet)


def push(
    repository: OpenRepository,
    text: str,
    revision: str = "HEAD",
    *,
    message: str = "",
    exact: bool = False,
    verify: bool = True,
    quiet: bool = False,
    progress: Progress = SILENT,
) -> Uploaded:
    """Upload the files of a revision as a new version of a model on the hub.

    Takes room for them in the temporary folder. `verify`: whether pre-push has a say.
    `exact`: files that the hub has beside them go.
    Raises as `transfer.hub.upload`.
    """
    url = hub.check_hub_url(parse_url(text))
    identity, commit = repository.model_of(revision)
    if verify:
        lines = [f"{NO_COMMIT} {identity.hex()} {url.shown}"]
        repository.hooks.run(PRE_PUSH, {"MP_REMOTE": "", "MP_URL": url.shown}, lines)
    files = repository.objects.snapshot(commit.snapshot).files
    said = message or commit.message or f"mergepipe {identity.hex()[:12]}"
    with tempfile.TemporaryDirectory(prefix="mergepipe-hub-") as folder:
        Working(repository, Contents(repository)).checkout(
            identity.hex(), to=Path(folder), progress=progress
        )
        upload = hub.upload(url, Path(folder), said, __version__, exact=exact, quiet=quiet)
    return Uploaded(url, identity, len(files), sum(file.size for file in files), upload)
