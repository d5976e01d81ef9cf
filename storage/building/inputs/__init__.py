"""What a token store is built from: one file per format, each giving documents in order."""
