import pytest
import torch

from robustgen.images import DatasetInfo
from robustgen.models import EXAMPLES, MODELS, build_model
from robustgen.models.saved import load_classifier, read_about, save_classifier
from robustgen.randomness import rng_for

CIFAR = DatasetInfo("cifar10", tuple("abcdefghij"), (3, 32, 32), (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))

PARAMETERS = {  # arXiv:2010.03593 and 2103.01946: from the definitions, running statistics excluded
    ("wrn-28-10", 10): 36_479_194,
    ("wrn-28-10", 100): 36_536_884,
    ("wrn-34-10", 10): 46_160_474,
    ("wrn-34-20", 10): 184_531_674,
    ("wrn-70-16", 10): 266_796_506,
    ("wrn-106-16", 10): 415_475_162,
    ("preact-resnet-18", 10): 12_548_426,
    ("preact-resnet-18", 100): 12_594_596,
    ("preact-resnet-34", 10): 22_656_586,
    ("wrn-10-1", 10): 77_850,
    ("wrn-16-4", 10): 2_748_890,
    ("wrn-28-1", 10): 369_498,
}


@pytest.mark.parametrize(("name", "classes"), PARAMETERS)
def test_has_the_published_number_of_parameters(name, classes):
    info = DatasetInfo("x", tuple(map(str, range(classes))), (3, 32, 32), CIFAR.mean, CIFAR.std)
    with torch.device("meta"):
        model = build_model(name, info)
    assert sum(parameter.numel() for parameter in model.parameters()) == PARAMETERS[name, classes]


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


@pytest.fixture(params=["wrn-10-1", "wrn-10-2-relu", "preact-resnet-18"])
def name(request):
    return request.param


def test_maps_images_to_logits_at_every_usual_size(name):
    model = build_model(name, CIFAR, rng_for(0)).eval()
    for size in (16, 32, 64):
        assert model(torch.rand(2, 3, size, size)).shape == (2, 10)
    small = DatasetInfo("digits", tuple("0123456789"), (1, 8, 8), (0.3,), (0.4,))
    if name.startswith("wrn"):
        assert build_model(name, small)(torch.rand(2, 1, 8, 8)).shape == (2, 10)


def test_normalises_inside(name):
    """Other constants undo a shift and a scaling of the pixels."""
    other = DatasetInfo("x", CIFAR.classes, CIFAR.shape, (0.0, 0.0, 0.0), (0.5, 0.5, 0.5))
    first, second = build_model(name, CIFAR, rng_for(0)).eval(), build_model(name, other, rng_for(0)).eval()
    torch.nn.init.normal_(first.logits.weight, generator=torch.Generator().manual_seed(0))
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
    assert not model(torch.rand(2, 3, 32, 32)).any()  # a last layer of zeros: uniform predictions
    weights = torch.cat(
        [m.weight.flatten() * m.weight[0].numel() ** 0.5 for m in model.modules() if isinstance(m, torch.nn.Conv2d)]
    )
    assert weights.abs().max() <= 2 + 1e-5
    assert abs(weights.std() - 0.8796) < 0.01  # a normal cut at two deviations


def test_building_leaves_torchs_generator_alone(name):
    state = torch.get_rng_state()
    build_model(name, CIFAR, rng_for(0))
    assert torch.equal(torch.get_rng_state(), state)


def test_a_saved_classifier_gives_the_same_logits(name, tmp_path):
    model = build_model(name, CIFAR, rng_for(0)).eval()
    torch.nn.init.normal_(model.logits.weight, generator=torch.Generator().manual_seed(0))
    save_classifier(tmp_path, model, name, CIFAR, threat="linf:8/255")
    images = torch.rand(3, 3, 32, 32)
    torch.testing.assert_close(load_classifier(tmp_path)(images), model(images), rtol=1e-5, atol=1e-5)
    assert read_about(tmp_path)["threat"] == "linf:8/255"
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
    ],
)
def test_unknown_names_are_answered_with_known_ones(name, message):
    with pytest.raises(ValueError, match=message):
        build_model(name, CIFAR)
