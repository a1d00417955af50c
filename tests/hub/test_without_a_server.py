"""Models of transformers, and files through fsspec, straight from a repository."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

import mergepipe.hub
from mergepipe import Repository
from mergepipe.errors import UsageError
from mergepipe.hub.filesystem import MergepipeFileSystem

transformers = pytest.importorskip("transformers", reason="the test extra has it")


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny Llama as transformers writes it."""
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        tie_word_embeddings=True,
    )
    model = transformers.LlamaForCausalLM(config).to(torch.bfloat16)
    directory = tmp_path_factory.mktemp("models") / "llama"
    model.save_pretrained(directory)
    return directory


@pytest.fixture
def repo(llama: Path, tmp_path: Path) -> Iterator[Repository]:
    """Holds the model on two branches, one with a slash in its name and a folder in it."""
    with Repository.init(tmp_path / "repository") as repository:
        repository.commit(llama, branch="main")
        other = tmp_path / "other"
        (other / "notes").mkdir(parents=True)
        (other / "notes/read.md").write_text("read me")
        (other / "model.safetensors").write_bytes((llama / "model.safetensors").read_bytes())
        repository.commit(other, branch="team/try")
        yield repository


@pytest.fixture
def files(repo: Repository) -> MergepipeFileSystem:
    """The repository through fsspec, by its protocol."""
    fsspec.register_implementation("mergepipe", MergepipeFileSystem, clobber=True)
    filesystem: Any = fsspec.filesystem(
        "mergepipe", repository=str(repo.directory), skip_instance_cache=True
    )
    assert isinstance(filesystem, MergepipeFileSystem)
    return filesystem


def test_a_model_computes_as_that_of_its_files(repo: Repository, llama: Path) -> None:
    ours = mergepipe.hub.from_pretrained(repo, "main")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(llama)
    tokens = torch.arange(10)[None]
    assert ours.dtype == theirs.dtype == torch.bfloat16
    assert torch.equal(ours(tokens).logits, theirs(tokens).logits)
    assert type(ours) is type(theirs)
    assert not ours.training
    assert ours.generation_config.to_dict() == theirs.generation_config.to_dict()


def test_the_class_and_the_dtype_can_be_said(repo: Repository) -> None:
    model = mergepipe.hub.from_pretrained(
        str(repo.directory), "main", transformers.AutoModelForCausalLM, dtype=torch.float32
    )
    assert model.dtype == torch.float32


def test_a_model_without_a_config_is_refused(repo: Repository) -> None:
    with pytest.raises(UsageError, match=r"has no config\.json"):
        mergepipe.hub.from_pretrained(repo, "team/try")


def test_files_and_folders_are_listed(files: MergepipeFileSystem) -> None:
    assert files.ls("", detail=False) == ["main", "team%2Ftry"]
    assert files.ls("mergepipe://team%2Ftry", detail=False) == [
        "team%2Ftry/model.safetensors",
        "team%2Ftry/notes",
    ]
    assert files.find("team%2Ftry") == ["team%2Ftry/model.safetensors", "team%2Ftry/notes/read.md"]
    assert files.isdir("team%2Ftry/notes")
    assert files.info("main/config.json")["type"] == "file"
    assert files.glob("main/*.safetensors") == ["main/model.safetensors"]


def test_bytes_are_those_of_the_file(files: MergepipeFileSystem, llama: Path) -> None:
    whole = (llama / "model.safetensors").read_bytes()
    path = "mergepipe://main/model.safetensors"
    assert files.cat_file(path) == whole
    assert files.cat_file(path, 5, 1000) == whole[5:1000]
    assert files.cat_file(path, -10) == whole[-10:]
    assert files.cat_file(path, 100, 50) == b""
    with files.open(path) as file:
        file.seek(8)
        assert file.read(100) == whole[8:108]
        file.seek(-7, 2)
        assert file.read() == whole[-7:]


def test_other_libraries_read_through_it(files: MergepipeFileSystem, repo: Repository) -> None:
    pandas = pytest.importorskip("pandas", reason="the test extra has it")
    options = {"repository": str(repo.directory)}
    config = pandas.read_json("mergepipe://main/config.json", storage_options=options, typ="series")
    assert config["model_type"] == "llama"
    with fsspec.open("mergepipe://main/model.safetensors", **options) as file:
        assert len(file.read(8)) == 8


@pytest.mark.parametrize(
    "path", ["nosuch/config.json", "main/nosuch", "main/config.json/x", "main/../main/config.json"]
)
def test_what_is_not_there(files: MergepipeFileSystem, path: str) -> None:
    with pytest.raises(FileNotFoundError):
        files.cat_file(path)
    assert not files.exists(path)


def test_nothing_is_written(files: MergepipeFileSystem) -> None:
    with pytest.raises(NotImplementedError, match="mp commit"):
        files.open("main/new", "wb")


def test_a_revision_stays_what_it_was(
    files: MergepipeFileSystem, repo: Repository, tmp_path: Path
) -> None:
    before = files.cat_file("main/config.json")
    (tmp_path / "config.json").write_text("{}")
    repo.commit(tmp_path / "config.json", branch="main")
    assert files.cat_file("main/config.json") == before
    files.invalidate_cache()
    assert files.cat_file("main/config.json") == b"{}"
