"""The prompt engine: from an accepted prompt to a stored answer."""
