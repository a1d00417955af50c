"""Serving what is not here yet: lazy clones fetch what is asked for, once; remotes below a root."""

from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from mergepipe.api import Repository
from tests.hub.conftest import WHO, serving

MIB = 1 << 20


def test_a_lazy_clone_fetches_what_is_asked_for_once(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    weights = np.random.default_rng(5).standard_normal((4, MIB // 2)).astype(np.float32)
    save_file({"weights": weights}, model / "model.safetensors")
    (model / "config.json").write_text("{}")
    content = (model / "model.safetensors").read_bytes()
    with Repository.init(tmp_path / "zoo", who=WHO) as repository:
        repository.commit(model, branch="main")
    place = "/lazy/main/resolve/main/model.safetensors"
    end = len(content)
    with serving(tmp_path / "zoo") as origin:
        Repository.clone(origin.url, tmp_path / "lazy", lazy=True, who=WHO)
        with serving(tmp_path / "lazy") as hub:
            wanted = {"Range": f"bytes={end - 100}-"}
            assert hub.ask(place, headers=wanted).body == content[-100:]
            promised = list((tmp_path / "lazy" / ".mergepipe" / "promised").glob("*.pack"))
            here = sum(path.stat().st_blocks * 512 for path in promised)
            assert here < 3 * MIB  # of eight
            origin.process.kill()
            origin.process.wait()
            assert hub.ask(place, headers=wanted).body == content[-100:]
    with serving(tmp_path / "lazy") as hub:
        assert hub.ask(place, headers=wanted).body == content[-100:]
        lost = hub.ask(place, headers={"Range": "bytes=1000000-1000010"})
        assert lost.status == 503
        assert lost.document["error"]
        assert hub.ask("/api/models/lazy/main/refs").status == 200


def test_repositories_below_a_root_are_remotes(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    for name in ("one", "two"):
        with Repository.init(root / name, who=WHO) as repository:
            repository.commit(model, branch="main", message=name)
    with serving(root, "--root", root) as hub:
        Repository.clone(f"{hub.url}/two", tmp_path / "clone", who=WHO)
        with Repository.open(tmp_path / "clone", who=WHO) as repository:
            assert repository.commit_of("main")[1].message == "two"
            (model / "config.json").write_text("[]")
            repository.commit(model, branch="main", message="three")
            repository.push()
        assert hub.ask("/two/main/resolve/main/config.json").body == b"[]"
        assert hub.ask("/one/main/resolve/main/config.json").body == b"{}"
