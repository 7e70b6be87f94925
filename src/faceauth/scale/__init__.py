"""Detection on many machines, by Ray Data: extra `scale`. It uses the core, and the core knows nothing of it."""
