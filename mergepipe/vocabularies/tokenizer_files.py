"""The JSON documents around a tokenizer, read within bounds."""

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from mergepipe.errors import MalformedFile
from mergepipe.formats.tokenizer_names import TEMPLATE, TEMPLATE_JSON
from mergepipe.names import quoted
from mergepipe.vocabularies.vocabulary import ROLES

# Gemma's tokenizer.json, the largest in wide use, has 33 MB.
MAX_FILE_BYTES = 100_000_000

Document = TypeVar("Document")


def parse(content: bytes, kind: type[Document], what: str) -> Document:
    """The JSON document `what` as a `kind`. Raises MalformedFile naming it."""
    if len(content) > MAX_FILE_BYTES:
        raise MalformedFile(f"{what} has {len(content)} bytes; {MAX_FILE_BYTES} are allowed")
    try:
        return msgspec.json.decode(content, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFile(
            f"{what} is no JSON of a tokenizer: {error}", "fetch it again"
        ) from error


def parse_object(content: bytes, what: str) -> dict[str, Any]:
    """The JSON object `what`, its members in their order. Raises MalformedFile naming it."""
    return parse(content, dict[str, Any], what)


def named(label: str, path: str) -> str:
    """A file as messages show it."""
    return f"{quoted(path)} of {quoted(label)}"


def content_of(value: object) -> str | None:
    """A token as configs give it: the text itself, or an object with a `content`."""
    if isinstance(value, Mapping):
        value = value.get("content")
    return value if isinstance(value, str) and value else None


def roles_of(*documents: Mapping[str, object]) -> dict[str, str]:
    """`bos_token` and so on; the first document that names one counts."""
    roles: dict[str, str] = {}
    for role in ROLES:
        for document in documents:
            token = content_of(document.get(role))
            if token is not None:
                roles.setdefault(role, token)
    return roles


def more_specials_of(*documents: Mapping[str, object]) -> list[str]:
    """Special tokens without a role, in the order of the documents."""
    specials: dict[str, None] = {}
    for document in documents:
        for key in ("additional_special_tokens", "extra_special_tokens"):
            values = document.get(key)
            if isinstance(values, Mapping):
                values = list(values.values())
            for value in values if isinstance(values, list) else ():
                token = content_of(value)
                if token is not None:
                    specials.setdefault(token)
    return list(specials)


def template_of(files: Mapping[str, bytes], config: Mapping[str, object], label: str) -> str | None:
    """The chat template that transformers takes: of the .jinja file, or of a config."""
    if TEMPLATE in files:
        try:
            return files[TEMPLATE].decode()
        except UnicodeDecodeError as error:
            raise MalformedFile(
                f"{named(label, TEMPLATE)} is not UTF-8", "fetch it again"
            ) from error
    template = config.get("chat_template")
    if template is None and TEMPLATE_JSON in files:
        document = parse_object(files[TEMPLATE_JSON], named(label, TEMPLATE_JSON))
        template = document.get("chat_template")
    if isinstance(template, list):  # several, each with a name
        for entry in template:
            if isinstance(entry, Mapping) and entry.get("name") == "default":
                template = entry.get("template")
    return template if isinstance(template, str) else None
