"""The searches of an evaluation: on which copy of the model attacks run, in which precision, and what is repeated."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.attacks.common import AttackResult, NoGradient
from robustgen.contracts import Attack
from robustgen.evaluation.checks import NO_GRADIENT
from robustgen.evaluation.precision import low_precision_copy
from robustgen.evaluation.prepare import prepared
from robustgen.modes import BatchInvariant
from robustgen.objectives import margin
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts
from robustgen.runtime.distributed import gathered
from robustgen.threat import ThreatModel


class CountingModel(nn.Module):
    """A batch-invariant model that counts the images it sees, and records whether input gradients vanish.

    Logits have the data type of the images, so that attacks compute in it whatever the model computes in.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.bare = model
        self.model = BatchInvariant(model)
        self.forward_only = 0
        self.with_gradient = 0
        self.calls = 0
        self.flat: Tensor | None = None
        """(N,) whether the first gradient since `watch` is zero everywhere, per image; None before it."""
        self._watching = False
        self.on_call: Callable[[int], None] = lambda calls: None

    def watch(self) -> None:
        """Record the next gradient; restart counting calls."""
        self._watching, self.flat, self.calls = True, None, 0

    def forward(self, images: Tensor) -> Tensor:
        self.calls += 1
        self.on_call(self.calls)
        if torch.is_grad_enabled() and images.requires_grad:
            self.with_gradient += len(images)
            if self._watching:
                self._watching = False
                images.register_hook(self._record_gradient)
        else:
            self.forward_only += len(images)
        return cast(Tensor, self.model(images)).to(images.dtype)

    def _record_gradient(self, gradient: Tensor) -> None:
        self.flat = gradient.flatten(1).abs().amax(1) == 0


class Searcher:
    """The data that every attack of an evaluation works on, and the models that it searches."""

    def __init__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        verdicts: Verdicts,
        seed: int,
        batch_size: int,
        prepare: bool,
    ):
        self.images, self.labels, self.threat, self.verdicts = images, labels, threat, verdicts
        self.seed, self.batch_size = seed, batch_size
        self.reference = CountingModel(model)
        self.exact = CountingModel(prepared(model, images[:16])) if prepare else self.reference
        self.fast = self.exact
        """The model that attacks use first: `exact`, or a copy in bfloat16."""
        self.clean_logits = torch.from_numpy(verdicts.clean_logits).to(images.device)

    @property
    def passes(self) -> np.ndarray:
        """(2,) number of images in forward passes so far: without and with a gradient."""
        models = {self.reference, self.exact, self.fast}
        return np.array([sum(m.forward_only for m in models), sum(m.with_gradient for m in models)])

    def choose_precision(self, precision: str, kept: str | None, passes: int) -> None:
        """Let attacks search in bfloat16 if that is the precision, or auto's choice; write it down in the verdicts.

        `kept` is the precision in which the verdicts were begun, if they were; `passes` are at least made.

        Raises:
            ValueError: the verdicts were begun in the other precision, or the device cannot compute in this one.
        """
        verdicts = self.verdicts
        first = self.images[: self.batch_size]
        low, note = low_precision_copy(self.reference.bare, first, precision, kept, self.exact.bare, passes)
        chosen = "float32" if low is None else "bfloat16"
        if kept not in (None, chosen):
            raise ValueError(
                f"these verdicts were begun with attacks in {kept}, not in {chosen}; evaluate with precision {kept}, "
                "or choose another path"
            )
        verdicts.precision = chosen
        verdicts.notes = tuple(dict.fromkeys((*verdicts.notes, *([note] if note else []))))
        if low is None:
            return
        self.fast = CountingModel(low)
        parts = range(0, len(self.images), self.batch_size)
        logits = torch.cat([self.fast(self.images[i : i + self.batch_size]) for i in parts])
        differences = (margin(logits, self.labels) - margin(self.clean_logits, self.labels)).abs()
        largest = max(gathered(float(differences.nan_to_num(0).max())))
        verdicts.band = np.maximum(verdicts.band, np.float32(2 * largest))

    def search(
        self, attack: Attack, name: str, run: int, rows: np.ndarray, targets: Tensor
    ) -> tuple[AttackResult, Tensor]:
        """The result of a run on these rows, and the original model's logits of it.

        In bfloat16, rows that rounding could have decided search again in float32.
        """
        found = self._search(self.fast, attack, name, run, rows, targets)
        logits = self.reference(found.points)
        if self.fast is self.exact:
            return found, logits
        again = self._doubtful(found, logits, rows)
        self.verdicts.repeated[self.verdicts.attacks.index(name)] += int(again.sum()), len(rows)
        if again.any():
            exact = self._search(self.exact, attack, name, run, rows[again.cpu().numpy()], targets[again])
            found = AttackResult(found.points.clone(), found.step.clone())
            found.points[again], found.step[again] = exact.points, exact.step
            logits[again] = self.reference(exact.points)
        return found, logits

    def broken(self, points: Tensor, logits: Tensor, rows: np.ndarray) -> Tensor:
        """(N,) bool: points that are adversarial examples of these rows, by the original model's logits of them.

        Never trust an attack: a point outside the threat model does not count. Logits that are not finite do.
        """
        index = torch.from_numpy(rows).to(self.images.device)
        wrong = (logits.argmax(1) != self.labels[index]) | ~torch.isfinite(logits).all(1)
        return wrong & self.threat.contains(points, self.images[index])

    def _search(
        self, model: CountingModel, attack: Attack, name: str, run: int, rows: np.ndarray, targets: Tensor
    ) -> AttackResult:
        """The result of a run, with the number of steps where the attack reports it."""
        verdicts, images = self.verdicts, self.images[torch.from_numpy(rows).to(self.images.device)]
        rng = rng_for(self.seed, "evaluate", name, run, device=images.device).each(verdicts.ids[rows])
        search = getattr(attack, "search", None)
        failed = torch.full((len(rows),), -1, dtype=torch.int64, device=images.device)
        try:
            if search is not None:
                return cast(AttackResult, search(model, images, targets, self.threat, rng))
            return AttackResult(attack(model, images, targets, self.threat, rng), failed)
        except NoGradient as error:
            verdicts.flags = tuple(dict.fromkeys((*verdicts.flags, f"{NO_GRADIENT}: {error}")))
            return AttackResult(images, failed)

    @torch.no_grad()
    def _doubtful(self, found: AttackResult, logits: Tensor, rows: np.ndarray) -> Tensor:
        """(N,) bool: the original model does not confirm a success, or some margin came within the band of 0.

        Where an attack reports no margins, one may have. The band of each image widens to twice the difference of the
        two precisions at the point that was found.
        """
        labels = self.labels[torch.from_numpy(rows).to(self.images.device)]
        low, exact = margin(self.fast(found.points), labels), margin(logits, labels)
        band = torch.from_numpy(self.verdicts.band[rows]).to(low.device)
        band = torch.maximum(band, 2 * (low - exact).abs().nan_to_num(torch.inf))
        self.verdicts.band[rows] = band.cpu().numpy()
        highest = torch.full_like(low, torch.inf) if found.margin is None else torch.maximum(low, found.margin)
        return ~self.broken(found.points, logits, rows) & ((found.step >= 0) | ~(highest < -band))
