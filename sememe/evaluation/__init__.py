"""How good a dictionary is, on text that it was not trained on."""
