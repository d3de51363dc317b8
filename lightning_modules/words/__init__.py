"""The words of captions on which similarities depend: which there are, and which captions have them."""
