"""A repository as a hub: the Hugging Face hub's protocol over branches (docs/hub.md).

`application` is where requests come in; `addresses` says what they are about, `models` what that
is here. `listings` answers with what is known, `resolving` with files, decoded as they are sent
through `decoding`.
"""
