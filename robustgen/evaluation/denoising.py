"""A denoiser before a classifier, so that a classifier trained without noise can be certified by smoothing."""

from __future__ import annotations

from torch import Tensor, nn

from robustgen.generators.diffusion import Diffusion


class Denoised(nn.Module):
    """Denoised smoothing: one call of a diffusion model's denoiser D, then the classifier.

        f(x) = classifier(clip((D(2x - 1; 2 sigma) + 1) / 2, 0, 1))

    x is an image in [0, 1] that already has noise of standard deviation sigma; in the [-1, 1] of the diffusion
    model that is 2 sigma. No noise is added here, so `certify(Denoised(classifier, diffusion, sigma), ..., sigma)`.

    The denoiser must not be conditioned on the class. So the diffusion model has a single class, or is trained with
    `label_dropout` above 0, which also trains it without labels. The mean over the classes of another model would cost
    K calls, and is not the denoiser of the mixture.

    Raises:
        ValueError: the diffusion model is conditional only.

    Source: Carlini et al. 2022, arXiv:2206.10550; EDM's denoiser takes the noise level, not a timestep.
    """

    def __init__(self, classifier: nn.Module, diffusion: Diffusion, sigma: float):
        super().__init__()
        if not diffusion.knows_unlabelled:
            raise ValueError(
                f"this diffusion model is only conditional on its {diffusion.classes} labels, so it cannot "
                "denoise an image of unknown class; train one with --set generators.edm.label_dropout=0.1"
            )
        self.classifier, self.diffusion, self.sigma = classifier, diffusion, sigma

    def forward(self, images: Tensor) -> Tensor:
        sigma = images.new_full((len(images),), 2 * self.sigma)
        clean = self.diffusion.denoise(images * 2 - 1, sigma, self.diffusion.unlabelled(images))
        return self.classifier(((clean + 1) / 2).clamp(0, 1))
