"""Block bytes to encoded payloads and back (docs/format-codecs.md).

Who lives here: `protocol` is the contract, `registry` finds a codec by name or tag, `chooser` picks
one for a tensor. `raw`, `zstd`, `bitx`, `split` and `planes` (with `delta`) are codecs, one file
each; `residual` is the layered one: `survey` and `statistics` look at the change, `coarse` and
`trits` make layer 0, `exact` layer 1, over `tables`, `stream` and `lanes` (entropy coding).

What comes in: a block's bytes, its base's, a dtype. What goes out: one payload a layer, or the
block again, or CodecError; and of `residual`, the statistics that profiles are made of.

What never happens here: no I/O, no ids, no trust in what a payload declares.
"""
