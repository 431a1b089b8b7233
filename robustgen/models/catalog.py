"""Catalog of published robust classifiers: network, dataset, threat model, and where to download the weights.

Data only. Names are those of RobustBench; models that it lacks have names in the same style. Accuracies are those
reported by the authors or RobustBench, robust ones under AutoAttack. No digests of these files are published.

Sources: the READMEs of google-deepmind/deepmind-research (adversarial_robustness, and iclrw2021doing and iclrw2021data
in it) and of wzekai99/DM-Improves-AT; RobustBench's model zoo, and what authors submitted to it
(RobustBench/robustbench #137, #151, #184).
"""

from __future__ import annotations

from dataclasses import dataclass

from robustgen.images import DatasetInfo
from robustgen.storage.downloads import Download


@dataclass(frozen=True)
class Release:
    """One published classifier.

    architecture  name for `build_model`
    data          dataset it was trained on: a key of INFOS
    threat        threat model it was trained for, NORM:EPS
    paper         arXiv number
    clean         reported clean accuracy, percent
    robust        reported robust accuracy under AutoAttack, percent
    files         equivalent weight files; the first one is downloaded, unless it has no address
    padding       zero padding of the image, in pixels, before normalization
    unused        prefixes of the names of weights in the file that the network does not use
    """

    architecture: str
    data: str
    threat: str
    paper: str
    clean: float
    robust: float
    files: tuple[Download, ...]
    padding: int = 0
    unused: tuple[str, ...] = ()


def _info(
    name: str, classes: int, shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> DatasetInfo:
    return DatasetInfo(name, tuple(str(k) for k in range(classes)), shape, mean, std)


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
INFOS: dict[str, DatasetInfo] = {
    "cifar10": _info("cifar10", 10, (3, 32, 32), *_CIFAR10),
    "cifar100": _info("cifar100", 100, (3, 32, 32), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": _info("mnist", 10, (1, 28, 28), (0.5,), (0.5,)),
    "svhn": _info("svhn", 10, (3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "tiny-imagenet": _info("tiny-imagenet", 200, (3, 64, 64), (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "cifar10 as it is": _info("cifar10", 10, (3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar100 as it is": _info("cifar100", 100, (3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
}
"""Shape and normalization of the published networks; "as it is": without normalization."""

_EPS = {"linf": "linf:8/255", "l2": "l2:128/255"}
_BUCKET = "https://storage.googleapis.com/dm-adversarial-robustness"
_WANG = "https://huggingface.co/wzekai99/DM-Improves-AT/resolve/main/checkpoint"

# data, norm, name, architecture, file (a star: also as .npy for JAX), paper, clean, AutoAttack
_DEEPMIND = """
cifar10  linf Gowal2020Uncovering_70_16_extra      wrn-70-16         cifar10_linf_wrn70-16_with*              2010.03593 91.10 65.88
cifar10  linf Gowal2020Uncovering_28_10_extra      wrn-28-10         cifar10_linf_wrn28-10_with*              2010.03593 89.48 62.80
cifar10  linf Gowal2020Uncovering_70_16            wrn-70-16         cifar10_linf_wrn70-16_without*           2010.03593 85.29 57.20
cifar10  linf Gowal2020Uncovering_34_20            wrn-34-20         cifar10_linf_wrn34-20_without*           2010.03593 85.64 56.86
cifar10  l2   Gowal2020Uncovering_extra            wrn-70-16         cifar10_l2_wrn70-16_with*                2010.03593 94.74 80.53
cifar10  l2   Gowal2020Uncovering                  wrn-70-16         cifar10_l2_wrn70-16_without*             2010.03593 90.90 74.50
cifar100 linf Gowal2020Uncovering_extra            wrn-70-16         cifar100_linf_wrn70-16_with*             2010.03593 69.15 36.88
cifar100 linf Gowal2020Uncovering                  wrn-70-16         cifar100_linf_wrn70-16_without*          2010.03593 60.86 30.03
mnist    linf Gowal2020Uncovering_28_10            wrn-28-10         mnist_linf_wrn28-10_without*             2010.03593 99.26 96.34
cifar10  linf Rebuffi2021Fixing_106_16_cutmix_ddpm wrn-106-16        cifar10_linf_wrn106-16_cutmix_ddpm_v2*   2103.01946 88.50 64.64
cifar10  linf Rebuffi2021Fixing_70_16_cutmix_ddpm  wrn-70-16         cifar10_linf_wrn70-16_cutmix_ddpm_v2*    2103.01946 88.54 64.25
cifar10  linf Rebuffi2021Fixing_28_10_cutmix_ddpm  wrn-28-10         cifar10_linf_wrn28-10_cutmix_ddpm_v2*    2103.01946 87.33 60.75
cifar10  linf Rebuffi2021Fixing_R18_ddpm           preact-resnet-18  cifar10_linf_resnet18_ddpm               2103.01946 83.53 56.66
cifar10  l2   Rebuffi2021Fixing_70_16_cutmix_ddpm  wrn-70-16         cifar10_l2_wrn70-16_cutmix_ddpm_v2*      2103.01946 92.41 80.42
cifar10  l2   Rebuffi2021Fixing_28_10_cutmix_ddpm  wrn-28-10         cifar10_l2_wrn28-10_cutmix_ddpm_v2*      2103.01946 91.79 78.80
cifar10  l2   Rebuffi2021Fixing_R18_cutmix_ddpm    preact-resnet-18  cifar10_l2_resnet18_cutmix_ddpm          2103.01946 90.33 75.86
cifar100 linf Rebuffi2021Fixing_70_16_cutmix_ddpm  wrn-70-16         cifar100_linf_wrn70-16_cutmix_ddpm*      2103.01946 63.56 34.64
cifar100 linf Rebuffi2021Fixing_28_10_cutmix_ddpm  wrn-28-10         cifar100_linf_wrn28-10_cutmix_ddpm*      2103.01946 62.41 32.06
cifar100 linf Rebuffi2021Fixing_R18_ddpm           preact-resnet-18  cifar100_linf_resnet18_ddpm              2103.01946 56.87 28.50
cifar10  linf Rebuffi2021Fixing_70_16_ddpm         wrn-70-16         cifar10_linf_wrn70-16_ddpm_v2*           2103.01946 86.94 63.62
cifar10  linf Rebuffi2021Fixing_28_10_ddpm         wrn-28-10         cifar10_linf_wrn28-10_ddpm_v2*           2103.01946 85.97 60.73
cifar10  l2   Rebuffi2021Fixing_70_16_ddpm         wrn-70-16         cifar10_l2_wrn70-16_ddpm_v2              2103.01946 90.83 78.39
cifar10  l2   Rebuffi2021Fixing_28_10_ddpm         wrn-28-10         cifar10_l2_wrn28-10_ddpm_v2              2103.01946 90.24 77.44
cifar100 linf Rebuffi2021Fixing_70_16_ddpm         wrn-70-16         cifar100_linf_wrn70-16_ddpm*             2103.01946 60.46 33.49
cifar100 linf Rebuffi2021Fixing_28_10_ddpm         wrn-28-10         cifar100_linf_wrn28-10_ddpm*             2103.01946 59.18 30.81
cifar10  linf Rebuffi2021Fixing_70_16_cutmix_extra wrn-70-16         cifar10_linf_wrn70-16_cutmix_external*   2103.01946 92.23 66.58
cifar10  linf Rebuffi2021Fixing_70_16_cutmix       wrn-70-16         cifar10_linf_wrn70-16_cutmix*            2103.01946 87.25 60.07
cifar10  linf Rebuffi2021Fixing_28_10_cutmix       wrn-28-10         cifar10_linf_wrn28-10_cutmix*            2103.01946 86.09 57.61
cifar100 linf Rebuffi2021Fixing_70_16_cutmix       wrn-70-16         cifar100_linf_wrn70-16_cutmix*           2103.01946 65.76 32.43
cifar100 linf Rebuffi2021Fixing_28_10_cutmix       wrn-28-10         cifar100_linf_wrn28-10_cutmix*           2103.01946 62.97 29.80
cifar10  linf Gowal2021Improving_70_16_ddpm_100m   wrn-70-16         cifar10_linf_wrn70-16_cutmix_ddpm_100m   2110.09468 88.74 66.11
"""  # noqa: E501

# data, norm, name, architecture, file, paper, clean, AutoAttack. The file: its Google Drive id, its address, its name
# where no address is known (=), or nothing (-)
_OTHERS = """
cifar10  linf Gowal2021Improving_28_10_ddpm_100m   wrn-28-10          12L8YE6VBgUDKyW6GMSNefSYj2gg4LEKx  2110.09468 87.50 63.44
cifar10  linf Gowal2021Improving_R18_ddpm_100m     preact-resnet-18   1-0EuCJashqSXEkkd1DOzFA4tH8KL2kim  2110.09468 87.35 58.63
cifar10  l2   Rebuffi2021Fixing_70_16_cutmix_extra wrn-70-16          1JX82BDVBNO-Ffa2J37EuB8C-aFCbz708  2103.01946 95.74 82.32
cifar10  linf Carmon2019Unlabeled                  trades-wrn-28-10   15tUx-gkZMYx7BfEOw1GY5OKC-jECIsPQ  1905.13736 89.69 59.53
cifar10  linf Sehwag2021Proxy                      trades-wrn-34-10   1QFA5fPMj2Qw4aYNG33PkFqiv_RTDWvzm  2104.09425 86.68 60.27
cifar10  linf Sehwag2021Proxy_R18                  resnet-18          1-ZgoSlD_AMhtXdnUElilxVXnzK2DcHuu  2104.09425 84.59 55.54
cifar10  linf Sehwag2021Proxy_ResNest152           resnest-152        1XSjtJZAvDlua6wTM6WRLvW_jON-DqLgT  2104.09425 87.30 62.79
cifar10  l2   Sehwag2021Proxy                      trades-wrn-34-10   1UviikNzpltVFsgMuqQ8YhpmvGczGRS4S  2104.09425 90.93 77.24
cifar10  l2   Sehwag2021Proxy_R18                  resnet-18          1zPjjZj9wujBNkAmHHHIikem6_aIjMhXG  2104.09425 89.76 74.41
cifar100 linf Sehwag2021Proxy                      trades-wrn-34-10   1ejMNF2O4xkSdrjtZt2UXUeim-y9F7Req  2104.09425 65.93 31.15
cifar10  linf Rade2021Helper_R18_ddpm              preact-resnet-18   1f2yJUo-jxCQNk589frzriv6wPyrQEZdX  -          86.86 57.09
cifar10  linf Rade2021Helper_ddpm                  wrn-28-10          1AOF6LxnwgS5fCz_lVLYqs_wnUYuv6O7z  -          88.16 60.97
cifar10  linf Pang2022Robustness_WRN28_10          wrn-28-10          16ChNkterCp17BXv-xxqpfedb4u2_CjjS  2202.10103 88.61 61.04
cifar10  linf Pang2022Robustness_WRN70_16          wrn-70-16          1uQZYUuUiL9BzaQUeXLhjr_RhoyFRrHe3  2202.10103 89.01 63.35
cifar100 linf Pang2022Robustness_WRN28_10          wrn-28-10          1VDDM_j5M4b6sZpt1Nnhkr8FER3kjE33M  2202.10103 63.66 31.08
cifar100 linf Pang2022Robustness_WRN70_16          wrn-70-16          1F3kn8KIdBVls8QuTWc3BbB83htkQeVQD  2202.10103 65.56 33.05
cifar10  linf Xu2023Exploring_WRN-28-10            wrn-28-10          1wMvrjxpLPCuPiAGtkvu76ZJuNuMfuhEv  2302.03015 93.69 63.89
cifar10  linf Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar10_linf_wrn28-10.pt      2302.04638 92.44 67.31
cifar10  linf Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar10_linf_wrn70-16.pt      2302.04638 93.25 70.69
cifar10  l2   Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar10_l2_wrn28-10.pt        2302.04638 95.16 83.63
cifar10  l2   Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar10_l2_wrn70-16.pt        2302.04638 95.54 84.86
cifar100 linf Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar100_linf_wrn28-10.pt     2302.04638 72.58 38.83
cifar100 linf Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar100_linf_wrn70-16.pt     2302.04638 75.22 42.67
svhn     linf Wang2023Better_WRN-28-10             wrn-28-10          =svhn_linf_wrn28-10.pt             2302.04638 95.56 64.01
tiny-imagenet linf Wang2023Better_WRN-28-10        wrn-28-10          =tiny_linf_wrn28-10.pt             2302.04638 65.19 31.30
cifar10  linf Cui2023Decoupled_WRN-28-10           wrn-28-10          1-AaTrYt23WJFR22hXgBd-i6kjpsz6Hf2  2305.13948 92.16 67.73
cifar100 linf Cui2023Decoupled_WRN-28-10           wrn-28-10          -                                  2305.13948 73.85 39.18
cifar10  linf Peng2023Robust                       rawrn-70-16        https://huggingface.co/poloclub/robust-principles/resolve/main/ra_wrn70_16_cifar10.pt 2308.16258 93.27 71.07
cifar10  linf Bartoldson2024Adversarial_WRN-82-8   wrn-82-8           -                                  2404.09349 93.11 71.59
cifar10  linf Bartoldson2024Adversarial_WRN-94-16  wrn-94-16          1KR6unYJFYIuGs2ssuuKxulM0EKOTIrrO  2404.09349 93.68 73.71
"""  # noqa: E501


def _deepmind() -> dict[str, Release]:
    found = {}
    for row in _DEEPMIND.split("\n")[1:-1]:
        data, norm, name, architecture, file, paper, clean, robust = row.split()
        suffixes = (".pt", ".npy") if file.endswith("*") else (".pt",)
        stem = file.rstrip("*")
        found[f"{data}/{norm}/{name}"] = Release(
            architecture,
            data,
            "linf:0.3" if data == "mnist" else _EPS[norm],
            paper,
            float(clean),
            float(robust),
            tuple(Download(f"{_BUCKET}/{stem}{suffix}", stem + suffix) for suffix in suffixes),
            padding=2 if data == "mnist" else 0,
        )
    return found


def _others() -> dict[str, Release]:
    found = {}
    for row in _OTHERS.split("\n")[1:-1]:
        data, norm, name, architecture, place, paper, clean, robust = row.split()
        own = f"{data}_{norm}_{name}.pt"
        if place == "-" or place.startswith("="):
            file = Download("", place[1:] or own)
        elif place.startswith("WANG/"):
            file = Download(f"{_WANG}/{place[5:]}", place[5:])
        elif place.startswith("https://"):
            file = Download(place, place.rpartition("/")[2])
        else:
            file = Download(f"https://drive.usercontent.google.com/download?id={place}&export=download&confirm=t", own)
        plain = name.startswith(("Sehwag2021", "Carmon2019"))
        found[f"{data}/{norm}/{name}"] = Release(
            architecture,
            f"{data} as it is" if plain else data,
            _EPS[norm],
            "" if paper == "-" else paper,
            float(clean),
            float(robust),
            (file,),
            unused=("sub_block1.",) if name.startswith("Carmon2019") else (),
        )
    return found


RELEASES: dict[str, Release] = {**_deepmind(), **_others()}
"""Releases by DATA/NORM/NAME; `hub.find` also accepts NAME only."""
