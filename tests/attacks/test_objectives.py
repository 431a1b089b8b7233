import pytest
import torch

from robustgen.objectives import (
    classes_aimed_at,
    cross_entropy,
    dlr,
    hard_labels,
    kl_divergence,
    margin,
    targeted_dlr,
    targeted_margin,
)

LOGITS = torch.tensor([[3.0, 1.0, 0.0, -2.0], [0.0, 5.0, 2.0, 4.0]])
LABELS = torch.tensor([0, 2])


def test_values_worked_out_by_hand():
    torch.testing.assert_close(margin(LOGITS, LABELS), torch.tensor([-2.0, 3.0]))
    torch.testing.assert_close(dlr(LOGITS, LABELS), torch.tensor([-2.0 / 3.0, 3.0 / 3.0]))
    pairs = torch.tensor([[0, 3], [2, 0]])
    torch.testing.assert_close(targeted_margin(LOGITS, pairs), torch.tensor([-5.0, -2.0]))
    torch.testing.assert_close(targeted_dlr(LOGITS, pairs), torch.tensor([-5.0 / 4.0, -2.0 / 4.0]))
    uniform = torch.full((2, 4), 0.25)
    torch.testing.assert_close(cross_entropy(torch.zeros(2, 4), LABELS), torch.full((2,), 4.0).log())
    torch.testing.assert_close(kl_divergence(torch.zeros(2, 4), uniform), torch.zeros(2))


def test_margin_and_dlr_are_positive_exactly_when_misclassified():
    logits = torch.randn(500, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(500) % 5
    wrong = logits.argmax(1) != labels
    assert torch.equal(margin(logits, labels) > 0, wrong)
    assert torch.equal(dlr(logits, labels) > 0, wrong)


def test_dlr_ignores_shift_and_scale():
    logits = torch.randn(50, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels = torch.arange(50) % 5
    torch.testing.assert_close(dlr(7 * logits - 3, labels), dlr(logits, labels))
    pairs = torch.stack([labels, (labels + 1) % 5], 1)
    torch.testing.assert_close(targeted_dlr(7 * logits - 3, pairs), targeted_dlr(logits, pairs))


def test_kl_and_cross_entropy_pull_alike():
    logits = torch.randn(8, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()
    targets = torch.rand(8, 5, generator=torch.Generator().manual_seed(1)).softmax(1)
    gradients = [torch.autograd.grad(f(logits, targets).sum(), logits)[0] for f in (kl_divergence, cross_entropy)]
    torch.testing.assert_close(*gradients)


def test_labels_and_aims():
    assert torch.equal(hard_labels(LABELS), LABELS)
    assert torch.equal(hard_labels(torch.tensor([[2, 1], [0, 3]])), torch.tensor([2, 0]))
    assert torch.equal(hard_labels(LOGITS.softmax(1)), torch.tensor([0, 1]))
    assert torch.equal(classes_aimed_at(LOGITS, LABELS), torch.tensor([[1, 2, 3], [1, 3, 0]]))


def test_too_few_classes_are_refused():
    with pytest.raises(ValueError, match="at least 3 classes, got 2"):
        dlr(torch.zeros(1, 2), torch.zeros(1, dtype=torch.int64))
    with pytest.raises(ValueError, match="at least 4 classes, got 3"):
        targeted_dlr(torch.zeros(1, 3), torch.tensor([[0, 1]]))
