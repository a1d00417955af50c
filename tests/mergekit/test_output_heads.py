"""Output heads that models share with their embeddings, or do not, and those of what comes out."""

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.objects.records import FileEntry, Safetensors, Snapshot, TensorEntry
from tests.mergekit.expanding import models, sources, weights
from tests.mergekit.toys import Toys, family, llama, llama_config


@pytest.fixture
def toys() -> Toys:
    return family()


def test_a_tied_head_is_absent_or_the_embeddings(toys: Toys) -> None:
    tied = llama_config(4, tie_word_embeddings=True)
    for name in ("ta", "tb"):
        toys.add(name, llama(4, head=False), tied)
    both = toys.expand(models("model: ta", "model: tb", more="parameters: {weight: 1}"))
    assert "lm_head.weight" not in [one.name for one in both.written]
    assert both.output.config == tied
    for text in (("a", "tb"), ("tb", "a")):
        one = toys.expand(
            models(*(f"model: {name}" for name in text),
                   more="parameters: {weight: [{filter: lm_head, value: 3}, {value: 1}]}")
        )  # fmt: skip
        held = {"a": "a:lm_head.weight", "tb": "tb:model.embed_tokens.weight"}
        assert sources(toys, one, "lm_head.weight") == [held[name] for name in text]
        assert weights(one, "lm_head.weight") == [3.0, 3.0]
        assert one.output.config is not None
        assert one.output.config["tie_word_embeddings"] is False
    toys.add("broken", llama(4, head=False), llama_config(4))
    with pytest.raises(MergeInputError, match=r"'broken' lacks tensor 'lm_head\.weight'"):
        toys.expand(models("model: a", "model: broken", more="parameters: {weight: 1}"))


def test_a_copy_of_shared_embeddings_is_no_head(toys: Toys) -> None:
    head, embeddings = "lm_head.weight", "model.embed_tokens.weight"
    for name, more in (("said", {"tie_word_embeddings": True}), ("unsaid", {})):
        config = {key: value for key, value in llama_config(4).items() if "tie" not in key} | more
        toys.add(name, llama(4), config | {"model_type": "gemma"})
        snapshot = toys.snapshot(toys.named[name])
        (file,) = [one for one in snapshot.files if isinstance(one.content, Safetensors)]
        assert isinstance(file.content, Safetensors)
        ids = {entry.name: entry.tensor for entry in file.content.tensors}
        entries = [TensorEntry(one, ids[embeddings if one == head else one]) for one in llama(4)]
        content = Safetensors(file.content.header, tuple(entries))
        others = tuple(one for one in snapshot.files if one is not file)
        copied = toys.put(Snapshot((*others, FileEntry(file.path, False, 8, content))))
        toys.files[copied] = toys.files[toys.named[name]]
        toys.named[name] = copied
    both = toys.expand(models("model: said", "model: unsaid", more="parameters: {weight: 1}"))
    alone = toys.expand("merge_method: passthrough\nmodels: [{model: unsaid}]\n")
    for merge in (both, alone):
        assert head not in [one.name for one in merge.written]
        assert merge.output.config is not None
        assert merge.output.config["tie_word_embeddings"] is True
    mixed = toys.expand(models("model: a", "model: said", more="parameters: {weight: 1}"))
    # One stored tensor under two names, of which `owner` says the first.
    assert sources(toys, mixed, head) == ["a:lm_head.weight", "said:lm_head.weight"]


def test_a_result_has_the_head_that_its_config_speaks_of(toys: Toys) -> None:
    head = "lm_head.weight"
    toys.add("tied", llama(4, head=False), llama_config(4, tie_word_embeddings=True))
    text = """
merge_method: passthrough
slices:
- sources: [{model: a, layer_range: [0, 2]}]
- sources: [{model: tied, layer_range: [2, 4]}]
"""
    stacked = toys.expand(text)
    assert sources(toys, stacked, head) == ["tied:model.embed_tokens.weight"]
    assert stacked.output.config is not None
    assert stacked.output.config["tie_word_embeddings"] is False
    says = llama_config(4, architectures=["LlamaForCausalLM"])
    toys.add("broken", llama(4, head=False), says)
    with pytest.raises(MergeInputError, match="output embeddings of its own"):
        toys.expand("merge_method: passthrough\nmodels: [{model: broken}]\n")
    toys.add("encoder", llama(4, head=False), says | {"architectures": ["LlamaModel"]})
    toys.expand("merge_method: passthrough\nmodels: [{model: encoder}]\n")
