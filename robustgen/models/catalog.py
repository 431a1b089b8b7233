"""Catalog of published robust classifiers: network, dataset, threat model, and where to download the weights.

Data only. Names are those of RobustBench; models that it lacks have names in the same style. Accuracies are those
reported by the authors or RobustBench, robust ones under AutoAttack. No digests of these files are published.

Sources: the READMEs of google-deepmind/deepmind-research (adversarial_robustness, and iclrw2021doing and iclrw2021data
in it) and of wzekai99/DM-Improves-AT; RobustBench's model zoo and model_info; `dev/compare_hub.py` compares with them.
"""

from __future__ import annotations

from dataclasses import dataclass

from robustgen.images import DatasetInfo
from robustgen.storage.downloads import Download


@dataclass(frozen=True)
class Release:
    """One published classifier.

    architecture  name for `build_model`
    data          dataset it was trained on: a key of RELEASE_INFOS
    threat        threat model it was trained for, NORM:EPS
    paper         arXiv number, or the address of the paper or the code where arXiv does not have it
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

    @property
    def cited(self) -> str:
        """The paper in a sentence."""
        return self.paper if self.paper.startswith("https://") else f"arXiv:{self.paper}"


def _info(
    name: str, classes: int, shape: tuple[int, int, int], mean: tuple[float, ...], std: tuple[float, ...]
) -> DatasetInfo:
    return DatasetInfo(name, tuple(str(k) for k in range(classes)), shape, mean, std)


_CIFAR10 = ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616))
RELEASE_INFOS: dict[str, DatasetInfo] = {
    "cifar10": _info("cifar10", 10, (3, 32, 32), *_CIFAR10),
    "cifar100": _info("cifar100", 100, (3, 32, 32), (0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "mnist": _info("mnist", 10, (1, 28, 28), (0.5,), (0.5,)),
    "svhn": _info("svhn", 10, (3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "tiny-imagenet": _info("tiny-imagenet", 200, (3, 64, 64), (0.4802, 0.4481, 0.3975), (0.2302, 0.2265, 0.2262)),
    "cifar10 as it is": _info("cifar10", 10, (3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar100 as it is": _info("cifar100", 100, (3, 32, 32), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "cifar10 in [-1, 1]": _info("cifar10", 10, (3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar100 in [-1, 1]": _info("cifar100", 100, (3, 32, 32), (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    "cifar10 of Engstrom2019": _info("cifar10", 10, (3, 32, 32), _CIFAR10[0], (0.2023, 0.1994, 0.2010)),
    "cifar10 of Rony2019": _info("cifar10", 10, (3, 32, 32), (0.491, 0.482, 0.447), (0.247, 0.243, 0.262)),
    "cifar10 of Augustin2020": _info(
        "cifar10",
        10,
        (3, 32, 32),
        (0.4913997551666284, 0.48215855929893703, 0.4465309133731618),
        (0.24703225141799082, 0.24348516474564, 0.26158783926049628),
    ),
    "cifar100 of Chen2020": _info("cifar100", 100, (3, 32, 32), (0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "cifar100 of Rice2020": _info(
        "cifar100",
        100,
        (3, 32, 32),
        (0.5070751592371323, 0.48654887331495095, 0.4409178433670343),
        (0.2673342858792401, 0.2564384629170883, 0.27615047132568404),
    ),
}
"""Shape and normalization of the published networks; "as it is": without normalization; "of X": X's constants."""

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
cifar10  linf Rade2021Helper_R18_ddpm              preact-resnet-18   1f2yJUo-jxCQNk589frzriv6wPyrQEZdX  https://openreview.net/forum?id=BuD2LmNaU3a 86.86 57.09
cifar10  linf Rade2021Helper_ddpm                  wrn-28-10          1AOF6LxnwgS5fCz_lVLYqs_wnUYuv6O7z  https://openreview.net/forum?id=BuD2LmNaU3a 88.16 60.97
cifar10  linf Pang2022Robustness_WRN28_10          wrn-28-10          16ChNkterCp17BXv-xxqpfedb4u2_CjjS  2202.10103 88.61 61.04
cifar10  linf Pang2022Robustness_WRN70_16          wrn-70-16          1uQZYUuUiL9BzaQUeXLhjr_RhoyFRrHe3  2202.10103 89.01 63.35
cifar100 linf Pang2022Robustness_WRN28_10          wrn-28-10          1VDDM_j5M4b6sZpt1Nnhkr8FER3kjE33M  2202.10103 63.66 31.08
cifar100 linf Pang2022Robustness_WRN70_16          wrn-70-16          1F3kn8KIdBVls8QuTWc3BbB83htkQeVQD  2202.10103 65.56 33.05
cifar10  linf Xu2023Exploring_WRN-28-10            wrn-28-10          1k1uJI13ft0h0dfzuEihVpBvjBXwFRH2o  2302.03015 93.69 63.89
cifar10  linf Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar10_linf_wrn28-10.pt      2302.04638 92.44 67.31
cifar10  linf Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar10_linf_wrn70-16.pt      2302.04638 93.25 70.69
cifar10  l2   Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar10_l2_wrn28-10.pt        2302.04638 95.16 83.63
cifar10  l2   Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar10_l2_wrn70-16.pt        2302.04638 95.54 84.86
cifar100 linf Wang2023Better_WRN-28-10             wrn-28-10          WANG/cifar100_linf_wrn28-10.pt     2302.04638 72.58 38.83
cifar100 linf Wang2023Better_WRN-70-16             wrn-70-16          WANG/cifar100_linf_wrn70-16.pt     2302.04638 75.22 42.67
svhn     linf Wang2023Better_WRN-28-10             wrn-28-10          =svhn_linf_wrn28-10.pt             2302.04638 95.56 64.01
tiny-imagenet linf Wang2023Better_WRN-28-10        wrn-28-10          =tiny_linf_wrn28-10.pt             2302.04638 65.19 31.30
cifar10  linf Cui2023Decoupled_WRN-28-10           wrn-28-10          1-AaTrYt23WJFR22hXgBd-i6kjpsz6Hf2  2305.13948 92.16 67.73
cifar100 linf Cui2023Decoupled_WRN-28-10           wrn-28-10          15BwWdWbNfoarTEWWugicOVkTjh3nXH36 2305.13948 73.85 39.18
cifar10  linf Peng2023Robust                       rawrn-70-16        https://huggingface.co/poloclub/robust-principles/resolve/main/ra_wrn70_16_cifar10.pt 2308.16258 93.27 71.07
cifar10  linf Bartoldson2024Adversarial_WRN-82-8   wrn-82-8           1--jl8qJh624SFqFffvg1IkYR-fZGA2Sr 2404.09349 93.11 71.59
cifar10  linf Bartoldson2024Adversarial_WRN-94-16  wrn-94-16          1g6o9H1b6vjoBi1USdCBt64C8B8LPiioX  2404.09349 93.68 73.71
"""  # noqa: E501

# As RobustBench has them. data, norm, name, architecture (with a star: the file also holds sub_block1, which the
# network never uses), constants of the normalization (-: those of the data set), eps, number in Google's drive, paper,
# clean, AutoAttack
_ROBUSTBENCH = """
cifar10  linf Andriushchenko2020Understanding         wong-preact-resnet-18        as-it-is     8/255 1Uyvprd98bIyxfMjLdCZwm-NEJ-6GMVis 2007.02617 79.84 43.93
cifar10  linf Sehwag2020Hydra                         trades-wrn-28-10*            as-it-is     8/255 1pi8GHwAVkxVH41hEnf0IAJb_7y-Q8a2Y 2002.10509 88.98 57.14
cifar10  linf Wang2020Improving                       trades-wrn-28-10*            as-it-is     8/255 1T939mU4kXYt5bbvM55aT4fLBvRhyzjiQ https://openreview.net/forum?id=rklOg6EFwS 87.50 56.29
cifar10  linf Hendrycks2019Using                      trades-wrn-28-10             [-1,1]       8/255 1-DcJsYw2dNEOyF9epks2QS7r9nqBDEsw 1901.09960 87.11 54.92
cifar10  linf Rice2020Overfitting                     trades-wrn-34-20             -            8/255 1vC_Twazji7lBjeMQvAD9uEQxi9Nx2oG- 2002.11569 85.34 53.42
cifar10  linf Zhang2019Theoretically                  trades-wrn-34-10*            as-it-is     0.031 1hPz9QQwyM7QSuWu-ANG_uXR-29xtL8t_ 1901.08573 84.92 53.08
cifar10  linf Engstrom2019Robustness                  resnet-50                    Engstrom2019 8/255 1etqmQsksNIWBvBQ4r8ZFk_3FJlLWr8Rr https://github.com/MadryLab/robustness 87.03 49.25
cifar10  linf Huang2020Self                           trades-wrn-34-10*            as-it-is     0.031 1nInDeIyZe2G-mJFxQJ3UoclQNomWjMgm 2002.10319 83.48 53.34
cifar10  linf Pang2020Boosting                        trades-wrn-34-20-cosine*     -            8/255 1iNWOj3MP7kGe8yTAS4XnDaDXDLt0mwqw 2002.08619 85.14 53.74
cifar10  linf Wong2020Fast                            wong-preact-resnet-18        -            8/255 1Re--_lf3jCEw9bnQqGkjw3J7v2tSZKrv 2001.03994 83.34 43.21
cifar10  linf Ding2020MMA                             trades-wrn-28-4-standardized as-it-is     8/255 19Q_rIIHXsYzxZ0WcZdqT-N2OD7MfgoZ0 1812.02637 84.36 41.44
cifar10  linf Zhang2019You                            trades-wrn-34-10*            as-it-is     8/255 1kB2qqPQ8qUNmK8VKuTOhT1X4GT46kAoA 1905.00877 87.20 44.83
cifar10  linf Zhang2020Attacks                        trades-wrn-34-10*            as-it-is     8/255 1lBVvLG6JLXJgQP2gbsTxNHl6s3YAopqk 2002.11242 84.52 53.51
cifar10  linf Wu2020Adversarial_extra                 trades-wrn-28-10*            as-it-is     8/255 1-WJWpAZLlmc4gJ8XXNf7IETjnSZzaCNp 2004.05884 88.25 60.04
cifar10  linf Wu2020Adversarial                       trades-wrn-34-10             as-it-is     8/255 13LBcgNvhFppCFG22i1xATrahFPfMgXGf 2004.05884 85.36 56.17
cifar10  linf Sitawarin2020Improving                  trades-wrn-34-10*            as-it-is     8/255 12teknvo6dQGSWBaGnbNFwFO3-Y8j2eB6 2003.09347 86.84 50.72
cifar10  linf Chen2020Efficient                       trades-wrn-34-10*            -            8/255 1c5EXpd3Kn_s6qQIbkLX3tTOOPC8VslHg 2010.01278 85.32 51.12
cifar10  linf Cui2020Learnable_34_20                  trades-wrn-34-20*            as-it-is     0.031 1y7BUxPhQjNlb4w4BUlDyYJIS4w4fsGiS 2011.11164 88.70 53.57
cifar10  linf Cui2020Learnable_34_10                  trades-wrn-34-10*            as-it-is     0.031 16s9pi_1QgMbFLISVvaVUiNfCzah6g2YV 2011.11164 88.22 52.86
cifar10  linf Zhang2020Geometry                       trades-wrn-28-10*            as-it-is     8/255 1UoG1JhbAps1MdMc6PEFiZ2yVXl_Ii5Jk 2010.01736 89.36 59.64
cifar10  linf Sridhar2021Robust                       trades-wrn-28-10*            as-it-is     8/255 1muDMpOyRlgJ7n2rhS2NpfFGp3rzjuIu0 2106.02078 89.46 59.66
cifar10  linf Sridhar2021Robust_34_15                 trades-wrn-34-15*            as-it-is     8/255 1-3ii3GX93YqIcmJ3VNsOgYA7ecdnSZ0Z 2106.02078 86.53 60.41
cifar10  linf Rade2021Helper_R18_extra                preact-resnet-18             -            8/255 1hdXk1rPJql2Oa84Kky64fMTQzng5UcTL https://openreview.net/forum?id=BuD2LmNaU3a 89.02 57.67
cifar10  linf Rade2021Helper_extra                    wrn-34-10                    -            8/255 1GhAp-0C3ONRy9BxIe0J9vKc082vHvR7t https://openreview.net/forum?id=BuD2LmNaU3a 91.47 62.83
cifar10  linf Huang2021Exploring                      wrn-r-34                     as-it-is     8/255 1-2ram-xtoEidOh1SCYY5KTiyKieINkZe 2110.03825 90.56 61.56
cifar10  linf Huang2021Exploring_ema                  wrn-r-34                     as-it-is     8/255 1-GRwO5t9HxOS2y6RFK8QEsDXjdcgmVu6 2110.03825 91.23 62.54
cifar10  linf Addepalli2021Towards_RN18               resnet-18                    as-it-is     8/255 1-1DxecXz5U_xZ54DVdE-GVm71Tiox-Ri 2210.09852 80.24 51.06
cifar10  linf Addepalli2021Towards_WRN34              trades-wrn-34-10*            as-it-is     8/255 1-3vgjTNfSq7LSMKuayEQ-jLflAP196dB 2210.09852 85.32 58.04
cifar10  linf Dai2021Parameterizing                   trades-wrn-28-10-pssilu      as-it-is     8/255 1eO-MNXQSAoCuNFjIbdCheprT4Beqo9Zv 2110.05626 87.02 61.55
cifar10  linf Chen2021LTD_WRN34_10                    trades-wrn-34-10             as-it-is     8/255 1-0RoQKYvHLNh7hZ71wJjSit1XtrJQo9D 2111.02331 85.21 56.94
cifar10  linf Chen2021LTD_WRN34_20                    trades-wrn-34-20             as-it-is     8/255 1-5JmY9rapuGwCUc2nPvy7Rb_sn_dHhFm 2111.02331 86.03 57.71
cifar10  linf Standard                                trades-wrn-28-10             as-it-is     8/255 1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC https://github.com/RobustBench/robustbench/ 94.78 0.00
cifar10  linf Jia2022LAS-AT_34_10                     trades-wrn-34-10             as-it-is     8/255 1-3l7xKhIPyes3O4QSz0HU6L-hfOoS0xD 2203.06616 84.98 56.26
cifar10  linf Jia2022LAS-AT_70_16                     trades-wrn-70-16             as-it-is     8/255 1-4p-Gr0hjl8wq6qvvTza4x4a5Rmu-Bfr 2203.06616 85.66 57.61
cifar10  linf Addepalli2022Efficient_RN18             resnet-18                    as-it-is     8/255 1m5vhdzIUUKhDbsZdOG9z76Eyp6f4xe_f 2210.15318 85.71 52.48
cifar10  linf Addepalli2022Efficient_WRN_34_10        trades-wrn-34-10             as-it-is     8/255 1--dVDtZhAk4D2zMtTDwIGnImuCGxTcBA 2210.15318 88.71 57.81
cifar10  linf Huang2022Revisiting_WRN-A4              wrn-a-4                      -            8/255 1okHk4XPgunmqHG3alXfVF84qRwlu6Oqe 2212.11005 91.58 65.79
cifar10  linf Cui2023Decoupled_WRN-34-10              trades-wrn-34-10             as-it-is     8/255 1-ArD-TugRXUbH3VtM9qnzvby6NvdXNUN 2305.13948 85.31 57.09
cifar10  linf Chen2024Data_WRN_34_10                  trades-wrn-34-10             as-it-is     8/255 1-AzyMQaoUuwxec6O_Yri5OVtVqnNgR4R https://doi.org/10.1016/j.patcog.2024.110394 86.54 57.30
cifar10  linf Chen2024Data_WRN_34_20                  trades-wrn-34-20             as-it-is     8/255 1-IbKAGtp79tAEm59N0i8QMvMZ3nxSD2- https://doi.org/10.1016/j.patcog.2024.110394 86.10 58.09
cifar10  l2   Augustin2020Adversarial                 resnet-50                    Augustin2020 0.5   1oDghrzNfkStC2wr5Fq8T896yNV4wVG4d 2003.09461 91.08 72.91
cifar10  l2   Engstrom2019Robustness                  resnet-50                    Engstrom2019 0.5   1O8rGa6xOUIRwQ-M4ESrCjzknby8TM2ZE https://github.com/MadryLab/robustness 90.83 69.24
cifar10  l2   Rice2020Overfitting                     rice-preact-resnet-18        -            0.5   1jo-31utiYNBVzLM0NxUEWz0teo3Z0xa7 2002.11569 88.67 67.68
cifar10  l2   Rony2019Decoupling                      trades-wrn-28-10             Rony2019     0.5   1Oua2ZYSxNvoDrtlY9vTtRzyBWHziE4Uy 1811.09600 89.05 66.44
cifar10  l2   Standard                                trades-wrn-28-10             as-it-is     0.5   1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC https://github.com/RobustBench/robustbench/ 94.78 0.00
cifar10  l2   Ding2020MMA                             trades-wrn-28-4-standardized as-it-is     0.5   13wgY0Q_eor52ltZ0PkfJx5BCZ8cLM52E 1812.02637 88.02 66.09
cifar10  l2   Wu2020Adversarial                       trades-wrn-34-10             as-it-is     0.5   1M5AZ0EZQt7d2AlTmsnqZcfx91-x7YEAV 2004.05884 88.51 73.66
cifar10  l2   Augustin2020Adversarial_34_10           trades-wrn-34-10             Augustin2020 0.5   1qPsKS546mKcs71IEhzOS-kLpQFSFhaKL 2003.09461 92.23 76.25
cifar10  l2   Augustin2020Adversarial_34_10_extra     trades-wrn-34-10             Augustin2020 0.5   1--1MFZja6C2iVWi9MgetYjnSIenRBLT- 2003.09461 93.96 78.79
cifar10  l2   Rade2021Helper_R18_ddpm                 preact-resnet-18             -            0.5   1VWrStAYy5CrUR18sjcpq_LKLpeqgUaoQ https://openreview.net/forum?id=BuD2LmNaU3a 90.57 76.15
cifar100 linf Cui2020Learnable_34_20_LBGAT6           trades-wrn-34-20*            as-it-is     8/255 1rN76st8q_32j6Uo8DI5XhcC2cwVhXBwK 2011.11164 62.55 30.20
cifar100 linf Cui2020Learnable_34_10_LBGAT0           trades-wrn-34-10*            as-it-is     8/255 1RnWbGxN-A-ltsfOvulr68U6i2L8ohAJi 2011.11164 70.25 27.16
cifar100 linf Cui2020Learnable_34_10_LBGAT6           trades-wrn-34-10*            as-it-is     8/255 1TfIgvW3BAkL8jL9J7AAWFSLW3SSzJ2AE 2011.11164 60.64 29.33
cifar100 linf Chen2020Efficient                       trades-wrn-34-10*            Chen2020     8/255 1JEh95fvsfKireoELoVCBxOi12IPGFDUT 2010.01278 62.15 26.94
cifar100 linf Wu2020Adversarial                       trades-wrn-34-10             Rice2020     8/255 1yWGvHmrgjtd9vOpV5zVDqZmeGhCgVYq7 2004.05884 60.38 28.86
cifar100 linf Sitawarin2020Improving                  trades-wrn-34-10*            as-it-is     8/255 1hbpwans776KM1SMbOxISkDx0KR0DW8EN 2003.09347 62.82 24.57
cifar100 linf Hendrycks2019Using                      trades-wrn-28-10             [-1,1]       8/255 1If3tppQsCe5dN8Vbo9ff0tjlKQTTrShd 1901.09960 59.23 28.42
cifar100 linf Rice2020Overfitting                     rice-preact-resnet-18        Rice2020     8/255 1XXNZn3fZBOkD1aqNL1cvcD8zZDccyAZ6 2002.11569 53.83 18.95
cifar100 linf Rade2021Helper_R18_ddpm                 preact-resnet-18             -            8/255 1-qUvfOjq6x4I8mZynfGtzzCH_nvqS_VQ https://openreview.net/forum?id=BuD2LmNaU3a 61.50 28.88
cifar100 linf Addepalli2021Towards_PARN18             rice-preact-resnet-18        as-it-is     8/255 1-FwVya1sDvdFXr0_ZBoXEJW9ukGC7hPK 2210.09852 62.02 27.14
cifar100 linf Addepalli2021Towards_WRN34              trades-wrn-34-10*            as-it-is     8/255 1-9GAld_105-jWBLXL73btmfOCwAqvz7Y 2210.09852 65.73 30.35
cifar100 linf Chen2021LTD_WRN34_10                    trades-wrn-34-10*            as-it-is     8/255 1-I4NZyULdEWH46b4EaCTxuuRo4eFXsg_ 2111.02331 64.07 30.59
cifar100 linf Jia2022LAS-AT_34_10                     trades-wrn-34-10*            as-it-is     8/255 1-338K2PUf5FTwk4cbUUeTNz247GrXaMG 2203.06616 64.89 30.77
cifar100 linf Jia2022LAS-AT_34_20                     trades-wrn-34-20             as-it-is     8/255 1WhRq01Yl1v8O3skkrGUBuySlptidc5a6 2203.06616 67.31 31.91
cifar100 linf Addepalli2022Efficient_RN18             resnet-18                    as-it-is     8/255 1-2hnxC7lZOQDqQbum4yPbtRtTND86I5N 2210.15318 65.45 27.67
cifar100 linf Addepalli2022Efficient_WRN_34_10        trades-wrn-34-10             as-it-is     8/255 1-3c-iniqNfiwGoGPHC3nSostnG6J9fDt 2210.15318 68.75 31.85
cifar100 linf Cui2020Learnable_34_10_LBGAT9_eps_8_255 trades-wrn-34-10             as-it-is     8/255 1TrUAN9opXBQa24WCTVtQTY-RkXK_3dmA 2011.11164 62.99 31.20
cifar100 linf Cui2023Decoupled_WRN-34-10              trades-wrn-34-10             as-it-is     8/255 1whziIioVu5SGI1fBKyc331IfG_1MgenN 2305.13948 65.76 31.91
cifar100 linf Cui2023Decoupled_WRN-34-10_autoaug      trades-wrn-34-10             as-it-is     8/255 18hjcLa1V3JTNUOshafLvw1ncxL2gu50M 2305.13948 65.93 32.52
cifar100 linf Chen2024Data_WRN_34_10                  trades-wrn-34-10             as-it-is     8/255 1-N5a0Z9o-8-oIrF4_EaVFVOOPI5-D-H2 https://doi.org/10.1016/j.patcog.2024.110394 64.32 31.13
"""  # noqa: E501

_MEAN_SPARSE = "its activations are sparsified around stored means (MeanSparse)"
_XCIT = "its network is a vision transformer (XCiT), its weights come through timm"
_MIXED = "it mixes a standard and a robust classifier with a third network"
ABSENT: dict[str, str] = {
    "cifar10/linf/Chen2020Adversarial": "it averages the probabilities of three networks (ResNet-50) in three files",
    "cifar10/linf/Kang2021Stable": "its last layers solve a differential equation",
    "cifar10/linf/Debenedetti2022Light_XCiT-S12": _XCIT,
    "cifar10/linf/Debenedetti2022Light_XCiT-M12": _XCIT,
    "cifar10/linf/Debenedetti2022Light_XCiT-L12": _XCIT,
    "cifar10/linf/Bai2023Improving_edm": _MIXED,
    "cifar10/linf/Bai2024MixedNUTS": "it mixes the transformed logits of a standard and a robust classifier",
    "cifar10/linf/Amini2024MeanSparse_Ra_WRN_70_16": _MEAN_SPARSE,
    "cifar10/linf/Amini2024MeanSparse_S-WRN-94-16": _MEAN_SPARSE,
    "cifar10/l2/Amini2024MeanSparse_S-WRN-70-16": _MEAN_SPARSE,
    "cifar100/linf/Debenedetti2022Light_XCiT-S12": _XCIT,
    "cifar100/linf/Debenedetti2022Light_XCiT-M12": _XCIT,
    "cifar100/linf/Debenedetti2022Light_XCiT-L12": _XCIT,
    "cifar100/linf/Bai2023Improving_edm": _MIXED,
    "cifar100/linf/Bai2023Improving_trades": _MIXED,
    "cifar100/linf/Bai2024MixedNUTS": "it mixes the transformed logits of a standard and a robust classifier",
    "cifar100/linf/Amini2024MeanSparse_S-WRN-70-16": _MEAN_SPARSE,
}
"""RobustBench's CIFAR models in linf and l2 that cannot be opened here, by DATA/NORM/NAME, with the reason."""


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
            file = _in_drive(place, own)
        plain = name.startswith(("Sehwag2021", "Carmon2019"))
        found[f"{data}/{norm}/{name}"] = Release(
            architecture,
            f"{data} as it is" if plain else data,
            _EPS[norm],
            paper,
            float(clean),
            float(robust),
            (file,),
            unused=("sub_block1.",) if name.startswith("Carmon2019") else (),
        )
    return found


def _robustbench() -> dict[str, Release]:
    found = {}
    for row in _ROBUSTBENCH.split("\n")[1:-1]:
        data, norm, name, architecture, constants, eps, number, paper, clean, robust = row.split()
        seen = {"-": "", "as-it-is": " as it is", "[-1,1]": " in [-1, 1]"}.get(constants, f" of {constants}")
        unused = ("sub_block1.",) if architecture.endswith("*") else ()
        if name == "Andriushchenko2020Understanding":
            unused = ("model_preact_hl1.",)  # its first layers again
        found[f"{data}/{norm}/{name}"] = Release(
            architecture.rstrip("*"),
            data + seen,
            f"{norm}:{eps}",
            paper,
            float(clean),
            float(robust),
            (_in_drive(number, f"{data}_{norm}_{name}.pt"),),
            unused=unused,
        )
    return found


def _in_drive(number: str, name: str) -> Download:
    return Download(f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t", name)


RELEASES: dict[str, Release] = {**_deepmind(), **_others(), **_robustbench()}
"""Releases by DATA/NORM/NAME; `hub.find_release` also accepts NAME only."""
