"""Downloads from `mp serve` as a hub, beside `mp checkout` of the same file to the same disk.

python benchmarks/hub.py [--size 470MB] [--runs 5] [--directory DIR]

One safetensors file, a dense fine-tune stored against its base. Timed, in turns: a checkout (in a
process that has loaded everything), `curl` of the file with a sync, and huggingface_hub's own
client. Then sixteen clients at once: how much memory the server had at its peak beside one client,
and how far their times are apart; and the time until the first byte of a small range comes, warm.
"""

import argparse
import http.client
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

from measure import interleaved, run, spread
from remotes import MP, peak_bytes, served

from mergepipe.api import Repository
from mergepipe.sizes import MIB, parse_size

HERE = Path(__file__).parent
CLIENTS = 16
RANGES = 200
RANGE_BYTES = 64 << 10
_PIECE = 1 << 20
CHECKOUT = """
import sys, time
from importlib import import_module
from mergepipe.api import Repository
for module in ("codecs.residual", "codecs.split", "checkpoints.checkout"):
    import_module(f"mergepipe.{module}")
with Repository.open(sys.argv[1]) as repository:
    begin = time.perf_counter()
    repository.checkout("tuned", to=sys.argv[2])
    print("seconds", time.perf_counter() - begin)
"""
CLIENT = """
import sys, time
from huggingface_hub import hf_hub_download
begin = time.perf_counter()
hf_hub_download("store/tuned", "model.safetensors", endpoint=sys.argv[1], cache_dir=sys.argv[2])
print("seconds", time.perf_counter() - begin)
"""


def make(work: Path, size_bytes: int) -> Path:
    """A repository with a model of one file and a fine-tune of it."""
    root = work / "store"
    base, tuned = work / "base", work / "tuned"
    generate = [sys.executable, HERE / "generate_matrix.py", base, str(size_bytes)]
    subprocess.run(generate, check=True, capture_output=True)
    tune = [sys.executable, HERE / "generate_tuned.py", base, tuned, "1"]
    subprocess.run(tune, check=True, capture_output=True)
    Repository.init(root).close()
    for path, branch, lean in ((base, "base", []), (tuned, "tuned", ["--base", "base"])):
        commit = [*MP, "-C", root, "commit", path, "-b", branch, *lean]
        subprocess.run(commit, check=True, capture_output=True)
    return root


def download(url: str, branch: str = "tuned") -> float:
    """Seconds that one client takes for a branch's whole file, whose bytes it drops."""
    place = urlsplit(url)
    assert place.hostname is not None
    begin = time.perf_counter()
    line = http.client.HTTPConnection(place.hostname, place.port)
    line.request("GET", f"/store/{branch}/resolve/main/model.safetensors")
    reply = line.getresponse()
    while reply.read(_PIECE):
        pass
    line.close()
    return time.perf_counter() - begin


def at_once(root: Path, clients: int) -> tuple[int, list[float]]:
    """A fresh server's peak memory, and what each of some clients that begin together took."""
    took: list[float] = []
    with served(root) as (url, pid):
        threads = [
            threading.Thread(target=lambda: took.append(download(url))) for _ in range(clients)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return peak_bytes(pid), took


def first_bytes(root: Path, size: int) -> list[float]:
    """Seconds until the first byte of ranges anywhere in the file, on one warm connection."""
    took = []
    with served(root) as (url, _):
        place = urlsplit(url)
        assert place.hostname is not None
        line = http.client.HTTPConnection(place.hostname, place.port)
        places = random.Random(1)
        for _ in range(RANGES + 10):
            at = places.randrange(size - RANGE_BYTES)
            begin = time.perf_counter()
            wanted = {"Range": f"bytes={at}-{at + RANGE_BYTES - 1}"}
            line.request("GET", "/store/tuned/resolve/main/model.safetensors", headers=wanted)
            reply = line.getresponse()
            reply.read(1)
            took.append(time.perf_counter() - begin)
            reply.read()
        line.close()
    return took[10:]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="470MB")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--directory", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        work = Path(folder)
        root = make(work, parse_size(options.size))
        size = (work / "tuned" / "model.safetensors").stat().st_size
        out = work / "out"

        with served(root) as (url, _):
            file = f"{url}/store/tuned/resolve/main/model.safetensors"
            curl = f"curl -sf -o '{out}.curl' '{file}' && sync '{out}.curl'"
            numbers = iter(range(1 << 20))
            samples = interleaved(
                {
                    "checkout": lambda: run(
                        [sys.executable, "-c", CHECKOUT, root, f"{out}.{next(numbers)}"]
                    ),
                    "curl": lambda: run(["sh", "-c", curl]),
                    "client": lambda: run(
                        [sys.executable, "-c", CLIENT, url, f"{out}.{next(numbers)}"]
                    ),
                },
                options.runs,
            )
        times = {
            name: [one.inner_s if one.inner_s is not None else one.wall_s for one in each]
            for name, each in samples.items()
        }
        same = (work / "out.curl").read_bytes() == (
            work / "tuned" / "model.safetensors"
        ).read_bytes()
        assert same
        alone, _ = at_once(root, 1)
        together, took = at_once(root, CLIENTS)
        first = first_bytes(root, size)

        rate = size / 1e6 / statistics.median(times["checkout"])
        print(f"\n{size / 1e6:.0f} MB; a checkout makes {rate:.0f} MB/s")
        for name, each in times.items():
            print(f"  {name:10} {spread(each)}")
        paired = [a / b for a, b in zip(times["checkout"], times["curl"], strict=True)]
        print(f"  rate of curl beside checkout {spread(paired, 'x')}")
        print(f"  memory: {alone / MIB:.0f} MiB one client, {together / MIB:.0f} MiB {CLIENTS}")
        print(f"  {CLIENTS} clients: {spread(took)}")
        print(f"  first byte of {RANGE_BYTES >> 10} KiB: {spread(first, 'ms', 1e3)}")


if __name__ == "__main__":
    main()
