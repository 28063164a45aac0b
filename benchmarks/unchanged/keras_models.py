"""Programs that train networks of Keras: gradients by the parameters, in training mode."""

from __future__ import annotations

from typing import Any

import jax

from unchanged.registry import Made, energy, normal, program


def _keras(model: Any, x: Any) -> Made:
    trainable = [variable.value for variable in model.trainable_variables]
    others = [variable.value for variable in model.non_trainable_variables]

    def loss(trainable, others, x):
        outputs, others = model.stateless_call(trainable, others, x, training=True)
        return energy(outputs), others

    return jax.value_and_grad(loss, has_aux=True), (trainable, others, x)


@program("keras.mobilenetv2", "training step's gradient of MobileNetV2: 4 images of 96x96")
def keras_mobilenetv2() -> Made:
    import keras

    return _keras(keras.applications.MobileNetV2((96, 96, 3), weights=None, classes=10), normal(4, 96, 96, 3))


@program("keras.resnet50", "training step's gradient of ResNet-50: 2 images of 96x96")
def keras_resnet50() -> Made:
    import keras

    model = keras.applications.ResNet50(input_shape=(96, 96, 3), weights=None, classes=10)
    return _keras(model, normal(2, 96, 96, 3))


@program("keras.efficientnet", "training step's gradient of EfficientNetB0: 4 images of 96x96")
def keras_efficientnet() -> Made:
    import keras

    model = keras.applications.EfficientNetB0(input_shape=(96, 96, 3), weights=None, classes=10)
    return _keras(model, normal(4, 96, 96, 3))


@program("keras.xception", "training step's gradient of Xception: 2 images of 96x96")
def keras_xception() -> Made:
    import keras

    model = keras.applications.Xception(input_shape=(96, 96, 3), weights=None, classes=10)
    return _keras(model, normal(2, 96, 96, 3))


@program("keras.autoencoder", "training step's gradient of a transposed autoencoder: 16 images of 64x64")
def keras_autoencoder() -> Made:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((64, 64, 3)),
            layers.Conv2D(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2D(64, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(32, 3, strides=2, padding="same", activation="relu"),
            layers.Conv2DTranspose(3, 3, strides=2, padding="same"),
        ]
    )
    return _keras(model, normal(16, 64, 64, 3))


@program("keras.video", "training step's gradient of a 3-D network: 2 videos of 16x48x48")
def keras_video() -> Made:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((16, 48, 48, 3)),
            layers.Conv3D(16, 3, padding="same", activation="relu"),
            layers.MaxPooling3D(2),
            layers.Conv3D(32, 3, padding="same", activation="relu"),
            layers.AveragePooling3D(2),
            layers.Conv3D(64, 3, padding="same", activation="relu"),
            layers.GlobalAveragePooling3D(),
            layers.Dense(10),
        ]
    )
    return _keras(model, normal(2, 16, 48, 48, 3))


@program("keras.audio", "training step's gradient of a dilated 1-D network: 8 signals of 8192")
def keras_audio() -> Made:
    import keras

    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((8192, 1)),
            *(
                layers.Conv1D(32, 3, dilation_rate=2**level, padding="causal", activation="relu")
                for level in range(6)
            ),
            layers.Conv1D(1, 1),
        ]
    )
    return _keras(model, normal(8, 8192, 1))
