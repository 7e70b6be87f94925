"""What every network here gives, and how those of transformers and timm are made to give it.

It knows nothing of checkpoints or training; importing it imports neither library.
"""

import sys
from typing import Any, ClassVar, NamedTuple, Self

import torch
from torch import Tensor, nn

from faceauth.errors import ConfigError, MissingExtra


class Outputs(NamedTuple):
    """logit (n,), source_logits (n, k), embedding (n, d)."""

    logit: Tensor
    source_logits: Tensor
    embedding: Tensor


class TaughtOutputs(NamedTuple):
    """What a network with a distillation token gives in training: its two heads apart, each (n,)."""

    logit: Tensor
    source_logits: Tensor
    embedding: Tensor
    distilled_logit: Tensor


class FaceNetwork(nn.Module):
    """Pixels (n, 3, size, size) to Outputs; the heads are linear in the embedding.

    Attributes:
        probe: the source head learns from the embedding without moving the network.
        frozen: the heads alone learn; the backbone stays as it was loaded.
        layers: patterns of the names of parameters, from the pixels on, and in a group the number of the layer: as
            timm's `group_matcher`. What none matches belongs to the heads.
    """

    probe = False
    frozen = False
    layers: ClassVar[dict[str, str]]
    source_head: nn.Linear

    def sources(self, embedding: Tensor) -> Tensor:
        """Source logits (n, k) of embeddings (n, d)."""
        logits: Tensor = self.source_head(embedding.detach() if self.probe else embedding)
        return logits

    def depths(self) -> dict[str, int]:
        """How far from the pixels each parameter lies, by name: 0 for the first layer, most for the heads."""
        found: dict[str, int] = import_timm().models.group_parameters(self, self.layers, reverse=True)
        return found

    def heads(self) -> list[nn.Module]:
        """The linear layers above the embedding, other than the source head."""
        raise NotImplementedError

    def freeze(self) -> None:
        """Let nothing but the heads learn: no gradient, and no dropout or batch statistics, in the backbone."""
        self.frozen = True
        self.requires_grad_(False)
        for head in (*self.heads(), self.source_head):
            head.requires_grad_(True)

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        if self.frozen:
            for part in self.children():
                part.eval()
        return self


class TransformerNet(FaceNetwork):
    """DeiT or ViT of transformers with one logit; the embedding is the class token after the last norm.

    With a distillation token's head of its own (`distilled`) the logit is the mean of both heads (Touvron et al.,
    ICML 2021, arXiv 2012.12877).
    """

    layers: ClassVar = {"embeddings": r".*\.embeddings\.", "blocks": r".*\.layers\.(\d+)\."}

    def __init__(self, kind: str, architecture: dict[str, Any], size: int, sources: int, distilled: bool) -> None:
        """Random weights. `kind` is deit or vit. Raises ConfigError for an architecture that cannot be."""
        super().__init__()
        self.kind, self.distilled = kind, distilled
        model, config = transformer_classes(kind, distilled)
        try:
            settings = config(**architecture, image_size=size, num_labels=1)
        except Exception as error:  # the library's validation has classes of its own
            raise ConfigError(f"architecture: {' '.join(str(error).split())}") from error
        if size % settings.patch_size:
            raise ConfigError(f"size {size} is no multiple of the patch size {settings.patch_size}")
        if settings.hidden_size % settings.num_attention_heads:
            raise ConfigError("architecture: hidden_size is no multiple of num_attention_heads")
        self.model = model(settings)
        self.source_head = nn.Linear(architecture["hidden_size"], sources)

    def forward(self, pixels: Tensor) -> Outputs | TaughtOutputs:
        tokens = getattr(self.model, self.kind)(pixels).last_hidden_state
        embedding = tokens[:, 0]
        sources = self.sources(embedding)
        if not self.distilled:
            return Outputs(self.model.classifier(embedding)[:, 0], sources, embedding)
        logit = self.model.cls_classifier(embedding)[:, 0]
        distilled = self.model.distillation_classifier(tokens[:, 1])[:, 0]
        if self.training:
            return TaughtOutputs(logit, sources, embedding, distilled)
        return Outputs((logit + distilled) / 2, sources, embedding)

    def heads(self) -> list[nn.Module]:
        names = ("cls_classifier", "distillation_classifier") if self.distilled else ("classifier",)
        return [getattr(self.model, name) for name in names]


class TimmNet(FaceNetwork):
    """Any network of timm with one logit; the embedding is what its classifier sees, pooled."""

    def __init__(self, name: str, architecture: dict[str, Any], size: int, sources: int) -> None:
        """Random weights. Raises ConfigError for an unknown name or argument."""
        super().__init__()
        sized = {"img_size": size} if timm_facts(name).fixed_input_size else {}
        try:
            self.model = import_timm().create_model(name, num_classes=1, **sized | architecture)
        except (TypeError, ValueError, AssertionError) as error:
            raise ConfigError(f"timm cannot make {name!r} with this architecture: {error}") from error
        head = self.model.get_classifier()
        if not isinstance(head, nn.Linear):
            raise ConfigError(f"timm's {name!r} has no single linear head", "take network = 'deit' for a distilled one")
        self.source_head = nn.Linear(head.in_features, sources)

    def forward(self, pixels: Tensor) -> Outputs:
        embedding = self.model.forward_head(self.model.forward_features(pixels), pre_logits=True)
        return Outputs(self.model.get_classifier()(embedding)[:, 0], self.sources(embedding), embedding)

    def depths(self) -> dict[str, int]:
        found = import_timm().models.group_parameters(self.model, self.model.group_matcher(), reverse=True)
        heads = dict.fromkeys(("source_head.weight", "source_head.bias"), max(found.values()))
        return {f"model.{name}": depth for name, depth in found.items()} | heads

    def heads(self) -> list[nn.Module]:
        return [self.model.get_classifier()]


def transformer_classes(kind: str, distilled: bool) -> tuple[Any, Any]:
    """The model's and the config's class, named: the automatic choice may take another head."""
    mend_torchvision()
    import transformers

    if kind == "vit":
        return transformers.ViTForImageClassification, transformers.ViTConfig
    if distilled:
        return transformers.DeiTForImageClassificationWithTeacher, transformers.DeiTConfig
    return transformers.DeiTForImageClassification, transformers.DeiTConfig


def timm_facts(name: str) -> Any:
    """What timm knows of a network: its hub id, mean, std. Raises ConfigError for an unknown name."""
    timm = import_timm()
    known = timm.get_pretrained_cfg(name) if timm.is_model(name) else None
    if known is None:
        found = timm.list_models(f"*{name[:6]}*")[:4]
        raise ConfigError(f"timm has no network {name!r}", f"for example {', '.join(found)}" if found else None)
    return known


def import_timm() -> Any:
    """The module timm. Raises MissingExtra where it, or torchvision, is not installed."""
    mend_torchvision()
    try:
        import timm
    except ImportError as error:
        raise MissingExtra(f"this network needs {error.name}", "lab") from error
    return timm


_mended: list[torch.library.Library] = []  # an operator lives only as long as its library object


def mend_torchvision() -> None:
    """Declare the operators that a torchvision without its compiled part misses: nothing here calls them.

    Without them its import fails, and with it that of transformers and timm.
    """
    if "torchvision" in sys.modules or _mended:
        return
    try:
        import torchvision  # noqa: F401
    except ImportError:
        return  # transformers does without
    except RuntimeError:
        library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")  # type: ignore[no-untyped-call]
        _mended.append(library)
