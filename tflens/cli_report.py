"""The command line of the report of a fit: `tflens report`."""

from pathlib import Path
from typing import Annotated

import typer

from tflens.terminal import Json, print_paths, reporting


def report(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER...", help="Output folders of `tflens fit`.", show_default=False)
    ],
    as_json: Json = False,
) -> None:
    """Make report.html anew from the other files of a fit's folder, without fitting.

    Prints the path of each page.
    """
    with reporting(tensorflow=True):
        from tflens.report import write_report

        print_paths("pages", map(write_report, folders), as_json)
