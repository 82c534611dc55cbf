"""What a head's weights say: copying, matching, composition, beside all other heads."""
