"""Generators as a user writes them: `test_custom.py` and the contract tests take them by name."""

import numpy as np
import torch
from torch import nn


class Bars(nn.Module):
    """A bright row for the class, as in the tests' images, on noise from each image's own seed."""

    def __init__(self, classes, shape, dark=0.3):
        super().__init__()
        self.shape = shape
        self.rows = nn.Parameter(torch.zeros(classes, *shape))
        with torch.no_grad():
            for k in range(classes):
                self.rows[k, :, 2 + 2 * (k % 3) : 4 + 2 * (k % 3)] = 1 - dark

    def sample(self, labels, seeds):
        noise = [torch.rand(self.shape, generator=torch.Generator().manual_seed(int(seed))) for seed in seeds]
        return self.rows[labels] + 0.3 * torch.stack(noise)


def one_by_one(labels, seed, level=100):
    """uint8, as an array."""
    rng = np.random.default_rng(seed)
    return rng.integers(level, size=(len(labels), 1, 8, 8), dtype=np.uint8) + np.uint8(10 * int(labels[0]))


def by_streams(labels, rng):
    return rng.uniform((len(labels), 1, 8, 8)).double() * 0.5


def global_noise(labels, seed):
    return torch.rand(len(labels), 1, 8, 8)


def of_the_batch(labels, seeds):
    images = torch.stack([torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(int(s))) for s in seeds])
    return (images / images.max() * (labels.float().mean() + 1) / 4).clamp(0, 1)


def channels_behind(labels, seed):
    return torch.zeros(len(labels), 8, 8, 1)


def signed(labels, seed):
    return torch.full((len(labels), 1, 8, 8), -0.9)


def bytes_as_floats(labels, seed):
    return torch.full((len(labels), 1, 8, 8), 200.0)


def not_numbers(labels, seed):
    return torch.full((len(labels), 1, 8, 8), torch.nan)


def integers(labels, seed):
    return torch.zeros(len(labels), 1, 8, 8, dtype=torch.int64)


def text(labels, seed):
    return "images"


def broken(labels, seed):
    raise RuntimeError("no\nweights")


def nothing(labels):
    return labels


def maker(classes, shape, fail=False):
    if fail:
        raise KeyError("weights.pt")
    return nn.Linear(2, 2)
