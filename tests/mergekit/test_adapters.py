"""Adapters in recipes: added to a model, and as a difference from the base."""

import pytest

from mergepipe.objects.merging import TermKind
from tests.mergekit.expanding import line, models, q
from tests.mergekit.toys import Toys, family


@pytest.fixture
def toys() -> Toys:
    return family()


LORA = b'{"peft_type": "LORA", "r": 2, "lora_alpha": 4}'


def add_adapter(toys: Toys) -> None:
    toys.add(
        "lora",
        {
            f"base_model.model.{q(1).removesuffix('.weight')}.lora_A.weight": (2, 8),
            f"base_model.model.{q(1).removesuffix('.weight')}.lora_B.weight": (8, 2),
        },
        files={"adapter_config.json": LORA},
        weights="adapter_model.safetensors",
    )


def test_adapters_on_models(toys: Toys) -> None:
    add_adapter(toys)
    for named in ("a+lora", "{model: a, lora: lora}", "{model: {path: a}, lora: {path: lora}}"):
        merge = toys.expand(models(f"model: {named}", "model: b", more="parameters: {weight: 1}"))
        changed = line(merge, q(1)).inputs
        assert [one.factors is not None for one in changed] == [True, False]
        factors = changed[0].factors
        assert factors is not None
        assert (factors.scale, toys.owner(changed[0].source)) == (2.0, f"a:{q(1)}")
        assert toys.owner(factors.up).endswith("lora_B.weight")
        assert line(merge, q(0)).inputs[0].factors is None
        assert [one.label for one in merge.models] == ["a", "lora", "b"]


@pytest.mark.parametrize("named", ["lora", "base+lora"])
def test_an_adapter_of_the_base_is_a_difference(toys: Toys, named: str) -> None:
    add_adapter(toys)
    merge = toys.expand(
        models(f"model: {named}", "model: a", method="ties",
               more="base_model: base\nparameters: {weight: 1, density: 0.5}")
    )  # fmt: skip
    changed, full = line(merge, q(1)).inputs
    assert (changed.kind, changed.source, full.kind) == (TermKind.LOW_RANK, None, TermKind.FULL)
    assert merge.models[changed.model].label == "lora"
    untouched = line(merge, q(0)).inputs[0]
    assert untouched.source is None or toys.owner(untouched.source) == f"base:{q(0)}"
