"""Profiles: what every process of a run did and when, recorded beside it (docs/profiling.md).

The supervisor of a profiled run is another program (`supervising`), so that a run that is not
profiled imports and opens nothing of this package, and has no switch to ask.
"""
