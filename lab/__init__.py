"""What the scripts share, one concern a file. To run or change a script, nobody need read it."""

import os
import sys

from lab import interruption

interruption.end_quietly_while_importing()

# A thread of GNU OpenMP that waits for another sleeps after some microseconds, and leaves its
# processor to whoever has work (lab/machine.py). It has to be said before torch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
