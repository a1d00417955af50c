"""The configs that are compared: every method and every feature of the schema.

`{base}`, `{math}`... stand for the paths of models (models.py). How results are compared is told by
`check`: `same` numbers within rounding; `statistics` for random masks; `refused` by both; `ours`
where mergekit fails or is wrong, and ours has to work.
"""

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """One config. `options` are mergekit's command-line options, and ours by the same meaning."""

    name: str
    text: str
    check: str = "same"
    dtypes: tuple[str, ...] = ("float32", "bfloat16")
    options: dict[str, object] = field(default_factory=dict)
    loads: bool = True


def models(method: str, *lines: str, base: bool = True, settings: str = "", top: str = "") -> str:
    """A config of `models:`; each line is a model and its parameters."""
    text = f"merge_method: {method}\n"
    if base:
        text += "base_model: {base}\n"
    text += "models:\n"
    for line in lines:
        name, _, own = line.partition(" ")
        text += f"  - model: {{{name}}}\n"
        if own:
            text += f"    parameters: {own}\n"
    if settings:
        text += f"parameters: {settings}\n"
    return text + (top or "dtype: {dtype}\n")


# Parameters in flow style: doubled braces, since names of models are filled in.
def _(text: str) -> str:
    return "{{" + text + "}}"


W = _("weight: 0.6"), _("weight: 0.9"), _("weight: -0.3")
THREE = (f"math {W[0]}", f"code {W[1]}", f"chat {W[2]}")
DENSE = tuple(
    f"{name} " + _(f"weight: {weight}, density: {density}")
    for name, weight, density in (("math", 0.6, 0.5), ("code", 0.9, 0.3), ("chat", 0.4, 0.8))
)

METHODS = [
    Case("linear", models("linear", *THREE, base=False)),
    Case("linear_plain", models("linear", *THREE, base=False, settings=_("normalize: false"))),
    Case("linear_base", models("linear", "base " + W[1], *THREE, base=False)),
    Case("task_arithmetic", models("task_arithmetic", *THREE)),
    Case(
        "task_arithmetic_lambda",
        models("task_arithmetic", *THREE, settings=_("normalize: true, lambda: 0.7")),
    ),
    Case("ties", models("ties", *DENSE)),
    Case("ties_plain", models("ties", *DENSE, settings=_("normalize: false, lambda: 1.3"))),
    Case("ties_rescale", models("ties", *DENSE, settings=_("rescale: true"))),
    Case("ties_int8", models("ties", *DENSE, settings=_("int8_mask: true"))),
    Case("dare_ties", models("dare_ties", *DENSE), check="statistics", dtypes=("float32",)),
    Case("dare_linear", models("dare_linear", *DENSE), check="statistics", dtypes=("float32",)),
    Case(
        "dare_linear_plain",
        models("dare_linear", *DENSE, settings=_("rescale: false")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case(
        "breadcrumbs",
        models(
            "breadcrumbs",
            "math " + _("weight: 0.5, density: 0.6, gamma: 0.05"),
            "code " + _("weight: 0.7, density: 0.4"),
        ),
    ),
    Case(
        "breadcrumbs_ties",
        models(
            "breadcrumbs_ties",
            "math " + _("weight: 0.5, density: 0.6, gamma: 0.05"),
            "code " + _("weight: 0.7, density: 0.9, gamma: 0.1"),
        ),
    ),
    Case(
        "della",
        models("della", *DENSE, settings=_("epsilon: 0.1")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case(
        "della_linear",
        models("della_linear", *DENSE, settings=_("epsilon: 0.1, lambda: 0.9")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case("slerp", models("slerp", "base", "math", settings=_("t: 0.3"))),
    Case("slerp_far", models("slerp", "base", "words", settings=_("t: 0.6")), check="refused"),
    Case("nuslerp", models("nuslerp", f"math {W[0]}", f"code {W[1]}", base=False)),
    Case("nuslerp_base", models("nuslerp", f"math {W[0]}", f"code {W[1]}")),
    Case(
        "nuslerp_rows",
        models(
            "nuslerp",
            f"math {W[0]}",
            f"code {W[1]}",
            settings=_("nuslerp_flatten: false, nuslerp_row_wise: true"),
        ),
    ),
    Case(
        "nuslerp_columns",
        models("nuslerp", f"math {W[0]}", f"code {W[1]}", settings=_("nuslerp_flatten: false")),
    ),
    Case(
        "multislerp",
        models("multislerp", f"math {W[0]}", f"code {W[1]}", "chat " + W[0], base=False),
    ),
    Case("multislerp_base", models("multislerp", f"math {W[0]}", f"code {W[1]}", "chat " + W[0])),
    Case("karcher", models("karcher", "math", "code", "chat", base=False)),
    Case("model_stock", models("model_stock", "math", "code", "chat")),
    Case(
        "model_stock_rows",
        models("model_stock", "math", "code", settings=_("filter_wise: true")),
    ),
    Case("sce", models("sce", "math", "code", "chat")),
    Case("sce_top", models("sce", "math", "code", "chat", settings=_("select_topk: 0.4"))),
    Case("ram", models("ram", "math", "code", "chat")),
    Case("ramplus_tl", models("ramplus_tl", "math", "code", "chat", settings=_("r: 0.2"))),
    Case("nearswap", models("nearswap", "math", settings=_("t: 0.001"))),
    Case("arcee_fusion", models("arcee_fusion", "math"), dtypes=("float32",)),
    Case("passthrough", models("passthrough", "math", base=False)),
    Case("passthrough_scale", models("passthrough", "math " + _("scale: 0.5"), base=False)),
]

SCHEMA = [
    Case(
        "filters",
        """merge_method: linear
models:
  - model: {math}
    parameters:
      weight:
        - filter: self_attn
          value: [0.1, 0.9]
        - filter: mlp
          value: 0.25
        - value: 0.5
  - model: {code}
    parameters:
      weight: [1, 0, 0.5]
parameters:
  normalize: true
dtype: {dtype}
""",
    ),
    Case(
        "slerp_gradients",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 4]
      - model: {code}
        layer_range: [0, 4]
merge_method: slerp
base_model: {math}
parameters:
  t:
    - filter: self_attn
      value: [0, 0.5, 0.3, 0.7, 1]
    - filter: mlp
      value: [1, 0.5, 0.7, 0.3, 0]
    - value: 0.5
dtype: {dtype}
""",
    ),
    Case(
        "frankenmerge",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 3]
  - sources:
      - model: {code}
        layer_range: [1, 4]
merge_method: passthrough
dtype: {dtype}
""",
    ),
    Case(
        "slices_of_two",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 2]
        parameters:
          weight: 0.75
      - model: {code}
        layer_range: [2, 4]
        parameters:
          weight: [0.2, 0.8]
  - sources:
      - model: {chat}
        layer_range: [2, 4]
        parameters:
          weight: 1
    parameters:
      normalize: false
merge_method: linear
dtype: {dtype}
""",
    ),
    Case(
        "self_stack_scaled",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 2]
  - sources:
      - model: {math}
        layer_range: [1, 3]
        parameters:
          scale:
            - filter: o_proj
              value: 0.0
            - filter: down_proj
              value: 0.0
            - value: 1.0
  - sources:
      - model: {math}
        layer_range: [3, 4]
merge_method: passthrough
dtype: {dtype}
""",
    ),
    Case(
        "slice_base",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 2]
        parameters: {{weight: 1.0}}
      - model: {base}
        layer_range: [0, 2]
    base_model: {base}
  - sources:
      - model: {math}
        layer_range: [2, 4]
      - model: {chat}
        layer_range: [2, 4]
        parameters: {{weight: 0.5}}
    base_model: {math}
merge_method: task_arithmetic
base_model: {base}
dtype: {dtype}
""",
    ),
    Case(
        "modules",
        """merge_method: task_arithmetic
base_model: {base}
modules:
  default:
    slices:
      - sources:
          - model: {math}
            layer_range: [0, 4]
            parameters: {{weight: 0.5}}
          - model: {base}
            layer_range: [0, 4]
    parameters:
      lambda: 0.8
dtype: {dtype}
""",
    ),
    Case(
        "precedence",
        """merge_method: ties
base_model: {base}
slices:
  - sources:
      - model: {math}
        layer_range: [0, 4]
        parameters:
          weight: 1
          density: 0.7
      - model: {code}
        layer_range: [0, 4]
        parameters:
          weight: 0.5
      - model: {base}
        layer_range: [0, 4]
    parameters:
      normalize: false
parameters:
  density: 0.4
  normalize: true
dtype: {dtype}
""",
    ),
    Case(
        "weights_as_text",
        models("linear", "math " + _("weight: 1e-1"), "code " + _('weight: "2"'), base=False),
    ),
    Case(
        "out_dtype",
        models("linear", *THREE, base=False, top="dtype: float32\nout_dtype: bfloat16\n"),
        dtypes=("float32",),
    ),
    Case("no_dtype", models("linear", *THREE, base=False, top="\n")),
    Case(
        "two_stages",
        """name: inner
merge_method: linear
models:
  - model: {math}
    parameters: {{weight: 0.3}}
  - model: {code}
    parameters: {{weight: 0.7}}
dtype: {dtype}
---
merge_method: task_arithmetic
base_model: {base}
models:
  - model: inner
    parameters: {{weight: 0.5}}
  - model: {chat}
    parameters: {{weight: 0.5}}
dtype: {dtype}
""",
    ),
    Case(
        "three_stages_of_ties",
        """name: first
merge_method: ties
base_model: {base}
models:
  - model: {math}
    parameters: {{weight: 1, density: 0.5}}
  - model: {code}
    parameters: {{weight: 1, density: 0.5}}
dtype: {dtype}
---
name: second
merge_method: slerp
base_model: first
models:
  - model: first
  - model: {chat}
parameters:
  t: 0.25
dtype: {dtype}
---
merge_method: ties
base_model: {base}
models:
  - model: first
    parameters: {{weight: 0.5, density: 0.6}}
  - model: second
    parameters: {{weight: 0.5, density: 0.6}}
dtype: {dtype}
""",
    ),
    Case("tied", models("linear", "tied " + W[0], "tied_math " + W[1], base=False)),
    Case("tied_and_not", models("linear", "tied " + W[0], "math " + W[1], base=False)),
    Case("shards", models("linear", *THREE, base=False), options={"out_shard_size": 40_000}),
    Case(
        "last_slice_is_the_head",
        """slices:
  - sources:
      - model: {math}
        layer_range: [0, 4]
  - sources:
      - model: {code}
        layer_range: [4, 4]
merge_method: passthrough
dtype: {dtype}
""",
    ),
]

VOCABULARY = [
    Case(
        "tokenizer_base",
        models(
            "linear",
            "base " + W[0],
            "words " + W[1],
            top="base_model: {base}\ntokenizer_source: base\ndtype: {dtype}\n",
            base=False,
        ),
    ),
    Case(
        "tokenizer_union",
        models(
            "linear",
            "words " + W[0],
            "other_words " + W[1],
            top="base_model: {base}\ntokenizer_source: union\ndtype: {dtype}\n",
            base=False,
        ),
        check="refused",
    ),
    Case(
        "tokenizer_union_ties",
        models(
            "ties",
            "words " + W[0],
            "other_words " + W[1],
            top="tokenizer_source: union\ndtype: {dtype}\n",
        ),
        dtypes=("float32",),
    ),
    Case(
        "union_linear",
        models(
            "linear",
            "words " + W[0],
            "other_words " + W[1],
            base=False,
            top="base_model: {words}\ntokenizer_source: union\ndtype: {dtype}\n",
        ),
    ),
    Case(
        "tokenizer_of_a_model",
        models(
            "linear",
            "base " + W[0],
            "words " + W[1],
            base=False,
            top="tokenizer: {{source: {words}}}\ndtype: {dtype}\n",
        ),
    ),
    Case(
        "tokens",
        models(
            "linear",
            "words " + W[0],
            "other_words " + W[1],
            base=False,
            top="""base_model: {words}
tokenizer:
  source: union
  tokens:
    <tool>:
      source: {words}
      force: true
    <pen>:
      source: {{kind: zero}}
    zag:
      source: {{kind: model_token, model: {words}, token: zig}}
dtype: {dtype}
""",
        ),
        dtypes=("float32",),
    ),
    Case(
        "padded",
        models(
            "linear",
            "math " + W[0],
            "code " + W[1],
            base=False,
            top="base_model: {math}\n"
            "tokenizer: {{source: base, pad_to_multiple_of: 48}}\n"
            "dtype: {dtype}\n",
        ),
    ),
    Case(
        "padded_union",
        models(
            "linear",
            "math " + W[0],
            "code " + W[1],
            base=False,
            top="base_model: {math}\n"
            "tokenizer: {{source: union, pad_to_multiple_of: 48}}\n"
            "dtype: {dtype}\n",
        ),
    ),
    Case(
        "chat_template",
        models(
            "linear",
            "math " + W[0],
            "code " + W[1],
            base=False,
            top="chat_template: chatml\ndtype: {dtype}\n",
        ),
    ),
]

CASES = [*METHODS, *SCHEMA, *VOCABULARY]
