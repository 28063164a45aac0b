"""Programs on signals: wavelet transforms (jaxwt) and jax.scipy.signal."""

from __future__ import annotations

import jax

from unchanged.registry import Made, energy, normal, program


@program("jaxwt.wavedec", "gradient of a 1-D wavelet transform, db4: 32 signals of 4096")
def wavedec() -> Made:
    import jaxwt

    return jax.value_and_grad(lambda x: energy(jaxwt.wavedec(x, "db4", level=5))), (normal(32, 4096),)


@program("jaxwt.round trip", "gradient through a 1-D transform and back, db4: 32 signals of 4096")
def round_trip() -> Made:
    import jaxwt

    def loss(x):
        return energy(jaxwt.waverec(jaxwt.wavedec(x, "db4", level=5), "db4"))

    return jax.value_and_grad(loss), (normal(32, 4096),)


@program("jaxwt.wavedec2", "gradient of a 2-D transform, db3: 8 images of 256x256")
def wavedec2() -> Made:
    import jaxwt

    return jax.value_and_grad(lambda x: energy(jaxwt.wavedec2(x, "db3", level=3))), (normal(8, 256, 256),)


@program("jaxwt.round trip 2", "gradient through a 2-D transform and back, db3: 8 images of 256x256")
def round_trip2() -> Made:
    import jaxwt

    def loss(x):
        return energy(jaxwt.waverec2(jaxwt.wavedec2(x, "db3", level=3), "db3"))

    return jax.value_and_grad(loss), (normal(8, 256, 256),)


@program("jaxwt.wavedec3", "gradient of a 3-D transform, db2: 2 volumes of 48x48x48")
def wavedec3() -> Made:
    import jaxwt

    return jax.value_and_grad(lambda x: energy(jaxwt.wavedec3(x, "db2", level=2))), (normal(2, 48, 48, 48),)


@program("jaxwt.swt", "gradient of a stationary transform, db4: 32 signals of 2048")
def swt() -> Made:
    import jaxwt

    return jax.value_and_grad(lambda x: energy(jaxwt.swt(x, "db4", level=4))), (normal(32, 2048),)


@program("jaxwt.packet", "gradient of wavelet packets, db2, 4 levels: 16 signals of 2048")
def packet() -> Made:
    import jaxwt

    def loss(x):
        packets = jaxwt.WaveletPacket(x, "db2", max_level=4)
        return energy([packets[node] for node in packets.get_level(4)])

    return jax.value_and_grad(loss), (normal(16, 2048),)


@program("jax.convolve2d", "gradient of jax.scipy.signal.convolve2d: 512x512 with 15x15")
def convolve2d() -> Made:
    def loss(x, w):
        return energy(jax.scipy.signal.convolve2d(x, w, mode="same"))

    return jax.value_and_grad(loss, argnums=(0, 1)), (normal(512, 512), normal(15, 15, seed=1))


@program("jax.correlate", "gradient of jax.scipy.signal.correlate: 65536 with 129")
def correlate() -> Made:
    def loss(x, w):
        return energy(jax.scipy.signal.correlate(x, w, mode="valid"))

    return jax.value_and_grad(loss, argnums=(0, 1)), (normal(65536), normal(129, seed=1))


@program("jax.convolve 3-D", "gradient of jax.scipy.signal.convolve: 48x48x48 with 5x5x5")
def convolve3d() -> Made:
    def loss(x, w):
        return energy(jax.scipy.signal.convolve(x, w, mode="same", method="direct"))

    return jax.value_and_grad(loss, argnums=(0, 1)), (normal(48, 48, 48), normal(5, 5, 5, seed=1))
