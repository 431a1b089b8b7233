"""N-FGSM: a single-step inner attack from a start with strong noise."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustgen.attacks.common import rng_or_default, value_and_grad
from robustgen.objectives import Objective, cross_entropy
from robustgen.randomness import Rng
from robustgen.threat import ThreatModel


@dataclass(frozen=True)
class NFGSM:
    """One step of steepest ascent from a random start in a larger ball, without projection onto the eps-ball.

        x' = clip(start + step_size * eps * ascend(gradient at start)),    start uniform in the ball of noise * eps

    both within [0, 1]. The result may leave the threat model's ball, up to (noise + step_size) eps, so this attack is
    for training only. This prevents catastrophic overfitting of single-step adversarial training.

    Source: de Jorge et al. 2022, arXiv:2202.01181 (noise 2, step 1, in linf).
    """

    noise: float = 2.0
    step_size: float = 1.0
    objective: Objective = cross_entropy

    def __post_init__(self) -> None:
        if self.noise < 0 or not self.step_size > 0:
            raise ValueError(f"noise must be at least 0 and step_size above 0, got {self.noise} and {self.step_size}")

    def __call__(
        self, model: nn.Module, images: Tensor, targets: Tensor, threat: ThreatModel, rng: Rng | None = None
    ) -> Tensor:
        reach = self.noise * threat.eps
        wide = ThreatModel(threat.norm, min(reach, 1.0) if threat.norm == "linf" else reach)
        start = wide.random_start(images, rng_or_default(rng, images))
        _, _, gradient = value_and_grad(model, start, targets, self.objective)
        return (start + self.step_size * threat.eps * threat.ascend(gradient)).clamp(0, 1)
