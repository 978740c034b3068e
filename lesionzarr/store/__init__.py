"""The only room that knows Zarr and bytes."""
