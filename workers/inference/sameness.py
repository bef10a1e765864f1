"""Sameness: a model that is loaded again must be the one that it was, where it was."""

from lockstep.engine.errors import ModelRejected, ProviderMissing
from lockstep.workers.inference.provider import ProviderReport


def check_files(expected: dict[str, str], found: dict[str, str]) -> None:
    """Refuse a model that was changed since: its tokens would be others.

    Raises:
        ModelRejected: with both hashes.
    """
    for name in sorted({**expected, **found}):
        then, now = expected.get(name, "no such file"), found.get(name, "no such file")
        if then != now:
            raise ModelRejected(f"{name} was changed since the run began: {then} -> {now} (sha256)")


def check_providers(then: tuple[str, ...], report: ProviderReport) -> None:
    """Refuse to go on elsewhere in silence: from here on the bits would be others.

    Raises:
        ProviderMissing: with both, and the cause of what is missing now.
    """
    if report.got != then:
        why = "; ".join(f"{item.provider}: {item.cause}" for item in report.missing)
        raise ProviderMissing(
            f"the run was computed on {', '.join(then)} so far, now there is "
            f"{', '.join(report.got)}{f' ({why})' if why else ''}; resume it where they are the "
            "same again"
        )
