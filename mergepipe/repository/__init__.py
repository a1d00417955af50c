"""Layout, config, refs, reflog, revisions and history of one repository."""
