"""Every way in which a merge leaves out something of its models, and the words that tell of it.

What is not merged, replaced or not taken over is one of these kinds: found by what lines up names,
files, vocabularies and layers, told before the merge is carried out, and kept with its result.
docs/merging.md has the same list as a table.
"""

from collections.abc import Iterable, Sequence
from enum import StrEnum

from msgspec import Struct

from mergepipe.names import escape_for_terminal, quoted
from mergepipe.plans.name_patterns import collapsed, shown
from mergepipe.reprs import brief


class Kind(StrEnum):
    """What is left out; scripts see it."""

    MISSING_TENSORS = "missing_tensors"
    EXTRA_TENSORS = "extra_tensors"
    UNUSED_TENSORS = "unused_tensors"
    BASE_WEIGHTS = "base_weights"
    BUFFERS = "buffers"
    COPIED_HEAD = "copied_head"
    COMPONENTS = "components"
    WEIGHT_FILES = "weight_files"
    NESTED_ADAPTERS = "nested_adapters"
    OTHER_FORMATS = "other_formats"
    TRAINING_STATE = "training_state"
    QUANTIZATION = "quantization"
    QUANTIZATION_CONFIG = "quantization_config"
    CONFIG_KEYS = "config_keys"
    TOKENIZER = "tokenizer"
    TOKENS = "tokens"
    TOKEN_ROWS = "token_rows"
    OTHER_FILES = "other_files"
    LAYER_FILES = "layer_files"
    CARD = "card"
    STAGES = "stages"
    BLOCKS = "blocks"


class Level(StrEnum):
    """How loudly it is told: `listed` is in documents and results alone."""

    WARNING = "warning"
    NOTE = "note"
    LISTED = "listed"


@brief
class Way(Struct, frozen=True):
    """A kind's place in the list.

    what     is left out, for the table
    instead  what the result has in its place, for the table
    words    of one case: {model}, {count} and {names}, {reason} where it differs from case to case
    noun     of what is counted, one and several
    """

    what: str
    instead: str
    words: str
    level: Level
    noun: tuple[str, str] = ("tensor", "tensors")


WAYS: dict[Kind, Way] = {
    Kind.MISSING_TENSORS: Way(
        "tensors and modules that an expert lacks (`--allow-missing`; a language model in a larger "
        "one)",
        "the base's, to which the expert adds nothing",
        "{model} lacks {count}; it adds nothing to the base's there: {names}",
        Level.WARNING,
    ),
    Kind.EXTRA_TENSORS: Way(
        "tensors and modules that only an expert has (`--allow-missing`; the towers of a larger "
        "model)",
        "nothing",
        "{model} has {count} that the result has no place for; not merged: {names}",
        Level.WARNING,
    ),
    Kind.UNUSED_TENSORS: Way(
        "layers, embeddings and heads that slices or modules do not name",
        "what the recipe says",
        "the recipe takes nothing of {count} of {model}: {names}",
        Level.NOTE,
    ),
    Kind.BASE_WEIGHTS: Way(
        "the weights of a base, with a method that takes no differences",
        "a merge of the experts alone; names, config and tokenizer are the base's",
        "{model} gives names, config and tokenizer, and no weights: {reason} takes no differences "
        "from a base",
        Level.NOTE,
    ),
    Kind.BUFFERS: Way(
        "buffers (`inv_freq`, `position_ids`, causal masks) that another model lacks",
        "what follows from the config",
        "{model} has the buffer {names}, which another model lacks: left out, as it follows from "
        "the config",
        Level.WARNING,
    ),
    Kind.COPIED_HEAD: Way(
        "a head that is a copy of the embeddings that the config says it shares",
        "the embeddings",
        "{model} has the head {names}, which is a copy of the embeddings that it shares: it counts "
        "as none",
        Level.NOTE,
    ),
    Kind.COMPONENTS: Way(
        "components beside the model (`2_Dense/`), where a recipe has slices or modules",
        "those of `base_model` or the first model, as they stand",
        "{names} beside {model}: taken over as it stands, not merged, as slices and modules are of "
        "the model in the top directory",
        Level.WARNING,
        ("component", "components"),
    ),
    Kind.WEIGHT_FILES: Way(
        "a second set of weights (`consolidated.safetensors`, a variant), checkpoints of a "
        "training, copies for other programs",
        "nothing",
        "{model}: left out: {names}: {reason}",
        Level.WARNING,
        ("file", "files"),
    ),
    Kind.NESTED_ADAPTERS: Way(
        "an adapter in a directory of a model",
        "of the model whose files the result has it stays, as it stands",
        "{model}: the adapter in {names} is not merged: it is no part of the model; to have it, "
        "merge model+adapter in a recipe",
        Level.WARNING,
        ("adapter", "adapters"),
    ),
    Kind.OTHER_FORMATS: Way(
        "weights in other formats beside safetensors (`pytorch_model.bin`, GGUF, ONNX, `.h5`)",
        "nothing: they would be weights that nobody merged",
        "{model}: left out: {names}: weights in another format beside those that are merged",
        Level.NOTE,
        ("file", "files"),
    ),
    Kind.TRAINING_STATE: Way(
        "the state of a training (optimizer, scheduler, random states, `training_args.bin`, logs)",
        "nothing",
        "{model}: left out: {names}: the state of a training",
        Level.NOTE,
        ("file", "files"),
    ),
    Kind.QUANTIZATION: Way(
        "8-bit codes and their scales",
        "the numbers that they stand for; the result is not quantized",
        "{model} has 8-bit floats: merged as the numbers that they and their scales stand for, and "
        "the result is not quantized",
        Level.NOTE,
    ),
    Kind.QUANTIZATION_CONFIG: Way(
        "a `quantization_config` over weights that are whole (a model trained from a quantized "
        "one)",
        "nothing: libraries would look for codes",
        "{names} of {model} speaks of quantized weights, and they are whole: the result's does not",
        Level.NOTE,
        ("file", "files"),
    ),
    Kind.CONFIG_KEYS: Way(
        "what an expert's config.json says otherwise than that of the result",
        "what the base says, or else the first model",
        "config.json of {model} differs from the result's in {names}: {reason}",
        Level.NOTE,
        ("key", "keys"),
    ),
    Kind.TOKENIZER: Way(
        "an expert's or adapter's tokenizer, or its chat template, where they differ",
        "the base's, or the one that the recipe asks for",
        "the tokenizer of {model} is not the result's; not taken over: {names}",
        Level.NOTE,
        ("file", "files"),
    ),
    Kind.TOKENS: Way(
        "tokens that the result does not know (`tokenizer_source` names another's vocabulary), or "
        "that have no row",
        "nothing",
        "{model} knows {count} that the result does not: {names}",
        Level.WARNING,
        ("token", "tokens"),
    ),
    Kind.TOKEN_ROWS: Way(
        "rows of the embeddings past the last token",
        "rows for the tokens of the result, and those of `pad_to_multiple_of`",
        "{model} has {count} of embeddings past the last token, which the result has not",
        Level.NOTE,
        ("row", "rows"),
    ),
    Kind.OTHER_FILES: Way(
        "an expert's other files (generation_config.json, code, processors), where they differ",
        "the base's, or else the first model's",
        "{model}: not taken over: {names}",
        Level.NOTE,
        ("file", "files"),
    ),
    Kind.LAYER_FILES: Way(
        "files of the model whose files the result has that name layers by number (`params.json`, "
        "an adapter in a directory), where layers move",
        "nothing: they would speak of other layers",
        "{model}: left out: {names}: layers moved, and this speaks of them by number",
        Level.WARNING,
        ("file", "files"),
    ),
    Kind.CARD: Way(
        "the README.md of a recipe's models",
        "a card that says what was merged",
        "{names} of {model} gives way to a card of the merge",
        Level.LISTED,
        ("file", "files"),
    ),
    Kind.STAGES: Way(
        "documents of a recipe that the last one does not need",
        "nothing",
        "{model} is not part of the result",
        Level.WARNING,
        ("stage", "stages"),
    ),
    Kind.BLOCKS: Way(
        "blocks that a budget does not buy",
        "their estimates, or the base's",
        "of {model} {reason}: that is what the budget leaves",
        Level.LISTED,
        ("block", "blocks"),
    ),
}

_MOST_SHOWN = 8
_TENSORS = frozenset(
    (Kind.MISSING_TENSORS, Kind.EXTRA_TENSORS, Kind.UNUSED_TENSORS, Kind.COPIED_HEAD)
)


@brief
class LeftOut(Struct, frozen=True):
    """What a merge leaves out of one model, by kind.

    names   of tensors, files, tokens or keys; empty where the kind says it all
    reason  what sets the case apart, where the kind's words have a place for it
    count   of what is too much to name
    """

    kind: Kind
    model: str
    names: tuple[str, ...] = ()
    reason: str = ""
    count: int = 0

    @property
    def level(self) -> Level:
        """How loudly it is told."""
        return WAYS[self.kind].level

    @property
    def patterns(self) -> tuple[str, ...]:
        """The names, layers and experts collapsed."""
        return tuple(collapsed(self.names)) if self.kind in _TENSORS else self.names

    @property
    def message(self) -> str:
        """The words for a person."""
        way = WAYS[self.kind]
        count = self.count or len(self.names)
        return way.words.format(
            model=quoted(self.model),
            count=f"{count} {way.noun[count != 1]}",
            names=self._shown(),
            reason=self.reason,
        )

    def _shown(self) -> str:
        if self.kind in _TENSORS:
            return shown(self.names)
        quote = escape_for_terminal if self.kind is Kind.WEIGHT_FILES else quoted
        most = 1 if self.kind in (Kind.WEIGHT_FILES, Kind.BUFFERS) else _MOST_SHOWN
        more = max(self.count, len(self.names)) - most
        text = ", ".join(quote(name) for name in self.names[:most])
        return text + (f" and {more} more" if more > 0 else "")


def collected(parts: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """One for each kind, model and reason, in the order of their first mention."""
    names: dict[tuple[Kind, str, str, int], dict[str, None]] = {}
    for part in parts:
        key = part.kind, part.model, part.reason, part.count
        names.setdefault(key, {}).update(dict.fromkeys(part.names))
    return tuple(
        LeftOut(kind, model, tuple(name), reason, count)
        for (kind, model, reason, count), name in names.items()
    )


def lines(left_out: Iterable[LeftOut]) -> tuple[str, ...]:
    """The lines that tell a person, each with its level."""
    return tuple(
        f"{part.level}: {part.message}" for part in left_out if part.level is not Level.LISTED
    )


def of_names(kind: Kind, model: str, names: Sequence[str]) -> Iterable[LeftOut]:
    """One, if there are any names."""
    if names:
        yield LeftOut(kind, model, tuple(names))
