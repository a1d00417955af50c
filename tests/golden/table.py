"""Prints the table of a folder of golden repositories: `python -m tests.golden.table FOLDER`.

For every object its id and canonical bytes (short ones in full), for every file of every commit the
hash of its bytes. Read by the reference reader, so that the product does not vouch for itself.
"""

import json
import sys
from pathlib import Path

from tests.reference.repository import Repository, digest


def table_of(folder):
    """One repository's table, for JSON."""
    repo = Repository(folder)
    refs = folder / "refs"
    names = sorted(path.relative_to(refs).as_posix() for path in refs.rglob("*") if path.is_file())
    return {
        "refs": {name: (refs / name).read_text().strip() for name in names},
        "objects": {
            name.hex(): canonical.hex() if len(canonical) <= 400 else len(canonical)
            for name, canonical in sorted(repo.objects.items())
        },
        "files": {
            name: {path: digest(raw).hex() for path, raw in repo.files(repo.commit(name)[1][0])}
            for name in names
        },
        "blocks": sorted(name.hex() for name in repo.records),
    }


if __name__ == "__main__":
    folders = sorted(path for path in Path(sys.argv[1]).iterdir() if (path / "packs").is_dir())
    tables = {folder.name: table_of(folder) for folder in folders}
    print(json.dumps(tables, indent=1, sort_keys=True))
