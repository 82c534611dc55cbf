"""How much of a component's importance its role covers: on all text, and at the positions of prompts."""
