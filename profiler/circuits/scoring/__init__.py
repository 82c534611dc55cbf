"""How good a circuit is: faithfulness, completeness, minimality, stability, beside random circuits."""
