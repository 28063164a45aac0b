"""Handwritten digits, as [N, height, width, 1] float32 in [0, 1] with integer labels.

`load_bundled` reads the 1797 images of 8x8 pixels that scikit-learn carries in its package; `load_mnist`
reads the four files that MNIST is published as. Both give the same `Digits`, and neither touches the network.
"""

import gzip
import math
from pathlib import Path
from typing import NamedTuple

import numpy as np


class Digits(NamedTuple):
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray


def load_bundled() -> Digits:
    """scikit-learn's digits, a fifth of each class held out for the test.

    The split has its own fixed seed, so that every run is judged by the same images.
    """
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = (images / 16.0).astype(np.float32).reshape(-1, 8, 8, 1)  # pixels are 0..16
    train_images, test_images, train_labels, test_labels = train_test_split(
        images, labels.astype(np.int32), test_size=0.2, stratify=labels, random_state=0
    )
    return Digits(train_images, train_labels, test_images, test_labels)


def load_mnist(directory: Path) -> Digits:
    """MNIST's four idx files in `directory`, each plain or .gz."""
    return Digits(
        *_read_pair(directory, "train"),
        *_read_pair(directory, "t10k"),
    )


def _read_pair(directory: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    images_path = _find(directory, f"{part}-images", "idx3-ubyte")
    labels_path = _find(directory, f"{part}-labels", "idx1-ubyte")
    images, labels = read_idx(images_path, rank=3), read_idx(labels_path, rank=1)
    if len(images) != len(labels):
        raise ValueError(f"{images_path} holds {len(images)} images, {labels_path} {len(labels)} labels")
    if len(labels) and labels.max() > 9:
        raise ValueError(f"{labels_path} holds a label {labels.max()}, digits end at 9")
    return images[..., None].astype(np.float32) / 255.0, labels.astype(np.int32)


def _find(directory: Path, stem: str, kind: str) -> Path:
    # Both spellings are in circulation: train-images-idx3-ubyte and train-images.idx3-ubyte.
    names = [f"{stem}{separator}{kind}{suffix}" for separator in "-." for suffix in ("", ".gz")]
    for name in names:
        if (directory / name).is_file():
            return directory / name
    raise FileNotFoundError(f"{directory} has none of {', '.join(names)}")


def read_idx(path: Path, rank: int) -> np.ndarray:
    """One idx file of unsigned bytes: two zero bytes, the type's code, the rank, the sizes, then the data.

    Numbers in the header are big-endian. Raises ValueError for anything but `rank` axes of unsigned bytes.
    """
    unsigned_byte = 0x08
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        try:
            content = file.read()
        except (EOFError, gzip.BadGzipFile) as error:
            raise ValueError(f"{path} is no whole gzip file: {error}") from error

    expected_magic = bytes([0, 0, unsigned_byte, rank])
    if content[:4] != expected_magic:
        raise ValueError(
            f"{path} begins with bytes {content[:4].hex(' ') or '(none)'}; "
            f"an idx file of unsigned bytes with {rank} axes begins with {expected_magic.hex(' ')}"
        )
    header_bytes = 4 + 4 * rank
    if len(content) < header_bytes:
        raise ValueError(f"{path} ends inside its header: {len(content)} bytes of {header_bytes}")
    shape = tuple(int(size) for size in np.frombuffer(content, ">u4", count=rank, offset=4))
    if len(content) != header_bytes + math.prod(shape):
        raise ValueError(
            f"{path} announces shape {shape}, {math.prod(shape)} bytes of data, "
            f"but holds {len(content) - header_bytes}"
        )
    return np.frombuffer(content, np.uint8, offset=header_bytes).reshape(shape)
