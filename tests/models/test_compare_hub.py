"""The comparison of the catalog with a checkout of RobustBench, on a small one made of the catalog itself."""

import importlib.util
import json
import re
import sys

import pytest

from conftest import REPOSITORY
from robustgen.models.catalog import ABSENT, RELEASES

PLACE = REPOSITORY / "dev" / "compare_hub.py"
pytestmark = pytest.mark.skipif(not PLACE.exists(), reason="dev/ is not part of this copy")


@pytest.fixture
def script(monkeypatch):
    spec = importlib.util.spec_from_file_location("compare_hub", PLACE)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "compare_hub", module)
    spec.loader.exec_module(module)
    return module


ENTRIES = ("Zhang2019Theoretically", "Wang2020Improving", "Rebuffi2021Fixing_R18_ddpm", "Standard")


@pytest.fixture
def checkout(tmp_path):
    """RobustBench with four linf models of CIFAR-10 and all that cannot be opened; importing its zoo would fail."""

    def write(change=lambda name, number, about: (name, number, about)):
        rows = {(data, norm): [] for data in ("cifar10", "cifar100") for norm in ("linf", "l2")}
        folder = tmp_path / "model_info"
        for data, norm in rows:
            (folder / data / norm.capitalize()).mkdir(parents=True, exist_ok=True)
        for full in ABSENT:
            data, norm, name = full.split("/")
            rows[data, norm].append((name, ["one", "two"]))
        for name in ENTRIES:
            release = RELEASES[f"cifar10/linf/{name}"]
            found = re.search(r"[?]id=([\w-]+)", release.files[0].url)
            number = found[1] if found else "copied"
            link = release.paper if release.paper.startswith("https") else f"https://arxiv.org/abs/{release.paper}"
            about = {
                "link": link,
                "eps": release.threat.split(":")[1],
                "clean_acc": str(release.clean),
                "autoattack_acc": str(release.robust),
            }
            name, number, about = change(name, number, about)
            rows["cifar10", "linf"].append((name, number))
            (folder / "cifar10" / "Linf" / f"{name}.json").write_text(json.dumps(about))
        for data in ("cifar10", "cifar100"):
            tables = [
                f"{norm} = OrderedDict([\n"
                + "".join(
                    f"    ({name!r}, {{'model': lambda: Net(10), 'gdrive_id': {number!r}}}),\n"
                    for name, number in rows[data, norm]
                )
                + "])\n"
                for norm in ("linf", "l2")
            ]
            zoo = tmp_path / "robustbench" / "model_zoo" / f"{data}.py"
            zoo.parent.mkdir(parents=True, exist_ok=True)
            zoo.write_text("import no_such_package\nraise SystemExit\n" + "".join(tables))
        return str(tmp_path)

    return write


def test_equal_is_said_with_counts(script, checkout, capsys):
    assert script.main([checkout()]) == 0
    assert capsys.readouterr().out == (
        "21 models of RobustBench: 4 in the catalog (3 with RobustBench's address), 17 absent with a reason\n"
    )


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"number": "elsewhere"}, "address 1hPz9QQwyM7QSuWu-ANG_uXR-29xtL8t_, RobustBench elsewhere"),
        ({"clean_acc": "84.93"}, "clean accuracy 84.92, RobustBench 84.93"),
        ({"autoattack_acc": "53.80"}, "robust accuracy 53.08, RobustBench 53.80"),
        ({"eps": "8/255"}, "eps 0.031, RobustBench 8/255"),
        ({"link": "https://arxiv.org/pdf/1901.08574.pdf"}, "paper 1901.08573, RobustBench 1901.08574"),
        ({"name": "Zhang2029More"}, "Zhang2029More: in RobustBench, neither in RELEASES nor in ABSENT"),
    ],
)
def test_one_difference_is_one_line_and_exit_code_1(script, checkout, capsys, wrong, said):
    def change(name, number, about):
        if name != "Zhang2019Theoretically":
            return name, number, about
        about |= {key: value for key, value in wrong.items() if key in about}
        return wrong.get("name", name), wrong.get("number", number), about

    assert script.main([checkout(change)]) == 1
    first, counts = capsys.readouterr().out.splitlines()
    assert first.startswith("cifar10/linf/Zhang20") and first.endswith(said) and counts.startswith("21 models")


def test_an_absent_model_that_robustbench_no_longer_has_is_a_difference(script, checkout, monkeypatch, capsys):
    place = checkout()
    monkeypatch.setitem(script.ABSENT, "cifar10/linf/Gone2020", "it is gone")
    assert script.main([place]) == 1
    assert capsys.readouterr().out.startswith("cifar10/linf/Gone2020: in ABSENT, not in RobustBench\n")


def test_other_folders_are_one_line_and_exit_code_2(script, checkout, tmp_path, capsys):
    assert script.main([]) == 2 and "usage" in capsys.readouterr().err
    assert script.main([str(tmp_path)]) == 2
    assert "is not a checkout of RobustBench: it has no robustbench/model_zoo/cifar10.py" in capsys.readouterr().err
    place = checkout()
    zoo = tmp_path / "robustbench" / "model_zoo" / "cifar10.py"
    for content, said in (
        ("linf = {}\n", "cifar10.py:1 is not an OrderedDict of a list of pairs"),
        ("linf = OrderedDict([\n3])\n", "cifar10.py:2 is not a pair of a name and a dictionary"),
        ("linf = OrderedDict([('x', {})])\n", "has no 'gdrive_id'"),
    ):
        zoo.write_text(content)
        assert script.main([place]) == 2
        err = capsys.readouterr().err
        assert said in err and err.count("\n") == 1
