"""Who waits for a prompt, and who listens to a room: what this process tells them, and what it hears from others."""
