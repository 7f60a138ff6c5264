"""HTTP: routes as data, bodies and queries as typed values, every error as one kind of document."""
