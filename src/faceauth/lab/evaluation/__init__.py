"""How a detector is judged: one protocol for every number."""
