"""How payloads are packed before they are stored."""
