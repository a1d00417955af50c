"""The `tokenizer` and `tokenizer_source` of a recipe."""

from mergepipe.names import quoted
from mergepipe.planner.mergekit.document import Mapping, Node, Scalar
from mergepipe.planner.mergekit.fields import Fields, Notes, text
from mergepipe.planner.mergekit.model_names import read_model
from mergepipe.planner.mergekit.schema import (
    ModelName,
    TokenizerChoice,
    TokenRule,
    TokenSource,
    TokenSourceKind,
    Vocabulary,
)


def read_tokenizer(fields: Fields, notes: Notes) -> TokenizerChoice | None:
    """What a recipe says of its tokenizer. Raises UsageError, also where it says it twice."""
    legacy, modern = fields.get("tokenizer_source"), fields.get("tokenizer")
    if legacy is not None and modern is not None:
        raise notes.refused(
            modern.place, "a recipe has tokenizer and tokenizer_source", "leave one of them out"
        )
    if legacy is not None:
        return TokenizerChoice(_vocabulary(legacy, notes), place=legacy.place)
    if modern is None:
        return None
    if isinstance(modern, Scalar):
        hint = f"write tokenizer_source: {modern.text}, or tokenizer: {{source: {modern.text}}}"
        raise notes.refused(modern.place, f"tokenizer is {quoted(modern.text)}", hint)
    inner = Fields(modern, "tokenizer", notes, ("source", "tokens", "pad_to_multiple_of"))
    source = inner.get("source")
    return TokenizerChoice(
        Vocabulary.UNION if source is None else _vocabulary(source, notes),
        _tokens(inner, notes),
        inner.whole("pad_to_multiple_of", 0) or None,
        modern.place,
    )


def _vocabulary(node: Node, notes: Notes) -> ModelName | Vocabulary:
    if isinstance(node, Scalar) and node.text in tuple(Vocabulary):
        return Vocabulary(node.text)
    return read_model(node, "tokenizer source", notes)


def _tokens(fields: Fields, notes: Notes) -> tuple[TokenRule, ...]:
    node = fields.get("tokens")
    if node is None:
        return ()
    if not isinstance(node, Mapping):
        raise fields.wrong("tokens", node, "a mapping (token: {source: ...})")
    return tuple(_token(entry.key, entry.value, notes) for entry in node.entries)


def _token(name: str, node: Node, notes: Notes) -> TokenRule:
    fields = Fields(node, f"token {quoted(name)}", notes, ("source", "force"))
    source = fields.get("source")
    return TokenRule(
        name, None if source is None else _source(source, name, notes), fields.flag("force")
    )


def _source(node: Node, name: str, notes: Notes) -> TokenSource:
    if not isinstance(node, Mapping) or node.get("kind") is None:
        model = read_model(node, f"source of token {quoted(name)}", notes)
        return TokenSource(TokenSourceKind.MODEL, model)
    fields = Fields(
        node, f"source of token {quoted(name)}", notes, ("kind", "model", "token", "token_id")
    )
    kind = text(fields.need("kind"), "kind", notes)
    if kind == TokenSourceKind.ZERO:
        return TokenSource(TokenSourceKind.ZERO)
    if kind != TokenSourceKind.MODEL_TOKEN:
        raise fields.wrong("kind", fields.need("kind"), "zero or model_token")
    model = read_model(fields.need("model", "name the model"), "model", notes)
    token, identity = fields.text("token"), fields.whole("token_id", 0)
    if token is None and identity is None:
        raise notes.refused(
            node.place,
            f"the source of token {quoted(name)} names no token",
            "give token or token_id",
        )
    return TokenSource(TokenSourceKind.MODEL_TOKEN, model, token, identity)
