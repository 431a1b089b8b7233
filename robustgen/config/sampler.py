"""Settings of how images are sampled from a generator. Plain data: no torch here."""

from __future__ import annotations

from robustgen.config.base import Config, Count, NotNegative, Positive, Precision


class SamplerConfig(Config):
    """How images are sampled from a generator."""

    solver: str | None = None
    """Of diffusion models: see `robustgen list solvers`; ddpm also has ancestral, ancestral-small, ddim and
    ddim-quadratic. Default: heun, and ancestral for ddpm."""
    evaluations: Count | None = None
    """Network evaluations per image of a diffusion model. Default: 35 for heun, 18 for the other solvers; all timesteps
    for ancestral, 50 for ddim; 2 for ect."""
    guidance: NotNegative = 1.0
    """w in guide + w (denoised - guide), for diffusion models; 1 means no guidance."""
    guide: str | None = None
    """The generator to be guided away from, a weaker one of the same classes (autoguidance): a generator of the same
    recipe, or a folder. Default: the network itself without the class label (classifier-free guidance)."""
    temperature: Positive = 1.0
    """Factor of the standard deviation of a vdvae's latents."""
    precision: Precision = "float32"
    """Precision of the networks of generators that are trained by steps: float32, bfloat16 (by autocast), or auto for
    the faster one on the device. Solvers compute in float32."""

    def refuse(self, kind: str, *names: str) -> None:
        """Raise ValueError when one of these settings is not at its default: it would change nothing for `kind`."""
        for name in names:
            if getattr(self, name) != SamplerConfig.model_fields[name].default:
                raise ValueError(f"{name} ({getattr(self, name)}) changes nothing for {kind}; leave it out")
