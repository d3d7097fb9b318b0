"""Backbones by name: the compact network, any 2-D timm network, and MONAI's 3-D networks."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import nn

from trueread.errors import InputError, unknown
from trueread.model.compact import Compact
from trueread.options import option_names
from trueread.registry import Registry

Stem = Literal["auto", "standard", "small"]
ALEXNET_SIDE = 63  # below, its pooling has nothing left
SMALL_SIDE = 64  # up to here a standard stem (stride 4) leaves too small a map

MONAI_NETWORKS = ("resnet10", "resnet18", "resnet34", "resnet50", "densenet121")


@dataclass
class Backbone:
    """A network without its head.

    module: [B,C,...] -> features [B,n_features]. taps: name -> (module path, channels) of intermediate maps, in order
    from input to output. mean, std: what its pretrained weights expect, or None. stem: which stem it got.
    source: what the hub would give, for the record.
    """

    module: nn.Module
    n_features: int
    taps: dict[str, tuple[str, int]]
    stem: Literal["standard", "small"] = "standard"
    mean: list[float] | None = None
    std: list[float] | None = None
    source: str = ""
    options: dict[str, Any] = field(default_factory=dict)


BACKBONES: Registry[Backbone] = Registry("backbone", "backbones", package="trueread.model.backbone")
backbone = BACKBONES.register


def build_backbone(
    name: str, *, channels: int, size: tuple[int, ...], stem: Stem = "auto", pretrained: bool = False
) -> Backbone:
    """The backbone called `name`: a registered one, "monai:NAME" for volumes, or any timm architecture.

    channels: 1 or 3. size: (H, W) or (D, H, W). stem: "small" replaces the strided stem so that a small image is not
    shrunk before the first block; "auto" does so for 2-D sides of 64 or less. pretrained: timm hub weights.
    Raises InputError for an unknown name, a wrong number of dimensions, or a stem that the family does not have.
    """
    small = stem == "small" or (stem == "auto" and len(size) == 2 and max(size) <= SMALL_SIDE)
    known = {e.name: e for e in BACKBONES.entries()}
    if name in known:
        factory: Callable[..., Backbone] = known[name].factory
        if not pretrained:
            return factory(channels=channels, size=size)
        if "pretrained" not in option_names(factory):
            raise InputError(f"'{name}' has no weights on the hub; give `weights: none` or a local file.")
        return factory(channels=channels, size=size, pretrained=True)
    if name.startswith("monai:"):
        return _from_monai(name, channels=channels, size=size, pretrained=pretrained)
    return _from_timm(name, channels=channels, size=size, small=small, forced=stem == "small", pretrained=pretrained)


@backbone("compact", source="trueread", summary="Small residual CNN for CPUs, 0.56 M weights (1.6 M for volumes).")
def compact(*, channels: int, size: tuple[int, ...]) -> Backbone:
    """See `Compact`. Its stem already depends on the image's side."""
    net = Compact(channels=channels, size=max(size), dims=len(size))
    widths = (net.stage1.conv1.in_channels, *(stage.conv2.out_channels for stage in net.stages()))
    names = ("stem", "stage1", "stage2", "stage3", "stage4")
    return Backbone(net, net.num_features, {n: (n, w) for n, w in zip(names, widths, strict=True)})


@backbone("alexnet", source="Krizhevsky et al. 2012, NeurIPS; torchvision", summary="AlexNet, 57 M weights, 63 px up.")
def alexnet(*, channels: int, size: tuple[int, ...], pretrained: bool = False) -> Backbone:
    """torchvision's, without its last layer; its pretrained weights come from PyTorch's hub, their hash checked."""
    from torchvision.models import AlexNet_Weights
    from torchvision.models import alexnet as build

    if len(size) != 2:
        raise InputError("'alexnet' reads images, but the cohort holds volumes; use compact or monai:resnet18.")
    if min(size) < ALEXNET_SIDE:
        raise InputError(f"'alexnet' reads images of {ALEXNET_SIDE} pixels or more; found {size[0]}x{size[1]}.")
    try:
        net: Any = build(weights=AlexNet_Weights.IMAGENET1K_V1 if pretrained else None)
    except Exception as error:
        if not pretrained:
            raise
        raise _not_fetched("alexnet", error) from error
    n_features = int(net.classifier[-1].in_features)
    net.classifier = net.classifier[:-1]
    if channels == 1:
        first = net.features[0]
        grey = nn.Conv2d(1, first.out_channels, first.kernel_size, first.stride, first.padding)
        grey.load_state_dict({"weight": first.weight.sum(1, keepdim=True), "bias": first.bias})
        net.features[0] = grey
    widths = {2: 64, 5: 192, 7: 384, 9: 256, 12: 256}
    taps = {f"features.{i}": (f"features.{i}", w) for i, w in widths.items()}
    mean, std = ([0.449], [0.226]) if channels == 1 else ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    return Backbone(net, n_features, taps, "standard", mean, std, "torchvision/alexnet IMAGENET1K_V1")


def _not_fetched(name: str, error: Exception) -> InputError:
    return InputError(
        f"the weights of '{name}' cannot be fetched from the hub ({type(error).__name__}); give the path of a local "
        "weights file, or `weights: none` to train from scratch."
    )


def _from_timm(
    name: str, *, channels: int, size: tuple[int, ...], small: bool, forced: bool, pretrained: bool
) -> Backbone:
    import timm  # four seconds to import: only when one of its networks is asked for

    if not timm.is_model(name.partition(".")[0]):
        names = [*(e.name for e in BACKBONES.entries()), *(f"monai:{n}" for n in MONAI_NETWORKS), *timm.list_models()]
        raise unknown("backbone", name, names, hint="`trueread list backbones` shows ours; any timm name works too.")
    if len(size) != 2:
        raise InputError(f"'{name}' reads images, but the cohort holds volumes; use compact or monai:resnet18.")
    options: dict[str, Any] = {"num_classes": 0, "in_chans": channels}
    try:
        default = timm.get_pretrained_cfg(name)
    except RuntimeError:
        kind, _, tag = name.partition(".")
        tags = [n.partition(".")[2] for n in timm.list_pretrained(f"{kind}.*")]
        raise unknown(f"set of weights of {kind}", tag, tags) from None
    if default is not None and default.fixed_input_size:
        options["img_size"] = size
        if small:
            options["patch_size"] = max(2, min(size) // 14)  # keeps the 14x14 grid of tokens of the 224 px design
    try:
        try:
            module: Any = timm.create_model(name, pretrained=pretrained, **options)
        except TypeError:  # fixed in size, but not cut into patches (Mixer, MaxViT): the standard stem is all it has
            if options.pop("patch_size", None) is None or forced:
                raise
            module = timm.create_model(name, pretrained=pretrained, **options)
    except (TypeError, AssertionError) as error:
        raise InputError(
            f"'{name}' cannot be built for {size[0]}x{size[1]} images: {error}; choose another size or backbone."
        ) from error
    except Exception as error:
        if not pretrained:
            raise
        raise _not_fetched(name, error) from error
    stem: Literal["standard", "small"] = "standard"
    if "patch_size" in options:
        stem = "small"
    elif small and "img_size" not in options:
        replaced = _small_stem(module)
        if forced and not replaced:
            raise InputError(
                f"there is no small-image stem for '{name}'; use `stem: standard`, or a ResNet or DenseNet."
            )
        stem = "small" if replaced else "standard"
    info = module.feature_info if isinstance(module.feature_info, list) else module.feature_info.info
    taps = {str(d["module"]): (str(d["module"]), int(d["num_chs"])) for d in info}
    if type(module).__name__ == "EfficientNet":  # what it lists last is before its last convolution, and linear
        taps.popitem()
        taps["bn2"] = ("bn2", int(module.num_features))
    if len(taps) > 6:  # a transformer lists every block; every third, and always the last two, tell the same story
        keys = list(taps)
        taps = {k: taps[k] for i, k in enumerate(keys) if i % 3 == 2 or i >= len(keys) - 2}
    cfg = module.pretrained_cfg
    mean, std = list(cfg["mean"]), list(cfg["std"])
    if channels == 1:
        mean, std = [sum(mean) / len(mean)], [sum(std) / len(std)]
    source = str(cfg.get("hf_hub_id") or f"timm/{name}")
    n_features = int(getattr(module, "head_hidden_size", None) or module.num_features)
    return Backbone(module, n_features, taps, stem, mean, std, source)


def _small_stem(module: nn.Module) -> bool:
    """Take the stride out of the first convolution and drop the pooling after it; False when the family has neither.

    The change keeps every weight's name; a 7x7 kernel becomes 3x3, as the CIFAR variants of ResNet and DenseNet use.
    """
    first = {"ResNet": ("conv1", "maxpool"), "DenseNet": ("features.conv0", "features.pool0")}.get(
        type(module).__name__
    )
    if first is not None:
        conv = module.get_submodule(first[0])
        if not isinstance(conv, nn.Conv2d):  # deep stems (ResNet-D) keep theirs
            return False
        _replace(module, first[0], nn.Conv2d(conv.in_channels, conv.out_channels, 3, 1, 1, bias=conv.bias is not None))
        _replace(module, first[1], nn.Identity())
        return True
    stem = getattr(module, "conv_stem", None)  # EfficientNet and MobileNet
    if isinstance(stem, nn.Conv2d):
        stem.stride = (1, 1)
        return True
    return False


def _replace(module: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, child = path.rpartition(".")
    setattr(module.get_submodule(parent), child, new)


def _from_monai(name: str, *, channels: int, size: tuple[int, ...], pretrained: bool) -> Backbone:
    short = name.removeprefix("monai:")
    if short not in MONAI_NETWORKS:
        raise unknown("MONAI network here", short, MONAI_NETWORKS)
    if pretrained:
        raise InputError(f"'{name}' has no weights on the hub; give `weights: none` or a local file.")
    try:
        from monai.networks import nets
    except ImportError as error:
        raise InputError(f"'{name}' needs MONAI; install it with `pip install trueread[volumes]`.") from error
    dims = len(size)
    if short.startswith("densenet"):
        net: Any = nets.DenseNet121(spatial_dims=dims, in_channels=channels, out_channels=2)
        n_features = net.class_layers.out.in_features
        net.class_layers.out = nn.Identity()
        widths = (256, 512, 1024, 1024)
        taps = {f"denseblock{i}": (f"features.denseblock{i}", w) for i, w in enumerate(widths, start=1)}
        return Backbone(net, int(n_features), taps)
    stride = 1 if max(size) <= SMALL_SIDE else 2
    net = getattr(nets, short)(
        spatial_dims=dims, n_input_channels=channels, num_classes=2, conv1_t_stride=stride,
        conv1_t_size=3 if stride == 1 else 7, shortcut_type="B",
    )  # fmt: skip
    n_features = net.fc.in_features
    net.fc = nn.Identity()
    widths = (n_features // 8, n_features // 4, n_features // 2, n_features)  # each stage doubles the one before
    taps = {f"layer{i}": (f"layer{i}", w) for i, w in enumerate(widths, start=1)}
    return Backbone(net, int(n_features), taps, "small" if stride == 1 else "standard")
