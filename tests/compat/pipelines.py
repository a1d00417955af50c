"""Pipelines of several models, laid out as diffusers writes an SDXL: drawn, made, merged, compared.

diffusers is not needed: its parts are stood in for by small torch modules whose weights have the
names and the files of its own, and which take a result as strictly (`load_state_dict`).
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import torch
import transformers as hf
import yaml
from safetensors.torch import load_file, save_file
from torch import nn

from tests.compat import oracle
from tests.compat.differences import failure
from tests.compat.expected import Expected, apart
from tests.compat.zoo import HIDDEN, TOKENS, Family, tune
from tests.compat.zoo_comparing import Outcome, merge_ours
from tests.compat.zoo_configs import FAMILY, entries
from tests.compat.zoo_models import DTYPES, SEEDS, Model

METHODS = {"linear": (1, 3), "task_arithmetic": (1, 3), "ties": (1, 3), "slerp": (1, 1)}
WEIGHTS = {"text_encoder": "model.safetensors", "text_encoder_2": "model.safetensors"}
DIFFUSION = "diffusion_pytorch_model.safetensors"
# Not merged, and part of the pipeline all the same.
SETTINGS = {
    "scheduler/scheduler_config.json": {"_class_name": "EulerDiscreteScheduler"},
    "tokenizer/tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer"},
}


class Attention(nn.Module):
    """As diffusers names its weights: `attn1.to_q`, `attn1.to_out.0`."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.to_q, self.to_k, self.to_v = (nn.Linear(size, size, bias=False) for _ in range(3))
        self.to_out = nn.ModuleList([nn.Linear(size, size), nn.Dropout(0.0)])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = (self.to_q(x) @ self.to_k(x).transpose(1, 2)).softmax(-1)
        return x + self.to_out[0](share @ self.to_v(x))


class Block(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.resnets = nn.ModuleList([nn.Conv2d(size, size, 3, padding=1) for _ in range(2)])
        self.attentions = nn.ModuleList([nn.ModuleDict({"attn1": Attention(size)})])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for resnet in self.resnets:
            x = x + resnet(x).tanh()
        flat = self.attentions[0].get_submodule("attn1")(x.flatten(2).transpose(1, 2))
        return flat.transpose(1, 2).reshape(x.shape)


class UNet(nn.Module):
    """What an SDXL's unet is made of, once each."""

    def __init__(self, size: int = 8) -> None:
        super().__init__()
        self.conv_in = nn.Conv2d(4, size, 3, padding=1)
        self.down_blocks = nn.ModuleList([Block(size), Block(size)])
        self.mid_block = Block(size)
        self.up_blocks = nn.ModuleList([Block(size)])
        self.conv_norm_out = nn.GroupNorm(2, size)
        self.conv_out = nn.Conv2d(size, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv_in(x)
        for block in (*self.down_blocks, self.mid_block, *self.up_blocks):
            x = block(x)
        return self.conv_out(self.conv_norm_out(x))


class Vae(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleDict({"conv_in": nn.Conv2d(3, 8, 3, padding=1)})
        self.quant_conv = nn.Conv2d(8, 4, 1)
        self.decoder = nn.ModuleDict({"conv_out": nn.Conv2d(4, 3, 3, padding=1)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.decoder["conv_out"](self.quant_conv(self.encoder["conv_in"](x)).tanh())


@dataclass(frozen=True)
class PipelineConfig:
    """A recipe for whole pipelines. spare: whether each has its weights in half precision too."""

    seed: int
    dtype: str
    spare: bool
    document: dict[str, Any]


def draw_pipeline(seed: int) -> PipelineConfig:
    """The config of a seed."""
    chance = Random(seed * 7919 + 23)
    method = chance.choice(sorted(METHODS))
    experts = chance.sample(FAMILY, chance.randint(*METHODS[method]))
    dtype = chance.choice(("float32", "bfloat16", "float16"))
    document: dict[str, Any] = {"merge_method": method, "dtype": dtype}
    if method != "linear":
        document["base_model"] = "base"
    listed = ["base", *experts] if method in ("slerp", "linear") else experts
    document |= entries(chance, method, listed)
    return PipelineConfig(seed, dtype, chance.random() < 0.3, document)


class PipelineComparison:
    """A config, and its result beside the oracle's, component by component."""

    def __init__(self, config: PipelineConfig, directory: Path) -> None:
        self.config = config
        self._directory = directory
        spare = "-spare" if config.spare else ""
        self._root = directory / "zoo" / f"sdxl-{config.dtype}{spare}"
        self.ours = directory / f"pipeline-{config.seed}.ours"
        self.theirs = directory / f"pipeline-{config.seed}.mergekit"
        self._names = list(dict.fromkeys(oracle.references(config.document)))
        for name in self._names:
            if not (self._root / name).exists():
                _write(self._root / name, SEEDS[name], config.dtype, spare=config.spare)

    def write_for_mergekit(self) -> Path:
        """The config with paths for names."""
        document = json.loads(json.dumps(self.config.document))
        for entry in document["models"]:
            entry["model"] = str(self._root / entry["model"])
        if "base_model" in document:
            document["base_model"] = str(self._root / document["base_model"])
        path = self._directory / f"pipeline-{self.config.seed}.yml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        return path

    def outcome(self, error: str | None) -> Outcome:
        """Merges it with ours. error: mergekit's, if it has not merged it."""
        recipe = self.write_for_mergekit()
        code, words = merge_ours(recipe, self.ours, self._directory / "home")
        if code:
            return Outcome("unexplained: refused", "", f"exit {code}: {words}")
        details = []
        for component, make in COMPONENTS.items():
            file = WEIGHTS.get(component, DIFFUSION)
            tensors = load_file(self.ours / component / file)
            expected = self._expected(component, file)
            if tensors.keys() != expected.dtypes.keys():
                details.append(f"{component}: {tensors.keys() ^ expected.dtypes.keys()}")
            details += [f"{component}: {one}" for one in apart(tensors, expected, units=1)]
            if details:
                continue
            rounded = {name: expected.rounded(name) for name in expected.dtypes}
            first, second = (_run(make(), one) for one in (tensors, rounded))
            if not torch.allclose(first, second, rtol=0.02, atol=0.02):
                details.append(f"{component}: outputs {float((first - second).abs().max())} apart")
            if component in WEIGHTS:
                _, info = type(make()).from_pretrained(
                    self.ours / component, output_loading_info=True
                )
                details += [f"{component}: {key} {value}" for key, value in info.items() if value]
        kept = [name for name in (*SETTINGS, "model_index.json") if (self.ours / name).exists()]
        if len(kept) != len(SETTINGS) + 1 or list(self.ours.rglob("*.fp16.*")):
            details.append(f"files: {sorted(path.name for path in self.ours.rglob('*'))}")
        ours = "unexplained: pipeline" if details else "the float64 merge, component by component"
        theirs = "unexplained: merges a pipeline" if error is None else failure(error)
        return Outcome(ours, theirs, "; ".join(details))

    def _expected(self, component: str, file: str) -> Expected:
        models = {}
        for name in self._names:
            tensors = load_file(self._root / name / component / file)
            models[name] = Model(
                {key: value.double().numpy() for key, value in tensors.items()},
                hf.CLIPTextConfig(),
            )
        exact = oracle.merge(self.config.document, models, FAMILY_OF_ANY)
        dtypes = dict.fromkeys(exact.model.tensors, DTYPES[self.config.dtype])
        return Expected(exact, dtypes)


def _text_config(seed: int) -> Any:
    return hf.CLIPTextConfig(
        vocab_size=64, hidden_size=HIDDEN, intermediate_size=48, num_hidden_layers=2 + seed,
        num_attention_heads=4, max_position_embeddings=16, projection_dim=16, eos_token_id=2,
        bos_token_id=1, pad_token_id=0,
    )  # fmt: skip


COMPONENTS: dict[str, Any] = {
    "unet": UNet,
    "vae": Vae,
    "text_encoder": lambda: hf.CLIPTextModel(_text_config(0)),
    "text_encoder_2": lambda: hf.CLIPTextModelWithProjection(_text_config(1)),
}
CLASSES = {"unet": "UNet2DConditionModel", "vae": "AutoencoderKL"}


# Merged by names alone: the drawn parameters do not depend on layers.
FAMILY_OF_ANY = Family("component", nn.Module, dict, dict, {}, parts={"default": ""})


def _write(place: Path, seed: int, dtype: str, *, spare: bool) -> None:
    """A pipeline on disk."""
    index: dict[str, Any] = {"_class_name": "StableDiffusionXLPipeline"}
    for component, make in COMPONENTS.items():
        torch.manual_seed(7)
        model = make()
        if seed:
            tune(model, seed)
        model = model.to(DTYPES[dtype])
        directory = place / component
        if component in WEIGHTS:
            model.save_pretrained(directory)
            index[component] = ["transformers", type(model).__name__]
        else:
            directory.mkdir(parents=True)
            save_file(model.state_dict(), directory / DIFFUSION, {"format": "pt"})
            settings = {"_class_name": CLASSES[component]}
            (directory / "config.json").write_text(json.dumps(settings))
            index[component] = ["diffusers", CLASSES[component]]
        if spare:
            file = directory / WEIGHTS.get(component, DIFFUSION)
            shutil.copy(file, file.with_name(file.stem + ".fp16.safetensors"))
    for name, settings in SETTINGS.items():
        (place / name).parent.mkdir()
        (place / name).write_text(json.dumps(settings))
    (place / "model_index.json").write_text(json.dumps(index))


def _run(model: Any, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    """What a component with these weights, every one of them, makes of a fixed input."""
    model.load_state_dict(tensors, strict=True)
    model = model.double().eval()
    source = torch.Generator().manual_seed(9)
    with torch.no_grad():
        if isinstance(model, UNet):
            return model(torch.randn(1, 4, 4, 4, generator=source).double())
        if isinstance(model, Vae):
            return model(torch.randn(1, 3, 4, 4, generator=source).double())
        return model(input_ids=torch.tensor(TOKENS)).last_hidden_state
