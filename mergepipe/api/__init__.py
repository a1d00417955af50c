"""The repository as users hold it, from Python or behind `mp` (docs/python.md).

Who lives here: `repository` is what `Repository` offers, and hands on to its areas: `working`,
`contents`, `revising`, `importing` (with `conversions`), `planning`, `merging`, `recipes`,
`weights`. Each holds an open repository (`opened`; `identity` says who acts in it, `workers` who
does the work, `settings` where its files are) and the areas that it builds on; `recipe_models` and
`recipe_embeddings` are what `recipes` looks in, and `unstored_models` the directories among them
that are not imported yet. `cloning`, `pulling`, `pushing`, `releasing`, `remotes` and `hub` are
what lies elsewhere, `upkeep` what a repository needs now and then; `results` are what comes back.
`standalone` is the planner and the engine without a `Repository`, in the words of the first
interface.

What comes in: revisions, paths, URLs, options. What goes out: plain results.

What never happens here: no terminal. Whoever opens a repository may say who acts and when; only
where nobody does are environment and clock asked, as `mp` asks them (`identity`).
"""

from mergepipe.api.repository import Repository

__all__ = ["Repository"]
