"""What the scripts share, in rooms. To run or change a script, nobody need read it.

Rooms import only those before them: outcome.py, training, pictures, output, command_line, live.
Begin with training/train.py.
"""

import os
import sys

from lab.output import interruption

interruption.end_quietly_while_importing()

# A thread of GNU OpenMP that waits for another sleeps after some microseconds, and leaves its
# processor to others that have work (training/machine.py). Set it before torch is imported.
if "torch" not in sys.modules:
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
