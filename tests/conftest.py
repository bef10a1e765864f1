"""For all tests: hypothesis without a clock, so that a slow machine never fails a run."""

from hypothesis import HealthCheck, settings

# Derandomised: one commit gives one answer. No database: a test run leaves nothing behind.
settings.register_profile(
    "lockstep",
    deadline=None,
    derandomize=True,
    database=None,
    max_examples=100,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("lockstep")
