"""All cases: what imports this has them in `CASES`."""

from runtime.probes import changes, children, descriptors, frameworks, libraries, names
from runtime.probes.cases import CASES, NEEDS

FILES = (changes, children, descriptors, names)  # on the folder of trees.py
__all__ = ["CASES", "FILES", "NEEDS", "frameworks", "libraries"]
