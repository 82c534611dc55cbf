"""What is printed: cleaned text, tables, losses."""
