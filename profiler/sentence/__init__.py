"""What the model does on a text of one's own, each value beside what the component does in the whole corpus."""
