"""Damage of every kind: verify names each one and nothing else, repair ends with the store that was there before."""

from __future__ import annotations

import io
import json
import re
import shutil
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from servers import Static

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.converters.deeplesion import DeepLesion
from lesionzarr.converters.lung_pet_ct_dx import LungPetCtDx
from lesionzarr.converters.recist_dataset import RecistDataset
from lesionzarr.errors import NotFoundError, SettingError, SourceError
from lesionzarr.geometry import Grid
from lesionzarr.samples import deeplesion
from lesionzarr.series import SourceFile, Volume
from lesionzarr.store import layout
from lesionzarr.store.location import open_location
from lesionzarr.store.verify import verify_store
from lesionzarr.store.writer import create_store, write_volume

VOLUMES, LESIONS = "catalog/volumes.parquet", "catalog/lesions.parquet"
GENERATION = re.compile(r"(?<=catalog/)1-[0-9a-f]{12}/")


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    """Folder of a synthetic dataset of six volumes, which are copied and read for each test."""
    return deeplesion(tmp_path_factory.mktemp("small") / "DeepLesion", lesions=6, image_size=64)


@pytest.fixture(scope="module")
def sample_store(sample, tmp_path_factory):
    """Store of it."""
    path = tmp_path_factory.mktemp("small_store") / "deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, path).failed
    return path


@pytest.fixture(scope="module")
def masked(tmp_path_factory):
    """A dataset with masks, and its store."""
    folder = tmp_path_factory.mktemp("masked")
    source = RecistDataset.example(folder / "source", 0)
    assert not lesionzarr.convert("recist-dataset", source, folder / "store.zarr").failed
    return source, folder / "store.zarr"


@pytest.fixture
def work(sample, sample_store, tmp_path):
    """A source and a copy of its store, to be damaged."""
    return sample, shutil.copytree(sample_store, tmp_path / "deeplesion.zarr")


def ids(store):
    return sorted(path.parent.name for path in store.glob("volumes/*/zarr.json"))


def contents(store):
    """Give name -> bytes of every file, but for the report of the last conversion and the time of the store."""
    found = {p.relative_to(store).as_posix(): p.read_bytes() for p in store.rglob("*") if p.is_file()}
    del found[layout.REPORT]
    root = json.loads(found["zarr.json"])
    for name in ("created", "checksum"):
        del root["attributes"]["lesionzarr"][name]
    return {**found, "zarr.json": root}


def told(store, **options):
    """Give volume, object and kind of every issue."""
    found = lesionzarr.verify(store, **options).issues
    return [(issue.item, GENERATION.sub("", issue.file), issue.kind) for issue in found]


def at(store, name):
    """Path of a table of the only catalog of a store."""
    (path,) = store.glob(name.replace("/", "/*/"))
    return path


def flip(path, bit):
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)


def cut(path, size):
    path.write_bytes(path.read_bytes()[:size])


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))


def test_an_intact_store_of_every_dataset_and_profile_has_no_issue(sample_store, masked, tmp_path):
    assert told(sample_store) == told(masked[1]) == []
    sources = {"recist-dataset": masked[0], "lung-pet-ct-dx": LungPetCtDx.example(tmp_path / "source", 1)}
    for name, source in sources.items():
        lesionzarr.convert(name, source, tmp_path / f"{name}.zarr", profile="dense")
        found = lesionzarr.verify(tmp_path / f"{name}.zarr")
        assert (found.issues, found.leftovers) == ((), ())
        assert found.counts["volumes read whole"] == found.counts["volumes"] == len(ids(tmp_path / f"{name}.zarr"))


def test_real_slices_are_verified(real_store):
    assert told(real_store) == []


DAMAGES = {
    "a bit of a chunk": ("hu/c/0/0/0", lambda path: flip(path, 8 * 100), "damaged-shard"),
    "a bit of the index": ("hu/c/0/0/0", lambda path: flip(path, 8 * (path.stat().st_size - 30)), "damaged-shard"),
    "a shard cut off": ("hu/c/0/0/0", lambda path: cut(path, path.stat().st_size - 1), "damaged-shard"),
    "a shard with more at its end": (
        "hu/c/0/0/0",
        lambda path: path.write_bytes(path.read_bytes() + b"\0"),
        "damaged-shard",
    ),
    "an empty shard": ("hu/c/0/0/0", lambda path: cut(path, 0), "missing-object"),
    "a deleted shard": ("hu/c/0/0/0", lambda path: path.unlink(), "missing-object"),
    "a garbled array": ("hu/zarr.json", lambda path: path.write_text("{"), "damaged-metadata"),
    "a deleted array": ("hu/zarr.json", lambda path: path.unlink(), "missing-object"),
    "another padding": (
        "hu/zarr.json",
        lambda path: edit(path, lambda d: d.update(fill_value=-1025)),
        "damaged-metadata",
    ),
    "a deleted coordinate": ("z/zarr.json", lambda path: path.unlink(), "missing-object"),
    "a garbled coordinate": ("y/zarr.json", lambda path: path.write_text("[]"), "damaged-metadata"),
    "a bit of a coordinate": ("x/c/0", lambda path: flip(path, 77), "damaged-coordinates"),
    "coordinates cut off": ("x/c/0", lambda path: cut(path, 40), "damaged-coordinates"),
    "a garbled group": ("zarr.json", lambda path: path.write_bytes(b"\xff\0{"), "damaged-attributes"),
    "an empty group": ("zarr.json", lambda path: cut(path, 0), "damaged-attributes"),
    "a deleted group": ("zarr.json", lambda path: path.unlink(), "missing-volume"),
    "a changed lesion": (
        "zarr.json",
        lambda path: edit(path, lambda d: d["attributes"]["lesionzarr"]["lesions"][0].update(x0=1.5)),
        "damaged-attributes",
    ),
    "another spacing": (
        "zarr.json",
        lambda path: edit(path, lambda d: d["attributes"]["lesionzarr"]["volume"]["spacing_mm"].__setitem__(1, 9.0)),
        "damaged-attributes",
    ),
    "another image scale": (
        "zarr.json",
        lambda path: edit(path, lambda d: d["attributes"]["ome"]["multiscales"][0].update(name="mr")),
        "damaged-attributes",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_each_damage_of_a_volume_is_named_once_and_repaired(work, sample_store, damage):
    source, store = work
    name, inflict, kind = DAMAGES[damage]
    volume_id = next(path.parent.name for path in sorted(store.glob("volumes/*/zarr.json")) if lesions_of(path))
    key = f"volumes/{volume_id}/{name}"
    inflict(store / key)
    found = lesionzarr.verify(store)
    assert [(issue.item, issue.file, issue.kind) for issue in found.issues] == [(volume_id, key, kind)]
    assert key in found.issues[0].message
    assert "lesionzarr repair" in found.issues[0].message
    before = {path: path.stat().st_mtime_ns for path in store.rglob("*") if volume_id not in str(path)}
    done = lesionzarr.repair(store, source)
    assert (done.rewritten, done.remaining, done.changed) == ((volume_id,), (), ())
    assert contents(store) == contents(sample_store)
    touched = {
        path.parent.name for path, stamp in before.items() if path.is_file() and path.stat().st_mtime_ns != stamp
    }
    # it says what it said
    assert touched == set()


def lesions_of(group):
    return json.loads(group.read_text())["attributes"]["lesionzarr"]["lesions"]


MASK_DAMAGES = {
    "labels/lesions/0/c/0/0/0": "damaged-shard",
    "labels/lesions/0/zarr.json": "damaged-metadata",
    "labels/lesions/zarr.json": "damaged-metadata",
    "labels/zarr.json": "damaged-metadata",
}


@pytest.mark.parametrize("name", MASK_DAMAGES)
def test_each_damage_of_a_mask_is_named_once_and_repaired(masked, tmp_path, name):
    source, store = masked[0], shutil.copytree(masked[1], tmp_path / "s.zarr")
    volume_id = next(path.parents[1].name for path in sorted(store.glob("volumes/*/labels/zarr.json")))
    key = f"volumes/{volume_id}/{name}"
    flip(store / key, 8 * 20)
    assert told(store) == [(volume_id, key, MASK_DAMAGES[name])]
    assert lesionzarr.repair(store, source).rewritten == (volume_id,)
    assert contents(store) == contents(masked[1])


def test_many_damages_at_once_are_each_named(work, sample_store):
    source, store = work
    expected = []
    for volume_id, damage in zip(ids(store), list(DAMAGES)[: len(ids(store))], strict=False):
        name, inflict, kind = DAMAGES[damage]
        inflict(store / "volumes" / volume_id / name)
        expected.append((volume_id, f"volumes/{volume_id}/{name}", kind))
    assert told(store) == expected
    lesionzarr.repair(store, source, workers=1)
    assert contents(store) == contents(sample_store)


def test_two_damages_of_one_volume_are_two_issues(work):
    _, store = work
    key = f"volumes/{ids(store)[0]}"
    flip(store / key / "hu/c/0/0/0", 800)
    (store / key / "z/c/0").unlink()
    assert [file for _, file, _ in told(store)] == [f"{key}/hu/c/0/0/0", f"{key}/z/c/0"]


def test_voxels_of_another_volume_are_told_though_every_chunk_is_right(work, sample_store):
    source, store = work
    shapes = {name: layout_shape(store, name) for name in ids(store)}
    one, other = next((a, b) for a in shapes for b in shapes if a < b and shapes[a] == shapes[b])
    shard = "hu/c/0/0/0"
    shutil.copy(store / "volumes" / other / shard, store / "volumes" / one / shard)
    assert told(store) == [(one, f"volumes/{one}/hu", "wrong-voxels")]
    assert lesionzarr.repair(store, source).rewritten == (one,)
    assert contents(store) == contents(sample_store)


def layout_shape(store, volume_id):
    return json.loads((store / "volumes" / volume_id / "hu/zarr.json").read_text())["shape"]


def rewrite(table, change):
    rows = pq.read_table(io.BytesIO(table.read_bytes()))
    pq.write_table(change(rows), table)


CATALOG_DAMAGES = {
    "deleted volumes": (lambda s: at(s, VOLUMES).unlink(), [("", VOLUMES, "damaged-catalog")]),
    "deleted lesions": (lambda s: at(s, LESIONS).unlink(), [("", LESIONS, "damaged-catalog")]),
    "garbled": (lambda s: at(s, VOLUMES).write_bytes(b"PAR1 nonsense PAR1"), [("", VOLUMES, "damaged-catalog")]),
    "cut off": (lambda s: cut(at(s, LESIONS), 500), [("", LESIONS, "damaged-catalog")]),
    "without a column": (
        lambda s: rewrite(at(s, VOLUMES), lambda t: t.drop_columns(["mask"])),
        [("", VOLUMES, "damaged-catalog")],
    ),
    "without the first volume": (
        lambda s: rewrite(at(s, VOLUMES), lambda t: t.slice(1)),
        [(0, VOLUMES, "not-in-catalog")],
    ),
    "the first volume twice": (
        lambda s: rewrite(at(s, VOLUMES), lambda t: t.take([0, *range(len(t))])),
        [(0, VOLUMES, "stale-row")],
    ),
    "another checksum of the first volume": (
        lambda s: rewrite(at(s, VOLUMES), lambda t: replaced(t, "voxels", 0, "sha256:0")),
        [(0, VOLUMES, "stale-row")],
    ),
    "of two conversions": (
        lambda s: rewrite(at(s, LESIONS), lambda t: t.replace_schema_metadata({"generation": "another"})),
        [("", "catalog", "damaged-catalog")],
    ),
    "another lesion of the first volume": (
        lambda s: rewrite(at(s, LESIONS), lambda t: replaced(t, "x0", first_of(t, ids(s)[0]), 12.5)),
        [(0, LESIONS, "stale-lesions")],
    ),
    "without a lesion of the first volume": (
        lambda s: rewrite(at(s, LESIONS), lambda t: without(t, first_of(t, ids(s)[0]))),
        [(0, LESIONS, "stale-lesions")],
    ),
}


def replaced(table, column, row, value):
    values = table[column].to_pylist()
    values[row] = value
    field = table.schema.field(column)
    return table.set_column(table.schema.get_field_index(column), field, [values])


def without(table, row):
    return table.take([number for number in range(len(table)) if number != row])


def first_of(table, volume_id):
    return table["volume_id"].to_pylist().index(volume_id)


@pytest.mark.parametrize("damage", CATALOG_DAMAGES)
def test_each_damage_of_the_catalog_is_named_once_and_repaired_without_a_source(work, sample_store, damage):
    _, store = work
    inflict, expected = CATALOG_DAMAGES[damage]
    inflict(store)
    expected = [(item if item == "" else ids(store)[item], file, kind) for item, file, kind in expected]
    assert told(store) == expected
    done = lesionzarr.repair(store)
    assert (done.rewritten, done.catalog, done.remaining) == ((), True, ())
    assert contents(store) == contents(sample_store)


def test_a_catalog_of_before_a_conversion_is_told_as_stale(sample, sample_store, tmp_path):
    source = shutil.copytree(sample, tmp_path / "source")
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    table = (source / "DL_info.csv").read_text().splitlines()
    cells = table[1].split(",")
    cells[-2] = "99"
    (source / "DL_info.csv").write_text("\n".join([table[0], ",".join(cells), *table[2:]]))
    old = shutil.copytree(store / "catalog", tmp_path / "catalog")
    (updated,) = lesionzarr.convert("deeplesion", source, store).updated
    shutil.rmtree(store / "catalog")
    shutil.copytree(old, store / "catalog")
    assert told(store) == [(updated, LESIONS, "stale-lesions")]
    lesionzarr.repair(store)
    assert told(store) == []


def test_a_volume_copied_under_another_name_is_named_and_deleted(work, sample_store):
    _, store = work
    volume_id = ids(store)[0]
    shutil.copytree(store / "volumes" / volume_id, store / "volumes/copy")
    assert told(store) == [("copy", "volumes/copy/zarr.json", "copied-volume")]
    assert lesionzarr.repair(store).deleted == ("copy",)
    assert contents(store) == contents(sample_store)


def test_a_copy_is_kept_while_its_original_is_missing(work, sample_store):
    source, store = work
    volume_id = ids(store)[0]
    (store / "volumes" / volume_id).rename(store / "volumes/moved")
    assert {kind for _, _, kind in told(store)} == {"missing-volume", "copied-volume"}
    done = lesionzarr.repair(store)
    assert {issue.kind for issue in done.remaining} == {"missing-volume", "copied-volume"}
    assert (store / "volumes/moved/hu").is_dir()
    done = lesionzarr.repair(store, source)
    assert (done.rewritten, done.deleted) == ((volume_id,), ("moved",))
    assert contents(store) == contents(sample_store)


@pytest.mark.parametrize(
    "damage",
    [
        lambda s: (s / "zarr.json").unlink(),
        lambda s: (s / "zarr.json").write_text("no json"),
        lambda s: edit(s / "zarr.json", lambda d: d["attributes"].clear()),
        lambda s: edit(s / "zarr.json", lambda d: d["attributes"]["lesionzarr"].update(title="another")),
        lambda s: edit(s / "zarr.json", lambda d: d["attributes"]["lesionzarr"].update(format=3)),
        lambda s: (s / "volumes/zarr.json").unlink(),
        lambda s: (s / "volumes/zarr.json").write_text("{}"),
    ],
)
def test_damaged_groups_round_the_volumes_are_named_and_restored_without_a_source(work, sample_store, damage):
    _, store = work
    damage(store)
    ((item, file, kind),) = told(store)
    assert (item, kind) == ("", "damaged-group" if file.startswith("volumes") else "damaged-root")
    assert lesionzarr.repair(store).groups
    assert told(store) == []
    assert contents(store) == contents(sample_store)


def test_a_half_written_volume_and_strays_are_left_over_and_no_damage(work):
    _, store = work
    shutil.copytree(store / "volumes" / ids(store)[0] / "hu", store / "volumes/000099_01_01_001-009/hu")
    (store / "volumes" / ids(store)[0] / "hu/c/0/0/.0.1234.part").write_bytes(b"half")
    (store / "notes.txt").write_text("mine")
    (store / "claims").mkdir(exist_ok=True)
    (store / "claims/000099_01_01_001-009.1").write_text("of a conversion that runs")
    found = lesionzarr.verify(store)
    assert found.issues == ()
    assert sorted((issue.kind, issue.file) for issue in found.leftovers) == [
        ("half-written", "volumes/000099_01_01_001-009/zarr.json"),
        ("stray-object", "notes.txt"),
        ("stray-object", f"volumes/{ids(store)[0]}/hu/c/0/0/.0.1234.part"),
    ]


def test_without_a_catalog_a_volume_without_group_is_an_issue(work, sample_store):
    source, store = work
    at(store, VOLUMES).unlink()
    lost = ids(store)[0]
    (store / "volumes" / lost / "zarr.json").unlink()
    at(store, LESIONS).unlink()
    assert told(store) == [
        ("", LESIONS, "damaged-catalog"),
        ("", VOLUMES, "damaged-catalog"),
        (lost, f"volumes/{lost}/zarr.json", "half-written"),
    ]
    before = told(store)
    done = lesionzarr.repair(store)
    assert (done.catalog, told(store)) == (False, before)
    lesionzarr.repair(store, source)
    assert contents(store) == contents(sample_store)


LOST_CATALOGS = {
    "a garbled name": (lambda s: (s / layout.CATALOG_FILE).write_text("x"), layout.CATALOG_FILE),
    "no name": (lambda s: (s / layout.CATALOG_FILE).unlink(), layout.CATALOG_FILE),
    "no volumes": (lambda s: at(s, VOLUMES).unlink(), VOLUMES),
    "no lesions": (lambda s: at(s, LESIONS).unlink(), LESIONS),
}


@pytest.mark.parametrize("damage", LOST_CATALOGS)
def test_a_volume_that_is_lost_with_its_catalog_is_named_and_not_forgotten(work, sample_store, damage):
    source, store = work
    lost = next(path.parent.name for path in sorted(store.glob("volumes/*/zarr.json")) if lesions_of(path))
    shutil.rmtree(store / "volumes" / lost)
    inflict, file = LOST_CATALOGS[damage]
    inflict(store)
    expected = [("", file, "damaged-catalog"), (lost, f"volumes/{lost}/zarr.json", "missing-volume")]
    assert told(store) == expected
    done = lesionzarr.repair(store)
    assert (done.catalog, sorted(issue.kind for issue in done.remaining)) == (
        False,
        ["damaged-catalog", "missing-volume"],
    )
    assert told(store) == expected
    done = lesionzarr.repair(store, source)
    assert (done.rewritten, done.catalog, done.remaining) == ((lost,), True, ())
    assert contents(store) == contents(sample_store)


def test_a_volume_without_lesions_is_remembered_by_the_catalog_before(sample, sample_store, tmp_path):
    store = shutil.copytree(sample_store, tmp_path / "s.zarr")
    first, second = ids(store)[:2]
    document = json.loads((store / "volumes" / first / "zarr.json").read_text())
    own = document["attributes"]["lesionzarr"]
    own["lesions"] = []
    document["attributes"]["lesionzarr"] = layout.seal(own)
    (store / "volumes" / first / "zarr.json").write_text(json.dumps(document))
    assert main(["index", str(store)]) == 0
    # what the next catalog no longer has is gone
    shutil.rmtree(store / "volumes" / second)
    assert main(["index", str(store)]) == 0
    assert told(store) == []
    shutil.rmtree(store / "volumes" / first)
    next(store.glob("catalog/3-*/volumes.parquet")).unlink()
    assert [(item, kind) for item, _, kind in told(store)] == [("", "damaged-catalog"), (first, "missing-volume")]
    assert lesionzarr.repair(store, sample).remaining == ()
    assert first in lesionzarr.open(store).volumes.index


def test_without_any_table_the_source_tells_which_volumes_are_lost(work, sample_store):
    source, store = work
    lost = ids(store)[0]
    shutil.rmtree(store / "volumes" / lost)
    report = (store / layout.REPORT).read_bytes()
    shutil.rmtree(store / "catalog")
    assert told(store) == [("", layout.CATALOG_FILE, "damaged-catalog")]
    assert lesionzarr.repair(store, source).rewritten == (lost,)
    (store / layout.REPORT).write_bytes(report)
    assert contents(store) == contents(sample_store)


def test_a_wrong_source_is_told_before_the_store_is_read(work, tmp_path, capsys):
    _, store = work
    looked = []
    with pytest.raises(SourceError, match="none"):
        lesionzarr.verify(store, source=tmp_path / "none", progress=lambda *done: looked.append(done))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SettingError, match=r"DL_info\.csv is not there"):
        lesionzarr.verify(store, source=tmp_path / "empty", progress=lambda *done: looked.append(done))
    assert looked == []
    with pytest.raises(SourceError, match="none: nothing is there"):
        lesionzarr.repair(store, tmp_path / "none")
    # a sound store needs none
    assert main(["repair", str(store), "--source", str(tmp_path / "none")]) == 1
    assert main(["verify", str(store), "--source", str(tmp_path / "none")]) == 1
    assert capsys.readouterr().err.count("nothing is there; name the folder of the dataset") == 2


def test_a_damaged_root_is_told_with_the_repair_that_mends_it(work, capsys):
    _, store = work
    (store / "zarr.json").write_text("{")
    assert main(["info", str(store)]) == 1
    assert "run `lesionzarr repair`" in capsys.readouterr().err
    assert main(["repair", str(store)]) == 0
    assert main(["info", str(store)]) == 0


def test_repairing_without_a_source_keeps_the_catalog_that_tells_what_is_lost(work):
    _, store = work
    (store / "volumes" / ids(store)[0] / "zarr.json").unlink()
    rewrite(at(store, VOLUMES), lambda t: replaced(t, "voxels", 1, "sha256:0"))
    before = told(store)
    done = lesionzarr.repair(store)
    assert not done.catalog
    assert sorted((i.item, GENERATION.sub("", i.file), i.kind) for i in done.remaining) == sorted(before)
    assert told(store) == before


def bits(store):
    """Give the objects of a store with the volume that each belongs to."""
    for path in sorted(store.rglob("*")):
        name = path.relative_to(store).as_posix()
        if path.is_file() and name != layout.REPORT:
            yield name, name.split("/")[1] if name.startswith("volumes/") and name.count("/") > 1 else ""


def matters(name, before, after):
    """Tell whether a changed object says something else: JSON what it says, a table its rows, bytes in any case."""
    if name.endswith(".json"):
        try:
            return json.loads(before) != json.loads(after)
        except ValueError:
            return True
    if name.endswith(".parquet"):
        try:
            old, new = (
                pq.read_table(io.BytesIO(d), page_checksum_verification=True, pre_buffer=False) for d in (before, after)
            )
            return not (old.equals(new) and old.schema.metadata == new.schema.metadata)
        except (OSError, ValueError, KeyError, MemoryError, NotImplementedError):
            return True
    return True


@pytest.fixture(scope="module")
def one_volume(masked, tmp_path_factory):
    """The smallest volume with a mask, as a store of its own."""
    store = tmp_path_factory.mktemp("one") / "s.zarr"
    shutil.copytree(masked[1], store)
    sizes = {n: (store / "volumes" / n / "hu/c/0/0/0").stat().st_size for n in ids(store)}
    kept = min((n for n in sizes if (store / "volumes" / n / "labels").is_dir()), key=sizes.__getitem__)
    for name in set(sizes) - {kept}:
        shutil.rmtree(store / "volumes" / name)
    shutil.rmtree(store / "catalog")
    assert main(["index", str(store)]) == 0
    assert told(store) == []
    return store


@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_a_flip_of_any_bit_of_any_object_is_named_unless_it_says_the_same(one_volume, data):
    name, volume_id = data.draw(st.sampled_from(list(bits(one_volume))))
    path = one_volume / name
    before = path.read_bytes()
    flip(path, data.draw(st.integers(0, 8 * len(before) - 1)))
    try:
        found = lesionzarr.verify(one_volume, threads=1).issues
        if matters(name, before, path.read_bytes()):
            named = {(issue.item, issue.file) for issue in found}
            # a row of the catalog is told with its volume
            assert named
            assert {file for _, file in named} <= {name, "catalog"}
            assert {item for item, _ in named} <= {volume_id, *(ids(one_volume) if name.endswith(".parquet") else ())}
            assert len(found) == 1
        else:
            assert found == ()
    finally:
        path.write_bytes(before)


def test_a_sample_reads_the_voxels_of_its_share_and_the_metadata_of_all(work):
    _, store = work
    for volume_id in ids(store):
        flip(store / "volumes" / volume_id / "hu/c/0/0/0", 800)
    assert len(told(store, sample=0.0)) == 0
    third = told(store, sample=1 / 3, seed=1)
    assert len(third) == 2
    assert told(store, sample=1 / 3, seed=1) == third
    assert any(told(store, sample=1 / 3, seed=seed) != third for seed in range(2, 6))
    assert len(told(store)) == 6
    index = store / "volumes" / ids(store)[4] / "hu/c/0/0/0"
    flip(index, 8 * (index.stat().st_size - 2))
    assert told(store, sample=0.0) == [(ids(store)[4], f"volumes/{ids(store)[4]}/hu/c/0/0/0", "damaged-shard")]


def test_a_store_of_the_first_version_without_checksums_of_attributes_is_verified(work):
    _, store = work
    for path in [store / "zarr.json", *store.glob("volumes/*/zarr.json")]:
        edit(path, lambda d: d["attributes"]["lesionzarr"].pop("checksum"))
    assert told(store) == []


def test_what_others_added_to_groups_and_arrays_is_no_damage(work):
    _, store = work
    for path in [*store.glob("volumes/*/zarr.json"), *store.glob("volumes/*/hu/zarr.json")]:
        edit(path, lambda d: d["attributes"].update(note="seen"))
    # the catalog holds the metadata of arrays as they were
    assert {kind for _, _, kind in told(store)} == {"stale-row"}
    lesionzarr.repair(store)
    assert told(store) == []


def test_a_changed_source_and_volumes_that_are_missing_are_told(sample, work, tmp_path):
    source, store = shutil.copytree(sample, tmp_path / "source"), work[1]
    first, second = (volume for volume in DeepLesion(source).scan().volumes[:2])
    (source / "Images_png" / first.files[0].name).touch()
    shutil.rmtree(store / "volumes" / second.volume_id)
    main(["index", str(store)])
    found = lesionzarr.verify(store, source=source)
    assert {(issue.item, issue.kind) for issue in found.issues} == {
        (first.volume_id, "source-changed"),
        (second.volume_id, "not-in-store"),
    }
    assert told(store) == []


def test_the_settings_that_a_store_was_made_with_are_found_again(sample, tmp_path):
    source = shutil.copytree(sample, tmp_path / "source")
    table = (source / "DL_info.csv").rename(tmp_path / "table.csv")
    lesionzarr.convert("deeplesion", source, tmp_path / "s.zarr", csv=table, profile="fast")
    before = contents(tmp_path / "s.zarr")
    shutil.rmtree(tmp_path / "s.zarr/volumes" / ids(tmp_path / "s.zarr")[3])
    lesionzarr.repair(tmp_path / "s.zarr", source)
    assert contents(tmp_path / "s.zarr") == before
    (tmp_path / "s.zarr/volumes" / ids(tmp_path / "s.zarr")[3] / "hu/c/0/0/0").unlink()
    table = table.rename(source / "elsewhere.csv")
    with pytest.raises(SettingError, match=r"table.csv is not there.*--csv"):
        lesionzarr.repair(tmp_path / "s.zarr", source)
    assert lesionzarr.repair(tmp_path / "s.zarr", source, csv=table).remaining == ()


def test_a_volume_whose_source_is_gone_or_changed_is_told_by_the_repair(sample, work, tmp_path):
    source, store = shutil.copytree(sample, tmp_path / "source"), work[1]
    first, second = (volume for volume in DeepLesion(source).scan().volumes[:2])
    for volume in (first, second):
        (store / "volumes" / volume.volume_id / "hu/c/0/0/0").unlink()
    shutil.copy(
        source / "Images_png" / first.files[1].name,
        source / "Images_png" / first.files[0].name,
    )
    (source / "Images_png" / second.files[0].name).write_bytes(b"")
    done = lesionzarr.repair(store, source)
    assert done.rewritten == (first.volume_id,)
    assert [issue.item for issue in done.changed] == [first.volume_id]
    assert [issue.item for issue in done.remaining] == [second.volume_id]


def test_memory_is_one_shard_and_its_voxels_for_each_thread(tmp_path):
    rng = np.random.default_rng(0)
    location = open_location(tmp_path / "s.zarr")
    create_store(location, {"source": "deeplesion", "title": "", "licence": "", "citation": ""})
    shape = (layout.SHARD_SLICES * 4, 256, 256)
    voxels = rng.integers(-1024, 3071, shape, dtype=np.int16)
    files = tuple(SourceFile("Images_png", f"{n:03d}.png", 1, 1) for n in range(shape[0]))
    volume = Volume("v", "s", "t", "p", Grid(shape, (2.0, 0.5, 0.5)), 1, shape[0], files)
    write_volume(location, volume, voxels, {"converter": "deeplesion"}, "portable")
    shard = layout.SHARD_SLICES * 256 * 256 * 2
    del voxels
    assert verify_store(location, threads=1).counts["issues"] == 1  # no catalog
    tracemalloc.start()
    verify_store(location, threads=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2.5 * shard


def test_what_is_no_store_is_named(tmp_path, sample_store):
    with pytest.raises(NotFoundError, match="no store at"):
        lesionzarr.verify(tmp_path)
    (tmp_path / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    with pytest.raises(SettingError, match="no lesionzarr store"):
        lesionzarr.verify(tmp_path)
    lesionzarr.pack(lesionzarr.open(sample_store), tmp_path / "p.zarr", size=(3, 8, 8))
    with pytest.raises(SettingError, match="a pack"):
        lesionzarr.verify(tmp_path / "p.zarr")
    with pytest.raises(SettingError, match="sample"):
        lesionzarr.verify(sample_store, sample=1.5)
    with pytest.raises(SettingError, match="threads"):
        lesionzarr.verify(sample_store, threads=0)


def test_a_store_on_a_web_server_that_lists_nothing_is_verified(work):
    _, store = work
    volume_id = ids(store)[2]
    with Static(store.parent) as host:
        url = f"{host.endpoint}/{store.name}"
        assert told(url) == []
        (store / "volumes" / volume_id / "hu/c/0/0/0").unlink()
        assert told(url) == [(volume_id, f"volumes/{volume_id}/hu/c/0/0/0", "missing-object")]


def test_a_store_in_a_bucket_is_verified_and_repaired(sample, sample_store, s3_server, bucket):
    url, options = f"s3://{bucket}/deeplesion.zarr", s3_server.options
    lesionzarr.sync(sample_store, url, destination_options=options)
    there = open_location(url, options)
    volume_id = ids(sample_store)[0]
    key = f"volumes/{volume_id}/hu/c/0/0/0"
    data = bytearray(there.read(key))
    data[500] ^= 4
    there.write(key, bytes(data))
    there.delete(next(key for key in there.list_objects("catalog") if key.endswith("/volumes.parquet")))
    assert told(url, storage_options=options) == [
        ("", VOLUMES, "damaged-catalog"),
        (volume_id, key, "damaged-shard"),
    ]
    lesionzarr.repair(url, sample, storage_options=options)
    assert told(url, storage_options=options) == []
    assert there.read(key) == (sample_store / key).read_bytes()


def test_a_store_is_checked_and_repaired_from_a_source_in_a_bucket(sample, s3_server, bucket, tmp_path, capsys):
    url, options = f"s3://{bucket}/DeepLesion", s3_server.options
    there, store = open_location(url, options), tmp_path / "s.zarr"
    files = [path for path in sample.rglob("*") if path.is_file()]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda path: there.write(path.relative_to(sample).as_posix(), path.read_bytes()), files))
    lesionzarr.convert("deeplesion", url, store, source_options=options)
    before = contents(store)
    assert told(store, source=url, source_options=options) == []
    key = f"volumes/{ids(store)[0]}/hu/c/0/0/0"
    flip(store / key, 800)
    assert lesionzarr.repair(store, url, source_options=options).rewritten == (ids(store)[0],)
    assert contents(store) == before
    flip(store / key, 800)
    words = [f"--source-option={name}={value}" for name, value in options.items() if name != "client_options"]
    assert main(["verify", str(store), "--source", url, *words]) == 1
    assert main(["repair", str(store), "--source", url, *words]) == 0
    assert "rewritten: volume" in capsys.readouterr().out
    assert contents(store) == before


def test_the_command_line_tells_damage_by_its_exit_code(work, capsys):
    source, store = work
    assert main(["verify", str(store)]) == 0
    assert "issues:" in capsys.readouterr().out
    (shard := store / "volumes" / ids(store)[0] / "hu/c/0/0/0").unlink()
    assert main(["verify", str(store), "--sample", "0.5", "--source", str(source)]) == 1
    out = capsys.readouterr().out
    assert [line.split(":")[0] for line in out.splitlines()].count("missing-object") == 1
    assert shard.relative_to(store).as_posix() in out
    assert main(["verify", str(store), "--json"]) == 1
    assert len(json.loads(capsys.readouterr().out)["issues"]) == 1
    assert main(["repair", str(store)]) == 1
    assert "remaining: " in capsys.readouterr().err
    assert main(["repair", str(store), "--source", str(source), "--csv", str(source / "DL_info.csv")]) == 0
    assert f"rewritten: volume {ids(store)[0]}" in capsys.readouterr().out
    assert main(["repair", str(store), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rewritten"] == []
    assert main(["verify", str(store)]) == 0
    capsys.readouterr()
    assert main(["verify", str(store / "none")]) == 2
    with pytest.raises(SystemExit):
        main(["verify", str(store), "--sample", "2"])
