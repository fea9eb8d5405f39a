"""How processes speak: errors as gRPC status, channels and servers, conversions to and from the wire."""
