"""``plot``: a figure of a store as a file."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from lesionzarr.cli._arguments import add_command, add_store, open_store, parse_picture
from lesionzarr.plot import FIGURES, draw

if TYPE_CHECKING:
    import argparse

DPI = 150


def add_plot(commands: Any) -> None:
    text = "draw a figure: lesions on a map of the body, sizes, spacings, windows of a lesion, growth over the studies"
    parser = add_command(commands, "plot", _plot, text)
    add_store(parser)
    parser.add_argument("--figure", choices=FIGURES, default=FIGURES[0], help="(default: %(default)s)")
    parser.add_argument("--query", metavar="TEXT", help="pandas query that chooses the lesions; of windows the first")
    text = "where to write: .png, .svg or .pdf"
    parser.add_argument("-o", "--output", type=parse_picture, required=True, metavar="FILE", help=text)


def _plot(arguments: argparse.Namespace) -> int:
    # a file needs no screen
    os.environ.setdefault("MPLBACKEND", "agg")
    drawn = draw(open_store(arguments), arguments.figure, query=arguments.query)
    figure = (drawn[0] if isinstance(drawn, list) else drawn).figure
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(arguments.output, dpi=DPI)
    told = {"figure": arguments.figure, "written": str(arguments.output)}
    print(json.dumps(told) if arguments.json else f"{arguments.figure} drawn in {arguments.output}")
    return 0
