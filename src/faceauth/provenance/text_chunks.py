"""What the text chunks of a PNG say of a generator, and texts hidden in the lowest bits of an alpha channel."""

import io
import warnings
import zlib
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from faceauth.provenance import generators, settings
from faceauth.provenance.containers import TEXT, Blocks
from faceauth.provenance.settings import Claim

# Keywords that only a program for making pictures writes, whatever stands behind them: program, generator.
_KEYWORDS: dict[str, tuple[str, str | None]] = {
    "parameters": ("", "stable-diffusion"), "sd-metadata": ("InvokeAI", "stable-diffusion"),
    "invokeai_metadata": ("InvokeAI", "stable-diffusion"), "invokeai_graph": ("InvokeAI", "stable-diffusion"),
    "invokeai_workflow": ("InvokeAI", "stable-diffusion"), "dream": ("InvokeAI", "stable-diffusion"),
    "fooocus_scheme": ("Fooocus", "stable-diffusion"), "sui_image_params": ("SwarmUI", "stable-diffusion"),
}  # fmt: skip
_SOFTWARE = frozenset(("software", "creator tool", "creatortool", "generator", "creating application"))
# Easy Diffusion writes a chunk for every setting, under the setting's name or under its label.
_EASY = frozenset(
    ("use_stable_diffusion_model", "num_inference_steps", "guidance_scale", "sampler_name", "negative_prompt", "Steps",
     "Stable Diffusion model", "Guidance Scale", "Sampler", "Negative Prompt", "prompt_strength", "use_vae_model")
)  # fmt: skip
_EASY_MODEL = ("use_stable_diffusion_model", "Stable Diffusion model")
# The signature, then the length in bits, then the text: https://github.com/neggles/sd-webui-stealth-pnginfo
_STEALTH = {b"stealth_pnginfo": False, b"stealth_pngcomp": True}
STEALTH_PIXELS = 1 << 24  # of larger pictures the alpha channel is not decoded once more


def read(blocks: Blocks) -> Iterator[tuple[str, Claim]]:
    """Field and claim of every text chunk that says something."""
    texts = dict(reversed(blocks.texts))
    if len(_EASY & texts.keys()) >= 3:
        model = next((texts[key] for key in _EASY_MODEL if texts.get(key)), "")
        yield "PNG text", settings.described("Easy Diffusion", model[:120], "stable-diffusion")
    for key, text in blocks.texts:
        if claim := _chunk(key, text):
            yield f"PNG text {key!r}", claim


def _chunk(key: str, text: str) -> Claim | None:
    lower = key.lower()
    if lower in {"author", "artist"}:  # a person's name is never a generator's
        return None
    claim = settings.read(text)  # before any name: a prompt within settings may name anything
    claim = claim or _named(lower, text) or (None if "prompt" in lower else settings.sentence(text))
    if lower == "hf-job-id" and text.strip():
        return Claim(f"a job at Hugging Face, {text.strip()}", None)
    if lower == "aigc" and (label := settings.aigc('"AIGC":{' + text)):
        return label
    if lower in _KEYWORDS:
        program, generator = _KEYWORDS[lower]
        claim = claim or settings.described(program, "", generator)
        return Claim(claim.says, claim.generator or generator)
    return claim


def _named(keyword: str, text: str) -> Claim | None:
    """What a chunk names that means software, or the model."""
    named = None
    if keyword in _SOFTWARE:
        named = generators.software(text)
    elif keyword in {"source", "model"}:
        named = generators.maker(text)
    return Claim(text, named) if named else None


def hidden(data: bytes, format: str) -> Iterator[tuple[str, Claim]]:
    """What the lowest bits of the alpha channel hold, read down the columns; the picture is decoded for it.

    Only for a PNG or lossless WebP file of at most `STEALTH_PIXELS` with an alpha channel of 8 bits.
    """
    if not _may_hide(data, format):
        return
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(io.BytesIO(data), formats=[format]) as image:
                if image.width * image.height > STEALTH_PIXELS or image.mode not in {"RGBA", "LA"}:
                    return
                bits = np.bitwise_and(np.asarray(image.getchannel("A"), np.uint8).T.ravel(), np.uint8(1))
    except Exception:  # a broken picture has nothing hidden; that it is broken is said where it is judged
        return
    if (text := _stealth(bits)) is not None:
        yield "alpha channel", settings.stealth(text)


def _may_hide(data: bytes, format: str) -> bool:
    """Whether the header declares an alpha channel that keeps its bits."""
    if format == "PNG":
        return data[24:25] == b"\x08" and data[25:26] in {b"\x04", b"\x06"}
    return format == "WEBP" and (data[12:16] == b"VP8L" or (data[12:16] == b"VP8X" and bool(data[20] & 0x10)))


def _stealth(bits: NDArray[np.uint8]) -> str | None:
    """The text behind the signature, `bits` (N,) uint8 of 0 and 1; None without a signature."""
    head = np.packbits(bits[:152]).tobytes()
    compressed = _STEALTH.get(head[:15])
    if compressed is None or len(head) < 19:
        return None
    length = min(int.from_bytes(head[15:19], "big"), len(bits) - 152, 8 * TEXT)
    content = np.packbits(bits[152 : 152 + length]).tobytes()
    if compressed:
        try:
            content = zlib.decompressobj(31).decompress(content, TEXT)
        except zlib.error:
            return ""
    return content.decode("utf-8", "replace")
