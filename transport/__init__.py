"""Floor 2: tensors on their way: files, spool, fetching, precision."""
