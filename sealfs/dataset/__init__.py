"""What a sealed dataset is: docs/format.md in code. Knows stores by their protocol, and neither FUSE nor S3."""
