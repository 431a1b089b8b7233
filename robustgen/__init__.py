"""Train image classifiers that stay right under attack, with the help of generated images.

    images -> generative model -> proxy set -> robust classifier -> verdicts -> report

    threat       what an adversary may do: a norm and a radius
    datasets     real images                    generators   models that learn to make more
    proxy        sampled, labelled, kept        training     mixtures, the robust loop, averaging
    attacks      PGD, APGD, MultiTargeted       evaluation   cascades of attacks, per-image verdicts
    analysis     sweeps and landscapes: whether to believe a robust accuracy
    records      what stages leave on disk      report       one self-contained page
    recipe       everything a run is told       pipeline     the stages of a recipe, resumable

Start with `contracts.py`; `robustgen --help` lists the commands.
"""

from importlib import import_module

__version__ = "0.1.0"

# Loaded on first use: `import robustgen` and `robustgen --help` must not wait for torch.
_PUBLIC = {
    "ThreatModel": "robustgen.threat",
    "Rng": "robustgen.randomness",
    "rng_for": "robustgen.randomness",
    "ImageSet": "robustgen.images",
    "ProxySet": "robustgen.proxy.store",
    "Mixture": "robustgen.training.mixing",
    "Verdicts": "robustgen.records.verdicts",
    "evaluate": "robustgen.evaluation.cascade",
    "Certificates": "robustgen.records.certificates",
    "certify": "robustgen.evaluation.certification",
    "Recipe": "robustgen.config.recipe",
    "Subject": "robustgen.analysis.contracts",
    "find_analysis": "robustgen.analysis",
}

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module 'robustgen' has no attribute {name!r}")
    return getattr(import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
