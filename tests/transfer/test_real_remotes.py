"""A real base, its fine-tunes and a merge, to every kind of remote and back, bit for bit."""

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import msgspec
import pytest
from safetensors.torch import load_file, save_file

from mergepipe.api import Repository
from mergepipe.api.cloning import clone
from mergepipe.repository.reflog import Signature
from mergepipe.transfer.credentials import Credentials
from mergepipe.transfer.fetch import FetchOptions
from mergepipe.transfer.horizon import Reach
from mergepipe.transfer.push_refs import Move, PushOptions
from tests.bytestore import s3, sshd

MODELS = Path(__file__).parents[3] / "shared" / "data" / "tiny-llama"
NAMES = sorted(entry.parent.name for entry in MODELS.glob("*/model.safetensors"))
EXPERTS = [name for name in NAMES if name.startswith("expert")]
WHO = Signature("A U Thor <a@example.org>", 1_700_000_000, 0)
ROOT = Path(__file__).parents[2]
EVERYTHING = PushOptions(all_branches=True, tags=True)
Place = tuple[str, Credentials]

pytestmark = pytest.mark.skipif("base" not in NAMES, reason=f"no models in {MODELS}")


def digests(root: Path) -> dict[str, str]:
    """The hash of every file."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Repository]:
    """The base, two experts and a merge of them; a third expert comes later."""
    root = tmp_path_factory.mktemp("remotes") / "repo"
    with Repository.init(root, who=WHO) as repository:
        repository.commit(MODELS / "base", branch="base", message="base")
        for name in EXPERTS[:2]:
            repository.commit(MODELS / name, branch=name, base="base", message=name)
        plan = repository.plan(base="base", experts=EXPERTS[:2], method="ties", budget="50%")
        repository.merge(plan, branch="merged")
        repository.tag("v1", "merged")
        yield repository


@contextmanager
def by_path(folder: Path) -> Iterator[Place]:
    Repository.init(folder / "there").close()
    yield str(folder / "there"), Credentials()


@contextmanager
def by_http(folder: Path) -> Iterator[Place]:
    Repository.init(folder / "there").close()
    command = [sys.executable, "-m", "mergepipe", "serve", "--json", "--port", "0"]
    with subprocess.Popen([*command, folder / "there"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        url = msgspec.json.decode(process.stdout.readline())["url"]
        try:
            yield url, Credentials()
        finally:
            process.terminate()


@contextmanager
def by_ssh(folder: Path) -> Iterator[Place]:
    if sshd.SSHD is None:
        pytest.skip("no sshd here")
    Repository.init(folder / "there").close()
    program = folder / "mp"
    program.write_text(
        textwrap.dedent(f"""\
            #!/bin/sh
            PYTHONPATH={shlex.quote(str(ROOT))} exec {sys.executable} -m mergepipe "$@"
        """)
    )
    program.chmod(0o755)
    with sshd.running(folder / "sshd") as server:
        environment = {**os.environ, "MP_SSH": server.command, "MP_SSH_REMOTE": str(program)}
        yield f"ssh://127.0.0.1:{server.port}{folder}/there", Credentials(environment)


@contextmanager
def by_s3(folder: Path) -> Iterator[Place]:
    pytest.importorskip("moto")
    pytest.importorskip("obstore")
    with s3.serving() as make:
        bucket = make()
        yield f"s3://{bucket.name}/models/llama", Credentials(bucket.environment())


PLACES: dict[str, Callable[[Path], AbstractContextManager[Place]]] = {
    "file": by_path,
    "http": by_http,
    "ssh": by_ssh,
    "s3": by_s3,
}


@pytest.mark.parametrize("kind", PLACES)
def test_there_and_back(repo: Repository, kind: str, tmp_path: Path) -> None:
    late = f"late-{kind}"
    with PLACES[kind](tmp_path) as (url, credentials):
        pushed = repo.push(url, EVERYTHING, credentials=credentials).pushed
        assert {ref.move for ref in pushed.refs} == {Move.CREATED}
        again = repo.push(url, EVERYTHING, credentials=credentials).pushed
        assert (again.packs_sent, again.bytes_sent) == (0, 0)
        added = _more(repo, late)
        more = repo.push(url, PushOptions(refs=(late,)), credentials=credentials).pushed
        assert more.bytes_sent <= 1.02 * added
        clone(url, tmp_path / "clone", credentials=credentials, checkout=False, who=WHO)
        _served_alone(repo, url, credentials, tmp_path / "served")
    with Repository.open(tmp_path / "clone", who=WHO) as there:
        assert there.fsck(read_data=True).ok
        for name in ("base", *EXPERTS[:2]):
            there.checkout(f"origin/{name}", to=tmp_path / name)
            assert digests(tmp_path / name) == digests(MODELS / name)
        for name in ("merged", late):
            repo.checkout(name, to=tmp_path / f"{name}-here")
            there.checkout(f"origin/{name}", to=tmp_path / name)
            assert digests(tmp_path / name) == digests(tmp_path / f"{name}-here")
        assert there.resolve("v1") == repo.resolve("v1")
        assert there.replay("origin/merged").same


def _served_alone(repo: Repository, url: str, credentials: Credentials, place: Path) -> None:
    """What is served, without the experts it was merged of; then these, too."""
    clone(url, place, branch="merged", depth=1, credentials=credentials, who=WHO)
    with Repository.open(place, who=WHO) as served:
        assert (
            digests(place)["model.safetensors"]
            == hashlib.sha256(
                b"".join(repo.contents.read_file("merged", "model.safetensors"))
            ).hexdigest()
        )
        assert not served.objects.has(repo.resolve(EXPERTS[0]))
        assert served.fsck(read_data=True).ok
        whole = FetchOptions(("merged",), reach=Reach(whole=True))
        served.fetch(None, whole, credentials=credentials)
        assert served.replay("merged").same
        assert served.fsck(read_data=True).ok


def _more(repo: Repository, branch: str) -> int:
    """One more fine-tune; what it added to the store, in bytes."""
    path = repo.directory.parent / f"model-{branch}"
    shutil.copytree(MODELS / EXPERTS[2], path)
    model = path / "model.safetensors"
    tensors = load_file(model)
    for tensor in tensors.values():
        # Trained a little further, each time elsewhere: no block is one that is stored.
        tensor.view(-1)[sum(branch.encode()) % 37 :: 37] += 1e-3
    save_file(tensors, model, {"format": "pt"})
    return repo.commit(path, branch=branch, base="base", message=branch).stored_bytes
