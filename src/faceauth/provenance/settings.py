"""Texts that programs for making pictures write: their settings, a job's id, China's label of generated content.

The text around them is a person's: a prompt may name any program, and none is taken from it. Which program wrote the
settings follows from their form, which model from the setting that means the model.
"""

import html
import json
import re
from collections import deque
from typing import NamedTuple

from faceauth.provenance import generators
from faceauth.provenance.containers import TEXT


class Claim(NamedTuple):
    """What a text says: words for it, and the generator it names, None where it names none."""

    says: str
    generator: str | None


_UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}"
_MIDJOURNEY = re.compile(rf"\bJob ID: {_UUID}", re.IGNORECASE)
_DREAM = re.compile(r"(?:^|\s)-([sSWHCA])\s?[\w.-]+")
_STEPS = re.compile(r"\bsteps: ?\d", re.IGNORECASE)
_WITH_STEPS = re.compile(
    r"\b(?:sampler: ?\w|(?:cfg|guidance) scale: ?\d|seed: ?\d|model hash: ?[0-9a-f]{6})", re.IGNORECASE
)
_MODEL = re.compile(r"\bmodel: ?([^,\n]{1,80})", re.IGNORECASE)
_KEYS = re.compile(
    r'"(prompt|positive_prompt|negative_prompt|negativeprompt|uc|class_type|cfg_scale|cfgscale|cfg|guidance_scale|guidanceScale|sampler'
    r"|sampler_name|comfyuisampler|scheduler|steps|num_inference_steps|seed|ckpt_name|unet_name|sd_model|model"
    r'|model_name|modelName|use_stable_diffusion_model|c|negativePrompt|positivePrompt|base_model|sui_image_params)"\s*:'
)
_PROMPTS = frozenset(
    ("prompt", "positive_prompt", "negative_prompt", "negativeprompt", "negativePrompt", "positivePrompt", "uc", "c",
     "class_type", "sui_image_params", "ckpt_name", "unet_name", "use_stable_diffusion_model", "num_inference_steps")
)  # fmt: skip
_WEIGHTS = re.compile(
    r'"(?:ckpt_name|unet_name|model_name|modelName|sd_model|use_stable_diffusion_model|base_model|model)"\s*:\s*'
    r'(?:\{[^{}"]{0,20}"(?:model_)?name"\s*:\s*)?"([^"\\]{1,120})"'
)
_NODES = re.compile(r'"(?:type|class_type)"\s*:\s*"(?:KSampler|CheckpointLoader|UNETLoader|CLIPTextEncode|VAEDecode)')
# Program, the settings that only it writes (all of them, anywhere), generator. No pattern spans from one to another:
# a text made of first halves would take quadratic time.
_PROGRAMS = tuple(
    (program, tuple(re.compile(rf'"(?:{key})"\s*:', re.IGNORECASE) for key in keys), generator)
    for program, keys, generator in (
        ("SwarmUI", ("sui_image_params|swarm_version",), "stable-diffusion"),
        ("ComfyUI", ("class_type|last_node_id",), "comfyui"),
        (
            "InvokeAI",
            ("app_version|generation_mode|model_weights", "positive_prompt|prompt|scheduler"),
            "stable-diffusion",
        ),
        ("Fooocus", ("adm_guidance|fooocus_v2_expansion|metadata_scheme|sharpness", "prompt"), "stable-diffusion"),
        ("NovelAI", ("uc|v4_prompt|uncond_scale", "prompt"), "novelai"),
        ("Easy Diffusion", ("use_stable_diffusion_model|Stable Diffusion model",), "stable-diffusion"),
        ("Draw Things", ("c", "v2|sampler"), "draw-things"),
    )
)
# GB 45438-2025, annex E: what the label's values mean.
_LABELS = {"1": "AI-generated", "2": "possibly AI-generated", "3": "suspected to be AI-generated"}
_AIGC = re.compile(r"""["']?AIGC["']?\s*:\s*\{|["']ContentP(?:roducer|ropagator)["']\s*:""", re.IGNORECASE)
_LABEL = re.compile(r"""["']Label["']\s*:\s*["']?([^"',}\s]{1,20})""", re.IGNORECASE)
_PRODUCER = re.compile(r"""["']ContentProducer["']\s*:\s*["']([^"']{1,80})["']""", re.IGNORECASE)
_SOURCE_INFO = re.compile(r'"aigc_info"\s*:\s*\{[^{}]{0,200}"source_info"\s*:\s*"([^"]{1,80})"')


def read(text: str) -> Claim | None:
    """What a free text says of a generator; None where it holds nothing that a program wrote about making it."""
    text = text[:TEXT]
    found = aigc(text) or _job(text) or _json(text) or _lines(text) or _dream(text)
    if found is None and ('\\"' in text or "&quot;" in text):  # it was encoded twice
        again = html.unescape(text).replace('\\"', '"')
        found = aigc(again) or _json(again)
    return found


def told(text: str) -> Claim | None:
    """What a text that people write in says, in a program's words or in a person's."""
    return read(text) or sentence(text)


def sentence(text: str) -> Claim | None:
    """What a short text says in words, as the whole of it: `Created with DALL-E 3`, `AI generated`."""
    named = generators.made_with(text)
    return Claim(text, named) if named or generators.says_generated(text) else None


def aigc(text: str) -> Claim | None:
    """China's label of generated content (GB 45438-2025), wherever it stands; and ByteDance's own before it."""
    if source := _SOURCE_INFO.search(text):
        return Claim(f"labelled AI-generated (aigc_info), source {source[1]}", generators.software(source[1]))
    label = _LABEL.search(text)
    if not (label and _AIGC.search(text)):
        return None
    kind = _LABELS.get(label[1], "with a value that the standard does not have")
    producer = _PRODUCER.search(text)
    by = f", content producer {producer[1]}" if producer else ""
    named = generators.software(producer[1]) if producer else None
    return Claim(f"labelled {kind} (GB 45438, Label {label[1]}){by}", named)


def described(program: str, model: str, fallback: str | None) -> Claim:
    """Settings of a program and a model, either of which may be unknown."""
    says = "settings of a generator" + (f" ({program})" if program else "") + (f", model {model}" if model else "")
    return Claim(says, (generators.weights(model) or generators.software(model) if model else None) or fallback)


def _job(text: str) -> Claim | None:
    job = _MIDJOURNEY.search(text)
    return Claim(f"{job[0]} (Midjourney)", "midjourney") if job else None


def _json(text: str) -> Claim | None:
    """Settings as JSON, or as JSON behind a prefix as ComfyUI writes it: `prompt:{...}`."""
    start = text.find("{")
    if not 0 <= start <= 64:
        return None
    text = text[start:]
    keys = {match[1] for match in _KEYS.finditer(text)}
    nodes = _NODES.search(text)
    if not nodes and not (len(keys) >= 2 and keys & _PROMPTS) and keys.isdisjoint({"sui_image_params", "class_type"}):
        return None
    unknown = ("ComfyUI", "comfyui") if nodes else ("", None)
    program, fallback = next(((p, g) for p, keys_of, g in _PROGRAMS if all(k.search(text) for k in keys_of)), unknown)
    model = _WEIGHTS.search(text)
    return described(program, model[1].strip() if model else "", fallback)


def _lines(text: str) -> Claim | None:
    """Settings as AUTOMATIC1111 writes them and many after it: the last line begins `Steps: 20, Sampler: ...`."""
    last = next(iter(deque(_STEPS.finditer(text), maxlen=1)), None)
    if last is None or not _WITH_STEPS.search(text, last.start()):
        return None
    model = _MODEL.search(text, last.start())
    return described("", model[1].strip() if model else "", "stable-diffusion")


def _dream(text: str) -> Claim | None:
    """Settings as a command of InvokeAI 1 and 2: `"a face" -s50 -W512 -H512 -C7.5 -Ak_lms -S42`."""
    options = {match[1] for match in _DREAM.finditer(text[:4096])}
    return described("InvokeAI", "", "stable-diffusion") if len(options) >= 4 else None


def stealth(text: str) -> Claim:
    """What settings out of an alpha channel say: NovelAI writes its PNG texts there as one JSON object."""
    try:
        fields = json.loads(text)
    except (ValueError, RecursionError):
        fields = None
    if isinstance(fields, dict):
        for key in ("Software", "Source"):
            if isinstance(fields.get(key), str) and (named := generators.software(fields[key])):
                return Claim(f"settings of a generator ({fields[key]})", named)
        if isinstance(fields.get("Comment"), str) and (found := read(fields["Comment"])):
            return found
    return read(text) or Claim("settings of a generator", None)
