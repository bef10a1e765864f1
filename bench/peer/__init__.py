"""Peers: scripts that run in environments of their own, with another runtime in place of Lockstep.

They import nothing of Lockstep: `host` runs them, `lockstep.bench.peers` starts it.
"""
