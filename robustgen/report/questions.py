"""Arms of a recipe by the question that they answer. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustgen.config.losses import FLAT_NAMES, purpose_of
from robustgen.report.tables import changes_of, loss_of, proxies_of

FEW = 8
"""Arms up to this number are shown together."""
OTHER = "Other settings"


def question_of(recipe: dict[str, Any], arm: str) -> str:
    """The question that an arm answers, by its generators and by the settings that it changes."""
    contents = recipe["arms"][arm]
    changed = {name.split(".")[0] for name in changes_of(contents)}
    generated = bool(proxies_of(contents))
    if purpose_of(loss_of(recipe, arm)) != purpose_of(loss_of(recipe)):
        return "Standard training and training under noise"
    if not changed:
        more = contents.get("train_images") is not None
        return "Which generated images" if generated and not more else "How many real images"
    if changed == {"real_share"}:
        return "Which share of real images"
    if changed <= {"augment", "averaging", "ema_decay", "ema_start"}:
        return "Augmentation and weight averaging"
    if changed <= {"loss", "smooth", *FLAT_NAMES}:
        return "Loss and inner attack"
    return OTHER


def by_question(recipe: dict[str, Any], arms: Sequence[str], baseline: str) -> dict[str, list[str]]:
    """Arms by question, each group with the baseline first; one group without a title where there are few arms.

    A question that only one arm answers is one of the other settings.
    """
    if len(arms) <= FEW:
        return {"": list(arms)}
    groups: dict[str, list[str]] = {}
    for arm in arms:
        if arm != baseline:
            groups.setdefault(question_of(recipe, arm), []).append(arm)
    alone = [question for question, group in groups.items() if len(group) == 1 and question != OTHER]
    for question in alone:
        groups.setdefault(OTHER, []).extend(groups.pop(question))
    if OTHER in groups:
        groups[OTHER] = groups.pop(OTHER)  # last
    return {question: [baseline, *group] for question, group in groups.items()}
