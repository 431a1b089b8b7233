"""The built package: a wheel that is installed elsewhere has all files and runs."""

import re
import subprocess
import sys
import tomllib
import venv
import zipfile

import pytest
import yaml

from conftest import REPOSITORY


def run(*words, **options) -> str:
    done = subprocess.run(list(map(str, words)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built by the backend that pyproject.toml names, which must be installed: no network is used."""
    pytest.importorskip("hatchling", reason="needs hatchling, which builds the wheel: pip install hatchling")
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, REPOSITORY)
    (file,) = folder.glob("*.whl")
    return file


@pytest.mark.slow
def test_the_wheel_has_every_file_of_the_package(wheel):
    tracked = run("git", "ls-files", "robustgen", cwd=REPOSITORY).split()
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if name.startswith("robustgen/")}
    assert packed == {*tracked, "robustgen/report/flags.md"}


@pytest.mark.slow
def test_the_installed_wheel_runs_the_demonstration_without_a_clone(wheel, tmp_path):
    """As `uvx robustgen` and `pipx run robustgen` would, with the libraries of this environment."""
    venv.create(tmp_path / "venv", with_pip=False)
    (site,) = (tmp_path / "venv").glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    libraries = [path for path in sys.path if path.endswith("site-packages")]
    start = f"import sys; sys.path += {libraries!r}; from robustgen.cli import main; main()"
    python = tmp_path / "venv" / "bin" / "python"
    script = [python, "-I", "-c", start]
    assert "robustgen run digits" in run(*script, "--help", cwd=tmp_path)
    assert str(site) in run(python, "-I", "-c", "import robustgen; print(robustgen.__file__)", cwd=tmp_path)
    run(*script, "run", "digits-smoke", "--into", "smoke", cwd=tmp_path)
    page = (tmp_path / "smoke" / "report.html").read_text()
    assert "<svg" in page and len(page) > 50_000


def test_versions_of_python_are_those_of_the_workflow():
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    named = {text.rpartition(" ")[2] for text in project["classifiers"] if re.search(r":: 3\.\d+$", text)}
    workflow = (REPOSITORY / ".github" / "workflows" / "tests.yml").read_text()
    assert set(re.search(r"python: \[(.*)\]", workflow)[1].replace('"', "").split(", ")) == named


def test_workflows_and_hooks_name_what_exists():
    extras = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    targets = set(re.findall(r"^([\w-]+):", (REPOSITORY / "Makefile").read_text(), re.MULTILINE))
    for file in (REPOSITORY / ".github" / "workflows").glob("*.yml"):
        text = file.read_text()
        assert set(re.findall(r"\bmake ([\w-]+)", text)) <= targets, file
        assert set(re.findall(r"\.\[(\w+)\]", text)) <= set(extras), file
        installs_torch = re.search(r"\bmake |pip install .*(-e|\$package)", text)
        assert not installs_torch or "whl/cpu" in text, f"{file} installs the build of torch for GPUs"
    hooks = yaml.safe_load((REPOSITORY / ".pre-commit-config.yaml").read_text())["repos"][0]["hooks"]
    tools = {hook["entry"].split()[0] for hook in hooks}
    assert tools and all(any(tool in name for name in extras["dev"]) for tool in tools)
    lint = (REPOSITORY / "Makefile").read_text().partition("\nlint:")[2].partition("\n\n")[0]
    assert all(f"$(BIN)/{tool}" in lint for tool in tools)
