"""What `import robustgen` offers, on tiny data."""

import subprocess
import sys

import pytest
import torch

import robustgen
from conftest import REPOSITORY
from robustgen.config.generators import GaussianConfig
from robustgen.generators import build_generator, save_generator
from robustgen.images import to_bytes
from robustgen.proxy.sampling import sample_batch

LINF = robustgen.ThreatModel("linf", 8 / 255)


def test_importing_loads_no_torch():
    subprocess.run([sys.executable, "-c", "import robustgen, sys; assert 'torch' not in sys.modules"], check=True)


def test_every_public_name_is_found():
    assert set(dir(robustgen)) == set(robustgen.__all__)
    assert all(getattr(robustgen, name) is not None for name in robustgen.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = robustgen.nothing


def test_a_created_model_is_attacked_without_a_stream():
    model = robustgen.create_model("wrn-10-1", classes=5, shape=(1, 8, 8)).eval()
    torch.nn.init.normal_(model.logits.weight, generator=torch.Generator().manual_seed(0))
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = model(images).argmax(1)
    assert "wrn-10-1" in robustgen.list_models()
    inner = robustgen.PGD(2)
    for attack in (inner, robustgen.APGD(2), robustgen.FAB(2), robustgen.Square(3), robustgen.Restarts(inner, 2)):
        found = attack(model, images, labels, LINF)
        assert LINF.contains(found, images).all()
        assert torch.equal(found, attack(model, images, labels, LINF, robustgen.rng_for(0, "attack")))


def test_train_returns_a_classifier_that_load_model_reads(tmp_path):
    images = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(12) % 3
    options = {"architecture": "wrn-10-1", "threat": LINF, "batch_size": 4, "attack": {"steps": 1}}
    model = robustgen.train(images, labels, steps=2, into=tmp_path / "m", **options)
    assert not model.training and model(images).shape == (12, 3)
    again = robustgen.load_model(tmp_path / "m")
    torch.testing.assert_close(again(images), model(images), rtol=1e-5, atol=1e-5)
    verdicts = robustgen.evaluate(model, images, labels, LINF, "quick")
    assert isinstance(verdicts, robustgen.Verdicts) and len(verdicts) == 12
    found = robustgen.certify(model, images[:2], labels[:2], 0.25, samples=20, selection=5)
    assert isinstance(found, robustgen.Certificates)
    with pytest.raises(ValueError, match="holds a finished classifier"):
        robustgen.train(images, labels, steps=2, into=tmp_path / "m", **options)
    with pytest.raises(ValueError, match="either steps or epochs"):
        robustgen.train(images, labels)
    plain = robustgen.train(images, labels, epochs=1, loss=robustgen.Plain(), **options)
    assert not plain.training


def test_a_folder_of_train_knows_its_loss_in_another_process(tmp_path):
    """Objects print their functions with addresses, which no other process repeats."""
    images, labels = torch.rand(4, 1, 8, 8), torch.arange(4) % 2
    options = {"architecture": "wrn-10-1", "threat": LINF, "batch_size": 4, "steps": 1}
    loss = robustgen.TRADES(attack=robustgen.PGD(1, 0.25))
    robustgen.train(images, labels, into=tmp_path, loss=loss, **options)
    said = (tmp_path / "asked.json").read_text()
    assert "TRADES(beta=6.0" in said and " at 0x" not in said
    settings = {"kind": "mart", "beta": 5, "attack": {"steps": 1}}
    assert not robustgen.train(images, labels, loss=settings, **options).training


def test_a_loaded_generator_samples_what_the_command_samples(tiny_images, tmp_path):
    settings = GaussianConfig()
    model = build_generator(settings, tiny_images.info, robustgen.rng_for(0))
    model.fit(tiny_images)
    save_generator(tmp_path, model, settings, tiny_images.info)
    generator = robustgen.load_generator(tmp_path)
    labels = torch.arange(7) % generator.classes
    images = generator.sample(labels, seed=3)
    assert images.shape == (7, *generator.shape)
    expected = sample_batch(generator.model, labels.new_tensor(range(7)).numpy(), 3, "cpu")
    assert torch.equal(to_bytes(images).permute(0, 2, 3, 1), expected)
    assert torch.equal(images, generator.sample(labels, robustgen.rng_for(3, "sample")))


def test_run_refuses_what_it_cannot_do(tmp_path):
    with pytest.raises(ValueError, match="unknown recipe 'nothing'"):
        robustgen.run("nothing", tmp_path)
    with pytest.raises(ValueError, match="several seeds"):
        robustgen.run(REPOSITORY / "docs/study/digits-ports/recipe.yaml", tmp_path)
    with pytest.raises(ValueError, match="unknown device 'tpu'; known: auto, cpu, cuda, cuda:N"):
        robustgen.run("digits-smoke", tmp_path / "run", device="tpu")
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_run_returns_the_results_of_a_recipe(tmp_path):
    results = robustgen.run("digits-smoke", tmp_path / "run", jobs=1, device="cpu", seed=1)
    assert results.recipe["seed"] == 1 and results.verdicts
