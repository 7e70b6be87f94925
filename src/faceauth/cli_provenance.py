"""The command `faceauth provenance`."""
