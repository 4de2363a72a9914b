"""What the browser tests share: a driven Chromium, the front end's own objects, saved workflows, a model with text."""
