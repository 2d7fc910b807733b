"""Nearest-exemplar search: exact by construction, one signature.

`nearest(directions, exemplars)` gives for each direction the exemplar of the largest canonical
similarity, ties to the earlier one, and that similarity. Implementations differ in what they
screen with, never in the answer.
"""

from exemplars.nearest.dense import nearest, offer

__all__ = ["nearest", "offer"]
