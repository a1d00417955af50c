"""Configs that say which vocabulary the result has."""

from tests.compat.cases import Case, W, models

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
