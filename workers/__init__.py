"""Floor 3: the other instances: who they are, and the link to each."""
