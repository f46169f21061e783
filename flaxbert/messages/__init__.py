"""Texts for people, in their language: which one, and the translations."""
