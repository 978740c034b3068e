"""Stores as other programs show them: neuroglancer in a browser, the napari plugin, a web server's own ranges."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import servers

import lesionzarr
from lesionzarr.store import layout

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
WEBGL = ("--no-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist")
SHADER = "#uicontrol invlerp normalized(range=[-1000,1000])\nvoid main(){emitGrayscale(normalized());}"
PATIENCE_S = 60
README = Path(__file__).parents[1] / "README.md"
TEMPORARY = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
NAPARI = """
import json, sys
import numpy as np
from napari_ome_zarr import napari_get_reader
(data, meta, kind), = napari_get_reader(sys.argv[1])(sys.argv[1])
data = data[0] if isinstance(data, list) else data
np.save(sys.argv[2], np.asarray(data))
print(json.dumps([kind, list(map(float, meta["scale"])), list(meta["axis_labels"])]))
"""


@pytest.fixture(scope="module")
def volume(sample_store):
    catalog = lesionzarr.open(sample_store)
    volume_id = catalog.volumes.index[0]
    return volume_id, catalog.volume(volume_id)["hu"].to_numpy(), catalog.grid(volume_id).spacing_mm


@pytest.fixture(scope="module")
def page():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with api.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=WEBGL)
        yield browser.new_page(viewport={"width": 700, "height": 600})
        browser.close()


def test_neuroglancer_draws_the_slices_in_mm(volume, sample_store, page):
    neuroglancer = pytest.importorskip("neuroglancer", reason="neuroglancer is not installed")
    volume_id, hu, spacing_mm = volume
    with servers.Static(sample_store.parent) as host:
        viewer = neuroglancer.Viewer()
        with viewer.txn() as state:
            source = f"{host.endpoint}/{sample_store.name}/{layout.volume_key(volume_id)}/|zarr3:"
            state.layers["ct"] = neuroglancer.ImageLayer(source=source, shader=SHADER)
        page.goto(viewer.get_viewer_url())
        deadline = time.monotonic() + PATIENCE_S
        while not viewer.state.dimensions.names and time.monotonic() < deadline:
            page.wait_for_timeout(50)
        with viewer.txn() as state:
            state.layout = "xy"
            state.show_axis_lines = state.show_default_annotations = state.show_scale_bar = False
            state.display_dimensions = ["x", "y", "z"]
            # one pixel of the screen is one of the slice; the unit is the smallest spacing
            state.cross_section_scale = spacing_mm[1] / min(spacing_mm)
        shown = viewer.screenshot().screenshot.image_pixels[..., 0].astype(np.float64)
        dimensions, position = viewer.state.dimensions, viewer.state.position
    assert ([*dimensions.names], [*dimensions.units]) == (["z", "y", "x"], ["m"] * 3)
    np.testing.assert_allclose(dimensions.scales, np.array(spacing_mm) / 1000)
    expected = 255 * np.clip((hu[int(position[0])] + 1000.0) / 2000, 0, 1)
    height, width = expected.shape
    # the middle of the panel lies below that of the page by half of a bar
    places = [(y - height // 2, x - width // 2) for y in range(315, 335) for x in range(340, 360)]
    assert min(np.abs(shown[y : y + height, x : x + width] - expected).max() for y, x in places) <= 0.5


def test_napari_takes_a_volume_by_its_plugin(volume, sample_store, tmp_path):
    if importlib.util.find_spec("napari_ome_zarr") is None:
        pytest.skip("napari-ome-zarr is not installed: it needs all of napari")
    volume_id, hu, spacing_mm = volume
    group, copy = sample_store / layout.volume_key(volume_id), tmp_path / "voxels.npy"
    # in a process of its own: warnings of napari are not ours
    command = [sys.executable, "-W", "ignore", "-c", NAPARI, str(group), str(copy)]
    told = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()[-1]
    assert json.loads(told) == ["image", list(spacing_mm), ["z", "y", "x"]]
    np.testing.assert_array_equal(np.load(copy), hu)


def test_nginx_publishes_a_store_by_the_lines_of_the_readme(volume, sample_store, tmp_path):
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        pytest.skip("no nginx: apt-get install nginx")
    told = re.search(r"```nginx\n(.*?)```", README.read_text(), re.DOTALL)[1]
    port = servers.free_ports(1)[0]
    folders = "".join(f"{name}_temp_path {tmp_path}/{name};" for name in TEMPORARY)
    server = f"server {{ listen 127.0.0.1:{port}; root {sample_store.parent};\n{told} }}"
    (tmp_path / "nginx.conf").write_text(
        f"daemon off; master_process off; pid {tmp_path}/pid; error_log {tmp_path}/error.log;\nevents {{}}\n"
        f"http {{ access_log off; {folders}\n{server} }}\n"
    )
    url = f"http://127.0.0.1:{port}/{sample_store.name}"
    volume_id, hu, _ = volume
    with subprocess.Popen([nginx, "-p", tmp_path, "-c", tmp_path / "nginx.conf"]) as process:
        try:
            catalog = lesionzarr.open(url, {"client_options": {"allow_http": True}})
            np.testing.assert_array_equal(catalog.volume(volume_id)["hu"].to_numpy(), hu)
            request = urllib.request.Request(f"{url}/zarr.json", headers={"Origin": "https://elsewhere.example"})
            with urllib.request.urlopen(request) as answer:
                assert answer.headers["Access-Control-Allow-Origin"] == "*"
        finally:
            process.terminate()
