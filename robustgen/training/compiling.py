"""A network compiled for training steps."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Compiled(nn.Module):
    """A network compiled by `torch.compile`; parameters, statistics and modes are those of the network itself.

    A compiled backward pass computes every gradient that its forward pass recorded. Attacks need only the gradient in
    the images. So parameters do not require gradients while the images do; otherwise each of ten attack steps would
    also compute the weight gradients.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self._run: Any = torch.compile(model)

    def forward(self, images: Tensor) -> Tensor:
        if not images.requires_grad:
            output: Tensor = self._run(images)
            return output
        asking = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        for parameter in asking:
            parameter.requires_grad_(False)
        try:
            output = self._run(images)
        finally:
            for parameter in asking:
                parameter.requires_grad_(True)
        return output
