"""Activations: harvested from a model, stored in corpus order, streamed shuffled."""
