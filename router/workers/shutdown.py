"""Names the signals that end a worker (SIGTERM, SIGINT, and SIGUSR1 to hand over to other
workers), and how long an idle client connection is kept.
"""

import signal
from typing import Final

# TERM: after the delay in which balancers find out. INT: at once. HAND_OVER: others accept in
# its stead already, and no client is to notice.
HAND_OVER: Final = signal.SIGUSR1
STOP: Final = (signal.SIGTERM, signal.SIGINT, HAND_OVER)
# Longer than the usual client pools keep a connection, so that they close it first.
KEEP_ALIVE_S: Final = 75
