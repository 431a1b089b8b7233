"""What batches are made of: shares, several proxy sets, phases, repetition, shares of a batch."""

import numpy as np
import pytest
import torch

from robustgen.augment import AUGMENTATIONS
from robustgen.cli.train import sources_of
from robustgen.config.loading import override
from robustgen.config.recipe import Arm, Phase
from robustgen.config.training import ScheduleConfig, TrainingConfig
from robustgen.generators import Gaussian
from robustgen.pipeline.graph import stages
from robustgen.proxy.sampling import sample_proxies
from robustgen.recipes import RECIPES
from robustgen.report.tables import name_of
from robustgen.storage.run_folder import RunDir
from robustgen.training import mixing
from robustgen.training.mixing import Mixture, PhasePlan, phase_plans


@pytest.fixture
def sets(tiny_images, tiny_info, tmp_path):
    """Three proxy sets of 24, 30 and 36 images, no image in two of them."""
    model = Gaussian(tiny_info.shape, 3)
    model.fit(tiny_images)
    found = []
    for number, count in enumerate((24, 30, 36)):
        made = sample_proxies(model, count, tmp_path / f"set{number}", classes=tiny_info.classes, seed=number)
        made.add_columns({}, label=(np.arange(count) % 3).astype(np.int32))
        found.append(made)
    return found


def used(images):
    """The bytes of each image."""
    return [image.tobytes() for image in (images * 255).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()]


def contents(proxies):
    return {image.tobytes() for image in proxies.images(np.arange(len(proxies)))}


def counts(batch, sets):
    """Originals, and images of each set."""
    made = used(batch.images[batch.generated])
    return int((~batch.generated).sum()), *(sum(image in contents(one) for image in made) for one in sets)


def test_sets_share_the_generated_images_by_weight(tiny_images, sets):
    for weights, expected in (((1, 1, 1), (6, 5, 5)), ((3, 1, 0.0001), (12, 4, 0)), ((1, 2, 5), (2, 4, 10))):
        stretch = PhasePlan(None, 0.2, tuple(zip(sets, weights, strict=True)))
        batch = Mixture(tiny_images, [stretch], batch_size=20).batch(0)
        assert counts(batch, sets) == (4, *expected)


def test_phases_follow_one_another_and_a_set_goes_on_where_it_was(tiny_images, sets):
    first, second, _ = sets
    stretches = [
        PhasePlan(2, 0.0, ((first, 1.0),)),
        PhasePlan(2, 0.4, ((second, 1.0),)),
        PhasePlan(4, 0.0, ((first, 1.0),)),
    ]
    mixture = Mixture(tiny_images, stretches, batch_size=10)
    told = [counts(mixture.batch(t), sets)[:3] for t in range(8)]
    assert told == [(0, 10, 0)] * 2 + [(4, 0, 6)] * 2 + [(0, 10, 0)] * 4
    seen = [image for t in (0, 1, 4) for image in used(mixture.batch(t).images)]
    assert set(seen[:24]) == contents(first)  # all 24 once, over both phases, before any comes again
    again = Mixture(tiny_images, stretches, batch_size=10)
    assert torch.equal(again.batch(6).images, mixture.batch(6).images)


def test_the_law_of_large_models_as_an_arm(tiny_images, sets):
    """Bartoldson et al.: three sets in turn for 60 % of the run, generated alone, then an eighth of real images."""
    names = [str(one.folder) for one in sets]
    ends = (0.2, 0.4, 0.6, 0.7, 0.8, 1.0)
    arm = Arm(
        phases=[
            Phase(until=end, proxies={names[i % 3]: 1}, real_share=0.0 if end <= 0.6 else 0.125)
            for i, end in enumerate(ends)
        ]
    )
    settings = TrainingConfig(schedule=ScheduleConfig(total_images=160 * 8, batch_size=8, peak_lr=0.1))
    mixture = Mixture(tiny_images, phase_plans(arm, settings), batch_size=8)
    assert counts(mixture.batch(0), sets) == (0, 8, 0, 0)
    assert counts(mixture.batch(95), sets) == (0, 0, 0, 8)
    assert counts(mixture.batch(96), sets) == (1, 7, 0, 0)
    assert counts(mixture.batch(159), sets) == (1, 0, 0, 7)


def test_originals_stand_several_times_each_augmented_anew(tiny_images, sets):
    """As four workers that read one stream: 308 of 1024 are originals, 77 different ones."""
    mixture = Mixture(tiny_images, sets[0], batch_size=1024, real_share=0.3, repeats=4)
    assert mixture.real_count == 308
    batch = Mixture(tiny_images, sets[0], batch_size=40, real_share=0.6, repeats=4).batch(3)
    rows = used(batch.images[~batch.generated])
    assert len(rows) == 24 and all(len(set(rows[i : i + 4])) == 1 for i in range(0, 24, 4)) and len(set(rows)) == 6
    for share in range(4):  # a worker's share has each original once
        assert len(set(used(batch.share(share, 4).images[:6]))) == 6
    varied = Mixture(tiny_images, sets[0], batch_size=40, real_share=0.6, repeats=4, augment=AUGMENTATIONS["crop-flip"])
    rows = used(varied.batch(3).images[:24])
    assert len(set(rows)) > 12
    with pytest.raises(ValueError, match=r"batch_size \(42\) must be a multiple of the 4 repeats"):
        Mixture(tiny_images, batch_size=42, repeats=4)


def test_originals_that_stand_several_times_are_mixed_as_in_the_official_code(tiny_images, sets):
    """Its `cutmix(split=4)`: partners of the copies are copies, so that four rows have one mixed label."""
    mixture = Mixture(tiny_images, batch_size=24, repeats=4, augment=AUGMENTATIONS["crop-flip+cutmix"])
    batches = [mixture.batch(step).targets.view(6, 4, 3) for step in range(6)]
    assert all(torch.equal(rows, rows[:, :1].expand_as(rows)) for rows in batches)
    assert any(((rows > 0) & (rows < 1)).any() for rows in batches)
    # Generated images are not repeated: originals with original partners agree, some with generated ones do not.
    mixture = Mixture(
        tiny_images, sets[0], batch_size=40, real_share=0.6, repeats=4, augment=AUGMENTATIONS["crop-flip+cutmix"]
    )
    agree = [(rows == rows[:, :1]).all((1, 2)) for t in range(6) for rows in [mixture.batch(t).targets.view(10, 4, 3)]]
    assert any(found[:6].any() for found in agree) and not all(found.all() for found in agree)


def test_drawing_with_replacement_repeats_before_the_round_is_over(tiny_images, sets):
    mixture = Mixture(tiny_images, sets[0], batch_size=24, real_share=0.0, order="replacement")
    rows = used(mixture.batch(0).images)
    assert set(rows) <= contents(sets[0]) and len(set(rows)) < 24
    assert used(mixture.batch(0).images) == rows != used(mixture.batch(1).images)


def test_shares_of_a_batch_make_it_up_and_each_has_originals(tiny_images, sets):
    batch = Mixture(tiny_images, sets[0], batch_size=24, real_share=0.5).batch(0)
    parts = [batch.share(which, 3) for which in range(3)]
    assert all(int((~part.generated).sum()) == 4 for part in parts)
    for name in ("images", "targets", "generated"):
        whole = torch.stack([getattr(part, name) for part in parts], dim=1).flatten(0, 1)
        assert torch.equal(whole, getattr(batch, name))
    assert batch.share(0, 1) is batch


def test_reading_ahead_changes_nothing(tiny_images, sets, monkeypatch):
    def batches():
        mixture = Mixture(
            tiny_images, sets[1], batch_size=16, real_share=0.25, augment=AUGMENTATIONS["shift-1"], seed=3
        )
        return mixture, [mixture.batch(t) for t in (0, 1, 2, 9, 10, 4)]

    plain, expected = batches()
    monkeypatch.setattr(mixing, "_free_bytes", lambda device: 0)
    ahead, found = batches()
    assert plain._reader is None and ahead._reader is not None
    for one, other in zip(expected, found, strict=True):
        assert torch.equal(one.images, other.images) and torch.equal(one.targets, other.targets)
    (sets[1].folder / "images-00000.npy").write_bytes(b"broken")
    sets[1]._mapped.clear()
    with pytest.raises(ValueError, match=r"images-00000\.npy is missing or damaged"):
        ahead.batch(20)


def test_every_set_must_fit_the_images(tiny_images, sets):
    sets[2].manifest["classes"] = ["a", "b"]
    with pytest.raises(ValueError, match=r"set2 holds images of shape \(1, 8, 8\) in 2 classes; tiny has .* in 3"):
        Mixture(tiny_images, [PhasePlan(None, 0.5, ((sets[0], 1.0), (sets[2], 1.0)))], batch_size=8)
    with pytest.raises(ValueError, match=r"real_share 0\.5 needs a proxy set"):
        Mixture(tiny_images, [PhasePlan(4, 0.0, ((sets[0], 1.0),)), PhasePlan(4, 0.5, ())], batch_size=8)


def test_an_arm_says_its_phases_to_the_end():
    assert Arm(proxy="edm").proxies == ("edm",) and Arm().proxies == ()
    several = Arm(phases=[Phase(until=0.6, proxies={"edm": 1, "gan": 2}), Phase(proxies={"edm": 1})])
    assert several.proxies == ("edm", "gan")
    assert several.placed(str.upper).phases[0].proxies == {"EDM": 1, "GAN": 2}
    for wrong, message in (
        ({"phases": [Phase(until=0.5, proxies={"a": 1})]}, "the last at 1, got 0.5"),
        ({"phases": [Phase(proxies={"a": 1}), Phase(proxies={"a": 1})]}, "in increasing order"),
        ({"proxy": "a", "phases": [Phase(proxies={"a": 1})]}, "either a proxy or phases"),
        ({"phases": [Phase()]}, "set its real_share to 1"),
    ):
        with pytest.raises(ValueError, match=message):
            Arm(**wrong)


def test_proxy_sets_on_the_command_line():
    assert sources_of([]) == Arm() and sources_of(["p/edm"]) == Arm(proxy="p/edm")
    assert sources_of(["edm=2", "gan"]) == Arm(phases=[Phase(proxies={"edm": 2, "gan": 1})])
    assert sources_of(["edm@0-0.6", "gan@0.6-1", "edm=3@0.6-1"]) == Arm(
        phases=[Phase(until=0.6, proxies={"edm": 1}), Phase(proxies={"gan": 1, "edm": 3})]
    )
    with pytest.raises(ValueError, match=r"no --proxy covers the run from 0\.5 to 0\.7"):
        sources_of(["edm@0-0.5", "gan@0.7-1"])
    with pytest.raises(ValueError, match="got nothing"):
        sources_of([""])


def test_a_run_trains_phases_after_all_their_sets_and_names_them(tmp_path):
    phases = [Phase(until=0.5, proxies={"gaussian": 1}), Phase(proxies={"edm": 1, "gaussian": 1})]
    recipe = RECIPES["digits-smoke"].model_copy(update={"arms": {"real": Arm(), "both": Arm(phases=phases)}})
    by_name = {stage.name: stage for stage in stages(recipe, RunDir(tmp_path))}
    assert by_name["train both-0"].needs == ("keep gaussian", "keep edm")
    assert by_name["train real-0"].needs == ("data",)
    names = [name_of(recipe.to_json(), arm) for arm in ("real", "both")]
    assert names == ["real only", "real + gaussian + edm"]
    with pytest.raises(ValueError, match="arm both names generator 'gaussian', which the recipe does not have"):
        override(recipe, ["generators={}"])
