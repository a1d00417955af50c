"""What a server tells of itself: health, metrics, an access log."""

import json
import re
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from mergepipe.bytestore.memory import MemoryByteStore
from mergepipe.transfer.serving.http import application
from mergepipe.transfer.serving.watching import route_of
from tests.cli.conftest import Mp
from tests.cli.test_serve import READ, WRITE, _this_checkout, other, serving  # noqa: F401


def _get(url: str, token: str = "") -> tuple[int, str]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as reply:
            return reply.status, reply.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def test_health_metrics_and_access_log(
    other: Path,  # noqa: F811
    tmp_path: Path,
    mp: Mp,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tokens, log = tmp_path / "tokens", tmp_path / "access.log"
    tokens.write_text(f"read reader {READ}\nwrite alice {WRITE}\n")
    tokens.chmod(0o600)
    monkeypatch.setenv("MP_TOKEN", WRITE)
    with serving(other, "--token-file", tokens, "--access-log", log) as (_, url):
        mp("push", url, "main")
        assert _get(f"{url}/healthz") == (200, "ok\n")
        assert _get(f"{url}/metrics")[0] == 401
        assert _get(f"{url}/metrics", "x" * 20)[0] == 401
        status, text = _get(f"{url}/metrics", READ)
    assert status == 200
    samples = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    for line in text.splitlines():
        assert re.fullmatch(r'# (HELP|TYPE) .*|[a-z_]+(\{([a-z]+="[^"]*",?)+\})? [0-9.e+-]+', line)
    assert samples['mergepipe_requests_total{method="POST",route="swaps",status="200"}'] == "1"
    assert int(samples['mergepipe_bytes_total{direction="in"}']) > 1000
    packs = list((other / ".mergepipe/packs").iterdir())
    name = f'repository="{other.name}"'
    assert samples[f"mergepipe_repository_packs{{{name}}}"] == str(len(packs))
    size = sum(pack.stat().st_size for pack in packs)
    assert samples[f'mergepipe_repository_bytes{{{name},folder="packs"}}'] == str(size)
    assert samples["mergepipe_errors_total"] == "0"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    swap = next(line for line in lines if line["path"].endswith("/v1/swaps"))
    assert (swap["token"], swap["method"], swap["status"]) == ("alice", "POST", 200)
    assert WRITE not in log.read_text()
    assert [line["status"] for line in lines if line["path"] == "/metrics"][:2] == [401, 401]


def test_metrics_may_be_open(other: Path, mp: Mp, monkeypatch: pytest.MonkeyPatch) -> None:  # noqa: F811
    monkeypatch.setenv("MP_SERVE_TOKENS", f"read:{READ}")
    with serving(other, "--open-metrics") as (_, url):
        assert _get(f"{url}/metrics")[0] == 200


def test_each_route_of_the_protocol_is_counted_by_its_name() -> None:
    paths = [route.path for route in application(MemoryByteStore()).routes]  # type: ignore[attr-defined]
    assert paths
    for path in paths:
        assert route_of(path) == path.split("/")[2]
