"""Key to bytes: the only layer that touches files, and the seam where remotes plug in."""
