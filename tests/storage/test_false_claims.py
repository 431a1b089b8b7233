"""Files that claim what cannot be, as damaged copies did (damaged_files.py): one line, and no memory for the claim."""

import contextlib
import json
import pickle
import resource
import time
import tracemalloc
import zipfile

import numpy as np
import pytest
from damaged_files import (
    IMAGES,
    LABELS,
    cifar_batches,
    classifier,
    diffusers,
    gaussian,
    generator,
    picture,
    proxy,
    recipe_file,
    verdicts_npz,
)

from robustgen.config.loading import read_recipe
from robustgen.datasets.cifar import read_python_batch
from robustgen.generators import read_generator
from robustgen.models.saved import load_classifier
from robustgen.proxy.formats.pictures import decode
from robustgen.proxy.store import ProxySet, read_array
from robustgen.recipes import RECIPES
from robustgen.records.certificates import Certificates
from robustgen.records.history import History
from robustgen.records.verdicts import Verdicts
from robustgen.runtime.errors import describe_error
from robustgen.storage.arrays import load_arrays, save_arrays
from robustgen.storage.files import printable, read_json, read_settings
from robustgen.storage.safe_pickle import load_plain_pickle
from robustgen.storage.weights import read_weights
from robustgen.units import parse_number, show_value

MEGABYTE = 2**20


def refused(read, path, message):
    """An error is one line, and nothing like the size that the file claims is in memory on the way."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=message) as caught:
        read(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 256 * 1024
    text = describe_error(caught.value)
    assert text.isprintable() and len(text) < 1600, text


def header(shape, dtype="|u1", text=None):
    text = (text or repr({"descr": dtype, "fortran_order": False, "shape": shape})).ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.npy", header((2**50,)), r"says it is uint8 \(1125899906842624,\), but holds 128 bytes"),
        ("a.npy", header((-1,)), r"its shape is \(-1,\)"),
        ("a.npy", header((), text="{'descr': '<f8', (((("), "is damaged or not an .npz"),
        ("a.npy", header((1,), "|O") + b"N.", "holds Python objects, which would have to be unpickled"),
        ("a", b"text", "'a', which is not an array"),
    ],
)
def test_arrays_are_held_against_the_bytes_there_are(tmp_path, name, content, message):
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr(name, content)
    refused(load_arrays, tmp_path / "x.npz", message)
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_BZIP2) as archive:
        archive.writestr("a.npy", header((3,)) + b"abc")
    refused(load_arrays, tmp_path / "x.npz", "cannot have them")


@pytest.mark.parametrize("array", [np.array(3.5), np.zeros((0, 3)), np.asfortranarray(np.eye(3, 2)), np.array("ü")])
@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_of_every_shape_are_read(tmp_path, array, save):
    save(tmp_path / "x.npz", a=array)
    found = load_arrays(tmp_path / "x.npz")["a"]
    assert found.dtype == array.dtype and np.array_equal(found, array)
    assert found.flags.f_contiguous == array.flags.f_contiguous


def test_an_array_longer_than_its_file_is_refused(tmp_path):
    (tmp_path / "x.npy").write_bytes(header((2**50,)))
    for mapped in (False, True):
        refused(lambda path, mapped=mapped: read_array(path, mapped), tmp_path / "x.npy", "it is too short for uint8")


PICKLES = {
    "empty array": b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(L9999999999L\ntS'b'\ntR.",
    "array itself": b"cnumpy\nndarray\n((L9999999999L\ntS'u1'\ntR.",
    "scalar": b"cnumpy.core.multiarray\nscalar\n(cnumpy\ndtype\n(S'V2000000000'\ntRS'x'\ntR.",
    "memo": b"Nr\xff\xff\xff\x7f(dR.",
    "bytearray": b"\x96\xff\xff\xff\xff\x0f\x00\x00\x00.",
    "encoding": b"c_codecs\nencode\n(S'x'\nS'zlib'\ntR.",
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_make_no_room_for_what_is_not_there(tmp_path, name):
    (tmp_path / "x").write_bytes(PICKLES[name])
    tracemalloc.start()
    try:
        refused(load_plain_pickle, tmp_path / "x", "cannot be read as a pickle of plain arrays")
        assert tracemalloc.get_traced_memory()[1] < MEGABYTE
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("protocol", range(6))
def test_arrays_and_numbers_survive_pickles_of_every_protocol(tmp_path, protocol):
    content = {
        "a": IMAGES,
        "f": np.asfortranarray(np.eye(3, 2)),
        "n": np.float32(0.1),
        "s": np.array(["x", "yy"]),
        "o": np.array([None, {"k": 2}], dtype=object),
        "t": (1, b"\xff", bytearray(b"ab")) if protocol >= 5 else (1, b"\xff"),
    }
    (tmp_path / "x").write_bytes(pickle.dumps(content, protocol))
    found = load_plain_pickle(tmp_path / "x", encoding="latin1")
    for name, value in content.items():
        assert np.array_equal(found[name], value) if name != "t" else found[name] == value


def test_labels_that_are_no_integers_are_one_line(tmp_path):
    path = cifar_batches(tmp_path)
    path.write_bytes(pickle.dumps({b"data": np.zeros((1, 3072), np.uint8), b"labels": [float("inf")]}))
    refused(read_python_batch, path, "is not a CIFAR-10 batch")


def test_json_that_is_too_deep_or_too_long_is_one_line(tmp_path):
    for text in ("[" * 100_000, "9" * 5000):
        (tmp_path / "x.json").write_text(text)
        refused(read_json, tmp_path / "x.json", "is not a JSON file")
    (tmp_path / "x.json").write_text("[1, 2]")
    refused(read_settings, tmp_path / "x.json", r"expected settings by name, got \[1, 2\]")


def test_values_and_texts_are_shown_shortened_and_printable():
    nested = ["x"] * 9
    for _ in range(30):
        nested = [nested] * 9
    assert len(show_value(nested)) <= 200 and len(show_value("a" * 10_000)) < 200 and show_value("a") == "'a'"
    assert printable("a\x00b\x1b[31mred\n c") == "a?bred c" and len(printable("a" * 10_000)) < 1600
    for value in ([], None, {}, 10**400, "1/0", "x"):
        with pytest.raises(ValueError, match="expected a number or a fraction such as 8/255"):
            parse_number(value)


def changed(path, **arrays):
    save_arrays(path, {**load_arrays(path), **arrays})
    return path


@pytest.mark.parametrize(
    ("column", "message"),
    [
        ({"faced": np.zeros(11, np.int16)}, r"faced must be integers of shape \(12,\), got int16 of shape \(11,\)"),
        ({"margin": np.zeros(12, np.int16)}, "margin must be numbers"),
        ({"fell_to": np.full(12, 3)}, r"fell_to must lie in -1\.\.2, got 3 to 3"),
        ({"labels": np.full(12, 3)}, r"labels must lie in 0\.\.2"),
        ({"passes": np.zeros((2, 2), np.int64)}, "passes must be integers"),
        ({"about": np.array("[]")}, "expected settings by name"),
        ({"about": np.array("[" * 100_000)}, "cannot read them"),
    ],
)
def test_verdicts_whose_columns_do_not_fit_are_refused(tmp_path, column, message):
    refused(Verdicts.load, changed(verdicts_npz(tmp_path), **column), message)


def test_histories_and_certificates_are_held_against_their_columns(tmp_path):
    save_arrays(tmp_path / "h.npz", {"a": np.zeros(3), "b": np.zeros(4)})
    refused(History.load, tmp_path / "h.npz", r"b must be numbers of shape \(3,\)")
    found = Certificates.blank(
        np.arange(3), LABELS[:3], 64, sigma=0.25, selection=1, samples=9, alpha=0.1, seed=0, model=""
    )
    found.save(tmp_path / "c.npz")
    assert len(Certificates.load(tmp_path / "c.npz")) == 3
    refused(Certificates.load, changed(tmp_path / "c.npz", votes=np.zeros(2, np.int64)), "votes must be integers")
    found.alpha = 2.0
    found.save(tmp_path / "c.npz")
    refused(Certificates.load, tmp_path / "c.npz", "alpha lie between 0 and 1")


def edited(path, **changes):
    content = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({name: value for name, value in content.items() if value != "REMOVED"}))
    return path


@pytest.mark.parametrize(
    "changes", [{"shape": [3, 2**40, 8]}, {"shape": [[3], 8, 8]}, {"shards": [{"count": 1e999, "file": "a"}]}]
)
def test_manifests_of_impossible_sizes_are_refused(tmp_path, changes):
    refused(
        lambda path: ProxySet(path.parent), edited(proxy(tmp_path), **changes), "is not the manifest of a proxy set"
    )


def test_a_shard_without_a_digest_is_said_to_differ(tmp_path):
    path = proxy(tmp_path)
    shards = [{name: shard[name] for name in ("file", "count")} for shard in json.loads(path.read_text())["shards"]]
    refused(lambda path: ProxySet(path.parent).verify(), edited(path, shards=shards), "missing or differs")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"architecture": "REMOVED"}, "architecture must be a name, got None"),
        ({"architecture": 3}, "architecture must be a name, got 3"),
        ({"architecture": "wrn-9999999-9"}, "unknown architecture"),
        ({"architecture": "wrn-10-9999"}, "does not fit this WideResNet"),
        ({"shape": [3, 8]}, "shape must be three numbers"),
        ({"shape": [3, 8, 10**9]}, r"shape must be three numbers in 1\.\.4096"),
        ({"classes": None}, "classes must be a list of names"),
        ({"mean": [0.5]}, "mean must be a number for each of 3 channels"),
        ({"std": [{}, 1, 1]}, "std must be a number for each of 3 channels"),
        ({"dataset": "REMOVED"}, "dataset must be a name"),
    ],
)
def test_a_model_json_that_describes_no_classifier_is_one_line(tmp_path, changes, message):
    refused(lambda path: load_classifier(path.parent), edited(classifier(tmp_path), **changes), message)


@pytest.mark.parametrize(
    ("write", "changes", "message"),
    [
        (generator, {"settings": "REMOVED"}, "expected settings with a kind of generator"),
        (generator, {"settings": {"kind": ["ddpm"]}}, "expected settings with a kind of generator"),
        (
            generator,
            {"settings": {"kind": "ddpm", "channels": 10**6}},
            "does not fit this DDPM|no network can be built",
        ),
        (generator, {"settings": {"kind": "ddpm", "channels": 10**18}}, "no network can be built"),
        (generator, {"settings": {"kind": "ddpm", "blocks": 10**9}}, "settings.blocks: input should be less than"),
        (generator, {"settings": {"kind": "ddpm", "timesteps": 10**15}}, "settings.timesteps: input should be less"),
        (generator, {"settings": {"kind": "vdvae", "encoder": "8x99999999"}}, "is neither SIZExBLOCKS"),
        (generator, {"shape": [3, None, 8]}, "shape must be three numbers"),
        (gaussian, {"rank": "REMOVED"}, "rank must be a size, got None"),
        (gaussian, {"rank": 10**9}, "does not fit this Gaussian"),
        (gaussian, {"shape": [3, 4096, 4096]}, "does not fit this Gaussian"),
    ],
)
def test_a_generator_json_that_describes_no_generator_is_one_line(tmp_path, write, changes, message):
    refused(lambda path: read_generator(path.parent), edited(write(tmp_path), **changes), message)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"block_out_channels": ["32"]}, "block_out_channels must be whole numbers"),
        ("unet/config.json", {"block_out_channels": [2**20]}, "does not fit this DDPMUNet|no network can be built"),
        ("unet/config.json", {"sample_size": [8, 8, 8]}, "sample_size must be a side or two"),
        ("unet/config.json", {"norm_num_groups": "a"}, "norm_num_groups must be whole numbers"),
        ("unet/config.json", {"layers_per_block": []}, "blocks: input should be a valid integer"),
        ("unet/config.json", {"act_fn": [0] * 9999}, "only 'silu' can be read"),
        ("scheduler/scheduler_config.json", {"beta_schedule": []}, "known: linear, squaredcos_cap_v2"),
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**15}, "timesteps: input should be less than"),
    ],
)
def test_a_config_of_diffusers_that_cannot_be_is_one_line(tmp_path, file, changes, message):
    refused(lambda path: read_generator(path.parent.parent), edited(diffusers(file)(tmp_path), **changes), message)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "base: [digits]", r"unknown base \['digits'\]"),
        ("a.yaml", "base: digits-smoke\ntrain: {loss: {kind: [trades]}}", "unknown loss"),
        ("a.yaml", "base: digits-smoke\ntrain: {loss: []}", "unknown loss"),
        ("a.yaml", "base: digits-smoke\nthreat: {norm: linf, eps: []}", "expected a number or a fraction"),
        ("a.yaml", "base: digits-smoke\ngenerators: {g: {kind: {}}}", "expected settings with a kind of generator"),
        ("a.yaml", "x: " + "[" * 3000, "cannot be read as a recipe"),
        ("a.yaml", "seed: 2020-99-99", "cannot be read as a recipe"),
        ("a.json", "[" * 100_000, "cannot be read as a recipe"),
    ],
)
def test_recipes_with_values_of_other_types_are_one_line(tmp_path, name, text, message):
    (tmp_path / name).write_text(text)
    refused(lambda path: read_recipe(path, RECIPES), tmp_path / name, message)


def test_a_whole_recipe_is_read_from_json_as_from_yaml(tmp_path):
    path = recipe_file(".json")(tmp_path)
    path.with_suffix(".yaml").write_text(path.read_text())
    assert read_recipe(path, RECIPES) == read_recipe(path.with_suffix(".yaml"), RECIPES) == RECIPES["digits-smoke"]


def test_a_long_message_of_torch_is_not_searched(tmp_path):
    """torch looks for patterns in its message, in time that grows with the square of its length."""
    (tmp_path / "w.pt").write_bytes(b"c" + b"a" * 300_000 + b"\nb\n.")
    began = time.process_time()
    refused(read_weights, tmp_path / "w.pt", "is damaged, or is not a file of weights only")
    assert time.process_time() - began < 10


def test_a_picture_with_a_chunk_longer_than_its_file_is_one_line(tmp_path):
    path = picture(tmp_path)
    content = path.read_bytes()
    at = content.index(b"IEND") - 4
    path.write_bytes(content[:at] + b"\x7f\xff\xff\xff" + b"teXt" + content[at + 8 :])
    tracemalloc.start()
    try:
        with contextlib.suppress(ValueError):  # older Pillows refuse it
            assert decode(path, "x").shape == (8, 8, 3)
        assert tracemalloc.get_traced_memory()[1] < 16 * MEGABYTE
    finally:
        tracemalloc.stop()
    with path.open("r+b") as file:
        file.truncate(2**40)
    refused(lambda path: decode(path, "x"), path, "it has 1,099,511,627,776 bytes")
