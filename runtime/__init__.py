"""Floor 4: the coordinator on the master and the agent on a worker."""
