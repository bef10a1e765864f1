"""The agent process: one guest module, its memory, its crossing to Lockstep and its WASI."""
