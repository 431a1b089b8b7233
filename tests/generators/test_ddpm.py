"""DDPM: the chain on paper, exact denoisers, and diffusers' network, schedulers and files beside ours."""

import json
import math
import shutil
from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch

from robustgen.config.generators import DDPMConfig, VDVAEConfig
from robustgen.config.recipe import Arm, SamplingConfig
from robustgen.config.sampler import SamplerConfig
from robustgen.evaluation.denoising import Denoised
from robustgen.generators import DDPM, DDPMUNet, build_generator, read_generator, save_diffusers
from robustgen.generators.ddpm_steps import REVERSE_PROCESSES, alphas_bar
from robustgen.images import DatasetInfo
from robustgen.modes import channels_last
from robustgen.pipeline.graph import check_recipe
from robustgen.proxy.store import ProxySet
from robustgen.randomness import rng_for
from robustgen.recipes.digits import DIGITS
from robustgen.stages.sample import Sample
from robustgen.storage.files import read_json

BARS = alphas_bar(1000, "linear")
INFO = DatasetInfo("x", ("a", "b", "c"), (1, 8, 8), (0.5,), (0.2,))
SMALL = DDPMConfig(channels=8, multipliers=(1, 2), blocks=1, attention=(4,), total_images=8, batch_size=8)


def small(seed=0, info=INFO, **changes):
    """A network that ends in more than almost nothing, so that its layers are seen."""
    model = build_generator(SMALL.model_copy(update=changes), info, rng_for(seed))
    with rng_for(seed, "noise").seeding_torch(), torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


@pytest.mark.parametrize("betas", ["linear", "cosine"])
@pytest.mark.parametrize("timesteps", [4, 100, 1000])
def test_less_of_the_image_is_left_at_each_time(betas, timesteps):
    bars = alphas_bar(timesteps, betas)
    assert bars.dtype == np.float64 and len(bars) == timesteps
    assert (np.diff(bars) < 0).all() and bars[0] < 1 and bars[-1] > 0


def test_the_linear_schedule_is_the_published_one():
    assert BARS[-1] == pytest.approx(4.0358e-5, rel=1e-4)
    assert 1 - BARS[0] == pytest.approx(1e-4) and 1 - BARS[-1] / BARS[-2] == pytest.approx(0.02)


def test_the_cosine_schedule_is_a_cosine_until_its_cap():
    def wanted(t):
        return math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2

    bars = alphas_bar(1000, "cosine")
    for t in (0, 100, 500, 900):
        assert bars[t] == pytest.approx(wanted(t + 1) / wanted(0), rel=1e-9)
    assert 1 - bars[-1] / bars[-2] == pytest.approx(0.999)


def test_an_ancestral_step_draws_from_the_posterior():
    """q(x'|x, D) is q(x|x') q(x'|D), normalized: precisions add, means are weighed by them."""
    for then, now in [*pairwise(BARS), (BARS[10], BARS[500])]:
        alpha = now / then
        from_x, from_d = alpha / (1 - alpha), 1 / (1 - then)
        step = REVERSE_PROCESSES["ancestral-small"].weights(now, then)
        assert step.deviation**2 == pytest.approx(1 / (from_x + from_d), rel=1e-6)
        assert step.noisy == pytest.approx(from_x / math.sqrt(alpha) / (from_x + from_d), rel=1e-6)
        assert step.clean == pytest.approx(from_d * math.sqrt(then) / (from_x + from_d), rel=1e-6)


def test_fixedlarge_has_the_same_mean_and_the_variance_beta():
    for then, now in pairwise(BARS):
        large, small = (REVERSE_PROCESSES[name].weights(now, then) for name in ("ancestral", "ancestral-small"))
        assert (large.clean, large.noisy) == (small.clean, small.noisy)
        assert large.deviation**2 == pytest.approx(1 - now / then)


@pytest.mark.parametrize("name", REVERSE_PROCESSES)
def test_a_chain_ends_on_the_denoised_image(name):
    step = REVERSE_PROCESSES[name].weights(BARS[0], 1.0)
    assert (step.clean, step.noisy, step.deviation) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize("name", REVERSE_PROCESSES)
def test_times_fall_from_the_last_to_the_first(name):
    for count in (*range(2, 120), 333, 999, 1000):
        times = REVERSE_PROCESSES[name].times(1000, count)
        assert len(times) == count and times[0] == 999 and times[-1] == 0
        assert all(before > after for before, after in pairwise(times))
    assert REVERSE_PROCESSES[name].times(1000, 1) == [999]


def test_quadratic_times_are_denser_where_there_is_little_noise():
    assert REVERSE_PROCESSES["ddim"].times(1000, 4) == [999, 666, 333, 0]
    assert REVERSE_PROCESSES["ddim-quadratic"].times(1000, 4) == [999, 444, 111, 0]


class OfGaussian(torch.nn.Module):
    """The exact noise predictor for pixels of N(0.2, 0.15^2), in the [-1, 1] of the model."""

    mean, scale = 0.2, 0.15

    def forward(self, x, time, labels):
        bar = torch.from_numpy(BARS)[time.long()].view(-1, 1, 1, 1)
        variance = bar * self.scale**2 + 1 - bar
        return ((x - bar.sqrt() * self.mean) * (1 - bar).sqrt() / variance).float()


@pytest.mark.parametrize(
    ("draw", "tolerance"),
    [
        (SamplerConfig(), 0.02),
        (SamplerConfig(solver="ancestral-small"), 0.03),
        (SamplerConfig(solver="ancestral", evaluations=200), 0.1),
        (SamplerConfig(solver="ddim", evaluations=1000), 0.02),
        (SamplerConfig(solver="ddim-quadratic", evaluations=250), 0.02),
    ],
    ids=str,
)
def test_an_exact_denoiser_gives_the_moments_of_the_data(draw, tolerance):
    model = DDPM(OfGaussian(), (1, 8, 8), 2, conditional=False)
    model.configure_sampler(draw)
    made = model.sample(torch.zeros(320, dtype=torch.int64), rng_for(0).each(range(320))) * 2 - 1
    assert float(made.mean()) == pytest.approx(0.2, abs=0.005)
    assert float(made.std()) == pytest.approx(0.15, rel=tolerance)


def test_a_solver_follows_the_same_flow_as_ddim():
    """Both end where the probability flow of a Gaussian ends: mean + scale times the noise, nearly."""
    model = DDPM(Exact(), (1, 4, 4), 2, conditional=False)
    labels = torch.zeros(16, dtype=torch.int64)
    noise = rng_for(0).each(range(16)).normal((16, 1, 4, 4))

    def error(**draw):
        model.configure_sampler(SamplerConfig(**draw))
        made = model.sample(labels, rng_for(0).each(range(16))) * 2 - 1
        return float((made - 0.2 - 0.15 * noise).abs().max())

    assert error(solver="heun", evaluations=199) < 1e-3
    assert error(solver="ddim", evaluations=1000) < 5e-3
    # DDIM is of first order: half the evaluations, twice the error.
    assert error(solver="ddim", evaluations=250) == pytest.approx(2 * error(solver="ddim", evaluations=500), rel=0.15)


class Exact(OfGaussian):
    """The same between the times, where ln sigma is linear."""

    def forward(self, x, time, labels):
        logs = np.log(np.sqrt((1 - BARS) / BARS))
        sigma = torch.from_numpy(np.exp(np.interp(time.numpy(), np.arange(1000), logs))).view(-1, 1, 1, 1)
        bar = 1 / (1 + sigma**2)
        variance = bar * self.scale**2 + 1 - bar
        return ((x - bar.sqrt() * self.mean) * (1 - bar).sqrt() / variance).float()


def test_denoises_at_every_noise_level_for_certificates():
    """The posterior mean of N(0.2, 0.15^2) under noise s, also between the levels of the chain."""
    model = DDPM(Exact(), (1, 4, 4), 3, conditional=False)
    x = torch.randn(5, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    sigma = torch.tensor([0.0123, 0.25, 0.5, 3.0, 60.0])
    wide = sigma.view(-1, 1, 1, 1) ** 2
    wanted = (0.15**2 * x + wide * 0.2) / (0.15**2 + wide)
    torch.testing.assert_close(model.denoise(x, sigma, model.unlabelled(x)), wanted, atol=1e-3, rtol=0)
    smoothed = Denoised(torch.nn.Flatten(), model, 0.25)
    torch.testing.assert_close(smoothed((x[2:3] + 1) / 2), (wanted[2:3].flatten(1) + 1) / 2, atol=1e-3, rtol=0)


def test_solvers_start_from_noise_that_hides_everything():
    for betas in ("linear", "cosine"):
        model = small(betas=betas)
        model.configure_sampler(SamplerConfig(solver="ipndm", evaluations=10))
        assert model.sampler.sigma_max == 80 and 0.006 < model.sampler.sigma_min < 0.011


def test_noise_levels_find_their_times():
    model = DDPM(torch.nn.Identity(), (1, 1, 1), 2, conditional=False)
    assert torch.equal(model.time(model.sigmas), torch.arange(1000.0))
    between = model.time((model.sigmas[500] * model.sigmas[501]).sqrt()[None])
    assert float(between) == 500.5
    assert model.time(torch.tensor([1e-5, 1e5])).tolist() == [0.0, 999.0]


def test_the_loss_of_no_answer_is_one_and_of_the_noise_itself_nothing():
    images = torch.full((400, 1, 8, 8), 0.7)
    labels = torch.zeros(400, dtype=torch.int64)

    class Silent(torch.nn.Module):
        def forward(self, x, time, labels):
            return torch.zeros_like(x)

    class Knowing(torch.nn.Module):
        def forward(self, x, time, labels):
            bar = torch.from_numpy(BARS)[time.long()].view(-1, 1, 1, 1)
            return (x - bar.sqrt() * 0.4) / (1 - bar).sqrt()

    silent, knowing = (DDPM(network, (1, 8, 8), 2, conditional=False) for network in (Silent(), Knowing()))
    assert float(silent.loss(images, labels, rng_for(0))) == pytest.approx(1, abs=0.02)
    assert float(knowing.loss(images, labels, rng_for(0))) == pytest.approx(0, abs=1e-6)


def test_without_classes_labels_are_ignored_and_the_manifest_says_so():
    model = small()
    told = model.configure_sampler(SamplerConfig(solver="ddim", evaluations=4))
    assert told == {"solver": "ddim", "evaluations": 4, "conditional": False}
    one, other = (model.sample(torch.full((5,), k), rng_for(0).each(range(5))) for k in (0, 2))
    assert torch.equal(one, other) and model.knows_unlabelled
    conditional = small(conditional=True)
    assert not conditional.knows_unlabelled and small(conditional=True, label_dropout=0.1).knows_unlabelled
    conditional.configure_sampler(SamplerConfig(solver="ddim", evaluations=4))
    one, other = (conditional.sample(torch.full((5,), k), rng_for(0).each(range(5))) for k in (0, 2))
    assert not torch.equal(one, other)


def test_the_default_way_is_every_step_of_the_chain():
    model = small(timesteps=7)
    assert model.configure_sampler(SamplerConfig()) == {"solver": "ancestral", "evaluations": 7, "conditional": False}
    calls = []
    model.network.register_forward_hook(lambda network, inputs, output: calls.append(float(inputs[1][0])))
    model.sample(torch.zeros(3, dtype=torch.int64), rng_for(0).each(range(3)))
    assert calls == [6.0, 5.0, 4.0, 3.0, 2.0, 1.0, 0.0]


def test_impossible_draws_are_refused():
    model = small(timesteps=50)
    with pytest.raises(ValueError, match="known for ddpm: ancestral, ancestral-small, ddim, ddim-quadratic, euler"):
        model.configure_sampler(SamplerConfig(solver="rk4"))
    with pytest.raises(ValueError, match="ddim makes 50 evaluations at most, not 51"):
        model.configure_sampler(SamplerConfig(solver="ddim", evaluations=51))
    with pytest.raises(ValueError, match="temperature"):
        model.configure_sampler(SamplerConfig(temperature=0.5))
    with pytest.raises(ValueError, match="changes nothing for an unconditional ddpm"):
        model.configure_sampler(SamplerConfig(guidance=2.0))
    with pytest.raises(ValueError, match="guidance without a guide needs"):
        small(conditional=True).configure_sampler(SamplerConfig(guidance=2.0))


@pytest.mark.parametrize(
    ("generator", "draw", "message"),
    [
        (SMALL, {"solver": "ancestral"}, None),
        (SMALL, {"solver": "ipndm", "evaluations": 10}, None),
        (SMALL, {"solver": "ddim", "evaluations": 1001}, "ddim makes 1000 evaluations at most"),
        (VDVAEConfig(), {"temperature": 0.8}, None),
        (VDVAEConfig(), {"guidance": 2.0}, "guidance .* changes nothing for vdvae"),
        (DIGITS.generators["edm"], {"solver": "ancestral"}, "unknown solver 'ancestral'"),
    ],
    ids=str,
)
def test_a_recipes_draws_are_asked_before_the_work(generator, draw, message):
    recipe = DIGITS.model_copy(
        update={
            "generators": {"g": generator},
            "sampling": SamplingConfig(special={"g": SamplerConfig(**draw)}),
            "arms": {"g": Arm(proxy="g")},
        }
    )
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        check_recipe(recipe)


def test_guidance_leads_away_from_images_of_no_class():
    model = small(conditional=True, label_dropout=0.1)
    x, sigma, labels = torch.randn(4, 1, 8, 8), torch.full((4,), 2.0), torch.arange(4) % 3
    told, untold = model.denoise(x, sigma, labels), model.denoise(x, sigma, model.unlabelled(x))
    model.configure_sampler(SamplerConfig(guidance=3.0))
    torch.testing.assert_close(model._guided(x, sigma, labels), untold + 3 * (told - untold))


def test_images_that_cannot_be_halved_are_refused():
    with pytest.raises(ValueError, match="cannot be halved 3 times"):
        DDPMUNet((1, 12, 12))


def test_the_default_network_has_the_published_size():
    with torch.device("meta"):
        network = DDPMUNet((3, 32, 32))
    assert sum(parameter.numel() for parameter in network.parameters()) == 35_746_307


CIFAR = {
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "attention_head_dim": None, "norm_eps": 1e-6, "downsample_padding": 0, "flip_sin_to_cos": False, "freq_shift": 1,
    "sample_size": 32, "block_out_channels": (128, 256, 256, 256),
}  # fmt: skip
"""google/ddpm-cifar10-32."""


@pytest.fixture(scope="module")
def diffusers():
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return pytest.importorskip("diffusers")


def theirs(diffusers, seed=0, **changes):
    config = {**CIFAR, "block_out_channels": (16, 32, 32, 32), "norm_num_groups": 8, "dropout": 0.1, **changes}
    with rng_for(seed, "theirs").seeding_torch():
        network = diffusers.UNet2DModel(**config)
        for parameter in network.parameters():
            parameter.data += 0.05 * torch.randn_like(parameter)
    return network.eval()


def kept(diffusers, network, folder, flat=False, **changes):
    """A folder as diffusers writes it."""
    network.save_pretrained(folder if flat else folder / "unet")
    scheduler = diffusers.DDPMScheduler(**{"variance_type": "fixed_large", **changes})
    scheduler.save_pretrained(folder if flat else folder / "scheduler")
    return folder


def test_the_default_network_has_the_layers_of_the_public_weights(diffusers):
    with torch.device("meta"):
        ours, known = DDPMUNet((3, 32, 32)), diffusers.UNet2DModel(**CIFAR)
        ours_of_10, known_of_10 = DDPMUNet((3, 32, 32), 10), diffusers.UNet2DModel(**CIFAR, num_class_embeds=10)
    for one, other in ((ours, known), (ours_of_10, known_of_10)):
        assert {name: tensor.shape for name, tensor in one.state_dict().items()} == {
            name: tensor.shape for name, tensor in other.state_dict().items()
        }


@pytest.mark.parametrize("classes", [None, 10])
@pytest.mark.parametrize("flat", [False, True])
def test_their_network_answers_alike_in_ours(diffusers, tmp_path, classes, flat):
    known = theirs(diffusers, num_class_embeds=classes)
    model, about = read_generator(kept(diffusers, known, tmp_path, flat))
    assert about["classes"] == [str(k) for k in range(classes or 1)] and about["shape"] == [3, 32, 32]
    assert model.conditional == bool(classes) and model.classes == (classes or 1)
    x = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    times, labels = torch.tensor([0, 500, 999]), torch.tensor([0, 7, 9]) if classes else None
    with torch.no_grad():
        wanted = known(x, times, labels).sample
        found = model.network(x, times.float(), torch.zeros(3, dtype=torch.int64) if labels is None else labels)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("conditional", [False, True])
def test_ours_answers_alike_in_theirs(diffusers, tmp_path, conditional):
    model = small(conditional=conditional, info=DatasetInfo("x", ("a", "b"), (1, 16, 16), (0.5,), (0.2,)))
    save_diffusers(tmp_path, model)
    pipeline = diffusers.DDPMPipeline.from_pretrained(tmp_path)
    x, times, labels = torch.randn(2, 1, 16, 16), torch.tensor([3, 800]), torch.tensor([1, 0])
    with torch.no_grad():
        wanted = pipeline.unet(x, times, labels if conditional else None).sample
        torch.testing.assert_close(model.network(x, times.float(), labels), wanted, atol=1e-5, rtol=1e-4)
    np.testing.assert_allclose(pipeline.scheduler.alphas_cumprod, model.alphas_bar, rtol=2e-4)
    again, _ = read_generator(tmp_path)
    draw = SamplerConfig(solver="ddim", evaluations=3)
    for one in (model, again):
        one.configure_sampler(draw)
    made = model.sample(labels, rng_for(0).each(range(2)))
    torch.testing.assert_close(again.sample(labels, rng_for(0).each(range(2))), made, atol=1e-4, rtol=0)


def test_files_with_yesterdays_names_are_read(diffusers, tmp_path):
    """google/ddpm-cifar10-32 is older than diffusers' present names of attention, and a pickle of weights."""
    known = theirs(diffusers)
    kept(diffusers, known, tmp_path, flat=True)
    (tmp_path / "diffusion_pytorch_model.safetensors").unlink()
    old = {".to_q.": ".query.", ".to_k.": ".key.", ".to_v.": ".value.", ".to_out.0.": ".proj_attn."}
    state = {}
    for name, tensor in known.state_dict().items():
        for new, before in old.items():
            name = name.replace(new, before)
        state[name] = tensor
    assert any("proj_attn" in name for name in state)
    with pytest.raises(ValueError, match="holds no diffusion_pytorch_model"):
        read_generator(tmp_path)
    torch.save(state, tmp_path / "diffusion_pytorch_model.bin")
    model, _ = read_generator(tmp_path)
    found = model.network.state_dict()
    assert all(torch.equal(found[name], tensor) for name, tensor in known.state_dict().items())
    (tmp_path / "diffusion_pytorch_model.bin").write_bytes(b"no weights")
    with pytest.raises(ValueError, match="is damaged, or is not a file of weights only"):
        read_generator(tmp_path)


def test_folders_of_other_models_are_refused_with_the_reason(diffusers, tmp_path):
    kept(diffusers, theirs(diffusers), tmp_path / "good")

    def changed(file, **changes):
        shutil.rmtree(tmp_path / "bad", ignore_errors=True)
        shutil.copytree(tmp_path / "good", tmp_path / "bad")
        path = tmp_path / "bad" / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
        return tmp_path / "bad"

    for file, changes, message in (
        ("unet/config.json", {"attention_head_dim": 8}, "attention_head_dim is 8; only None can be read"),
        ("unet/config.json", {"downsample_padding": 1}, "downsample_padding is 1; only 0"),
        ("unet/config.json", {"block_out_channels": [16, 24, 32, 32]}, "only multiples of the first"),
        ("unet/config.json", {"up_block_types": ["UpBlock2D"] * 4}, "up_block_types is .*AttnUpBlock2D"),
        ("unet/config.json", {"num_class_embeds": 4}, "missing: class_embedding.weight"),
        ("scheduler/scheduler_config.json", {"prediction_type": "v_prediction"}, "only 'epsilon'"),
        ("scheduler/scheduler_config.json", {"beta_schedule": "sigmoid"}, "known: linear, squaredcos_cap_v2"),
    ):
        with pytest.raises(ValueError, match=message):
            read_generator(changed(file, **changes))
    (tmp_path / "good" / "scheduler" / "scheduler_config.json").unlink()
    with pytest.raises(ValueError, match="holds no scheduler_config"):
        read_generator(tmp_path / "good")


@pytest.mark.parametrize(("theirs_named", "ours_named"), [("linear", "linear"), ("squaredcos_cap_v2", "cosine")])
def test_their_schedule_is_ours(diffusers, theirs_named, ours_named):
    found = diffusers.DDPMScheduler(beta_schedule=theirs_named).alphas_cumprod
    np.testing.assert_allclose(found, alphas_bar(1000, ours_named), rtol=5e-4, atol=1e-9)


@pytest.mark.parametrize("name", REVERSE_PROCESSES)
@pytest.mark.parametrize("count", [10, 1000])
def test_their_steps_are_ours(diffusers, name, count):
    """From the same state and the same predicted noise to the same state, clipping included."""
    chain = REVERSE_PROCESSES[name]
    x, predicted = (torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(k)) for k in (0, 1))
    noise = torch.randn(2, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    if chain.eta:
        scheduler = diffusers.DDPMScheduler(variance_type="fixed_large" if chain.fixed_large else "fixed_small")
        more = {"generator": torch.Generator().manual_seed(2)}
    else:
        scheduler = diffusers.DDIMScheduler()
        more = {"eta": chain.eta, "use_clipped_model_output": True}
    scheduler.alphas_cumprod = torch.from_numpy(BARS)  # theirs is rounded to float32: seen in the fourth digit
    scheduler.alphas = torch.from_numpy(BARS / np.append(1, BARS[:-1]))
    scheduler.betas = 1 - scheduler.alphas
    scheduler.set_timesteps(count)
    for t in (0, 1000 // count, 300, 900):
        before = t - 1000 // count
        now, then = BARS[t], BARS[before] if before >= 0 else 1.0
        clean = ((x - math.sqrt(1 - now) * predicted) / math.sqrt(now)).clamp(-1, 1)
        step = chain.weights(now, then)
        found = step.clean * clean + step.noisy * x + step.deviation * noise
        if "generator" in more:
            more["generator"].manual_seed(2)
        torch.testing.assert_close(
            found, scheduler.step(predicted, t, x, **more).prev_sample.float(), atol=1e-5, rtol=1e-5
        )


class SameNoise:
    """A stream that gives the noise that it was given."""

    def __init__(self, noise):
        self.noise = noise

    def normal(self, shape):
        assert shape == self.noise.shape
        return self.noise


def test_their_pipeline_draws_our_images(diffusers, tmp_path):
    known = theirs(diffusers)
    kept(diffusers, known, tmp_path, num_train_timesteps=20)
    model, _ = read_generator(tmp_path)
    model.configure_sampler(SamplerConfig(solver="ddim", evaluations=20))
    pipeline = diffusers.DDIMPipeline(known, diffusers.DDIMScheduler(num_train_timesteps=20))
    pipeline.set_progress_bar_config(disable=True)
    wanted = pipeline(
        batch_size=3, generator=torch.Generator().manual_seed(0), num_inference_steps=20,
        use_clipped_model_output=True, output_type="np",
    ).images  # fmt: skip
    noise = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = model.sample(torch.zeros(3, dtype=torch.int64), SameNoise(noise)).permute(0, 2, 3, 1)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(found, wanted, atol=2e-4)


def test_a_folder_of_theirs_is_sampled_like_ours(tmp_path):
    save_diffusers(tmp_path / "g", channels_last(small(timesteps=10)))
    Sample(tmp_path / "g", SamplerConfig(), tmp_path / "p", 0, 4)("cpu", lambda *_: None)
    proxies = ProxySet(tmp_path / "p")
    assert len(proxies) == 4 and proxies.shape == (1, 8, 8)
    about = read_json(tmp_path / "p" / "manifest.json")["generator"]
    assert about["kind"] == "ddpm" and about["solver"] == "ancestral" and about["evaluations"] == 10
    assert len(about["weights"]) == 64 and about["conditional"] is False
