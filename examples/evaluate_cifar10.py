"""Somebody else's networks under AutoAttack: clean and robust accuracy at linf 2/255 on the first test images.

python examples/evaluate_cifar10.py WEIGHTS_FOLDER CIFAR10_FOLDER [IMAGES] [SUITE]
"""

import sys
from pathlib import Path

import small_networks

from robustgen import ThreatModel, evaluate
from robustgen.datasets.cifar import load
from robustgen.images import to_unit
from robustgen.models.external import with_normalization
from robustgen.storage.weights import load_weights

MEANS = {"cnn_a": (0.4914, 0.4824, 0.4467), "resnet2b": (0.4914, 0.4822, 0.4465), "resnet4b": (0.4914, 0.4822, 0.4465)}
STD = (0.2471, 0.2435, 0.2616)


def main(weights: Path, data: Path, count: int = 1000, suite: str = "autoattack") -> None:
    _, test = load(data)
    images, labels = to_unit(test.pixels()[:count]), test.targets()[:count]
    for name, mean in MEANS.items():
        network = load_weights(getattr(small_networks, name)(), weights / f"cifar10_adv_{name}.pth")
        verdicts = evaluate(
            with_normalization(network, mean, STD).eval(), images, labels, ThreatModel("linf", 2 / 255), suite
        )
        print(f"{name:10}clean {verdicts.clean_accuracy}  robust {verdicts.robust_accuracy}  {list(verdicts.flags)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:4]), *sys.argv[4:5])
