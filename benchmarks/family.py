"""A small family of real Llamas, trained on text that Python ships: what DATA and --family take.

python benchmarks/family.py DIRECTORY

Makes `base`, `expert-code`, `expert-prose`, `expert-tables` (strongly tuned), `gentle-code` (a
little), and `val_tokens.safetensors` (held-out tokens of each domain): two to four minutes.
Training ends at measured goals and uses two threads, so the same Python and torch make the same
weights.
"""

import copy
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "examples/demo"))

import corpus  # noqa: E402
import models  # noqa: E402
import run as demo  # noqa: E402

GENTLE = models.Schedule(most_steps=40, rate=1e-4, seed=3)
GENTLE_DOMAIN = "code"


def main() -> int:
    if len(sys.argv) != 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 2
    directory = Path(sys.argv[1])
    if directory.exists() and any(directory.iterdir()):
        print(f"{directory} is not empty: name a new directory", file=sys.stderr)
        return 2
    directory.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(demo.THREADS)
    held_out = demo.train(directory)
    for name in held_out:
        (directory / name).rename(directory / f"expert-{name}")
    save_file(held_out, directory / "val_tokens.safetensors")
    gentle(directory)
    print(f"{directory}: base, experts of {', '.join(held_out)}, gentle-{GENTLE_DOMAIN}")
    return 0


def gentle(directory: Path) -> None:
    """One more fine-tune of a domain, of few steps."""
    domains = corpus.load()
    tokenizer = models.train_tokenizer([domain.training for domain in domains])
    domain = next(each for each in domains if each.name == GENTLE_DOMAIN)
    model = copy.deepcopy(models.load(directory / "base"))
    goal = models.Goal([models.encode(tokenizer, domain.held_out)], 0.0)
    part = models.Part(models.encode(tokenizer, domain.training), 1.0)
    models.train(model, [part], GENTLE, goal, lambda steps, loss: None)
    models.save(model, tokenizer, directory / f"gentle-{GENTLE_DOMAIN}")


if __name__ == "__main__":
    sys.exit(main())
