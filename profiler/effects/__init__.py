"""Total effects: what each component does to the next tokens through everything after it. Read `measure` first."""
