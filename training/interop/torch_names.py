"""The names that PyTorch's modules have for the layers of a network."""

from __future__ import annotations

from collections.abc import Iterator

from layers import Affine, BatchNormalization, Convolution, Layer, Residual, Sequential
from layers.base import joined, walk
from training.zoo import mobilenet

Names = dict[str, str]
"""Names of PyTorch's modules ("layer1.0.conv1") by the places of layers ("Residual1.body.Convolution1")."""


def names_by_place(layers: Sequential) -> Names:
    """Return the names as an ``nn.Sequential`` of the same layers has them: "0", "3.body.1", by their indices."""

    def inside(layer: Layer, place: str, name: str) -> Iterator[tuple[str, str]]:
        numbered = isinstance(layer, Sequential)
        for index, (key, each) in enumerate(layer.sublayers()):
            own = joined(place, key), joined(name, str(index) if numbered else key)
            yield own
            yield from inside(each, *own)

    return dict(inside(layers, "", ""))


def torchvision_names(title: str, layers: Sequential) -> Names | None:
    """Return the names that torchvision has for a network of the zoo with this title; None if it has no such network.

    torchvision's modules are called resnet18, resnet50, vgg11_bn, vgg16_bn and mobilenet_v2.
    """
    if title in _BLOCKS:
        return dict(_of_resnet(layers, _BLOCKS[title]))
    if title == "MobileNetV2":
        return dict(zip([place for place, _ in leaves_of(layers)], _of_mobilenet(), strict=True))
    return dict(_of_vgg(layers)) if title in ("VGG11", "VGG16") else None


_BLOCKS = {"ResNet18": (2, 2, 2, 2), "ResNet50": (3, 4, 6, 3)}
"""The number of blocks in each stage."""

_KINDS: dict[type[Layer], str] = {Convolution: "conv", BatchNormalization: "bn"}


def _of_resnet(layers: Sequential, blocks: tuple[int, ...]) -> Iterator[tuple[str, str]]:
    stages = iter([f"layer{stage}.{block}" for stage, count in enumerate(blocks, 1) for block in range(count)])
    for key, layer in layers.sublayers():
        if isinstance(layer, Residual):
            name = next(stages)
            for place, module in _numbered(layer.body):
                yield f"{key}.body.{place}", f"{name}.{module}"
            for index, (place, _) in enumerate(layer.shortcut.sublayers() if layer.shortcut else []):
                yield f"{key}.shortcut.{place}", f"{name}.downsample.{index}"
        elif isinstance(layer, Affine):
            yield key, "fc"
    yield from _numbered(layers)


def _numbered(layers: Layer) -> Iterator[tuple[str, str]]:
    """Yield places and names of convolutions and normalizations, each numbered from 1: conv1, bn1, conv2, …"""
    for kind, name in _KINDS.items():
        own = [key for key, layer in layers.sublayers() if isinstance(layer, kind)]
        yield from ((key, f"{name}{number}") for number, key in enumerate(own, 1))


def _of_vgg(layers: Sequential) -> Iterator[tuple[str, str]]:
    first = next(index for index, (_, layer) in enumerate(layers.sublayers()) if isinstance(layer, Affine))
    for index, (key, _) in enumerate(layers.sublayers()):
        yield key, f"features.{index}" if index < first else f"classifier.{index - first}"


def _of_mobilenet() -> Iterator[str]:
    """Yield the names in the order of the layers."""

    def pair(first: str, second: str) -> Iterator[str]:
        yield from (first, second)

    yield from pair("features.0.0", "features.0.1")
    block = 0
    for expansion, _, blocks, _ in mobilenet.STAGES:
        for _ in range(blocks):
            block += 1
            part = 0
            for part in range(1 if expansion == 1 else 2):
                yield from pair(f"features.{block}.conv.{part}.0", f"features.{block}.conv.{part}.1")
            yield from pair(f"features.{block}.conv.{part + 1}", f"features.{block}.conv.{part + 2}")
    yield from pair(f"features.{block + 1}.0", f"features.{block + 1}.1")
    yield "classifier.1"


def leaves_of(layers: Sequential) -> list[tuple[str, Layer]]:
    """Return the layers with parameters and without sublayers, by their places, in the order of the forward."""
    return [(place, layer) for place, layer in walk(layers) if layer.params and not layer.sublayers()]
