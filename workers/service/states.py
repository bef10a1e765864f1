"""States of a run in a service, and what becomes of one whose supervisor has ended."""

from lockstep.engine.errors import EXIT_INTERRUPTED, EXIT_UNFINISHED

# States.
STARTING = "starting"  # A supervisor was started; its loop has not gone round yet.
LIVE = "live"  # It takes items.
BACKOFF = "backoff"  # It died; the next one has to wait.
ENDED = "ended"  # The run has come to its end.
STOPPED = "stopped"  # We stopped it: it goes on when the service starts again.
STUCK = "stuck"  # It cannot go on: a person must look. What was accepted is in its folder.
LOST = "lost"  # Its folder was taken away, and what was accepted with it.
OVER = (ENDED, STOPPED, STUCK, LOST)


def verdict(whole: bool, stopping: bool, exit_code: int) -> str:
    """What becomes of a lane whose supervisor is gone.

    Args:
        whole: Its record has the end of the run.
        stopping: We asked it to stop.
        exit_code: What it ended with.
    """
    if whole:
        return ENDED
    if stopping:
        return STOPPED
    accident = exit_code in (EXIT_UNFINISHED, EXIT_INTERRUPTED)
    return BACKOFF if accident else STUCK  # Refused, another history, or a bug of ours.
