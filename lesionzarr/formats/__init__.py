"""File formats to arrays and records. Knows no dataset and no Zarr."""
