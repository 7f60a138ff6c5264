"""Messages and prompts as a client sees them: sending, watching, reading back."""
