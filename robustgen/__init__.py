"""Train robust image classifiers with the help of generated images.

    images -> generative model -> proxy set -> robust classifier -> verdicts -> report

    threat       threat models: a norm and a radius
    datasets     real images                    generators   generative models
    proxy        sample, pseudo-label, select   training     mixtures, adversarial training, EMA
    attacks      PGD, APGD, MultiTargeted       evaluation   cascades of attacks, per-image verdicts
    analysis     sweeps and landscapes: diagnostics of a robust accuracy
    records      files that stages write        report       one self-contained page
    config       recipes and their settings     pipeline     the stages of a recipe, resumable

Start with `api.py` to use the package, with `contracts.py` to extend it; `robustgen --help` lists the commands.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from robustgen.analysis import find_analysis as find_analysis
    from robustgen.analysis.contracts import Subject as Subject
    from robustgen.api import LoadedGenerator as LoadedGenerator
    from robustgen.api import create_model as create_model
    from robustgen.api import list_models as list_models
    from robustgen.api import load_generator as load_generator
    from robustgen.api import load_model as load_model
    from robustgen.api import run as run
    from robustgen.api import train as train
    from robustgen.attacks import APGD as APGD
    from robustgen.attacks import FAB as FAB
    from robustgen.attacks import PGD as PGD
    from robustgen.attacks import MultiTargeted as MultiTargeted
    from robustgen.attacks import Restarts as Restarts
    from robustgen.attacks import Square as Square
    from robustgen.attacks import Swift as Swift
    from robustgen.config.recipe import Recipe as Recipe
    from robustgen.evaluation.cascade import evaluate as evaluate
    from robustgen.evaluation.certification import certify as certify
    from robustgen.images import ImageSet as ImageSet
    from robustgen.losses import AWP as AWP
    from robustgen.losses import GKL as GKL
    from robustgen.losses import HAT as HAT
    from robustgen.losses import MACER as MACER
    from robustgen.losses import MART as MART
    from robustgen.losses import SCORE as SCORE
    from robustgen.losses import TRADES as TRADES
    from robustgen.losses import Adversarial as Adversarial
    from robustgen.losses import Consistency as Consistency
    from robustgen.losses import GaussianNoise as GaussianNoise
    from robustgen.losses import Plain as Plain
    from robustgen.losses import SmoothAdv as SmoothAdv
    from robustgen.losses import Stability as Stability
    from robustgen.proxy.store import ProxySet as ProxySet
    from robustgen.randomness import Rng as Rng
    from robustgen.randomness import rng_for as rng_for
    from robustgen.records.certificates import Certificates as Certificates
    from robustgen.records.verdicts import Verdicts as Verdicts
    from robustgen.storage.weights import load_weights as load_weights
    from robustgen.threat import ThreatModel as ThreatModel
    from robustgen.training.mixing import Mixture as Mixture

__version__ = "0.1.0"

# Loaded on first use: `import robustgen` and `robustgen --help` must not wait for torch.
_PUBLIC = {
    "LoadedGenerator": "robustgen.api",
    "create_model": "robustgen.api",
    "list_models": "robustgen.api",
    "load_generator": "robustgen.api",
    "load_model": "robustgen.api",
    "run": "robustgen.api",
    "train": "robustgen.api",
    "ThreatModel": "robustgen.threat",
    "Rng": "robustgen.randomness",
    "rng_for": "robustgen.randomness",
    "ImageSet": "robustgen.images",
    "ProxySet": "robustgen.proxy.store",
    "Mixture": "robustgen.training.mixing",
    "APGD": "robustgen.attacks",
    "FAB": "robustgen.attacks",
    "PGD": "robustgen.attacks",
    "MultiTargeted": "robustgen.attacks",
    "Restarts": "robustgen.attacks",
    "Square": "robustgen.attacks",
    "Swift": "robustgen.attacks",
    "AWP": "robustgen.losses",
    "GKL": "robustgen.losses",
    "HAT": "robustgen.losses",
    "MACER": "robustgen.losses",
    "MART": "robustgen.losses",
    "SCORE": "robustgen.losses",
    "TRADES": "robustgen.losses",
    "Adversarial": "robustgen.losses",
    "Consistency": "robustgen.losses",
    "GaussianNoise": "robustgen.losses",
    "Plain": "robustgen.losses",
    "SmoothAdv": "robustgen.losses",
    "Stability": "robustgen.losses",
    "Verdicts": "robustgen.records.verdicts",
    "evaluate": "robustgen.evaluation.cascade",
    "Certificates": "robustgen.records.certificates",
    "certify": "robustgen.evaluation.certification",
    "Recipe": "robustgen.config.recipe",
    "Subject": "robustgen.analysis.contracts",
    "find_analysis": "robustgen.analysis",
    "load_weights": "robustgen.storage.weights",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'robustgen' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
