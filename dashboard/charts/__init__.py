"""The charts of the pages: a frame goes in, an Altair figure comes out."""
