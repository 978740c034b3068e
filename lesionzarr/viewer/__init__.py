"""The viewer: a page that reads a store in the browser, and the server of both."""

from pathlib import Path

PAGE = Path(__file__).parent / "page"
"""Folder of the built page: static files that can be put beside any store."""
