"""What a component does, as falsifiable statements: token properties, behaviours, and the SQL that evaluates them.

    properties.py   static properties of tokens, any number per token, as SQL over the token's text
    library.py      behaviours: claims about a position (attention, context, token), as SQL over a position's columns
    expressions.py  checks that what a user gives is one true-or-false expression over known columns
    views.py        the view `behaviour_rows` of a run, generated from its tables of properties and behaviours
    additions.py    adding a user's classes and behaviours to a finished run, whole or not at all

Everything is SQL on rows a run has already, so a claim can be made after the pass. No torch.
"""
