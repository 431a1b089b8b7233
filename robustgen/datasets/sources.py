"""Where the data sets are published: files, digests, and what one has to do by hand.

Digests are those that the publishers, or the readers in common use, give; where none was found there is none.
"""

from __future__ import annotations

from dataclasses import dataclass

from robustgen.storage.downloads import Download


@dataclass(frozen=True)
class Published:
    """What makes up a data set, for `robustgen fetch`.

    about    what it is, and on which terms
    files    what is fetched, into one folder
    by_hand  what nobody can fetch for the user: which files, from where, to which place of the folder
    checked  digests of files once unpacked, by path
    """

    about: str
    files: tuple[Download, ...] = ()
    by_hand: str = ""
    checked: tuple[tuple[str, str], ...] = ()


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_STANFORD = "http://ufldl.stanford.edu/housenumbers"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"
_DEEPMIND = "https://storage.googleapis.com/dm-adversarial-robustness"
_WANG = "https://huggingface.co/datasets/P2333/DM-Improves-AT/resolve/main"
_IMAGENET = "https://image-net.org/data/downsample"

SOURCES: dict[str, Published] = {
    "cifar10": Published(
        "CIFAR-10 (Krizhevsky 2009), 163 MB; for research, with citation",
        (
            Download(
                f"{_TORONTO}/cifar-10-python.tar.gz",
                "cifar-10-python.tar.gz",
                "md5:c58f30108f718f92721af3b95e74349a",
                "cifar-10-batches-py/test_batch",
                1 << 30,
            ),
        ),
        checked=(
            ("cifar-10-batches-py/data_batch_1", "md5:c99cafc152244af753f735de768cd75f"),
            ("cifar-10-batches-py/data_batch_2", "md5:d4bba439e000b95fd0a9bffe97cbabec"),
            ("cifar-10-batches-py/data_batch_3", "md5:54ebc095f3ab1f0389bbae665268c751"),
            ("cifar-10-batches-py/data_batch_4", "md5:634d18415352ddfa80567beed471001a"),
            ("cifar-10-batches-py/data_batch_5", "md5:482c414d41f54cd18b22e5b47cb7c3cb"),
            ("cifar-10-batches-py/test_batch", "md5:40351d587109b95175f43aff81a1287e"),
        ),
    ),
    "cifar100": Published(
        "CIFAR-100 (Krizhevsky 2009), 161 MB; for research, with citation",
        (
            Download(
                f"{_TORONTO}/cifar-100-python.tar.gz",
                "cifar-100-python.tar.gz",
                "md5:eb9058c3a382ffc7106e4002c42a8d85",
                "cifar-100-python/test",
                1 << 30,
            ),
        ),
        checked=(
            ("cifar-100-python/train", "md5:16019d7e3df5f24257cddd939b257f8d"),
            ("cifar-100-python/test", "md5:f0ef6b0ae62326f3e7ffdfab6717acfc"),
        ),
    ),
    "svhn": Published(
        "SVHN, cropped digits (Netzer et al. 2011), 236 MB; for non-commercial use",
        (
            Download(f"{_STANFORD}/train_32x32.mat", "train_32x32.mat", "md5:e26dedcc434d2e4c54c9b2d4a06d8373"),
            Download(f"{_STANFORD}/test_32x32.mat", "test_32x32.mat", "md5:eb5a983be6a315427106f1b164d9cef3"),
        ),
    ),
    "mnist": Published(
        "MNIST (LeCun, Cortes, Burges), 12 MB; CC BY-SA 3.0",
        tuple(
            Download(f"{_MNIST}/{name}", name, f"md5:{digest}")
            for name, digest in (
                ("train-images-idx3-ubyte.gz", "f68b3c2dcbeaaa9fbdd348bbdeb94873"),
                ("train-labels-idx1-ubyte.gz", "d53e105ee54ea40749a09fcbcd1e9432"),
                ("t10k-images-idx3-ubyte.gz", "9fb629c4189551a2d022fa330f9573f3"),
                ("t10k-labels-idx1-ubyte.gz", "ec29112dd5afa0611ce80d1b7f02629c"),
            )
        ),
    ),
    "tiny-imagenet": Published(
        "TinyImageNet-200 (CS231n), 248 MB; on ImageNet's terms, non-commercial research",
        (
            Download(
                "http://cs231n.stanford.edu/tiny-imagenet-200.zip",
                "tiny-imagenet-200.zip",
                "md5:90528d7ca1a48142e341f4ef8d21d0de",
                "tiny-imagenet-200/wnids.txt",
                1 << 30,
            ),
        ),
    ),
    "afhq": Published(
        "AFHQ (Choi et al. 2020, arXiv:1912.01865), some GB; CC BY-NC 4.0",
        (
            Download(
                "https://www.dropbox.com/s/t9l9o3vsx2jai3z/afhq.zip?dl=1", "afhq.zip", unpacks="afhq", limit=1 << 35
            ),
        ),
    ),
    "celeba": Published(
        "CelebA, aligned and cropped (Liu et al. 2015), 1.4 GB; for non-commercial research",
        by_hand=(
            "agree to its terms at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html; put img_align_celeba.zip "
            "(unpacked: the folder img_align_celeba), list_attr_celeba.txt and list_eval_partition.txt there"
        ),
        checked=(
            ("img_align_celeba.zip", "md5:00d2c5bc6d35e252742224ab0c1e8fcb"),
            ("list_attr_celeba.txt", "md5:75e246fa4810816ffd6ee81facbd244c"),
            ("list_eval_partition.txt", "md5:d32c9cbf5e040fd4025c592c306e6668"),
        ),
    ),
    "imagenet64": Published(
        "ImageNet downsampled to 64x64 (Chrabaszcz et al. 2017, arXiv:1707.08819), 13 GB; non-commercial research",
        by_hand=(
            "log in at https://image-net.org/download-images, take "
            + ", ".join(f"{_IMAGENET}/Imagenet64_{part}_npz.zip" for part in ("train_part1", "train_part2", "val"))
            + "; unpacked, put train_data_batch_1.npz ... train_data_batch_10.npz and val_data.npz there"
        ),
    ),
    **{
        f"{data}-ddpm": Published(
            f"a million images of a DDPM fitted to {data} (Rebuffi et al. 2021, arXiv:2103.01946), 3 GB: a proxy set",
            (Download(f"{_DEEPMIND}/{data}_ddpm.npz", f"{data}_ddpm.npz"),),
        )
        for data in ("cifar10", "cifar100", "svhn")
    },
    **{
        f"{data}-edm-1m": Published(
            f"a million images of an EDM fitted to {data} (Wang et al. 2023, arXiv:2302.04638), 3 GB: a proxy set",
            (Download(f"{_WANG}/{data}/1m.npz", f"{data}_edm_1m.npz"),),
        )
        for data in ("cifar10", "cifar100")
    },
}
