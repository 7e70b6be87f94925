"""What the text chunks of a PNG say of a generator."""

from collections.abc import Iterator

from faceauth.provenance import generators, settings
from faceauth.provenance.containers import Blocks
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
