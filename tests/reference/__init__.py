"""A reader of repositories in plain, slow Python, from docs/format*.md alone: the pages' proof.

Nothing here may import mergepipe (test_reference.py looks): what it cannot do, the pages do not
say.
"""
