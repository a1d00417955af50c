"""Between repositories: what the other side lacks, and what is believed of what it sends.

Who lives here: `urls`, `connect` and `remotes` (who the other side is); `push`, `push_refs`,
`uploading` and `wire_packs` with `wire_choice` (what goes); `fetch`, `downloading` and `clone`
(what comes); `new_commits` and `holdings` (what is needed, what is there); `quarantine`,
`verification` and `admission` (what becomes of it); `public_keys` and `rules` (what others may read
and change); `receiving` and `serving/` (our side as others see it); `hub`.

What comes in: a byte store that may lie, and ids. What goes out: packs here or there, then refs.

What never happens here: nothing received is named by a ref before it was decoded and hashed.
"""
