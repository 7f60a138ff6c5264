"""Accounts and sessions: signing up, logging in with a password and a code, and the tokens that come of it."""
