"""Models from a hub: which files of a repository a model needs, and how they get here whole."""
