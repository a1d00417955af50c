"""What tests of remotes begin with: a family to send, and repositories that take it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from mergepipe.api import Repository
from mergepipe.transfer.receiving import ReceivingStore
from tests.repository.checkpoints import WHO
from tests.transfer.remotes import Family


@pytest.fixture
def family(tmp_path: Path) -> Iterator[Family]:
    family = Family(tmp_path)
    yield family
    family.repo.close()


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "mine", who=WHO) as repo:
        yield repo


@pytest.fixture
def repo(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "repo", who=WHO) as opened:
        yield opened


@pytest.fixture
def store(repo: Repository) -> Iterator[ReceivingStore]:
    with ReceivingStore(repo) as opened:
        yield opened


@pytest.fixture
def there(tmp_path: Path) -> Iterator[Repository]:
    with Repository.init(tmp_path / "there", who=WHO) as repo:
        yield repo
