"""Attacks, by the names that suites and the command line use."""

from __future__ import annotations

from robustgen.attacks.apgd import APGD
from robustgen.attacks.fab import FAB
from robustgen.attacks.pgd import PGD, evaluation_attack, official_training_attack
from robustgen.attacks.restarts import MultiTargeted, Restarts
from robustgen.attacks.square import Square
from robustgen.attacks.swift import Swift
from robustgen.contracts import Attack
from robustgen.objectives import cross_entropy, dlr, margin, targeted_dlr, targeted_margin

ATTACKS: dict[str, Attack] = {
    "pgd-10": PGD(10, 0.25, until_fooled=True),
    "pgd-40": evaluation_attack(40, margin),
    "pgd-40-code": evaluation_attack(40, margin, decay="code"),
    "apgd-ce": APGD(100, cross_entropy),
    "apgd-dlr": APGD(100, dlr),
    "apgd-t": MultiTargeted(APGD(100, targeted_dlr), restarts=9),
    "fab": Restarts(FAB(100, from_noise=True), 5, first=FAB(100)),
    "fab-t": MultiTargeted(FAB(100), restarts=9),
    "square": Square(5000),
    "swift": Swift(),
    "multitargeted": MultiTargeted(evaluation_attack(200, targeted_margin), restarts=10),
}

__all__ = [
    "APGD",
    "ATTACKS",
    "FAB",
    "PGD",
    "MultiTargeted",
    "Restarts",
    "Square",
    "Swift",
    "evaluation_attack",
    "official_training_attack",
]  # fmt: skip
