"""What the scripts share, one concern a file. To run or change a script, nobody need read it."""

from lab import interruption

interruption.end_quietly_while_importing()
