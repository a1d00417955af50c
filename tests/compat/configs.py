"""The configs that are compared: every method; features of the schema and vocabularies, beside."""

from tests.compat.cases import THREE, Case, W, _, models
from tests.compat.schema_configs import SCHEMA
from tests.compat.vocabulary_configs import VOCABULARY

DENSE = tuple(
    f"{name} " + _(f"weight: {weight}, density: {density}")
    for name, weight, density in (("math", 0.6, 0.5), ("code", 0.9, 0.3), ("chat", 0.4, 0.8))
)


METHODS = [
    Case("linear", models("linear", *THREE, base=False)),
    Case("linear_plain", models("linear", *THREE, base=False, settings=_("normalize: false"))),
    Case("linear_base", models("linear", "base " + W[1], *THREE, base=False)),
    Case("task_arithmetic", models("task_arithmetic", *THREE)),
    Case(
        "task_arithmetic_lambda",
        models("task_arithmetic", *THREE, settings=_("normalize: true, lambda: 0.7")),
    ),
    Case("ties", models("ties", *DENSE)),
    Case("ties_plain", models("ties", *DENSE, settings=_("normalize: false, lambda: 1.3"))),
    Case("ties_rescale", models("ties", *DENSE, settings=_("rescale: true"))),
    Case("ties_int8", models("ties", *DENSE, settings=_("int8_mask: true"))),
    Case("dare_ties", models("dare_ties", *DENSE), check="statistics", dtypes=("float32",)),
    Case("dare_linear", models("dare_linear", *DENSE), check="statistics", dtypes=("float32",)),
    Case(
        "dare_linear_plain",
        models("dare_linear", *DENSE, settings=_("rescale: false")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case(
        "breadcrumbs",
        models(
            "breadcrumbs",
            "math " + _("weight: 0.5, density: 0.6, gamma: 0.05"),
            "code " + _("weight: 0.7, density: 0.4"),
        ),
    ),
    Case(
        "breadcrumbs_ties",
        models(
            "breadcrumbs_ties",
            "math " + _("weight: 0.5, density: 0.6, gamma: 0.05"),
            "code " + _("weight: 0.7, density: 0.9, gamma: 0.1"),
        ),
    ),
    Case(
        "della",
        models("della", *DENSE, settings=_("epsilon: 0.1")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case(
        "della_linear",
        models("della_linear", *DENSE, settings=_("epsilon: 0.1, lambda: 0.9")),
        check="statistics",
        dtypes=("float32",),
    ),
    Case("slerp", models("slerp", "base", "math", settings=_("t: 0.3"))),
    Case("slerp_far", models("slerp", "base", "words", settings=_("t: 0.6")), check="refused"),
    Case("nuslerp", models("nuslerp", f"math {W[0]}", f"code {W[1]}", base=False)),
    Case("nuslerp_base", models("nuslerp", f"math {W[0]}", f"code {W[1]}")),
    Case(
        "nuslerp_rows",
        models(
            "nuslerp",
            f"math {W[0]}",
            f"code {W[1]}",
            settings=_("nuslerp_flatten: false, nuslerp_row_wise: true"),
        ),
    ),
    Case(
        "nuslerp_columns",
        models("nuslerp", f"math {W[0]}", f"code {W[1]}", settings=_("nuslerp_flatten: false")),
    ),
    Case(
        "multislerp",
        models("multislerp", f"math {W[0]}", f"code {W[1]}", "chat " + W[0], base=False),
    ),
    Case("multislerp_base", models("multislerp", f"math {W[0]}", f"code {W[1]}", "chat " + W[0])),
    Case("karcher", models("karcher", "math", "code", "chat", base=False)),
    Case("model_stock", models("model_stock", "math", "code", "chat")),
    Case(
        "model_stock_rows",
        models("model_stock", "math", "code", settings=_("filter_wise: true")),
    ),
    Case("sce", models("sce", "math", "code", "chat")),
    Case("sce_top", models("sce", "math", "code", "chat", settings=_("select_topk: 0.4"))),
    Case("ram", models("ram", "math", "code", "chat")),
    Case("ramplus_tl", models("ramplus_tl", "math", "code", "chat", settings=_("r: 0.2"))),
    Case("nearswap", models("nearswap", "math", settings=_("t: 0.001"))),
    Case("arcee_fusion", models("arcee_fusion", "math"), dtypes=("float32",)),
    Case("passthrough", models("passthrough", "math", base=False)),
    Case("passthrough_scale", models("passthrough", "math " + _("scale: 0.5"), base=False)),
]


CASES = [*METHODS, *SCHEMA, *VOCABULARY]
