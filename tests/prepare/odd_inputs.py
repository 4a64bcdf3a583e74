"""The table of odd inputs: kind × compression × encoding × layout × damage, each in a module of its own."""

from odd_corners import CORNERS
from odd_damage import DAMAGE
from odd_encodings import ENCODINGS
from odd_entries import Odd
from odd_found import FOUND
from odd_kinds import KINDS
from odd_layouts import LAYOUTS
from odd_limits import LIMITS
from odd_packing import PACKING
from odd_records import RECORDS
from odd_splits import SPLITS
from odd_tables import TABLES
from odd_tangles import TANGLES
from odd_tasks import TASKS

ODD: list[Odd] = [
    *KINDS,
    *TABLES,
    *RECORDS,
    *TASKS,
    *PACKING,
    *ENCODINGS,
    *LAYOUTS,
    *SPLITS,
    *DAMAGE,
    *LIMITS,
    *FOUND,
    *TANGLES,
    *CORNERS,
]
