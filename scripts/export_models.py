"""Write SavedModels: `tflens export` from a checkout, by the same code. `--help` lists the options.

python scripts/export_models.py galaxies --out models
python scripts/export_models.py lens --out models --like examples/demo/lens.fits
python scripts/export_models.py fit --out models --like examples/demo/lens.fits
"""

import sys

from tflens.cli import main

if __name__ == "__main__":
    main(["export", *sys.argv[1:]])
