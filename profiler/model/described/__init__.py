"""What stands at sites of a model, described again by dictionaries: read, attributed, put in."""
