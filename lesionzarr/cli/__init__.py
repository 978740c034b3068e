"""The command line: parse, call one public function, print.

Results go to stdout, progress and errors to stderr. Exit codes: 0 done, 1 some items failed (listed, with reasons),
2 misuse, 130 stopped by the user.
"""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING

from lesionzarr._version import __version__
from lesionzarr.cli import _care, _convert, _crops, _export, _features, _plot, _response, _stores, _view
from lesionzarr.errors import LesionzarrError, NotFoundError, SettingError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Parameters
    ----------
    argv
        Arguments; None for those of the process.

    Returns
    -------
    int
        Exit code.
    """
    arguments = _parser().parse_args(argv)
    run: Callable[[argparse.Namespace], int] = arguments.run
    try:
        return run(arguments)
    except BrokenPipeError:
        # the reader of the output, such as `head`, has seen enough; Python would complain again when it closes stdout
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (LesionzarrError, OSError, MemoryError, KeyboardInterrupt) as error:
        text, code = _explain(error)
        print(text, file=sys.stderr)
        return code


def _explain(error: BaseException) -> tuple[str, int]:
    """Give the line that says what went wrong, and the exit code."""
    match error:
        case SettingError() | NotFoundError():
            return f"lesionzarr: {error}", 2
        case LesionzarrError():
            return f"lesionzarr: {error}", 1
        case OSError():
            # of files that the user named: those of a store are StoreErrors
            return f"lesionzarr: {error.filename or 'input or output'}: {error.strerror or error}", 1
        case MemoryError():
            return f"lesionzarr: out of memory ({error}); ask for less at a time", 1
        case _:
            return "\nlesionzarr: stopped; a conversion goes on where it was when it is run again", 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="lesionzarr", description="CT lesion datasets as Zarr, and crops from them.")
    parser.add_argument("--version", action="version", version=f"lesionzarr {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _convert.add_convert(commands)
    _stores.add_info(commands)
    _stores.add_lesions(commands)
    _crops.add_crop(commands)
    _crops.add_render(commands)
    _features.add_features(commands)
    _features.add_statistics(commands)
    _features.add_intensities(commands)
    _response.add_tracks(commands)
    _response.add_response(commands)
    _export.add_export(commands)
    _export.add_metadata(commands)
    _stores.add_index(commands)
    _care.add_verify(commands)
    _care.add_repair(commands)
    _care.add_sync(commands)
    _plot.add_plot(commands)
    _crops.add_pack(commands)
    _view.add_view(commands)
    _convert.add_demo(commands)
    return parser
