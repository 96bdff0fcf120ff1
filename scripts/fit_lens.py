"""Fit a strong lens: `tflens fit` from a checkout, by the same code. `--help` lists the options."""

import sys

from tflens.cli import main

if __name__ == "__main__":
    main(["fit", *sys.argv[1:]])
