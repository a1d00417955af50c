"""The same bytes from kernels compiled for other processors: without AVX2, without AVX-512."""

import hashlib
import os
import subprocess
import sys

import numpy as np
import pytest

from mergepipe.methods import merge
from tests.methods import cases


def digest():
    total = hashlib.sha256()
    for name in cases.BOTH:
        for seed in range(6):
            out = ("BF16", "F16", "F32")[seed % 3]
            case = cases.make(name, np.random.default_rng(seed), 1 + seed, "any", "mixed", out=out)
            total.update(merge(case.method, case.unit, backend="fused").tobytes())
            total.update(repr(case.unit.scalars).encode())
    return total.hexdigest()


@pytest.mark.slow
@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names x86 processors")
@pytest.mark.parametrize(
    ("name", "features"), [("generic", "+sse2"), ("haswell", "+avx2,+fma"), ("x86-64-v3", "+avx2")]
)
def test_kernels_for_other_processors(name, features, tmp_path):
    environment = {
        **os.environ,
        "NUMBA_CPU_NAME": name,
        "NUMBA_CPU_FEATURES": features,
        "NUMBA_CACHE_DIR": str(tmp_path),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    code = "from tests.methods.test_every_cpu import digest; print(digest())"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True
    )
    assert done.stdout.strip() == digest()
