"""Selection of images of a proxy set for training: the rules of `keep`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from robustgen.config.recipe import SelectionConfig
from robustgen.proxy.ranking import check_class_counts, top_per_class
from robustgen.proxy.store import ProxySet, chunks, class_counts
from robustgen.randomness import rng_for


@dataclass(frozen=True)
class SelectionInput:
    """The input of a selection rule.

    proxies   the set
    settings  of `keep`
    among     (N,) bool: images it may choose; None for all
    """

    proxies: ProxySet
    settings: SelectionConfig
    among: np.ndarray | None

    def best(self, scores: np.ndarray, count: int, among: np.ndarray | None = None) -> np.ndarray:
        """The `count` best of each label."""
        labels, classes = self.proxies.column("label"), len(self.proxies.classes)
        return top_per_class(labels, scores, count, classes, self.among if among is None else among)


def everything(choice: SelectionInput) -> np.ndarray:
    """Every image."""
    return np.ones(len(choice.proxies), dtype=bool) if choice.among is None else choice.among.copy()


def top_confidence(choice: SelectionInput) -> np.ndarray:
    """The `per_class` images of each label in which the labeler is most confident (arXiv:2103.01946, App. D)."""
    return choice.best(choice.proxies.column("confidence"), choice.settings.per_class)


def above_confidence(choice: SelectionInput) -> np.ndarray:
    """Every image whose label has at least this `confidence`; no class may be left empty."""
    kept = choice.proxies.column("confidence") >= np.float32(choice.settings.confidence)
    if choice.among is not None:
        kept &= choice.among
    counts = class_counts(choice.proxies.column("label"), len(choice.proxies.classes), kept)
    if not counts.all():
        raise ValueError(
            f"no image of class {int(counts.argmin())} has a confidence of at least {choice.settings.confidence:g}; "
            "set a lower confidence, or sample more"
        )
    return kept


def balanced_per_class(choice: SelectionInput) -> np.ndarray:
    """The first `per_class` images of each label: only balances the classes.

    According to the author of arXiv:2103.01946 this was used, unlike in its text (google-deepmind/deepmind-research,
    issue 213).
    """
    return choice.best(np.broadcast_to(np.float32(0), len(choice.proxies)), choice.settings.per_class)


def boundary(choice: SelectionInput) -> np.ndarray:
    """The images of each label nearest to the labeler's decision boundary, and a random fraction of the rest.

    Near means a small difference between the two highest probabilities; the fraction is `uniform` of `per_class`. It
    follows the idea of arXiv:2501.10466, which clusters features of a network; here its probabilities are used.
    """
    labels, classes = choice.proxies.column("label"), len(choice.proxies.classes)
    check_class_counts(labels, choice.settings.per_class, classes, choice.among)
    drawn = round(choice.settings.uniform * choice.settings.per_class)
    near = choice.best(-choice.proxies.column("margin"), choice.settings.per_class - drawn)
    rest = ~near if choice.among is None else ~near & choice.among
    return near | choice.best(uniform_scores(choice.proxies, "keep"), drawn, rest)


def discriminator(choice: SelectionInput) -> np.ndarray:
    """The `per_class` images of each label that look most real to robust discriminators (arXiv:2104.09425, Tab. 11)."""
    return choice.best(choice.proxies.column("discriminator"), choice.settings.per_class)


def by_column(choice: SelectionInput) -> np.ndarray:
    """The `per_class` images of each label with the highest value in a `column` of the user."""
    assert choice.settings.column is not None
    values = choice.proxies.column(choice.settings.column)
    if values.dtype.kind not in "fiub":
        raise ValueError(f"column {choice.settings.column!r} holds {values.dtype}, expected numbers")
    return choice.best(values, choice.settings.per_class)


RULES: dict[str, Callable[[SelectionInput], np.ndarray]] = {
    "top-confidence": top_confidence,
    "above-confidence": above_confidence,
    "balanced": balanced_per_class,
    "boundary": boundary,
    "discriminator": discriminator,
    "by-column": by_column,
    "all": everything,
}


def uniform_scores(proxies: ProxySet, *place: object) -> np.ndarray:
    """(N,) float32: a uniform random number for each image, from the set's seed and its position."""
    stream = rng_for(int(proxies.manifest.get("seed", 0)), *place)
    drawn = np.empty(len(proxies), dtype=np.float32)
    for some in chunks(len(proxies)):
        ids = np.arange(some.start, some.stop)
        drawn[some] = stream.each(ids).uniform((len(ids), 1))[:, 0].numpy()
    return drawn


def keep(proxies: ProxySet, settings: SelectionConfig) -> None:
    """Mark the images that are used in the column `kept`.

    Raises:
        ValueError: a column that the rule requires is missing (says which command writes it), or a class is too small.
    """
    if settings.rule != "all":
        proxies.column("label")
    among = proxies.column("copy") == 0 if settings.without_copies else None
    try:
        kept = RULES[settings.rule](SelectionInput(proxies, settings, among))
    except ValueError as error:
        message = str(error)
        raise ValueError(message if str(proxies.folder) in message else f"{proxies.folder}: {message}") from None
    proxies.add_columns({"what": "used for training", **settings.to_json()}, kept=kept)
