import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.samples import deeplesion


@pytest.fixture
def run(capsys):
    """Run a command; give its exit code, stdout and stderr."""

    def command(*arguments):
        code = main([str(argument) for argument in arguments])
        return code, *capsys.readouterr()

    return command


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture)


def test_convert_tells_what_it_did_and_how_fast(run, sample, tmp_path):
    code, out, err = run("convert", "deeplesion", sample, tmp_path / "a.zarr", "--workers", 1)
    catalog = lesionzarr.open(tmp_path / "a.zarr")
    assert code == 0
    assert f"volumes converted:         {len(catalog.volumes)}" in out
    assert "report.json" in out
    assert f"{catalog.volumes['slices'].sum()}/{catalog.volumes['slices'].sum()}" in err
    assert "slices/s" in err


def test_convert_prints_its_report_as_json(run, sample, tmp_path):
    code, out, _ = run("convert", "deeplesion", sample, tmp_path / "a.zarr", "--workers", 1, "--json")
    assert code == 0
    assert json.loads(out) == json.loads((tmp_path / "a.zarr/catalog/report.json").read_text())


def test_convert_lists_what_failed_and_says_so_by_its_exit_code(run, tmp_path):
    source = deeplesion(tmp_path / "source", image_size=32, slices=4, quirks=["truncated_png"])
    code, out, err = run("convert", "deeplesion", source, tmp_path / "a.zarr", "--workers", 1)
    assert code == 1
    assert "failures:                  1" in out
    assert "failed: " in err
    assert ".png" in err


def test_a_dry_run_writes_nothing(run, sample, sample_store, tmp_path):
    code, out, _ = run("convert", "deeplesion", sample, tmp_path / "a.zarr", "--dry-run", "--json")
    told = json.loads(out)
    assert code == 0
    assert not (tmp_path / "a.zarr").exists()
    assert told["volumes to convert"] == len(lesionzarr.open(sample_store).volumes)
    assert told["lesions"] == 16
    code, out, _ = run("convert", "deeplesion", sample, sample_store, "--dry-run")
    assert "volumes to convert:        0" in out


def test_info_says_what_a_store_holds(run, sample_store):
    code, out, _ = run("info", sample_store)
    assert code == 0
    assert "lesions: 16" in out
    code, out, _ = run("info", sample_store, "--json")
    told = json.loads(out)
    assert told["store"]["source"] == "deeplesion"
    assert told["counts"]["lesions"] == 16


def test_lesions_are_filtered_shown_and_written(run, sample_store, tmp_path):
    expected = lesionzarr.open(sample_store).lesions
    large = expected[expected["long_mm"] > 15]
    code, out, _ = run("lesions", sample_store, "--query", "long_mm > 15", "--limit", 0)
    assert code == 0
    assert [line.split()[0] for line in out.splitlines()[1:]] == list(large.index)
    assert "NA" not in out
    run("lesions", sample_store, "--query", "long_mm > 15", "-o", tmp_path / "large.csv")
    run("lesions", sample_store, "--query", "long_mm > 15", "-o", tmp_path / "large.parquet")
    assert list(pd.read_csv(tmp_path / "large.csv")["lesion_id"]) == list(large.index)
    assert list(pd.read_parquet(tmp_path / "large.parquet").index) == list(large.index)
    _, out, _ = run("lesions", sample_store, "--columns", "type,age", "--json")
    assert set(json.loads(out)[0]) == {"lesion_id", "type", "age"}
    _, out, _ = run("lesions", sample_store, "--limit", 3)
    assert "and 13 more" in out


def test_crops_are_written_as_arrays_and_mosaics(run, sample_store, tmp_path):
    catalog = lesionzarr.open(sample_store)
    first = catalog.lesions.index[0]
    code, _, _ = run(
        "crop", sample_store, first, "-o", tmp_path, "--size", "3,20,30", "--window", "hu", "--format", "npy"
    )
    assert code == 0
    expected = lesionzarr.CropReader(catalog, size=(3, 20, 30)).read(first).image
    np.testing.assert_array_equal(np.load(tmp_path / f"{first}.npy"), expected)
    windows = ("--window", "lung", "--window=-160,240")
    run("crop", sample_store, first, "-o", tmp_path, "--size", "3,20,30", *windows)
    expected = lesionzarr.CropReader(catalog, size=(3, 20, 30), window=["lung", (-160, 240)]).read(first).image
    picture = pixels(tmp_path / f"{first}.png")
    assert picture.shape == (40, 90)
    np.testing.assert_array_equal(picture[20:, 30:60], expected[1, 1])


def test_render_draws_every_lesion_and_a_contact_sheet(run, sample_store, tmp_path):
    code, out, _ = run("render", sample_store, "-o", tmp_path / "keys", "--json")
    lesions = lesionzarr.open(sample_store).lesions
    assert code == 0
    assert [path.rsplit("/", 1)[-1] for path in json.loads(out)["written"]] == [f"{name}.png" for name in lesions.index]
    assert pixels(tmp_path / "keys/contact-sheet.png").shape[1] == 4 * (256 + 8) + 8
    picture = pixels(tmp_path / "keys" / f"{lesions.index[0]}.png")
    assert picture.shape == (96, 96, 3)
    yellow = (picture == (255, 214, 10)).all(-1)
    row = lesions.iloc[0]
    y, x = np.nonzero(yellow)
    # the box is drawn on pixel centres
    assert (x.min(), y.min()) == pytest.approx((row["x0"], row["y0"]), abs=1)
    assert (x.max(), y.max()) == pytest.approx((row["x1"], row["y1"]), abs=1)


def test_a_lesion_without_key_slice_costs_the_others_nothing(run, tmp_path):
    source = deeplesion(tmp_path / "source", image_size=32, slices=4, quirks=["missing_key_slice"])
    lesionzarr.convert("deeplesion", source, tmp_path / "a.zarr")
    code, out, err = run("render", tmp_path / "a.zarr", "-o", tmp_path / "keys")
    assert code == 1
    assert "15 written" in out
    assert "key slice is not in the store" in err


def test_index_makes_the_catalog_anew(run, sample, tmp_path):
    lesionzarr.convert("deeplesion", sample, tmp_path / "a.zarr")
    (table,) = (tmp_path / "a.zarr/catalog").glob("*/lesions.parquet")
    before = table.read_bytes()
    table.unlink()
    code, _, err = run("info", tmp_path / "a.zarr")
    assert code == 1
    assert "lesionzarr index" in err
    code, out, _ = run("index", tmp_path / "a.zarr")
    assert (code, out) == (0, "16 lesions in the catalog\n")
    assert table.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["info", "nothing-here"], 2, "no store at"),
        (["lesions", "STORE", "--query", "size > 3"], 2, "the columns are"),
        (["lesions", "STORE", "--columns", "colour"], 2, "no column colour"),
        (["lesions", "STORE", "-o", "table.xls"], 2, ".parquet"),
        (["crop", "STORE", "000003_01_01_130_9"], 2, "near"),
        (["crop", "STORE", "--window", "hu"], 2, "--format npy"),
        (["crop", "STORE", "--window", "lungs"], 2, "lung"),
        (["crop", "STORE", "--query", "long_mm > 1e6"], 2, "no lesion"),
        (["crop", "STORE", "--size=0,0,0"], 2, "at least 1"),
        (["lesions", "STORE", "--query", "1/0"], 2, "query"),
        (["lesions", "STORE", "-o", "/proc/none/table.csv"], 1, "/proc/none"),
        (["convert", "deeplesion", "nothing-here", "a.zarr"], 1, "nothing-here"),
        (["convert", "deeplesion", "nothing-here", ""], 2, "empty"),
    ],
)
def test_misuse_is_one_clear_line(run, sample_store, tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    got, out, err = run(*(sample_store if argument == "STORE" else argument for argument in arguments))
    assert (got, out) == (code, "")
    assert err.startswith("lesionzarr: ")
    assert err.count("\n") == 1
    assert text in err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["convert"],
        ["convert", "kitti", "a", "b"],
        ["crop", "a", "--size", "3"],
        ["render", "a", "-o", "b", "--scale", "0"],
    ],
)
def test_a_wrong_command_line_ends_with_2(arguments, capsys):
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: lesionzarr" in capsys.readouterr().err


def test_a_reader_that_has_seen_enough_is_no_error(sample_store):
    read, write = os.pipe()
    os.close(read)
    code = "import sys; from lesionzarr.cli import main; sys.exit(main(sys.argv[1:]))"
    arguments = [sys.executable, "-c", code, "lesions", str(sample_store), "--limit", "0"]
    done = subprocess.run(arguments, stdout=write, stderr=subprocess.PIPE, check=False, text=True)
    os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_demo_runs_the_main_job_and_draws_it(run, tmp_path):
    folder = tmp_path / "demo"
    code, out, _ = run("demo", "-o", folder)
    assert code == 0
    assert "Try next" in out
    assert min(pixels(folder / "contact-sheet.png").shape[:2]) > 1000
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 20e6
    code, _, _ = run("demo", "-o", folder, "--seed", 1)
    assert code == 0


def test_the_demo_leaves_a_folder_alone_that_is_not_its_own(run, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    code, _, err = run("demo", "-o", tmp_path)
    assert code == 2
    assert "--output" in err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"
