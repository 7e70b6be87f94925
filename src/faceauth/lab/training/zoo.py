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
STATISTICS: dict[str, dict[str, Any]] = {  # of the pixels that these checkpoints were trained on
    "deit": {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)},
    "vit": {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)},
}


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
        hint = "init = 'pretrained', or the folder of a checkpoint, with deit, vit, densenet or timm/NAME"
        raise ConfigError("freeze needs a backbone that has learned something, and init is 'random'", hint)
    if config.network == "pyramid" or config.network in RESIDUALS:
        if config.init != "random" or config.architecture:
            own = "it has width and dropout" if config.network == "pyramid" else "it is as its paper has it"
            raise ConfigError(f"{config.network} has no checkpoint and no [architecture]", own)
        return build(config, sources), config
    if config.network in HUB:
        return _initial_transformer(config, sources)
    return _initial_timm(config, sources)


def _initial_transformer(config: TrainConfig, sources: int) -> tuple[FaceNetwork, TrainConfig]:
    kind, known, said = config.network, _full_architecture(config), STATISTICS[config.network]
    if config.init == "random":
        config = _resolved(config, known, said)
        return build(config, sources), config
    path = checkpoints.folder(config.init, config.checkpoint or HUB[kind])
    distilled = config.distill is not None
    model = checkpoints.load_transformer(kind, path, config.architecture, config.size, distilled)
    said = said | checkpoints.pixel_statistics(path)
    config = _resolved(config, checkpoints.architecture(model.config), said)
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
    chosen = {key: getattr(config, key) or said[key] for key in ("mean", "std")}
    return config.model_copy(update={"architecture": architecture, **chosen})


def _full_architecture(config: TrainConfig) -> dict[str, Any]:
    defaults = checkpoints.architecture(transformer_classes(config.network, distilled=False)[1]())
    for key in config.architecture:
        if key not in defaults:
            raise ConfigError(f"architecture: unknown key {key!r}", nearest(key, defaults))
    return defaults | config.architecture


def _timm_name(config: TrainConfig) -> str:
    family, slash, name = config.network.partition("/")
    if config.network in TIMM:
        return TIMM[config.network]
    if family != "timm" or not slash:
        raise ConfigError(f"unknown network {config.network!r}", nearest(config.network, NETWORKS))
    return name
