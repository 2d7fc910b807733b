"""Nearest-exemplar search: exact by construction, one signature.

`nearest(directions, exemplars)` gives for each direction the exemplar of the largest canonical
similarity, ties to the earlier one, and that similarity. `ExemplarIndex` does so for many rows and
keeps what makes the next search shorter. Screens differ in what they bound similarities with, never
in the answer.
"""

from exemplars.nearest.audit import Audit
from exemplars.nearest.dense import nearest, offer
from exemplars.nearest.index import SCREENS, THREADS, ExemplarIndex, check_screen

__all__ = ["SCREENS", "THREADS", "Audit", "ExemplarIndex", "check_screen", "nearest", "offer"]
