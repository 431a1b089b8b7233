"""Checks of the interfaces in `contracts.py`, also for members outside this package: asserts, without pytest.

`check_attack(MyAttack())` runs all of `ATTACK_CHECKS`; the tests of this package run them for every member by name.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from robustgen.contracts import Attack, Augment, Batch, Loss
from robustgen.generators.contracts import Generator
from robustgen.generators.custom import Custom
from robustgen.modes import evaluating
from robustgen.randomness import Rng, rng_for
from robustgen.threat import ThreatModel


class Halfspace(nn.Module):
    """A linear classifier of four classes, two of which are never near: the distance to its boundary is known.

    Around the center of the box the distance is |(w_0 - w_1) x + b_0 - b_1| over the dual norm of w_0 - w_1.
    """

    def __init__(self, pixels: int = 12, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.linear = nn.Linear(pixels, 4)
        with torch.no_grad():
            self.linear.weight.copy_(torch.randn(4, pixels, generator=generator))
            self.linear.bias.copy_(-self.linear.weight.sum(1) / 2 - torch.tensor([0.0, 0.0, 20.0, 25.0]))

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.linear(images.flatten(1))
        return logits

    @torch.no_grad()
    def distance_to_boundary(self, images: Tensor, labels: Tensor, norm: str) -> Tensor:
        """(N,) distance to the nearest other class in `norm`, without the box."""
        logits = self(images)
        gaps: Tensor = logits.gather(1, labels[:, None]) - logits
        weights = self.linear.weight
        differences = weights[labels][:, None] - weights[None]
        dual = differences.norm(dim=2, p={"linf": 1, "l2": 2, "l1": torch.inf}[norm])
        return (gaps / dual.clamp_min(1e-12)).masked_fill(gaps == 0, torch.inf).amin(1)


def halfspace_setting(norm: str) -> tuple[Halfspace, Tensor, Tensor, ThreatModel]:
    """(model, 64 images around the center of the box, the model's own labels, a radius that reaches half of them)"""
    model = Halfspace()
    images = 0.5 + 0.1 * torch.randn(64, 3, 2, 2, generator=torch.Generator().manual_seed(1)).clamp(-2, 2)
    labels = model(images).argmax(1)
    return model, images, labels, ThreatModel(norm, float(model.distance_to_boundary(images, labels, norm).median()))


def finds_what_exists_and_nothing_else(attack: Attack, norm: str, reach: float = 0.95) -> None:
    """Images within `reach` of the radius are misclassified, images beyond the radius are not."""
    model, images, labels, threat = halfspace_setting(norm)
    needed = model.distance_to_boundary(images, labels, norm)
    adversarial = attack(model, images, labels, threat, rng_for(0, "attack"))
    fooled = model(adversarial).argmax(1) != labels
    assert fooled[needed < reach * threat.eps].all(), "misses adversarial examples well within the radius"
    assert not fooled[needed > 1.001 * threat.eps].any(), "returns adversarial examples that cannot exist"
    assert threat.contains(adversarial, images).all(), "leaves the threat model"
    assert reach == 0 or (fooled.any() and not fooled.all()), "fools all images or none"


def same_stream_same_result(attack: Attack, norm: str) -> None:
    """Equal streams give equal images; inputs, gradients and torch's generator stay unchanged; None is seed 0."""
    model, images, labels, threat = halfspace_setting(norm)
    kept, state = (images.clone(), labels.clone()), torch.get_rng_state()
    first = attack(model, images, labels, threat, rng_for(0, "attack"))
    again = attack(model, images, labels, threat, rng_for(0, "attack"))
    assert torch.equal(first, again), "the same stream gives another result"
    assert torch.equal(first, attack(model, images, labels, threat)), "without rng the result is not that of seed 0"
    assert torch.equal(torch.get_rng_state(), state), "draws from torch's global generator"
    assert torch.equal(images, kept[0]) and torch.equal(labels, kept[1]), "changes its inputs"
    assert all(parameter.grad is None for parameter in model.parameters()), "leaves gradients in the parameters"
    assert not first.requires_grad and not images.requires_grad, "the result carries a graph"


def an_image_is_independent_of_the_others(attack: Attack, norm: str) -> None:
    """With one stream per image, a part of the batch gives the same rows."""
    model, images, labels, threat = halfspace_setting(norm)
    streams = rng_for(0, "attack").each(range(len(images)))
    whole = attack(model, images, labels, threat, streams.at("x"))
    some = torch.arange(5, 40, 3)
    part = attack(model, images[some], labels[some], threat, streams.at("x").rows(some))
    torch.testing.assert_close(part, whole[some], rtol=0, atol=1e-6)


def at_zero_radius_nothing_moves(attack: Attack, norm: str) -> None:
    """Within a radius of 0 only the clean image is allowed."""
    model, images, labels, _ = halfspace_setting(norm)
    found = attack(model, images, labels, ThreatModel(norm, 0.0), rng_for(0))
    torch.testing.assert_close(found, images, rtol=0, atol=0)


def stays_in_the_box_at_its_corners(attack: Attack, norm: str) -> None:
    """Images at corners of [0, 1] stay within it."""
    model = Halfspace()
    corners = torch.randint(0, 2, (20, 3, 2, 2), generator=torch.Generator().manual_seed(0)).float()
    labels = model(corners).argmax(1)
    found = attack(model, corners, labels, ThreatModel(norm, 0.3 if norm == "linf" else 1.0), rng_for(0))
    assert found.min() >= 0 and found.max() <= 1, "leaves [0, 1]"


ATTACK_CHECKS: dict[str, Callable[[Attack, str], None]] = {
    check.__name__: check
    for check in (
        finds_what_exists_and_nothing_else,
        same_stream_same_result,
        an_image_is_independent_of_the_others,
        at_zero_radius_nothing_moves,
        stays_in_the_box_at_its_corners,
    )
}


def check_attack(attack: Attack, norms: tuple[str, ...] = ("linf", "l2", "l1")) -> None:
    """Run all checks of an attack in these norms. Raises AssertionError that names the violated promise."""
    for check in ATTACK_CHECKS.values():
        for norm in norms:
            check(attack, norm)


def small_network() -> nn.Module:
    """Convolution, batch norm and linear layer for images (N, 1, 8, 8) and 3 classes, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    return network.train()


def small_batch(count: int = 12) -> Batch:
    """Random images (N, 1, 8, 8) with random target probabilities (N, 3)."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(count, 1, 8, 8, generator=generator)
    targets = torch.rand(count, 3, generator=generator).softmax(1)
    return Batch(images, targets, torch.zeros(count, dtype=torch.bool))


_THREAT = ThreatModel("linf", 0.1)


def gradient_reaches_every_parameter(loss: Loss) -> None:
    """The loss is a finite scalar, differentiable in all parameters."""
    model = small_network()
    value = loss(model, small_batch(), _THREAT, rng_for(0))
    assert value.shape == () and torch.isfinite(value), "expected a finite scalar"
    value.backward()
    assert all(parameter.grad is not None for parameter in model.parameters()), "a parameter gets no gradient"


def same_stream_same_loss(loss: Loss) -> None:
    """Equal streams give equal losses."""
    first, again = (loss(small_network(), small_batch(), _THREAT, rng_for(0)).item() for _ in range(2))
    assert first == again, "the same stream gives another loss"


def training_on_it_lowers_it(loss: Loss) -> None:
    """15 steps of SGD decrease the loss."""
    model = small_network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.02)
    values = []
    for step in range(15):
        value = loss(model, small_batch(), _THREAT, rng_for(0, step))
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        values.append(value.item())
    assert min(values[-3:]) < values[0], "the loss does not decrease"


def statistics_are_updated_once_a_step(loss: Loss) -> None:
    """Only one pass of a step updates running batch-norm statistics."""
    model = small_network()
    loss(model, small_batch(), _THREAT, rng_for(0))
    assert dict(model.named_buffers())["1.num_batches_tracked"] == 1, "running statistics are not updated exactly once"


LOSS_CHECKS: dict[str, Callable[[Loss], None]] = {
    check.__name__: check
    for check in (
        gradient_reaches_every_parameter,
        same_stream_same_loss,
        training_on_it_lowers_it,
        statistics_are_updated_once_a_step,
    )
}


def check_loss(loss: Loss) -> None:
    """Run all checks of a loss. Raises AssertionError that names the violated promise."""
    for check in LOSS_CHECKS.values():
        check(loss)


_LABELS = torch.arange(24) % 2
"""Labels of the images that generators make in their checks; every generator has a class 0, and most a class 1."""


def _streams(count: int = len(_LABELS), seed: int = 0) -> Rng:
    return rng_for(seed, "sample").each(range(count))


def _labels(generator: Generator) -> Tensor:
    return _LABELS % generator.classes


def images_have_the_shape_and_the_range(generator: Generator) -> None:
    """One image a label, (N, C, H, W) float32 in [0, 1]; none for no labels."""
    images = generator.sample(_labels(generator), _streams())
    assert images.shape == (len(_LABELS), *generator.shape), f"makes images of shape {tuple(images.shape)}"
    assert images.dtype == torch.float32, f"makes images of {images.dtype}"
    assert torch.isfinite(images).all() and images.min() >= 0 and images.max() <= 1, "leaves [0, 1]"
    assert generator.sample_images([]).shape == (0, *generator.shape), "fails without labels"


def same_stream_same_images(generator: Generator) -> None:
    """Equal streams give equal images, other streams others; torch's generator and the labels stay unchanged."""
    labels, state = _labels(generator), torch.get_rng_state()
    first = generator.sample(labels, _streams())
    assert torch.equal(first, generator.sample(labels, _streams())), "the same stream gives other images"
    assert not torch.equal(first, generator.sample(labels, _streams(seed=1))), "the stream changes nothing"
    assert torch.equal(torch.get_rng_state(), state), "draws from torch's global generator"
    assert torch.equal(labels, _labels(generator)), "changes the labels"


def an_image_does_not_depend_on_its_batch(generator: Generator) -> None:
    """A part of a batch, in any order, gives the same images."""
    labels = _labels(generator)
    whole = generator.sample(labels, _streams())
    for rows in (torch.tensor([5]), torch.tensor([9, 2, 17]), torch.arange(4, 21)):
        part = generator.sample(labels[rows], _streams().rows(rows))
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-6, msg="an image depends on its batch")


def images_of_one_class_differ(generator: Generator) -> None:
    """Each stream gives its own image."""
    images = generator.sample(torch.zeros(8, dtype=torch.int64), _streams(8))
    assert len({image.numpy().tobytes() for image in images}) == 8, "makes the same image twice"


def sampling_leaves_the_model_alone(generator: Generator) -> None:
    """Parameters, buffers and the mode stay as they are; images carry no graph."""
    before, mode = {name: value.clone() for name, value in generator.state_dict().items()}, generator.training
    images = generator.sample(_labels(generator), _streams())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items()), (
        "changes its weights"
    )
    assert generator.training == mode and not images.requires_grad, "changes its mode, or images carry a graph"


GENERATOR_CHECKS: dict[str, Callable[[Generator], None]] = {
    check.__name__: check
    for check in (
        images_have_the_shape_and_the_range,
        same_stream_same_images,
        an_image_does_not_depend_on_its_batch,
        images_of_one_class_differ,
        sampling_leaves_the_model_alone,
    )
}


def check_generator(
    generator: Generator | nn.Module | Callable[..., object],
    shape: tuple[int, int, int] | None = None,
    classes: int = 2,
) -> None:
    """Run all checks of a generator in evaluation mode. Raises AssertionError that names the broken promise.

    Args:
        generator: a `Generator`, or what the kind `custom` takes: a function of (labels, seed), (labels, seeds) or
            (labels, rng), or a network with such a method `sample`.
        shape: of its images, (C, H, W), if it is not a `Generator`.
        classes: number of classes, if it is not a `Generator`.
    """
    if not isinstance(generator, Generator):
        if shape is None:
            raise ValueError("expected shape=(C, H, W) of the images, got none")
        generator = Custom(generator, shape, classes)
    with evaluating(generator):
        for check in GENERATOR_CHECKS.values():
            try:
                check(generator)
            except ValueError as error:
                raise AssertionError(str(error)) from None


def _images_and_targets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(40, 3, 12, 12, generator=generator), torch.rand(40, 5, generator=generator).softmax(1)


def keeps_shapes_ranges_and_probabilities(augment: Augment) -> None:
    """Images stay in [0, 1], targets stay probabilities, inputs stay unchanged."""
    images, targets = _images_and_targets()
    kept = images.clone(), targets.clone()
    found, mixed = augment(images, targets, rng_for(0))
    assert found.shape == images.shape and mixed.shape == targets.shape, "changes shapes"
    assert found.min() >= 0 and found.max() <= 1, "leaves [0, 1]"
    torch.testing.assert_close(mixed.sum(1), torch.ones(40))
    assert torch.equal(images, kept[0]) and torch.equal(targets, kept[1]), "changes its inputs"


def same_stream_same_augmentation_and_images_differ(augment: Augment) -> None:
    """Equal streams give equal images, other streams others; random numbers are drawn per image."""
    images, targets = _images_and_targets()
    one = images[:1].expand(40, -1, -1, -1)
    first, _ = augment(one, targets, rng_for(0))
    assert torch.equal(first, augment(one, targets, rng_for(0))[0]), "the same stream gives another result"
    assert not torch.equal(first, augment(one, targets, rng_for(1))[0]), "the stream changes nothing"
    assert len({image.numpy().tobytes() for image in first}) > 3, "all images are augmented alike"


AUGMENTATION_CHECKS: dict[str, Callable[[Augment], None]] = {
    check.__name__: check
    for check in (keeps_shapes_ranges_and_probabilities, same_stream_same_augmentation_and_images_differ)
}


def check_augmentation(augment: Augment) -> None:
    """Run all checks of an augmentation. Raises AssertionError that names the violated promise."""
    for check in AUGMENTATION_CHECKS.values():
        check(augment)
