"""Somebody else's models, data and flaws: what an auditor brings."""

import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from conftest import REPOSITORY, real_data
from robustgen.attacks import FAB, PGD
from robustgen.attacks.common import NoGradient
from robustgen.config.recipe import DataConfig
from robustgen.datasets import load_test
from robustgen.datasets.folder import load as load_folder
from robustgen.evaluation.cascade import evaluate, times_file
from robustgen.evaluation.checks import FLAGS, flags_of
from robustgen.evaluation.precision import in_bfloat16
from robustgen.evaluation.prepare import prepared
from robustgen.images import DatasetInfo
from robustgen.models import build_model
from robustgen.models.external import load_external, with_normalization
from robustgen.randomness import rng_for
from robustgen.records.verdicts import Verdicts, adversarial_file
from robustgen.storage.weights import load_weights, read_weights
from robustgen.threat import ThreatModel

sys.path[:0] = [str(REPOSITORY / "benchmarks"), str(REPOSITORY / "examples")]
import small_networks  # noqa: E402
from unpack_cifar10 import read_packed  # noqa: E402

INFO = DatasetInfo("x", ("a", "b", "c", "d"), (1, 8, 8), (0.5,), (0.3,))
MEANS = {"cnn_a": (0.4914, 0.4824, 0.4467), "resnet2b": (0.4914, 0.4822, 0.4465), "resnet4b": (0.4914, 0.4822, 0.4465)}


def published(name: str) -> nn.Module:
    """A network of other authors with its weights, normalisation before it."""
    weights = real_data(f"weights/cifar10_adv_{name}.pth")
    return with_normalization(
        load_weights(getattr(small_networks, name)(), weights), MEANS[name], (0.2471, 0.2435, 0.2616)
    )


def cifar(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    images, labels = read_packed(real_data("cifar10_test_0_7999.npz"), count)
    return torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, torch.from_numpy(labels)


@pytest.mark.parametrize(("name", "right"), [("cnn_a", 664), ("resnet2b", 703), ("resnet4b", 771)])
def test_published_networks_give_their_clean_accuracy(name, right):
    images, labels = cifar(1000)
    with torch.no_grad():
        assert int((published(name).eval()(images).argmax(1) == labels).sum()) == right


def golden(name: str, count: int):
    return np.load(real_data(f"../golden/autoattack_{name}_{count}.npz"))


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_flags_equal_those_of_the_reference_autoattack(norm, monkeypatch):
    """APGD-CE, APGD-T, FAB-T and Square alone, and all together, on 64 real images."""
    from robustgen.evaluation.suites import SUITES, autoattack

    reference, (images, labels) = golden("resnet2b", 64), cifar(64)
    threat = ThreatModel(norm, {"linf": 2 / 255, "l2": 0.25}[norm])
    prefix = {"linf": "Linf", "l2": "L2"}[norm]
    model = published("resnet2b")
    for name in ("apgd-ce", "apgd-t", "fab-t", "square"):
        monkeypatch.setitem(SUITES, "alone", lambda n, k, name=name: {name: autoattack(n, k)[name]})
        verdicts = evaluate(model, images, labels, threat, "alone")
        differ = (verdicts.robust != reference[f"{prefix}/{name}"]).sum()
        assert differ <= (3 if name == "square" else 0), name  # random search: other numbers, other images
    whole = evaluate(model, images, labels, threat, "autoattack")
    assert np.array_equal(whole.robust, reference[f"{prefix}/autoattack-union"])
    swift = evaluate(model, images, labels, threat, "swift")
    assert np.array_equal(swift.robust, whole.robust)
    assert swift.passes.sum() < 0.05 * whole.passes.sum()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["cnn_a", "resnet4b"])
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_parity_on_256_images(name, norm, monkeypatch):
    """At most 1 % of the flags of a gradient attack differ, and 0.5 points of the cascade's accuracy."""
    from robustgen.evaluation.suites import SUITES, autoattack

    reference, (images, labels) = golden(name, 256), cifar(256)
    threat = ThreatModel(norm, {"linf": 2 / 255, "l2": 0.25}[norm])
    prefix = {"linf": "Linf", "l2": "L2"}[norm]
    model = published(name)
    for attack in ("apgd-ce", "apgd-t", "fab-t"):
        monkeypatch.setitem(SUITES, "alone", lambda n, k, attack=attack: {attack: autoattack(n, k)[attack]})
        verdicts = evaluate(model, images, labels, threat, "alone")
        assert (verdicts.robust != reference[f"{prefix}/{attack}"]).mean() <= 0.01, attack
    whole = evaluate(model, images, labels, threat, "autoattack")
    assert abs(whole.robust.mean() - reference[f"{prefix}/autoattack-union"].mean()) <= 0.005
    swift = evaluate(model, images, labels, threat, "swift")
    assert abs(swift.robust.mean() - whole.robust.mean()) <= 0.003
    assert swift.passes.sum() < 0.05 * whole.passes.sum()


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["Linf", "L2", "L1"])
def test_parity_with_the_authors_package(norm):
    """The cascade of pyautoattack, run here and now."""
    pyautoattack = pytest.importorskip("pyautoattack", reason="needs the extra 'oracles'")
    images, labels = cifar(64)
    eps = {"Linf": 2 / 255, "L2": 0.25, "L1": 5.0}[norm]
    model = published("cnn_a").eval().requires_grad_(False)
    tool = pyautoattack.AutoAttack(model, norm=norm, eps=eps, device="cpu", seed=0)
    broken, _ = tool.run_standard_evaluation(images.contiguous(), labels, batch_size=64)
    theirs = (model(broken).argmax(1) == labels).numpy()
    ours = evaluate(model, images, labels, ThreatModel(norm.lower(), eps), "autoattack").robust
    assert (ours != theirs).sum() <= 1


def test_verdicts_say_how_each_image_fell(tmp_path):
    images, labels = cifar(48)
    threat = ThreatModel("linf", 8 / 255)
    model = published("cnn_a")
    path = tmp_path / "v.npz"
    verdicts = evaluate(model, images, labels, threat, "quick", path=path, keep_images=True)
    fell = verdicts.fell_to > 0
    assert fell.sum() > 10
    assert (verdicts.fell_at_step[fell] >= 0).all() and (verdicts.fell_at_step[~fell] == -1).all()
    targeted = verdicts.fell_to == list(verdicts.attacks).index("multitargeted")
    assert (verdicts.target[targeted] >= 0).all() and (verdicts.target[~targeted] == -1).all()
    kept = torch.from_numpy(np.load(adversarial_file(path)))
    with torch.no_grad():
        assert torch.allclose(model.eval()(kept)[fell], torch.from_numpy(verdicts.broken_logits[fell]), atol=1e-4)
        assert ((model(kept).argmax(1) == labels).numpy() == verdicts.robust).all()
    assert torch.equal(kept[~fell], images[~fell]) and threat.contains(kept, images).all()
    assert set(times_file(path).read_text().split('"')[1::2]) == {"apgd-ce", "apgd-dlr", "multitargeted"}
    again = Verdicts.load(path)
    assert again.made_for == verdicts.made_for
    with pytest.raises(ValueError, match="model, seed, images"):
        evaluate(published("resnet2b"), images, labels, threat, "quick", path=path)
    with pytest.raises(ValueError, match="requires a path"):
        evaluate(model, images, labels, threat, "quick", keep_images=True)


def test_the_example_evaluates_three_networks(tmp_path):
    weights = real_data("weights/cifar10_adv_cnn_a.pth").parent
    train, test = real_data("cifar10_train.npz"), real_data("cifar10_test_0_7999.npz")
    tool = REPOSITORY / "benchmarks" / "unpack_cifar10.py"
    line = [tool, train, test, "--into", tmp_path, "--train", "50", "--test", "40"]
    subprocess.run([sys.executable, *map(str, line)], check=True, capture_output=True)
    example = REPOSITORY / "examples" / "evaluate_cifar10.py"
    assert len(example.read_text().splitlines()) <= 40
    done = subprocess.run(
        [sys.executable, example, weights, tmp_path, "40", "quick"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["cnn_a", "resnet2b", "resnet4b"]


def test_parts_merge_to_the_whole():
    images, labels = cifar(33)
    model, threat = published("cnn_a"), ThreatModel("linf", 2 / 255)
    whole = evaluate(model, images, labels, threat, "quick")
    parts = [evaluate(model, images[p::2], labels[p::2], threat, "quick") for p in range(2)]
    merged = Verdicts.merge(parts)
    for name in ("ids", "fell_to", "fell_in_run", "fell_at_step", "distance", "margin", "clean_logits", "passes"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name), equal_nan=True), name
    assert merged.made_for == whole.made_for and merged.finished
    with pytest.raises(ValueError, match="images are missing"):
        Verdicts.merge(parts[::-1])


def test_the_prepared_copy_answers_alike_and_leaves_the_model_alone():
    model = build_model("wrn-10-1", INFO, rng_for(0))
    nn.init.normal_(model.logits.weight, std=0.3, generator=torch.Generator().manual_seed(0))
    images = torch.rand(64, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    model.train()(images)
    model.eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    fast = prepared(model, images)
    norms = [module for module in fast.modules() if isinstance(module, nn.BatchNorm2d)]
    assert fast is not model and not norms
    with torch.no_grad():
        torch.testing.assert_close(fast(images), model(images), rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.requires_grad for parameter in model.parameters())

    class Stubborn(nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :4] * (2 if float(x.sum()) > 0 else 1)  # cannot be traced

    assert torch.equal(prepared(Stubborn(), images)(images), Stubborn()(images))


class StraightThrough(torch.autograd.Function):
    """Rounds to eighths; its gradient is that of the identity."""

    @staticmethod
    def forward(ctx, x):
        return (x * 8).round() / 8

    @staticmethod
    def backward(ctx, gradient):
        return gradient


class Rounded(nn.Module):
    """A network on rounded images, with a differentiable stand-in for rounding, in one of two usual ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.layer = way, nn.Linear(64, 4)

    def forward(self, images):
        if self.way == "function":
            return self.layer(StraightThrough.apply(images).flatten(1))
        with torch.no_grad():
            change = (images * 8).round() / 8 - images
        return self.layer((images + change).flatten(1))


@pytest.mark.parametrize("way", ["function", "no_grad"])
def test_copies_keep_the_gradient_that_a_model_defines(way):
    """Tracing alone would lose it: what is left is the gradient of rounding, zero."""
    torch.manual_seed(0)
    model, images = Rounded(way).eval(), torch.rand(16, 1, 8, 8)

    def gradient(network):
        points = images.clone().requires_grad_()
        return torch.autograd.grad(network(points).square().sum(), points)[0]

    expected = gradient(model)
    assert expected.abs().max() > 0.01
    assert torch.allclose(gradient(prepared(model, images)), expected, rtol=1e-4, atol=1e-6)
    low = in_bfloat16(model, images)
    assert low is None or (gradient(low) - expected).norm() < 0.5 * expected.norm()
    labels = model(images).argmax(1)
    threat = ThreatModel("linf", 0.5)
    for precision in ("float32", "bfloat16"):
        assert not evaluate(model, images, labels, threat, "quick", precision=precision).robust.any()


class Sound(nn.Module):
    """The brightest quarter of the image is its class; normalises inside when asked."""

    def __init__(self, mean=0.0, std=1.0):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, images):
        rows = ((images - self.mean) / self.std).unflatten(2, (4, 2)).mean((1, 3, 4))
        return 5 * rows - 2 * (rows - 0.3).square()  # not indifferent to where the pixels lie


def quarters(count=64):
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(count) % 4
    images = 0.4 * torch.rand(count, 1, 8, 8, generator=generator)
    for i, label in enumerate(labels):
        images[i, :, 2 * label : 2 * label + 2] += 0.3
    return images, labels


def flagged(forward, images, labels):
    class Model(nn.Module):
        def forward(self, x):
            return forward(x)

    model = Model().eval()
    with torch.no_grad():
        return [text.split(":")[0] for text in flags_of(model, images, labels, model(images))]


def test_each_flaw_raises_its_own_flag_and_no_other():
    images, labels = quarters()
    sound = Sound()
    mean, std = images.mean(), images.std()

    def picky(x):
        """Right on images normalized once, wrong elsewhere: it expects mean 0 and deviation 1."""
        off = (x.mean().abs() > 0.2).float()
        return sound(x) * (1 - off) + sound(x).roll(1, 1) * off

    cases = {
        "nan-logits": lambda x: torch.where(x.mean((1, 2, 3))[:, None] > 0.27, torch.nan, sound(x)),
        "random-logits": lambda x: sound(x) + 0.1 * torch.randn(len(x), 4),
        "batch-dependence": lambda x: sound(x) + 0.3 * x.mean((0, 2, 3)).sum() * len(x),
        "probabilities": lambda x: sound(x).softmax(1),
        "zero-gradients": lambda x: sound((x * 8).round() / 8 + 0 * x),
        "no-gradient": lambda x: sound(x).detach(),
        "not-normalised": picky,
        "normalised-twice": lambda x: picky(((x - mean) / std - mean) / std),
    }
    assert flagged(sound, images, labels) == []
    for name, forward in cases.items():
        found = flagged(forward, images, labels)
        assert name in found and set(found) <= {
            name,
            *(["not-normalised"] if name == "normalised-twice" else []),
        }, (
            name,
            found,
        )


def test_flags_that_only_an_evaluation_shows():
    images, labels = quarters()
    threat = ThreatModel("linf", 0.05)
    assert evaluate(Sound().eval(), images, labels, threat, "quick").flags == ()
    assert evaluate(Sound().train(), images, labels, threat, "quick").flags[0].startswith("training-mode")
    wrong = evaluate(Sound().eval(), images, (labels + 1) % 4, threat, "quick")
    assert any(flag.startswith("near-chance") for flag in wrong.flags)

    class Rounded(Sound):
        """Gradients vanish, but a step across a threshold still changes the answer."""

        def forward(self, images):
            return super().forward((images * 16).round() / 16 + 0 * images)

    class Cut(Rounded):
        def forward(self, images):
            return super().forward(images).detach()

    for model in (Rounded().eval(), Cut().eval()):
        verdicts = evaluate(model, images, labels, ThreatModel("linf", 0.12), "autoattack")
        names = {flag.split(":")[0] for flag in verdicts.flags}
        assert "black-box-better" in names and names & {"zero-gradients", "no-gradient"}, verdicts.flags
        assert verdicts.finished
        slopes_seen = any("found no gradient at the start" in flag for flag in verdicts.flags)
        assert slopes_seen == (not isinstance(model, Cut))  # of what is cut off there is no gradient to look at
    assert any("BPDA" in flag for flag in verdicts.flags) and "BPDA" in str(NoGradient())


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
@pytest.mark.parametrize("scripted", [False, True], ids=["module", "script"])
def test_a_model_whose_parameters_alone_have_a_gradient_is_judged_with_its_flag(scripted):
    """Its parameters require gradients, as a TorchScript program's always do, but its input is cut off."""

    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(64, 4)

        def forward(self, x):
            return self.layer(x.detach().flatten(1))

    images, labels = quarters(8)  # on so few images the results with and without padding are compared at once
    model, threat = torch.jit.script(Cut()) if scripted else Cut(), ThreatModel("linf", 0.1)
    verdicts = evaluate(model.eval(), images, labels, threat, "quick")
    assert verdicts.finished and [flag.split(":")[0] for flag in verdicts.flags if "BPDA" in flag] == ["no-gradient"]
    if not scripted:
        for attack in (PGD(), FAB()):
            with pytest.raises(NoGradient):
                attack(model, images, labels, threat)


def test_every_flag_has_its_section():
    page = (REPOSITORY / "docs" / "flags.md").read_text()
    assert set(FLAGS) <= set(re.findall(r"^## ([a-z-]+)$", page, re.MULTILINE))


def test_models_come_from_functions_and_weights_files(tmp_path):
    (tmp_path / "net.py").write_text(
        "from torch import nn\ndef make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 4))\n"
        "def wrong():\n    return 3\ndef fails():\n    raise RuntimeError('no')\n"
    )
    spec = f"{tmp_path / 'net.py'}:make"
    model = load_external(spec, INFO)
    weights = {name: torch.full_like(value, 0.5) for name, value in model.state_dict().items()}
    torch.save({"state_dict": {f"module.{name}": value for name, value in weights.items()}}, tmp_path / "w.pt")
    save_file(weights, tmp_path / "w.safetensors")
    for name in ("w.pt", "w.safetensors"):
        assert all((p == 0.5).all() for p in load_external(spec, INFO, tmp_path / name).parameters())
    network = build_model("wrn-10-1", INFO, rng_for(0))
    torch.save(network.state_dict(), tmp_path / "wrn.pt")
    again = load_external(str(tmp_path / "wrn.pt"), INFO, architecture="wrn-10-1")
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    torch.save({"1.weight": torch.zeros(4, 63), "1.bias": torch.zeros(4)}, tmp_path / "short.pt")
    torch.save({"1.weight": torch.zeros(4, 64)}, tmp_path / "less.pt")
    torch.save({"a": [1]}, tmp_path / "list.pt")
    (tmp_path / "junk.pt").write_bytes(b"junk")
    for call, message in (
        (lambda: load_external(f"{tmp_path / 'net.py'}:nothing", INFO), "known: make, wrong, fails"),
        (lambda: load_external(f"{tmp_path / 'net.py'}:wrong", INFO), "must return an nn.Module, got int"),
        (lambda: load_external(f"{tmp_path / 'net.py'}:fails", INFO), "RuntimeError: no"),
        (lambda: load_external(f"{tmp_path / 'no.py'}:make", INFO), "there is no file"),
        (lambda: load_external("no.such.module:make", INFO), "cannot import"),
        (lambda: load_external("hub:Wang2023Better", INFO), "known: Wang2023Better_WRN-28-10"),
        (lambda: load_external("nothing", INFO), "expected a folder written by train"),
        (lambda: load_external(str(tmp_path / "wrn.pt"), INFO), "--architecture"),
        (lambda: load_external(str(tmp_path / "net.py"), INFO), r"function or class in it: .*net\.py:NAME"),
        (lambda: load_external(spec, INFO, architecture="wrn-10-1"), "is known; leave out --architecture"),
        (lambda: load_external(str(tmp_path / "wrn.pt"), INFO, tmp_path / "w.pt", "wrn-10-1"), "leave one of them out"),
        (
            lambda: load_external(spec, INFO, tmp_path / "short.pt"),
            r"other shapes: 1.weight is \(4, 63\), expected \(4, 64\)",
        ),
        (lambda: load_external(spec, INFO, tmp_path / "less.pt"), "missing: 1.bias"),
        (lambda: load_external(spec, INFO, tmp_path / "wrn.pt"), "missing: 1.bias, 1.weight"),
        (lambda: read_weights(tmp_path / "list.pt"), "holds no tensors by name; it has: a"),
        (lambda: read_weights(tmp_path / "junk.pt"), "damaged"),
        (lambda: read_weights(tmp_path / "none.pt"), "there is no weights file"),
        (lambda: with_normalization(model, (0.5,), (0.0,)), "positive deviations"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


def write_folders(place, sizes=((8, 8),), classes=("cat", "dog"), each=3):
    rng = np.random.default_rng(0)
    for number, name in enumerate(classes):
        (place / name).mkdir(parents=True)
        for i in range(each):
            width, height = sizes[(number * each + i) % len(sizes)]
            Image.fromarray(rng.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(place / name / f"{i}.png")


@pytest.mark.filterwarnings("ignore::robustgen.storage.files.Note")
def test_class_folders_are_read(tmp_path):
    write_folders(tmp_path / "one")
    images, test = load_folder(tmp_path / "one")
    assert test is None and images.images.shape == (6, 8, 8, 3) and images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.info.classes == ("cat", "dog")
    first = np.asarray(Image.open(tmp_path / "one/cat/0.png"))
    assert np.array_equal(images.images[0], first)
    write_folders(tmp_path / "two/train", sizes=((40, 33), (50, 70)))
    write_folders(tmp_path / "two/test", sizes=((90, 90),))
    train, test = load_folder(tmp_path / "two")
    assert train.images.shape == (6, 32, 32, 3) == test.images.shape
    assert len(load_test(DataConfig(name="folder", path=str(tmp_path / "two"), test=None))) == 6
    assert len(load_test(DataConfig(name="folder", path=str(tmp_path / "one"), test=None))) == 6


def test_bad_folders_are_one_clear_line(tmp_path):
    write_folders(tmp_path / "one")
    (tmp_path / "one/cat/broken.png").write_bytes(b"no image")
    write_folders(tmp_path / "two/train")
    write_folders(tmp_path / "two/val", classes=("cat", "cow"))
    write_folders(tmp_path / "three")
    (tmp_path / "three/empty").mkdir()
    (tmp_path / "four").mkdir()
    for name, message in (
        ("one", "broken.png cannot be read as an image"),
        ("two", "only the first has dog, only the second cow"),
        ("three", "empty holds no images"),
        ("four", "0 class folders and 0 images"),
        ("five", "there is no folder"),
    ):
        with pytest.raises(ValueError, match=message):
            load_folder(tmp_path / name)


def run(*words, cwd, processes=1):
    start = [sys.executable, "-m", "robustgen"]
    if processes > 1:
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        start = [*torchrun, "-m", "robustgen"]
    return subprocess.run([*start, *map(str, words)], capture_output=True, text=True, cwd=cwd)


@pytest.fixture
def audit(tmp_path):
    """A folder with a model as code, its weights, and images as an .npz."""
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3, 2, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4))\n"
    )
    images, labels = quarters(40)
    pixels = (images * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.savez(tmp_path / "data.npz", image=pixels, label=labels.numpy())
    torch.manual_seed(0)
    model = load_external(f"{tmp_path / 'net.py'}:make", INFO)
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(150):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    torch.save(model.state_dict(), tmp_path / "net.pt")
    return tmp_path


def test_an_audit_from_the_command_line(audit):
    line = ["evaluate", "net.py:make", "--weights", "net.pt", "--data", "npz=data.npz", "--threat", "linf:0.02"]
    done = run(*line, "--suite", "quick", "--keep-images", cwd=audit)
    assert done.returncode == 0, done.stderr
    assert "clean 100.0 %" in done.stdout and "evaluations/make.quick.npz" in done.stdout
    verdicts = Verdicts.load(audit / "evaluations/make.quick.npz")
    assert len(verdicts) == 40 and np.load(audit / "evaluations/make.quick.adversarial.npy").shape == (40, 1, 8, 8)
    clean = np.load(audit / "evaluations/make.quick.clean.npy")
    broken = np.load(audit / "evaluations/make.quick.adversarial.npy").transpose(0, 2, 3, 1)
    assert clean.dtype == np.uint8 and clean.shape == (40, 8, 8, 1)
    assert np.allclose(broken[verdicts.robust], clean[verdicts.robust] / 255, atol=1e-6)
    side = run(*line, "--suite", "quick", "--into", "two.npz", cwd=audit, processes=2)
    assert side.returncode == 0, side.stderr[-2000:]
    both = Verdicts.load(audit / "two.npz")
    for name in ("ids", "fell_to", "fell_in_run", "fell_at_step", "distance", "margin", "passes"):
        assert np.array_equal(getattr(both, name), getattr(verdicts, name), equal_nan=True), name
    assert not list(audit.glob("*.part-*"))
    for words, message in (
        (["--suite", "autoattak"], "known: autoattack"),
        (["--normalise", "1,2/3"], "--normalize must be none, data, or MEAN/DEVIATION with 1 numbers"),
        (["--threat", "linf:8"], "did you mean 8/255"),
        (["--weights", "missing.pt"], "there is no weights file"),
        (["--data", "folder=missing"], "there is no folder missing"),
        (["--images", "50"], "asks for 50 images, npz has 40"),
    ):
        bad = run(*line, *words, "--into", "bad.npz", cwd=audit)
        assert bad.returncode == 2 and message in bad.stderr and len(bad.stderr.strip().splitlines()) == 1, bad.stderr
    assert not (audit / "bad.npz").exists()
