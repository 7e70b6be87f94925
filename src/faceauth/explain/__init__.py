"""Why a verdict is what it is, how firm it is, and what judged it: records that any report can be written from."""

from faceauth.explain.explaining import explain
from faceauth.explain.records import (
    Custody,
    Edit,
    Explanation,
    FaceExplanation,
    HeatMap,
    Neighbour,
    Profile,
    Spectrum,
    Stability,
    Worth,
)

__all__ = [
    "Custody",
    "Edit",
    "Explanation",
    "FaceExplanation",
    "HeatMap",
    "Neighbour",
    "Profile",
    "Spectrum",
    "Stability",
    "Worth",
    "explain",
]
