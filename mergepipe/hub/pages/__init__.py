"""What `mp serve` shows in a browser: pages for people, written by the server (docs/hub.md).

Who lives here: `application` answers requests; `addresses` says where each page is; `rendering`
fills `templates`; what they show comes from `commits` (commits and the graph), `models` (lists, and
files with what they cost), `cards`, `merges`, `differences`, and `pictures` (those of reports).

What comes in: addresses, and names, messages and cards that anybody may have written. What goes
out: HTML without scripts that asks nobody else for anything.

What never happens here: nothing is written, and no page decides who may read: `transfer` does.
"""
