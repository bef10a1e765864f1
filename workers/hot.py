"""Hot: what every agent's process runs, loaded one after the other, before all else.

Agents are forked from the supervisor and share its memory page by page, and what is loaded together
lies together. Scattered among all that a supervisor imports, the same objects are on more pages:
each agent would own more of them (0.3 MB), and a turn would miss the TLB more often.
"""

import numpy as np  # noqa: F401 (large, and not hot: not in between)
import wasmtime  # noqa: F401 (likewise)

# isort: split
import lockstep.engine.record
import lockstep.shm
import lockstep.workers.agent.process
import lockstep.workers.links  # noqa: F401
