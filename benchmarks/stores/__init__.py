"""The stores that are compared, each behind the same Protocol."""

import importlib

from benchmarks.stores.base import Store

STORES = {
    "floor": ("floor", "FloorStore"),
    "relay": ("relay", "RelayStore"),
    "relay-unary": ("relay", "RelayUnaryStore"),
    "overwrite": ("overwrite", "OverwriteStore"),
    "langgraph": ("langgraph_saver", "LangGraphStore"),
    "langgraph-delta": ("langgraph_delta", "LangGraphDeltaStore"),
    "google-adk": ("google_adk", "GoogleAdkStore"),
    "openai-agents": ("openai_agents", "OpenAiAgentsStore"),
    "ours": ("ours", "OurStore"),
    "ours-unary": ("ours", "OurUnaryStore"),
    "ours-snapshot": ("ours", "OurSnapshotStore"),
    "ours-packing": ("ours", "OurPackingStore"),
}
"""Module and class by name. Imported when used: the peers' packages are only in the benchmarks' environment."""

OURS = frozenset(name for name, (module, _) in STORES.items() if module == "ours")
RELAYS = frozenset(name for name, (module, _) in STORES.items() if module == "relay")
PEERS = frozenset({"langgraph", "langgraph-delta", "google-adk", "openai-agents"})
"""Products, of which the fastest is compared with ours; floor and overwrite are statements."""
PACKING = frozenset({"ours-packing"})
"""Those whose server packs while it saves, with its default budget: there it is also seen what that holds back."""
WHOLE_STATE = frozenset({"overwrite", "langgraph", "ours-snapshot"})
"""Each save carries everything: a session of 5,000 messages would take gigabytes."""


def tables_of(name: str) -> str:
    """Return what tables a store uses: ours are the same, however they are reached."""
    return "ours" if name in OURS else name


def make(name: str) -> Store:
    """Return a store that is not open yet."""
    module, kind = STORES[name]
    store: Store = getattr(importlib.import_module(f"benchmarks.stores.{module}"), kind)()
    return store
