"""Images and the like beside rows: named by digest, kept while a part names them, shown as PNG."""
