import pytest
import torch
from torch import nn

from robustgen.modes import BatchInvariant, batch_invariant, debias_statistics, evaluating, frozen_bn_stats


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))


def test_evaluating_restores_each_module():
    model = network()
    model.train()
    model[1].eval()
    with evaluating(model):
        assert not any(module.training for module in model.modules())
    assert model.training and model[0].training and not model[1].training


def test_still_statistics_normalises_by_the_batch_and_remembers_nothing():
    model = network().train()
    images = torch.rand(5, 1, 8, 8)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with frozen_bn_stats(model):
        quiet = model(images)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert torch.equal(quiet, model(images))  # the same batch statistics
    assert not torch.equal(model[1].running_mean, before["1.running_mean"])  # and now it does remember


def test_debiased_statistics_are_the_weighted_mean_of_what_was_seen():
    norm = nn.BatchNorm1d(1, affine=False)
    batches = [torch.randn(6, 1, generator=torch.Generator().manual_seed(i)) + i for i in range(4)]
    for step, batch in enumerate(batches):
        debias_statistics(norm, step, 0.9)
        norm(batch)
    weights = torch.tensor([0.9**3, 0.9**2, 0.9, 1.0])
    expected = (weights * torch.stack([batch.mean() for batch in batches])).sum() / weights.sum()
    torch.testing.assert_close(norm.running_mean[0], expected)


def test_rows_do_not_depend_on_how_many_came():
    model = network().eval()
    images = torch.rand(70, 1, 8, 8)
    with torch.no_grad():
        whole = batch_invariant(model, images)
        for size in (1, 2, 3, 5, 8, 15, 16, 17, 64):
            parts = torch.cat([batch_invariant(model, images[i : i + size]) for i in range(0, 70, size)])
            assert torch.equal(parts, whole), size
        torch.testing.assert_close(whole, model(images))
    assert len(batch_invariant(model, images[:0])) == 0


class Counting(nn.Module):
    """A network that keeps the number of rows of each pass; `depends` adds a term that differs below 8 rows."""

    def __init__(self, depends=False):
        super().__init__()
        self.network, self.depends, self.rows = network().eval(), depends, []

    def forward(self, images):
        self.rows.append(len(images))
        logits = self.network(images)
        return logits + 1e-3 * (len(images) < 8) if self.depends else logits


def with_gradient(model, images):
    points = images.clone().requires_grad_()
    logits = model(points)
    (gradient,) = torch.autograd.grad(logits.exp().sum(), points)
    return logits.detach(), gradient


@pytest.mark.parametrize("depends", [False, True])
def test_padding_ends_where_all_bits_agree_and_results_stay_the_same(depends):
    model = Counting(depends)
    invariant, images = BatchInvariant(model), torch.rand(40, 1, 8, 8)
    for size in (1, 5, 6, 9, 16, 20, 33):
        expected = with_gradient(lambda x: batch_invariant(model, x), images[:size])
        for _ in range(size // 4 + 3):
            model.rows.clear()
            assert all(map(torch.equal, with_gradient(invariant, images[:size]), expected)), size
        if depends and size < 8:  # 8 rows are enough, once they are known to be
            assert model.rows[-1] in (8, 16)
        elif not depends and size > 3:  # below, kernels may differ
            assert model.rows == [size]
    for size in (5, 20):
        with torch.no_grad():
            for _ in range(9):
                assert torch.equal(invariant(images[:size]), batch_invariant(model, images[:size]))
    assert not len(invariant(images[:0]))
