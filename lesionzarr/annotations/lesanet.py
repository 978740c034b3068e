"""LesaNet's labels of DeepLesion lesions: text-mined, and 500 by hand.

Yan et al., Holistic and Comprehensive Annotation of Clinically Significant Findings on Diverse CT Images, CVPR 2019.
Both files point at a lesion by its 0-based row in the complete DL_info.csv, so a shortened or re-sorted table gives
labels to the wrong lesions; `check_rows` refuses such a table.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from lesionzarr.annotations._load import load
from lesionzarr.errors import SourceError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from lesionzarr.source import SourcePath

ROWS = 32_735
"""Rows of the complete DL_info.csv."""

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class MinedLabels:
    """Labels mined from the sentence that the mark is linked to; terms in the order given, each once."""

    split: str
    relevant: tuple[str, ...]
    uncertain: tuple[str, ...]
    irrelevant: tuple[str, ...]
    """Given for the training split alone."""


@dataclass(frozen=True)
class HandLabels:
    """Labels that experts gave, with the sentence they read."""

    text: str
    terms: tuple[str, ...]
    """Expanded by the ontology; 130 of them are outside the list of 171 terms."""


def read_mined_labels(path: SourcePath) -> dict[int, MinedLabels]:
    """Read ``text_mined_labels_171_and_split.json``.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict of int to MinedLabels
        By 0-based row of the complete DL_info.csv.

    Raises
    ------
    SourceError
        The file is not what it should be.
    """
    content = load(path)
    try:
        terms = content["term_list"]
        labels: dict[int, MinedLabels] = {}
        for split in SPLITS:
            kinds = [_lists(content, split, kind) for kind in ("relevant", "uncertain", "irrelevant")]
            for row, *lists in zip(content[f"{split}_lesion_idxs"], *kinds, strict=True):
                relevant, uncertain, irrelevant = (tuple(dict.fromkeys(terms[i] for i in items)) for items in lists)
                labels[int(row)] = MinedLabels(split, relevant, uncertain, irrelevant)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: not LesaNet's text-mined labels ({error!r})") from error
    return labels


def read_hand_labels(path: SourcePath) -> dict[int, HandLabels]:
    """Read ``hand_labeled_test_set.json``.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    dict of int to HandLabels
        By 0-based row of the complete DL_info.csv.

    Raises
    ------
    SourceError
        The file is not what it should be.
    """
    try:
        return {
            int(item["lesion_idx"]): HandLabels(str(item["text"]), tuple(dict.fromkeys(item["expanded_terms"])))
            for item in load(path)
        }
    except (KeyError, TypeError, ValueError) as error:
        raise SourceError(f"{path.name}: not LesaNet's hand-made labels ({error!r})") from error


def check_rows(table: str, rows: int, splits: Mapping[int, str | None], labels: Mapping[int, MinedLabels]) -> None:
    """Refuse a table whose row numbers are not LesaNet's.

    Parameters
    ----------
    table
        How messages call the table.
    rows
        Number of rows of the table, unreadable ones included.
    splits
        Split of each row that could be read.
    labels
        Mined labels, which name the split of each of theirs: a table with its rows in another order disagrees.

    Raises
    ------
    SourceError
        Another number of rows than the complete table, or rows in another order.
    """
    remedy = "give the complete DL_info.csv as released, or leave the labels out"
    if rows != ROWS:
        raise SourceError(f"{table}: {rows:,} rows, but LesaNet's labels count the full table's {ROWS:,}; {remedy}")
    wrong = [row for row, label in labels.items() if splits.get(row) not in {label.split, None}]
    if wrong:
        raise SourceError(
            f"{table}: row {wrong[0]} is in split {splits[wrong[0]]!r}, LesaNet's labels say "
            f"{labels[wrong[0]].split!r} (and {len(wrong) - 1:,} more): the rows were re-sorted; {remedy}"
        )


def _lists(content: dict[str, Any], split: str, kind: str) -> list[list[int]]:
    lists: list[list[int]] = content.get(f"{split}_{kind}_labels") or [[]] * len(content[f"{split}_lesion_idxs"])
    return lists
