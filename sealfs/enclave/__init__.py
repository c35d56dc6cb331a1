"""Where there is no FUSE: a dataset attached in the process itself (runtime/), and the launcher that does it."""
