"""Generated from protos/agent_sessions/v1 by `make protos`; do not edit."""
