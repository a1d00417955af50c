"""Whatever a merge leaves out is told: each kind, provoked, and the page that lists them."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mergepipe.api import Repository
from mergepipe.checkpoints.conversion import DEQUANTIZED
from mergepipe.plans.left_out import WAYS, Kind, LeftOut, Level, collected
from tests.mergekit.checkpoints import weights, write_checkpoint, write_family
from tests.mergekit.toys import llama_config

PAGE = Path(__file__).parents[2] / "docs" / "merging.md"
WEIGHTS = "model.safetensors"
HEAD, EMBEDDINGS, UP = "lm_head.weight", "model.embed_tokens.weight", "mlp.up_proj.weight"
LINEAR = "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: math}, {model: code}]\n"
TASK = LINEAR.replace("linear", "task_arithmetic") + "base_model: base\n"

Models = Path
Case = Callable[[Models], str]


def change(directory: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    content = load_file(directory / WEIGHTS)
    edit(content)
    save_file(content, directory / WEIGHTS, {"format": "pt"})


def config(directory: Path, **members: object) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | members))


def missing(models: Models) -> str:
    change(models / "math", lambda tensors: tensors.pop(f"model.layers.1.{UP}"))
    return TASK


def extra(models: Models) -> str:
    added = {f"model.layers.{n}.extra.weight": np.ones(2, np.float32) for n in range(4)}
    change(models / "math", lambda tensors: tensors.update(added))
    return TASK


def unused(models: Models) -> str:
    return (
        "merge_method: passthrough\nslices:\n- sources: [{model: math, layer_range: [0, 3]}]\n"
        "- sources: [{model: code, layer_range: [2, 4]}]\n"
    )


def base_weights(models: Models) -> str:
    return ""


def buffers(models: Models) -> str:
    name = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change(models / "code", lambda tensors: tensors.update({name: np.ones(4, np.float32)}))
    return LINEAR


def copied_head(models: Models) -> str:
    for name in ("math", "code"):
        change(models / name, lambda tensors: tensors.update({HEAD: tensors[EMBEDDINGS]}))
        config(models / name, tie_word_embeddings=True)
    return LINEAR


def components(models: Models) -> str:
    for name in ("math", "code"):
        (models / name / "2_Dense").mkdir()
        save_file({"w": np.ones((2, 2), np.float32)}, models / name / "2_Dense" / WEIGHTS)
        (models / name / "modules.json").write_text("[]")
    return unused(models)


def weight_files(models: Models) -> str:
    (models / "math" / "checkpoint-5").mkdir()
    save_file({"x": np.ones(2, np.float32)}, models / "math" / "checkpoint-5" / WEIGHTS)
    save_file({"x": np.ones(2, np.float32)}, models / "math" / "consolidated.safetensors")
    return LINEAR


def lora(directory: Path, *, layer: int = 0) -> Path:
    directory.mkdir()
    (directory / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 2}')
    stem = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
    factors = {
        f"{stem}{side}.weight": np.ones(shape, np.float32)
        for side, shape in (("A", (2, 8)), ("B", (8, 2)))
    }
    save_file(factors, directory / "adapter_model.safetensors")
    return directory


def nested_adapters(models: Models) -> str:
    lora(models / "math" / "lora")
    return LINEAR


def other_formats(models: Models) -> str:
    (models / "code" / "model.gguf").write_bytes(b"GGUF")
    return LINEAR


def training_state(models: Models) -> str:
    for name in ("optimizer.pt", "trainer_state.json", "training_args.bin"):
        (models / "math" / name).write_bytes(b"{}")
    return LINEAR


def quantization(models: Models) -> str:
    """Codes and scales are made into numbers when a model is read; a file says that they were."""
    for name in ("math", "code"):
        (models / name / DEQUANTIZED).write_text('{"dtype": "bfloat16"}')
    return LINEAR


def quantization_config(models: Models) -> str:
    for name in ("base", "math"):
        config(models / name, quantization_config={"quant_method": "bitsandbytes"})
    return LINEAR


def config_keys(models: Models) -> str:
    config(models / "code", rope_theta=1e6, rope_parameters={"factor": 2}, use_cache=False)
    config(models / "math", rope_theta=1e4, torch_dtype="bfloat16")
    return LINEAR


def tokenizer_files(models: Models) -> str:
    (models / "code" / "chat_template.jinja").write_text("{{ messages }}")
    return LINEAR


def adapters_tokenizer(models: Models) -> str:
    (lora(models / "lora") / "tokenizer_config.json").write_text('{"eos_token": "<end>"}')
    return "merge_method: passthrough\nmodels: [{model: math+lora}]\n"


def tokens(models: Models) -> str:
    write_checkpoint(models / "more40", weights(7, vocabulary=40), llama_config(vocab_size=40), 36)
    return (
        "merge_method: linear\nparameters: {weight: 1}\nmodels: [{model: math}, {model: more40}]\n"
        "tokenizer: {source: math}\n"
    )


def other_files(models: Models) -> str:
    (models / "code" / "generation_config.json").write_text('{"temperature": 2}')
    (models / "code" / "modeling_own.py").write_text("")
    (models / "code" / "LICENSE").write_text("another, which says nothing of weights")
    return LINEAR


def layer_files(models: Models) -> str:
    lora(models / "math" / "lora")
    (models / "math" / "params.json").write_text('{"dim": 8, "n_layers": 4}')
    (models / "math" / "preprocessor_config.json").write_text('{"size": 8}')
    return unused(models)


def card(models: Models) -> str:
    return LINEAR


def stages(models: Models) -> str:
    return LINEAR + "name: alone\n---\n" + LINEAR


def blocks(models: Models) -> str:
    return TASK.replace("task_arithmetic", "ties")


CASES: Mapping[Kind, tuple[Case, str, tuple[str, ...]]] = {
    Kind.MISSING_TENSORS: (missing, "math", (f"model.layers.1.{UP}",)),
    Kind.EXTRA_TENSORS: (extra, "math", ("model.layers.[0-3].extra.weight",)),
    Kind.UNUSED_TENSORS: (
        unused, "code", (EMBEDDINGS, "model.layers.[0-1].*"),
    ),
    Kind.BASE_WEIGHTS: (base_weights, "base", ()),
    Kind.BUFFERS: (buffers, "code", ("model.layers.0.self_attn.rotary_emb.inv_freq",)),
    Kind.COPIED_HEAD: (copied_head, "math", (HEAD,)),
    Kind.COMPONENTS: (components, "math", ("2_Dense/",)),
    Kind.WEIGHT_FILES: (weight_files, "math", ("consolidated.safetensors",)),
    Kind.NESTED_ADAPTERS: (nested_adapters, "math", ("lora/",)),
    Kind.OTHER_FORMATS: (other_formats, "code", ("model.gguf", "pytorch_model.bin")),
    Kind.TRAINING_STATE: (
        training_state, "math", ("optimizer.pt", "trainer_state.json", "training_args.bin"),
    ),
    Kind.QUANTIZATION: (quantization, "code", ()),
    Kind.QUANTIZATION_CONFIG: (quantization_config, "math", ("config.json",)),
    Kind.CONFIG_KEYS: (config_keys, "code", ("rope_theta", "rope_parameters")),
    Kind.TOKENIZER: (tokenizer_files, "code", ("chat_template.jinja",)),
    Kind.TOKENS: (tokens, "more40", ("w32", "w33", "w34", "w35")),
    Kind.TOKEN_ROWS: (tokens, "more40", ()),
    Kind.OTHER_FILES: (other_files, "code", ("generation_config.json", "modeling_own.py")),
    Kind.LAYER_FILES: (layer_files, "math", ("lora/", "params.json")),
    Kind.CARD: (card, "math", ("README.md",)),
    Kind.STAGES: (stages, "alone", ()),
    Kind.BLOCKS: (blocks, "math", ()),
}  # fmt: skip


@pytest.fixture
def models(tmp_path: Path) -> Models:
    write_family(tmp_path / "models")
    return tmp_path / "models"


def left_out(
    models: Models, text: str, *, budget: str | None = None
) -> tuple[tuple[LeftOut, ...], list[str]]:
    """What a result says that it leaves out, and what was told on the way."""
    (models / "recipe.yml").write_text(text)
    told: list[str] = []
    with Repository.init(models.parent / "repository") as repository:
        made = repository.merge_recipe(
            models / "recipe.yml", branch="r", budget=budget, allow_missing=True, told=told.append
        )
    return made.left_out, told


# In a recipe the base of such a method is one of its models.
@pytest.mark.parametrize("kind", [kind for kind in Kind if kind is not Kind.BASE_WEIGHTS])
def test_each_kind_is_told(kind: Kind, models: Models) -> None:
    case, model, names = CASES[kind]
    budget = "70%" if kind is Kind.BLOCKS else None
    found, told = left_out(models, case(models), budget=budget)
    ones = [one for one in found if one.kind is kind and one.model == model]
    assert ones, found
    assert set(names) <= {name for one in ones for name in one.patterns}
    for one in ones:
        assert (one.message in "\n".join(told)) is (one.level is not Level.LISTED)
        assert model in one.message


def test_files_that_name_layers_stay_where_the_layers_do(models: Models) -> None:
    text = layer_files(models)
    stays = text.replace("[0, 3]", "[0, 2]")
    for name, recipe, kept in (("moved", text, False), ("stays", stays, True)):
        (models / "recipe.yml").write_text(recipe)
        with Repository.init(models.parent / name) as repository:
            repository.merge_recipe(models / "recipe.yml", branch="r")
            repository.checkout("r", to=models.parent / f"{name}-out")
        found = {path.name for path in (models.parent / f"{name}-out").iterdir()}
        assert "preprocessor_config.json" in found
        assert (found >= {"lora", "params.json"}) is kept
        assert found.isdisjoint({"lora", "params.json"}) is not kept


def test_an_adapters_files_count_too(models: Models) -> None:
    found, _ = left_out(models, adapters_tokenizer(models))
    assert LeftOut(Kind.TOKENIZER, "lora", ("tokenizer_config.json",)) in found


PLAIN = [
    Kind.MISSING_TENSORS, Kind.EXTRA_TENSORS, Kind.BASE_WEIGHTS, Kind.BUFFERS, Kind.WEIGHT_FILES,
    Kind.NESTED_ADAPTERS, Kind.OTHER_FORMATS, Kind.TRAINING_STATE, Kind.CONFIG_KEYS,
    Kind.QUANTIZATION_CONFIG,
    Kind.TOKENIZER, Kind.OTHER_FILES,
]  # fmt: skip


@pytest.mark.parametrize("kind", PLAIN)
def test_a_merge_without_a_recipe_tells_the_same(kind: Kind, models: Models) -> None:
    case, model, names = CASES[kind]
    case(models)
    told: list[str] = []
    method = "linear" if kind is Kind.BASE_WEIGHTS else "task_arithmetic"
    with Repository.init(models.parent / "repository") as repository:
        for name in ("base", "math", "code"):
            repository.commit(models / name, message=name, branch=name)
        planned = repository.plan(
            base="base", experts=["math", "code"], method=method, allow_missing=True,
            told=told.append,
        )  # fmt: skip
        made = repository.merge(planned, branch="merged")
        repository.checkout("merged", to=models.parent / "out")
    ones = [one for one in made.left_out if (one.kind, one.model) == (kind, model)]
    assert set(names) <= {name for one in ones for name in one.patterns}
    assert ones
    assert ones[0].message in "\n".join(told)
    result = {path.name for path in (models.parent / "out").iterdir()}
    assert not result & {"pytorch_model.bin", "optimizer.pt", "consolidated.safetensors"}
    assert "quantization" not in (models.parent / "out" / "config.json").read_text()


def test_a_merge_of_like_models_leaves_nothing_out(models: Models) -> None:
    for name in ("base", "math", "code"):
        (models / name / "pytorch_model.bin").unlink()
    found, told = left_out(models, TASK)
    assert {one.kind for one in found} == {Kind.CARD}
    assert told == [line for line in told if "imported" in line or "profile" in line]


def test_what_is_said_of_many_is_short() -> None:
    many = LeftOut(Kind.TOKENS, "a", tuple(f"t{n}" for n in range(30)))
    assert many.message.endswith("'t7' and 22 more")
    path = LeftOut(Kind.WEIGHT_FILES, "a", ("\x1b[2J.safetensors",), "a second set of weights")
    assert "\x1b" not in path.message
    assert "knows 30 tokens" in many.message
    halves = (LeftOut(Kind.TOKENS, "a", many.names[:9]), LeftOut(Kind.TOKENS, "a", many.names[3:]))
    assert collected(halves) == (many,)


def test_the_page_has_every_kind() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    assert rows == [
        f"| `{kind}` | {way.what} | {way.instead} | {way.level} |" for kind, way in WAYS.items()
    ]
    assert set(CASES) == set(Kind) == set(WAYS)
