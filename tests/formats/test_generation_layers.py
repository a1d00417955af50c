"""What a generation_config.json says of layers follows them, or is refused by its key."""

from collections.abc import Sequence
from typing import Any

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.formats.generation_layers import restacked_settings
from mergepipe.formats.layer_rules import Layer
from mergepipe.formats.restacking import LayerOrigin, restacked, restacked_part

HEADS = {"alignment_heads": [[0, 1], [3, 2], [3, 0]], "temperature": 0.5}


def settings(given: dict[str, Any], numbers: Sequence[int]) -> dict[str, Any]:
    return dict(restacked_settings(given, [Layer(given, one, 4) for one in numbers], 4))


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        ([0, 1, 2, 3], [[0, 1], [3, 2], [3, 0]]),
        ([3, 0], [[0, 2], [0, 0], [1, 1]]),
        ([0, 0, 1], [[0, 1], [1, 1]]),
        ([1, 2], None),
    ],
)
def test_heads_follow_their_layers(numbers: Sequence[int], expected: Any) -> None:
    found = settings(HEADS, numbers)
    assert found.get("alignment_heads") == expected
    assert found["temperature"] == 0.5


def test_layers_have_the_heads_of_their_own_model() -> None:
    layers = [Layer({"alignment_heads": [[1, 5]]}, 1, 4), Layer({}, 3, 4), Layer(HEADS, 0, 4)]
    found = restacked_settings(HEADS, layers, 4)
    # A model that says nothing of them is taken to have those of the others.
    assert found["alignment_heads"] == [[0, 5], [1, 2], [1, 0], [2, 1]]


@pytest.mark.parametrize("heads", [[[0]], [0, 1], [[0, "1"]], [[True, 1]]])
def test_what_is_no_list_of_heads(heads: Any) -> None:
    assert settings({"alignment_heads": heads}, range(4)) == {"alignment_heads": heads}
    with pytest.raises(MergeInputError, match=r"generation_config\.json's \Walignment_heads"):
        settings({"alignment_heads": heads}, [0, 1])


@pytest.mark.parametrize(
    "given",
    [
        {"assistant_early_exit": 2},
        {"dola_layers": [0, 2]},
        {"layers_to_skip": [2]},
        {"drafting": {"exit_layer": 2}},
    ],
)
def test_other_numbers_of_layers(given: dict[str, Any]) -> None:
    for stays in ([0, 1, 2, 3], [0, 1, 2], [0, 1, 2, 2, 3]):
        assert settings(given, stays) == given
    for moves in ([0, 1], [1, 2, 3], [0, 1, 1, 2, 3]):
        with pytest.raises(
            MergeInputError, match=r"generation_config\.json's .* names layer [012]"
        ):
            settings(given, moves)


def test_what_only_sounds_like_layers() -> None:
    given = {"dola_layers": "high", "num_hidden_layers": 4, "layerdrop": 0.1, "exit": None}
    assert settings(given, [0, 0]) == {**given, "num_hidden_layers": 2}


def test_keys_of_a_config_that_no_rule_knows() -> None:
    ids = [1, 2, 3, 0]
    given = {"num_hidden_layers": 4, "aux_hidden_state_layer_ids": ids, "exit_layers": [1]}
    drafts = restacked(given, [LayerOrigin(given, one) for one in (0, 1, 3)])
    assert (drafts["aux_hidden_state_layer_ids"], drafts["exit_layers"]) == (ids, [1])
    with pytest.raises(MergeInputError, match=r"config\.json's \Wexit_layers\W names layer 1"):
        restacked(given, [LayerOrigin(given, one) for one in (0, 2, 3)])


def test_heads_in_a_config() -> None:
    given = {"encoder_layers": 2, "decoder_layers": 4, **HEADS}
    changed = restacked_part(given, "decoder", [LayerOrigin(given, one) for one in (2, 3)])
    assert (changed["decoder_layers"], changed["alignment_heads"]) == (2, [[1, 2], [1, 0]])
