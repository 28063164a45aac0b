"""Images of rings, triangles and crosses on noise, with the class of every pixel: drawn, never read.

An image is [size, size, 1] float32, its labels [size, size] int32: an index into CLASSES.
"""

import numpy as np

CLASSES = ("background", "ring", "triangle", "cross")

NOISE = 0.2  # standard deviation; shapes are 0.4 to 1 brighter than the background
AREAS = (0.05, 0.15)  # the least and largest part of the image that a shape takes
TILT = 0.2  # radians, either way, that a triangle or cross leans
MIN_SIZE = 16  # pixels; there the arms of the smallest cross are one and a half wide


def draw(rng: np.random.Generator, count: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` images with one to three shapes each; a later one lies on top. Returns (images, labels)."""
    images = np.zeros((count, size, size), np.float32)
    labels = np.zeros((count, size, size), np.int32)
    for image, label in zip(images, labels, strict=True):
        for _ in range(rng.integers(1, 4)):
            shape = rng.integers(1, len(CLASSES))
            area = rng.uniform(*AREAS) * size**2
            center = rng.uniform(0.15, 0.85, 2) * size
            inside = SHAPES[shape - 1](size, area, center, rng.uniform(-TILT, TILT))
            image[inside] = rng.uniform(0.4, 1.0)
            label[inside] = shape
    images += NOISE * rng.standard_normal(images.shape, np.float32)
    return images[..., None], labels


# The shapes: which pixels [size, size] have their middle inside. `center` is (y, x). The size is given as the
# area, in pixels, so that no class of shape is larger than another.


def ring(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """A disc whose inner half, by radius, is cut out."""
    squares = (_turned(size, center, tilt) ** 2).sum(0)
    square_of_radius = area / (np.pi * (1 - 1 / 4))
    return (squares <= square_of_radius) & (squares > square_of_radius / 4)


def triangle(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """An equilateral one, standing on a side."""
    x, y = _turned(size, center, tilt)
    # Where three half planes meet, each at the distance r from the centre: its area is 3√3 r².
    distance = np.sqrt(area / np.sqrt(27))
    outward = np.pi / 2 + 2 * np.pi / 3 * np.arange(3)  # the first points down, as y does
    return np.all([np.cos(a) * x + np.sin(a) * y <= distance for a in outward], axis=0)


def cross(size: int, area: float, center: np.ndarray, tilt: float) -> np.ndarray:
    """Five equal squares: one in the middle, one at each of its sides."""
    x, y = np.abs(_turned(size, center, tilt))
    half = np.sqrt(area / 5) / 2
    return ((x <= half) & (y <= 3 * half)) | ((y <= half) & (x <= 3 * half))


def _turned(size: int, center: np.ndarray, tilt: float) -> np.ndarray:
    """The pixels' (x, y) as seen from the centre, with the axes turned by so many radians."""
    y, x = np.mgrid[:size, :size] + 0.5 - center[:, None, None]
    return np.stack([np.cos(tilt) * x + np.sin(tilt) * y, np.cos(tilt) * y - np.sin(tilt) * x])


SHAPES = (ring, triangle, cross)  # in the order of CLASSES, without the background
