"""Datasets of other tools: DL_save_nifti's axes, nnU-Net, Parquet and Croissant, against nibabel and the sources."""

from __future__ import annotations

import hashlib
import io
import json

import nibabel
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from PIL import Image

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.export import crops
from lesionzarr.features.pseudo_mask import pseudo_mask
from lesionzarr.samples import lung_pet_ct_dx, recist_dataset
from lesionzarr.store.generations import read_generation
from lesionzarr.store.index import LESIONS
from lesionzarr.store.location import open_location
from lesionzarr.store.tables import write_table


@pytest.fixture
def run(capsys):
    """Run an export; give its exit code, what it tells as JSON, and stderr."""

    def command(*arguments):
        code = main(["export", *map(str, arguments), "--json"])
        out, err = capsys.readouterr()
        return code, json.loads(out) if out else None, err

    return command


@pytest.fixture(scope="module")
def recist(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recist")
    source = recist_dataset(folder / "source", patients=2, image_size=64, slices=20)
    assert not lesionzarr.convert("recist-dataset", source, folder / "recist.zarr").failed
    return folder / "recist.zarr"


@pytest.fixture(scope="module")
def lung(tmp_path_factory):
    pytest.importorskip("pydicom", reason="the extra dicom is absent")
    folder = tmp_path_factory.mktemp("lung")
    source = lung_pet_ct_dx(folder / "source", subjects=2)
    assert not lesionzarr.convert("lung-pet-ct-dx", source, folder / "lung.zarr").failed
    return folder / "lung.zarr"


def test_sub_volumes_as_dl_save_nifti_writes_them_are_the_pngs_by_row_and_column(run, real, real_store, tmp_path):
    volume_id = "000001_01_01_103-115"
    code, _, _ = run("nifti", real_store, volume_id, "-o", tmp_path, "--convention", "dl-save-nifti")
    assert code == 0
    image = nibabel.load(tmp_path / f"{volume_id}.nii.gz")
    assert image.shape == (512, 512, 13)
    assert image.get_data_dtype() == np.int16
    for z, number in enumerate(range(103, 116)):
        with Image.open(real / "Images_png" / "000001_01_01" / f"{number}.png") as picture:
            np.testing.assert_array_equal(image.dataobj[:, :, z], np.asarray(picture).astype(np.int32) - 32768)
    # the transformation that the script writes, of the spacing 0.488281, 0.488281, 5 in DL_info.csv
    expected = np.array([[0, -0.488281, 0, 0], [-0.488281, 0, 0, 0], [0, 0, -5, 0], [0, 0, 0, 1]])
    np.testing.assert_allclose(image.affine, expected, rtol=1e-6)
    assert nibabel.aff2axcodes(image.affine) == ("P", "L", "I")
    # the codes that nibabel gives an image that is made of an array and a transformation, as there
    made = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), expected).header
    assert [int(image.header[key]) for key in ("sform_code", "qform_code")] == [made["sform_code"], made["qform_code"]]


def test_both_conventions_of_nifti_are_the_same_body(run, sample_store, tmp_path):
    volume_id = lesionzarr.open(sample_store).volumes.index[0]
    run("nifti", sample_store, volume_id, "-o", tmp_path / "a")
    run("nifti", sample_store, volume_id, "-o", tmp_path / "b", "--convention", "dl-save-nifti")
    one, other = (
        nibabel.as_closest_canonical(nibabel.load(path))
        for path in (tmp_path / "a" / "images" / f"{volume_id}.nii.gz", tmp_path / "b" / f"{volume_id}.nii.gz")
    )
    np.testing.assert_array_equal(np.asarray(one.dataobj), np.asarray(other.dataobj))
    np.testing.assert_allclose(one.affine, other.affine)


def test_a_volume_with_a_place_keeps_it_where_rows_and_columns_change_places(run, lung, tmp_path):
    run("nifti", lung, "-o", tmp_path / "a")
    code, told, _ = run("nifti", lung, "-o", tmp_path / "b", "--convention", "dl-save-nifti")
    catalog = lesionzarr.open(lung)
    assert code == 1
    assert len(told["failed"]) == (catalog.volumes["modality"] == "PT").sum()
    for path in (tmp_path / "b").glob("*.nii.gz"):
        one, other = nibabel.load(tmp_path / "a" / "images" / path.name), nibabel.load(path)
        np.testing.assert_array_equal(np.asarray(one.dataobj).swapaxes(0, 1), np.asarray(other.dataobj))
        np.testing.assert_allclose(one.affine[:, [1, 0, 2, 3]], other.affine)


def test_nnunet_has_the_masks_of_the_source_by_class(run, recist, tmp_path):
    code, told, _ = run("nnunet", recist, "-o", tmp_path, "--classes", "type", "--dataset-id", "7")
    catalog = lesionzarr.open(recist)
    assert (code, told["counts"]) == (0, {"volumes": len(catalog.volumes), "lesions": len(catalog)})
    root = tmp_path / "Dataset007_recistdataset"
    settings = json.loads((root / "dataset.json").read_text())
    types = sorted(catalog.lesions["type"].unique())
    assert settings["labels"] == {"background": 0, **{name: n for n, name in enumerate(types, start=1)}}
    assert settings["numTraining"] == len(list((root / "imagesTr").iterdir()))
    for volume_id, rows in catalog.lesions.groupby("volume_id"):
        part = "Ts" if rows["split"].iloc[0] == "test" else "Tr"
        image = nibabel.load(root / f"images{part}" / f"{volume_id}_0000.nii.gz")
        labels = nibabel.load(root / f"labels{part}" / f"{volume_id}.nii.gz")
        np.testing.assert_array_equal(image.affine, labels.affine)
        np.testing.assert_array_equal(np.asarray(image.dataobj).T, catalog.volume(volume_id)["hu"])
        mask = catalog.mask(volume_id).to_numpy()
        expected = np.zeros_like(mask)
        for label, name in zip(rows["mask_label"], rows["type"], strict=True):
            expected[mask == label] = types.index(name) + 1
        np.testing.assert_array_equal(np.asarray(labels.dataobj).T, expected)


def test_nnunet_of_recist_axes_ignores_slices_on_which_nobody_drew(run, sample_store, tmp_path):
    code, told, _ = run("nnunet", sample_store, "-o", tmp_path, "--pseudo-masks")
    catalog = lesionzarr.open(sample_store)
    assert (code, told["counts"]["lesions"]) == (0, len(catalog))
    root = tmp_path / "Dataset500_DeepLesion"
    assert json.loads((root / "dataset.json").read_text())["labels"] == {"background": 0, "lesion": 1, "ignore": 2}
    for volume_id, rows in catalog.lesions.groupby("volume_id"):
        (path,) = root.glob(f"labels*/{volume_id}.nii.gz")
        labels = np.asarray(nibabel.load(path).dataobj).T
        drawn = sorted(set(rows["key_z"]))
        assert [z for z in range(len(labels)) if not (labels[z] == 2).all()] == drawn
        for z in drawn:
            marks = [each.mark for each in catalog.find_lesions(list(rows.index[rows["key_z"] == z]))]
            expected = np.any([pseudo_mask(mark, labels[z].shape) for mark in marks], axis=0)
            np.testing.assert_array_equal(labels[z], expected)
    (fold,) = json.loads((root / "splits_final.json").read_text())
    splits = catalog.lesions.groupby("volume_id")["split"].first()
    assert {name: set(ids) for name, ids in fold.items()} == {
        name: set(splits.index[splits == name]) for name in ("train", "val")
    }


def test_nnunet_ignores_known_lesions_that_were_not_chosen(run, sample_store, tmp_path):
    catalog = lesionzarr.open(sample_store)
    rows = catalog.lesions.groupby(["volume_id", "key_z"]).filter(lambda rows: len(rows) > 1)
    chosen, other = catalog.find_lesions(list(rows.index[:2]))
    assert (chosen.volume_id, chosen.key_z) == (other.volume_id, other.key_z)
    run("nnunet", sample_store, chosen.lesion_id, "-o", tmp_path, "--pseudo-masks")
    (path,) = tmp_path.glob("*/labels*/*.nii.gz")
    plane = np.asarray(nibabel.load(path).dataobj).T[chosen.key_z]
    expected = 2 * pseudo_mask(other.mark, plane.shape).astype(np.uint8)
    expected[pseudo_mask(chosen.mark, plane.shape)] = 1
    np.testing.assert_array_equal(plane, expected)


def test_nnunet_lists_volumes_that_have_no_mask(run, sample_store, lung, tmp_path):
    code, told, _ = run("nnunet", sample_store, "-o", tmp_path)
    assert (code, told["written"]) == (1, [])
    assert len(told["failed"]) == len(lesionzarr.open(sample_store))
    assert all("--pseudo-masks" in text for text in told["failed"])
    # boxes alone make no mask: nothing is said of what is inside
    code, told, _ = run("nnunet", lung, "-o", tmp_path, "--pseudo-masks")
    assert (code, told["written"]) == (1, [])
    assert all("no RECIST axes" in text for text in told["failed"])


@pytest.mark.parametrize(
    ("arguments", "window", "shape"),
    [
        (["--window", "hu", "--size", "5,40,24"], None, (1, 5, 40, 24)),
        (["--window", "lung", "--window=0,400", "--size", "3,32,48"], ["lung", (0, 400)], (2, 3, 32, 48)),
        (["--window=0,400", "--size", "1,32,32"], (0, 400), (1, 1, 32, 32)),
        (["--size", "1,32,32", "--spacing", "2,1,1"], "dicom", (1, 1, 32, 32)),
    ],
)
def test_parquet_has_the_crops_that_the_reader_gives(run, sample_store, tmp_path, arguments, window, shape):
    code, told, _ = run("parquet", sample_store, "-o", tmp_path, *arguments)
    catalog = lesionzarr.open(sample_store)
    assert (code, told["counts"]) == (0, {"lesions": len(catalog)})
    spacing = (2, 1, 1) if "--spacing" in arguments else None
    reader = lesionzarr.CropReader(catalog, size=shape[1:], window=window, spacing_mm=spacing)
    read = []
    for path in (tmp_path / "data").iterdir():
        table = pq.read_table(path)
        for row in table.to_pylist():
            crop = reader.read(row["lesion_id"])
            np.testing.assert_array_equal(row["image"], crop.image)
            assert tuple(row["origin"]) == crop.origin
            assert row["long_mm"] == catalog.lesions["long_mm"][row["lesion_id"]]
            assert path.name == f"{row['split'].replace('val', 'validation')}-00000-of-00001.parquet"
            read.append(row["lesion_id"])
        features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
        assert list(features) == table.column_names
        assert features["image"]["shape"] == list(shape)
    assert sorted(read) == sorted(catalog.lesions.index)


def test_parquet_of_pictures_has_the_slices_side_by_side(run, sample_store, tmp_path):
    size = ["--size", "3,32,48", "--window", "lung", "--window", "bone"]
    assert run("parquet", sample_store, "-o", tmp_path, "--image", "png", *size)[0] == 0
    reader = lesionzarr.CropReader(lesionzarr.open(sample_store), size=(3, 32, 48), window=["lung", "bone"])
    for row in pq.read_table(tmp_path / "data" / "train-00000-of-00001.parquet").to_pylist():
        with Image.open(io.BytesIO(row["image"]["bytes"])) as picture:
            found = np.asarray(picture).reshape(2, 32, 3, 48).transpose(0, 2, 1, 3)
        np.testing.assert_array_equal(found, reader.read(row["lesion_id"]).image)


def test_parquet_takes_soft_tissue_where_a_lesion_has_no_window(run, lung, tmp_path):
    assert run("parquet", lung, "-o", tmp_path, "--size", "1,32,32")[0] == 0
    reader = lesionzarr.CropReader(lesionzarr.open(lung), size=(1, 32, 32), window="soft-tissue")
    for row in pq.read_table(tmp_path / "data" / "unsplit-00000-of-00001.parquet").to_pylist():
        np.testing.assert_array_equal(row["image"], reader.read(row["lesion_id"]).image)


def test_parquet_is_written_some_rows_at_a_time(sample_store, tmp_path, monkeypatch):
    monkeypatch.setattr(crops, "GROUP_BYTES", 3 * 32 * 32)
    catalog = lesionzarr.open(sample_store)
    chosen = catalog.find_lesions(list(catalog.lesions.index[catalog.lesions["split"] == "train"]))
    crops.export_crops(catalog, chosen, tmp_path, size=(1, 32, 32), window="lung")
    file = pq.ParquetFile(tmp_path / "data" / "train-00000-of-00001.parquet")
    sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
    assert sum(sizes) == len(chosen) > 3
    assert max(sizes) == 3


def test_a_lesion_without_position_is_listed_and_the_others_are_in_the_table(run, sample_store, tmp_path):
    catalog = lesionzarr.open(sample_store)
    rows = [lesion.to_row() for lesion in catalog.find_lesions(list(catalog.lesions.index))]
    rows[0]["key_z"] = None
    location = open_location(tmp_path / "odd.zarr")
    kept = open_location(sample_store)
    for key in kept.list_objects(""):
        location.write(key, kept.read(key))
    location.write(read_generation(location).tables[1], write_table(rows, LESIONS))
    for kind in (["parquet"], ["nnunet", "--pseudo-masks"]):
        code, told, _ = run(*kind, tmp_path / "odd.zarr", "-o", tmp_path / kind[0])
        assert (code, told["counts"]["lesions"]) == (1, len(rows) - 1)
        (text,) = told["failed"]
        assert text.startswith(f"{rows[0]['lesion_id']}: ")
    ids = {row for path in (tmp_path / "parquet" / "data").iterdir() for row in pd.read_parquet(path)["lesion_id"]}
    assert ids == {row["lesion_id"] for row in rows[1:]}


@pytest.mark.parametrize("url", [None, "https://example.org/sets/deeplesion.zarr"])
def test_croissant_names_the_tables_and_every_column_of_them(run, sample_store, tmp_path, url):
    if url is None:
        _, found, _ = run("croissant", sample_store)
    else:
        assert run("croissant", sample_store, "-o", tmp_path / "croissant.json", "--url", url)[0] == 0
        found = json.loads((tmp_path / "croissant.json").read_text())
    catalog = lesionzarr.open(sample_store)
    assert found["conformsTo"] == "http://mlcommons.org/croissant/1.0"
    assert (found["name"], found["citeAs"]) == ("DeepLesion", catalog.info["citation"])
    base = "" if url is None else f"{url}/"
    volumes, lesions = read_generation(open_location(sample_store)).tables
    for file, key in zip(found["distribution"], (lesions, volumes), strict=True):
        assert file["contentUrl"] == base + key
        assert file["sha256"] == hashlib.sha256((sample_store / key).read_bytes()).hexdigest()
    for records, key in zip(found["recordSet"], (lesions, volumes), strict=True):
        columns = [field["source"]["extract"]["column"] for field in records["field"]]
        assert columns == pq.read_schema(sample_store / key).names


def test_croissant_outside_of_the_store_needs_its_url(run, sample_store, tmp_path):
    code, _, error = run("croissant", sample_store, "-o", tmp_path / "croissant.json")
    assert code == 2
    assert "name --url" in error
    assert not (tmp_path / "croissant.json").exists()


def test_a_lesion_stands_for_its_volume(run, sample_store, tmp_path):
    lesions = lesionzarr.open(sample_store).lesions
    chosen = lesions.index[lesions["volume_id"] == lesions["volume_id"].iloc[0]]
    code, told, _ = run("nifti", sample_store, *chosen, "-o", tmp_path, "--convention", "dl-save-nifti")
    assert code == 0
    assert len(told["written"]) == 1
    assert lesions["volume_id"].iloc[0] in told["written"][0]


def test_croissant_inside_of_a_store_belongs_to_it(run, sample_store, capsys):
    assert run("croissant", sample_store, "-o", sample_store / "croissant.json")[0] == 0
    assert main(["verify", str(sample_store), "--sample", "0.01", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["counts"]["leftovers"] == 0
    (sample_store / "croissant.json").unlink()


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nifti", "STORE", "--convention", "dl-save-nifti", "--window", "lung"], "leave --window out"),
        (["nnunet", "STORE", "--dataset-id", "1000"], "1 to 999"),
        (["parquet", "STORE", "--window", "hu", "--window", "lung"], "no other window"),
        (["parquet", "STORE", "--window", "hu", "--image", "png"], "grey levels"),
        (["parquet", "STORE", "--size", "0,1,1"], "size"),
        (["parquet", "STORE", "--window", "lungs"], "lung"),
    ],
)
def test_misuse_is_one_clear_line(run, sample_store, tmp_path, arguments, text):
    arguments = [sample_store if argument == "STORE" else argument for argument in arguments]
    code, told, err = run(*arguments, "-o", tmp_path / "out")
    assert (code, told) == (2, None)
    assert err.count("\n") == 1
    assert text in err
    assert not (tmp_path / "out").exists()
