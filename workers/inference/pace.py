"""Pace: tokens per second of late, for people who watch. Nothing depends on it."""

WINDOW_S = 1.0  # Over which the pace is taken at least: until the first step behind it.


class Pace:
    """Told after each step how many tokens there are.

    Args:
        tokens: So many there were before the first step.
        now_s: Monotonic time.
    """

    def __init__(self, tokens: int, now_s: float) -> None:
        self._tokens, self._since_s = tokens, now_s  # At the beginning of the window.
        self._pace = 0

    def after(self, tokens: int, now_s: float) -> int:
        """Tokens per second in the last whole window; in the first one, so far.

        Args:
            tokens: So far.
            now_s: Monotonic time.
        """
        past_s = now_s - self._since_s
        is_whole = past_s >= WINDOW_S
        if past_s > 0 and (is_whole or not self._pace):
            self._pace = round((tokens - self._tokens) / past_s)
        if is_whole:
            self._tokens, self._since_s = tokens, now_s
        return self._pace
