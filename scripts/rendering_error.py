"""Measure the error of the sampling inside pixels, in units of the noise, on lenses drawn from the default priors.

Elliptical power law and shear, a Sersic source and two Sersic profiles of lens light, each component of the same
peak; Gaussian PSF of 1.2 pixels sigma; the noise is 1/50 of the image's peak. The truth is supersampled 16 x 16; in the
pixels where 8 x 8 and 16 x 16 differ most (cusps) 128 x 128, and the row "midpoint 16" says what that changes. The
last row is another error: what an image without padding lacks at its edges, of light from beyond them.
"""

import argparse
import json
import warnings
from pathlib import Path

from tflens.files import write_atomically
from tflens.quiet import import_tensorflow_quietly

ROOT = Path(__file__).resolve().parents[1]
SNR = 50
REACH = 1 / 20
RULES = [
    ("midpoint", 1, False),
    ("midpoint", 2, False),
    ("midpoint", 4, False),
    ("gauss-legendre", 2, False),
    ("gauss-legendre", 2, True),
    ("gauss-legendre", 3, False),
]  # quadrature, samples along each side of a pixel, whether cusps of the lens light are integrated by their edges


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lenses", type=int, default=100, help="lenses drawn (default: %(default)s)")
    parser.add_argument("--pixels", type=int, default=100, help="side of the image (default: %(default)s)")
    parser.add_argument("--pixel-scale", type=float, default=0.05, help="arcsec (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0, help="default: %(default)s")
    parser.add_argument("--out", type=Path, default=ROOT / "docs/results/rendering.json", help="default: %(default)s")
    arguments = parser.parse_args()
    import_tensorflow_quietly()
    records = measure(arguments.lenses, arguments.pixels, arguments.pixel_scale, arguments.seed)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(arguments.out, lambda file: file.write_text(json.dumps(records, indent=2) + "\n"))
    print("error / noise at peak S/N 50   largest: median  (5-95 % of lenses)   95 % of pixels   lenses   evaluations")
    print("                                                                                     below 1/20   a pixel")
    for r in records:
        low, high = r["spread"]
        print(
            f"{r['variant']:<34} {r['value']:9.4f}  ({low:.4f}-{high:.4f}) {r['pixels_95']:14.4f} {r['reached']:10.0%}"
            f" {r['evaluations']:12.1f}"
        )
    print(f"{records[0]['n']} lenses, target {REACH}, commit {records[0]['commit']} -> {arguments.out}")


def measure(lenses: int, pixels: int, pixel_scale: float, seed: int) -> list[dict]:
    """One record a variant: the median over lenses of the largest |error| / noise in an image, and its company."""
    import numpy as np
    import tensorflow as tf

    from tflens.grid import PixelGrid
    from tflens.inference.settings import FitSettings
    from tflens.lens_layer import LensLayer
    from tflens.light import Sersic
    from tflens.model import LensModel
    from tflens.refinement import suggest_refinement
    from tflens.run import commit, versions

    model = LensModel(source=Sersic())
    y, x = np.mgrid[-10:11, -10:11]
    psf = np.exp(-(x**2 + y**2) / (2 * 1.2**2))
    grid = PixelGrid((pixels, pixels), pixel_scale)
    layer = LensLayer(grid, model.lens, model.lens_light, model.sources, psf=psf)
    random = np.random.default_rng(seed)
    found: dict[str, list[tuple[float, float, float]]] = {}

    for _ in range(lenses):
        inputs = model.layer_inputs(model.physical(tf.constant(random.normal(size=model.dim), tf.float32)))
        peaks = iter([float(tf.reduce_max(image)) for image in layer.replace(supersampling=4).images(inputs)])
        for values in inputs["lens_light"] + inputs["source"]:
            values["amp"] = 1 / next(peaks)
        truth, rough = render_truth(layer, inputs)
        noise = truth.max() / SNR

        def add(name: str, image: np.ndarray, evaluations: float, truth=truth, noise=noise) -> None:
            error = np.abs(image - truth) / noise
            found.setdefault(name, []).append((error.max(), np.quantile(error, 0.95), evaluations))

        for quadrature, samples, exact in RULES:
            name = f"{quadrature} {samples}" + (", exact cusps" if exact else "")
            even = layer.replace(quadrature=quadrature, supersampling=samples, exact_cusps=exact)
            add(name, even(inputs).numpy(), samples**2)
            if samples != 2:
                continue
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # a lens whose cusp is out of reach counts with the error it has
                refine = suggest_refinement(even, inputs, noise)
            image = even.replace(refine=refine)(inputs).numpy()
            more = np.sum((samples * refine[refine > 1]) ** 2) / refine.size
            add(f"{name}, refined", image, samples**2 + more)
        add("midpoint 16", rough, 256)
        even = layer.replace(supersampling=2)
        lacking = even(inputs).numpy() - even.replace(padding="psf")(inputs).numpy()
        add("padding 0 instead of half a PSF", truth + lacking, 4)

    default = f"gauss-legendre {FitSettings().supersampling}, exact cusps, refined"
    records = []
    for name, rows in found.items():
        largest, typical, evaluations = np.array(rows).T
        records.append(
            {
                "id": "rendering",
                "variant": f"{name} (shipped)" if name == default else name,
                "value": float(np.median(largest)),
                "spread": [float(edge) for edge in np.quantile(largest, [0.05, 0.95])],
                "null": None,
                "n": lenses,
                "seed": seed,
                "reach": REACH,
                "beat": None,
                "command": f"python scripts/rendering_error.py --lenses {lenses} --pixels {pixels} "
                f"--pixel-scale {pixel_scale} --seed {seed}",
                "commit": commit(),
                "unit": "noise at peak S/N 50",
                "pixels_95": float(np.median(typical)),
                "worst": float(largest.max()),
                "reached": float(np.mean(largest < REACH)),
                "evaluations": float(np.median(evaluations)),
                "pixels": pixels,
                "pixel_scale": pixel_scale,
                "versions": versions(),
            }
        )
    return records


def render_truth(layer, inputs):
    """Images with 16 x 16 samples in every pixel: with more of them at the cusps, and without."""
    import numpy as np

    fine = layer.replace(supersampling=16)
    rough = fine.replace(psf=None)(inputs).numpy()
    doubt = np.abs(rough - layer.replace(supersampling=8, psf=None)(inputs).numpy())
    refine = np.ones(doubt.shape, int)
    refine.flat[np.argsort(-doubt, axis=None)[:12]] = 8
    return fine.replace(refine=refine)(inputs).numpy(), fine(inputs).numpy()


if __name__ == "__main__":
    main()
