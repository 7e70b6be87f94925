"""Weights that a network starts from: a folder written by `save_pretrained`, or the hub's, brought here first.

Only the heads may be missing or of another shape; anything else that does not fit is an error, because a network that
is partly random by accident looks like one that learns badly. It knows nothing of training.
"""

import contextlib
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from faceauth.errors import ConfigError, DataError
from faceauth.lab.training.networks import transformer_classes

ARCHITECTURE = (
    "hidden_size", "num_hidden_layers", "num_attention_heads", "intermediate_size", "hidden_act", "patch_size",
    "qkv_bias", "layer_norm_eps", "initializer_range", "hidden_dropout_prob", "attention_probs_dropout_prob",
)  # fmt: skip
HEADS = ("classifier.", "pooler.")  # with "cls_classifier." and "distillation_classifier."


def folder(init: str, hub_id: str) -> Path:
    """Where the checkpoint lies: `init` as a path, or for "pretrained" the hub's, downloaded once.

    Raises:
        ConfigError: there is no such file or folder. DataError: the hub cannot be reached and nothing is kept.
    """
    if init != "pretrained":
        path = Path(init)
        if not path.exists():
            raise ConfigError(f"no checkpoint at {init!r}", "--init takes random, pretrained, or a folder")
        return path
    from huggingface_hub import snapshot_download

    try:
        found = Path(snapshot_download(hub_id, allow_patterns=["*.json", "model.safetensors"]))
    except Exception as error:  # the client's errors come from three libraries; all of them mean the same here
        how = f"where there is a network: hf download {hub_id} --local-dir FOLDER; then --init FOLDER, or --init random"
        raise DataError(f"cannot get {hub_id} from the Hugging Face hub: {type(error).__name__}", how) from error
    if not (found / "model.safetensors").exists():
        raise DataError(f"{hub_id} is kept here without its weights", "try again where the hub can be reached")
    return found


def pixel_statistics(path: Path) -> dict[str, Any]:
    """`mean` and `std` that a checkpoint was trained with, where it says so."""
    said = _json(path / "preprocessor_config.json")
    if said:
        found = {"mean": said.get("image_mean"), "std": said.get("image_std")}
    else:
        config = _json(path / "config.json").get("pretrained_cfg", {})
        found = {key: config.get(key) for key in ("mean", "std")}
    return {key: tuple(value) for key, value in found.items() if isinstance(value, list) and len(value) == 3}


def load_transformer(kind: str, path: Path, changes: dict[str, Any], size: int, distilled: bool) -> Any:
    """DeiT or ViT of transformers with the checkpoint's weights, new heads, and positions interpolated to `size`.

    Raises:
        ConfigError: another architecture. DataError: a damaged file.
    """
    said = _json(path / "config.json")
    if said.get("model_type") != kind:
        what = f"{str(path)!r} holds {said.get('model_type') or 'no checkpoint of transformers'}, not {kind}"
        raise ConfigError(what, "name its architecture as `network`, or another --init")
    model_class, _ = transformer_classes(kind, distilled)
    options = {
        "num_labels": 1, "ignore_mismatched_sizes": True, "output_loading_info": True, "local_files_only": True,
        "use_safetensors": True,  # a pickled checkpoint can run code
    }  # fmt: skip
    try:
        with _quietly():
            model, report = model_class.from_pretrained(path, **options, **changes)
    except Exception as error:  # safetensors, torch and transformers each raise their own
        raise _damaged(path, error) from error
    mismatched = [key for key, *_ in report["mismatched_keys"]]
    _only_heads(path, [*report["missing_keys"], *report["unexpected_keys"], *mismatched])
    _interpolate(model, getattr(model, kind).embeddings, size)
    return model.float()


def architecture(config: Any) -> dict[str, Any]:
    """What a DeiT or ViT of transformers with this config is made of, so that it can be built without a checkpoint."""
    return {key: getattr(config, key) for key in ARCHITECTURE}


def timm_architecture(path: Path, name: str) -> dict[str, Any]:
    """The arguments that a folder written by timm says its network was made with. Raises ConfigError for another."""
    said = _json(path / "config.json")
    if said.get("architecture", name) != name.partition(".")[0] and said.get("architecture") != name:
        raise ConfigError(f"{str(path)!r} holds {said['architecture']!r}, not {name!r}", "name it as timm/NAME")
    if "model_type" in said:
        raise ConfigError(f"{str(path)!r} holds a {said['model_type']!r} of transformers, not timm's {name!r}")
    return {k: v for k, v in (said.get("model_args") or {}).items() if k not in ("num_classes", "in_chans", "img_size")}


def load_timm(model: Any, path: Path) -> None:
    """Load the weights of a folder or file into a network of timm, all but its head.

    Raises:
        ConfigError: weights of another architecture. DataError: a missing or damaged file.
    """
    file = path / "model.safetensors" if path.is_dir() else path
    if file.suffix != ".safetensors":
        hint = "a pickled checkpoint can run code: convert it first"
        raise ConfigError(f"{str(file)!r} is no .safetensors file", hint)
    try:
        state: dict[str, Tensor] = load_file(file)
    except Exception as error:
        raise _damaged(file, error) from error
    head = model.default_cfg["classifier"]
    own: dict[str, Tensor] = model.state_dict()
    state = {k: v for k, v in state.items() if not (k.startswith(f"{head}.") and own[k].shape != v.shape)}
    _fit_positions(model, state, own)
    wrong = set(own) ^ set(state) | {k for k in state if k in own and own[k].shape != state[k].shape}
    _only_heads(path, [k for k in sorted(wrong) if not k.startswith(f"{head}.")])
    model.load_state_dict(state, strict=False)


def _fit_positions(model: Any, state: dict[str, Tensor], own: dict[str, Tensor]) -> None:
    """Position codes of a timm transformer on the grid of its own size, bicubic; class and register tokens keep theirs.

    Networks without codes of their own, such as those that turn them (DINOv3), need none of it.
    """
    given, wanted = state.get("pos_embed"), own.get("pos_embed")
    if given is None or wanted is None or given.shape == wanted.shape or given.shape[-1] != wanted.shape[-1]:
        return
    from timm.layers.pos_embed import resample_abs_pos_embed

    special = 0 if getattr(model, "no_embed_class", False) else model.num_prefix_tokens
    if math.isqrt(given.shape[1] - special) ** 2 == given.shape[1] - special:
        grid = list(model.patch_embed.grid_size)
        state["pos_embed"] = resample_abs_pos_embed(given, grid, num_prefix_tokens=special)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without transformers' report of a head that is made anew, which is meant, and its progress bars."""
    from transformers.utils import logging

    before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        logging.set_verbosity(before)
        if bars:
            logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _interpolate(model: Any, embeddings: Any, size: int) -> None:
    """Position codes on the grid of `size`, bicubic; class and distillation tokens keep theirs."""
    patch = model.config.patch_size
    if model.config.image_size == size:
        return
    special = embeddings.position_embeddings.shape[1] - embeddings.patch_embeddings.num_patches
    tokens = torch.zeros(1, special + (size // patch) ** 2, model.config.hidden_size)
    with torch.no_grad():
        embeddings.position_embeddings = nn.Parameter(embeddings.interpolate_pos_encoding(tokens, size, size).clone())


def _only_heads(path: Path, keys: list[str]) -> None:
    strange = [key for key in keys if not any(head in key for head in HEADS)]
    if strange:
        what = f"the weights in {str(path)!r} are of another architecture: {strange[0]} and {len(strange) - 1} more"
        raise ConfigError(what, "leave [architecture] to the checkpoint, or --init random")


def _json(path: Path) -> dict[str, Any]:
    try:
        read = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError) as error:
        raise _damaged(path, error) from error
    return read if isinstance(read, dict) else {}


def _damaged(path: Path, error: Exception) -> DataError:
    said = str(error).strip().partition("\n")[0][:120]
    return DataError(f"cannot read the checkpoint {str(path)!r}: {said}", "download or save it again")
