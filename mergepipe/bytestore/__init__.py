"""Keys to bytes: the only layer that touches files and lines, and the seam where remotes plug in.

Who lives here: `protocol` says what a byte store is; `local`, `memory`, `cloud` (S3 and its like),
`http`, and `ssh` with `stdio` are byte stores, each one file to its users (behind
`local` are `local_keys`, `local_writer` and `open_files`); `forwarding` is the base
of those that change one thing about another. `wire` and `frames` hold what clients and
`transfer.serving` share.

What comes in: keys (`packs/<id>.pack`, `refs/heads/main`) and bytes. What goes out: ranges of
bytes, durable writes, compare-and-swap of small values. All stores pass one conformance suite.

What never happens here: nothing knows what the bytes mean, hashes them, or believes a length.
"""
