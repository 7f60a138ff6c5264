"""Gemini behind one door: `client.Gemini` asks, `faults.Reply` and `faults.Failure` are what it may answer."""
