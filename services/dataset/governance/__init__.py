"""Who may, who did, and which models saw what; the content of rows is not known here."""
