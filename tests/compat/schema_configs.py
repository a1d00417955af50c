"""Configs for the features of the schema: slices, modules, stages, filters, precedence, output."""

from tests.compat.cases import THREE, Case, W, _, models

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
