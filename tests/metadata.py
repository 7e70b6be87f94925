"""Image files with metadata of every kind, made in code: what programs write, and what nobody should."""

import gzip
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from conftest import encoded, picture

IPTC = "http://cv.iptc.org/newscodes/digitalsourcetype/"
PARAMETERS = "a portrait\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Model: dreamshaper_8"
COMFY_PROMPT = (
    'prompt:{"3": {"class_type": "KSampler", "inputs": {"seed": 1, "steps": 20, "cfg": 7, "sampler_name": "euler"}},'
    ' "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "juggernautXL_v9.safetensors"}},'
    ' "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "%s"}}}'
)
COMFY_WORKFLOW = 'workflow:{"nodes":[{"type":"KSampler"}],"version":0.4}'
SWARM = '{"sui_image_params": {"prompt": "a face", "model": "OfficialStableDiffusion/sd_xl_base_1.0", "steps": 20}}'
EASY = {
    "prompt": "a photo of a man", "use_stable_diffusion_model": "sd-v1-5", "sampler_name": "euler_a",
    "num_inference_steps": "25", "guidance_scale": "7.5", "negative_prompt": "", "seed": "1",
}  # fmt: skip
AIGC = '{"Label":"%s","ContentProducer":"001191110000MA0000000000000","ProduceID":"x1"}'


def png(image=None, **texts):
    info = PngImagePlugin.PngInfo()
    for key, text in texts.items():
        info.add_itxt(key, text) if not text.isascii() else info.add_text(key, text)
    return encoded(image or picture(), pnginfo=info)


def exif(tags=None, sub=None):
    made = Image.Exif()
    made.update(tags or {})
    if sub:
        made.get_ifd(0x8769).update(sub)
    return made


def jpeg(tags=None, sub=None, image=None, **options):
    return encoded(image or picture(), "JPEG", exif=exif(tags, sub), **options)


def xmp(body="", attributes=""):
    """An XMP packet with properties as elements or as attributes; the prefixes of IPTC and others are bound."""
    names = (
        'xmlns:Iptc4xmpExt="http://iptc.org/std/Iptc4xmpExt/2008-02-29/" xmlns:xmp="http://ns.adobe.com/xap/1.0/"'
        ' xmlns:photoshop="http://ns.adobe.com/photoshop/1.0/" xmlns:dcterms="http://purl.org/dc/terms/"'
        ' xmlns:dc="http://purl.org/dc/elements/1.1/" xmlns:exif="http://ns.adobe.com/exif/1.0/"'
        ' xmlns:TC260="http://www.tc260.org.cn/ns/AIGC/1.0/"'
    )
    return (
        '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?><x:xmpmeta xmlns:x="adobe:ns:meta/">'
        '<rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
        f'<rdf:Description rdf:about="" {names} {attributes}>{body}</rdf:Description></rdf:RDF></x:xmpmeta>'
        '<?xpacket end="w"?>'
    ).encode()


def source_type(value):
    return xmp(f"<Iptc4xmpExt:DigitalSourceType>{value}</Iptc4xmpExt:DigitalSourceType>")


def comment(text, encoding, mark=b""):
    """A JPEG whose UserComment is UTF-16 of a byte order, with or without a mark."""
    return jpeg(sub={0x9286: b"UNICODE\0" + mark + text.encode(encoding)})


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunk(data, kind, content, last=False):
    """A PNG with one chunk more, behind its header or before its end."""
    at = len(data) - 12 if last else 33
    return data[:at] + chunk(kind, content) + data[at:]


def stealth(text, signature=b"stealth_pngcomp", size=(64, 64), format="PNG"):
    """A picture with a text in the lowest bits of its alpha channel or colours, down the columns."""
    content = gzip.compress(text.encode()) if signature.endswith(b"comp") else text.encode()
    bits = np.unpackbits(np.frombuffer(signature + struct.pack(">I", 8 * len(content)) + content, np.uint8))
    rgb = b"rgb" in signature
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3 if rgb else 4), np.uint8)  # columns, rows, channels
    pixels[..., 3:] = 255
    carriers = pixels.reshape(-1) if rgb else pixels.reshape(-1)[3::4]
    carriers[: len(bits)] = carriers[: len(bits)] & 254 | bits
    image = Image.fromarray(np.ascontiguousarray(pixels.transpose(1, 0, 2)))
    return encoded(image, format, **({"lossless": True, "exact": True} if format == "WEBP" else {}))


def iptc(**datasets):
    """An APP13 segment's content with IPTC datasets by number: `_110="..."`."""
    record = b"".join(
        b"\x1c\x02" + bytes([int(number[1:])]) + struct.pack(">H", len(text.encode())) + text.encode()
        for number, text in datasets.items()
    )
    return (
        b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + struct.pack(">I", len(record)) + record + b"\0" * (len(record) % 2)
    )


def with_segment(data, marker, content):
    """A JPEG with one segment more at its start."""
    return data[:2] + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content + data[2:]


def tiff(tag_type, packet):
    """A TIFF file whose XMP (tag 700) is declared with a type: 1 BYTE, 7 UNDEFINED."""
    data = bytearray(encoded(picture(), "TIFF"))
    start = struct.unpack("<I", data[4:8])[0]
    count = struct.unpack("<H", data[start : start + 2])[0]
    entries = [data[start + 2 + 12 * n : start + 14 + 12 * n] for n in range(count)]
    place = len(data) + 2 + 12 * (count + 1) + 4
    entries.append(struct.pack("<HHII", 700, tag_type, len(packet), place))
    entries.sort(key=lambda entry: entry[:2][::-1])
    directory = struct.pack("<H", count + 1) + b"".join(bytes(e) for e in entries) + b"\0\0\0\0"
    data[4:8] = struct.pack("<I", len(data))
    return bytes(data) + directory + packet


def heif(format, **options):
    """A HEIC or AVIF file with EXIF and XMP."""
    if format == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    return encoded(picture(), format, **options)


def mpo(packet):
    """A JPEG with a second frame (as gain maps are kept), and XMP in the first."""
    return encoded(picture(), "MPO", save_all=True, append_images=[picture((9, 9, 9))], xmp=packet)


def raw_profile(name, content):
    """A zTXt chunk's content: a profile of that name as ImageMagick keeps it in a PNG."""
    text = f"\n{name}\n{len(content):8}\n{content.hex()}\n".encode()
    return f"Raw profile type {name}".encode() + b"\0\0" + zlib.compress(text)


def extended_xmp(packet, *bounds):
    """A JPEG with a packet in pieces, those between the given bounds, in that order."""
    data = jpeg()
    for start, end in bounds[::-1]:
        head = b"http://ns.adobe.com/xmp/extension/\0" + b"0" * 32 + struct.pack(">II", len(packet), start)
        data = with_segment(data, 0xE1, head + packet[start:end])
    return data


def raw(data):
    return io.BytesIO(data)
