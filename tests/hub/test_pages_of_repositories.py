"""Pages of several repositories, of empty ones, of models that went, and of hostile cards."""

from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.hub.pages.cards import markdown
from mergepipe.repository.retention import Retention
from tests.cli.models import tensors, write_model
from tests.hub.conftest import WHO, commit_models, serving
from tests.hub.test_pages import HTML, page


def test_many_repositories_and_empty_ones(tmp_path: Path) -> None:
    commit_models(tmp_path / "zoo", ("base",))
    Repository.init(tmp_path / "empty", who=WHO).close()
    with serving(tmp_path, "--root", tmp_path) as served:
        shown = page(served, "/")
        assert {"/-/zoo", "/-/empty", "/-/zoo/model/base"} <= set(shown.links)
        assert "No model yet" in shown.text
        for path in ("/-/empty", "/-/empty/log", "/-/empty/storage"):
            page(served, path)
        assert served.ask("/-/empty/model/main", headers=HTML).status == 404
        assert served.ask("/", "HEAD", headers=HTML).body == b""


def test_commits_whose_models_went_keep_their_page(tmp_path: Path) -> None:
    commit_models(tmp_path / "zoo", ("base", "old"))
    with Repository.open(tmp_path / "zoo", who=WHO) as repository:
        old, first = repository.resolve("old").hex(), repository.resolve("base").hex()
        repository.commit(write_model(tmp_path / "next", tensors(9)), branch="base")
        repository.prune(retention=Retention(last=1), grace_s=0)
        repository.purge("old", reason="by mistake <b>")
        repository.tag("base", first)
    with serving(tmp_path / "zoo") as served:
        assert "was let go" in page(served, f"/-/zoo/commit/{first}").text
        assert "by mistake <b>" in page(served, f"/-/zoo/commit/{old}").text
        assert served.ask(f"/-/zoo/model/{first}", headers=HTML).status == 404
        assert served.ask(f"/-/zoo/model/{old}", headers=HTML).status == 404
        # The tag of that name comes first, as everywhere: the branch is listed by its whole name.
        branch = "/-/zoo/model/refs%2Fheads%2Fbase"
        assert branch in page(served, "/").links
        assert "hf download zoo/base" in page(served, branch).text
        for path in ("/-/zoo", "/-/zoo/log", "/-/zoo/storage", "/-/zoo/commit/base"):
            page(served, path)


@pytest.mark.parametrize("text", ["[" * 60_000, "*a_ " * 16_000, "> " * 30_000, "|a" * 20_000])
def test_a_card_that_is_made_to_take_long_does_not(text: str) -> None:
    assert len(markdown(text)) < 8 * len(text)
