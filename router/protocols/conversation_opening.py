"""How a conversation begins: later turns keep it, so that it tells callers apart."""


def conversation_opening(messages: object) -> list[object]:
    """Everything up to the first user message but for answers; empty when there is none."""
    if not isinstance(messages, list):
        return []
    opening: list[object] = []
    for message in messages:
        if not isinstance(message, dict):
            return []
        role = message.get("role")
        if role in ("system", "developer", "user"):
            opening.append((role, message.get("content")))
        if role == "user":
            return opening
    return []
