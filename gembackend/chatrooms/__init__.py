"""Chatrooms: made, listed, looked at, renamed and deleted by their owner."""
