"""exp and log of our own, against libm and against themselves."""

import ast
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy._core import _multiarray_umath as multiarray

from lockstep.workers.inference import exact
from lockstep.workers.inference.exact import X_MAX, exp, exp_of, log, running_weights

GOLDEN = {
    -0.1: "0x1.cf46d99d52b3ap-1",
    -1.0: "0x1.78b56362cef38p-2",
    -2.5: "0x1.50385c094f425p-4",
    -17.25: "0x1.14f49dbc5078cp-25",
    -300.0: "0x1.245639c3a49f7p-433",
}
LOGS = [
    "0x0.0p+0", "0x1.62e42fefa39efp-1", "0x1.59af7ee709313p+3", "0x1.ad7f2847b6491p-24",
    "0x1.525e973a0564fp+0",
]  # fmt: skip

# A loaded machine is slow; that is not a fault of what is tested.
relaxed = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


def test_exp_is_within_1e_15_of_libm_over_the_whole_range() -> None:
    x = np.concatenate([np.linspace(-708, X_MAX, 100_001), np.linspace(-1, 1, 100_001)])
    want = np.array([math.exp(value) for value in x])
    assert float(np.max(np.abs(exp(x) / want - 1))) < 1e-15


def test_exp_of_zero_is_one_and_far_below_is_zero() -> None:
    assert exp(np.array([0.0, -0.0])).tolist() == [1.0, 1.0]
    assert exp(np.array([-746.0, -1e300, -np.inf])).tolist() == [0.0, 0.0, 0.0]
    assert exp(np.array([-745.0])).tolist() == [5e-324]


def test_exp_of_a_value_does_not_depend_on_its_neighbours() -> None:
    x = np.linspace(-40, 0, 10_001)
    alone = np.concatenate([exp(x[i : i + 1]) for i in range(0, 10_001, 37)])
    assert exp(x)[::37].tobytes() == alone.tobytes()


def test_exp_of_one_number_has_the_bits_of_exp_of_many() -> None:
    x = np.concatenate([np.linspace(-750, X_MAX, 5_001), np.linspace(-1, 1, 5_001), [-np.inf, 0.0]])
    assert [exp_of(value) for value in x.tolist()] == exp(x).tolist()


def test_exp_never_falls_across_the_borders_of_its_ranges() -> None:
    for k in range(-1000, 1000, 7):
        border = (k + 0.5) * math.log(2)
        if border < -700 or border > 700:
            continue
        width = max(1.0, abs(border)) * 1e-14
        x = border + np.arange(-50, 51) * width
        assert (np.diff(exp(x)) >= 0).all()


def test_exp_has_the_bits_it_always_had() -> None:
    # Golden: a change here changes sampled tokens of recorded runs.
    assert [value.hex() for value in exp(np.array(list(GOLDEN))).tolist()] == list(GOLDEN.values())


@pytest.mark.parametrize("block", [7, 100, 1000])
def test_running_weights_do_not_depend_on_the_size_of_blocks(
    monkeypatch: pytest.MonkeyPatch, block: int
) -> None:
    logits = np.sin(np.arange(997, dtype=np.float32)) * 9
    whole = running_weights(logits, 1.3)
    total = 0.0
    for weight in exp((logits.astype(np.float64) - np.float64(logits.max())) / 1.3).tolist():
        total += weight
    assert float(whole[-1]) == total
    monkeypatch.setattr(exact, "BLOCK", block)
    assert running_weights(logits, 1.3).tobytes() == whole.tobytes()


@relaxed
@given(st.floats(1e-300, 1e300))
def test_log_is_within_2e_15_of_libm(y: float) -> None:
    want = math.log(y)
    assert abs(log(y) - want) <= 2e-15 * (1 + abs(want))


def test_log_has_the_bits_it_always_had() -> None:
    # Golden: a change here changes log-probabilities of recorded runs.
    values = (1.0, 2.0, 49152.0, 1.0000001, 3.75)
    assert [log(y).hex() for y in values] == LOGS


# What IEEE 754 or a total order defines to the last bit, whatever the CPU; `sum` only of whole
# numbers (workers/inference/weights.py). Not here: exp, log, power, dot, mean, float sums.
EXACT = {
    "add", "arange", "argmax", "argsort", "bincount", "clip", "count_nonzero", "dtype", "empty",
    "empty_like", "errstate", "finfo", "flatnonzero", "float32", "float64", "floor", "fromiter",
    "full", "inf", "int32", "int64", "isfinite", "ldexp", "maximum", "minimum", "multiply",
    "ndarray", "ones", "partition", "rint", "searchsorted", "sort", "subtract", "uint32", "where",
    "zeros",
}  # fmt: skip


@pytest.mark.parametrize(
    "name",
    ["exact", "weights", "proposal", "cut", "penalties", "logprobs", "sampler", "first_sampler"],
)
def test_what_decides_a_token_uses_nothing_that_depends_on_the_cpu(name: str) -> None:
    path = Path(exact.__file__).with_name(f"{name}.py")
    tree = ast.parse(path.read_text())
    used = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and isinstance(node.value, ast.Name)
        and node.value.id in ("np", "math")
    }
    assert used <= EXACT | {"frexp"}
    assert not any(isinstance(node, ast.Pow) for node in ast.walk(tree))


SPOKEN = """
import hashlib
import numpy as np
from lockstep.workers.inference.proposal import bound
from lockstep.workers.inference.sampler import draw
from lockstep.workers.inference.sampling import Sampling
from lockstep.workers.inference.weights import weigh
row = (np.arange(60_000) * 7919 % 60_013 / 2_000).astype(np.float32)
found = hashlib.sha256()
for temperature in (0.3, 0.7, 1.3):
    found.update(bound(row, row.max(), temperature).tobytes())
    found.update(weigh(row, row.max(), temperature).tobytes())
    for cut in ({}, {"top_k": 99}, {"top_p": 0.9}):
        sampling = Sampling(temperature, **cut)
        drawn = [draw(row, sampling, lambda n: (k * 0.618 + n * 0.414) % 1) for k in range(40)]
        found.update(repr(drawn).encode())
print(found.hexdigest())
"""


def test_tokens_are_the_same_without_the_vector_units_that_this_cpu_has() -> None:
    there = [name for name in multiarray.__cpu_dispatch__ if multiarray.__cpu_features__[name]]
    if not there:
        pytest.skip("numpy has no code of its own for this CPU")
    said = [
        subprocess.run([sys.executable, "-c", SPOKEN], env={**os.environ, **more}, check=True,
                       capture_output=True, text=True).stdout
        for more in ({}, {"NPY_DISABLE_CPU_FEATURES": " ".join(there)})
    ]  # fmt: skip
    assert said[0] == said[1] != ""
