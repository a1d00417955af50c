"""Single tensors, and slices of files, without checking anything out.

python examples/one_tensor.py REPOSITORY REV [TENSOR]

Prints the model's tensors, or one of them with its blocks read and nothing else; and what it would
be merged with another revision: REPOSITORY REV..OTHER TENSOR.
"""

import sys

import torch

from mergepipe import Repository


def main(repository: str, revision: str, name: str | None = None) -> None:
    """List tensors, show one, or show how two revisions differ in one."""
    with Repository.open(repository) as repo:
        first, _, other = revision.partition("..")
        if name is None:
            for tensor_name, stored in repo.tensors(first).items():
                print(tensor_name, stored.dtype, tuple(stored.shape))
            return
        values = repo.tensor(first, name)
        print(f"{name}: {values.dtype} {tuple(values.shape)}, norm {values.float().norm():.4f}")
        if other:
            change = repo.tensor(other, name).float() - values.float()
            print(f"{other} is {change.norm():.4f} away, at most {change.abs().max():.2e} a weight")
            half = torch.add(values.float(), change, alpha=0.5).to(values.dtype)
            print(f"half way between them: norm {half.float().norm():.4f}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:4])
