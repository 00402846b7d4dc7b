"""The RPC boundary: parse a request, call one use case, convert the answer."""
