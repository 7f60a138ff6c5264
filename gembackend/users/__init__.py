"""People: who they are, what they may see and change of themselves, and the version their tokens must have."""
