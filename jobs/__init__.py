"""Floor 2: what a job is and what happens to it. Pure: no I/O, no clock, no threads, no randomness of its own."""
