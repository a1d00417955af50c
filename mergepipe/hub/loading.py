"""A model of transformers straight from a repository: no checkout, no second copy on disk."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from mergepipe.api import Repository
from mergepipe.checkpoints.assembly import plan_file
from mergepipe.checkpoints.checkout import export_files
from mergepipe.errors import UsageError
from mergepipe.progress import SILENT

_LARGEST = 64 << 20  # a config or a tokenizer; weights are tensors, and read as such


def from_pretrained(
    repository: Repository | str | Path,
    revision: str = "HEAD",
    model_class: Any = None,
    **options: Any,
) -> Any:
    """A model of a revision, as `model_class.from_pretrained` would load it from its files.

    repository   an open one, or its directory
    model_class  with `from_config`: `AutoModelForCausalLM` (if None) or another of transformers
    options      for `from_config`: `dtype`, `attn_implementation`...; `dtype` is the config's if
                 not given

    Its weights are read into the model's own memory, block by block. Raises UsageError without
    transformers or a config.json, MergeInputError where names or shapes do not fit.
    """
    try:
        import transformers
    except ImportError as error:
        raise UsageError("this needs transformers", "pip install transformers") from error
    if not isinstance(repository, Repository):
        with Repository.open(repository) as opened:
            return from_pretrained(opened, revision, model_class, **options)
    commit = repository.resolve(revision).hex()
    with TemporaryDirectory(prefix="mergepipe-") as folder:
        _write_small_files(repository, commit, Path(folder))
        if not (Path(folder) / "config.json").is_file():
            raise UsageError(
                f"{revision} has no config.json, which says what model it is",
                "commit the model's whole directory, or build the model and `repo.load_into` it",
            )
        config = transformers.AutoConfig.from_pretrained(folder)
        if "dtype" not in options and getattr(config, "dtype", None) is not None:
            options["dtype"] = config.dtype
        model = (model_class or transformers.AutoModelForCausalLM).from_config(config, **options)
        if (Path(folder) / "generation_config.json").is_file():
            model.generation_config = transformers.GenerationConfig.from_pretrained(folder)
    repository.load_into(model, commit)
    model.eval()
    return model


def tokenizer(repository: Repository, revision: str = "HEAD") -> Any:
    """The tokenizer of a revision, by transformers."""
    import transformers

    with TemporaryDirectory(prefix="mergepipe-") as folder:
        _write_small_files(repository, repository.resolve(revision).hex(), Path(folder))
        return transformers.AutoTokenizer.from_pretrained(folder)


def _write_small_files(repository: Repository, revision: str, folder: Path) -> None:
    """Configs and tokenizers, which libraries want as files."""
    plans = [
        plan_file(entry, repository.objects)
        for entry in repository.contents.files(revision)
        if entry.size <= _LARGEST and not entry.path.endswith((".safetensors", ".bin", ".py"))
    ]
    export_files(
        plans,
        folder,
        repository.blocks,
        force=False,
        threads=repository.threads,
        progress=SILENT,
    )
