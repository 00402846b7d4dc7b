"""The session service: everything behind the RPC boundary.

A save goes one way: interceptors -> servicer -> manager -> store -> PostgreSQL.
"""
