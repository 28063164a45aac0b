"""Programs on images: filters and metrics (dm-pix) and a perceptual distance (lpips-nnx)."""

from __future__ import annotations

from unittest import mock

import jax
import jax.numpy as jnp

from unchanged.registry import Made, energy, normal, program, uniform


@program("dm-pix.blur", "Gaussian blur, 13x13: an image of 512x512x3")
def blur() -> Made:
    import dm_pix

    return lambda image: dm_pix.gaussian_blur(image, 3.0, 13), (uniform(512, 512, 3),)


@program("dm-pix.blur gradient", "gradient of a Gaussian blur, 13x13: an image of 512x512x3")
def blur_gradient() -> Made:
    import dm_pix

    def loss(image, target):
        return energy(dm_pix.gaussian_blur(image, 3.0, 13) - target)

    return jax.value_and_grad(loss), (uniform(512, 512, 3), uniform(512, 512, 3, seed=1))


@program("dm-pix.blur batch", "gradient of a Gaussian blur, 7x7: 8 images of 128x128x3")
def blur_batch() -> Made:
    import dm_pix

    def loss(images, target):
        return energy(dm_pix.gaussian_blur(images, 1.5, 7) - target)

    return jax.value_and_grad(loss), (uniform(8, 128, 128, 3), uniform(8, 128, 128, 3, seed=1))


@program("dm-pix.ssim", "gradient of the structural similarity: 4 images of 128x128x3")
def ssim() -> Made:
    import dm_pix

    def loss(a, b):
        return dm_pix.ssim(a, b).mean()

    return jax.value_and_grad(loss), (uniform(4, 128, 128, 3), uniform(4, 128, 128, 3, seed=1))


@program("dm-pix.elastic deformation", "gradient of an elastic deformation: an image of 128x128x3")
def elastic_deformation() -> Made:
    import dm_pix

    def loss(image, target):
        moved = dm_pix.elastic_deformation(jax.random.key(0), image, alpha=10.0, sigma=4.0)
        return energy(moved - target)

    return jax.value_and_grad(loss), (uniform(128, 128, 3), uniform(128, 128, 3, seed=1))


@program("dm-pix.patches", "gradient of overlapping patches, 8x8, stride 4: 4 images of 128x128x3")
def patches() -> Made:
    import dm_pix

    def loss(images):
        return energy(dm_pix.extract_patches(images, (1, 8, 8, 1), (1, 4, 4, 1), (1, 1, 1, 1)) ** 2)

    return jax.value_and_grad(loss), (uniform(4, 128, 128, 3),)


def _lpips():
    """The distance with random VGG-16 parameters: the package loads trained ones from the network."""
    import flax.nnx as nnx
    import lpips_nnx

    sizes = [(0, 3, 64), (2, 64, 64), (5, 64, 128), (7, 128, 128), (10, 128, 256), (12, 256, 256)]
    sizes += [(14, 256, 256), (17, 256, 512), *((index, 512, 512) for index in (19, 21, 24, 26, 28))]
    weights = {
        f"conv_{index}": {
            "kernel": normal(3, 3, inputs, outputs, seed=index) * (2 / (9 * inputs)) ** 0.5,
            "bias": jnp.zeros(outputs),
        }
        for index, inputs, outputs in sizes
    }
    with mock.patch("lpips_nnx.vgg.load_vgg16_weights", lambda: weights):
        return nnx.split(lpips_nnx.LPIPS(rngs=nnx.Rngs(0)))


@program("lpips-nnx.image", "gradient of LPIPS by the image: 2 images of 64x64")
def lpips_image() -> Made:
    import flax.nnx as nnx

    graph, state = _lpips()

    def loss(image, target, state):
        return nnx.merge(graph, state)(image, target, normalize=True).mean()

    return jax.value_and_grad(loss), (uniform(2, 64, 64, 3), uniform(2, 64, 64, 3, seed=1), state)


@program("lpips-nnx.parameters", "gradient of LPIPS by its parameters: 4 images of 32x32")
def lpips_parameters() -> Made:
    import flax.nnx as nnx

    graph, state = _lpips()

    def loss(state, image, target):
        return nnx.merge(graph, state)(image, target, normalize=True).mean()

    return jax.value_and_grad(loss), (state, uniform(4, 32, 32, 3), uniform(4, 32, 32, 3, seed=1))
