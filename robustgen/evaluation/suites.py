"""Named protocols: which attacks, in which order, with how many runs. A shortcut has another name."""

from __future__ import annotations

from robustgen.attacks import APGD, MultiTargeted, Restarts, evaluation_attack
from robustgen.contracts import Attack
from robustgen.objectives import cross_entropy, dlr, margin, targeted_margin

SUITES: dict[str, dict[str, Attack]] = {
    # The cascade of the papers (arXiv:2103.01946, App. A). Ten MultiTargeted runs in all: the nine likeliest wrong
    # classes, and the likeliest once more.
    "aa+mt": {
        "apgd-ce": Restarts(APGD(100, cross_entropy), 5),
        "apgd-dlr": Restarts(APGD(100, dlr), 5),
        "multitargeted": MultiTargeted(evaluation_attack(200, targeted_margin), restarts=10),
    },
    # The same with ten MultiTargeted runs for each of the nine classes: the other reading of the papers.
    "aa+mt-each": {
        "apgd-ce": Restarts(APGD(100, cross_entropy), 5),
        "apgd-dlr": Restarts(APGD(100, dlr), 5),
        "multitargeted": MultiTargeted(evaluation_attack(200, targeted_margin), restarts=10, each=True),
    },
    "pgd-40": {"pgd-40": evaluation_attack(40, margin)},
    # For tests and a first look: the attacks of aa+mt with a few steps.
    "quick": {
        "apgd-ce": APGD(10, cross_entropy),
        "apgd-dlr": APGD(10, dlr),
        "multitargeted": MultiTargeted(evaluation_attack(10, targeted_margin), restarts=3),
    },
}


def find_suite(name: str) -> dict[str, Attack]:
    """Raises ValueError with the known names."""
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; known: {', '.join(SUITES)}")
    return SUITES[name]
