"""A denoiser before a classifier, so that a classifier trained without noise can be smoothed."""

from __future__ import annotations

from torch import Tensor, nn

from robustgen.generators.diffusion import Diffusion


class Denoised(nn.Module):
    """Denoised smoothing: one call of a diffusion model's denoiser D, then the classifier.

        f(x) = classifier(clip((D(2x - 1; 2 sigma) + 1) / 2, 0, 1))

    x is an image in [0, 1] that already carries noise of standard deviation sigma; in the [-1, 1] of the diffusion
    model that is 2 sigma. Nothing is added here, so `certify(Denoised(classifier, diffusion, sigma), ..., sigma)`.

    The denoiser must not be told the class. So the diffusion model is one of a single class, or trained with
    `label_dropout` above 0, which teaches it images without a label. The mean over the classes of a model without
    would cost K calls, and is not the denoiser of the mixture.

    Raises:
        ValueError: the diffusion model knows only images with a label.

    Source: Carlini et al. 2022, arXiv:2206.10550; with EDM's denoiser no noise level has to be looked up.
    """

    def __init__(self, classifier: nn.Module, diffusion: Diffusion, sigma: float):
        super().__init__()
        if not diffusion.knows_unlabelled:
            raise ValueError(
                f"this diffusion model knows only images with one of its {diffusion.classes} labels, so it cannot "
                "denoise an image of unknown class; fit one with --set generators.edm.label_dropout=0.1"
            )
        self.classifier, self.diffusion, self.sigma = classifier, diffusion, sigma

    def forward(self, images: Tensor) -> Tensor:
        sigma = images.new_full((len(images),), 2 * self.sigma)
        clean = self.diffusion.denoise(images * 2 - 1, sigma, self.diffusion.unlabelled(images))
        return self.classifier(((clean + 1) / 2).clamp(0, 1))
