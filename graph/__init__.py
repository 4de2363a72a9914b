"""Floor 2: prompts as data. Pure functions over API-format prompts."""
