"""The viewer: its server everywhere, its page where there is a Chromium."""

import base64
import hashlib
import http.client
import json
import shutil
import signal
import subprocess
import sys
import threading
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest

import lesionzarr
from lesionzarr.cli import main
from lesionzarr.samples import lung_pet_ct_dx, recist_dataset
from lesionzarr.store.location import open_location
from lesionzarr.viewer import PAGE
from lesionzarr.viewer.server import ViewerServer
from lesionzarr.window import PRESETS, Window, apply_window

SOURCE = PAGE.parent / "source"
ARGUMENTS = [
    *("--no-sandbox", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
]
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@contextmanager
def serving(store, **options):
    with ViewerServer(open_location(store, options)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture
def interruptible():
    """What is started in the background of a shell ignores Ctrl-C, and so do its children."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="module")
def server(sample_store):
    with serving(sample_store) as server:
        yield server


def ask(server, path, method="GET", **headers):
    """Answer to a path that is sent as it is."""
    connection = http.client.HTTPConnection(*server.server_address, timeout=30)
    connection.request(method, path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    connection.close()
    return response, body


def shard(store):
    return min(store.rglob("hu/c/0/0/0"))


# server


def test_the_root_is_the_page_and_each_file_has_its_type(server):
    types = {"/": "text/html", "/index.html": "text/html", "/viewer.js": "text/javascript", "/viewer.css": "text/css"}
    for path, media_type in types.items():
        response, body = ask(server, path)
        assert (response.status, response.getheader("Content-Type")) == (200, f"{media_type}; charset=utf-8")
        assert body == (PAGE / (path[1:] or "index.html")).read_bytes()


def test_objects_of_the_store_are_sent_as_they_are(server, sample_store):
    for key, media_type in {
        "zarr.json": "application/json",
        "catalog/tables.json": "application/json",
        next(sample_store.glob("catalog/*/lesions.parquet"))
        .relative_to(sample_store)
        .as_posix(): "application/octet-stream",
        shard(sample_store).relative_to(sample_store).as_posix(): "application/octet-stream",
    }.items():
        response, body = ask(server, f"/store/{key}")
        assert (response.status, response.getheader("Content-Type")) == (200, media_type)
        assert body == (sample_store / key).read_bytes()


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("bytes=0-0", slice(0, 1)),
        ("bytes=100-299", slice(100, 300)),
        ("bytes=500-", slice(500, None)),
        ("bytes=-20", slice(-20, None)),
        ("bytes=10-99999999", slice(10, None)),
        ("bytes=-99999999", slice(None)),
    ],
)
def test_a_range_is_that_part_of_the_object(server, sample_store, text, part):
    path = shard(sample_store)
    data = path.read_bytes()
    response, body = ask(server, f"/store/{path.relative_to(sample_store).as_posix()}", Range=text)
    first, last, _ = part.indices(len(data))
    assert response.status == 206
    assert response.getheader("Content-Range") == f"bytes {first}-{last - 1}/{len(data)}"
    assert body == data[part]


def test_a_range_past_the_end_is_refused_with_the_length(server, sample_store):
    size = (sample_store / "zarr.json").stat().st_size
    for text in (f"bytes={size}-", "bytes=-0"):
        response, _ = ask(server, "/store/zarr.json", Range=text)
        assert (response.status, response.getheader("Content-Range")) == (416, f"bytes */{size}")


@pytest.mark.parametrize("text", ["bytes=0-1,4-5", "bytes=5-2", "bytes=-", "lines=0-1", "bytes=a-b"])
def test_what_is_no_single_range_gives_everything(server, sample_store, text):
    response, body = ask(server, "/store/zarr.json", Range=text)
    assert (response.status, body) == (200, (sample_store / "zarr.json").read_bytes())


def test_head_gives_the_same_headers_and_no_body(server):
    for path in ("/", "/store/zarr.json", "/store/none"):
        (got, _), (head, body) = ask(server, path), ask(server, path, "HEAD")
        names = ("Content-Length", "Content-Type", "Accept-Ranges")
        assert (head.status, body) == (got.status, b"")
        assert [head.getheader(name) for name in names] == [got.getheader(name) for name in names]


@pytest.mark.parametrize(
    "path",
    [
        *("/store/../secret.txt", "/store/%2e%2e/secret.txt", "/store/..%2fsecret.txt", "/store/..%5csecret.txt"),
        *("/store/volumes/../../secret.txt", "/store//etc/passwd", "/store/%2fetc/passwd", "/store/C:%5csecret.txt"),
        *("/../server.py", "/..%2fserver.py", "//etc/passwd", "/etc/passwd", "/store/.hidden", "/store/a%00b"),
        *("/store", "/store/", "/store/catalog", "/store/catalog/", "/store/zarr.json/", "/store/none", "/none"),
    ],
)
def test_nothing_outside_of_page_and_store_is_there_and_no_folder_is_listed(sample_store, tmp_path, path):
    store = tmp_path / "a.zarr"
    shutil.copytree(sample_store, store)
    (tmp_path / "secret.txt").write_text("secret")
    (store / ".hidden").write_text("secret")
    with serving(store) as server:
        for method in ("GET", "HEAD"):
            response, body = ask(server, path, method)
            assert response.status == 404
            assert b"secret" not in body.replace(path.encode(), b"").replace(b"secret.txt", b"")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_only_get_and_head_are_answered(server, method):
    assert ask(server, "/store/zarr.json", method)[0].status == 501


def test_names_that_a_foreign_page_could_point_here_are_refused(server):
    assert ask(server, "/store/zarr.json", Host="evil.example:80")[0].status == 403
    assert ask(server, "/store/zarr.json", Host="[")[0].status == 403
    assert ask(server, "/store/zarr.json", Host=f"localhost:{server.server_port}")[0].status == 200


def test_a_store_behind_a_url_is_read_through_the_server(server, sample_store):
    path = shard(sample_store)
    key = path.relative_to(sample_store).as_posix()
    with serving(f"{server.url}store", client_options={"allow_http": True}) as front:
        assert ask(front, f"/store/{key}", Range="bytes=-20")[1] == path.read_bytes()[-20:]
        assert ask(front, "/store/none")[0].status == 404


def test_a_store_that_cannot_be_reached_is_told(sample_store):
    with serving(sample_store) as gone:
        url = f"{gone.url}store"
    options = {"client_options": {"allow_http": True}, "retry_config": {"max_retries": 0}}
    with serving(url, **options) as front:
        response, body = ask(front, "/store/zarr.json")
    assert response.status == 502
    assert body.startswith(b"store/zarr.json: ")


@pytest.mark.usefixtures("interruptible")
def test_the_command_serves_until_it_is_stopped(sample_store):
    command = [sys.executable, "-m", "lesionzarr", "view", sample_store, "--port", "0", "--no-browser", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        told = json.loads(process.stdout.readline())
        host, port = told["url"].removeprefix("http://").rstrip("/").split(":")
        connection = http.client.HTTPConnection(host, int(port), timeout=30)
        connection.request("GET", "/store/zarr.json")
        assert connection.getresponse().read() == (sample_store / "zarr.json").read_bytes()
        connection.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 0
        assert process.stderr.read() == ""
    assert (host, told["store"]) == ("127.0.0.1", str(sample_store))


def test_the_command_says_what_is_wrong_before_it_serves(server, sample_store, tmp_path, capsys):
    assert main(["view", str(tmp_path / "none.zarr"), "--no-browser"]) == 2
    assert "no store at none.zarr" in capsys.readouterr().err
    assert main(["view", str(sample_store), "--no-browser", "--port", str(server.server_port)]) == 2
    assert f"port {server.server_port}: in use" in capsys.readouterr().err


# page, as built


def test_the_page_is_built_of_its_sources():
    if not SOURCE.is_dir():
        pytest.skip("the sources of the page are not in a wheel")
    names = ["build.mjs", "index.html", "package-lock.json", "style.css"]
    names += [f"src/{path.name}" for path in (SOURCE / "src").iterdir()]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update((SOURCE / name).read_text(encoding="utf-8").encode())
    first_line = (PAGE / "viewer.js").read_text(encoding="utf-8").partition("\n")[0]
    assert digest.hexdigest() in first_line, "run `npm ci && npm run build` in lesionzarr/viewer/source"


def test_the_page_is_small_and_names_what_it_is_made_of():
    assert sum(path.stat().st_size for path in PAGE.iterdir()) < 1_000_000
    licences = (PAGE / "licences.txt").read_text(encoding="utf-8")
    assert all(name in licences for name in ("zarrita", "numcodecs", "hyparquet", "fzstd"))


# page, in a browser


@pytest.fixture(scope="module")
def browser():
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install playwright")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        context = browser.new_context(viewport={"width": 1440, "height": 860})
        context.set_default_timeout(30_000)
        yield context
        browser.close()


class Tab:
    """One page of the viewer, and what is read from it."""

    def __init__(self, page, url):
        self.page, self.url = page, url
        self.faults, self.asked = [], []
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("request", lambda request: self.asked.append(request.url))

    def go(self, lesion=None, query=""):
        # an address that differs in its end alone would load nothing
        self.page.goto("about:blank")
        self.page.goto(f"{self.url}{query}" + (f"#lesion={lesion}" if lesion else ""))
        return self

    def wait(self, lesion, z):
        """Wait until that slice of that lesion is drawn."""
        self.page.wait_for_selector(f'#slice[data-lesion="{lesion.name}"][data-z="{z}"]')
        return self

    def open(self, lesion, query=""):
        return self.go(lesion.name, query).wait(lesion, int(lesion["key_z"]))

    def pixels(self, layer="slice"):
        """RGBA of a layer, (row, column, 4)."""
        text = self.page.evaluate(
            """id => {
                const canvas = document.getElementById(id);
                const {data, width, height} = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
                let text = "";
                for (let i = 0; i < data.length; i += 8192) text += String.fromCharCode(...data.subarray(i, i + 8192));
                return [btoa(text), height, width];
            }""",
            layer,
        )
        return np.frombuffer(base64.b64decode(text[0]), dtype=np.uint8).reshape(*text[1:], 4)

    def grey(self):
        rgba = self.pixels()
        assert (rgba[..., 0] == rgba[..., 1]).all()
        assert (rgba[..., 1] == rgba[..., 2]).all()
        assert (rgba[..., 3] == 255).all()
        return rgba[..., 0]

    def text(self, selector):
        return self.page.inner_text(selector)

    def fault(self):
        self.page.wait_for_selector("#fault:visible")
        return self.text("#fault")

    def shown(self):
        """Ids of the rows in sight."""
        return self.page.eval_on_selector_all(
            "#table .rows .row",
            """rows => rows.sort((a, b) => a.ariaRowIndex - b.ariaRowIndex).map(row => row.dataset.lesion)""",
        )

    def middle(self):
        box = self.page.locator("#stage").bounding_box()
        return box["x"] + box["width"] / 2, box["y"] + box["height"] / 2


@pytest.fixture
def tab(browser):
    """Open a tab on a server."""
    tabs = []

    def make(server):
        tabs.append(Tab(browser.new_page(), server.url))
        return tabs[-1]

    yield make
    for one in tabs:
        one.page.close()
        assert not one.faults


@pytest.fixture(scope="module")
def lesions(sample_store):
    return lesionzarr.open(sample_store).lesions


def crop_of(store, lesion, window="dicom", size=64):
    """The key slice round a lesion by the reader, and where it lies in the slice."""
    crop = lesionzarr.CropReader(lesionzarr.open(store), size=(1, size, size), window=window).read(lesion.name)
    return crop.image[0, 0], crop.valid[0], tuple(int(number) for number in crop.origin[1:])


def assert_shows(grey, crop):
    """The slice holds the voxels of a crop."""
    image, valid, (top, left) = crop
    rows, columns = np.nonzero(valid)
    assert valid.sum() > 1000
    difference = grey[rows + top, columns + left].astype(int) - image[rows, columns]
    assert np.abs(difference).max() <= 1


def test_it_opens_on_the_first_lesion_and_asks_nobody_but_its_server(tab, server, lesions, sample_store):
    one = tab(server).go().wait(lesions.iloc[0], lesions["key_z"].iloc[0])
    assert one.page.url.endswith(f"#lesion={lesions.index[0]}")
    volumes = len(lesionzarr.open(sample_store).volumes)
    assert one.text("#title") == "DeepLesion"
    assert one.text("#counts") == f"{len(lesions)} lesions in {volumes} volumes"
    assert one.text("#name") == lesions.index[0]
    assert {url.startswith((server.url, "data:")) for url in one.asked if url != "about:blank"} == {True}
    # the page, the tables, one index of a shard, and ranges that were merged
    assert len(one.asked) < 20
    assert not one.page.is_visible("#fault")


def test_the_filters_choose_as_a_query_does(tab, server, lesions):
    one = tab(server).go().wait(lesions.iloc[0], lesions["key_z"].iloc[0])
    assert one.shown() == list(lesions.index)
    kind = lesions["type"].mode()[0]
    one.page.select_option("#type", kind)
    assert one.shown() == list(lesions.query("type == @kind").index)
    one.page.fill("#least", "12")
    assert one.shown() == list(lesions.query("type == @kind and long_mm >= 12").index)
    one.page.click("#clear")
    assert one.shown() == list(lesions.index)
    one.page.fill("#most", "14.5")
    one.page.select_option("#split", "train")
    assert one.shown() == list(lesions.query("split == 'train' and long_mm <= 14.5").index)
    one.page.click("#clear")
    patient = lesions["patient_id"].iloc[-1]
    one.page.fill("#text", patient)
    assert one.shown() == list(lesions.query("patient_id == @patient").index)
    one.page.fill("#text", "no such words")
    assert (one.shown(), one.text("#found")) == ([], "0 shown")


def test_heads_of_the_table_sort_it(tab, server, lesions):
    one = tab(server).go().wait(lesions.iloc[0], lesions["key_z"].iloc[0])
    one.page.click("text=Long")
    assert one.shown() == list(lesions.sort_values("long_mm", ascending=False, kind="stable").index)
    one.page.click("text=Long")
    assert one.shown() == list(lesions.sort_values("long_mm", kind="stable").index)
    assert one.page.get_attribute(".head .longMm", "aria-sort") == "ascending"
    one.page.click("text=Long")
    assert one.shown() == list(lesions.index)


def test_the_key_slice_is_what_the_reader_gives_in_every_window(tab, server, lesions, sample_store):
    lesion = lesions.iloc[3]
    one = tab(server).open(lesion)
    assert_shows(one.grey(), crop_of(sample_store, lesion))
    names = one.page.eval_on_selector_all("#presets button", "buttons => buttons.map(button => button.dataset.window)")
    assert names[0] == "own"
    # mediastinum and abdomen are the same range
    assert set(names[1:]) == set(PRESETS) - {"abdomen"}
    for number, name in enumerate(names[1:], start=2):
        one.page.keyboard.press(str(number))
        low, high = (float(one.page.get_attribute(f"[data-window={name}]", f"data-{end}")) for end in ("low", "high"))
        assert (low, high) == (PRESETS[name].low, PRESETS[name].high)
        assert one.page.get_attribute(f"[data-window={name}]", "aria-pressed") == "true"
        assert_shows(one.grey(), crop_of(sample_store, lesion, window=name))


@pytest.mark.parametrize("profile", ["fast", "dense"])
def test_the_other_profiles_are_read_or_named(tab, sample, tmp_path, profile):
    store = tmp_path / "a.zarr"
    lesionzarr.convert("deeplesion", sample, store, profile=profile)
    lesion = lesionzarr.open(store).lesions.iloc[0]
    with serving(store) as server:
        one = tab(server).go()
        if profile == "fast":
            one.wait(lesion, lesion["key_z"])
            assert_shows(one.grey(), crop_of(store, lesion))
        else:
            assert "browsers cannot read codec numcodecs.pcodec; convert with --profile portable" in one.fault()


def test_real_slices_are_what_the_reader_gives(tab, real_store):
    lesions = lesionzarr.open(real_store).lesions
    with serving(real_store) as server:
        one = tab(server)
        for _, lesion in lesions.iterrows():
            one.open(lesion)
            assert_shows(one.grey(), crop_of(real_store, lesion, size=512))


def test_box_and_axes_stand_where_the_table_says(tab, server, lesions):
    lesion = lesions.iloc[5]
    one = tab(server).open(lesion)
    place = one.page.locator("#marks rect.box").evaluate(
        "e => ['x', 'y', 'width', 'height'].map(name => Number(e.getAttribute(name)))"
    )
    # its ends are centres of pixels that are inside of it
    size = lesion["x1"] - lesion["x0"] + 1, lesion["y1"] - lesion["y0"] + 1
    assert place == pytest.approx([lesion["x0"] - 0.5, lesion["y0"] - 0.5, *size])
    for name, axis in (("long", lesion["recist"][:4]), ("short", lesion["recist"][4:])):
        line = one.page.locator(f"#marks line.{name}").evaluate(
            "e => ['x1', 'y1', 'x2', 'y2'].map(name => Number(e.getAttribute(name)))"
        )
        assert line == pytest.approx(list(axis))
    # on the screen a pixel of the slice reaches half a pixel to both sides of its centre
    for key in ("", "f"):
        if key:
            one.page.keyboard.press(key)
        slice_, box = (
            one.page.evaluate(
                """name => { const r = document.querySelector(name).getBoundingClientRect();
                             return [r.x, r.y, r.width, r.height]; }""",
                name,
            )
            for name in ("#slice", "#marks rect.box")
        )
        pixel = slice_[2] / 96
        assert box[0] == pytest.approx(slice_[0] + lesion["x0"] * pixel, abs=1.5)
        assert box[1] == pytest.approx(slice_[1] + lesion["y0"] * pixel, abs=1.5)
        assert box[2] == pytest.approx(size[0] * pixel, abs=2.5)


def test_marks_are_hidden_by_their_keys_and_leave_with_the_key_slice(tab, server, lesions):
    lesion = lesions.iloc[5]
    one = tab(server).open(lesion)
    count = one.page.locator("#marks line, #marks rect.box").count
    assert count() == 3
    one.page.keyboard.press("r")
    assert count() == 1
    one.page.keyboard.press("b")
    assert count() == 0
    one.page.keyboard.press("b")
    one.page.keyboard.press("r")
    one.page.keyboard.press("ArrowDown")
    one.wait(lesion, lesion["key_z"] + 1)
    assert count() == 0


def test_wheel_keys_and_slider_scroll_through_the_slices(tab, server, lesions, sample_store):
    lesion = lesions.iloc[0]
    volume = lesionzarr.open(sample_store).volume(lesion["volume_id"])["hu"].to_numpy()
    one = tab(server).open(lesion)
    low, high = lesion["window_low"], lesion["window_high"]

    def check(z):
        one.wait(lesion, z)
        expected = (np.clip((volume[z].astype(float) - low) / (high - low), 0, 1) * 255).astype(np.uint8)
        assert np.array_equal(one.grey(), expected)
        assert one.text("#where").startswith(f"slice {z + 1} / {len(volume)}, ")
        assert one.page.input_value("#slider") == str(z)

    z = int(lesion["key_z"])
    one.page.mouse.move(*one.middle())
    one.page.mouse.wheel(0, 100)
    check(z + 1)
    one.page.mouse.wheel(0, -100)
    check(z)
    one.page.keyboard.press("ArrowUp")
    check(z - 1)
    one.page.keyboard.press("Home")
    check(0)
    one.page.keyboard.press("ArrowUp")
    check(0)
    one.page.keyboard.press("End")
    check(len(volume) - 1)
    one.page.locator("#slider").fill("2")
    check(2)
    one.page.keyboard.press("Space")
    check(z)


def test_dragging_changes_width_and_level(tab, server, lesions, sample_store):
    lesion = lesions.iloc[0]
    one = tab(server).open(lesion)
    one.page.keyboard.press("2")
    assert one.text("#window") == "W 450  L 50 HU"
    x, y = one.middle()
    one.page.mouse.move(x, y)
    one.page.mouse.down(button="right")
    one.page.mouse.move(x + 50, y)
    one.page.mouse.up(button="right")
    # a fifth wider for 50 of 250 pixels
    assert one.text("#window") == "W 540  L 50 HU"
    assert_shows(one.grey(), crop_of(sample_store, lesion, window=(-220, 320)))
    one.page.keyboard.down("Shift")
    one.page.mouse.down()
    one.page.mouse.move(x + 50, y + 25)
    one.page.mouse.up()
    one.page.keyboard.up("Shift")
    assert one.text("#window") == "W 540  L 104 HU"
    assert_shows(one.grey(), crop_of(sample_store, lesion, window=(-166, 374)))
    # a plain drag moves the slice, and leaves the window
    before = one.page.locator("#slice").bounding_box()
    one.page.mouse.down()
    one.page.mouse.move(x + 80, y + 25)
    one.page.mouse.up()
    assert one.page.locator("#slice").bounding_box()["x"] == pytest.approx(before["x"] + 30, abs=0.5)
    assert one.text("#window") == "W 540  L 104 HU"


def test_a_link_opens_its_lesion_and_survives_a_reload(tab, server, lesions):
    lesion, following = lesions.iloc[4], lesions.iloc[5]
    one = tab(server).open(lesion)
    one.page.reload()
    one.wait(lesion, lesion["key_z"])
    assert one.text("#name") == lesion.name
    assert lesion.name in one.page.title()
    one.page.keyboard.press("j")
    one.wait(following, following["key_z"])
    assert one.page.url.endswith(f"#lesion={following.name}")
    assert one.page.get_attribute('#table [aria-selected="true"]', "data-lesion") == following.name
    one.page.keyboard.press("k")
    one.wait(lesion, lesion["key_z"])
    one.page.go_back()
    one.wait(following, following["key_z"])
    one.page.click(f'#table [data-lesion="{lesions.index[0]}"]')
    one.wait(lesions.iloc[0], lesions["key_z"].iloc[0])
    one.go("no-such-lesion")
    assert one.fault() == "no lesion no-such-lesion in this store"


def test_thumbnails_are_crops_round_the_lesion_in_its_own_window(tab, server, lesions, sample_store):
    one = tab(server).open(lesions.iloc[0])
    one.page.click("#tab-gallery")
    lesion = lesions.iloc[1]
    one.page.wait_for_selector(f'[data-lesion="{lesion.name}"] canvas')
    one.page.eval_on_selector(f'[data-lesion="{lesion.name}"] canvas', "canvas => canvas.id = 'thumbnail'")
    picture = one.pixels("thumbnail")[..., 0]
    whole, _, (top, left) = crop_of(sample_store, lesion, size=256)
    row = (lesion["y0"] + lesion["y1"] - len(picture) + 1) / 2 - top
    column = (lesion["x0"] + lesion["x1"] - len(picture) + 1) / 2 - left
    fits = [
        np.abs(whole[r : r + len(picture), c : c + len(picture)].astype(int) - picture).max()
        for r in (int(row), int(row) + 1)
        for c in (int(column), int(column) + 1)
    ]
    # rounded to one of the four
    assert min(fits) <= 1
    one.page.click(f'#gallery [data-lesion="{lesion.name}"]')
    one.wait(lesion, lesion["key_z"])


def test_thumbnails_of_one_volume_are_told_apart_by_what_is_written_below_them(tab, tmp_path):
    store = tmp_path / "recist.zarr"
    source = recist_dataset(tmp_path / "source", patients=1, image_size=64, slices=20)
    lesionzarr.convert("recist-dataset", source, store)
    rows = lesionzarr.open(store).lesions
    assert rows.index.str.len().min() > 30
    with serving(store) as server:
        one = tab(server).open(rows.iloc[0])
        one.page.click("#tab-gallery")
        one.page.wait_for_selector(f'#gallery [data-lesion="{rows.index[1]}"]')
        # the last text of a line, where it ends, and where its tile does
        tiles = one.page.eval_on_selector_all(
            "#gallery .tile",
            """tiles => tiles.map(tile => [tile.dataset.lesion, ...[".name", ".facts"].map(line => {
                const text = tile.querySelector(line).lastChild, range = document.createRange();
                range.selectNodeContents(text);
                return [text.textContent, range.getBoundingClientRect().right - tile.getBoundingClientRect().right];
            })])""",
        )
        assert len(tiles) > 2
        for lesion_id, (name, beyond), (facts, facts_beyond) in tiles:
            assert name == lesion_id[-9:]
            assert max(beyond, facts_beyond) <= 0
            length = rows.loc[lesion_id, "long_mm"]
            assert facts.endswith(f"{length:.1f} mm") == pd.notna(length)


def test_on_a_phone_the_slice_comes_first_and_nothing_is_beside_it(tab, server, lesions):
    one = tab(server)
    one.page.set_viewport_size({"width": 390, "height": 760})
    one.open(lesions.iloc[0])
    assert one.page.evaluate("document.documentElement.scrollWidth") <= 390
    stage, about, browser = (one.page.locator(name).bounding_box() for name in ("#stage", "#about", "#browser"))
    assert stage["width"] > 300
    assert 250 < stage["height"] < 0.8 * 760
    assert stage["y"] + stage["height"] <= about["y"]
    assert about["y"] + about["height"] <= browser["y"]
    one.page.click(f'#table [data-lesion="{lesions.index[1]}"]')
    one.wait(lesions.iloc[1], lesions["key_z"].iloc[1])
    assert one.page.locator("#stage").bounding_box()["y"] == pytest.approx(0, abs=1)


def test_a_mask_is_tinted_voxel_by_voxel(tab, tmp_path):
    store = tmp_path / "recist.zarr"
    lesionzarr.convert("recist-dataset", recist_dataset(tmp_path / "source", patients=1, image_size=64), store)
    catalog = lesionzarr.open(store)
    lesion = catalog.lesions.iloc[0]
    mask = catalog.mask(lesion["volume_id"]).to_numpy()[int(lesion["key_z"])]
    with serving(store) as server:
        one = tab(server).open(lesion)
        rgba = one.pixels("mask")
        assert np.array_equal(rgba[..., 3] > 0, mask > 0)
        own = mask == lesion["mask_label"]
        assert len(np.unique(rgba[own], axis=0)) == 1
        assert own.any()
        edges = one.page.get_attribute("#marks .outline.own", "d").count("M")
        padded = np.pad(own, 1).astype(int)
        assert edges == np.abs(np.diff(padded, axis=0)).sum() + np.abs(np.diff(padded, axis=1)).sum()
        one.page.keyboard.press("m")
        assert not one.pixels("mask").any()


def copy_with(store, destination, change):
    """Copy a store, and change a table of its catalog."""
    shutil.copytree(store, destination)
    for path in (destination / "catalog").glob("*/*.parquet"):
        change(path.stem, pd.read_parquet(path)).to_parquet(path, compression="zstd", index=False)
    return destination


def test_pixels_that_are_higher_than_wide_are_drawn_so_and_the_scale_is_in_mm(tab, sample_store, tmp_path):
    def stretch(name, table):
        return table.assign(spacing_y_mm=table["spacing_x_mm"] * 1.5) if name == "volumes" else table

    store = copy_with(sample_store, tmp_path / "a.zarr", stretch)
    catalog = lesionzarr.open(store)
    lesion = catalog.lesions.iloc[0]
    spacing = catalog.volumes["spacing_x_mm"][lesion["volume_id"]]
    with serving(store) as server:
        one = tab(server).open(lesion)
        for _ in range(2):
            slice_, bar = one.page.locator("#slice").bounding_box(), one.page.locator("#scale").bounding_box()
            assert slice_["height"] / slice_["width"] == pytest.approx(1.5, rel=1e-3)
            mm = float(one.text("#scale").removesuffix(" mm"))
            assert bar["width"] / slice_["width"] == pytest.approx(mm / (96 * spacing), rel=0.02)
            one.page.keyboard.press("f")


def test_a_lesion_on_a_pet_volume_is_shown_in_suv(tab, tmp_path):
    pytest.importorskip("pydicom", reason="no pydicom: pip install 'lesionzarr[dicom]'")
    source = tmp_path / "source.zarr"
    lesionzarr.convert("lung-pet-ct-dx", lung_pet_ct_dx(tmp_path / "Lung", subjects=2), source)
    volumes = lesionzarr.open(source).volumes
    pet = volumes[volumes["modality"] == "PT"].iloc[0]

    def move(name, table):
        return table if name == "volumes" else table.assign(volume_id=pet.name, key_z=3, extra=None)

    catalog = lesionzarr.open(copy_with(source, tmp_path / "a.zarr", move))
    suv = json.loads(pet["tags"])["SUV"]["body_weight"] * catalog.volume(pet.name)["activity"][3].to_numpy().astype(
        float
    )
    with serving(tmp_path / "a.zarr") as server:
        one = tab(server).open(catalog.lesions.iloc[0])
        grey = apply_window(suv, Window(0, 5)).astype(int)
        assert grey.max() > 20
        assert np.abs(one.grey() - grey).max() <= 1
        assert one.text("#window") == "W 5.0  L 2.5 SUV"


def test_a_table_of_all_of_deeplesion_is_quick_and_ends_with_its_last_row(tab, sample_store, tmp_path):
    count = 32_735

    def repeat(name, table):
        if name == "volumes":
            return table
        rows = table.iloc[np.arange(count) % len(table)].reset_index(drop=True)
        return rows.assign(lesion_id=[f"lesion_{number}" for number in range(count)])

    store = copy_with(sample_store, tmp_path / "a.zarr", repeat)
    lesions = lesionzarr.open(store).lesions
    with serving(store) as server:
        one = tab(server).open(lesions.iloc[-1])
        assert one.text("#counts").startswith("32,735 lesions")
        assert one.page.is_visible(f'#table [data-lesion="lesion_{count - 1}"]')
        assert len(one.shown()) < 60
        one.page.fill("#text", "lesion_3273")
        assert one.shown()[:3] == ["lesion_3273", "lesion_32730", "lesion_32731"]


def test_what_is_wrong_is_told_in_one_line(tab, server, sample_store, tmp_path):
    one = tab(server)
    assert one.go(query="?store=none/").fault().startswith(f"no store at {server.url}none/")
    assert one.go(query="?store=file:///tmp/a.zarr").fault().startswith("file:// cannot be read by a browser")
    with serving(sample_store) as gone:
        pass
    assert one.go(query=f"?store={gone.url}store").fault().endswith(f"does it allow {server.url[:-1]} by CORS?")
    store = tmp_path / "a.zarr"
    shutil.copytree(sample_store, store)
    lesion = lesionzarr.open(store).lesions.iloc[0]
    path = store / "volumes" / lesion["volume_id"] / "hu/c/0/0/0"
    data = bytearray(path.read_bytes())
    data[200] ^= 1
    path.write_bytes(data)
    with serving(store) as other:
        # no CORS: that server is for its own page
        assert "by CORS?" in one.go(query=f"?store={other.url}store").fault()
        two = tab(other)
        assert "a chunk is damaged (its CRC-32C differs); convert the volume again" in two.go().fault()
        path.unlink()
        assert two.go().fault().endswith("/hu/c/0/0/0 is missing; convert the volume again")
        (table,) = (store / "catalog").glob("*/lesions.parquet")
        table.unlink()
        assert two.go().fault().endswith("lesions.parquet is missing; end the conversion, or run `lesionzarr index`")
        (store / "catalog/tables.json").write_text("{}")
        assert two.go().fault().endswith("catalog/tables.json is damaged; run `lesionzarr index`")


def test_a_store_of_the_first_versions_is_shown(tab, sample_store, tmp_path):
    store = shutil.copytree(sample_store, tmp_path / "a.zarr")
    (store / "catalog/tables.json").unlink()
    for path in (store / "catalog").glob("*/*.parquet"):
        path.rename(store / "catalog" / path.name)
    with serving(store) as server:
        one = tab(server).open(lesionzarr.open(store).lesions.iloc[0])
        assert one.text("#counts").startswith("16 lesions")
