"""Sets together: merging in shares, duplicates, copies of real images; and the command line of it."""

import subprocess
import sys

import numpy as np
import pytest

from robustgen import cli
from robustgen.config.recipe import KeepConfig
from robustgen.proxy.copies import COPIES, NearDuplicate, find_copies, nearest_distances, repeats
from robustgen.proxy.exchange import import_proxies
from robustgen.proxy.filtering import keep
from robustgen.proxy.formats import PublishedSet
from robustgen.proxy.merging import merge, per_class_of
from robustgen.proxy.store import ProxySet

SHAPE = (8, 8, 3)


def set_of(folder, images, labels, shard_images=40, classes=("a", "b", "c")):
    source = PublishedSet(images.shape[1:], labels.astype(np.int32), classes, lambda first: iter([images[first:]]))
    return import_proxies(source, folder, made_by={"kind": folder.name}, shard_images=shard_images)


def drawn(count, seed):
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


@pytest.fixture
def sets(tmp_path):
    return [set_of(tmp_path / name, drawn(n, n), np.arange(n) % 3) for name, n in (("A", 90), ("B", 120))]


@pytest.fixture
def robustgen(monkeypatch, capsys):
    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["robustgen", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        said = capsys.readouterr()
        return end.value.code, said.out, said.err

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.name != ".lock"}


def test_merged_sets_hold_all_and_keep_their_shares_of_each_class(sets, tmp_path):
    merged = merge(sets, [1, 2], tmp_path / "C")
    assert len(merged) == 210 and [e["count"] for e in merged.manifest["shards"]] == [40, 40, 10, 40, 40, 40]
    assert np.array_equal(merged.block(0, 210), np.concatenate([drawn(90, 90), drawn(120, 120)]))
    index = np.array([209, 0, 89, 90, 130, 3])
    assert np.array_equal(merged.images(index), merged.block(0, 210)[index])
    source, label, kept = (merged.column(name) for name in ("source", "label", "kept"))
    assert source.tolist() == [0] * 90 + [1] * 120
    counts = np.zeros((2, 3), int)
    np.add.at(counts, (source[kept], label[kept]), 1)
    assert counts.tolist() == [[20] * 3, [40] * 3]
    assert merged.manifest["counts"] == {"label": [70] * 3, "kept": [60] * 3}
    merged.verify()
    assert (tmp_path / "C" / "images-00003.npy").samefile(sets[1].folder / "images-00000.npy")


def test_merging_again_gives_the_same_and_another_seed_another_draw(sets, tmp_path):
    first = contents(merge(sets, [1, 1], tmp_path / "C").folder)
    assert contents(merge(sets, [1, 1], tmp_path / "C").folder) == first
    (tmp_path / "C" / "manifest.json").unlink()
    assert contents(merge(sets, [1, 1], tmp_path / "C").folder) == first
    other = merge(sets, [1, 1], tmp_path / "D", seed=1)
    assert other.column("kept").sum() == 180 and (other.column("kept")[90:] != merge_kept(tmp_path / "C")[90:]).any()
    with pytest.raises(ValueError, match="was created with different settings: generator"):
        merge(sets, [1, 2], tmp_path / "C")


def merge_kept(folder):
    return ProxySet(folder).column("kept")


def test_sets_give_what_they_keep_and_may_go(sets, tmp_path):
    keep(sets[0], KeepConfig(rule="balanced", per_class=5))
    merged = merge(sets, [1, 1], tmp_path / "C")
    kept = merged.column("kept")
    assert np.flatnonzero(kept[:90]).tolist() == list(range(15)) and kept.sum() == 30
    for path in sets[0].folder.iterdir():
        path.unlink()
    ProxySet(tmp_path / "C").verify()


def test_shares_are_kept_as_far_as_the_scarcest_class_goes():
    a, b = np.array([10, 20]), np.array([100, 90])
    assert per_class_of([a, b], [1, 2], ["A", "B"]) == [10, 20]
    assert per_class_of([a, b], [1, 20], ["A", "B"]) == [4, 90]
    assert per_class_of([a, b], [0.1, 0.3], ["A", "B"]) == [10, 30]
    with pytest.raises(ValueError, match="select no image per class from A, whose class 1 has 0"):
        per_class_of([np.array([3, 0]), b], [1, 1], ["A", "B"])


def test_sets_that_do_not_fit_are_refused(sets, tmp_path):
    other = set_of(tmp_path / "O", drawn(30, 1)[:, :4], np.arange(30) % 3)
    with pytest.raises(ValueError, match="cannot be merged"):
        merge([sets[0], other], [1, 1], tmp_path / "C")
    with pytest.raises(ValueError, match="a positive share for each"):
        merge(sets, [1, 0], tmp_path / "C")
    assert not (tmp_path / "C").exists()


def test_where_links_cannot_be_made_shards_are_copied(sets, tmp_path, monkeypatch):
    def refuse(old, new):
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr("os.link", refuse)
    merged = merge(sets, [1, 1], tmp_path / "C")
    merged.verify()
    assert not (tmp_path / "C" / "images-00000.npy").samefile(sets[0].folder / "images-00000.npy")


def test_repeats_are_all_but_the_first():
    assert repeats(np.array([5, 3, 5, 5, 3, 1])).tolist() == [False, False, True, True, True, False]


@pytest.fixture
def copied(tmp_path):
    """60 images: 10 and 20 are alike; 3 is training image 4; 50 is test image 0; 7 is nearly training image 9."""
    images, train, test = drawn(60, 0), drawn(30, 1), drawn(20, 2)
    images[20], images[3], images[50] = images[10], train[4], test[0]
    images[7] = np.clip(train[9].astype(int) + np.random.default_rng(3).integers(-3, 4, SHAPE), 0, 255)
    images[33] = images[32]
    images[33, 0, 0, 0] ^= 2
    return set_of(tmp_path / "P", images, np.arange(60) % 3), {"training": train, "test": test}


def test_copies_are_found_and_can_be_left_out(copied):
    proxies, real = copied
    found = find_copies(proxies, real)
    assert found == {
        **dict.fromkeys(COPIES, 0),
        "duplicates": 1,
        "copies of training images": 1,
        "copies of test images": 1,
    }
    assert np.flatnonzero(proxies.column("copy")).tolist() == [3, 20, 50]
    keep(proxies, KeepConfig(rule="all", without_copies=True))
    assert len(proxies.kept()) == 57 and not {3, 20, 50} & set(proxies.kept())
    keep(proxies, KeepConfig(rule="balanced", per_class=5, without_copies=True))
    assert proxies.kept().tolist() == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15]
    with pytest.raises(ValueError, match="cannot keep 20 images of each class"):
        keep(proxies, KeepConfig(rule="balanced", per_class=20, without_copies=True))


def test_near_copies_are_found_by_either_distance(copied):
    proxies, real = copied
    found = find_copies(proxies, real, near=NearDuplicate("linf", 4 / 255, within=True))
    assert (found["near-copies of training images"], found["near-copies of test images"], found["near-duplicates"]) == (
        2,
        1,
        2,
    )
    flags = proxies.column("copy")
    assert (
        flags[7] == COPIES["near-copies of training images"]
        and flags[33] == COPIES["near-duplicates"]
        and not flags[32]
    )
    train = (proxies.block(0, 60)[:, None].astype(int) - real["training"][None]).reshape(60, 30, -1)
    find_copies(proxies, real, near=NearDuplicate("l2", 0.5))
    exact = np.sqrt((train**2).sum(2)).min(1) / 255
    np.testing.assert_allclose(proxies.column("training_distance"), exact, rtol=1e-6)
    assert proxies.column("training_distance")[3] == 0
    assert not (proxies.folder / "checking").exists()


def test_the_nearest_do_not_depend_on_blocks(monkeypatch):
    images, others = drawn(50, 0), drawn(70, 1)
    others[69] = images[4]

    def found(size):
        return nearest_distances(images, [(k, others[k : k + size]) for k in range(0, 70, size)], "l2")

    exact = np.sqrt(((images[:, None].astype(int) - others[None]) ** 2).reshape(50, 70, -1).sum(2)).min(1) / 255
    for size in (70, 16, 1):
        np.testing.assert_allclose(found(size), exact, rtol=1e-6)
    assert found(16)[4] == 0


def test_a_check_broken_off_goes_on(copied, monkeypatch):
    proxies, real = copied
    monkeypatch.setattr("robustgen.proxy.copies.BLOCK_ROWS", 16)
    monkeypatch.setattr("robustgen.proxy.partial_rows.SECONDS", 0.0)
    near = NearDuplicate("l2", 0.5, within=True)
    find_copies(proxies, real, near=near)
    whole = contents(proxies.folder)

    def dies(done, total, unit, note=""):
        if note and done >= 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        find_copies(proxies, real, near=near, progress=dies)
    assert (proxies.folder / "checking").exists()
    with pytest.raises(ValueError, match="was created with different settings: norm"):
        find_copies(ProxySet(proxies.folder), real, near=NearDuplicate("linf", 0.1, within=True))
    find_copies(ProxySet(proxies.folder), real, near=near)
    assert contents(proxies.folder) == whole


def test_real_images_of_another_size_are_refused(copied):
    proxies, _ = copied
    with pytest.raises(ValueError, match=r"the training images have \(4, 4, 3\)"):
        find_copies(proxies, {"training": np.zeros((2, 4, 4, 3), np.uint8)})


def test_the_command_line_merges_and_checks(sets, tmp_path, robustgen):
    a, b = (s.folder for s in sets)
    for shares in (["1", "2"], ["1:2"]):
        into = tmp_path / f"C{len(shares)}"
        code, out, err = robustgen("merge", a, b, "--shares", *shares, "--into", into)
        assert code == 0, err
        assert f"180 of 210 images kept: 60 of {a}, 120 of {b}" in out
    assert contents(tmp_path / "C1") == contents(tmp_path / "C2")
    np.savez(tmp_path / "real.npz", image=drawn(90, 90)[:20], label=np.arange(20) % 3)
    np.savez(tmp_path / "real_test.npz", image=drawn(120, 120)[5:15], label=np.arange(10) % 3)
    line = ("check", tmp_path / "C1", "--data", f"npz={tmp_path / 'real.npz'}")
    code, out, err = robustgen(*line, "--near", "l2:0.1")
    assert code == 0, err
    assert "0 duplicates, 20 copies of training images, 10 copies of test images, 20 near-copies of training" in out
    code, out, err = robustgen("check", tmp_path / "C1")
    assert code == 0 and "210 images as they were made; 0 duplicates" in out, err
    shard = tmp_path / "C1" / "images-00001.npy"
    damaged = bytearray(shard.read_bytes())
    damaged[-1] ^= 1
    shard.unlink()
    shard.write_bytes(damaged)
    code, _, err = robustgen("check", tmp_path / "C1")
    assert code == 2 and "images-00001.npy is missing or differs" in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("merge A nowhere --shares 1 2 --into C", "nowhere holds no finished proxy set"),
        ("merge A B --shares 1 2 3 --into C", "expected a share for each of 2 proxy sets, got 3"),
        ("merge A B --shares one:two --into C", "expected a number"),
        ("merge A B --shares 0 1 --into C", "a positive share for each"),
        ("keep A --rule balanced --per-class 31", "cannot keep 31 images of each class: class 0 has 30"),
        ("keep A --rule by-column", "a column go together"),
        ("keep A --rule above-confidence", "has no column 'confidence'; run: robustgen label"),
        ("keep A --rule balanced --without-copies", "has no column 'copy'; run: robustgen check"),
        ("keep A --rule boundary --uniform 2", "uniform: input should be less than or equal to 1"),
        ("label A --with nowhere --labels best", "unknown labels 'best'; known: predicted, condition"),
        ("check A --near l1:1", "in l2 or linf, not in l1"),
        ("check A --near linf:8", "did you mean 8/255"),
        ("check A --within", "add --near NORM:EPS"),
        ("check A --data digits", "no test set of its own"),
        ("check A --data npz=nowhere.npz", "there is no file nowhere.npz"),
        ("check A --recipe digits", "the training images have (8, 8, 1)"),
        ("import nowhere.npz --into C", "there is no file nowhere.npz"),
        ("export nowhere --into x.npz", "nowhere holds no finished proxy set"),
    ],
)
def test_mistakes_are_one_clear_line(robustgen, sets, monkeypatch, tmp_path, line, message):
    monkeypatch.chdir(tmp_path)
    before = contents(tmp_path / "A")
    code, out, err = robustgen(*line.split())
    assert code == 2 and message in err, err
    assert "Traceback" not in out + err and err.startswith("robustgen: ") and err.count("\n") == 1
    assert contents(tmp_path / "A") == before


def test_new_verbs_have_help_and_can_be_tried_dry(robustgen, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in (
        "import x.npz --into p", "export p --into x.npz", "merge a b --shares 1 2 --into c", "check p --recipe digits",
    ):  # fmt: skip
        code, out, _ = robustgen(*line.split(), "--dry-run")
        assert code == 0 and out.startswith(f"would {line.split()[0]} into"), out
        assert len(robustgen(line.split()[0], "--help")[1]) > 180
    assert not list(tmp_path.iterdir())


def test_a_full_disk_is_one_clear_line_and_the_import_goes_on(tmp_path):
    np.savez(tmp_path / "x.npz", image=drawn(60, 0), label=np.arange(60) % 3)

    def small_disk():
        import resource
        import signal

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    line = [sys.executable, "-m", "robustgen", "import", "x.npz", "--into", "p", "--shard-images", "20"]
    full = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path, preexec_fn=small_disk)
    assert full.returncode == 2 and full.stderr.count("\n") == 1
    assert "free disk space and run the command again to resume" in full.stderr
    assert not list((tmp_path / "p").glob("*.npy")) and not list((tmp_path / "p").glob(".*.part"))
    again = subprocess.run(line, capture_output=True, text=True, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    assert np.array_equal(ProxySet(tmp_path / "p").block(0, 60), drawn(60, 0))
