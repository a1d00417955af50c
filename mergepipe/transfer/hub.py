"""The Hugging Face hub, as a place that models come from and go to: `hf://org/name[@revision]`.

All requests are made by huggingface_hub (https://huggingface.co/docs/huggingface_hub), with its
cache, its token and its variables (HF_HOME, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE). It is loaded
when a hub URL is used, and told to send no telemetry.
"""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from msgspec import Struct

from mergepipe.errors import (
    AuthenticationError,
    MergepipeError,
    RemoteRefused,
    RemoteUnreachable,
    RevisionNotFound,
    UsageError,
)
from mergepipe.names import escape_for_terminal
from mergepipe.transfer.urls import RemoteUrl, Scheme

_SHOWN = 300


class HubModel(Struct, frozen=True):
    """A model of the hub in its cache on this machine: a directory of links to files.

    `commit` is the hub's own id of that version, forty hex digits.
    """

    url: RemoteUrl
    path: Path
    commit: str

    @property
    def title(self) -> str:
        """What a commit of it is called, unless told otherwise."""
        return f"{self.url} ({self.commit[:12]})"


class HubUpload(Struct, frozen=True):
    """What an upload made: the hub's id of the new version, and where to look at it."""

    commit: str
    page: str
    created: bool


def download(url: RemoteUrl, version: str, *, quiet: bool = False) -> HubModel:
    """The files of a model, downloaded into the hub's cache as far as they are not there.

    `version` is ours, for the hub to know. Offline, or where HF_HUB_OFFLINE is set, what the cache
    has is used. `quiet`: without the hub's own progress bars. Raises RevisionNotFound,
    AuthenticationError, RemoteUnreachable, RemoteRefused, UsageError (the extra is not installed).
    """
    hub = _hub(quiet)
    with _failing(url):
        path = Path(
            hub.snapshot_download(
                url.path,
                revision=url.revision or None,
                local_files_only=bool(hub.constants.HF_HUB_OFFLINE),
                library_name="mergepipe",
                library_version=version,
            )
        )
    return HubModel(url, path, path.name)


def upload(
    url: RemoteUrl,
    folder: Path,
    message: str,
    version: str,
    *,
    exact: bool = False,
    quiet: bool = False,
) -> HubUpload:
    """Make the files of a folder a new version of a model on the hub.

    A model that is not there is made, and is private; `revision` is the branch, made if it is not
    there. Files that the model has and the folder has not stay, unless `exact`. Raises as
    `download`.
    """
    hub = _hub(quiet)
    with _failing(url):
        api = hub.HfApi(library_name="mergepipe", library_version=version)
        created = not api.repo_exists(url.path)
        if created:
            # The hub's default is public: what may be seen by all is for people to say.
            api.create_repo(url.path, private=True, exist_ok=True)
        if url.revision:
            api.create_branch(url.path, branch=url.revision, exist_ok=True)
        commit = api.upload_folder(
            repo_id=url.path,
            folder_path=folder,
            revision=url.revision or None,
            commit_message=message or "mergepipe",
            delete_patterns="*" if exact else None,
        )
    return HubUpload(str(commit.oid), str(commit.commit_url), created)


def check_hub_url(url: RemoteUrl) -> RemoteUrl:
    """Return a URL of the hub. Raises UsageError for another."""
    if url.scheme is not Scheme.HUB:
        raise UsageError(f"{url} is not on the Hugging Face hub", "hf://org/name")
    return url


def _hub(quiet: bool) -> Any:
    try:
        import huggingface_hub
        from huggingface_hub import constants, utils
    except ImportError as error:
        raise UsageError(
            "hf:// needs huggingface_hub, which is not installed", "pip install 'mergepipe[hub]'"
        ) from error
    # Else its requests tell of the torch that is installed, and of what runs us.
    constants.HF_HUB_DISABLE_TELEMETRY = True
    bars: Any = utils
    (bars.disable_progress_bars if quiet else bars.enable_progress_bars)()
    return huggingface_hub


@contextlib.contextmanager
def _failing(url: RemoteUrl) -> Iterator[None]:
    """Errors of the library as ours."""
    from huggingface_hub import errors

    try:
        yield
    except MergepipeError:
        raise
    except errors.GatedRepoError as error:
        raise AuthenticationError(
            f"{url} is gated: its owners let in whom they choose",
            "ask for access on the model's page, then log in: hf auth login, or HF_TOKEN",
        ) from error
    except errors.RevisionNotFoundError as error:
        raise RevisionNotFound(f"{url}: the hub has no such revision of it") from error
    except errors.RepositoryNotFoundError as error:
        raise RevisionNotFound(
            f"{url}: the hub has no such model, or does not show it to us",
            "a private one takes a login: hf auth login, or HF_TOKEN",
        ) from error
    except errors.LocalEntryNotFoundError as error:
        raise RemoteUnreachable(
            f"{url} is not whole in the hub's cache, and the hub cannot be asked: {_words(error)}",
            "unset HF_HUB_OFFLINE, or try again when the network is up",
        ) from error
    except errors.HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else 0
        if status in (401, 403):
            raise AuthenticationError(
                f"the hub does not let us at {url}: {_words(error)}",
                "log in: hf auth login, or HF_TOKEN",
            ) from error
        if 400 <= status < 500:
            raise RemoteRefused(f"the hub refused {url}: {_words(error)}") from error
        raise RemoteUnreachable(f"the hub has trouble with {url}: {_words(error)}") from error
    except (errors.HFValidationError, errors.LocalTokenNotFoundError) as error:
        raise UsageError(f"{url}: {_words(error)}") from error
    except _network_errors() as error:
        raise RemoteUnreachable(f"the hub cannot be reached for {url}: {_words(error)}") from error


def _network_errors() -> tuple[type[Exception], ...]:
    """What its http client raises: another one with each of the library's major versions."""
    clients = (("httpx2", "HTTPError"), ("httpx", "HTTPError"), ("requests", "RequestException"))
    loaded = [getattr(sys.modules[name], kind) for name, kind in clients if name in sys.modules]
    return (ConnectionError, TimeoutError, *loaded)


def _words(error: Exception) -> str:
    """What the library says, on one line."""
    return escape_for_terminal(" ".join(str(error).split()), _SHOWN)
