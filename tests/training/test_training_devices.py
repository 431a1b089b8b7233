"""Training within a device's memory, and compiled for it; the devices' part is played on the CPU."""

from functools import partial

import pytest
import torch
from test_training import THREAT, short, train, weights

from robustgen.losses import TRADES
from robustgen.models import build_model
from robustgen.modes import debias_statistics, frozen_bn_stats
from robustgen.randomness import rng_for
from robustgen.training.batch_norms import BatchNorm, follow_momentum, use_own_batch_norms
from robustgen.training.compiling import Compiled
from robustgen.training.memory import OutOfMemory, largest_fitting, passes_that_fit


def test_the_first_line_of_want_of_memory_says_what_fits(tiny_images, tmp_path):
    class Large(TRADES):
        def __call__(self, model, batch, threat, rng):
            if len(batch.images) > 4:
                raise torch.OutOfMemoryError("CUDA out of memory.\nTried to allocate 2.00 GiB")
            return super().__call__(model, batch, threat, rng)

    with pytest.raises(OutOfMemory, match=r"with 16 images in a pass; 4 fit: .*accumulate=4") as caught:
        train(tmp_path, tiny_images, settings=short(), loss=Large())
    assert "\n" not in str(caught.value)
    train(tmp_path, tiny_images, settings=short(accumulate=4), loss=Large())


def test_halves_until_it_fits():
    def up_to(limit):
        tried = []

        def attempt(count):
            tried.append(count)
            if count > limit:
                raise torch.OutOfMemoryError("no room")

        return attempt, tried

    attempt, tried = up_to(100)
    assert largest_fitting(attempt, 512) == 64 and tried == [512, 256, 128, 64]
    assert largest_fitting(up_to(3)[0], 20) == 0  # 20, 10, 5: no whole half is left
    with pytest.raises(RuntimeError, match="something else"):
        largest_fitting(lambda count: (_ for _ in ()).throw(RuntimeError("something else")), 8)


def test_a_batch_is_tried_on_the_device_once_and_kept(tiny_info, tmp_path, monkeypatch):
    """The GPU's part is played by a loss that takes at most 5 images."""
    tried = []

    class Narrow(TRADES):
        def __call__(self, model, batch, threat, rng):
            tried.append(len(batch.images))
            if len(batch.images) > 5:
                raise torch.OutOfMemoryError("no room")
            return super().__call__(model, batch, threat, rng)

    fractions = []
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "set_per_process_memory_fraction", lambda *told: fractions.append(told))
    for _ in range(2):
        assert passes_that_fit(short(), tiny_info, Narrow(), THREAT, tmp_path, "cpu") == 4
    assert tried == [16, 8, 4] and fractions == [(0.9, 0), (1.0, 0)]


def test_own_batch_norms_are_those_of_torch(tiny_info):
    theirs = build_model("wrn-10-1", tiny_info, rng_for(0)).train()
    ours = build_model("wrn-10-1", tiny_info, rng_for(0)).train()
    use_own_batch_norms(ours)
    assert theirs.state_dict().keys() == ours.state_dict().keys()
    assert sum(isinstance(module, BatchNorm) for module in ours.modules()) == 7
    for step in range(3):
        images = torch.rand(16, 1, 8, 8)
        for model in (theirs, ours):
            debias_statistics(model, step, 0.9)
            follow_momentum(model)
            with frozen_bn_stats(model):
                model(torch.rand(16, 1, 8, 8) + 3)
        torch.testing.assert_close(theirs(images), ours(images))
    for name, expected in theirs.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(theirs.eval()(images), ours.eval()(images))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
def test_compiled_steps_are_the_same_and_compiled_once(tiny_images, tmp_path, monkeypatch, backend):
    """Three graphs: for attacks, for clean images, for those whose statistics count; none for a new momentum."""
    import torch._dynamo as dynamo

    dynamo.reset()
    dynamo.utils.counters.clear()
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend=backend))
    compiled = train(tmp_path / "compiled", tiny_images, settings=short(compile=True, ema_decay=0.0))
    assert dynamo.utils.counters["stats"]["unique_graphs"] == 3
    eager = train(tmp_path / "eager", tiny_images, settings=short(ema_decay=0.0))
    for a, b in zip(weights(compiled), weights(eager), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-2, atol=1e-2)


@pytest.mark.filterwarnings("ignore")
def test_compiled_attacks_pay_for_no_weight_gradients(tiny_info, monkeypatch):
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    network = Compiled(build_model("wrn-10-1", tiny_info, rng_for(0)).eval())
    parameters = list(network.parameters())
    images = torch.rand(2, 1, 8, 8)
    attacked = network(images.clone().requires_grad_()).sum()
    assert not any(g is not None for g in torch.autograd.grad(attacked, parameters, allow_unused=True))
    assert all(parameter.requires_grad for parameter in parameters)
    assert all(g is not None for g in torch.autograd.grad(network(images).sum(), parameters))
