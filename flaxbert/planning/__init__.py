"""Plans: what a run would need and cost on chips that are not here."""
