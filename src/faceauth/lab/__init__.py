"""The laboratory: where detectors are trained and judged. Needs `pip install 'faceauth[lab]'`."""
