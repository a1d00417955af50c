"""What passes between a repository and its remotes."""

from mergepipe.api.opened import OpenRepository


class Sharing(OpenRepository):
    """The side of a repository that talks to others."""
