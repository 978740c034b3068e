import re
import shlex
from pathlib import Path

import pytest

from lesionzarr.cli import main
from lesionzarr.converters._base import load_converter
from lesionzarr.demo import run_demo

README = (Path(__file__).parents[1] / "README.md").read_text()


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def demo(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    run_demo(Path("lesionzarr-demo"))
    capsys.readouterr()
    return tmp_path / "lesionzarr-demo"


@pytest.mark.parametrize("block", blocks("python"))
def test_the_examples_run_on_what_the_demo_leaves(demo, block):
    exec(compile(block, "README.md", "exec"), {})  # noqa: S102 - our own text


def test_the_quick_start_runs_on_a_dataset_of_the_same_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load_converter("deeplesion").example(Path("DeepLesion"), 0)
    (block,) = (block for block in blocks("sh") if "convert deeplesion" in block)
    lesion = re.compile(r"\d{6}_\d\d_\d\d_\d{3}_\d")
    for line in block.splitlines():
        words = shlex.split(lesion.sub("000003_01_01_130_1", line), comments=True)
        words = ["1" if before == "--workers" else word for before, word in zip(["", *words], words, strict=False)]
        assert words.pop(0) == "lesionzarr"
        assert main(words) == 0, line
    assert Path("lung.csv").is_file()
    assert Path("000003_01_01_130_1.png").is_file()
    assert list(Path("key-slices").glob("*.png"))
    assert list(Path("nifti").glob("images/*.nii.gz"))
    capsys.readouterr()


def test_the_commands_for_lung_pet_ct_dx_run_on_a_dataset_of_the_same_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load_converter("lung-pet-ct-dx").example(Path("Lung"), 0)
    (block,) = (block for block in blocks("sh") if "convert lung-pet-ct-dx" in block)
    for line in block.splitlines():
        words = shlex.split(line.replace("--workers 2", "--workers 1"))
        assert words.pop(0) == "lesionzarr"
        assert main(words) == 0, line
    assert Path("headers.parquet").is_file()
    assert list(Path("lung-pictures").glob("*_lesion1.png"))
    capsys.readouterr()


def test_the_commands_for_recist_dataset_run_on_a_dataset_of_the_same_layout(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load_converter("recist-dataset").example(Path("Recist"), 0)
    (block,) = (block for block in blocks("sh") if "convert recist-dataset" in block)
    for line in block.splitlines():
        words = shlex.split(line.replace("--workers 2", "--workers 1"), comments=True)
        assert words.pop(0) == "lesionzarr"
        assert main(words) == 0, line
    assert len(list(Path("targets").glob("*.png"))) == 12 + 1
    assert len(list(Path("windowed").glob("*/*"))) == 6 * 3
    assert sorted(path.name for path in Path("metadata").iterdir()) == ["metadata.json", "resolution.csv"]
    assert Path("response.png").is_file()
    capsys.readouterr()


def test_the_commands_of_care_run_on_a_store_of_the_same_name(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    load_converter("deeplesion").example(Path("DeepLesion"), 0)
    assert main(["convert", "deeplesion", "DeepLesion", "deeplesion.zarr", "--workers", "1"]) == 0
    (block,) = (block for block in blocks("sh") if "lesionzarr verify" in block)
    for line in block.splitlines():
        words = shlex.split(line.replace("s3://bucket/", "copy-of-").split(" --storage-option")[0], comments=True)
        assert words.pop(0) == "lesionzarr"
        assert main(words) == 0, line
    assert main(["verify", "copy-of-deeplesion.zarr"]) == 0
    capsys.readouterr()


def test_the_exports_run_on_what_the_demo_leaves(demo, capsys):
    (block,) = (block for block in blocks("sh") if "export croissant" in block)
    for line in block.splitlines():
        words = shlex.split(line)
        assert words.pop(0) == "lesionzarr"
        assert main(words) == 0, line
    told = ("nifti/*.nii.gz", "coco/val.json", "yolo/data.yaml", "nnUNet_raw/*/dataset.json", "crops/data/*.parquet")
    assert all(list(Path().glob(pattern)) for pattern in told)
    capsys.readouterr()


def test_what_the_picture_shows_is_there():
    for path in re.findall(r"\]\(((?!http)[^)]+)\)", README):
        assert (Path(__file__).parents[1] / path).exists(), path
