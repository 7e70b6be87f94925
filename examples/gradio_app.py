"""A Gradio page on the library: `pip install . 'gradio>=5'`, then `python examples/gradio_app.py`.

Gradio keeps uploads in a temporary folder, here for at most an hour. The page of `faceauth serve` keeps none.
"""

import sys

import gradio as gr
from PIL import Image, ImageOps

import faceauth

FIELDS = ("face", "label", "score", "reason", "generator")
Box = tuple[int, int, int, int]
detector = faceauth.load()


def judge(path: str) -> tuple[tuple[Image.Image, list[tuple[Box, str]]], list[list[object]]]:
    """The upright picture with a labelled box a face, and a row of FIELDS a face. Raises gr.Error for a bad file."""
    (verdict,) = detector.detect([path])
    if verdict.error:
        raise gr.Error(verdict.error)
    rows = faceauth.rows(verdict)
    with Image.open(path) as file:
        picture = ImageOps.exif_transpose(file).convert("RGB")
    boxes = [(tuple(row["box"]), f"{row['face']}: {row['label']}") for row in rows if row["box"]]
    return (picture, boxes), [[row[field] for field in FIELDS] for row in rows]


def page() -> gr.Interface:
    """A photo in; its faces and their verdicts out."""
    return gr.Interface(
        judge,
        gr.File(label="Photo", file_types=["image"], type="filepath"),
        [gr.AnnotatedImage(label="Faces"), gr.Dataframe(label="Verdicts", headers=list(FIELDS))],
        title="faceauth",
        description="Is this face real, and if not, what made it? A score is evidence, not proof.",
        flagging_mode="never",
        delete_cache=(600, 3600),
        analytics_enabled=False,
    )


if __name__ == "__main__":
    sys.exit(page().launch())
