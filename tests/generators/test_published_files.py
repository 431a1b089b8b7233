"""Published files: opened without running what is in them, and equal to their authors' own networks.

`published-generators.json` has small networks of NVlabs/edm (commit 008a4e5), NVlabs/stylegan2-ada-pytorch,
ajbrock/BigGAN-PyTorch and openai/vdvae: names and shapes of their tensors, and what the authors' code returned for the
numbers that `drawn` makes. The files are written here; stand-ins take the place of NVIDIA's classes.
"""

import io
import json
import pickle
import subprocess
import sys
import types

import numpy as np
import pytest
import torch
from torch import nn

from conftest import REPOSITORY
from robustgen.cli.inventory import known
from robustgen.config.generators import (
    BigGANConfig,
    DDPMConfig,
    EDMConfig,
    SamplerConfig,
    StyleGAN2Config,
    VDVAEConfig,
)  # fmt: skip
from robustgen.config.recipe import DataConfig
from robustgen.generators import VDVAE, BigGAN, StyleGAN2, build_generator, read_generator, save_diffusers
from robustgen.generators.edm_files import holds_edm, read_edm
from robustgen.generators.logistics import log_likelihood
from robustgen.generators.published import read_published
from robustgen.generators.unet import UNet
from robustgen.generators.vdvae_files import HYPERPARAMETERS
from robustgen.images import DatasetInfo, to_bytes
from robustgen.randomness import rng_for
from robustgen.stages.fetch import find_downloads
from robustgen.stages.import_generator import ImportGenerator
from robustgen.stages.sample import Sample
from robustgen.storage.published_generators import GENERATOR_FILES, find_generator_file
from robustgen.storage.torch_files import Inert, load_objects

ALL = json.loads((REPOSITORY / "tests" / "fixtures" / "published-generators.json").read_text())
INFO = DatasetInfo("x", tuple("0123456789"), (3, 32, 32), (0.0,) * 3, (1.0,) * 3)
RECORDED, OTHERS = ALL["edm"], ALL["others"]


def drawn(name, shape):
    """Numbers that any machine makes from a name and a shape."""
    values = np.random.default_rng(np.frombuffer(name.encode(), np.uint8)).standard_normal(shape)
    if len(shape) > 1:
        values /= np.sqrt(np.prod(shape[1:]))
    else:
        values = 1 + 0.3 * values if name.endswith("weight") else 0.2 * values
    return torch.from_numpy(np.asarray(values, dtype=np.float32))


def filter_of(arguments):
    taps = torch.tensor([float(tap) for tap in arguments.get("resample_filter", [1, 1])])
    return (taps[:, None] * taps)[None, None] / taps.sum() ** 2


class Persistent(nn.Module):
    """An object as torch_utils.persistence pickles it: the source of its module, its class's name, its state."""

    def __init__(self, kind, source="", **state):
        super().__init__()
        self.kind, self.source = kind, source
        self.__dict__.update(state)

    def __reduce__(self):
        state = {name: value for name, value in self.__dict__.items() if name not in ("kind", "source")}
        meta = {"type": "class", "version": 6, "module_src": self.source, "class_name": self.kind, "state": state}
        return sys.modules["torch_utils.persistence"]._reconstruct_persistent_obj, (meta,)


@pytest.fixture
def nvidia(monkeypatch):
    """Stand-ins of the modules that NVIDIA's pickles refer to, while a pickle is written."""
    persistence, util = types.ModuleType("torch_utils.persistence"), types.ModuleType("dnnlib.util")

    def _reconstruct_persistent_obj(meta):
        raise AssertionError("reading a pickle called it")

    _reconstruct_persistent_obj.__module__ = "torch_utils.persistence"
    _reconstruct_persistent_obj.__qualname__ = "_reconstruct_persistent_obj"
    persistence._reconstruct_persistent_obj = _reconstruct_persistent_obj
    util.EasyDict = type("EasyDict", (dict,), {"__module__": "dnnlib.util"})
    for name, module in (
        ("torch_utils", types.ModuleType("torch_utils")), ("torch_utils.persistence", persistence),
        ("dnnlib", types.ModuleType("dnnlib")), ("dnnlib.util", util),
    ):  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return util.EasyDict


def written(path, layout, easy, *, source="raise SystemExit", changes=None, inner=None, outer="EDMPrecond", **more):
    """A pickle of one of the recorded networks."""
    record = RECORDED[layout]
    given = {**record["arguments"], **(changes or {})}
    kept = {name: given[name] for name in ("img_resolution", "img_channels", "label_dim")}
    root = Persistent(outer, source, sigma_data=0.5, use_fp16=np.float64(0), **kept, _init_kwargs=easy(given))
    arguments = {**record["inner"], **(inner or {})}
    root.model = Persistent(given["model_type"], source, _init_args=(), _init_kwargs=arguments)
    for name, shape in record["tensors"].items():
        *layers, last = name.split(".")
        here = root
        for depth, layer in enumerate(layers):
            if layer not in here._modules:
                new = nn.ModuleDict() if depth == 1 and layer in ("enc", "dec") else Persistent("UNetBlock", source)
                here.add_module(layer, new)
            here = here._modules[layer]
        if last == "resample_filter":
            here.register_buffer(last, filter_of(arguments))
        elif last == "freqs":
            here.register_buffer(last, drawn(name, shape))
        else:
            here.register_parameter(last, nn.Parameter(drawn(name, shape)))
    content = {"ema": root, "loss_fn": Persistent("EDMLoss", source), "augment_pipe": None, **more}
    content["dataset_kwargs"] = easy(path="data/cifar10-32x32.zip", use_labels=True)
    path.write_bytes(pickle.dumps(content))
    return path


@pytest.mark.parametrize("layout", RECORDED)
def test_an_opened_network_denoises_as_nvidias_own(layout, nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", layout, nvidia)
    found = read_published(path)
    assert found.config.network == (layout if layout != "unconditional" else "ddpm++")
    assert found.config.conditional == (layout != "unconditional")
    images = drawn("images", (2, *found.model.shape)) * 8
    with torch.no_grad():
        denoised = found.model.denoise(images, torch.tensor([0.3, 7.0]), torch.tensor([0, 2]))
    wanted = torch.tensor(RECORDED[layout]["output"]).view(images.shape)
    torch.testing.assert_close(denoised, wanted, rtol=0, atol=2e-5)
    assert wanted.std() > 0.3


def test_the_published_cifar10_network_has_the_default_settings(nvidia, tmp_path):
    """As train.py of NVlabs/edm makes it for edm-cifar10-32x32-cond-vp.pkl: 419 tensors, 55,735,299 numbers."""
    arguments = {
        "model_channels": 128, "channel_mult": [2, 2, 2], "dropout": 0.13, "augment_dim": 9, "num_blocks": 4,
        "attn_resolutions": [16],
    }  # fmt: skip
    path = written(
        tmp_path / "net.pkl", "ddpm++", nvidia, inner=arguments,
        changes={"img_resolution": 32, "img_channels": 3, "label_dim": 10},
    )  # fmt: skip
    found = read_edm(load_objects(path), path)
    assert found.config == EDMConfig() and found.shape == (3, 32, 32) and found.classes == 10
    with torch.device("meta"):
        network = UNet(found.shape, found.classes, augmented=True)
    sizes = [parameter.numel() for parameter in network.parameters()]
    assert (len(sizes), sum(sizes)) == (419, 55_735_299)


class Hostile:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def test_nothing_in_such_a_pickle_is_run(nvidia, tmp_path):
    """Neither the source that it carries, nor calls anywhere in it, nor a pickle within the bytes of a storage."""
    done = tmp_path / "done"
    source = f"open({str(done)!r}, 'w')"
    inner = io.BytesIO()
    torch.save(Hostile(exec, source), inner, _use_new_zipfile_serialization=False)
    path = written(
        tmp_path / "net.pkl", "ddpm++", nvidia, source=source,
        first=Hostile(exec, source), second=Hostile(getattr, "text", "upper"), third=Hostile(eval, "1 + 1"),
    )  # fmt: skip
    events, watching = [], True

    def hook(event, arguments):
        if watching and event in ("exec", "compile", "os.system", "subprocess.Popen", "pickle.find_class"):
            events.append((event, arguments))

    sys.addaudithook(hook)
    read_published(path)
    storage = tmp_path / "storage.pkl"
    watching = False
    storage.write_bytes(pickle.dumps({"ema": Hostile(torch.storage._load_from_bytes, inner.getvalue())}))
    watching = True
    with pytest.raises(ValueError, match="cut off, damaged, or a pickle of other things"):
        read_published(storage)
    watching = False
    assert not done.exists()
    assert not [event for event in events if event[0] != "pickle.find_class" or "torch" not in str(event[1])]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"outer": "VPPrecond"}, "holds a network in VPPrecond, expected EDMPrecond"),
        ({"inner": {"encoder_type": "skip"}}, "holds a SongUNet with .*encoder_type='skip'.*only those of DDPM"),
        ({"inner": {"augment_dim": 6}}, "augment_dim is 6; only 0 and 9"),
        ({"inner": {"num_blocks": 0}}, "blocks"),
        ({"inner": {"num_blocks": 10**9}}, "blocks: input should be less than or equal to 1000, got 1000000000"),
        ({"inner": {"model_channels": 10**6}}, "does not fit .*other shapes"),
        ({"inner": {"num_blocks": 2}}, "does not fit"),
        ({"changes": {"model_type": "Transformer"}}, "holds a Transformer, expected SongUNet or DhariwalUNet"),
        ({"changes": {"label_dim": 5}}, "does not fit .*class_in"),
    ],
)
def test_another_network_is_one_line(options, message, nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia, **options)
    with pytest.raises(ValueError, match=message) as raised:
        read_published(path)
    assert "\n" not in str(raised.value) and str(path) in str(raised.value)


def test_damaged_and_foreign_pickles_are_one_line(nvidia, tmp_path):
    whole = written(tmp_path / "net.pkl", "ddpm++", nvidia).read_bytes()
    for content, message in (
        (whole[: len(whole) // 2], "cut off"),
        (b"", "empty"),
        (b"<html>", "web page"),
        (pickle.dumps({"a": 1}), "holds a dict with a; expected a generator: NVIDIA's EDM"),
        (pickle.dumps([1, 2]), "holds a list; expected a generator"),
    ):
        (tmp_path / "x.pkl").write_bytes(content)
        with pytest.raises(ValueError, match=message):
            read_published(tmp_path / "x.pkl")
    with pytest.raises(ValueError, match="there is no file"):
        read_published(tmp_path / "none.pkl")


def test_modules_that_contain_themselves_are_one_line(nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia)
    content = load_objects(path)
    assert holds_edm(content)
    network = content["ema"].state["_modules"]["model"]
    assert isinstance(network, Inert)
    network.state["_modules"]["enc"].state["_modules"]["again"] = network
    with pytest.raises(ValueError, match="contain themselves"):
        read_edm(content, path)


def test_an_imported_network_is_an_ordinary_generator(nvidia, tmp_path):
    path = written(tmp_path / "net-cifar10.pkl", "ddpm++", nvidia)
    said = ImportGenerator(path, tmp_path / "g")("cpu", lambda *_: None)
    assert "3 classes" in said and "license" in said
    content = json.loads((tmp_path / "g" / "generator.json").read_text())
    assert content["imported"]["layout"] == "NVIDIA's EDM, network ddpm++" and content["classes"] == ["0", "1", "2"]
    Sample(tmp_path / "g", SamplerConfig(evaluations=3), tmp_path / "set", 0, 5)("cpu", lambda *_: None)
    drawn = np.load(tmp_path / "set" / "images-00000.npy")
    model = read_published(path).model
    model.configure_sampler(SamplerConfig(evaluations=3))
    wanted = to_bytes(model.sample_images(torch.arange(5) % 3)).permute(0, 2, 3, 1).numpy()
    assert np.abs(drawn.astype(int) - wanted).max() <= 1


def test_an_unconditional_network_takes_the_classes_of_the_data(nvidia, tmp_path):
    """Its labels are ignored, the manifest says so, and it cannot be guided away from itself."""
    path = written(tmp_path / "net.pkl", "unconditional", nvidia)
    ImportGenerator(path, tmp_path / "g", DataConfig(name="cifar10"))("cpu", lambda *_: None)
    Sample(tmp_path / "g", SamplerConfig(evaluations=3), tmp_path / "set", 0, 12)("cpu", lambda *_: None)
    manifest = json.loads((tmp_path / "set" / "manifest.json").read_text())
    assert len(manifest["classes"]) == 10 and manifest["generator"]["conditional"] is False
    model, _ = read_generator(tmp_path / "g")
    assert model.knows_unlabelled
    streams = rng_for(0).each(range(3))
    images = [model.sample(torch.tensor(labels), streams.at(0)) for labels in ([0, 1, 2], [5, 5, 5])]
    assert torch.equal(*images)
    with pytest.raises(ValueError, match=r"guidance .* changes nothing for an unconditional edm"):
        model.configure_sampler(SamplerConfig(guidance=2.0))


def test_the_command_leaves_nothing_behind_when_it_refuses(nvidia, tmp_path):
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia, outer="VPPrecond")

    def run(*words):
        command = [sys.executable, "-m", "robustgen", "import-generator", *map(str, words)]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    done = run(path, "--into", tmp_path / "g")
    assert done.returncode == 2 and not (tmp_path / "g").exists()
    assert done.stderr.startswith(f"robustgen: {path} holds a network in VPPrecond") and done.stderr.count("\n") == 1
    path = written(tmp_path / "net.pkl", "ddpm++", nvidia)
    done = run(path, "--into", tmp_path / "g", "--data", "cifar10")
    assert done.returncode == 2 and "is conditioned on 3 classes, the data has 10" in done.stderr


def test_published_generators_are_listed_with_address_and_license(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ROBUSTGEN_WEIGHTS", str(tmp_path))
    lines = dict(known("generators"))
    assert "conditional; CC BY-NC-SA 4.0, non-commercial; https://" in lines["edm-cifar10-32x32-cond-vp"]
    for name, one in GENERATOR_FILES.items():
        assert find_downloads(name).files == (one.file,)
        assert one.kind != "edm" or one.conditional == ("-cond-" in name)
        with pytest.raises(ValueError, match=f"run: robustgen fetch {name}"):
            find_generator_file(name)
    assert "non-commercial" in capsys.readouterr().out
    (tmp_path / "edm-cifar10-32x32-cond-vp.pkl").touch()
    assert find_generator_file("edm-cifar10-32x32-cond-vp").parent == tmp_path


def stylegan2_file(path, layout, easy, source="raise SystemExit", hostile=None, **changes):
    record = OTHERS[layout]
    root = Persistent("Generator", source, **{**record["state"], **changes}, _init_kwargs=easy())
    for name, shape in record["tensors"].items():
        *layers, last = name.split(".")
        here = root
        for layer in layers:
            if layer not in here._modules:
                here.add_module(layer, Persistent("Layer"))
            here = here._modules[layer]
        scale = 300 if name.startswith("mapping.fc") and last == "weight" else 1
        values = torch.ones(shape) if last == "resample_filter" else drawn(name, shape) * scale
        if last in ("resample_filter", "noise_const", "w_avg"):
            here.register_buffer(last, values)
        else:
            here.register_parameter(last, nn.Parameter(values))
    path.write_bytes(pickle.dumps({"G": hostile, "D": None, "G_ema": root, "training_set_kwargs": easy(path="x")}))
    return path


@pytest.mark.parametrize("layout", ["stylegan2", "stylegan2 unconditional"])
def test_an_opened_stylegan2_makes_the_images_of_its_authors(layout, nvidia, tmp_path):
    found = read_published(stylegan2_file(tmp_path / "net.pkl", layout, nvidia))
    assert found.conditional == (layout == "stylegan2") == found.config.conditional
    sizes = [(size, i) for size in (4, 8, 16) for i in (0, 1) if (size, i) != (4, 0)]
    noise = [
        drawn(f"synthesis.b{size}.conv{i}.noise_const", (size, size)).expand(2, 1, size, size) for size, i in sizes
    ]
    labels = torch.tensor([0, 2]) if found.conditional else torch.zeros(2, dtype=torch.int64)
    with torch.no_grad():
        images = found.model(drawn("latents", (2, 8)) * 3, labels, *noise)[:, :, ::2, ::2]
    wanted = torch.tensor(OTHERS[layout]["output"]).view(images.shape)
    torch.testing.assert_close(images, wanted, rtol=0, atol=2e-5)
    assert (wanted[0] - wanted[1]).std() > 0.02
    how = found.model.configure_sampler(SamplerConfig())
    assert how.get("conditional", True) == found.conditional


def biggan_weights():
    weights = {name: drawn(name, shape) for name, shape in OTHERS["biggan"]["tensors"].items()}
    return {name: value.abs() + 0.5 if name.endswith("stored_var") else value for name, value in weights.items()}


def test_an_opened_biggan_makes_the_images_of_its_authors(tmp_path):
    path = tmp_path / "G_ema.pth"
    for prefix in ("", "module."):
        torch.save({prefix + name: value for name, value in biggan_weights().items()}, path)
        found = read_published(path)
        with torch.no_grad():
            images = found.model(drawn("latents", (2, 4)) * 3, torch.tensor([0, 2]))[:, :, ::4, ::4]
        wanted = torch.tensor(OTHERS["biggan"]["output"]).view(images.shape)
        torch.testing.assert_close(images, wanted, rtol=0, atol=2e-5)
        assert found.conditional and len(found.info.classes) == 3 and found.info.shape == (3, 32, 32)


def test_an_opened_vdvae_gives_pixels_the_likelihood_of_its_authors(tmp_path, monkeypatch):
    """At a temperature of nearly 0, where latents are the means of their priors."""
    path = tmp_path / "model-ema.th"
    weights = {name: drawn(name, shape) for name, shape in OTHERS["vdvae"]["tensors"].items()}
    torch.save(weights, path)
    with pytest.raises(ValueError, match="holds a VDVAE with 4 and 4 blocks, expected those of: cifar10 33 and 43"):
        read_published(path)
    tiny = {"encoder": "8x1,8d2,4d4,1x1", "decoder": "1x1,4m1,8m4,8x1"}
    monkeypatch.setitem(HYPERPARAMETERS, "tiny", tiny)
    found = read_published(path)
    assert not found.conditional and found.config.latents == 4 and found.config.components == 2
    with torch.no_grad():
        numbers, _ = found.model.decode(torch.zeros(2, dtype=torch.int64), rng_for(0).each(range(2)), temperature=1e-30)
    images = torch.tanh(drawn("images", (2, 3, 8, 8)) * 8)
    torch.testing.assert_close(
        -log_likelihood(images, numbers), torch.tensor(OTHERS["vdvae"]["nats"]), rtol=0, atol=2e-3
    )


def test_the_published_sizes_are_the_default_settings():
    """What the authors' command lines make: the defaults here, in names and shapes."""
    for config, kind in ((VDVAEConfig(), VDVAE), (StyleGAN2Config(), StyleGAN2), (BigGANConfig(), BigGAN)):
        with torch.device("meta"):
            model = kind.from_config(config, INFO, rng_for(0))
        assert sum(one.numel() for one in model.parameters()) > 4e6
    assert HYPERPARAMETERS["cifar10"] == {"encoder": VDVAEConfig().encoder, "decoder": VDVAEConfig().decoder}


def test_larger_gans_are_one_line(nvidia, tmp_path):
    shared = {**biggan_weights(), "shared.weight": torch.zeros(3, 4)}
    torch.save(shared, tmp_path / "G_ema.pth")
    with pytest.raises(ValueError, match=r"BigGAN with shared\.weight, as for ImageNet; only that of launch_cifar_ema"):
        read_published(tmp_path / "G_ema.pth")
    for changes, message in (
        ({"img_resolution": 256}, "StyleGAN2-ADA for 256x256 .* only its setting `cifar`"),
        ({"z_dim": 16}, "z_dim is 16, w_dim 8; only equal ones"),
        ({"img_resolution": 8}, "does not fit"),
        ({"c_dim": "3"}, "holds a Generator, expected a Generator of StyleGAN2-ADA"),
    ):
        with pytest.raises(ValueError, match=message):
            read_published(stylegan2_file(tmp_path / "net.pkl", "stylegan2", nvidia, **changes))


def test_nothing_in_the_other_files_is_run(nvidia, tmp_path, monkeypatch):
    """Calls next to the weights of each layout, and the source that StyleGAN2's pickles carry."""
    done = tmp_path / "done"
    source = f"open({str(done)!r}, 'w')"
    tiny = {"encoder": "8x1,8d2,4d4,1x1", "decoder": "1x1,4m1,8m4,8x1"}
    monkeypatch.setitem(HYPERPARAMETERS, "tiny", tiny)
    vdvae = {name: drawn(name, shape) for name, shape in OTHERS["vdvae"]["tensors"].items()}
    torch.save({**biggan_weights(), "hostile": Hostile(exec, source)}, tmp_path / "G_ema.pth")
    torch.save({**vdvae, "hostile": Hostile(eval, source)}, tmp_path / "model-ema.th")
    stylegan2_file(tmp_path / "net.pkl", "stylegan2", nvidia, source=source, hostile=Hostile(exec, source))
    events, watching = [], True

    def hook(event, arguments):
        if watching and event in ("exec", "compile", "os.system", "subprocess.Popen"):
            events.append((event, arguments))

    sys.addaudithook(hook)
    layouts = [read_published(tmp_path / name).layout for name in ("G_ema.pth", "model-ema.th", "net.pkl")]
    watching = False
    assert layouts == ["BigGAN-PyTorch", "openai/vdvae", "NVIDIA's StyleGAN2-ADA"]
    assert not done.exists() and not events


def test_a_diffusers_folder_is_imported_too(tmp_path):
    config = DDPMConfig(channels=8, multipliers=(1, 2), blocks=1, attention=())
    info = DatasetInfo("x", ("0",), (3, 8, 8), (0.0,) * 3, (1.0,) * 3)
    save_diffusers(tmp_path / "theirs", build_generator(config, info, rng_for(0)))
    ImportGenerator(tmp_path / "theirs", tmp_path / "g", DataConfig(name="cifar10"))("cpu", lambda *_: None)
    model, about = read_generator(tmp_path / "g")
    assert about["settings"]["kind"] == "ddpm" and len(about["classes"]) == model.classes == 10
    file = tmp_path / "theirs" / "unet" / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "norm_num_groups": 4}))
    with pytest.raises(ValueError, match="norm_num_groups is 4, expected"):
        read_published(tmp_path / "theirs")
