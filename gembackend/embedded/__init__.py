"""What `gembackend dev` and the tests start: real PostgreSQL, real Redis, and stand-ins for the vendors."""
