"""Features of documents: what is known of each document and since when, for choosing data and for looking up."""
