"""A hub with many models: what they take on disk, and many clients that load different ones.

python benchmarks/hub_many.py [--size 64MB] [--tuned 10] [--directory DIR]

Dense fine-tunes of one model of one file, each a branch. Bytes on disk after all are stored, beside
git-lfs with the same files, each a commit of a branch of its own (what its server keeps, which is
what KohakuHub keeps in S3: each file whole, once), and the files themselves. Then, from a fresh
server, all of them by one client one after the other, and by sixteen at once, each its own file.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from generate_matrix import write_matrix
from generate_tuned import tune
from hub import download
from measure import spread
from remotes import peak_bytes, served

from mergepipe.api import Repository
from mergepipe.sizes import MIB, parse_size

CLIENTS = 16


def bytes_on_disk(folder: Path) -> int:
    """Of all files below a folder."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def quietly(*words: str | Path, cwd: Path) -> None:
    """Run a command that has to work."""
    name = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@example.org"}
    who = {**name, "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a@example.org"}
    subprocess.run(words, cwd=cwd, check=True, capture_output=True, env={**os.environ, **who})


class Stores:
    """The same models in a repository, and with git-lfs in another."""

    def __init__(self, work: Path, size_bytes: int) -> None:
        self.root, self.lfs = work / "store", work / "lfs"
        self._work, self._base = work, work / "base"
        write_matrix(self._base, size_bytes)
        Repository.init(self.root).close()
        self.lfs.mkdir()
        quietly("git", "init", "-q", "-b", "base", cwd=self.lfs)
        quietly("git", "lfs", "install", "--local", cwd=self.lfs)
        quietly("git", "lfs", "track", "*.safetensors", cwd=self.lfs)
        self.whole = 0
        self.add(self._base, "base")

    def tune(self, number: int, *, with_git: bool) -> None:
        """Store one more fine-tune."""
        tuned = self._work / "tuned"
        tune(self._base, tuned, number)
        self.add(tuned, f"tuned-{number}", with_git=with_git)
        shutil.rmtree(tuned)

    def add(self, model: Path, branch: str, *, with_git: bool = True) -> None:
        """Store a model as a branch."""
        with Repository.open(self.root) as repository:
            base = None if branch == "base" else "base"
            repository.commit(model, branch=branch, base=base)
        if not with_git:
            return
        if branch != "base":
            quietly("git", "checkout", "-q", "-b", branch, "base", cwd=self.lfs)
        for path in model.iterdir():
            shutil.copyfile(path, self.lfs / path.name)
        quietly("git", "add", "-A", cwd=self.lfs)
        quietly("git", "commit", "-q", "-m", branch, cwd=self.lfs)
        self.whole += bytes_on_disk(model)


def together(root: Path, branches: list[str]) -> tuple[int, float, list[float]]:
    """A fresh server's peak memory; how long clients took in all, and each, that begin together."""
    took: list[float] = []
    with served(root) as (url, pid):
        threads = [
            threading.Thread(target=lambda name=name: took.append(download(url, name)))
            for name in branches
        ]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return peak_bytes(pid), time.perf_counter() - begin, took


def in_turn(root: Path, branches: list[str]) -> tuple[int, float]:
    """A fresh server's peak memory, and how long one client took for all of them."""
    with served(root) as (url, pid):
        begin = time.perf_counter()
        for name in branches:
            download(url, name)
        return peak_bytes(pid), time.perf_counter() - begin


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="64MB")
    parser.add_argument("--tuned", type=int, default=10)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        stores = Stores(Path(folder), parse_size(options.size))
        for number in range(1, options.tuned + 1):
            stores.tune(number, with_git=True)
        ours = bytes_on_disk(stores.root / ".mergepipe")
        theirs = bytes_on_disk(stores.lfs / ".git" / "lfs" / "objects")
        print(f"a base and {options.tuned} fine-tunes: {stores.whole / 1e6:.0f} MB of files")
        print(f"  git-lfs's server   {theirs / 1e6:8.0f} MB  {theirs / stores.whole:.2f}x")
        print(f"  here               {ours / 1e6:8.0f} MB  {ours / stores.whole:.2f}x")
        print(f"  ratio              {ours / theirs:.2f}x")

        for number in range(options.tuned + 1, CLIENTS + 1):
            stores.tune(number, with_git=False)
        branches = [f"tuned-{number}" for number in range(1, CLIENTS + 1)]
        alone, alone_s = in_turn(stores.root, branches)
        many, many_s, took = together(stores.root, branches)
        print(
            f"{CLIENTS} different files: one client in turn {alone_s:.1f} s, at once {many_s:.1f} s"
        )
        print(f"  each of them, at once: {spread(took)}")
        print(f"  memory: {alone / MIB:.0f} MiB one client, {many / MIB:.0f} MiB {CLIENTS}")


if __name__ == "__main__":
    main()
