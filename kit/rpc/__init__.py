"""How the services speak gRPC: errors, interceptors, servers, channels, pass-through, names."""
