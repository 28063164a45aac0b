"""Programs that train networks of equimo, flaxdiff and ginjax: gradients by the parameters."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from unchanged.registry import Made, energy, normal, program, uniform

# ---------------------------------------------------------------------------------------------------- equimo


def _equimo(model: Any, images: Any) -> Made:
    import equinox as eqx

    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, images):
        model = eqx.combine(params, static)
        return energy(jax.vmap(lambda image: model(image, inference=True))(images))

    return jax.value_and_grad(loss), (params, images)


@program("equimo.mobilenetv3", "gradient of MobileNetV3 small: 4 images of 128x128")
def mobilenetv3() -> Made:
    from equimo.vision.models import mobilenetv3_small

    return _equimo(mobilenetv3_small(key=jax.random.key(0)), normal(4, 3, 128, 128))


@program("equimo.convnext", "gradient of ConvNeXt atto: 4 images of 96x96")
def convnext() -> Made:
    from equimo.vision.models import convnext_atto

    return _equimo(convnext_atto(key=jax.random.key(0)), normal(4, 3, 96, 96))


@program("equimo.lowformer", "gradient of LowFormer B0: 2 images of 128x128")
def lowformer() -> Made:
    from equimo.vision.models import lowformer_backbone_b0

    model = lowformer_backbone_b0(attention_type="softmax", key=jax.random.key(0))
    return _equimo(model, normal(2, 3, 128, 128))


@program("equimo.reduceformer", "gradient of ReduceFormer B1: 2 images of 128x128")
def reduceformer() -> Made:
    from equimo.vision.models import reduceformer_backbone_b1

    return _equimo(reduceformer_backbone_b1(key=jax.random.key(0)), normal(2, 3, 128, 128))


@program("equimo.attnet", "gradient of AttNet XXS: 2 images of 128x128")
def attnet() -> Made:
    from equimo.vision.models import attnet_xxs

    return _equimo(attnet_xxs(key=jax.random.key(0)), normal(2, 3, 128, 128))


@program("equimo.iformer", "gradient of iFormer T: 2 images of 128x128")
def iformer() -> Made:
    from equimo.vision.models import iformer_t

    return _equimo(iformer_t(key=jax.random.key(0)), normal(2, 3, 128, 128))


# -------------------------------------------------------------------------------------------------- flaxdiff


def _flaxdiff_unet(**sizes: Any) -> Made:
    from flaxdiff.models.simple_unet import Unet

    model = Unet(**sizes)
    x, time, text = normal(2, 32, 32, 3), uniform(2, seed=1), normal(2, 16, 64, seed=2)
    params = jax.jit(model.init)(jax.random.key(0), x, time, text)

    def loss(params, x, time, text, noise):
        return energy(model.apply(params, x, time, text) - noise)

    return jax.value_and_grad(loss), (params, x, time, text, normal(*x.shape, seed=3))


@program("flaxdiff.unet", "gradient of a diffusion U-Net with attention: 2 images of 32x32")
def flaxdiff_unet() -> Made:
    depths = (32, 64, 128)
    return _flaxdiff_unet(
        emb_features=128, feature_depths=depths, attention_configs=({"heads": 4},) * len(depths)
    )


@program("flaxdiff.unet without attention", "gradient of a diffusion U-Net: 2 images of 32x32")
def flaxdiff_plain_unet() -> Made:
    depths = (32, 64, 128)
    return _flaxdiff_unet(emb_features=128, feature_depths=depths, attention_configs=(None,) * len(depths))


@program("flaxdiff.separable", "gradient of a residual block of separable layers: 4 images of 64x64x64")
def flaxdiff_separable() -> Made:
    from flaxdiff.models.common import ResidualBlock

    return _flaxdiff_block(ResidualBlock("separable", features=64))


@program(
    "flaxdiff.weight standardisation", "gradient of a residual block, standardised: 4 images of 64x64x64"
)
def flaxdiff_standardised() -> Made:
    from flaxdiff.models.common import ResidualBlock

    return _flaxdiff_block(ResidualBlock("w_conv", features=64, dtype=jnp.float32))


def _flaxdiff_block(block: Any) -> Made:
    x, time = normal(4, 64, 64, 64), normal(4, 64, seed=1)
    params = jax.jit(block.init)(jax.random.key(0), x, time)
    return jax.value_and_grad(lambda params, x, time: energy(block.apply(params, x, time)), argnums=(0, 1)), (
        params,
        x,
        time,
    )


@program("flaxdiff.inception", "gradient of InceptionV3, as FID has it: 2 images of 128x128")
def flaxdiff_inception() -> Made:
    from flaxdiff.metrics.inception import InceptionV3

    model = InceptionV3()
    x = normal(2, 128, 128, 3)
    variables = jax.jit(partial(model.init, train=False))(jax.random.key(0), x)
    return jax.value_and_grad(lambda x, variables: energy(model.apply(variables, x, train=False))), (
        x,
        variables,
    )


# ---------------------------------------------------------------------------------------------------- ginjax


def _ginjax(model: Any, images: Any) -> Made:
    import equinox as eqx

    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, images):
        model = eqx.combine(params, static)
        return energy(jax.vmap(lambda image: model(image)[0])(images))

    return jax.value_and_grad(loss), (params, images)


def _vector_fields(spatial: tuple[int, ...]) -> tuple[Any, Any, Any]:
    """Two periodic fields of a scalar and a vector each, their signature, and filters of their symmetries."""
    import ginjax.geometric as geom

    dimensions = len(spatial)
    data = {(0, 0): normal(2, 1, *spatial), (1, 0): normal(2, 1, *spatial, dimensions, seed=1)}
    images = geom.MultiImage(data, dimensions)
    operators = geom.make_all_operators(dimensions)
    filters = geom.get_invariant_filters([3], [0, 1, 2], [0], dimensions, operators)
    return images, images.get_one().get_signature(), filters


@program("ginjax.dilated", "gradient of an equivariant dilated ResNet: 2 vector fields of 32x32")
def ginjax_dilated() -> Made:
    import ginjax.models

    images, signature, filters = _vector_fields((32, 32))
    model = ginjax.models.DilResNet(
        2, signature, signature, depth=8, num_blocks=1, conv_filters=filters, key=jax.random.key(0)
    )
    return _ginjax(model, images)


@program("ginjax.resnet", "gradient of an equivariant ResNet: 2 vector fields of 32x32")
def ginjax_resnet() -> Made:
    import ginjax.models

    images, signature, filters = _vector_fields((32, 32))
    model = ginjax.models.ResNet(
        2, signature, signature, depth=8, num_blocks=2, conv_filters=filters, key=jax.random.key(0)
    )
    return _ginjax(model, images)


@program("ginjax.volumes", "gradient of an equivariant 3-D ResNet: 2 vector fields of 12x12x12")
def ginjax_volumes() -> Made:
    import ginjax.models

    images, signature, filters = _vector_fields((12, 12, 12))
    model = ginjax.models.ResNet(
        3, signature, signature, 2, num_blocks=1, num_conv=1, conv_filters=filters, key=jax.random.key(0)
    )
    return _ginjax(model, images)


@program("ginjax.max pool", "gradient of pooling by the largest norm, 2x2: 2 vector fields of 64x64")
def ginjax_max_pool() -> Made:
    import ginjax.layers

    images, _, _ = _vector_fields((64, 64))
    layer = ginjax.layers.MaxNormPool(2)
    return jax.value_and_grad(lambda images: energy(jax.vmap(layer)(images))), (images,)
