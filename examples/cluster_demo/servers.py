"""What a laptop has instead of a cluster: an S3 server and a Ray of two nodes, all of it local."""

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"

import ray
from ray.cluster_utils import Cluster

_STORE_BYTES = 100 << 20


@contextlib.contextmanager
def bucket(name: str) -> Iterator[str]:
    """The URL of a new bucket of a local server (moto), whose keys are in the environment then."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    endpoint = f"http://127.0.0.1:{port}"
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": endpoint,
    }
    try:
        _wait_for(port, server)
        urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{name}", method="PUT")).close()
        yield f"s3://{name}/family"
    finally:
        server.terminate()
        server.wait()


def _wait_for(port: int, server: "subprocess.Popen[bytes]") -> None:
    while server.poll() is None:
        with contextlib.suppress(OSError):
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        time.sleep(0.05)
    raise SystemExit("the S3 server did not start")


class TwoNodes:
    """A Ray cluster of two nodes with a CPU each, on this machine."""

    def __init__(self) -> None:
        head = {
            "num_cpus": 1,
            "object_store_memory": _STORE_BYTES,
            "include_dashboard": False,
        }
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._second = self._cluster.add_node(num_cpus=1, object_store_memory=_STORE_BYTES)
        ray.init(address=self._cluster.address, log_to_driver=False)
        self._raylets = {
            node.all_processes["raylet"][0].process.pid: number
            for number, node in enumerate([self._cluster.head_node, self._second], 1)
        }

    def __enter__(self) -> "TwoNodes":
        return self

    def __exit__(self, *_: object) -> None:
        ray.shutdown()
        self._cluster.shutdown()

    def node_of(self, pid: int) -> int:
        """The node (1, 2) that a worker runs on; 0 where it cannot be told."""
        with contextlib.suppress(OSError):
            # The parent of a worker is its node's raylet (proc(5), stat).
            status = Path(f"/proc/{pid}/stat").read_text()
            return self._raylets.get(int(status.rpartition(")")[2].split()[1]), 0)
        return 0

    def kill_second(self) -> None:
        """End the second node, and all that runs there, without a word."""
        self._cluster.remove_node(self._second, allow_graceful=False)
