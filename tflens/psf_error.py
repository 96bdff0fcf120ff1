"""What a PSF model gets wrong: its width and its ellipticity, free within their priors."""

from typing import ClassVar

import tensorflow as tf

from tflens.parameters import Parameter, normal
from tflens.profile import Profile, on_pixels


class PSFError(Profile):
    """A correction of the PSF's second moments, which are what shape the smallest structures of an image.

    To the second moments <xx>, <yy>, <xy> of the kernel it adds width + e1, width - e1 and e2, in square pixels, and
    leaves its flux and its centroid alone: images, already convolved, are convolved once more with the kernel of three
    by three pixels that does so exactly. Higher moments change as they must: a width far below zero, near minus the
    PSF's own, sharpens beyond what a real instrument could do. Beyond the frame, images are continued by their
    outermost pixels.

    Example:
        >>> dot = tf.pad([[1.0]], [[2, 2], [2, 2]])
        >>> wider = PSFError().apply(dot, width=0.2, e1=0.0, e2=0.0)
        >>> wider.numpy()[1:4, 1:4].round(2)
        array([[0. , 0.1, 0. ],
               [0.1, 0.6, 0.1],
               [0. , 0.1, 0. ]], dtype=float32)
    """

    parameters: ClassVar[tuple[Parameter, ...]] = (
        Parameter(("width",), "pixel^2", "what the PSF's variance along any axis is larger by", normal(0.0, 0.1)),
        Parameter(("e1",), "pixel^2", "half of what its variance is larger by along x than along y", normal(0.0, 0.05)),
        Parameter(("e2",), "pixel^2", "what its covariance of x and y is larger by", normal(0.0, 0.05)),
    )

    def apply(self, image: tf.Tensor, *, width: tf.Tensor, e1: tf.Tensor, e2: tf.Tensor) -> tf.Tensor:
        """Images as the corrected PSF would have made them.

        Args:
            image: convolved with the uncorrected PSF, `[...batch, ny, nx]`.
            width, e1, e2: `[...batch]`.
        """
        width, e1, e2 = on_pixels(width, e1, e2, like=image)
        padded = tf.pad(image, [[0, 0]] * (len(image.shape) - 2) + [[1, 1], [1, 1]], "SYMMETRIC")

        def neighbour(dy: int, dx: int) -> tf.Tensor:
            ny, nx = image.shape[-2:]
            return padded[..., 1 + dy : 1 + dy + ny, 1 + dx : 1 + dx + nx]

        along_x = neighbour(0, 1) + neighbour(0, -1) - 2 * image
        along_y = neighbour(1, 0) + neighbour(-1, 0) - 2 * image
        across = neighbour(1, 1) + neighbour(-1, -1) - neighbour(1, -1) - neighbour(-1, 1)
        return image + ((width + e1) * along_x + (width - e1) * along_y + e2 * across / 2) / 2
