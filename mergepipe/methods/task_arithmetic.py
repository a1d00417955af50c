"""task_arithmetic: base + lambda sum w_i d_i. Ilharco et al., ICLR 2023."""

from mergepipe.methods.task_vectors import task_vector_method

TASK_ARITHMETIC = task_vector_method(
    "task_arithmetic",
    "base plus weighted deltas",
    "Ilharco et al., Editing models with task arithmetic, ICLR 2023",
    elect=False,
    normalize=False,
    aliases=("task-arithmetic", "ta"),
)
