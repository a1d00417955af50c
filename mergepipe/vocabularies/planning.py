"""The vocabulary of a merge: which tokens the output knows, and each model's rows for them.

The rules are those of mergekit 0.1.5. Nothing here reads a file or a weight:
`tokenizer_reading` made the vocabularies, `embeddings` lays the embeddings out.
"""

from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from typing import Any, TypeAlias

from msgspec import Struct, field

from mergepipe.errors import MergeInputError
from mergepipe.names import quoted
from mergepipe.plans.left_out import Kind, LeftOut
from mergepipe.vocabularies.row_maps import Row, RowMap, own_rows, row_map
from mergepipe.vocabularies.templates import chat_template
from mergepipe.vocabularies.tokenizer_writing import write_tokenizer
from mergepipe.vocabularies.union import combine
from mergepipe.vocabularies.vocabulary import Vocabulary

MAX_PADDING = 1 << 20
_MOST_NAMED = 3
# Of tokens that are left out: a vocabulary may have hundreds of thousands.
_MOST_KEPT = 1000


class From(StrEnum):
    """Whose tokens the output knows, where no model is named."""

    BASE = "base"
    UNION = "union"


class Zeros(Struct, frozen=True):
    """A token's row is zero."""


class TokenOf(Struct, frozen=True):
    """A row of a model: of the same token, of `token`, or the row `row`, whatever it is for."""

    model: int
    token: str | None = None
    row: int | None = None


TokenSource: TypeAlias = Zeros | TokenOf


class TokenRule(Struct, frozen=True):
    """Where a token comes from in models that lack it; with `force` in all models."""

    source: TokenSource
    force: bool = False


class VocabularyRequest(Struct, frozen=True):
    """What a recipe says of the tokenizer. Models are places among the merge's models.

    source    None: nothing is said; all models have to have as many rows
    tokens    rules for some tokens; those that nobody has are added
    multiple  the embeddings get so many rows that this divides them; 1 adds none
    template  a named chat template, `auto`, or Jinja text
    """

    source: From | int | None = None
    tokens: Mapping[str, TokenRule] = field(default_factory=dict)
    multiple: int = 1
    template: str | None = None

    @property
    def changes_rows(self) -> bool:
        """Whether embeddings may have to be laid out anew."""
        return self.source is not None or bool(self.tokens) or self.multiple > 1


class ModelVocabulary(Struct, frozen=True):
    """A model's tokenizer and the size of its embeddings.

    label       how messages call it
    vocabulary  None if it has no tokenizer files
    rows        of its input embeddings; None if it has none (an adapter: as its base)
    files       its tokenizer files by path; needed of the model whose tokenizer the output takes
    merged      False: it only lends its tokenizer, or single tokens
    """

    label: str
    vocabulary: Vocabulary | None
    rows: int | None
    files: Mapping[str, bytes] = field(default_factory=dict)
    merged: bool = True


class VocabularyPlan(Struct, frozen=True):
    """What becomes of a merge's vocabulary.

    vocabulary  of the output; None where nothing was asked and there is no tokenizer
    rows        of the output's embeddings; None where no model has any
    maps        each model's new rows; None where its tensors stay as they are
    files       the output's tokenizer files by path; None: those of the layout, as they are
    origin      the model whose tokenizer it is, extended or not
    notes       what a person should know, in full sentences
    left_out    tokens and rows that models have and the output has not
    """

    vocabulary: Vocabulary | None
    rows: int | None
    maps: tuple[RowMap | None, ...]
    files: Mapping[str, bytes] | None
    origin: int
    notes: tuple[str, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @property
    def lays_out(self) -> bool:
        """Whether any model's embeddings change."""
        return any(map_ is not None for map_ in self.maps)


def plan_vocabulary(
    request: VocabularyRequest, models: Sequence[ModelVocabulary], base: int | None
) -> VocabularyPlan:
    """The output's vocabulary and every model's way to it.

    `base` is the base model; without one the first model stands in for the tokenizer, and for
    nothing else. Raises MergeInputError naming models, sizes and tokens: sizes that differ where
    nothing is said, a model without a tokenizer, unknown tokens and templates.
    """
    template = chat_template(request.template, _templates(models))
    first = base if base is not None else 0
    if not request.changes_rows:
        return _unchanged(models, first, template)
    _check(request, models)
    known = [_known(model) for model in models]
    source = request.source if request.source is not None else From.UNION
    origin = source if isinstance(source, int) else first
    others = [
        known[number]
        for number, model in enumerate(models)
        if source is From.UNION and number != origin and model.merged
    ]
    combined = combine(known[origin], others, request.tokens)
    vocabulary = combined.vocabulary
    notes = [
        f"Models add {_some(combined.conflicts)} with different settings; the first one's count."
    ] * bool(combined.conflicts)
    rows = -(-vocabulary.end // request.multiple) * request.multiple
    maps = _Rows(request, models, known, base, origin, vocabulary, rows, notes).maps()
    files = write_tokenizer(models[origin].files, vocabulary, models[origin].label, template)
    left_out = tuple(_left_out(models, vocabulary, rows))
    return VocabularyPlan(
        vocabulary=vocabulary,
        rows=rows,
        maps=maps,
        files=files,
        origin=origin,
        notes=tuple(notes),
        left_out=left_out,
    )


def _left_out(
    models: Sequence[ModelVocabulary], vocabulary: Vocabulary, rows: int
) -> Iterator[LeftOut]:
    """Tokens, and rows past the last token, that merged models have and the output has not."""
    for model in models:
        if not model.merged or model.vocabulary is None:
            continue
        tokens = [token for token in model.vocabulary.ids if token not in vocabulary.ids]
        if tokens:
            yield LeftOut(Kind.TOKENS, model.label, tuple(tokens[:_MOST_KEPT]), count=len(tokens))
        beyond = (model.rows or 0) - max(model.vocabulary.end, rows)
        if beyond > 0:
            yield LeftOut(Kind.TOKEN_ROWS, model.label, count=beyond)


def _templates(models: Sequence[ModelVocabulary]) -> list[str | None]:
    return [
        model.vocabulary.chat_template
        for model in models
        if model.merged and model.vocabulary is not None
    ]


def _unchanged(
    models: Sequence[ModelVocabulary], first: int, template: str | None
) -> VocabularyPlan:
    """Nothing is said of tokens: embeddings go together row by row, whatever the rows mean."""
    sized = [(model.label, model.rows) for model in models if model.merged and model.rows]
    for label, rows in sized[1:]:
        if rows != sized[0][1]:
            raise MergeInputError(
                f"the embeddings of {quoted(sized[0][0])} have {sized[0][1]} rows, "
                f"those of {quoted(label)} {rows}",
                "say which vocabulary the output shall have: tokenizer_source: base, union, or a "
                "model",
            )
    origin = models[first]
    notes = []
    for model in models:
        ours, theirs = origin.vocabulary, model.vocabulary
        if model.merged and ours and theirs and model is not origin:
            differing = sum(theirs.ids.get(token) != place for token, place in ours.ids.items())
            if differing:
                notes.append(
                    f"{quoted(origin.label)} and {quoted(model.label)} disagree on {differing} of "
                    f"{len(ours.ids)} tokens, and rows are merged by number; tokenizer_source "
                    "would match them by token."
                )
    files = None
    if template is not None:
        if origin.vocabulary is None:
            raise MergeInputError(
                f"{quoted(origin.label)} has no tokenizer to put a chat template into",
                "leave chat_template out, or take a tokenizer_source that has one",
            )
        files = write_tokenizer(origin.files, origin.vocabulary, origin.label, template)
    return VocabularyPlan(
        vocabulary=origin.vocabulary,
        rows=sized[0][1] if sized else None,
        maps=(None,) * len(models),
        files=files,
        origin=first,
        notes=tuple(notes),
    )


def _check(request: VocabularyRequest, models: Sequence[ModelVocabulary]) -> None:
    if not 1 <= request.multiple <= MAX_PADDING:
        raise MergeInputError(
            f"pad_to_multiple_of is {request.multiple}", f"it can be 1 to {MAX_PADDING}"
        )
    for model in models:
        if model.vocabulary is None:
            raise MergeInputError(
                f"{quoted(model.label)} has no tokenizer, and the recipe matches tokens",
                "add its tokenizer.json to the model, or leave the tokenizer setting out",
            )
    sources = [rule.source for rule in request.tokens.values()]
    named = [source.model for source in sources if isinstance(source, TokenOf)]
    named += [request.source] if isinstance(request.source, int) else []
    if any(not 0 <= number < len(models) for number in named):
        raise MergeInputError("the tokenizer setting names a model that is not there")


def _known(model: ModelVocabulary) -> Vocabulary:
    """What a model knows and has embeddings for."""
    assert model.vocabulary is not None
    return model.vocabulary if model.rows is None else model.vocabulary.below(model.rows)


class _Rows:
    """Finds every model's rows for the tokens of the output."""

    def __init__(
        self,
        request: VocabularyRequest,
        models: Sequence[ModelVocabulary],
        known: Sequence[Vocabulary],
        base: int | None,
        origin: int,
        vocabulary: Vocabulary,
        rows: int,
        notes: list[str],
    ) -> None:
        self._request = request
        self._models = models
        self._known = known
        self._base = base
        self._origin = origin
        self._vocabulary = vocabulary
        self._count = rows
        self._notes = notes
        self._defaults: dict[str, Row | tuple[Row, ...] | None] = {}
        self._nowhere: dict[str, None] = {}

    def maps(self) -> tuple[RowMap | None, ...]:
        """Each merged model's rows; None where they are those it has."""
        row_maps = [
            self._map(number) if model.merged and model.rows is not None else None
            for number, model in enumerate(self._models)
        ]
        if self._nowhere:
            self._notes.append(f"No model has {_some(tuple(self._nowhere))}; their rows are zero.")
        return tuple(row_maps)

    def _map(self, number: int) -> RowMap | None:
        ids, rules = self._known[number].ids, self._request.tokens
        # Rows without a token (gaps between ids) mean nothing; they stay as they are if they can.
        gaps = number if ids == self._known[self._origin].ids else self._origin
        limit = self._models[gaps].rows or 0
        end = self._vocabulary.end
        sources: list[Row | tuple[Row, ...] | None] = [
            (gaps, place) if place < limit else None for place in range(end)
        ]
        for token, place in self._vocabulary.ids.items():
            rule = rules.get(token)
            row = None if rule is not None and rule.force else ids.get(token)
            sources[place] = (number, row) if row is not None else self._default(token)
        map_ = row_map(sources, self._count - end)
        return None if map_ == own_rows(number, self._models[number].rows or 0) else map_

    def _default(self, token: str) -> Row | tuple[Row, ...] | None:
        """What stands for a token in models that lack it: as ruled, the base's row, or the mean."""
        if token not in self._defaults:
            self._defaults[token] = self._found(token)
        return self._defaults[token]

    def _found(self, token: str) -> Row | tuple[Row, ...] | None:
        rule = self._request.tokens.get(token)
        if rule is not None:
            return None if isinstance(rule.source, Zeros) else self._row(token, rule.source)
        if self._base is not None and token in self._known[self._base].ids:
            return self._base, self._known[self._base].ids[token]
        having = tuple(
            (number, known.ids[token])
            for number, (model, known) in enumerate(zip(self._models, self._known, strict=True))
            if model.merged and model.rows is not None and token in known.ids
        )
        if not having:
            self._nowhere.setdefault(token)
            return None
        return having if len(having) > 1 else having[0]

    def _row(self, token: str, source: TokenOf) -> Row:
        model, known = self._models[source.model], self._known[source.model].ids
        label = quoted(model.label)
        wanted = token if source.token is None else source.token
        row = known.get(wanted) if source.row is None else source.row
        if row is None:
            raise MergeInputError(
                f"token {quoted(token)} shall come from {label}, which has no token "
                f"{quoted(wanted)}",
                "name a model that has it, another token, or {kind: zero}",
            )
        if model.rows is None or not 0 <= row < model.rows:
            raise MergeInputError(
                f"token {quoted(token)} shall come from row {row} of {label}, "
                f"which has {model.rows or 0} rows"
            )
        return source.model, row


def adjusted_ids(
    config: Mapping[str, Any], plan: VocabularyPlan, own: Vocabulary | None
) -> dict[str, Any]:
    """What changes in a config.json or generation_config.json because of the vocabulary.

    `own` is the vocabulary of the model that the config is of. `vocab_size`, where the config has
    one, and every `..._token_id` whose token has another id now: one id, or a list of them. A token
    that the output lacks gives way to the one that the output's tokenizer has in that role, or to
    null.
    """
    changes: dict[str, Any] = {}
    if plan.rows is not None and config.get("vocab_size") not in (None, plan.rows):
        changes["vocab_size"] = plan.rows
    new = plan.vocabulary
    if own is None or new is None or own.ids == new.ids:
        return changes
    tokens = {place: token for token, place in own.ids.items()}
    for key, value in config.items():
        if not key.endswith("_token_id"):
            continue
        role = new.roles.get(key.removesuffix("_id"))
        moved = [
            _moved(entry, tokens, new, role)
            for entry in (value if isinstance(value, list) else [value])
        ]
        after: Any = [place for place in moved if place is not None]
        if not isinstance(value, list):
            after = moved[0]
        if after != value:
            changes[key] = after
    return changes


def _moved(value: Any, tokens: Mapping[int, str], new: Vocabulary, role: str | None) -> Any:
    if not isinstance(value, int) or isinstance(value, bool) or value not in tokens:
        return value  # no id, or one that stands for nothing: not ours to judge
    place = new.ids.get(tokens[value])
    if place is None and role is not None:
        place = new.ids.get(role)
    return place


def _some(tokens: Sequence[str]) -> str:
    shown = ", ".join(quoted(token) for token in tokens[:_MOST_NAMED])
    more = len(tokens) - _MOST_NAMED
    return (
        ("token " if len(tokens) == 1 else "tokens ")
        + shown
        + (f" and {more} more" if more > 0 else "")
    )
