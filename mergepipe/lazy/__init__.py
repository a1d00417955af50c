"""Lazy clones: a repository whose blocks are with a remote, and come when they are read.

Who lives here: `store` is the byte store that the rest of the program sees; `frames` brings what a
promise consists of; `promised_pack` is one pack of which some records are here, `shelf` all of
them; `arrivals` fetches records, each once; `far_side` is the remote.

What comes in: reads of packs. What goes out: bytes, and to whoever looks after a repository what is
here and what is not (`packs.promises`).

What never happens here: nothing is fetched that was not asked for by record.
"""
