"""Companion tables that other groups published for a dataset, read into plain values in lesionzarr's conventions."""
