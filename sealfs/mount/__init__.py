"""Thin FUSE adapters over vfs.py, and the process that keeps a mount alive."""
