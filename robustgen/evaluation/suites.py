"""Named protocols: attacks, their order, and their numbers of runs. A cheaper variant has its own name."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from robustgen.attacks import APGD, FAB, MultiTargeted, Restarts, Square, Swift, evaluation_attack
from robustgen.contracts import Attack
from robustgen.objectives import cross_entropy, dlr, margin, targeted_dlr, targeted_margin

NEEDED: dict[Any, tuple[int, Any]] = {dlr: (3, margin), targeted_dlr: (4, targeted_margin)}
"""Number of classes that an objective requires, and its replacement where there are fewer."""


@dataclass(frozen=True)
class Suite:
    """The attacks of a protocol for classifiers of some number of classes.

    notes  deviations from the protocol, one sentence each
    """

    attacks: dict[str, Attack]
    notes: tuple[str, ...] = ()


def autoattack(norm: str, classes: int) -> dict[str, Attack]:
    """AutoAttack, standard version: APGD-CE, targeted APGD, targeted FAB, Square.

    Source: Croce & Hein 2020, arXiv:2003.01690; l1: arXiv:2103.01208, with 5 restarts of APGD-CE and 5 targets.
    """
    sparse = norm == "l1"
    ascent = APGD(100, cross_entropy)
    return {
        "apgd-ce": Restarts(ascent, 5) if sparse else ascent,
        "apgd-t": _each_target(APGD(100, targeted_dlr), 5 if sparse else 9, classes),
        "fab-t": _each_target(FAB(100), 9, classes),
        "square": Square(5000),
    }


def autoattack_plus(norm: str, classes: int) -> dict[str, Attack]:
    """AutoAttack, version plus: restarts, and the untargeted attacks too."""
    return {
        "apgd-ce": Restarts(APGD(100, cross_entropy), 5),
        "apgd-dlr": Restarts(APGD(100, dlr), 5),
        "fab": Restarts(FAB(100, from_noise=True), 5, first=FAB(100)),
        "square": Square(5000),
        "apgd-t": _each_target(APGD(100, targeted_dlr), 9, classes),
        "fab-t": _each_target(FAB(100), 9, classes),
    }


def autoattack_rand(norm: str, classes: int) -> dict[str, Attack]:
    """AutoAttack, version rand, for stochastic models: gradients averaged over 20 passes (EOT)."""
    return {"apgd-ce": APGD(100, cross_entropy, eot=20), "apgd-dlr": APGD(100, dlr, eot=20)}


def aa_mt(norm: str, classes: int) -> dict[str, Attack]:
    """AA+MT of the papers (arXiv:2103.01946, App. A): Auto-PGD on two objectives, then ten runs of MultiTargeted."""
    return {
        "apgd-ce": Restarts(APGD(100, cross_entropy), 5),
        "apgd-dlr": Restarts(APGD(100, dlr), 5),
        "multitargeted": MultiTargeted(evaluation_attack(200, targeted_margin), restarts=10),
    }


def aa_mt_each(norm: str, classes: int) -> dict[str, Attack]:
    """AA+MT with ten MultiTargeted runs for each of nine classes: the other reading of the papers."""
    return {
        **aa_mt(norm, classes),
        "multitargeted": MultiTargeted(evaluation_attack(200, targeted_margin), restarts=10, each=True),
    }


def swift(norm: str, classes: int) -> dict[str, Attack]:
    """Our own, for research: close to autoattack at 2 to 4 % of its passes (docs/evaluation.md)."""
    return {"swift": Swift()}


def pgd_40(norm: str, classes: int) -> dict[str, Attack]:
    """PGD with Adam on the margin, 40 steps, with the step-size decay of the papers."""
    return {"pgd-40": evaluation_attack(40, margin)}


def pgd_40_code(norm: str, classes: int) -> dict[str, Attack]:
    """The same with the step size of the official code."""
    return {"pgd-40": evaluation_attack(40, margin, decay="code")}


def quick(norm: str, classes: int) -> dict[str, Attack]:
    """The attacks of aa+mt with a few steps, for tests and a first look."""
    return {
        "apgd-ce": APGD(10, cross_entropy),
        "apgd-dlr": APGD(10, dlr),
        "multitargeted": MultiTargeted(evaluation_attack(10, targeted_margin), restarts=3),
    }


SUITES: dict[str, Callable[[str, int], dict[str, Attack]]] = {
    "autoattack": autoattack,
    "autoattack-plus": autoattack_plus,
    "autoattack-rand": autoattack_rand,
    "aa+mt": aa_mt,
    "aa+mt-each": aa_mt_each,
    "swift": swift,
    "pgd-40": pgd_40,
    "pgd-40-code": pgd_40_code,
    "quick": quick,
}


def find_suite(name: str, norm: str = "linf", classes: int = 10) -> Suite:
    """A protocol for a norm and a number of classes.

    With fewer than 10 classes targeted attacks target all wrong classes. With fewer than 3 (targeted: 4) the DLR
    objective does not exist, and the margin replaces it; the notes say so.

    Raises:
        ValueError: unknown name; lists the known ones.
    """
    if name not in SUITES:
        raise ValueError(f"unknown suite {name!r}; known: {', '.join(SUITES)}")
    attacks = SUITES[name](norm, classes)
    fitted = {title: fit_objective(attack, classes) for title, attack in attacks.items()}
    changed = [title for title in attacks if fitted[title] != attacks[title]]
    notes = []
    if changed:
        notes.append(f"with {classes} classes there is no DLR objective: {', '.join(changed)} climbs the margin")
    return Suite(fitted, tuple(notes))


def fit_objective(attack: Attack, classes: int) -> Attack:
    """The attack with an objective that exists for this number of classes."""
    inner: Any = getattr(attack, "attack", None)
    if inner is not None:
        return dataclasses.replace(cast(Any, attack), attack=fit_objective(inner, classes))
    needed, other = NEEDED.get(getattr(attack, "objective", None), (0, None))
    return dataclasses.replace(cast(Any, attack), objective=other) if classes < needed else attack


def _each_target(attack: Attack, targets: int, classes: int) -> MultiTargeted:
    """One run for each of the most likely wrong classes."""
    count = min(targets, classes - 1)
    return MultiTargeted(attack, restarts=count, targets=count)
