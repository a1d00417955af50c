"""The repository as users hold it, from Python or behind `mp` (docs/python.md).

Who lives here: `repository` is what `Repository` offers; `opened` holds its parts; `planning`,
`merging`, `recipes`, `importing`, `sharing`, `pulling`, `pushing` and `upkeep` are its areas,
`remotes` and `hub` what lies elsewhere.

What comes in: revisions, paths, URLs, options. What goes out: plain results.

What never happens here: no terminal. Whoever opens a repository may say who acts and when; only
where nobody does are environment and clock asked, as `mp` asks them (`identity`).
"""

from mergepipe.api.repository import Repository

__all__ = ["Repository"]
