"""Six small libraries for every service; no domain noun lives in any of them."""
