"""The laboratory: where detectors are trained and evaluated. Needs `pip install 'faceauth[lab]'`."""
