"""Load a language model, name a site in it, read and replace activations there."""
