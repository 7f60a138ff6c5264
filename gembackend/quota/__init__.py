"""How many prompts a user may send in a UTC day."""
