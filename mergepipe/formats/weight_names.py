"""Which weights of two models are the same, where their names are not.

transformers keeps weights under other names on disk than in memory (vision models, since 4.52),
has renamed modules between versions, and loads a bare model into one with a head and back. PEFT
names an adapter's tensors after the modules in memory. Names that are equal are never looked at
here; of the others, two are one weight if they are the same in the form below, or but for one
prefix that sets the two models apart (`bert.`), and if nothing else in either model could be meant.

The renamings are those of transformers 5 (conversion_mapping.py) that name the same weights:
what it fuses, splits or turns round on loading is another layout, and is refused as such.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable

# What everything of a (language) model is in, by version, class, and what ran its training (DDP,
# torch.compile, FSDP); it says nothing.
_WRAPPERS = re.compile(
    r"^(?:(?:model|language_model|transformer|thinker|module|_orig_mod|_fsdp_wrapped_module)\.)+"
)
_RENAMINGS = tuple(
    (re.compile(pattern), new)
    for pattern, new in (
        # BERT's first checkpoints were TensorFlow's.
        (r"(LayerNorm|layer_norm)\.gamma$", r"\1.weight"),
        (r"(LayerNorm|layer_norm)\.beta$", r"\1.bias"),
        (r"\.weight_g$", ".parametrizations.weight.original0"),
        (r"\.weight_v$", ".parametrizations.weight.original1"),
        (r"^embed_out\.", "lm_head."),
        # One bias with two names in memory: BERT's and RoBERTa's heads of a masked language model.
        (r"(^|\.)(predictions|lm_head)\.decoder\.bias$", r"\1\2.bias"),
        (r"(^|\.)block_sparse_moe\.", r"\1mlp."),
        # Towers that are models of their own: CLIP and SigLIP in a LLaVA or a Gemma 3.
        (r"^(vision_tower|vision_model|image_tower)\.vision_model\.", r"\1."),
        (r"^vision_model\.model\.", "vision_model."),
        # ViT, DeiT, BEiT, DINOv2, AST, ViViT, ... on disk; from the inner to the outer part.
        (r"\battention\.attention\.query\b", "attention.q_proj"),
        (r"\battention\.attention\.key\b", "attention.k_proj"),
        (r"\battention\.attention\.value\b", "attention.v_proj"),
        (r"\battention\.output\.dense\b", "attention.o_proj"),
        (r"\bintermediate\.dense\b", "mlp.fc1"),
        (r"(^|\.\d+\.)output\.dense\b", r"\1mlp.fc2"),
        (r"\bencoder\.layer\.(?=\d)", "layers."),
    )
)
# Parts of a model that are not the model itself: their names are never dropped.
_PARTS = frozenset(
    (
        *("vision_tower", "vision_model", "visual", "image_tower", "audio_tower", "audio_model"),
        *("text_model", "text_encoder", "encoder", "decoder", "multi_modal_projector"),
    )
)
# Several tensors of one layout that are one in another.
_LAYOUTS = (
    (
        "experts",
        re.compile(r"\.experts\.\d+\."),
        re.compile(r"\.experts\.(?:gate_up_proj|gate_proj|up_proj|down_proj|w[123])\b"),
    ),
    (
        "queries, keys and values",
        re.compile(r"(?:^|[._])(?:q_proj|k_proj|v_proj|query|key|value|to_[qkv]|w[qkv]|q_lin)\b"),
        re.compile(r"(?:qkv(?:_proj)?|c_attn|Wqkv|query_key_value|in_proj_weight|att_proj)\b"),
    ),
    (
        "gate and up projection",
        re.compile(r"\.(?:gate_proj|up_proj|w1|w3)\b"),
        re.compile(r"\.(?:gate_up_proj|w12|w13|weights_in)\b"),
    ),
)


def plain(name: str) -> str:
    """A weight's name in a form that all versions of transformers have in common."""
    bare = _WRAPPERS.sub("", name)
    for pattern, new in _RENAMINGS:
        bare = pattern.sub(new, bare)
    return bare


class Spelling:
    """How one model spells the names of weights."""

    def __init__(self, names: Iterable[str]) -> None:
        self._names = dict.fromkeys(names)
        self._plain = _unique(self._names)
        self._endings: dict[str, list[str]] | None = None

    def of(self, name: str) -> str | None:
        """The model's name of the weight that another calls `name`; None if it has no such."""
        if name in self._names:
            return name
        wanted = plain(name)
        if wanted in self._plain:
            return self._plain[wanted]
        shorter = _without_prefix(wanted)
        if shorter is not None and shorter in self._plain:
            return self._plain[shorter]
        if self._endings is None:
            self._endings = {}
            for short, full in self._plain.items():
                ending = _without_prefix(short)
                if ending is not None and full is not None:
                    self._endings.setdefault(ending, []).append(full)
        longer = self._endings.get(wanted, [])
        return longer[0] if len(longer) == 1 else None


def same_weights(
    names: Iterable[str], reference: Iterable[str], *, in_layer: bool = False
) -> dict[str, str]:
    """Names of one model -> those of another, for weights that the two call differently.

    Names that both have are not in it, nor are weights that only one has. `in_layer`: names are
    relative to a layer, where no prefix sets models apart.
    """
    mine, theirs = dict.fromkeys(names), dict.fromkeys(reference)
    unmatched = _unique([name for name in mine if name not in theirs])
    other = _unique([name for name in theirs if name not in mine])
    pairs = {
        name: other[form]
        for form, name in unmatched.items()
        if name is not None and other.get(form) is not None
    }
    if in_layer:
        return {name: spelled for name, spelled in pairs.items() if spelled is not None}
    unmatched = {
        form: name for form, name in unmatched.items() if name is not None and name not in pairs
    }
    taken = set(pairs.values())
    other = {form: name for form, name in other.items() if name is not None and name not in taken}
    longer = _prefixed(unmatched, other)
    shorter = _prefixed(other, unmatched)
    if len(longer) >= len(shorter):
        pairs.update((unmatched[form], other[rest]) for form, rest in longer.items())  # type: ignore[misc]
    else:
        pairs.update((unmatched[rest], other[form]) for form, rest in shorter.items())  # type: ignore[misc]
    return {name: spelled for name, spelled in pairs.items() if spelled is not None}


def other_layout(names: Collection[str], reference: Collection[str]) -> tuple[str, bool] | None:
    """What of a model is laid out otherwise than in another, by the names that only one has.

    Returns what it is, and whether it is the first model that keeps it in one tensor.
    """
    for what, apart, fused in _LAYOUTS:
        for one, two, first in ((names, reference, False), (reference, names, True)):
            if any(map(apart.search, one)) and any(map(fused.search, two)):
                return what, first
    return None


def _unique(names: Iterable[str]) -> dict[str, str | None]:
    """Plain form -> name; None where several have it."""
    forms: dict[str, str | None] = {}
    for name in names:
        form = plain(name)
        forms[form] = name if form not in forms else None
    return forms


def _without_prefix(form: str) -> str | None:
    first, dot, rest = form.partition(".")
    # `distilbert.transformer.layer.0` is `transformer.layer.0` of the bare model.
    return _WRAPPERS.sub("", rest) if dot and first not in _PARTS else None


def _prefixed(longer: Iterable[str], shorter: Collection[str]) -> dict[str, str]:
    """Forms that are another's under one prefix, which is the same for all of them."""
    pairs = {
        form: rest
        for form in longer
        if (rest := _without_prefix(form)) is not None and rest in shorter
    }
    prefixes = Counter(form.partition(".")[0] for form in pairs)
    if not prefixes:
        return {}
    prefix = prefixes.most_common(1)[0][0]
    return {form: rest for form, rest in pairs.items() if form.startswith(prefix + ".")}
