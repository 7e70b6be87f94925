"""The networks by name: built again as a run wrote them down, or with the weights that training starts from.

Each turns pixels (n, 3, size, size) into a logit (n,), source logits (n, k) and an embedding (n, d).
"""

from typing import Any

from faceauth.errors import ConfigError
from faceauth.lab.training import checkpoints
from faceauth.lab.training.config import TrainConfig, nearest
from faceauth.lab.training.laplacian_net import LaplacianNet
from faceauth.lab.training.networks import FaceNetwork, TimmNet, TransformerNet, timm_facts, transformer_classes
from faceauth.lab.training.residuals import RESIDUALS

NETWORKS = ("pyramid", *RESIDUALS, "deit", "vit", "densenet", "timm/NAME")
HUB = {"deit": "facebook/deit-base-distilled-patch16-384", "vit": "google/vit-base-patch16-224"}
TIMM = {"densenet": "densenet121"}
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))  # mean and std of deit's and densenet's hub checkpoints
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))  # of google/vit-base-patch16-224


def build(config: TrainConfig, sources: int) -> FaceNetwork:
    """The network of a config with random weights; never asks a hub. Raises ConfigError."""
    if config.network == "pyramid":
        network: FaceNetwork = LaplacianNet(sources, config.width, config.dropout, config.size)
    elif config.network in RESIDUALS:
        network = RESIDUALS[config.network](sources)
    elif config.network in HUB:
        architecture = _full_architecture(config)
        network = TransformerNet(config.network, architecture, config.size, sources, config.distill is not None)
    else:
        network = TimmNet(_timm_name(config), config.architecture, config.size, sources)
    network.probe = config.source_weight == 0
    if config.freeze:
        network.freeze()
    return network


def initial(config: TrainConfig, sources: int) -> tuple[FaceNetwork, TrainConfig]:
    """The network as its training starts, and the config with all that the checkpoint decides written into it.

    Raises:
        ConfigError: an unknown network, or a checkpoint of another. DataError: weights that cannot be had or read.
    """
    if config.freeze and config.init == "random":
        raise ConfigError(
            "freeze needs a backbone that has learned something, and init is 'random'",
            "init = 'pretrained', or the folder of a checkpoint, with deit, vit, densenet or timm/NAME",
        )
    if config.network == "pyramid" or config.network in RESIDUALS:
        if config.init != "random" or config.architecture:
            own = "it has width and dropout" if config.network == "pyramid" else "it is as its paper has it"
            raise ConfigError(f"{config.network} has no checkpoint and no [architecture]", own)
        return build(config, sources), config
    if config.network in HUB:
        return _initial_transformer(config, sources)
    return _initial_timm(config, sources)


def _initial_transformer(config: TrainConfig, sources: int) -> tuple[FaceNetwork, TrainConfig]:
    kind, distilled = config.network, config.distill is not None
    known = _full_architecture(config)
    mean, std = IMAGENET if kind == "deit" else HALF
    if config.init == "random":
        config = _resolved(config, known, {"mean": mean, "std": std})
        return build(config, sources), config
    path = checkpoints.folder(config.init, config.checkpoint or HUB[kind])
    model = checkpoints.load_transformer(kind, path, config.architecture, config.size, distilled)
    said = {"mean": mean, "std": std} | checkpoints.pixel_statistics(path)
    config = _resolved(config, checkpoints.architecture(model), said)
    network = build(config, sources)
    assert isinstance(network, TransformerNet)
    network.model.load_state_dict(model.state_dict())
    return network, config


def _initial_timm(config: TrainConfig, sources: int) -> tuple[FaceNetwork, TrainConfig]:
    name = _timm_name(config)
    known = timm_facts(name)
    said = {"mean": known.mean, "std": known.std}
    if config.init == "random":
        config = _resolved(config, config.architecture, said)
        return build(config, sources), config
    path = checkpoints.folder(config.init, config.checkpoint or known.hf_hub_id or f"timm/{name}")
    said |= checkpoints.pixel_statistics(path)
    config = _resolved(config, checkpoints.timm_architecture(path, name) | config.architecture, said)
    network = build(config, sources)
    assert isinstance(network, TimmNet)
    checkpoints.load_timm(network.model, path)
    return network, config


def _resolved(config: TrainConfig, architecture: dict[str, Any], said: dict[str, Any]) -> TrainConfig:
    chosen = {"mean": config.mean or said.get("mean"), "std": config.std or said.get("std")}
    return config.model_copy(update={"architecture": architecture, **chosen})


def _full_architecture(config: TrainConfig) -> dict[str, Any]:
    defaults = transformer_classes(config.network, distilled=False)[1]()
    for key in config.architecture:
        if key not in checkpoints.ARCHITECTURE:
            raise ConfigError(f"architecture: unknown key {key!r}", nearest(key, checkpoints.ARCHITECTURE))
    return {key: getattr(defaults, key) for key in checkpoints.ARCHITECTURE} | config.architecture


def _timm_name(config: TrainConfig) -> str:
    family, slash, name = config.network.partition("/")
    if config.network in TIMM:
        return TIMM[config.network]
    if family != "timm" or not slash:
        raise ConfigError(f"unknown network {config.network!r}", nearest(config.network, NETWORKS))
    return name
