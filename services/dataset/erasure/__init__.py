"""Erasure: rows that are taken out of every version, shredded, and kept from coming back."""
