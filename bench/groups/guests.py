"""Group ``guests``: what a guest costs: its crossings, its fuel, its NaN, its start, its memory.

docs/benchmarks.md says what each figure is. Nothing here has a peer: these are prices, so there
are results and no ratios.
"""

from collections.abc import Callable
from statistics import median
from time import perf_counter_ns

from wasmtime import Config, Engine, Instance, Module, Store

from lockstep.bench import machine
from lockstep.bench.groups import Tell
from lockstep.bench.groups.agents import MANY, many, ring
from lockstep.bench.lone import turns_ns
from lockstep.bench.pairs import rotate
from lockstep.bench.report import Report

FORMS = {"c_blocking": "relay", "c_reactor": "pass"}  # How it is written -> which guest.
TURNS, TURNS_QUICK = 20_000, 4_000
ROUNDS, ROUNDS_QUICK = 25, 7
LOOPS = 20_000_000
FUEL = 1 << 60
# Both loops carry a value from one turn to the next, so that neither can be left out.
KERNELS = """
(module
  (func (export "integers") (param $n i32) (result i32) (local $x i32)
    (local.set $x (i32.const 2463534242))
    (loop $again
      (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 13))))
      (local.set $x (i32.xor (local.get $x) (i32.shr_u (local.get $x) (i32.const 17))))
      (local.set $x (i32.xor (local.get $x) (i32.shl (local.get $x) (i32.const 5))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x))
  (func (export "floats") (param $n i32) (result f64) (local $x f64)
    (local.set $x (f64.const 0.5))
    (loop $again
      (local.set $x (f64.mul (f64.const 3.9)
        (f64.mul (local.get $x) (f64.sub (f64.const 1) (local.get $x)))))
      (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
    (local.get $x)))
"""
LOADS = ("integers", "floats")


def setup(tell: Tell) -> None:
    """There is nothing to be made."""
    tell("guests: nothing is needed")


def run(quick: bool, tell: Tell) -> Report:
    """Measure everything.

    Raises:
        UsageError: a guest or a run ended before its time.
    """
    report = Report("guests", machine.describe())
    for form, guest in FORMS.items():
        tell(f"turns of one guest, {form}")
        turns = turns_ns(guest, TURNS_QUICK if quick else TURNS)
        report.results[f"turn_{form}_us"] = (median(turns) / 1e3, "us")
    for load in LOADS:
        tell(f"the price of fuel and of NaN, a loop of {load}")
        _prices(report, load, ROUNDS_QUICK if quick else ROUNDS)
    for form, guest in FORMS.items():
        tell(f"{MANY} agents started, {form}")
        pss_mb, start_ms = many(ring(MANY, MANY, guest))
        report.results[f"pss_{form}_mb"] = (pss_mb, "MB")
        report.results[f"start_{form}_ms"] = (start_ms, "ms")
    return report


def _prices(report: Report, load: str, rounds: int) -> None:
    """Fuel over none, and canonical NaN with fuel over fuel alone: medians of rotated rounds."""
    kernels = [
        _kernel(load, fuel, nan) for fuel, nan in ((False, False), (True, False), (True, True))
    ]
    for kernel in kernels:
        kernel()  # Warm.
    measured = list(rotate(kernels, rounds))
    fuel = median(fueled / bare for bare, fueled, _ in measured)
    nan = median(canonical / fueled for _, fueled, canonical in measured)
    report.results[f"fuel_{load}"] = (fuel, "of the time without")
    report.results[f"nan_{load}"] = (nan, "of the time without")


def _kernel(load: str, fuel: bool, nan: bool) -> Callable[[], float]:
    """A loop, compiled with or without each of both; a call gives its nanoseconds."""
    config = Config()
    config.cranelift_opt_level = "speed"
    config.consume_fuel = fuel
    config.cranelift_nan_canonicalization = nan
    engine = Engine(config)
    store = Store(engine)
    function = Instance(store, Module(engine, KERNELS), []).exports(store)[load]

    def measure() -> float:
        if fuel:
            store.set_fuel(FUEL)
        begun = perf_counter_ns()
        function(store, LOOPS)
        return float(perf_counter_ns() - begun)

    return measure
