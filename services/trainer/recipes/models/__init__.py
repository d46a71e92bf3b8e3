"""Models before they learn: loaded, made, adapted, quantized and put on a device; knows no rows."""
