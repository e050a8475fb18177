"""Serving: many conversations at once with one model, in process and over HTTP."""
