"""Generators that others wrote, called as every generator here is called."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from robustgen.config.generator_base import GeneratorConfig
from robustgen.config.generators import CustomConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.generators.contracts import Generator
from robustgen.images import DatasetInfo, ImageSet
from robustgen.randomness import Rng, rng_for
from robustgen.storage.references import Reference, find_code, one_line

GENERATOR_SOURCE = "source.py"
"""Copy of the file that a generator of the user's own was made from, in its folder."""

RANDOM = ("seed", "seeds", "rng")
"""Names of the second argument: an int, with one image a call; (N,) int64, one per image; an `Rng` of N streams."""


class Custom(Generator):
    """A function of (labels, seed) to images, or a network with a method `sample` of the same arguments.

    Labels are (N,) int64. The second argument's name says what it receives (RANDOM). Images are (N, C, H, W): uint8, or
    floating point in [0, 1]; tensors or NumPy arrays. Every call's result is verified.

    Raises:
        ValueError: neither a function nor a network with `sample`, or other arguments.
    """

    kind = "custom"

    def __init__(
        self,
        made: Callable[..., Any] | nn.Module,
        shape: tuple[int, int, int],
        classes: int,
        *,
        name: str = "",
        conditional: bool = True,
    ):
        super().__init__()
        self.shape, self.classes, self.conditional = shape, classes, conditional
        self.name = name or getattr(made, "__name__", type(made).__name__)
        self.network = made if isinstance(made, nn.Module) else None
        self.random = argument_of(self._sampler(made), self.name)
        self._function = (made,)  # in a tuple: a function here, the network above

    @classmethod
    def from_config(cls, config: GeneratorConfig, info: DatasetInfo, rng: Rng) -> Self:
        assert isinstance(config, CustomConfig)
        return cls.from_source(config, info, rng)

    @classmethod
    def from_source(cls, config: CustomConfig, info: DatasetInfo, rng: Rng, file: Path | None = None) -> Self:
        """As `from_config`; `file` is a copy of the source file to use in place of the config's.

        Raises:
            ValueError: nothing there, code that fails, or a result that is not a generator; one line.
        """
        reference = reference_of(config)
        found = find_code(reference, file)
        try:
            with rng.seeding_torch():
                made = _made(found, reference, info)
        except Exception as error:  # whatever somebody else's code raises
            raise ValueError(f"{reference} fails: {type(error).__name__}: {one_line(error)}") from error
        return cls(made, info.shape, len(info.classes), name=str(reference), conditional=config.conditional)

    def _sampler(self, made: Any) -> Callable[..., Any]:
        found = getattr(made, "sample", None) if isinstance(made, nn.Module) else made
        if not callable(found):
            raise ValueError(
                f"{self.name}: expected a function of (labels, seed), or an nn.Module with a method "
                f"sample(labels, seed), got {type(made).__name__}"
            )
        return found

    @torch.no_grad()
    def sample(self, labels: Tensor, rng: Rng) -> Tensor:
        """Images in [0, 1] of class labels.

        Raises:
            ValueError: code that fails, another shape or type, values outside of the range, or NaN.
        """
        count = len(labels)
        if not count:
            return torch.zeros(0, *self.shape, device=labels.device)
        if self.random == "seed":
            seeds = rng.integers(2**31 - 1, (count,)).tolist()
            return torch.cat([self._checked(labels[i : i + 1], seed) for i, seed in enumerate(seeds)])
        # Kernels are chosen by size (see `modes.batch_invariant`); here streams are padded along with the rows.
        rows = torch.arange(count + -count % 16, device=labels.device)
        rows[count:] = 0
        streams = rng.rows(rows)
        random = streams if self.random == "rng" else streams.integers(2**31 - 1, (len(rows),))
        return self._checked(labels[rows], random)[:count]

    def _checked(self, labels: Tensor, random: object) -> Tensor:
        """The images of one call as float32 in [0, 1]."""
        network = self.network
        call: Any = self._function[0] if network is None else network.sample
        try:
            made = call(labels, random)
        except Exception as error:  # whatever somebody else's code raises
            raise ValueError(f"{self.name} fails: {type(error).__name__}: {one_line(error)}") from error
        if isinstance(made, np.ndarray):
            made = torch.from_numpy(made)
        if not isinstance(made, Tensor):
            raise ValueError(f"{self.name}: expected images as a tensor or an array, got {type(made).__name__}")
        wanted = (len(labels), *self.shape)
        if made.shape != wanted:
            hint = "; move the channels to the second place" if made.shape == _channels_last(wanted) else ""
            raise ValueError(f"{self.name}: expected images of shape {wanted}, got {tuple(made.shape)}{hint}")
        made = made.to(labels.device)
        if made.dtype == torch.uint8:
            return made.float() / 255
        if not made.is_floating_point():
            raise ValueError(f"{self.name}: expected images of uint8, or floating point in [0, 1], got {made.dtype}")
        least, most = made.min().item(), made.max().item()
        if not (least >= 0 and most <= 1):
            hint = "; clamp them, or return (images + 1) / 2 if they are in [-1, 1]" if -1.5 < least < 0 else ""
            raise ValueError(f"{self.name}: expected images in [0, 1], got values from {least:.4g} to {most:.4g}{hint}")
        return made.float()

    def fit(self, images: ImageSet) -> str:
        """Make four images in two ways: equal seeds must give equal images, whatever the batch."""
        device = next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))
        self.eval()
        labels = (torch.arange(4, device=device)) % self.classes
        streams = rng_for(0, "check", device=device).each(range(4))
        first, again = (self.sample(labels, streams.at(0)) for _ in range(2))
        if not torch.equal(first, again):
            raise ValueError(
                f"{self.name}: the same labels and seeds gave other images; draw all random numbers from "
                f"torch.Generator().manual_seed({'seed' if self.random == 'seed' else 'seeds[i]'}) or from rng"
            )
        rows = torch.tensor([2], device=device)
        if (self.sample(labels[rows], streams.at(0).rows(rows)) - first[rows]).abs().max() > 1e-3:
            raise ValueError(
                f"{self.name}: image 2 differs where it is made alone; draw each image's random numbers from its own "
                "seed, and use no statistics of the batch"
            )
        return f"{self.name}: four images checked"

    def configure_sampler(self, settings: SamplerConfig, guide: nn.Module | None = None) -> dict[str, Any]:
        """Nothing can be set."""
        self.refuse_all_but(settings, "solver", "evaluations")
        return {"source": self.name, "conditional": self.conditional}


def reference_of(config: CustomConfig) -> Reference:
    """The code that a config names.

    Raises:
        ValueError: another form.
    """
    reference = Reference.parse(config.source)
    if reference is None or reference.where in ("timm", "hf", "object"):
        raise ValueError(
            "source: expected FILE.py:NAME, PACKAGE.MODULE:NAME or the folder of a finished generator, "
            f"got {config.source!r}"
        )
    return reference


def argument_of(sampler: Callable[..., Any], name: str) -> str:
    """Which of RANDOM a function takes as its second argument; `seed` where that has another name.

    Raises:
        ValueError: a function that cannot be called with two arguments.
    """
    try:
        signature = inspect.signature(sampler)
        signature.bind(None, None)
    except ValueError:  # some builtins have no signature
        return "seed"
    except TypeError:
        raise ValueError(f"{name}: expected arguments (labels, seed), got {signature}") from None
    second = list(signature.parameters.values())[1:2]
    return second[0].name if second and second[0].name in RANDOM else "seed"


def _made(found: Callable[..., Any], reference: Reference, info: DatasetInfo) -> Any:
    """What a name stands for: a sampler itself, or what a class or function makes with arguments and facts of the data.

    A function whose first argument is `labels`, or whose second is one of RANDOM, is the sampler; arguments are bound.
    """
    if isinstance(found, nn.Module):
        return copy.deepcopy(found)
    names = list(inspect.signature(found).parameters)
    if not inspect.isclass(found) and (names[:1] == ["labels"] or set(names[1:2]) & set(RANDOM)):
        return partial(found, **reference.arguments) if reference.arguments else found
    facts = {"classes": len(info.classes), "num_classes": len(info.classes), "shape": info.shape}
    return found(**{**{name: value for name, value in facts.items() if name in names}, **reference.arguments})


def _channels_last(shape: tuple[int, ...]) -> tuple[int, ...]:
    return (shape[0], *shape[2:], shape[1])
