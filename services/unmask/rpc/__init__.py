"""The gRPC edge: serving, error mapping, conversion between the domain and the protos, and the client."""
