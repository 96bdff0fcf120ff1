"""`python -m tflens`, the same as the command `tflens`."""

from tflens.cli import main

if __name__ == "__main__":
    main()
