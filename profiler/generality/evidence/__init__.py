"""Findings, claims, the ledger of evidence and the verdict. No torch."""
