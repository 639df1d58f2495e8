"""The browser of an atlas: a loopback server and its pages, each with a JSON twin."""
