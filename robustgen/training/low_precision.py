"""Training passes of a network in bfloat16; weights, losses and attacks stay in float32."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from robustgen.runtime.precision import autocast


class LowPrecision(nn.Module):
    """A network computed in bfloat16 by autocast, with float32 logits. Parameters and modes are the network's own.

    Losses and attacks that call it compute in float32. On a CPU autocast alone would give them bfloat16 logits, and
    take their softmax in bfloat16.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        with autocast("bfloat16", images.device):
            output: Tensor = self.model(images)
        return output.float() if output.dtype == torch.bfloat16 else output


def in_precision(model: nn.Module, precision: str) -> nn.Module:
    """The network for training passes in a precision, float32 or bfloat16."""
    return LowPrecision(model) if precision == "bfloat16" else model


@contextmanager
def casting_once(precision: str, device: torch.device | str) -> Iterator[None]:
    """Weights are cast to bfloat16 once for all passes of a `LowPrecision` network within the block.

    autocast keeps cast weights until its outermost block ends. So an outer block surrounds all passes of a step, in
    which autocast itself is off. Gradients flow through the cast to the float32 weights.
    """
    if precision != "bfloat16":
        yield
        return
    with autocast("bfloat16", device), autocast("float32", device):
        yield
