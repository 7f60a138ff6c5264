"""Subscriptions: Stripe is the truth about money, and what it says decides the tier."""
