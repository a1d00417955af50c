"""What is refused before any weight is seen, and in which words."""

import subprocess
import sys

import numpy as np
import pytest

from mergepipe.errors import MergeInputError
from mergepipe.methods import METHODS, VARIANTS, Scope, find
from mergepipe.methods import statistics as stats
from tests.methods import cases


@pytest.mark.parametrize("typed", ["TIES", "ties", " Ties ", "ties-merging"])
def test_names_in_any_case_and_aliases(typed):
    assert find(typed) is METHODS["ties"]


def test_all_of_the_methods_are_there():
    assert set(METHODS) == {
        "linear", "slerp", "nuslerp", "multislerp", "karcher", "task_arithmetic", "ties",
        "dare_linear", "dare_ties", "breadcrumbs", "breadcrumbs_ties", "della", "della_linear",
        "model_stock", "nearswap", "sce", "ram", "ramplus_tl", "arcee_fusion", "passthrough",
    }  # fmt: skip
    assert not set(VARIANTS) & set(METHODS)


def test_variants_by_parameters_and_base():
    def variant(name, base=False, **shared):
        method = find(name)
        return method.variant(method.settings(shared, [{}, {}]), base=base)

    flat = {"nuslerp_flatten": True, "nuslerp_row_wise": True}
    rows, columns = {"nuslerp_flatten": False}, {**flat, "nuslerp_flatten": False}
    for shared, end in (({}, ""), (flat, ""), (rows, "_rows"), (columns, "_columns")):
        assert variant("nuslerp", **shared).name == "nuslerp" + end
        found = variant("nuslerp", True, **shared)
        assert found.name == "nuslerp_deltas" + end
        assert found.needs_base
        assert find(found.name) is found
        assert (found.scope is Scope.ROW) == (end == "_rows")
    assert variant("multislerp", True).name == "multislerp_deltas"
    assert variant("multislerp").name == "multislerp"
    assert variant("model_stock", True, filter_wise=True).name == "model_stock_rows"
    assert variant("ties", True) is METHODS["ties"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_keeps_its_parameters(variant):
    # Settings read for the method that was asked for go to its variant.
    method = next(m for name, m in METHODS.items() if variant.startswith(name + "_"))
    assert find(variant).parameters == method.parameters


def test_what_mergekit_means_where_it_is_silent():
    assert find("dare_ties").mergekit_defaults() == {"normalize": False, "rescale_norm": "l1"}
    assert find("della").mergekit_defaults() == {"rescale_norm": "l1"}
    assert find("ties").mergekit_defaults() == {}
    for method in METHODS.values():
        read = method.settings(
            method.mergekit_defaults() | {"t": 0.5}
            if _takes_t(method)
            else method.mergekit_defaults(),
            [{}, {}],
        )
        assert all(read.shared[name] == value for name, value in method.mergekit_defaults().items())


def _takes_t(method):
    return any(parameter.name == "t" for parameter in method.parameters)


def test_every_need_has_a_guess_of_its_length():
    rng = np.random.default_rng(0)
    for name in cases.ALL:
        case = cases.make(name, rng, 3, "F32", length=420)
        for need in case.method.needs(case.settings):
            guess = stats.supposed(need, len(case.terms))
            measured = stats.measure(need, [case.unit])
            if "columns" not in name:  # as many as the tensor has columns, three to each
                assert len(guess) == len(measured)
            case.method.resolve(
                case.settings,
                {one: stats.supposed(one, 3) for one in case.method.needs(case.settings)},
            )


def refused(call, message, hint=""):
    with pytest.raises(MergeInputError) as caught:
        call()
    assert message in caught.value.message
    assert hint in caught.value.hint


def test_an_unknown_method_names_the_nearest():
    refused(lambda: find("tie"), "no merge method 'tie'", "'ties'")
    refused(lambda: find("zzz"), "no merge method 'zzz'", "task_arithmetic")


@pytest.mark.parametrize(
    ("method", "shared", "experts", "message", "hint"),
    [
        ("ties", {"densty": 0.5}, [{}], "no parameter 'densty'", "'density'"),
        ("ties", {}, [{}, {"wieght": 1}], "expert 2 has no parameter 'wieght'", "'weight'"),
        ("ties", {}, [{"normalize": True}], "normalize is one value", "beside the experts"),
        ("ties", {"density": 1.5}, [{}], "density is 1.5", "from 0 to 1"),
        ("ties", {"density": -0.1}, [{}], "density is -0.1", "from 0 to 1"),
        ("ties", {"normalize": "yes"}, [{}], "normalize is 'yes'", "true or false"),
        ("linear", {}, [{"weight": "heavy"}], "weight is 'heavy'", "finite number"),
        ("linear", {}, [{"weight": float("nan")}], "weight is nan", "finite number"),
        ("linear", {}, [{"weight": True}], "weight is True", "finite number"),
        ("linear", {}, [{"weight": 1}, {"weight": -1}], "sum to 0", "normalize"),
        ("dare_ties", {"rescale_norm": "l2"}, [{}], "rescale_norm is 'l2'", "density or l1"),
        ("slerp", {}, [{}, {}], "t is missing", "how far"),
        ("slerp", {"t": float("inf")}, [{}, {}], "t is inf", "finite"),
        ("della", {"density": 0.9}, [{}], "epsilon is 0.15 at density 0.9", "between 0 and 1"),
        ("della", {"density": 0.1, "epsilon": 0.1}, [{}], "epsilon is 0.1", "between 0 and 1"),
        ("della", {"density": 0.5}, [{}, {"epsilon": -0.5}], "expert 2", "between 0 and 1"),
        ("breadcrumbs", {"gamma": 1.1}, [{}], "gamma is 1.1", "from 0 to 1"),
        ("sce", {"select_topk": -0.5}, [{}], "select_topk is -0.5", "from 0 to 1"),
        ("karcher", {"max_iter": 2.5}, [{}], "max_iter is 2.5", "a whole number not below 0"),
        ("karcher", {"tol": -1}, [{}], "tol is -1", "a number not below 0"),
        ("ram", {"epsilon": -1}, [{}], "epsilon is -1", "not below 0"),
        ("nearswap", {}, [{}], "t is missing", "step"),
        ("multislerp", {}, [{"weight": 1}, {"weight": -1}], "sum to 0", "normalize_weights"),
        ("model_stock", {"filter_wise": 2}, [{}, {}], "filter_wise is 2", "true or false"),
        ("arcee_fusion", {"t": 1}, [{}], "no parameter 't'", "takes no parameters"),
    ],
)
def test_bad_parameters(method, shared, experts, message, hint):
    refused(lambda: find(method).settings(shared, experts), message, hint)


def test_defaults_precedence_and_numbers_written_as_text():
    settings = find("ties").settings({"density": "5e-1"}, [{}, {"density": 0.2, "weight": "1e-4"}])
    assert [own["density"] for own in settings.experts] == [0.5, 0.2]
    assert [own["weight"] for own in settings.experts] == [1.0, 1e-4]
    assert settings.shared == {"normalize": True, "lambda": 1.0, "rescale": False}


def test_how_many_models():
    refused(lambda: find("slerp").check_models(3, base=False), "exactly 2 models, not 3")
    refused(lambda: find("passthrough").check_models(2, base=True), "exactly 1 model, not 2")
    refused(lambda: find("ties").check_models(2, base=False), "needs a base")
    refused(lambda: find("ties").check_models(0, base=True), "at least 1")
    refused(lambda: find("model_stock").check_models(1, base=True), "at least 2, not 1")
    refused(lambda: find("nearswap").check_models(2, base=True), "exactly 1 model, not 2")
    refused(lambda: find("arcee_fusion").check_models(1, base=False), "needs a base")
    refused(lambda: find("nuslerp").check_models(3, base=False), "exactly 2 models, not 3")
    find("linear").check_models(20, base=False)


def test_della_takes_the_whole_or_nothing_whatever_epsilon_is():
    for density in (0, 1):
        find("della").settings({"density": density}, [{}])


def test_importing_the_registry_loads_no_heavy_library():
    code = (
        "import sys, mergepipe.methods, mergepipe.methods.statistics, mergepipe.methods.trim;"
        "sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
