"""The version of the distribution and of what a journal's reader must know."""

VERSION = "0.1.0"
JOURNAL_FORMAT = 2  # Layout of segments and frames (engine/journal/format.py).
LOGIC_FLAGS = 0  # Bit set of changed rules; old journals replay under their own flags.
