"""Sources of images, their splits, and how they are handed to a network."""
