"""The chunks of a PNG file (PNG specification, third edition), as far as Pillow does not give them."""

from faceauth.errors import ImageError

MOST_CHUNKS = 20_000  # but for pixel data; each costs a step of a slow loop in twelve bytes


def check(data: bytes) -> tuple[int, int] | None:
    """Colour primaries and transfer characteristics of the cICP chunk (ITU-T H.273); None without a usable one.

    Raises:
        ImageError: for more than `MOST_CHUNKS` chunks that are no pixel data.
    """
    at, count, cicp, pixels = 8, 0, None, False
    while len(head := data[at : at + 8]) == 8:
        size, name = int.from_bytes(head[:4], "big"), head[4:]
        if name == b"IEND":
            break
        if name in {b"IDAT", b"fdAT"}:
            pixels = True
        elif (count := count + 1) > MOST_CHUNKS:
            raise ImageError(f"a PNG of more than {MOST_CHUNKS:,} chunks", "save it again with another program")
        if name == b"cICP" and size == 4 and data[at + 10 : at + 11] == b"\0" and not pixels:  # RGB, as PNG demands
            cicp = data[at + 8], data[at + 9]
        at += size + 12
    return cicp


def without_text(data: bytes) -> bytes:
    """The same picture without text: Pillow refuses a file for a text of more than a megabyte, such as a workflow."""
    at, kept = 8, [data[:8]]
    while len(head := data[at : at + 8]) == 8:
        end = at + int.from_bytes(head[:4], "big") + 12
        if head[4:] not in {b"tEXt", b"zTXt", b"iTXt"}:
            kept.append(data[at:end])
        at = end
    return b"".join(kept)
