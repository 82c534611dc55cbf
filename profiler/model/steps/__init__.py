"""A model as steps that patching acts on: its own modules, or its weights written out."""
