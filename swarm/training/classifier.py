"""Classifiers: a small convolutional network for images, and a perceptron for rows and small images.

Both end in one logit a class. Norms are over groups or layers, so that a sample does not depend on its batch.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from swarm.training.sizes import ClassifierModel

GROUPS = 4


class Stage(nn.Module):
    """Two convolutions, the first of which halves the image."""

    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.down = nn.Conv2d(before, width, 3, stride=2, padding=1)
        self.down_norm = nn.GroupNorm(GROUPS, width)
        self.same = nn.Conv2d(width, width, 3, padding=1)
        self.same_norm = nn.GroupNorm(GROUPS, width)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.down_norm(self.down(x)))
        return x + functional.relu(self.same_norm(self.same(x)))


class Convolutional(nn.Module):
    """Images (B, channels, size, size) in -1 to 1 to logits (B, classes)."""

    def __init__(self, sizes: ClassifierModel) -> None:
        super().__init__()
        self.stages = nn.ModuleList()
        before, width = sizes.channels, sizes.width
        for _ in range(sizes.layers):
            self.stages.append(Stage(before, width))
            before, width = width, 2 * width
        self.head = nn.Linear(before * sizes.side**2, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        for stage in self.stages:
            x = stage(x)
        result: Tensor = self.head(x.flatten(1))
        return result


class Perceptron(nn.Module):
    """Rows (B, features), or images of so many values, to logits (B, classes)."""

    def __init__(self, sizes: ClassifierModel) -> None:
        super().__init__()
        widths = [sizes.inputs] + [sizes.width] * sizes.layers
        self.layers = nn.ModuleList(
            nn.Linear(before, width) for before, width in itertools.pairwise(widths)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(width) for width in widths[1:])
        self.head = nn.Linear(sizes.width, sizes.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = functional.gelu(norm(layer(x)))
        result: Tensor = self.head(x)
        return result


def classifier(sizes: ClassifierModel) -> nn.Module:
    """The module of a task's model."""
    return Perceptron(sizes) if sizes.shape == "mlp" else Convolutional(sizes)
