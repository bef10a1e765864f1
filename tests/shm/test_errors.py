"""Errors carry what a person needs."""

import pickle

from lockstep.shm import PeerDied, RingClosed, RingCorrupt, RingError, RingFull, SegmentFull


def test_each_ring_error_is_a_ring_error() -> None:
    kinds = (RingFull, RingClosed, RingCorrupt, PeerDied)
    assert all(issubclass(kind, RingError) for kind in kinds)


def test_segment_full_names_both_sizes_also_after_pickling() -> None:
    error = pickle.loads(pickle.dumps(SegmentFull("/x", 4096, 100)))
    assert (error.name, error.needed_bytes, error.free_bytes) == ("/x", 4096, 100)
    assert "/x: 4096 bytes needed, 100 bytes free" in str(error)
