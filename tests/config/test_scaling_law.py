"""The scaling law, where its authors' numbers and calculus say what it must give."""

import sys

import pytest
import torch

from robustgen import cli
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.planning import scaling_law as planner
from robustgen.planning.scaling_law import (
    best_parameters,
    budget,
    parameters_of,
    plans,
    predicted_loss,
    robust_accuracy,
)


@pytest.mark.parametrize("architecture", ["wrn-10-1", "wrn-16-4", "wrn-28-10", "wrn-34-20", "wrn-70-16"])
@pytest.mark.parametrize(("classes", "channels"), [(10, 3), (100, 1)])
def test_counts_the_parameters_of_the_networks(architecture, classes, channels):
    names = tuple(map(str, range(classes)))
    info = DatasetInfo("", names, (channels, 32, 32), (0.5,) * channels, (0.5,) * channels)
    with torch.device("meta"):
        built = build_model(architecture, info)
    assert parameters_of(architecture, classes, channels) == sum(p.numel() for p in built.parameters())


def test_published_counts():
    counts = {"wrn-82-8": 79_125_466, "wrn-94-16": 365_915_610, "wrn-106-16": 415_475_162, "wrn-28-10": 36_479_194}
    assert {name: parameters_of(name) for name in counts} == counts
    assert set(counts) <= set(planner.NETWORKS)


def test_the_authors_runs_are_found_again():
    """WRN-28-10 at FID 1.8: 64.2 with 20 million images (published: 63.35 by AutoAttack), 68.3 with 120 (67.31)."""
    for images, pgd, autoattack in ((20e6, 64.2, 63.35), (120e6, 68.3, 67.31)):
        robust = robust_accuracy(36_479_194, images, 1.8)
        assert robust == pytest.approx(pgd, abs=0.05)
        assert robust - 1.5 <= autoattack <= robust - 0.4


def test_the_terms_of_the_law():
    """FID 1.65 makes (1 + FID) / 2.65 one; without bounds on network and data only the floor is left."""
    assert predicted_loss(1e30, 1e30, 1.65) == pytest.approx(0.560373, abs=1e-4)
    assert predicted_loss(1e6, 1e30, 1.65) - 0.560373 == pytest.approx(6.68698 * 1e6**-0.244345, rel=1e-4)
    assert predicted_loss(1e30, 1e6, 1.65) - 0.560373 == pytest.approx(7.55169 * 1e6**-0.228146, rel=1e-4)
    assert robust_accuracy(1e30, 1e30, 1.65) == pytest.approx(125.749 - 74.9583 * 0.560373, abs=0.02)


def test_the_best_size_is_where_the_loss_turns():
    for flops, fid in ((1e18, 3.0), (1e21, 1.65)):
        best = best_parameters(flops, fid)
        at = [predicted_loss(n, flops / (planner.FLOPS * n), fid) for n in (0.99 * best, best, 1.01 * best)]
        assert at[1] < at[0] and at[1] < at[2]


def test_a_budget_is_spent_whole_on_the_most_robust_network():
    flops = budget(4, 400)
    assert flops == 4 * 3600 * 400e12
    ranked = plans(flops, 3.0)
    assert all(planner.FLOPS * plan.parameters * plan.images == pytest.approx(flops) for plan in ranked)
    inside = [plan for plan in ranked if plan.within]
    assert ranked[: len(inside)] == inside and inside[0].robust == max(plan.robust for plan in inside)
    assert inside[0].epochs == inside[0].images / 50_000
    assert plans(1e22, 3.0)[0].parameters > plans(1e18, 3.0)[0].parameters
    assert all(a.robust > b.robust for a, b in zip(plans(flops, 2.0), plans(flops, 2.0)[1:], strict=False) if b.within)


def test_warns_where_the_law_is_stretched():
    small = plans(1e15, 20.0)[0]
    assert not small.within and len(planner.warnings(small, 20.0)) == 2
    assert not planner.warnings(plans(budget(4, 400), 3.0)[0], 3.0)


def describe_error(monkeypatch, capsys, *words):
    monkeypatch.setattr(sys, "argv", ["robustgen", "plan", *words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return end.value.code, capsys.readouterr()


def test_plans_on_the_command_line(monkeypatch, capsys):
    budget_words = ("--device-hours", "4", "--tflops", "400")
    code, said = describe_error(monkeypatch, capsys, *budget_words, "--fid", "3", "--networks", "wrn-28-10,wrn-34-10")
    assert code == 0 and "wrn-28-10, 36.5 million parameters" in said.out
    assert "20.2 million images, 404 CIFAR-equivalent epochs" in said.out and "careful" not in said.out
    code, said = describe_error(monkeypatch, capsys, *budget_words, "--fid", "30")
    assert code == 0 and "careful     FID 30 is outside the range 1.4 to 10" in said.out
    for words, message in (
        (("--fid", "3", "--networks", "resnet-18"), "covers wide ResNets only"),
        (("--fid", "-1"), "expected a budget above 0 and an FID of at least 0"),
    ):
        code, said = describe_error(monkeypatch, capsys, *budget_words, *words)
        assert code == 2 and message in said.err and len(said.err.strip().splitlines()) == 1
