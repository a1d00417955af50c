"""Profiles: what changed between a snapshot and its base, per tensor and block.

Who lives here: `pairing` and `pairs` (which tensors belong together), `facts` (what is kept of one
block), `builder` (facts to a profile), `profiles` (found or made), `view` (a profile's columns as
arrays).

What comes in: two snapshots, or the facts that a commit's encoder made on the way. What goes out:
profile objects (docs/format-merge.md) and views of them.

What never happens here: nothing of a method or a budget is known; a profile holds no choice.
"""
