"""adapter_config.json of PEFT: rank, scale and flags, and which kinds of adapter are merged here.

Kinds that are neither LoRA nor DoRA are refused by their names. For most of those PEFT's own merge
does it; some it cannot merge either, as they change what a model does while it runs.
"""

import re
from collections.abc import Mapping
from functools import cache
from typing import Any

import msgspec

from mergepipe.errors import MalformedFile, MergeInputError
from mergepipe.names import quoted

ADAPTER_CONFIG = "adapter_config.json"
MAX_CONFIG_BYTES = 4 << 20

_WITH_PEFT = "merge it into its model with peft (merge_and_unload), and commit the result"
_NEVER = "peft cannot merge it either: it changes what the model does while it runs"
_REPEATED = (
    "peft does not merge it either: commit the stack of layers as a model (slices in a recipe), "
    "and train or name an adapter for that"
)
# Ways to begin that put the difference from a *changed* base into the adapter.
_CHANGES_BASE = ("pissa", "olora", "loftq", "corda", "lora_ga")
# Kinds that PEFT has no merge for (peft 0.21: no `merge` in their layers, or it raises).
_PROMPTS = frozenset(
    (
        *("PROMPT_TUNING", "MULTITASK_PROMPT_TUNING", "P_TUNING", "PREFIX_TUNING", "CPT"),
        *("ADAPTION_PROMPT", "XLORA", "POLY"),
    )
)
# Members that make a LoRA something else: what it then is, and what to do.
_KINDS = (
    ("alora_invocation_tokens", "an aLoRA, which acts from its invocation tokens on", _NEVER),
    ("arrow_config", "an Arrow router over other adapters", _NEVER),
    ("use_qalora", "a QALoRA, which is of a quantized model", _NEVER),
    ("use_bdlora", "a BD-LoRA, whose factors are block-diagonal", _WITH_PEFT),
    ("kasa_config", "a KaSA, which scales singular values", _WITH_PEFT),
    ("monteclora_config", "a MonteCLoRA, whose factors are sampled", _WITH_PEFT),
    ("layer_replication", "one of repeated layers (layer_replication)", _REPEATED),
    ("target_parameters", "one of whole parameters (target_parameters)", _WITH_PEFT),
)
# Members that only say how it was trained: not those of a kind that nobody here has heard of.
_HARMLESS = frozenset(
    (
        *(
            "use_rslora",
            "use_dora",
            "megatron_config",
            "eva_config",
            "loftq_config",
            "corda_config",
        ),
        *("lora_ga_config", "runtime_config", "velora_config", "use_gradient_checkpointing"),
    )
)

# Regular expressions of others can take for ever. Alternatives, and repetitions of single
# characters, do not, as long as few of those are without an end.
_ATOM = r"(?:[A-Za-z0-9_-]|\\[.dDwWsS_-]|\.|\[\^?(?:[A-Za-z0-9_.-]|\\[.dws_-])+\])"
_TIMES = r"(?:[*+]\??|\?|\{[1-9]?\d(?:,[1-9]?\d)?\})"
_SIMPLE = re.compile(rf"(?:{_ATOM}{_TIMES}?|\((?:\?:)?|\)\??|\||[$^])*")
_ENDLESS = re.compile(r"(?<!\\)[*+{]")
_LONGEST_PATTERN = 500
_MOST_ENDLESS = 3


class AdapterConfig(msgspec.Struct):
    """What is read of an adapter's config to merge it."""

    peft_type: str = ""
    r: int = 8
    lora_alpha: float = 8
    use_rslora: bool = False
    fan_in_fan_out: bool = False
    init_lora_weights: bool | str | None = True
    rank_pattern: dict[str, int] | None = None
    alpha_pattern: dict[str, float] | None = None
    base_model_name_or_path: str | None = None
    ensure_weight_tying: bool = False
    use_dora: bool = False
    lora_bias: bool = False
    trainable_token_indices: list[int] | dict[str, list[int]] | None = None
    layer_replication: list[tuple[int, int]] | None = None

    def token_places(self, module: str) -> list[int] | None:
        """The rows of a module's embeddings that were trained; None: the config does not say."""
        given = self.trainable_token_indices
        if not isinstance(given, dict):
            return given
        return next((rows for key, rows in given.items() if module.endswith(key)), None)

    def alpha(self, module: str, label: str) -> float:
        """The alpha of a module: that of the first pattern that its name ends with, as in PEFT.

        Raises MergeInputError for a regular expression that might run for ever.
        """
        for pattern, value in (self.alpha_pattern or {}).items():
            if module.endswith("." + pattern) or _matcher(pattern, label).fullmatch(module):
                return value
        return self.lora_alpha


def read_config(content: bytes, label: str) -> AdapterConfig:
    """A config, of a kind that is merged here.

    Raises MalformedFile for what is none, MergeInputError naming the kind and what to do.
    """
    if len(content) > MAX_CONFIG_BYTES:
        raise MalformedFile(f"{ADAPTER_CONFIG} of {quoted(label)} has {len(content)} bytes")
    try:
        settings = msgspec.json.decode(content, type=AdapterConfig)
        members = msgspec.json.decode(content, type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFile(f"{ADAPTER_CONFIG} of {quoted(label)}: {error}") from error
    refused = _other_kind(settings, members)
    if refused is not None:
        what, hint = refused
        raise MergeInputError(f"the adapter {quoted(label)} is {what}", hint)
    return settings


def _other_kind(settings: AdapterConfig, members: Mapping[str, Any]) -> tuple[str, str] | None:
    """What an adapter is, if no plain LoRA, and what to do about it."""
    kind = settings.peft_type.upper()
    if kind != "LORA":
        what = f"of type {quoted(settings.peft_type or 'unknown')}, not LORA"
        return what, _NEVER if kind in _PROMPTS else _WITH_PEFT
    for member, what, hint in _KINDS:
        if members.get(member):
            return what, hint
    begun = settings.init_lora_weights
    if isinstance(begun, str) and begun.lower().startswith(_CHANGES_BASE):
        return f"begun by {begun}, so that it changes a base that was changed too", _WITH_PEFT
    for member, value in members.items():
        special = member.startswith("use_") or member.endswith("_config")
        if value and special and member not in _HARMLESS:
            return f"a LoRA with {member}, which is not known here", _WITH_PEFT
    return None


@cache
def _matcher(pattern: str, label: str) -> re.Pattern[str]:
    """PEFT's match of a pattern, for the regular expressions that cannot run away."""
    rest = pattern.removeprefix("^").removesuffix("$")
    anchored = "" if pattern.startswith("^") else r"(?:.*\.)?"
    simple = len(pattern) <= _LONGEST_PATTERN and _SIMPLE.fullmatch(rest) is not None
    if simple and len(_ENDLESS.findall(rest)) <= _MOST_ENDLESS:
        try:
            return re.compile(f"{anchored}(?:{rest})")
        except re.error:
            pass
    raise MergeInputError(
        f"alpha_pattern of the adapter {quoted(label)}: {quoted(pattern)} is not understood",
        "names, `|`, and up to three `.*` or `\\d+` are; merge the adapter with peft otherwise",
    )
