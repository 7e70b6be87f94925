"""How often an earlier saving of a JPEG is found, and where there was none: `python benchmarks/double_jpeg.py FOLDER`.

Each picture is reduced to 0.7 of its size, which removes what an earlier saving left, then saved once at a quality
drawn from 60 to 98, and saved twice: first at one drawn from 45 to 5 below the last. Pictures with too little detail,
of which nothing is said, are counted apart.
"""

import io
import random
import sys
from pathlib import Path

from PIL import Image

from faceauth.provenance import double_jpeg


def saved(image: Image.Image, quality: int) -> bytes:
    """The picture as a JPEG file."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def main(folder: Path, count: int, seed: int = 3) -> None:
    """Print the counts for pictures drawn from a folder."""
    draw = random.Random(seed)
    files = sorted(folder.rglob("*.jpg"))
    alarms = found = near = measurable = 0
    by_gap: dict[int, list[bool]] = {}
    for file in draw.sample(files, min(count, len(files))):
        with Image.open(file) as opened:
            image = opened.convert("RGB")
        image = image.resize((image.width * 7 // 10, image.height * 7 // 10), Image.Resampling.LANCZOS)
        last = draw.randint(60, 98)
        first = draw.randint(45, last - 5)
        alarms += double_jpeg.first_quality(saved(image, last)) is not None
        measurable += double_jpeg.measurable(saved(image, last))
        twice = double_jpeg.first_quality(saved(Image.open(io.BytesIO(saved(image, first))), last))
        found += twice is not None
        near += twice is not None and abs(twice[0] - first) <= 3
        by_gap.setdefault((last - first) // 10 * 10, []).append(twice is not None)
    print(f"{min(count, len(files))} pictures, {measurable} with enough detail")
    print(f"saved once: {alarms} called saved before")
    print(f"saved twice: {found} found, {near} of them within 3 of the first quality")
    for gap, hits in sorted(by_gap.items()):
        print(f"  first quality {gap} to {gap + 9} below the last: {sum(hits)} of {len(hits)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200)
