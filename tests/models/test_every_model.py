import pytest
import torch

from robustgen.images import DatasetInfo
from robustgen.models import (
    EXAMPLES,
    MODELS,
    build_model,
    rawrn,
    resnest,
    resnet,
    rice_preact_resnet,
    robust_wide_resnet,
)
from robustgen.models.rawrn import _SqueezeExcitation
from robustgen.models.resnest import _SplitAttention
from robustgen.models.saved import load_classifier, read_model_json, save_classifier
from robustgen.models.wide_resnet import CosineLinear, PSSiLU, Standardize
from robustgen.randomness import rng_for

CIFAR = DatasetInfo("cifar10", tuple("abcdefghij"), (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))

PARAMETERS = {  # from the definitions, running statistics excluded; by the number of classes, 10, 100 and 200
    "wrn-28-10": (36_479_194, 36_536_884, 36_600_984),
    "wrn-34-10": (46_160_474, 46_218_164, 46_282_264),
    "wrn-34-20": (184_531_674, 184_646_964, 184_775_064),
    "wrn-70-16": (266_796_506, 266_888_756, 266_991_256),
    "wrn-106-16": (415_475_162, 415_567_412, 415_669_912),
    "wrn-82-8": (79_125_466, 79_171_636, 79_222_936),
    "wrn-94-16": (365_915_610, 366_007_860, 366_110_360),
    "trades-wrn-28-10": (36_479_194, 36_536_884, 36_600_984),
    "trades-wrn-34-10": (46_160_474, 46_218_164, 46_282_264),
    "preact-resnet-18": (12_548_426, 12_594_596, 12_645_896),
    "preact-resnet-34": (22_656_586, 22_702_756, 22_754_056),
    "resnet-18": (11_173_962, 11_220_132, 11_271_432),
    "resnet-50": (23_520_842, 23_705_252, 23_910_152),
    "wrn-28-10-stem2": (36_479_194, 36_536_884, 36_600_984),
    "wrn-10-1": (77_850,),
    "wrn-16-4": (2_748_890,),
    "wrn-28-1": (369_498,),
}


def counted(name, classes=10):
    info = DatasetInfo("x", tuple(map(str, range(classes))), (3, 32, 32), CIFAR.mean, CIFAR.std)
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in build_model(name, info).parameters())


@pytest.mark.parametrize("name", PARAMETERS)
def test_has_the_published_number_of_parameters(name):
    """arXiv:2010.03593, 2103.01946, 2404.09349; 100 and 200 classes only where the network is for them."""
    for classes, expected in zip((10, 100, 200), PARAMETERS[name], strict=False):
        assert counted(name, classes) == expected


def test_the_parameters_of_rawrn_are_those_of_its_parts():
    total = 3 * 9 * 96 + 2 * 864 + 864 * 10 + 10
    inputs = 96
    for blocks, width in ((30, 216), (31, 432), (10, 864)):
        squeeze = 2 * width * (width // 4) + width // 4 + width
        for block in range(blocks):
            entering = inputs if block == 0 else width
            total += 2 * entering + 9 * entering * width + 2 * width + 9 * width * width + squeeze
        total += inputs * width  # the shortcut
        inputs = width
    assert counted("rawrn-70-16") == total == 267_240_802


def test_the_parameters_of_resnest_are_those_of_its_parts():
    total = 9 * (3 * 64 + 64 * 64 + 64 * 128) + 2 * (64 + 64) + 2 * 128 + 2048 * 10 + 10
    inputs = 128
    for blocks, width in ((3, 64), (8, 128), (36, 256), (3, 512)):
        for block in range(blocks):
            entering = inputs if block == 0 else 4 * width
            attention = 9 * width * width + 2 * 4 * width  # four groups of a quarter of the inputs each
            attention += width * width + width + 2 * width + 4 * width * width + 4 * width
            total += entering * width + 2 * width + attention + 4 * width * width + 2 * 4 * width
        total += inputs * 4 * width + 2 * 4 * width  # the shortcut
        inputs = 4 * width
    assert counted("resnest-152") == total == 74_889_098


def test_state_has_the_names_of_the_released_weights():
    names = set(build_model("wrn-16-2", CIFAR).state_dict())
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    expected = {"init_conv.weight", "logits.weight", "logits.bias", *(f"batchnorm.{n}" for n in norm)}
    for group in range(3):
        for block in range(2):
            base = f"layer.{group}.block.{block}"
            expected |= {f"{base}.conv_0.weight", f"{base}.conv_1.weight"}
            expected |= {f"{base}.batchnorm_{i}.{n}" for i in (0, 1) for n in norm}
        expected.add(f"layer.{group}.block.0.shortcut.weight")
    assert names == expected
    preact = set(build_model("preact-resnet-18", CIFAR).state_dict())
    assert {
        "conv_2d.weight",
        "layer_0.0.conv_2d_1.weight",
        "layer_3.1.conv_2d_2.weight",
        "layer_1.0.shortcut.weight",
    } <= preact
    assert "layer_0.0.shortcut.weight" not in preact and len(preact) == 17 + 3 + 2 + 1 + 5 + 16 * 5 - 1 + 0


NORM = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")


def with_norms(weights, norms):
    return {*weights, *(f"{norm}.{part}" for norm in norms for part in NORM)}


def test_names_of_other_families_are_those_of_their_weights():
    """Sehwag et al. 2021 (TRADES' WideResNet, ResNet, ResNeSt) and Peng et al. 2023."""
    with torch.device("meta"):
        states = {
            name: set(build_model(name, CIFAR).state_dict())
            for name in ("trades-wrn-16-2", "resnet-18", "resnet-50", "resnest-152", "rawrn-70-16", "wrn-16-2")
        }
    weights, norms = ["conv1.weight", "fc.weight", "fc.bias"], ["bn1"]
    for g in (1, 2, 3):
        weights.append(f"block{g}.layer.0.convShortcut.weight")
        weights += [f"block{g}.layer.{i}.conv{k}.weight" for i in (0, 1) for k in (1, 2)]
        norms += [f"block{g}.layer.{i}.bn{k}" for i in (0, 1) for k in (1, 2)]
    assert states["trades-wrn-16-2"] == with_norms(weights, norms)

    weights, norms = ["conv1.weight", "linear.weight", "linear.bias"], ["bn1"]
    for g in (1, 2, 3, 4):
        weights += [f"layer{g}.{i}.conv{k}.weight" for i in (0, 1) for k in (1, 2)]
        norms += [f"layer{g}.{i}.bn{k}" for i in (0, 1) for k in (1, 2)]
        if g > 1:
            weights.append(f"layer{g}.0.shortcut.0.weight")
            norms.append(f"layer{g}.0.shortcut.1")
    assert states["resnet-18"] == with_norms(weights, norms)
    assert {"layer1.0.shortcut.0.weight", "layer3.5.conv3.weight", "layer4.2.bn3.bias"} <= states["resnet-50"]

    block = {"conv1.weight", "conv2.conv.weight", "conv3.weight", "conv2.fc1.weight", "conv2.fc1.bias"}
    block = with_norms(block | {"conv2.fc2.weight", "conv2.fc2.bias"}, ("bn1", "conv2.bn0", "conv2.bn1", "bn3"))
    assert {name for name in states["resnest-152"] if name.startswith("layer3.35.")} == {
        f"layer3.35.{n}" for n in block
    }
    stem = with_norms((f"conv1.{i}.weight" for i in (0, 3, 6)), ("conv1.1", "conv1.4", "bn1"))
    stem |= {"fc.weight", "fc.bias"} | with_norms(["layer1.0.downsample.1.weight"], ["layer1.0.downsample.2"])
    assert stem <= states["resnest-152"]
    assert {int(name.split(".")[1]) for name in states["resnest-152"] if name.startswith("layer3")} == set(range(36))

    squeezed = {f"se.fc{k}.{part}" for k in (1, 2) for part in ("weight", "bias")}
    for block in ("layer.0.block.29.", "layer.1.block.30.", "layer.2.block.9."):
        assert {name.removeprefix(block) for name in states["rawrn-70-16"] if name.startswith(block)} == squeezed | {
            name.removeprefix("layer.0.block.1.") for name in states["wrn-16-2"] if name.startswith("layer.0.block.1.")
        }


@pytest.fixture(
    params=[
        "wrn-10-1", "wrn-10-2-relu", "wrn-10-1-stem2", "trades-wrn-10-1", "preact-resnet-18", "resnet-18", "resnet-50",
        "rice-preact-resnet-18", "wong-preact-resnet-18", "wrn-r-34", "wrn-a-4", "rawrn-70-16", "resnest-152",
        "trades-wrn-10-1-pssilu",
    ]
)  # fmt: skip
def name(request, monkeypatch):
    """Those that are large for a test lose most of their blocks, some most of their channels."""
    monkeypatch.setattr(rawrn, "_BLOCKS", (1, 2, 1))
    monkeypatch.setattr(rawrn, "WIDTHS", (8, 16, 32))
    monkeypatch.setattr(robust_wide_resnet, "R_BLOCKS", (1, 2, 1))
    monkeypatch.setattr(robust_wide_resnet, "R_WIDTHS", (32, 64, 48))
    monkeypatch.setattr(robust_wide_resnet, "A_BLOCKS", (1, 2, 1))
    monkeypatch.setattr(robust_wide_resnet, "A_WIDTHS", (32, 64, 48))
    monkeypatch.setitem(rice_preact_resnet._BLOCKS, 18, (1, 2, 1, 1))
    monkeypatch.setitem(resnet._BLOCKS, 50, (1, 2, 1, 1))
    monkeypatch.setattr(resnest, "_BLOCKS", {152: (1, 2, 1, 1)})
    return request.param


def last_layer(model):
    return [module for module in model.modules() if isinstance(module, torch.nn.Linear)][-1]


def test_maps_images_to_logits_at_every_usual_size(name):
    model = build_model(name, CIFAR, rng_for(0)).eval()
    for size in (16, 32, 64):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 10)
    small = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
    if name.startswith(("wrn", "trades-wrn")):
        assert build_model(name, small)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_normalises_inside(name):
    """Other constants undo a shift and a scaling of the pixels."""
    other = DatasetInfo("x", CIFAR.classes, CIFAR.shape, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    first, second = build_model(name, CIFAR, rng_for(0)).eval(), build_model(name, other, rng_for(0)).eval()
    torch.nn.init.normal_(last_layer(first).weight, generator=torch.Generator().manual_seed(0))
    second.load_state_dict(first.state_dict())
    images = torch.rand(2, 3, 32, 32)
    mean, std = torch.tensor(CIFAR.mean).view(3, 1, 1), torch.tensor(CIFAR.std).view(3, 1, 1)
    torch.testing.assert_close(first(images), second((images - mean) / std * 0.5), rtol=1e-4, atol=1e-4)


def test_stride_two_pads_right_and_bottom_only():
    """A lone bright pixel in the last row and column meets the centre tap of some 3x3 kernel only if padded there."""
    model = build_model("wrn-10-1", CIFAR)
    convolution = model.layer[1].block[0].conv_0
    from robustgen.models.wide_resnet import pad_for

    with torch.no_grad():
        convolution.weight.zero_()
        convolution.weight[0, 0, 0, 0] = 1  # top left tap
    image = torch.zeros(1, convolution.in_channels, 4, 4)
    image[0, 0] = torch.arange(16.0).view(4, 4)
    out = convolution(pad_for(2, image))[0, 0]
    assert out.tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_initialisation_is_the_official_one_and_of_its_place(name):
    model = build_model(name, CIFAR, rng_for(0))
    again, other = build_model(name, CIFAR, rng_for(0)), build_model(name, CIFAR, rng_for(1))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    assert not model.eval()(torch.rand(2, 3, 32, 32)).any()  # a last layer of zeros: uniform predictions
    weights = torch.cat(
        [m.weight.flatten() * m.weight[0].numel() ** 0.5 for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    )
    assert weights.abs().max() <= 2 + 1e-5
    assert abs(weights.std() - 0.8796) < 0.01  # a normal cut at two deviations


def test_initialisation_does_not_depend_on_torchs_generator(name):
    torch.manual_seed(1)
    first = build_model(name, CIFAR, rng_for(0))
    torch.manual_seed(2)
    second = build_model(name, CIFAR, rng_for(0))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_names_of_the_forms_in_robustbench_are_those_of_their_weights():
    """Rice et al. 2020, Wong et al. 2020, Huang et al. 2021 and 2022, Dai et al. 2021, Pang et al. 2020."""
    with torch.device("meta"):
        states = {
            name: set(build_model(name, CIFAR).state_dict())
            for name in ("rice-preact-resnet-18", "wong-preact-resnet-18", "wrn-r-34", "wrn-a-4")
        }
        plain, pssilu, cosine = (
            set(build_model("trades-wrn-10-1" + end, CIFAR).state_dict()) for end in ("", "-pssilu", "-cosine")
        )
    weights, norms = ["conv1.weight", "linear.weight", "linear.bias"], ["bn"]
    for g in (1, 2, 3, 4):
        weights += [f"layer{g}.{i}.conv{k}.weight" for i in (0, 1) for k in (1, 2)]
        norms += [f"layer{g}.{i}.bn{k}" for i in (0, 1) for k in (1, 2)]
    weights += [f"layer{g}.0.shortcut.0.weight" for g in (2, 3, 4)]
    assert states["rice-preact-resnet-18"] == with_norms(weights, norms)
    assert states["wong-preact-resnet-18"] == with_norms(weights, norms[1:])

    for name, shortcut, last, blocks in (
        ("wrn-r-34", "convShortcut", "bn1", (5, 5, 5)),
        ("wrn-a-4", "shortcut.0", "norm1", (27, 28, 13)),
    ):
        weights, norms = ["stem_conv.weight", "fc.weight", "fc.bias"], [last]
        for g, count in enumerate(blocks):
            weights.append(f"blocks.{g}.layer.0.{shortcut}.weight")
            weights += [f"blocks.{g}.layer.{i}.conv{k}.weight" for i in range(count) for k in (1, 2)]
            norms += [f"blocks.{g}.layer.{i}.bn{k}" for i in range(count) for k in (1, 2)]
        assert states[name] == with_norms(weights, norms)

    places = ("", "block1.layer.0.", "block2.layer.0.", "block3.layer.0.")
    assert pssilu - plain == {f"{place}activation.{part}" for place in places for part in ("alpha", "beta")}
    assert plain - cosine == {"fc.bias"} and not cosine - plain


def test_parametric_shifted_silu_is_silu_without_its_shift():
    x = torch.linspace(-4, 4, 9)
    activation = PSSiLU()
    torch.testing.assert_close(activation(x), torch.nn.functional.silu(x))  # as it starts
    with torch.no_grad():
        activation.alpha.fill_(-1.0)
        activation.beta.fill_(-0.5)  # (sigmoid - 1/2) / (1/2) is tanh(x / 2)
    torch.testing.assert_close(activation(x), x * (x / 2).tanh())


def test_layers_share_one_parametric_activation_and_it_survives_saving(tmp_path):
    model = build_model("trades-wrn-10-1-pssilu", CIFAR, rng_for(0))
    assert sum(name.endswith(("alpha", "beta")) for name, _ in model.named_parameters()) == 2
    with torch.no_grad():
        model.activation.beta.fill_(0.25)
    save_classifier(tmp_path, model, "trades-wrn-10-1-pssilu", CIFAR)
    loaded = load_classifier(tmp_path)
    assert loaded.activation.beta == 0.25 and loaded.block3.layer[0].activation is loaded.activation


def test_cosine_layer_gives_cosines():
    layer = CosineLinear(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0, 0.0], [0.0, 7.0], [-3.0, -4.0]]))
    torch.testing.assert_close(layer(torch.tensor([[30.0, 40.0]])), torch.tensor([[0.6, 0.8, -1.0]]))
    model = build_model("trades-wrn-10-1-cosine", CIFAR, rng_for(0)).eval()
    found = model(torch.rand(2, 3, 32, 32))
    assert found.abs().max() <= 1 and found.std() > 0


def test_standardized_images_have_mean_0_and_deviation_1_each():
    images = torch.zeros(3, 3, 4, 4)
    images[0, :, :2] = 1.0  # half 0, half 1: deviation 1/2 sqrt(48 / 47)
    images[1] = images[0] / 2 + 0.25
    images[2] = 0.7  # constant: divided by 1 / sqrt(48)
    found = Standardize()(images)
    expected = (2 * images[0] - 1) * (47 / 48) ** 0.5
    torch.testing.assert_close(found[:2], torch.stack([expected, expected]))
    torch.testing.assert_close(found[2], torch.zeros(3, 4, 4), rtol=0, atol=1e-5)
    images[2, 0, 0, 0] += 0.01  # deviation 0.01 / sqrt(48): the floor holds
    found = Standardize()(images)[2, 0, 0, 0]
    torch.testing.assert_close(found, torch.tensor(0.01 * 47 / 48 * 48**0.5), rtol=1e-4, atol=0)
    model = build_model("trades-wrn-10-1-unnormalised-standardized", CIFAR, rng_for(0)).eval()
    torch.nn.init.normal_(last_layer(model).weight, generator=torch.Generator().manual_seed(0))
    images = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(model(images), model(images / 3 + 0.1), rtol=1e-3, atol=1e-3)


def test_shortcuts_start_from_the_activated_or_the_raw_input():
    x = -torch.ones(1, 1, 2, 2)
    for raw, expected in ((False, 0.0), (True, -1.0)):  # ReLU leaves nothing of a negative input
        block = rice_preact_resnet.RiceBlock(1, 2, 1, torch.relu, raw=raw).eval()
        with torch.no_grad():
            block.conv2.weight.zero_()
            block.shortcut[0].weight.fill_(1.0)
        assert (block(x) == expected).all()


def test_unnormalised_networks_see_the_pixels_themselves():
    model = build_model("trades-wrn-10-1-unnormalised", CIFAR)
    images = torch.rand(2, 3, 32, 32)
    assert torch.equal(model.normalize(images), images)
    assert build_model("wrn-10-1-relu-unnormalised", CIFAR).activation is torch.nn.functional.relu


def test_a_stem_of_stride_two_halves_the_image():
    model = build_model("wrn-10-1-stem2", CIFAR)
    shapes = []
    model.init_conv.register_forward_hook(lambda module, given, out: shapes.append(tuple(out.shape)))
    model(torch.rand(2, 3, 64, 64))
    assert shapes == [(2, 16, 32, 32)]


def test_trades_wide_resnet_is_the_wide_resnet_but_for_padding():
    """Equal weights give equal features up to the first stride; there a corner pixel falls on another tap."""
    ours, theirs = build_model("wrn-16-2-relu", CIFAR, rng_for(0)).eval(), build_model("trades-wrn-16-2", CIFAR).eval()
    renamed = {
        name.replace("init_conv", "conv1")
        .replace("layer.2.block", "block3.layer").replace("layer.1.block", "block2.layer")
        .replace("layer.0.block", "block1.layer").replace("shortcut", "convShortcut")
        .replace("batchnorm_0", "bn1").replace("batchnorm_1", "bn2").replace("batchnorm", "bn1")
        .replace("conv_0", "conv1").replace("conv_1", "conv2").replace("logits", "fc"): value
        for name, value in ours.state_dict().items()
    }  # fmt: skip
    theirs.load_state_dict(renamed)
    x = torch.randn(2, 16, 8, 8)
    torch.testing.assert_close(theirs.block1(x), ours.layer[0](x))
    with torch.no_grad():
        for convolution in (ours.layer[1].block[0].conv_0, theirs.block2.layer[0].conv1):
            convolution.weight.zero_()
            convolution.weight[0, 0, 1, 1] = 1
    from robustgen.models.wide_resnet import pad_for

    x = torch.zeros(1, 32, 4, 4)
    x[0, 0] = torch.arange(16.0).view(4, 4)
    assert ours.layer[1].block[0].conv_0(pad_for(2, x))[0, 0].tolist() == [[5.0, 7.0], [13.0, 15.0]]
    assert theirs.block2.layer[0].conv1(x)[0, 0].tolist() == [[0.0, 2.0], [8.0, 10.0]]


def test_attention_that_knows_nothing_is_a_mean():
    x = torch.rand(2, 16, 5, 5)
    attention = _SplitAttention(16, torch.nn.functional.relu).eval()
    torch.nn.init.zeros_(attention.fc2.weight), torch.nn.init.zeros_(attention.fc2.bias)
    splits = attention.bn0(attention.conv(x)).relu().view(2, 4, 16, 5, 5)
    torch.testing.assert_close(attention(x), splits.mean(1))
    with torch.no_grad():
        attention.fc2.bias.view(4, 16)[2] = 50.0  # all weight on the third split
    torch.testing.assert_close(attention(x), splits[:, 2])
    squeeze = _SqueezeExcitation(16)
    torch.nn.init.zeros_(squeeze.fc2.weight), torch.nn.init.zeros_(squeeze.fc2.bias)
    torch.testing.assert_close(squeeze(x), x / 2)


def test_building_leaves_torchs_generator_alone(name):
    state = torch.get_rng_state()
    build_model(name, CIFAR, rng_for(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_classifier_gives_the_same_logits(name, tmp_path):
    model = build_model(name, CIFAR, rng_for(0)).eval()
    torch.nn.init.normal_(last_layer(model).weight, generator=torch.Generator().manual_seed(0))
    save_classifier(tmp_path, model, name, CIFAR, threat="linf:8/255")
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(load_classifier(tmp_path)(images), model(images), rtol=1e-5, atol=1e-5)
    assert read_model_json(tmp_path)["threat"] == "linf:8/255"
    with pytest.raises(ValueError, match="no finished classifier"):
        load_classifier(tmp_path / "none")


def test_every_example_builds():
    with torch.device("meta"):
        for example in EXAMPLES:
            build_model(example, CIFAR)
    assert {example.rsplit("-", 1)[0].rstrip("-0123456789") for example in EXAMPLES} == set(MODELS)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("resnet", "unknown architecture"),
        ("wrn-28-10-gelu", "unknown architecture"),
        ("wrn-28", "wrong number of sizes"),
        ("wrn-12-1", "6n"),
        ("wrn-28-0", "width"),
        ("preact-resnet-50", "18, 34"),
        ("preact-resnet-18-stem2", "an option that its family lacks"),
        ("wrn-10-1-cosine", "an option that its family lacks"),
        ("rice-preact-resnet-34", "18, got 34"),
        ("wrn-r-28", "wrn-r-34"),
        ("wrn-a-3", "wrn-a-4"),
        ("resnet-20", "18, 34, 50, 101, 152"),
        ("resnest-50", "152"),
        ("rawrn-28-10", "the only RaWRN is rawrn-70-16"),
        ("trades-wrn-12-1", "6n"),
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, CIFAR)
