"""Interventions: change features while a model runs, and measure what they do."""
