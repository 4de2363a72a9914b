"""One file for each change of the tables, `r<number>_<what>.py`."""
