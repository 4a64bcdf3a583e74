"""Imported by a daemon's fork server before all else: its workers have the priority of everybody.

Paced steps take little of a processor; what else runs on the machine should not keep them from that.
"""

import peer.train.background

peer.train.background.NICENESS = 0
