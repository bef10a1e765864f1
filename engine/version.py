"""The version of the distribution and of what a journal's reader must know."""

VERSION = "0.1.0"
JOURNAL_FORMAT = 2  # Layout of segments and frames (engine/journal/format.py).
# Bit set of changed rules; old journals replay under their own flags.
KV_REUSE = 1  # Rows rest, prefixes are copied, a request may have several samples (docs/time.md).
ANSWERS = 2  # More may be asked of a request, and the answer says what was in force (docs/abi.md).
PROPOSALS = 4  # Tokens are drawn by proposal (docs/requests.md), and log-probabilities name theirs.
WORDS = 8  # Templates may do more (docs/models.md), and refusals show a request's values as JSON.
LOGIC_FLAGS = KV_REUSE | ANSWERS | PROPOSALS | WORDS
