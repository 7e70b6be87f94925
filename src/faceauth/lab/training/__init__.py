"""Networks, how they are trained, and how they become model files."""
