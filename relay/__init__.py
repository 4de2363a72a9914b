"""Floor 3: how work goes, told to screens: the event stream, and pictures of what is being made."""
