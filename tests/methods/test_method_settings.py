"""What is refused before any weight is seen, and in which words."""

import subprocess
import sys

import pytest

from mergepipe.errors import MergeInputError
from mergepipe.methods import METHODS, find


@pytest.mark.parametrize("typed", ["TIES", "ties", " Ties ", "ties-merging"])
def test_names_in_any_case_and_aliases(typed):
    assert find(typed) is METHODS["ties"]


def test_all_of_the_methods_are_there():
    assert set(METHODS) >= {
        "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties", "slerp", "passthrough",
        "breadcrumbs", "breadcrumbs_ties", "nuslerp", "multislerp", "karcher", "model_stock",
        "nearswap", "ram", "ramplus_tl",
    }  # fmt: skip


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
        ("ties", {}, [{}, {"wieght": 1}], "expert 1 has no parameter 'wieght'", "'weight'"),
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
    find("linear").check_models(20, base=False)


def test_importing_the_registry_loads_no_heavy_library():
    code = (
        "import sys, mergepipe.methods, mergepipe.methods.statistics, mergepipe.methods.trim;"
        "sys.exit(bool({'torch', 'numba'} & set(sys.modules)))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
