"""Model configs and run files that come with Trainwright: data, no code."""
