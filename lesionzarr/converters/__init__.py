"""Source datasets to stores: one file a dataset, registered in the entry-point group ``lesionzarr.converters``."""
