"""Explanations: what they hold, that they are the same twice, and that what they say follows from the picture."""

import json

from faceauth.explain import Custody, Explanation, FaceExplanation, HeatMap, Worth
from faceauth.verdict import Face, Verdict


def made():
    face = Face(0, (1, 2, 3, 4), "fake", 0.9, "bulb", 0.8, 0.05)
    worth = Worth(0.04, "photographs", None, None, (), "", ("4 of 100 photographs score this high.",))
    heat = HeatMap("patches", (0.0, 0.0, 8.0, 8.0), ((1.0, 0.0), (0.0, -1.0)), 2.0, 0.5)
    custody = Custody(
        "a" * 64, 3, "m", "1", "b" * 64, None, None, "faceauth", "1", (("numpy", "2"),), (("threshold", 0.8),),
        "2026-01-31T12:00:00Z",
    )  # fmt: skip
    return Explanation(
        Verdict("a.jpg", (face,), "m", "b" * 64),
        (FaceExplanation(0, "Called fake.", None, worth, heat_map=heat),), None, custody, ("No proof.",), 1.5,
    )  # fmt: skip


def test_an_explanation_is_plain_values():
    values = made().to_dict()
    assert json.loads(json.dumps(values)) == values
    assert values["faces"][0]["heat_map"]["values"] == [[1.0, 0.0], [0.0, -1.0]]
    assert values["custody"]["parameters"] == {"threshold": 0.8}
